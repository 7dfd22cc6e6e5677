//! Lines, columns and texts of the file, for messages.

use std::ops::Range;
use std::path::Path;

use super::problem::Problem;

/// The file at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
}

/// The longest key, and the longest cause: one value in a file may have megabytes.
const LONGEST: usize = 250;

impl Source<'_> {
    /// Returns the line, counted from one.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_and_column(offset).0
    }

    /// Returns line and column (in characters), both counted from one.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.before(offset);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        // Editors do not show a byte-order mark, so it does not count as a column.
        let column = before[start..].chars().filter(|c| *c != '\u{feff}').count() + 1;
        (line, column)
    }

    /// Returns the text before the offset, rounded down to a whole character.
    pub(super) fn before(&self, offset: usize) -> &str {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        &self.text[..end]
    }

    /// Returns the text that a key or a value was written as.
    pub(super) fn written(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// Returns the line around the offset.
    pub(super) fn whole_line(&self, offset: usize) -> &str {
        let start = self.before(offset).rfind('\n').map_or(0, |at| at + 1);
        self.text[start..].lines().next().unwrap_or("")
    }

    /// Returns a problem at that place: with a key, or with the file as a whole.
    pub(super) fn problem(&self, offset: usize, key: Option<&str>, cause: &str) -> Problem {
        let (line, column) = self.line_and_column(offset);
        Problem {
            line,
            column,
            key: key.map(|key| clip(key, LONGEST)),
            cause: clip(cause, LONGEST),
            remedy: None,
        }
    }
}

/// Cuts a text that is too long to be read.
pub(super) fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let path = Path::new("f");
        for (text, offset, want) in [
            ("", 0, (1, 1)),
            ("", 9, (1, 1)),
            ("a\nbc", 2, (2, 1)),
            ("a\nbc", 3, (2, 2)),
            ("a\n", 2, (2, 1)),
            ("é = 1", 3, (1, 3)),
            ("é = 1", 1, (1, 1)),
            ("\u{feff}a = 1", 3, (1, 1)),
        ] {
            let source = Source { text, path };
            assert_eq!(source.line_and_column(offset), want, "{text:?} {offset}");
        }
    }
}
