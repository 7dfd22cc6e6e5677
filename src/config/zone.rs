//! Regions, and zones that somebody wrote in place of a region. Pure: only AWS knows which regions there are.

/// What the directions of a region's name are shortened to in the ids of its zones.
const DIRECTIONS: [(&str, &str); 9] = [
    ("ne", "northeast"),
    ("nw", "northwest"),
    ("se", "southeast"),
    ("sw", "southwest"),
    ("n", "north"),
    ("e", "east"),
    ("s", "south"),
    ("w", "west"),
    ("c", "central"),
];

/// Returns whether a text reads as the name of a region, `eu-west-1` or `us-gov-east-1`.
#[must_use]
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let Some((number, words)) = parts.split_last() else {
        return false;
    };
    words.len() >= 2
        && words.iter().all(|word| is_word(word))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// Returns the region of a zone, by the zone's name (`eu-west-1a`, `us-west-2-lax-1a`, `us-east-1-wl1-bos-wlz-1`) or id
/// (`euw1-az2`, `use1-wl1-bos-wlz1`); `None` if the text is not a zone.
#[must_use]
pub fn region(zone: &str) -> Option<String> {
    by_name(zone).or_else(|| by_id(zone))
}

fn by_name(zone: &str) -> Option<String> {
    let parts: Vec<&str> = zone.split('-').collect();
    let at = parts
        .iter()
        .position(|part| part.starts_with(|c: char| c.is_ascii_digit()))?;
    let (words, number) = (&parts[..at], parts[at]);
    let letter = number.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &number[..number.len() - letter.len()];
    let is_last = at + 1 == parts.len();
    let of_region = letter.len() == 1 && is_last && is_word(letter);
    let of_place = letter.is_empty() && !is_last;
    let region = format!("{}-{digits}", words.join("-"));
    ((of_region || of_place) && is_region(&region)).then_some(region)
}

fn by_id(zone: &str) -> Option<String> {
    let (short, rest) = zone.split_once('-')?;
    let last = rest.rsplit('-').next()?;
    let number = last
        .strip_prefix("az")
        .or_else(|| last.strip_prefix("wlz"))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let name = short.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &short[name.len()..];
    let (area, direction) = match name.strip_prefix("usg") {
        Some(direction) => ("us-gov", direction),
        None => (name.get(..2)?, name.get(2..)?),
    };
    let (_, direction) = DIRECTIONS.iter().find(|(short, _)| *short == direction)?;
    let region = format!("{area}-{direction}-{digits}");
    is_region(&region).then_some(region)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_told_from_zones() {
        for name in [
            "eu-west-1",
            "us-gov-west-1",
            "ap-southeast-5",
            "cn-north-1",
            "us-isob-east-1",
            "eusc-de-east-1",
            "il-central-1",
        ] {
            assert!(is_region(name), "{name}");
            assert_eq!(region(name), None, "{name}");
        }
        for (zone, of) in [
            ("eu-west-1a", "eu-west-1"),
            ("us-gov-east-1c", "us-gov-east-1"),
            ("us-west-2-lax-1a", "us-west-2"),
            ("us-east-1-wl1-bos-wlz-1", "us-east-1"),
            ("euw1-az2", "eu-west-1"),
            ("apne1-az4", "ap-northeast-1"),
            ("usgw1-az1", "us-gov-west-1"),
            ("usw2-lax1-az1", "us-west-2"),
            ("use1-wl1-bos-wlz1", "us-east-1"),
        ] {
            assert_eq!(region(zone).as_deref(), Some(of), "{zone}");
            assert!(!is_region(zone), "{zone}");
        }
        for neither in [
            "",
            "eu",
            "eu-west",
            "eu-west-",
            "EU-WEST-1",
            "eu_west_1",
            "eu-west-1 ",
            "eu-west-1ab",
            "-1",
            "1a",
            "é-az1",
            "lab",
            "eu-west-111",
        ] {
            assert!(!is_region(neither), "{neither}");
            assert_eq!(region(neither), None, "{neither}");
        }
    }
}
