//! What people read: GitLab's log colours, progress lines, warnings and failures.
//!
//! Everything goes to one stream that the caller chose (the job log for stages, the terminal for
//! people), each message in one write, so that lines of several processes do not interleave.

use std::io::{IsTerminal, Write};

use crate::error::Error;

const RED: &str = "\x1b[31;1m";
const YELLOW: &str = "\x1b[0;33m";
const GREEN: &str = "\x1b[32;1m";
const BOLD: &str = "\x1b[0;1m";
const RESET: &str = "\x1b[0;m";

/// Prints lines for people on standard error.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    colour: bool,
}

impl Ui {
    /// Returns the printer for a stage: GitLab renders colours though nothing here is a terminal.
    #[must_use]
    pub fn for_job_log(no_color: bool) -> Self {
        Self { colour: !no_color }
    }

    /// Returns the printer for a person: colours only on a terminal.
    #[must_use]
    pub fn for_people(no_color: bool) -> Self {
        Self {
            colour: !no_color && std::io::stderr().is_terminal(),
        }
    }

    /// Returns whether colours are written.
    #[must_use]
    pub fn colour(self) -> bool {
        self.colour
    }

    /// Prints a line of progress.
    pub fn progress(self, text: &str) {
        self.line("", text);
    }

    /// Prints a line that opens something, as GitLab prints its own headings.
    pub fn heading(self, text: &str) {
        self.line(BOLD, text);
    }

    /// Prints a line that says that something went well.
    pub fn good(self, text: &str) {
        self.line(GREEN, text);
    }

    /// Prints a warning.
    pub fn warn(self, text: &str) {
        self.line(YELLOW, &format!("WARNING: {text}"));
    }

    /// Prints a failure: the cause on one line, the remedy on the next.
    pub fn error(self, error: &Error) {
        let mut text = format!("ERROR: {error}");
        if let Some(remedy) = error.remedy() {
            text.push('\n');
            text.push_str(remedy);
        }
        self.line(RED, &text);
    }

    fn line(self, colour: &str, text: &str) {
        let mut out = String::with_capacity(text.len() + 16);
        for line in text.lines() {
            if self.colour && !colour.is_empty() {
                out.push_str(colour);
                out.push_str(line);
                out.push_str(RESET);
            } else {
                out.push_str(line);
            }
            out.push('\n');
        }
        // A reader that went away is no reason to fail: what matters is decided elsewhere.
        drop(std::io::stderr().lock().write_all(out.as_bytes()));
    }
}
