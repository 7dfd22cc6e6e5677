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

/// What commands for people end with where they fail; clap's own is 2.
pub(crate) const FAILURE: u8 = 1;
/// What a command line that cannot be read ends with, but for the Runner's own code where that is called by a Runner.
pub(crate) const USAGE: u8 = SYSTEM_FAILURE;

/// Has a program that asked for JSON get it also where a command cannot begin; people read the error where all errors go.
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
        // Who reads only the first lines, as `head` does, has got what it wanted.
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
