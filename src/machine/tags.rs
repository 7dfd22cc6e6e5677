//! Texts that AWS takes: one place that makes any text a legal tag, name or reason. Pure.
//!
//! AWS's pattern for tags is `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`, counted in UTF-16. Rust's standard library does not
//! know these classes, and AWS's tables are older than ours, so letters are taken from the scripts in
//! `LETTERS` alone: all of them one UTF-16 unit long and letters for many years. What is left out is replaced, never refused.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::error::one_line;
use crate::hash::sha256_hex;

/// What all keys of this driver's tags begin with.
pub const PREFIX: &str = "gitlab-aws-driver:";
/// What all reasons for StopTask begin with; stop reasons are recognised by it.
const REASON: &str = "gitlab-aws-driver: ";

/// Tags of one resource, all together.
pub(crate) const MAX_TAGS: usize = 50;
/// The launch's own tag is added last.
const FOR_LAUNCH: usize = 1;
/// Characters of a key.
const MAX_KEY: usize = 128;
/// Characters of a value.
const MAX_VALUE: usize = 256;
/// Characters of startedBy: 128 in today's documentation, 36 in older ones.
const MAX_STARTED_BY: usize = 36;
/// Characters of a session's name.
const MAX_SESSION_NAME: usize = 64;
/// Characters of a reason for StopTask.
const MAX_REASON: usize = 255;
/// Hexadecimal digits that tell two long texts with the same beginning apart.
const DIGEST: usize = 10;

/// Scripts (in the Basic Multilingual Plane) whose alphabetic characters are all letters, not marks or symbols.
const LETTERS: &[RangeInclusive<char>] = &[
    'A'..='Z',
    'a'..='z',
    '\u{c0}'..='\u{2af}',    // Latin
    '\u{386}'..='\u{481}',   // Greek, Coptic, Cyrillic
    '\u{48a}'..='\u{556}',   // Cyrillic, Armenian
    '\u{561}'..='\u{587}',   // Armenian
    '\u{5d0}'..='\u{5ea}',   // Hebrew
    '\u{620}'..='\u{64a}',   // Arabic
    '\u{671}'..='\u{6d3}',   // Arabic
    '\u{905}'..='\u{939}',   // Devanagari
    '\u{e01}'..='\u{e30}',   // Thai
    '\u{10a0}'..='\u{10fa}', // Georgian
    '\u{1e00}'..='\u{1ffc}', // Latin, Greek
    '\u{3041}'..='\u{3096}', // Hiragana
    '\u{30a1}'..='\u{30fa}', // Katakana
    '\u{3400}'..='\u{4db5}', // Chinese, Japanese, Korean
    '\u{4e00}'..='\u{9fcc}', // Chinese, Japanese, Korean
    '\u{ac00}'..='\u{d7a3}', // Hangul
];

/// Whose task it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The fleet: all managers that look after each other's leftovers.
    pub fleet: &'a str,
    /// The manager: one state directory.
    pub manager: &'a str,
    /// The Runner's short token or description.
    pub runner: &'a str,
    /// The project's path.
    pub project: &'a str,
    /// The pipeline's id.
    pub pipeline: &'a str,
    /// The job's id.
    pub job: &'a str,
    /// The job's name.
    pub job_name: &'a str,
    /// What the job's state is kept under.
    pub key: &'a str,
    /// When nothing of the job may be alive any more: Unix time, seconds.
    pub until: Option<u64>,
}

/// Tags, and what had to be done to the administrator's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Legal, unique, at most 49, so that there is room for the launch's own; ours first.
    pub tags: Vec<(String, String)>,
    /// One sentence for each tag of the administrator's that was changed or left out.
    pub notes: Vec<String>,
}

