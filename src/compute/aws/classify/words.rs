//! AWS's sentences, taken apart: an answer names what failed, then what failed in that, down to the cause, with colons between.
//! Pure.
//!
//! What an answer means is decided by how a part of it *begins*, never by a text anywhere in it: names of images, secrets,
//! roles and addresses stand inside of parts, and may hold any word.

/// Shorter endings of an answer are not taken for the beginning of a wording.
const SHORTEST_STUMP: usize = 6;
/// From this many characters on an answer may have been cut off without a sign: ECS keeps so many of a container's reason.
const CUT_FROM: usize = 250;
/// What stands between two parts.
const BREAKS: [&str; 8] = [
    ": ",
    "; ",
    ", ",
    " | ",
    " - ",
    " caused by: ",
    " error=\"",
    " msg=\"",
];

/// An answer in its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// In lower case, without quotes and stops around them.
    parts: Vec<String>,
    /// AWS's error codes among the parts, as they are spelt.
    codes: Vec<String>,
    /// Statuses of HTTP among the parts.
    statuses: Vec<u16>,
    /// Whether the last part may have been cut off.
    cut: bool,
}

impl Words {
    /// Takes an answer apart.
    pub(super) fn read(text: &str) -> Self {
        // Some of AWS's sentences have a typographer's apostrophe.
        let text = crate::error::one_line(text).replace(['’', '‘'], "'");
        let mut words = Self {
            cut: may_be_cut(&text),
            ..Self::default()
        };
        let mut before = "";
        for part in split(&text) {
            let part = bare(part);
            if part.is_empty() {
                continue;
            }
            let named = is_label(before)
                .then_some(part)
                .filter(|part| is_word(part));
            before = part;
            if let Some(code) = named.or_else(|| code(part)) {
                words.codes.push(code.to_owned());
            }
            words.statuses.extend(status(part));
            words.parts.push(part.to_lowercase());
        }
        words
    }

    /// Adds a part that was found otherwise.
    pub(super) fn and(mut self, part: Option<&str>) -> Self {
        self.parts.extend(part.map(str::to_lowercase));
        self
    }

    /// Returns the first code among the parts that begins so.
    pub(super) fn code_of(&self, whose: &str) -> Option<&str> {
        let mut codes = self.codes.iter().map(String::as_str);
        codes.find(|code| code.starts_with(whose))
    }

    /// Whether parts that begin so follow each other, outermost first. Returns where the last of them stands.
    pub(super) fn path(&self, path: &[&[&str]]) -> Option<usize> {
        let mut from = 0;
        for phrases in path {
            let rest = self.parts.get(from..)?;
            let at = (0..rest.len())
                .find(|at| phrases.iter().any(|p| self.part_begins(from + at, p)))?;
            from += at + 1;
        }
        Some(from)
    }

    /// Whether a part from that one on begins so.
    pub(super) fn says(&self, from: usize, phrase: &str) -> bool {
        (from..self.parts.len()).any(|at| self.part_begins(at, phrase))
    }

    /// Whether that code of AWS's stands among the parts. `*` stands for anything.
    pub(super) fn names(&self, pattern: &str) -> bool {
        self.codes.iter().any(|code| is_code(pattern, code))
            || self.stump().is_some_and(|stump| {
                let (begin, _) = pattern.split_once('*').unwrap_or((pattern, ""));
                begin.to_lowercase().starts_with(stump)
            })
    }

    /// Whether nothing is said behind a part that begins so, but for what is too short to tell.
    pub(super) fn ends_in(&self, phrase: &str) -> bool {
        let Some(last) = self.parts.len().checked_sub(1) else {
            return false;
        };
        let short = self.cut && self.stump().is_none();
        self.part_begins(last, phrase) || (short && last > 0 && self.part_begins(last - 1, phrase))
    }

    /// Returns AWS's codes among the parts.
    pub(super) fn codes(&self) -> impl Iterator<Item = &str> {
        self.codes.iter().map(String::as_str)
    }

    /// Returns the last part where it may have been cut off and is long enough to be known again.
    fn stump(&self) -> Option<&str> {
        let last = self.parts.last().filter(|_| self.cut)?;
        (last.len() >= SHORTEST_STUMP).then_some(last.as_str())
    }

    /// Whether an answer of HTTP with such a status stands among the parts.
    pub(super) fn has_status(&self, least: u16, most: u16) -> bool {
        self.statuses.iter().any(|s| (least..=most).contains(s))
    }

    fn part_begins(&self, at: usize, phrase: &str) -> bool {
        let Some(part) = self.parts.get(at) else {
            return false;
        };
        let stump = self.stump().filter(|_| at + 1 == self.parts.len());
        begins(part, phrase) || stump.is_some_and(|stump| phrase.starts_with(stump))
    }
}

