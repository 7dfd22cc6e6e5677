//! The lines that a server may send before its version: RFC 4253, 4.2 allows any lines that do not begin with `SSH-`.
//!
//! russh gives up after 20 lines, or one of 255 bytes. OpenSSH skips as many as this driver.

use crate::error::one_line;

/// How many lines there may be.
const LINES: usize = 1_024;
/// How long each of them may be.
const LENGTH: usize = 8 << 10;
/// How much of the last line is kept: in it a server says why it refuses this client ("Not allowed at this time").
const KEPT: usize = 256;

/// What the version's own line begins with.
pub(super) const VERSION: &[u8] = b"SSH-";

/// Skips the lines before the version, and keeps the beginning of the last.
#[derive(Debug, Default)]
pub(super) struct LinesBeforeVersion {
    lines: usize,
    /// Of the line that is being read.
    length: usize,
    /// How many bytes of [`VERSION`] it began with; `None` once it is another line.
    other: bool,
    last: Vec<u8>,
}

/// The server closed the connection before its version, with these last words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct TurnedAway(pub(super) String);

/// The lines go on for longer than those of any real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it sends more than {LINES} lines, or one of more than {LENGTH} bytes, before its SSH version"
)]
pub(super) struct TooLong;

impl LinesBeforeVersion {
    /// Takes received bytes. Once the version has begun, returns the position after [`VERSION`] in them.
    pub(super) fn pass(&mut self, data: &[u8]) -> Result<Option<usize>, TooLong> {
        for (at, byte) in data.iter().enumerate() {
            if *byte == b'\n' {
                self.lines += 1;
                (self.length, self.other) = (0, false);
                if self.lines > LINES {
                    return Err(TooLong);
                }
                continue;
            }
            if self.length == 0 {
                self.last.clear();
            }
            if self.length < KEPT {
                self.last.push(*byte);
            }
            self.other |= VERSION.get(self.length) != Some(byte);
            self.length += 1;
            if !self.other && self.length == VERSION.len() {
                return Ok(Some(at + 1));
            }
            if self.length > LENGTH {
                return Err(TooLong);
            }
        }
        Ok(None)
    }

    /// Returns the last line, if there is one and no version has come.
    pub(super) fn last(&self) -> Option<TurnedAway> {
        let words = one_line(&String::from_utf8_lossy(&self.last));
        (!words.is_empty()).then_some(TurnedAway(words))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns what is left behind the greeting, however it is cut.
    fn version(all: &[u8], cut: usize) -> Result<Option<Vec<u8>>, TooLong> {
        let mut greeting = LinesBeforeVersion::default();
        let mut from = 0;
        for piece in all.chunks(cut) {
            if let Some(at) = greeting.pass(piece)? {
                return Ok(Some(all[from + at..].to_vec()));
            }
            from += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn many_lines_and_long_ones_are_read_over() {
        let many = "hello\r\n".repeat(LINES);
        let long = "x".repeat(LENGTH);
        for before in ["", "\n", " SSH-2.0-no\n", "SSH\nSS", "\r\n", &many, &long] {
            let before = match before.is_empty() || before.ends_with('\n') {
                true => before.to_owned(),
                false => format!("{before}\n"),
            };
            let all = format!("{before}SSH-2.0-x\r\nSSH-");
            for cut in [1, 3, all.len()] {
                let left = version(all.as_bytes(), cut).unwrap().unwrap();
                assert_eq!(left, b"2.0-x\r\nSSH-", "{before:.20}");
            }
        }
    }

    #[test]
    fn there_is_an_end_to_it() {
        let many = "\n".repeat(LINES + 1);
        let long = "x".repeat(LENGTH + 1);
        for all in [many, long] {
            assert_eq!(version(all.as_bytes(), 7), Err(TooLong));
        }
    }

    proptest! {
        #[test]
        fn no_version_is_seen_that_is_not_at_the_beginning_of_a_line(all: Vec<u8>, cut in 1usize..9) {
            let at_once = version(&all, all.len().max(1));
            prop_assert_eq!(&version(&all, cut), &at_once);
            let lines = all.split(|byte| *byte == b'\n');
            let begins = lines.into_iter().any(|line| line.starts_with(VERSION));
            prop_assert_eq!(at_once.unwrap().is_some(), begins);
        }
    }
}
