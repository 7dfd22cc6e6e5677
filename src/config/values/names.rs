//! One set of rules for names of AWS's that people write: ids, regions, clusters, task definitions. Under every key, a text
//! that can never be such a name is refused with the same reason.

use super::super::{arn, zone};
use super::texts::parse_text;

/// Reads a text that is one name: it is sent to AWS as it is.
pub(super) fn parse_plain(text: &str, what: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    match slip(&text).or_else(|| several(&text)) {
        Some(slip) => Err(format!("{text:?} is no {what}: {slip}")),
        None => Ok(text),
    }
}

/// Reads a region's name.
pub(in crate::config) fn parse_region(text: &str) -> Result<String, String> {
    let text = parse_plain(text, "region")?;
    if let Some(region) = zone::region(&text) {
        return Err(format!(
            "{text:?} is a zone, and no region: its region is {region:?}"
        ));
    }
    match zone::is_region(&text) {
        true => Ok(text),
        false => Err(format!(
            "{text:?} is no region: they read like \"eu-west-1\""
        )),
    }
}

/// Reads a cluster's name or ARN.
pub(in crate::config) fn parse_cluster(text: &str) -> Result<String, String> {
    let text = parse_plain(text, "cluster")?;
    if is_arn(&text) {
        return match arn::cluster(&text) {
            Some(_) => Ok(text),
            None => Err(format!(
                "{text:?} is no cluster's ARN: they read arn:aws:ecs:REGION:ACCOUNT:cluster/NAME"
            )),
        };
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.len() > 255 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is no cluster's name: up to 255 letters, digits, '-' and '_'"
        ));
    }
    Ok(text)
}

/// Reads what names a task definition: family, family:revision or ARN.
pub(in crate::config) fn parse_task_definition(text: &str) -> Result<String, String> {
    let text = parse_plain(text, "task definition")?;
    if arn::family(&text)
        .or_else(|| arn::task_definition(&text))
        .is_some()
    {
        return Ok(text);
    }
    Err(match text.strip_suffix(':') {
        Some(family) => format!(
            "{text:?} is no task definition: the revision is missing after the colon; {family:?} alone means the newest"
        ),
        None => format!("{text:?} is no task definition: write its family, family:revision or ARN"),
    })
}

/// Reads a Fargate platform version.
pub(in crate::config) fn parse_platform_version(text: &str) -> Result<String, String> {
    let text = parse_plain(text, "platform version")?;
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if text.eq_ignore_ascii_case("LATEST") || text.split('.').all(number) {
        return Ok(text);
    }
    Err(format!(
        "{text:?} is no platform version: write LATEST or numbers such as \"1.4.0\""
    ))
}

pub(in crate::config) fn parse_subnet(text: &str) -> Result<String, String> {
    id(text, "subnet-", "subnet's id")
}

pub(in crate::config) fn parse_security_group(text: &str) -> Result<String, String> {
    id(text, "sg-", "security group's id")
}

/// What the ids of other things begin with, and what these are.
const OTHERS: [(&str, &str); 6] = [
    ("subnet-", "subnet's"),
    ("sg-", "security group's"),
    ("vpc-", "VPC's"),
    ("ami-", "machine image's"),
    ("lt-", "launch template's"),
    ("i-", "instance's"),
];

fn id(text: &str, prefix: &str, what: &str) -> Result<String, String> {
    let text = parse_plain(text, what)?;
    if has_id(&text, prefix) {
        return Ok(text);
    }
    let other = OTHERS.iter().find(|(other, _)| has_id(&text, other));
    Err(match other {
        Some((_, owner)) => format!("{text:?} is no {what}: it is a {owner} id"),
        None if is_arn(&text) => {
            format!("{text:?} is no {what}: of an ARN only what begins with {prefix} is wanted")
        }
        None => {
            format!("{text:?} is no {what}: they begin with {prefix}, digits and letters follow")
        }
    })
}

pub(super) fn has_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Reads a pattern under `[limits]`: one that can fit nothing is an error.
pub(super) fn parse_pattern(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let cut_off = || {
        let what = "something is missing after the colon";
        text.ends_with(':').then(|| what.to_owned())
    };
    match slip(&text).or_else(|| several(&text)).or_else(cut_off) {
        Some(slip) => Err(format!("{text:?} fits nothing: {slip}")),
        None => Ok(text),
    }
}

/// Reads the name of a key pair, which may have nearly any character.
pub(super) fn parse_key_name(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    match slip(&text) {
        Some(slip) => Err(format!("{text:?} is no key pair's name: {slip}")),
        None => Ok(text),
    }
}

