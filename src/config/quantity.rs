//! Sizes and numbers of vCPU, read without rounding.

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

/// Reads a size exactly: "1.5GiB" is a whole number of bytes, "0.3KiB" is none and refused.
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
