//! An error in a file: where, in which key, why, and what would be right.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, one_line};

/// One error in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from one.
    pub line: usize,
    /// The column in characters, counted from one.
    pub column: usize,
    /// The key with its tables, as the file spells them; `None` if the error is about the whole file.
    pub key: Option<String>,
    /// What is wrong with it.
    pub cause: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Problem {
    /// Adds what the reader can do about it.
    pub(super) fn hint(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Returns the message.
    #[must_use]
    pub fn message(&self, path: &Path) -> String {
        let place = format!("{}:{}:{}", path.display(), self.line, self.column);
        one_line(&match &self.key {
            Some(key) => format!("{place}: {key}: {}", self.cause),
            None => format!("{place}: {}", self.cause),
        })
    }

    /// Returns it as an error.
    #[must_use]
    pub fn error(&self, path: &Path) -> Error {
        let error = Error::new(Kind::Config, self.message(path));
        match &self.remedy {
            Some(remedy) => error.hint(remedy),
            None => error,
        }
    }
}

/// A file with errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The file.
    pub path: PathBuf,
    /// All errors, in order of place: at least one.
    pub problems: Vec<Problem>,
    /// Its warnings.
    pub warnings: Vec<String>,
}

impl Wrong {
    /// Returns the first error, and how many more there are.
    #[must_use]
    pub fn first(&self) -> Error {
        let Some(first) = self.problems.first() else {
            return Error::new(Kind::Bug, "a file is refused for no reason");
        };
        let more = match self.problems.len() {
            0 | 1 => return first.error(&self.path),
            2 => "One more error is".to_owned(),
            all => format!("{} more errors are", all - 1),
        };
        let more = format!("{more} told by `gitlab-aws-driver check`.");
        let remedy = first.remedy.as_ref();
        let remedy = remedy.map_or_else(|| more.clone(), |first| format!("{first} ({more})"));
        first.error(&self.path).hint(remedy)
    }
}

/// Why there are no settings.
#[derive(Debug)]
pub enum Refusal {
    /// No file could be read.
    Unread(Error),
    /// The file has errors.
    Wrong(Wrong),
}

impl Refusal {
    /// Returns the first error, and how many more there are.
    #[must_use]
    pub fn first(self) -> Error {
        match self {
            Self::Unread(error) => error,
            Self::Wrong(wrong) => wrong.first(),
        }
    }
}