/// Returns the tags of a task: ours first, then the administrator's own, as many as there is room for.
#[must_use]
pub fn all(owner: &Owner<'_>, own: &[(String, String)]) -> Tags {
    let deadline = owner.until.map(|until| until.to_string());
    let mut result = Tags::default();
    let ours = [
        ("fleet", owner.fleet),
        ("manager", owner.manager),
        ("runner", owner.runner),
        ("project", owner.project),
        ("pipeline", owner.pipeline),
        ("job", owner.job),
        ("job-name", owner.job_name),
        ("key", owner.key),
        ("deadline", deadline.as_deref().unwrap_or_default()),
    ];
    for (name, text) in ours {
        // What is not known is better not said than said to be empty.
        if !text.is_empty() {
            result.tags.push((format!("{PREFIX}{name}"), value(text)));
        }
    }
    let mut seen = BTreeSet::new();
    for (wanted, text) in own {
        let (Some(key), value) = (key(wanted), value(text)) else {
            result
                .notes
                .push("A tag without a key is left out.".to_owned());
            continue;
        };
        let shown = one_line(wanted);
        if key.to_lowercase().starts_with(PREFIX) {
            result.notes.push(format!(
                "The tag {shown} is left out: keys with {PREFIX} are the driver's own."
            ));
        } else if !seen.insert(key.clone()) {
            result.notes.push(format!(
                "The tag {shown} is left out: another one has the key {key}."
            ));
        } else if result.tags.len() >= MAX_TAGS - FOR_LAUNCH {
            result.notes.push(format!(
                "The tag {shown} is left out: AWS takes {MAX_TAGS} tags in all."
            ));
        } else {
            if key != *wanted || value != *text {
                result.notes.push(format!(
                    "The tag {shown} is sent as {key} = {value:?}: AWS takes letters, digits, spaces and _.:/=+-@ alone."
                ));
            }
            result.tags.push((key, value));
        }
    }
    result
}

/// Makes any text a legal tag value that people can still read. Legal texts stay as they are.
#[must_use]
pub fn value(text: &str) -> String {
    reserved(&cut(text, &replaced(text, is_legal), MAX_VALUE))
}

/// Makes any text a legal tag key; none where nothing is left of it.
#[must_use]
pub fn key(text: &str) -> Option<String> {
    let key = reserved(&cut(text, &replaced(text, is_legal), MAX_KEY));
    (!key.is_empty()).then_some(key)
}

/// Whether AWS takes a text as a tag value (or, up to 128 characters and not empty, as a key), as it stands. What
/// policies decide by (session tags) is better refused than changed. May say no to letters of rare scripts that AWS takes.
#[must_use]
pub fn is_legal_value(text: &str) -> bool {
    text.chars().count() <= MAX_VALUE && text.chars().all(is_legal) && !is_reserved(text)
}

/// Whether AWS takes a text as a tag key, as it stands.
#[must_use]
pub fn is_legal_key(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_KEY && is_legal_value(text)
}

/// Makes any text a legal name of an assumed role's session: 2 to 64 of letters, digits and `_=,.@-`.
#[must_use]
pub fn session_name(text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
    let mut name = cut(text, &replaced(text, legal), MAX_SESSION_NAME);
    while name.len() < 2 {
        name.push('_');
    }
    name
}

/// Returns what RunTask is told about who starts a task; `manager` is the state directory's random id.
#[must_use]
pub fn started_by(manager: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    replaced(&format!("gad-{manager}"), legal)
        .chars()
        .take(MAX_STARTED_BY)
        .collect()
}

/// Whether RunTask takes this as `startedBy`.
#[must_use]
pub fn is_legal_started_by(text: &str) -> bool {
    (1..=MAX_STARTED_BY).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_/".contains(c))
}

/// Returns the client token of one launch: the same for the same parts, another for any others.
#[must_use]
pub fn client_token(parts: &[&str]) -> String {
    // With their lengths, so that no two lists of parts read the same.
    let text: String = parts
        .iter()
        .map(|part| format!("{}:{part};", part.len()))
        .collect();
    sha256_hex(text.as_bytes())
}

/// Whether RunTask takes this as its client token.
#[must_use]
pub fn is_legal_token(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| (33..=126).contains(&b))
}

/// Makes any text a legal reason for StopTask, marked as this driver's.
#[must_use]
pub fn stop_reason(text: &str) -> String {
    format!("{REASON}{}", one_line(text))
        .chars()
        // Counted in UTF-16 by AWS.
        .scan(0, |units, c| {
            *units += c.len_utf16();
            (*units <= MAX_REASON).then_some(c)
        })
        .collect()
}

/// Reads the deadline from a resource's tags: Unix time, seconds; none where there is none or it is no number.
#[must_use]
pub fn deadline(tags: &[(String, String)]) -> Option<u64> {
    own(tags, "deadline")?.parse().ok()
}

/// Returns one of the driver's own tags (`fleet`, `manager`, …) of a task.
#[must_use]
pub fn own<'a>(tags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    tags.iter()
        .find(|(key, _)| key.strip_prefix(PREFIX) == Some(name))
        .map(|(_, value)| value.as_str())
}