/// Returns which character or blank in a text cannot be part of a name.
pub(super) fn slip(text: &str) -> Option<String> {
    if let Some(c) = text.chars().find(|c| is_unseen(*c)) {
        return Some(format!(
            "it holds a character that nobody sees, U+{:04X}; write the text anew",
            u32::from(c)
        ));
    }
    if text.trim() != text {
        return Some("there are blanks around it".to_owned());
    }
    let bracketed = |open: &str, close: &str| text.contains(open) && text.contains(close);
    if text.contains('$') || bracketed("{{", "}}") || bracketed("<", ">") || bracketed("%{", "}") {
        return Some("nothing is filled in here, so write the value itself".to_owned());
    }
    if text.contains(['"', '\'', '`']) {
        return Some("there are quotes in it".to_owned());
    }
    None
}

/// Says that one text names several.
fn several(text: &str) -> Option<String> {
    text.contains([',', ';', ' ', '|'])
        .then(|| "it would be one name; several are written as a list, [\"…\", \"…\"]".to_owned())
}

/// Whether a character is invisible, or looks like a plain blank.
pub(super) fn is_unseen(c: char) -> bool {
    let blank = c.is_whitespace() && c != ' ';
    blank
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180b}'..='\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

fn is_arn(text: &str) -> bool {
    text.starts_with("arn:")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parse = fn(&str) -> Result<String, String>;

    const ALL: [(&str, Parse, &str); 6] = [
        ("region", parse_region, "eu-west-1"),
        ("cluster", parse_cluster, "ci"),
        ("task definition", parse_task_definition, "ci-job"),
        ("platform version", parse_platform_version, "1.4.0"),
        ("subnet's id", parse_subnet, "subnet-0a1b2c3d"),
        ("security group's id", parse_security_group, "sg-0a1b2c3d"),
    ];

    #[test]
    fn what_slips_into_a_name_is_told_whatever_it_names() {
        for (what, parse, right) in ALL {
            assert_eq!(parse(right).as_deref(), Ok(right));
            for (slipped, told) in [
                (format!("{right} "), "blanks around it"),
                (format!("{right},{right}"), "written as a list"),
                (format!("{right} {right}"), "written as a list"),
                (format!("{right}\u{200b}"), "U+200B"),
                (format!("\u{a0}{right}"), "U+00A0"),
                (format!("\u{feff}{right}"), "U+FEFF"),
                (format!("'{right}'"), "quotes in it"),
                ("$NAME".to_owned(), "nothing is filled in"),
                ("${NAME}".to_owned(), "nothing is filled in"),
                (format!("<{right}>"), "nothing is filled in"),
                ("{{ name }}".to_owned(), "nothing is filled in"),
                (format!("\u{ff45}{right}"), "is no "),
                (format!("x:{right}"), "is no "),
            ] {
                let problem = parse(&slipped).unwrap_err();
                assert!(problem.contains(told), "{slipped:?}: {problem}");
                assert!(
                    problem.contains(&format!("is no {}", what.split('\'').next().unwrap())),
                    "{slipped:?}: {problem}"
                );
            }
        }
    }

    #[test]
    fn each_kind_has_words_of_its_own() {
        for (parse, text, told) in [
            (
                parse_region as Parse,
                "eu-west-1a",
                "its region is \"eu-west-1\"",
            ),
            (parse_region, "EU-WEST-1", "read like \"eu-west-1\""),
            (
                parse_cluster,
                "arn:aws:ecs:eu-west-1:111122223333:task/ci",
                "is no cluster's ARN",
            ),
            (parse_cluster, "ci/x", "up to 255 letters"),
            (
                parse_task_definition,
                "ci-job:",
                "revision is missing after the colon; \"ci-job\" alone",
            ),
            (parse_task_definition, "ci-job:latest", "write its family"),
            (parse_platform_version, "1.4.x", "LATEST or numbers"),
            (parse_subnet, "sg-0a1b2c3d", "it is a security group's id"),
            (
                parse_security_group,
                "subnet-0a1b2c3d",
                "it is a subnet's id",
            ),
            (
                parse_subnet,
                "arn:aws:ec2:eu-west-1:111122223333:subnet/subnet-1",
                "of an ARN only",
            ),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(told), "{text}: {problem}");
        }
        for (parse, text) in [
            (
                parse_cluster as Parse,
                "arn:aws:ecs:eu-west-1:111122223333:cluster/ci_1",
            ),
            (
                parse_task_definition,
                "arn:aws-cn:ecs:cn-north-1:111122223333:task-definition/ci:7",
            ),
            (parse_task_definition, "ci:7"),
            (parse_platform_version, "LATEST"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
    }
}