/// Whether a text may have been cut off.
pub(super) fn may_be_cut(text: &str) -> bool {
    let end = text.trim_end_matches(['"', '\'', ')']);
    end.ends_with("...") || end.ends_with('…') || text.chars().count() >= CUT_FROM
}

/// Whether a code is of that pattern, in which `*` stands for anything. A namespace before it, and whose fault AWS takes it for,
/// do not count unless the pattern names them.
pub(super) fn is_code(pattern: &str, code: &str) -> bool {
    let code = code.rsplit('#').next().unwrap_or(code);
    let of_nobody = ["Client.", "Server."]
        .iter()
        .find_map(|whose| code.strip_prefix(whose))
        .unwrap_or(code);
    matches(pattern, code) || matches(pattern, of_nobody)
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(first).is_some_and(|after| {
        (0..=after.len()).any(|at| after.get(at..).is_some_and(|after| matches(rest, after)))
    })
}

/// Whether a part begins with a phrase, in whole words. `*` in it stands for anything.
fn begins(part: &str, phrase: &str) -> bool {
    let mut rest = part;
    for (number, piece) in phrase.split('*').enumerate() {
        let found = match number {
            0 => rest.strip_prefix(piece),
            _ => rest.find(piece).map(|at| &rest[at + piece.len()..]),
        };
        match found {
            Some(after) => rest = after,
            None => return false,
        }
    }
    // A name that begins like a wording is none.
    let next = rest.chars().next();
    let open = phrase.ends_with(|c: char| !c.is_alphanumeric());
    open || next.is_none_or(|c| !(c.is_alphanumeric() || "-_/@".contains(c)))
}

/// Parts a text where AWS begins something new, but not within quotes around a name.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let after = quoted(text, at)
            .map(|end| (end, None))
            .or_else(|| break_of(rest).map(|length| (at + length, Some(at))));
        match after {
            Some((next, None)) => at = next,
            Some((next, Some(end))) => {
                parts.extend(text.get(begin..end));
                (begin, at) = (next, next);
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    parts.extend(text.get(begin..));
    parts
}

/// Returns the length of what separates two parts, where it stands at the beginning.
fn break_of(rest: &str) -> Option<usize> {
    // A cause in quotes is a cause.
    for quote in ["caused \"", "caused \\\""] {
        if rest.starts_with(quote) {
            return Some(quote.len());
        }
    }
    if let Some(next) = rest.strip_prefix(". ") {
        let sentence = next.starts_with(|c: char| c.is_uppercase());
        return sentence.then_some(2);
    }
    BREAKS
        .iter()
        .find(|separator| rest.starts_with(**separator))
        .map(|separator| separator.len())
}

/// Returns where a name in double quotes ends that begins here.
fn quoted(text: &str, at: usize) -> Option<usize> {
    let inside = text.get(at..)?.strip_prefix('"')?;
    let before = text.get(..at)?.chars().next_back();
    // What closes a quote is none that opens.
    if before.is_some_and(|c| !(c.is_whitespace() || "([".contains(c))) {
        return None;
    }
    let end = inside.find('"')?;
    Some(at + 1 + end + 1)
}

/// Takes off what stands around a part.
fn bare(part: &str) -> &str {
    let around = |c: char| c.is_whitespace() || "\"'`()[]{}*,;.:\\…".contains(c);
    let part = part.trim_matches(around);
    // Python's way to show bytes.
    part.strip_prefix("b'").unwrap_or(part)
}

/// Whether what stands behind a part is a code, however it looks.
fn is_label(part: &str) -> bool {
    ["ErrorCode", "Error Code"]
        .iter()
        .any(|label| part.ends_with(label))
}

/// Whether a text may be a code: of one word, beginning in a capital.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
}

/// Reads a part that is one of AWS's error codes and nothing else.
fn code(part: &str) -> Option<&str> {
    let told = part.strip_prefix("api error ");
    let name = told.unwrap_or(part);
    let capitals = name.chars().filter(char::is_ascii_uppercase).count();
    let shaped = is_word(name) && name.chars().any(|c| c.is_ascii_lowercase());
    (shaped && (capitals >= 2 || told.is_some())).then_some(name)
}