fn is_legal(c: char) -> bool {
    c == ' '
        || c.is_ascii_digit()
        || "_.:/=+-@".contains(c)
        || (c.is_alphabetic() && LETTERS.iter().any(|range| range.contains(&c)))
}

/// Puts what is legal in the place of what is not: hyphens for dashes, nothing for accents that stand by
/// themselves, one underscore for any run of others.
fn replaced(text: &str, legal: impl Fn(char) -> bool) -> String {
    let mut result = String::with_capacity(text.len());
    let mut marked = false;
    for c in text.trim().chars() {
        let c = match c {
            '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
            '\u{300}'..='\u{36f}' => continue,
            c if c.is_whitespace() => ' ',
            c => c,
        };
        if legal(c) {
            result.push(c);
            marked = false;
        } else if !marked {
            result.push('_');
            marked = true;
        }
    }
    // An accent that went from either end may have left a space there.
    result.trim().to_owned()
}

/// Cuts a text that is too long, with a digest of the whole original for an end.
fn cut(original: &str, legal: &str, most: usize) -> String {
    if legal.chars().count() <= most {
        return legal.to_owned();
    }
    let kept: String = legal.chars().take(most - DIGEST - 1).collect();
    let digest: String = sha256_hex(original.as_bytes())
        .chars()
        .take(DIGEST)
        .collect();
    format!("{}_{digest}", kept.trim_end())
}

