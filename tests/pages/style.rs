//! How the pages are written: patterns that make them hard to read are absent.

use super::Pages;
use super::markdown::{Heading, Page};

/// Words and phrases to lose, in small letters, each with what to write in its place.
const PATTERNS: [(&str, &str); 11] = [
    ("dialled", "the driver connects to …"),
    ("stands", "is"),
    ("holds", "contains, applies, keeps"),
    ("he", "they, or the thing that is meant"),
    ("she", "they"),
    ("his", "their"),
    ("him", "them"),
    ("as the line below", "what that line says"),
    ("the line below it", "what that line says"),
    ("it costs", "it takes, it makes"),
    ("anyway", "leave it out"),
];

/// How long a heading may be, in characters.
const LONGEST_HEADING: usize = 70;

/// Participles that do not end in `ed`.
const PARTICIPLES: [&str; 12] = [
    "bound", "found", "given", "held", "kept", "known", "made", "meant", "read", "sent", "shown",
    "told",
];

/// Returns what is to be written otherwise, page by page. The change log of past releases stays as it was written.
pub(super) fn finds(pages: &Pages) -> Vec<String> {
    let pages = pages.values().filter(|page| page.path != "CHANGELOG.md");
    pages.flat_map(of_page).collect()
}

fn of_page(page: &Page) -> Vec<String> {
    let prose: Vec<char> = page.prose().chars().collect();
    let lower = lowered(&prose);
    let mut found = Vec::new();
    for (pattern, better) in PATTERNS {
        for at in places(&lower, pattern) {
            found.push((page.line_at(at), format!("{pattern:?}; write: {better}")));
        }
    }
    for at in places(&lower, "is no") {
        let before: String = lower[at.saturating_sub(6)..at].iter().collect();
        let mut after = lower[at + "is no".len()..]
            .iter()
            .skip_while(|c| **c == ' ')
            .peekable();
        // "there is no …" and "is no longer …" are plain English.
        let is_noun = after.peek().is_some_and(|c| c.is_alphabetic());
        let next: String = after.take("longer".len()).collect();
        if is_noun && before != "there " && next != "longer" {
            let better = "\"is no …\"; write: is not a …, has no …, there is no …";
            found.push((page.line_at(at), better.to_owned()));
        }
    }
    for at in sentences(&prose) {
        let mut words = text_at(&prose, at).into_iter();
        let (first, second) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let first = first.to_lowercase();
        let is_participle =
            first.ends_with("ed") && first.len() > 4 || PARTICIPLES.contains(&first.as_str());
        if is_participle && ["is", "are", "was", "were"].contains(&second.as_str()) {
            found.push((
                page.line_at(at),
                format!("a sentence that begins with {first:?}; say first who does it"),
            ));
        }
    }
    for heading in &page.headings {
        if let Some(why) = riddle(heading) {
            found.push((heading.line, why));
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|(line, what)| format!("{}:{line}: {what}", page.path))
        .collect()
}

fn riddle(heading: &Heading) -> Option<String> {
    let length = heading.text.chars().count();
    if length > LONGEST_HEADING {
        return Some(format!(
            "a heading of {length} characters; {LONGEST_HEADING} at most"
        ));
    }
    if heading.text.ends_with(['.', ':']) && !heading.text.ends_with("...") {
        return Some("a heading that ends like a sentence".to_owned());
    }
    let bare: String = heading
        .text
        .chars()
        .filter(|c| c.is_alphanumeric())
        .collect();
    bare.is_empty()
        .then(|| "a heading without words".to_owned())
}

/// Returns small letters with line breaks as blanks; each character keeps its place.
fn lowered(text: &[char]) -> Vec<char> {
    let lower = |c: &char| match c {
        '\n' => ' ',
        c => c.to_lowercase().next().unwrap_or(*c),
    };
    text.iter().map(lower).collect()
}

/// Returns where those words are, as words of their own; a line break may be between them.
fn places(text: &[char], words: &str) -> Vec<usize> {
    let is_word =
        |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || ['_', '-', '\''].contains(c));
    let wanted: Vec<char> = words.chars().collect();
    let mut found = Vec::new();
    for at in 0..text.len() {
        let mut end = at;
        let matches = wanted.iter().all(|c| {
            let same = text.get(end) == Some(c);
            end += 1;
            // The next line may be indented.
            while *c == ' ' && text.get(end) == Some(&' ') {
                end += 1;
            }
            same
        });
        let begins = at == 0 || !is_word(text.get(at - 1));
        if matches && begins && !is_word(text.get(end)) {
            found.push(at);
        }
    }
    found
}

/// Returns where sentences begin.
fn sentences(text: &[char]) -> Vec<usize> {
    let mut begins = true;
    let mut found = Vec::new();
    for (at, c) in text.iter().enumerate() {
        let is_upper = c.is_uppercase();
        if begins && is_upper {
            found.push(at);
        }
        let before = at.checked_sub(1).map(|before| text[before]);
        begins = match c {
            '.' | '?' | '!' | ':' => true,
            '\n' => {
                begins || before == Some('\n') || before.is_some_and(|c| ['.', ':'].contains(&c))
            }
            c if c.is_alphanumeric() => false,
            _ => begins,
        };
    }
    found
}

fn text_at(text: &[char], at: usize) -> Vec<String> {
    let rest: String = text[at..].iter().take(60).collect();
    rest.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::seeded;
    use super::*;

    #[test]
    fn each_pattern_is_found_where_it_is() {
        for (pattern, _) in PATTERNS {
            let text = format!("# A\n\nOne two {pattern} three.\n");
            let found = finds(&seeded(&[("a.md", &text)]));
            assert!(
                found.iter().any(|find| find.starts_with("a.md:3: ")),
                "{pattern}: {found:?}"
            );
            // Not within words, not in code.
            let joined = pattern.replace(' ', "x");
            let text = format!("One x{joined}y `{pattern}` {joined}-z.\n\n    {pattern}\n");
            assert_eq!(finds(&seeded(&[("a.md", &text)])), [""; 0], "{text}");
        }
    }

    #[test]
    fn sentences_are_read_across_lines() {
        let text = "# A\n\nThe job is\nno task. It is no longer there, there is no\n`x`.\n\nDialled are two.\n- Shown\n  is one. Read the page. The\n  line below\n  it.\n";
        let found = finds(&seeded(&[("a.md", text)]));
        let lines: Vec<&str> = found
            .iter()
            .map(|find| find.split(": ").next().unwrap())
            .collect();
        assert_eq!(
            lines,
            ["a.md:3", "a.md:7", "a.md:7", "a.md:8", "a.md:9"],
            "{found:?}"
        );
    }

    #[test]
    fn headings_that_are_not_plain_are_found() {
        let long = "word ".repeat(20);
        let text = format!("# A sentence.\n## {long}\n## …\n## Plain words\n### `No room on …`\n");
        let found = finds(&seeded(&[("a.md", &text)]));
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
