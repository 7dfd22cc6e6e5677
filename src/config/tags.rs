//! Which tags AWS takes: the strictest rules of ECS, EC2 and STS, so that one check serves all three.

/// The longest key, in characters.
pub const LONGEST_KEY: usize = 128;
/// The longest value, in characters.
pub const LONGEST_VALUE: usize = 256;
/// How many tags an administrator may add: AWS takes 50 on a task, the rest is kept for the driver's own.
pub const OWN: usize = 40;
/// The prefix of the driver's own.
pub const PREFIX: &str = "gitlab-aws-driver:";

/// Returns whether a tag may have this character: letters, digits and white space of any script, and some
/// punctuation. Of white space only the plain blank is taken here, which every service agrees on.
#[must_use]
pub fn is_legal(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, ' ' | '_' | '.' | ':' | '/' | '=' | '+' | '-' | '@')
}

/// Returns what is wrong with a key of an administrator's own tag.
#[must_use]
pub fn key_problem(key: &str) -> Option<String> {
    let lower = key.to_ascii_lowercase();
    if key.trim() != key || key.is_empty() {
        return Some("a tag's key is not empty and has no blanks around it".to_owned());
    }
    if lower.starts_with("aws:") {
        return Some("AWS keeps keys that begin with aws: for itself".to_owned());
    }
    if lower.starts_with(PREFIX) {
        return Some(format!(
            "the driver keeps keys that begin with {PREFIX} for itself"
        ));
    }
    problem(key, "key", LONGEST_KEY)
}

/// Returns what is wrong with a value.
#[must_use]
pub fn value_problem(value: &str) -> Option<String> {
    problem(value, "value", LONGEST_VALUE)
}

fn problem(text: &str, what: &str, longest: usize) -> Option<String> {
    if let Some(c) = text.chars().find(|c| !is_legal(*c)) {
        return Some(format!(
            "a tag's {what} cannot hold {c:?}: letters, digits, blanks and _ . : / = + - @ are all that AWS takes"
        ));
    }
    let length = text.chars().count();
    (length > longest)
        .then(|| format!("the {what} has {length} characters, and AWS takes {longest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_aws_takes_is_taken() {
        for key in [
            "team",
            "cost center",
            "Größe",
            "a:b/c=d+e-f@g.h_i",
            "awsome",
        ] {
            assert_eq!(key_problem(key), None, "{key}");
        }
        for key in [
            "",
            " a",
            "a ",
            "aws:x",
            "AWS:x",
            "gitlab-aws-driver:job",
            "Gitlab-AWS-driver:job",
            "a*b",
            "a\u{a0}b",
            "a,b",
        ] {
            assert!(key_problem(key).is_some(), "{key}");
        }
        assert_eq!(key_problem(&"é".repeat(128)), None);
        assert!(key_problem(&"é".repeat(129)).is_some());
        assert_eq!(value_problem(""), None);
        assert_eq!(value_problem(&"x".repeat(256)), None);
        assert!(value_problem(&"x".repeat(257)).is_some());
        assert!(value_problem("test: [linux, 3.12]").is_some());
        assert!(value_problem("a\nb").is_some());
    }
}
