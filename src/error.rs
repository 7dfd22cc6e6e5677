//! The one error type: what failed, of which kind, and what to do about it.
//!
//! The kind alone decides how a stage ends (see `runner::exit`); the message is a
//! lower-case fragment that names the act, the cause chain follows it on the same line, and the
//! remedy stands on a line of its own.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as anybody has to act differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The configuration file is wrong or missing.
    Config,
    /// GitLab Runner (or whoever called) did not keep the custom executor's contract.
    Contract,
    /// A job asks for what it may not have.
    Limit,
    /// Something that this version cannot do yet was asked for.
    NotYet,
    /// The state directory cannot be read or written, or what lies in it is damaged.
    State,
    /// There is no room for a machine, on any rung, for as long as was waited.
    Capacity,
    /// AWS asked to be called less often, for as long as was waited, or did not answer.
    Throttled,
    /// AWS does not permit what has to be done.
    Denied,
    /// There is nothing to tell AWS by who calls, or it is not believed.
    Credentials,
    /// The machine could not be started.
    Launch,
    /// The machine is there but no SSH session could be had, or none could be had again.
    Unreachable,
    /// The machine showed another host key than the one it is known by.
    HostKey,
    /// The machine went away under the job.
    MachineGone,
    /// The machine's capacity was taken back: Spot.
    TakenBack,
    /// What watches the script on the far side went away, so its result is not known.
    SupervisorGone,
    /// The far side could not keep the script's output, or had not even room for the script.
    NoSpace,
    /// The far side answered something that the protocol does not know.
    Protocol,
    /// The driver itself is wrong.
    Bug,
    /// A signal, or the end of the Runner, stopped the stage before the script's end was known.
    Cancelled,
}

/// A failure of the machinery: never the script's own.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

/// Shorthand used everywhere.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns an error whose message is a lower-case fragment fit to follow "ERROR: ".
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            hint: None,
        }
    }

    /// Adds the cause; it is printed after the message.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the reader can do about it, as a full sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the remedy, if one is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// Writes the message and its chain of causes on one line, whatever bytes they hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.message.clone();
        let mut cause: Option<&(dyn StdError + 'static)> = self.source.as_ref().map(|s| &**s as _);
        while let Some(c) = cause {
            let next = c.to_string();
            // Many errors repeat their source in their own text; saying it twice helps nobody.
            if !one_line(&text).contains(&one_line(&next)) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = c.source();
        }
        f.write_str(&one_line(&text))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|s| &**s as _)
    }
}

/// Folds line breaks and control characters, so that nothing from outside can forge log lines.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_its_causes_once() {
        let cause = Error::new(Kind::State, "no space\nleft").because("disk\x1b[31m full");
        let e = Error::new(Kind::State, "cannot write the record").because(cause);
        assert_eq!(
            e.to_string(),
            "cannot write the record: no space left: disk[31m full"
        );
    }
}