fn is_reserved(text: &str) -> bool {
    text.get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

/// `aws:` in front is AWS's own, in keys and in values.
fn reserved(text: &str) -> String {
    if is_reserved(text) {
        format!("{}_{}", &text[..3], &text[4..])
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::machine::tags::*;

    #[test]
    fn a_matrix_job_stays_readable() {
        assert_eq!(
            value("test: [linux, 3.12] – ünïcode ✓"),
            "test: _linux_ 3.12_ - ünïcode _"
        );
        assert_eq!(value("build 日本語 Ελλάδα"), "build 日本語 Ελλάδα");
        // Accents that stand by themselves, as some editors write them.
        assert_eq!(value("u\u{308}nicode"), "unicode");
        assert_eq!(value(" a\n\tb "), "a  b");
        assert_eq!(value(""), "");
        assert_eq!(value("AWS:deploy"), "AWS_deploy");
        assert_eq!(value("a/b:c=d+e-f@g.h_i"), "a/b:c=d+e-f@g.h_i");
    }

    #[test]
    fn long_names_are_cut_and_kept_apart() {
        let name = |end: &str| format!("test: [linux, 3.12] – ünïcode ✓ {}{end}", "ü".repeat(300));
        let (a, b) = (value(&name("a")), value(&name("b")));
        assert_eq!(a.chars().count(), 256);
        assert!(a.starts_with("test: _linux_ 3.12_ - ünïcode _ üü"), "{a}");
        assert_ne!(a, b);
        assert_eq!(a, value(&name("a")));
    }

    #[test]
    fn tags_are_ours_first_then_the_administrators() {
        let owner = Owner {
            fleet: "gitlab-aws-driver",
            manager: "abc",
            job_name: "test: [1]",
            until: Some(2),
            ..Owner::default()
        };
        let own: Vec<(String, String)> = [
            ("Team", "ci"),
            ("Team", "again"),
            ("gitlab-aws-driver:fleet", "stolen"),
            ("cost|centre", "a,b"),
            ("", "x"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec();
        let result = all(&owner, &own);
        let expected = [
            ("gitlab-aws-driver:fleet", "gitlab-aws-driver"),
            ("gitlab-aws-driver:manager", "abc"),
            ("gitlab-aws-driver:job-name", "test: _1_"),
            ("gitlab-aws-driver:deadline", "2"),
            ("Team", "ci"),
            ("cost_centre", "a_b"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(result.tags, expected);
        assert_eq!(result.notes.len(), 4, "{:?}", result.notes);
        assert_eq!(deadline(&result.tags), Some(2));
        assert_eq!(super::own(&result.tags, "manager"), Some("abc"));
    }

    #[test]
    fn a_deadline_that_is_none_is_none() {
        for text in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            let tags = [(format!("{PREFIX}deadline"), text.to_owned())];
            assert_eq!(deadline(&tags), None, "{text}");
        }
        assert_eq!(deadline(&[]), None);
    }

    #[test]
    fn tokens_tell_their_parts_apart() {
        assert_ne!(client_token(&["a", "bc"]), client_token(&["ab", "c"]));
        assert_ne!(client_token(&["a;1:b"]), client_token(&["a", "b"]));
        assert_eq!(client_token(&["a"]), client_token(&["a"]));
        assert!(is_legal_token(&client_token(&["a"])));
        assert!(!is_legal_token("") && !is_legal_token("a b") && !is_legal_token(&"a".repeat(65)));
    }

    #[test]
    fn names_of_sessions_and_starters() {
        assert_eq!(session_name("group/project job 1"), "group_project_job_1");
        assert_eq!(session_name(""), "__");
        assert_eq!(started_by("0123456789abcdef0123456789abcdef").len(), 36);
        assert!(is_legal_started_by(&started_by(
            "0123456789abcdef0123456789abcdef"
        )));
        assert!(!is_legal_started_by("") && !is_legal_started_by("a b"));
    }

    #[test]
    fn a_reason_for_stop_task_has_255_characters_at_most() {
        assert_eq!(stop_reason("over"), "gitlab-aws-driver: over");
        assert_eq!(stop_reason(&"x".repeat(1000)).len(), 255);
        // Two units of UTF-16 each: none is cut in half.
        let reason = stop_reason(&"\u{1f980}".repeat(1000));
        assert_eq!(reason.encode_utf16().count(), 255);
        let reason = stop_reason(&format!("x{}", "\u{1f980}".repeat(1000)));
        assert_eq!(reason.encode_utf16().count(), 254);
    }

    /// AWS's own pattern, for what can come out of here.
    fn assert_legal(text: &str, most: usize) {
        assert!(text.encode_utf16().count() <= most, "{text:?}");
        assert!(!text.to_lowercase().starts_with("aws:"), "{text:?}");
        for c in text.chars() {
            assert!(
                c == ' ' || c.is_alphabetic() || c.is_ascii_digit() || "_.:/=+-@".contains(c),
                "{c:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_goes_in_a_legal_value_comes_out(text in "(?s)(AWS:|)[\\x00-\\u{10ffff}]{0,400}") {
            let once = value(&text);
            assert_legal(&once, 256);
            prop_assert!(is_legal_value(&once));
            prop_assert_eq!(value(&once), once.clone());
            prop_assert_eq!(once.trim(), once.as_str());
        }

        #[test]
        fn legal_values_stay_as_they_are(text in "[a-zA-Z0-9_./=+@äжλ漢-]{0,256}") {
            prop_assert_eq!(value(&text), text);
        }

        #[test]
        fn whatever_the_administrator_wants_there_are_at_most_fifty_legal_tags(
            own in prop::collection::vec(("(?s).{0,150}", "(?s).{0,300}"), 0..70)
        ) {
            let owner = Owner { fleet: "f", manager: "m", runner: "r", project: "p", pipeline: "1", job: "2", job_name: "n", key: "k", until: Some(0) };
            let result = all(&owner, &own);
            prop_assert!(result.tags.len() <= 49);
            prop_assert_eq!(result.tags.iter().filter(|(k, _)| k.starts_with(PREFIX)).count(), 9);
            let keys: BTreeSet<_> = result.tags.iter().map(|(k, _)| k).collect();
            prop_assert_eq!(keys.len(), result.tags.len());
            for (k, v) in &result.tags {
                assert_legal(k, 128);
                assert_legal(v, 256);
                prop_assert!(is_legal_key(k) && is_legal_value(v));
            }
            for note in &result.notes {
                prop_assert!(!note.chars().any(char::is_control));
            }
        }

        #[test]
        fn reasons_sessions_and_starters_are_legal(text in "(?s).{0,1500}") {
            let reason = stop_reason(&text);
            prop_assert!(reason.encode_utf16().count() <= 255 && !reason.chars().any(char::is_control));
            prop_assert!(reason.starts_with("gitlab-aws-driver: "));
            let session = session_name(&text);
            prop_assert!((2..=64).contains(&session.len()));
            prop_assert!(session.chars().all(|c| c.is_ascii_alphanumeric() || "_=,.@-".contains(c)));
            prop_assert!(is_legal_started_by(&started_by(&text)));
        }
    }
}
