//! What a table of AWS's wordings is made of: rows that are tried in order, the most exact first.
//!
//! A row goes by the structure of an answer: where it comes from, its code, the parts that enclose the cause, and how the cause begins, or
//! which code or status it is. Each names where its wording is from: an AWS page, the model of an API, or a row of the recorded
//! wordings that the tests read (`ts-…`, `tc-…`, `fe-…`, `ie-…`).
//!
//! Phrases are in lower case, `*` stands for anything in between, also in codes. In remedies `{action}` is the action that a message says is
//! not allowed (or the call itself), `{call}` the call, `{container}` the container that jobs run in.

use super::words::{Words, is_code};
use crate::machine::verdict::Why;

/// Where words come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// An error of a call.
    Call,
    /// One of a call's `failures`.
    Failure,
    /// Why a task stopped.
    Stop,
    /// Why an instance ended.
    End,
    /// No answer at all.
    Nothing,
}

/// Where a row applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Call,
    Failure,
    Stop,
    End,
    Nothing,
    /// Failures and stop reasons: what placement says.
    Placed,
    /// Errors, failures and stop reasons of tasks: AWS says these in any of the three.
    Launch,
}

impl From {
    fn holds(self, said: Said) -> bool {
        match self {
            Self::Call => said == Said::Call,
            Self::Failure => said == Said::Failure,
            Self::Stop => said == Said::Stop,
            Self::End => said == Said::End,
            Self::Nothing => said == Said::Nothing,
            Self::Placed => matches!(said, Said::Failure | Said::Stop),
            Self::Launch => matches!(said, Said::Call | Said::Failure | Said::Stop),
        }
    }
}

/// One row: from where, under which code, within what, and any of the signs.
#[derive(Debug)]
pub(super) struct Row {
    from: From,
    codes: &'static [&'static str],
    path: &'static [&'static [&'static str]],
    phrases: &'static [&'static str],
    names: &'static [&'static str],
    statuses: Option<(u16, u16)>,
    last: &'static [&'static str],
    pub(super) why: Why,
    pub(super) remedy: &'static str,
    /// Where the wording is from.
    pub(super) source: &'static str,
}

/// Begins a row that fits whatever comes from there.
pub(super) const fn row(from: From, why: Why, remedy: &'static str, source: &'static str) -> Row {
    Row {
        from,
        codes: &[],
        path: &[],
        phrases: &[],
        names: &[],
        statuses: None,
        last: &[],
        why,
        remedy,
        source,
    }
}

impl Row {
    /// The answer's code has to be one of these.
    pub(super) const fn code(self, codes: &'static [&'static str]) -> Self {
        Self { codes, ..self }
    }

    /// Parts have to follow each other that begin so, each with one of its phrases.
    pub(super) const fn within(self, path: &'static [&'static [&'static str]]) -> Self {
        Self { path, ..self }
    }

    /// A sign: a part begins so.
    pub(super) const fn says(self, phrases: &'static [&'static str]) -> Self {
        Self { phrases, ..self }
    }

    /// A sign: a part is such a code.
    pub(super) const fn names(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    /// A sign: a part is such a status of HTTP.
    pub(super) const fn status(self, least: u16, most: u16) -> Self {
        Self {
            statuses: Some((least, most)),
            ..self
        }
    }

    /// Nothing may be said behind a part that begins so.
    pub(super) const fn last(self, last: &'static [&'static str]) -> Self {
        Self { last, ..self }
    }

    /// Whether the row fits an answer that came from there.
    pub(super) fn fits(&self, said: Said, code: &str, words: &Words) -> bool {
        let of_code = self.codes.is_empty() || self.codes.iter().any(|c| is_code(c, code));
        if !(self.from.holds(said) && of_code) {
            return false;
        }
        if !(self.last.is_empty() || self.last.iter().any(|p| words.ends_in(p))) {
            return false;
        }
        let Some(inside) = words.path(self.path) else {
            return false;
        };
        let any = self.phrases.is_empty() && self.names.is_empty() && self.statuses.is_none();
        any || self.phrases.iter().any(|p| words.says(inside, p))
            || self.names.iter().any(|name| words.names(name))
            || self
                .statuses
                .is_some_and(|(least, most)| words.has_status(least, most))
    }

    #[cfg(test)]
    pub(super) fn codes(&self) -> &'static [&'static str] {
        self.codes
    }
}

/// Codes of a denial.
pub(super) const DENIED: &[&str] = &[
    "AccessDenied*",
    "UnauthorizedOperation",
    "NotAuthorized*",
    "UnauthorizedException",
    "*AccessDeniedException",
];

/// How causes begin when somebody could not be reached, in the words of Go's and AWS's own clients.
pub(super) const UNREACHED: &[&str] = &[
    "dial tcp",
    "dial udp",
    "lookup",
    "i/o timeout",
    "no such host",
    "connection refused",
    "connect: connection refused",
    "network is unreachable",
    "no route to host",
    "connection timed out",
    "connect: connection timed out",
    "timeout awaiting response headers",
    "proxyconnect tcp",
    "context deadline exceeded",
    "context canceled",
    "request canceled",
    "request context canceled",
    "client.timeout exceeded",
    "tls handshake timeout",
    "net/http: tls handshake timeout",
    "timeout exceeded while awaiting headers",
    "temporary failure in name resolution",
    "request send failed",
    "send request failed",
    "there is a connection issue between the task and",
    "check your network configuration",
    "check your task network configuration",
    "please check your task network configuration",
    "signal",
];
