//! Durations, sizes and numbers of vCPU, read without rounding.

use std::time::Duration;

use super::keys::closest;

/// Every unit of a size, in bytes.
const UNITS: [(&str, u128); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a size exactly: "1.5GiB" is a whole number of bytes, "0.3KiB" is not and is refused.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wanted = "write a number and KiB, MiB, GiB, TiB, KB, MB, GB or TB, such as \"8GiB\"";
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let unit = unit.trim();
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = match closest(unit, UNITS.iter().map(|(name, _)| *name)) {
            Some(name) if !number.is_empty() => format!("; did you mean \"{number}{name}\"?"),
            _ => format!("; {wanted}"),
        };
        return Err(format!("{text:?} is no size{meant}"));
    };
    let (whole, fraction) = decimal(number).ok_or(format!("{text:?} is no size; {wanted}"))?;
    let places = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
    let divisor = 10_u128.checked_pow(places);
    let bytes = format!("{whole}{fraction}")
        .parse::<u128>()
        .ok()
        .and_then(|digits| digits.checked_mul(*scale))
        .zip(divisor)
        .filter(|(scaled, divisor)| scaled % divisor == 0)
        .and_then(|(scaled, divisor)| u64::try_from(scaled / divisor).ok());
    match bytes {
        Some(0) => Err(format!("{text:?} is nothing; {wanted}")),
        Some(bytes) => Ok(bytes),
        None => Err(format!(
            "{text:?} is no whole number of bytes below 16 EiB; {wanted}"
        )),
    }
}

/// The longest wait; it also keeps sums of times far from overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads a duration of more than zero and at most 30 days.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = "write a number and its unit (s, m, h), such as \"90s\"";
    // Part by part: `humantime` adds up some sums that overflow without looking, and panics.
    let parts = parts(text.trim())
        .into_iter()
        .map(humantime::parse_duration);
    let parts: Vec<Duration> = parts
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{text:?} is no duration ({e}); {wanted}"))?;
    let add = |sum: Duration, part| sum.saturating_add(part);
    let wait = parts.into_iter().fold(Duration::ZERO, add);
    if wait.is_zero() {
        return Err(format!("{text:?} is no time at all; {wanted}"));
    }
    if wait > LONGEST_WAIT {
        return Err(format!("{text:?} is longer than 30 days; {wanted}"));
    }
    Ok(wait)
}

/// Splits "1h 30m" before each number that follows a unit.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut after_unit) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c.is_ascii_digit() && after_unit {
            parts.push(&text[begin..at]);
            begin = at;
        }
        if !c.is_whitespace() {
            after_unit = c.is_alphabetic();
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// Reads vCPU to the thousandth.
pub(crate) fn parse_cpu(text: &str) -> Result<u32, String> {
    let wanted = "write a number with at most three decimals, such as \"4\" or \"0.5\"";
    let millis = decimal(text.trim())
        .filter(|(_, fraction)| fraction.len() <= 3)
        .and_then(|(whole, fraction)| format!("{whole}{fraction:0<3}").parse::<u32>().ok());
    match millis {
        Some(millis) if millis > 0 => Ok(millis),
        _ => Err(format!("{text:?} is no number of vCPU; {wanted}")),
    }
}

/// Splits "12.50" into "12" and "50".
fn decimal(text: &str) -> Option<(&str, &str)> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    (digits(whole) && fraction.is_none_or(digits)).then_some((whole, fraction.unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        for (text, want) in [
            ("8GiB", Ok(8 << 30)),
            ("16 GiB", Ok(16 << 30)),
            ("1.5GiB", Ok(3 << 29)),
            ("512MiB", Ok(512 << 20)),
            ("1KB", Ok(1000)),
            ("0.001KB", Ok(1)),
            ("2TB", Ok(2_000_000_000_000)),
            ("8", Err("is no size; write a number and KiB")),
            ("8gb", Err("did you mean \"8GB\"?")),
            ("8gib", Err("did you mean \"8GiB\"?")),
            ("GiB", Err("is no size")),
            ("1.GiB", Err("is no size")),
            ("-1GiB", Err("is no size")),
            ("0GiB", Err("is nothing")),
            ("0.3KiB", Err("no whole number of bytes")),
            ("99999999999TiB", Err("no whole number of bytes")),
            ("", Err("is no size")),
        ] {
            check(text, parse_size(text), want);
        }
        let long = format!("0.{}1KiB", "0".repeat(500));
        assert!(parse_size(&long).is_err());
    }

    #[test]
    fn cpu_is_read_to_the_thousandth() {
        for (text, want) in [
            ("4", Ok(4000)),
            ("0.5", Ok(500)),
            ("0.25", Ok(250)),
            ("16.000", Ok(16_000)),
            ("0", Err("is no number of vCPU")),
            ("0.0001", Err("three decimals")),
            (".5", Err("is no number of vCPU")),
            ("4 vCPU", Err("is no number of vCPU")),
            ("4294968", Err("is no number of vCPU")),
            ("", Err("is no number of vCPU")),
        ] {
            check(text, parse_cpu(text), want);
        }
    }

    #[test]
    fn durations_need_a_unit_and_an_end() {
        let seconds = |n| Ok(Duration::from_secs(n));
        for (text, want) in [
            ("90s", seconds(90)),
            ("1h 30m", seconds(5400)),
            ("1h30m", seconds(5400)),
            ("1.5h", seconds(5400)),
            ("1 h", seconds(3600)),
            ("30days", seconds(30 * 24 * 3600)),
            ("500ms", Ok(Duration::from_millis(500))),
            ("90", Err("is no duration")),
            ("1h 30", Err("is no duration")),
            ("h", Err("is no duration")),
            ("-5s", Err("is no duration")),
            ("0s", Err("no time at all")),
            ("0s 0ms", Err("no time at all")),
            ("31days", Err("longer than 30 days")),
            ("30days 1ms", Err("longer than 30 days")),
            ("soon", Err("such as \"90s\"")),
            ("", Err("is no duration")),
            ("99999999999999999y", Err("is no duration")),
            ("18446744073709551615s", Err("longer than 30 days")),
            // A sum that `humantime` itself makes a panic of.
            ("18446744073709551615s 1000ms", Err("longer than 30 days")),
            (
                "18446744073709551615s 18446744073709551615s",
                Err("longer than 30 days"),
            ),
        ] {
            check(text, parse_duration(text), want);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_duration_panic(text in "\\PC{0,30}|([0-9]{1,21}[. ]?(ns|us|µs|ms|s|m|h|days|w|M|y|x)? ?){0,5}") {
            if let Ok(wait) = parse_duration(&text) {
                prop_assert!(!wait.is_zero() && wait <= LONGEST_WAIT);
            }
        }

        #[test]
        fn what_is_taken_is_what_humantime_reads(a in 0..1_000_u32, b in 0..100_000_u32, unit in "[mh]", blank in " ?") {
            let text = format!("{a}{unit}{blank}{b}s");
            if let Ok(wait) = parse_duration(&text) {
                prop_assert_eq!(Ok(wait), humantime::parse_duration(&text));
            }
        }

        #[test]
        fn no_text_makes_a_size_or_a_number_panic(text in "\\PC{0,30}|[0-9]{0,40}[.]?[0-9]{0,40}(KiB|TiB|TB|x)?") {
            drop((parse_size(&text), parse_cpu(&text)));
        }
    }

    fn check<T: PartialEq + std::fmt::Debug>(
        text: &str,
        got: Result<T, String>,
        want: Result<T, &str>,
    ) {
        match (got, want) {
            (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
            (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
        }
    }
}
