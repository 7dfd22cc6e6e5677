//! The commands for people: `try`, `check`, `reap`, `completions`, `man`.

use std::error::Error as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::runner::exit::SYSTEM_FAILURE;

pub mod check;
pub mod manual;
pub mod reap;
pub mod try_job;

/// The exit code of a failed command for people; clap's own is 2.
pub(crate) const FAILURE: u8 = 1;
/// The exit code for a command line that cannot be parsed, unless a Runner called it and set its own code.
pub(crate) const USAGE: u8 = SYSTEM_FAILURE;

/// With `--json`, prints JSON even if a command cannot start. People read the error on standard error as always.
fn told<T>(as_json: bool, result: Result<T>, document: impl FnOnce(&Error) -> Value) -> Result<T> {
    if as_json && let Err(error) = &result {
        print(format!("{:#}\n", document(error)).as_bytes())?;
    }
    result
}

/// Returns an error as the JSON of all commands has it: its kind, the line that people read, its causes one by one, and what
/// to do about it.
pub(crate) fn error_json(error: &Error) -> Value {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(crate::error::one_line(&next.to_string()));
        cause = next.source();
    }
    json!({
        "kind": kind_name(error.kind()),
        "message": error.to_string(),
        "causes": causes,
        "remedy": error.remedy(),
    })
}

/// Returns a kind's name in JSON: `not_yet` for `NotYet`.
fn kind_name(kind: Kind) -> String {
    let mut name = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// Writes a command's result to standard output.
pub(crate) fn print(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // A reader of the first lines only, such as `head`, has got what it wanted.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::new(Kind::State, "cannot write to standard output").because(e)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_each_of_its_causes() {
        let cause = Error::new(Kind::State, "the disk is full").because("no\nspace");
        let error = Error::new(Kind::NotYet, "cannot begin").because(cause);
        let json = error_json(&error.hint("Make room."));
        assert_eq!(json["kind"], "not_yet");
        assert_eq!(json["message"], "cannot begin: the disk is full: no space");
        assert_eq!(json["causes"][1], "no space");
        assert_eq!(json["remedy"], "Make room.");
    }
}
