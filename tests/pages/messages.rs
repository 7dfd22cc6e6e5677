//! Every message that the driver can print is on the page of messages, by its first words.

use super::markdown::Page;
use super::sources::{Message, Source};

/// How many words a message is looked for by.
const WORDS: usize = 6;

/// What is read as a message and need not be on the page, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("a task on Fargate Spot", OF_CHECK),
    ("a task on Fargate, on demand", OF_CHECK),
    ("a task on the cluster's capacity", OF_CHECK),
    ("a Spot instance of EC2", OF_CHECK),
    ("an instance of EC2, on demand", OF_CHECK),
    ("Ask for less or remove", REMEDY),
    ("Name each rung once", REMEDY),
    ("not both", REMEDY),
    ("alone, or both alike", REMEDY),
    ("]' \\", OF_ZSH),
    ("]::BOOL:(true false)' \\", OF_ZSH),
    ("a variable is NAME=VALUE, or hex", OF_FILES),
    (
        "not fit for a file name",
        "the reason for a line of `log_level = \"debug\"`",
    ),
    ("the connection is lost", OF_LOGIN),
    ("the job's RSA key does not", OF_LOGIN),
];

const OF_CHECK: &str = "a line of what `check` prints of a file that is right";
const OF_ZSH: &str = "a line of the completion for zsh";
const REMEDY: &str = "the second line of a message, which follows the first in the code";
const OF_FILES: &str =
    "the reason why a state file is damaged, which follows the message that is on the page";
const OF_LOGIN: &str =
    "the reason why a login failed, which is tried again and told in words of its own";

/// Returns messages that the page lacks, and exceptions that are none any more; with how many messages there are.
pub(super) fn unexplained(sources: &[Source], page: &Page) -> (Vec<String>, usize) {
    let messages: Vec<Message> = sources.iter().flat_map(Source::messages).collect();
    (missing(&messages, page, EXCEPTIONS), messages.len())
}

fn missing(messages: &[Message], page: &Page, exceptions: &[(&str, &str)]) -> Vec<String> {
    let shown = shown(page);
    let mut needed = vec![false; exceptions.len()];
    let mut finds = Vec::new();
    for message in messages {
        let Some(words) = first_words(&message.text) else {
            continue;
        };
        if shown.contains(&words) {
            continue;
        }
        match exceptions
            .iter()
            .position(|(excepted, _)| words == *excepted)
        {
            Some(at) => needed[at] = true,
            None => finds.push(format!("{}: {words}", message.place)),
        }
    }
    let idle = exceptions.iter().zip(needed).filter(|(_, needed)| !needed);
    finds.extend(idle.map(|((words, _), _)| format!("an exception that is none: {words}")));
    finds
}

/// Returns all code of the page, in which the messages are, without backticks, with single blanks.
fn shown(page: &Page) -> String {
    let mut all = String::new();
    let spans = page.spans.iter().map(|span| &span.text);
    for text in spans.chain(page.blocks.iter().map(|block| &block.text)) {
        all.push_str(&text.replace('`', ""));
        all.push('\n');
    }
    all
}

/// Returns the words that somebody would look for: the first ones between two values, up to the end of a clause.
fn first_words(text: &str) -> Option<String> {
    let pieces = pieces(text);
    let words = |piece: &str| {
        let piece = piece.replace('`', "");
        let piece = piece.trim_matches([' ', ':', ';', ',', '.', '(', ')', '"']);
        let ends = [": ", "; ", " (", "? "]
            .into_iter()
            .filter_map(|end| piece.find(end));
        let clause = &piece[..ends.min().unwrap_or(piece.len())];
        clause
            .split_whitespace()
            .take(WORDS)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let all: Vec<Vec<String>> = pieces.iter().map(|piece| words(piece)).collect();
    let first = all.iter().find(|words| words.len() >= 3);
    let short = all.iter().find(|words| words.len() == 2);
    first.or(short).map(|words| words.join(" "))
}

/// Splits a format string at its values.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                pieces.last_mut().unwrap().push(c);
            }
            '{' => {
                chars.by_ref().find(|c| *c == '}');
                pieces.push(String::new());
            }
            '\n' => pieces.push(String::new()),
            c => pieces.last_mut().unwrap().push(c),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_are_those_of_a_search() {
        for (text, words) in [
            (
                "the job's task was not started",
                Some("the job's task was not started"),
            ),
            ("{text:?} is no rung: there are {list}", Some("is no rung")),
            ("the {} {} is damaged", Some("is damaged")),
            (
                "`prepare` was called twice in one try of this job",
                Some("prepare was called twice in one"),
            ),
            (
                "{path}:{line}: unknown key {shown} is ignored{advice}",
                Some("unknown key"),
            ),
            ("{{x}} y z", Some("{x} y z")),
            ("{}: {}", None),
            ("ipv6", None),
        ] {
            assert_eq!(first_words(text).as_deref(), words, "{text}");
        }
    }

    #[test]
    fn a_message_that_the_page_lacks_is_found() {
        let page = Page::new(
            "docs/t.md",
            "the job is lost\n\n- `the job … is gone: …`\n- `` `cleanup` was told to stop``\n",
        );
        let message = |text: &str| Message {
            place: "src/x.rs:1".to_owned(),
            text: text.to_owned(),
        };
        let told = [
            "the {what} is gone",
            "`cleanup` was told to stop before",
            "the job is lost",
            "a thing apart",
        ]
        .map(message);
        let exceptions = [
            ("a thing apart", "it is one"),
            ("no longer needed", "it was one"),
        ];
        assert_eq!(
            missing(&told, &page, &exceptions),
            [
                "src/x.rs:1: cleanup was told to stop before",
                "src/x.rs:1: the job is lost",
                "an exception that is none: no longer needed",
            ]
        );
    }
}