/// Reads a status of HTTP: at the beginning of a part, or in one that says that it was not expected.
fn status(part: &str) -> Option<u16> {
    let number = |word: &str| {
        let status: u16 = word.parse().ok()?;
        (word.len() == 3 && (100..600).contains(&status)).then_some(status)
    };
    let mut words = part.split_whitespace();
    let first = words.clone().next()?;
    let lower = part.to_lowercase();
    let unexpected = lower.starts_with("unexpected status")
        || lower.starts_with("unexpected http status")
        || lower.starts_with("received unexpected http status")
        || lower.starts_with("error parsing http");
    match unexpected {
        true => words.find_map(number),
        false => number(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        Words::read(text).parts
    }

    #[test]
    fn an_answer_is_parted_at_what_separates_and_not_within_names() {
        assert_eq!(
            parts(
                "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref a.example/b:1: \
                 failed to do request: Head \"https://a.example/v2/x: y\": dial tcp 192.0.2.13:443: i/o timeout"
            ),
            [
                "cannotpullcontainererror",
                "pull image manifest has been retried 5 time(s",
                "failed to resolve ref a.example/b:1",
                "failed to do request",
                "head \"https://a.example/v2/x: y",
                "dial tcp 192.0.2.13:443",
                "i/o timeout",
            ]
        );
        assert_eq!(
            parts("caused \"a.go:449: b caused \\\"error setting rlimit type 7: no\\\"\": unknown"),
            [
                "a.go:449",
                "b",
                "error setting rlimit type 7",
                "no",
                "unknown"
            ]
        );
        assert_eq!(
            parts("stderr: b'mount.nfs4: access denied by server' : unsuccessful; code: 32"),
            [
                "stderr",
                "mount.nfs4",
                "access denied by server",
                "unsuccessful",
                "code",
                "32"
            ]
        );
        assert_eq!(
            parts("It failed. Check your network configuration. : signal: killed"),
            [
                "it failed",
                "check your network configuration",
                "signal",
                "killed"
            ]
        );
    }

    #[test]
    fn codes_and_statuses_are_found_in_every_form_of_the_sdks() {
        let v1 = Words::read(
            "Unsupported data type. (Service: AmazonEC2; Status Code: 400; Error Code: SsmInvalidParameter; Request ID: b0-1)",
        );
        assert!(v1.names("SsmInvalidParameter") && v1.has_status(400, 400));
        let v2 = Words::read(
            "operation error S3: HeadObject, https response error StatusCode: 403, RequestID: x, api error Forbidden: Forbidden.",
        );
        assert!(v2.names("Forbidden") && v2.has_status(403, 403));
        let ecs = Words::read(
            "Error retrieving subnet information for [subnet-1]: No. (ErrorCode: InvalidSubnetID.NotFound)",
        );
        assert!(ecs.names("InvalidSubnetID.*"));
        let pull = Words::read(
            "unexpected status from HEAD request to https://a.example/v2/404/manifests/1: 503 Service Unavailable",
        );
        assert!(pull.has_status(500, 599) && !pull.has_status(400, 499));
        assert!(Words::read("unexpected status code 429 Too Many Requests").has_status(429, 429));
    }

    #[test]
    fn a_phrase_is_met_at_the_beginning_of_a_part_in_whole_words() {
        let words = Words::read(
            "failed to resolve ref r.example/not-found/denied:1: denied/x:1: not found",
        );
        assert!(words.says(0, "not found") && words.says(0, "failed to resolve ref"));
        assert!(!words.says(0, "denied") && !words.says(0, "resolve ref"));
        assert!(words.path(&[&["failed to"], &["not found"]]).is_some());
        assert!(words.path(&[&["not found"], &["failed to"]]).is_none());
        let words = Words::read(
            "Your requested instance type ( m5.large) is not supported in your requested Availability Zone (a).",
        );
        assert!(words.says(0, "your requested instance type*is not supported in"));
    }

    #[test]
    fn what_was_cut_off_is_met_by_what_is_left_of_it() {
        for text in ["caused by: context deadli...", "caused by: context deadli…"] {
            assert!(Words::read(text).says(0, "context deadline exceeded"));
        }
        assert!(!Words::read("context deadli").says(0, "context deadline exceeded"));
        let long = format!("{}: context dead", "x".repeat(CUT_FROM));
        assert!(Words::read(&long).says(0, "context deadline exceeded"));
        assert!(!Words::read("x: con...").says(0, "context deadline exceeded"));
    }

    #[test]
    fn codes_are_met_by_their_shape() {
        for (pattern, code) in [
            ("*LimitExceeded", "VcpuLimitExceeded"),
            ("Invalid*.NotFound", "InvalidSubnetID.NotFound"),
            ("InternalError", "Client.InternalError"),
            ("Client.InternalError", "Client.InternalError"),
            (
                "ThrottlingException",
                "com.amazonaws.ecs#ThrottlingException",
            ),
        ] {
            assert!(is_code(pattern, code), "{pattern} {code}");
        }
        assert!(!is_code("Server.InternalError", "Client.InternalError"));
        assert!(!is_code("*LimitExceeded", "RequestLimitExceededX"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_aws_may_say_breaks_the_reading(text in "(?s).*") {
            let words = Words::read(&text);
            proptest::prop_assert!(words.parts.iter().all(|part| !part.is_empty()));
            let _client = words.code_of("Client.");
        }
    }
}
