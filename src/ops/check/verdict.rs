//! The last lines of `check`: whether the file can be used, and all errors if it cannot.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Refusal, Wrong};
use crate::error::Error;
use crate::ui::Ui;

/// All that was found, and how strictly it counts.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The errors, in order.
    errors: Vec<ErrorReport>,
    /// The warnings.
    warnings: Vec<String>,
    /// Whether the errors are in the file, and not in its surroundings.
    of_file: bool,
    /// Whether warnings count as errors.
    strict: bool,
}

/// One error, for people and for programs.
#[derive(Debug)]
struct ErrorReport {
    error: Error,
    as_json: Value,
}

impl Verdict {
    /// Returns the verdict on a file that cannot be used.
    pub(super) fn refused(refusal: Refusal, strict: bool) -> Self {
        let (errors, warnings) = match refusal {
            Refusal::Unread(error) => (vec![around(error)], Vec::new()),
            Refusal::Wrong(wrong) => (of_content(&wrong), wrong.warnings),
        };
        Self {
            errors,
            warnings,
            of_file: true,
            strict,
        }
    }

    /// Returns the verdict on a file that can be used, beside which something may be wrong.
    pub(super) fn right(warnings: &[String], beside: Vec<Error>, strict: bool) -> Self {
        Self {
            errors: beside.into_iter().map(around).collect(),
            warnings: warnings.to_owned(),
            of_file: false,
            strict,
        }
    }

    /// Returns whether all is well.
    pub(super) fn is_good(&self) -> bool {
        self.errors.is_empty() && (!self.strict || self.warnings.is_empty())
    }

    /// Prints the errors, and then the warnings.
    pub(super) fn tell(&self, ui: Ui) {
        for told in &self.errors {
            ui.error(&told.error);
        }
        for warning in &self.warnings {
            ui.warn(warning);
        }
    }

    /// Returns the last line.
    pub(super) fn line(&self) -> String {
        let counts: Vec<_> = [
            count(self.errors.len(), "error"),
            count(self.warnings.len(), "warning"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let counts = counts.join(", ");
        match (self.errors.is_empty(), self.is_good()) {
            (false, _) if self.of_file => format!("{counts}: the file cannot be used."),
            (false, _) => {
                format!("{counts}: the file is right, and no job runs before that is mended.")
            }
            (true, false) => format!("{counts}: the file can be used, but --strict refuses it."),
            (true, true) if counts.is_empty() => "The file can be used.".to_owned(),
            (true, true) => format!("{counts}: the file can be used."),
        }
    }

    /// Returns the JSON for a file that cannot be used.
    pub(super) fn as_json(&self, path: Option<&Path>) -> Value {
        json!({
            "path": path.map(|path| path.display().to_string()),
            "error": self.errors.first().map(|told| &told.as_json),
            "errors": self.errors_json(),
            "warnings": self.warnings,
            "verdict": self.verdict_json(),
        })
    }

    pub(super) fn errors_json(&self) -> Vec<&Value> {
        self.errors.iter().map(|told| &told.as_json).collect()
    }

    pub(super) fn verdict_json(&self) -> Value {
        json!({
            "good": self.is_good(),
            "errors": self.errors.len(),
            "warnings": self.warnings.len(),
            "text": self.line(),
        })
    }
}

fn of_content(wrong: &Wrong) -> Vec<ErrorReport> {
    let file = wrong.path.display().to_string();
    let told = wrong.problems.iter().map(|problem| {
        let error = problem.error(&wrong.path);
        let as_json = json!({
            "file": file,
            "line": problem.line,
            "column": problem.column,
            "key": problem.key,
            "cause": problem.cause,
            "message": error.to_string(),
            "remedy": error.remedy(),
        });
        ErrorReport { error, as_json }
    });
    told.collect()
}

/// An error that has no place in the file.
fn around(error: Error) -> ErrorReport {
    let message = error.to_string();
    let as_json = json!({
        "file": null,
        "line": null,
        "column": null,
        "key": null,
        "cause": message,
        "message": message,
        "remedy": error.remedy(),
    });
    ErrorReport { error, as_json }
}

fn count(number: usize, what: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{number} {what}s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_last_line_counts_and_decides() {
        let error = || Error::new(Kind::State, "x");
        let verdict = |warnings: usize, errors: usize, strict| {
            let warnings = vec!["w".to_owned(); warnings];
            let errors = std::iter::repeat_with(error).take(errors).collect();
            Verdict::right(&warnings, errors, strict)
        };
        for (warnings, errors, strict, good, line) in [
            (0, 0, false, true, "The file can be used."),
            (0, 0, true, true, "The file can be used."),
            (1, 0, false, true, "1 warning: the file can be used."),
            (
                2,
                0,
                true,
                false,
                "2 warnings: the file can be used, but --strict refuses it.",
            ),
            (
                1,
                2,
                false,
                false,
                "2 errors, 1 warning: the file is right, and no job runs before that is mended.",
            ),
        ] {
            let verdict = verdict(warnings, errors, strict);
            assert_eq!((verdict.is_good(), verdict.line().as_str()), (good, line));
        }
        let refused = Verdict::refused(Refusal::Unread(error()), false);
        assert_eq!(refused.line(), "1 error: the file cannot be used.");
        assert!(!refused.is_good());
    }
}
