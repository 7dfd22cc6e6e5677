//! What keeps a script's result from being known, and what helps.

use std::time::Duration;

use super::follow::Ended;
use super::frames::Malformed;
use super::greeting;
use crate::container::trouble;
use crate::error::{Error, Kind, one_line};
use crate::script::reconnect::Loss;
use crate::script::silent_login::START_UP_FILES;

/// What helps a job that ran out of memory.
const MORE_MEMORY: &str = "Give the job more memory (on Fargate: cpu and memory of the task definition), or have it \
                           do less at once.";

/// A login's start-up took what was sent to a command of the driver's.
pub(crate) fn astray() -> Error {
    let what = "a start-up file of the login, or a ForceCommand, starts another shell or reads what is sent to the job's command, which never \
                began";
    Error::new(Kind::Protocol, what).hint(START_UP_FILES)
}

fn processes(kills: u64) -> String {
    match kills {
        1 => "a process".to_owned(),
        more => format!("{more} processes"),
    }
}

pub(super) fn cancelled_before_start() -> Error {
    Error::new(
        Kind::Cancelled,
        "the job was cancelled before this script began",
    )
}

pub(super) fn supervisor_gone(memory_kills: u64) -> Error {
    let error = Error::new(
        Kind::SupervisorGone,
        "the process that watched the script on the machine was killed, so its result is not known",
    );
    if memory_kills > 0 {
        return error.hint(format!(
            "Out of memory: the machine's kernel killed {} meanwhile. {MORE_MEMORY}",
            processes(memory_kills)
        ));
    }
    error.hint("Out of memory, or a script that kills processes by name? See the machine's kernel log; retry the job.")
}

impl Ended {
    /// Returns what is behind the code, where it is one that the script did not choose.
    #[must_use]
    pub fn hint(self) -> Option<String> {
        // 128 and SIGKILL, as shells tell it.
        (self.code == 137 && self.memory_kills > 0).then(|| {
            format!(
                "the machine ran out of memory: its kernel killed {} while the script ran. {MORE_MEMORY}",
                processes(self.memory_kills)
            )
        })
    }
}

pub(super) fn no_space(what: &str, detail: &str) -> Error {
    Error::new(Kind::NoSpace, format!("the machine {what}: {}", one_line(detail))).hint(
        "No space is left on the machine's disk, or it cannot be written: give the job more disk (on Fargate: \
         ephemeralStorage of the task definition), or write less.",
    )
}

/// How shells and servers say that they cannot start a process: dash, bash and busybox, and by its own name whoever could
/// not become another program; runc, whose own threads count against the container's limit.
const CROWDED: [&str; 6] = [
    "annot fork",
    "an't fork",
    "fork: ",
    "esource temporarily unavailable",
    "read init-p: connection reset",
    "newosproc",
];

/// Tells whether a machine says that it can start no process.
pub(super) fn is_crowded(said: &[u8]) -> bool {
    CROWDED
        .iter()
        .any(|words| memchr::memmem::find(said, words.as_bytes()).is_some())
}

/// The machine can start no process: what an earlier script left running, say, has used up all that it may have.
pub(super) fn crowded(what: &str) -> Error {
    Error::new(
        Kind::NoSpace,
        format!("the machine {what}: its limit of processes is reached"),
    )
    .hint(
        "Have the job's earlier scripts end what they start (`&`, daemons), or raise the limit: `ulimit -u` of the login's user \
         (on ECS: `ulimits`, nproc), the pids limit of the container. Without memory nothing can be started either.",
    )
}

/// The agent does not know a word of what it was asked.
pub(super) fn unknown(word: &str) -> Error {
    let ours = env!("CARGO_PKG_VERSION");
    let what = format!(
        "the agent is too old for this driver: it does not know {}",
        one_line(word)
    );
    Error::new(Kind::Protocol, what).hint(format!("Use an agent of this driver's version, {ours}."))
}

/// The image has a shell, and it does not start.
pub(super) fn unable(reason: &str) -> Error {
    let what = format!("the script's shell cannot be started: {}", one_line(reason));
    Error::new(Kind::Launch, what).hint(
        "Is the image of this machine's architecture, and does it have the libraries that its shell needs?",
    )
}

/// The machine lacks what every script needs.
pub(super) fn lacks(what: &str) -> Error {
    if what == "shell" {
        return greeting::no_shell();
    }
    Error::new(
        Kind::Protocol,
        format!("the machine has no {}", one_line(what)),
    )
    .hint("The driver's far side sees its processes there: mount it in the container or chroot that the SSH server runs in.")
}

/// The far side ended again and again before it spoke; this is what it wrote instead.
pub(super) fn not_started(stderr: &[u8], stdout: &[u8]) -> Error {
    if let Some(error) = trouble::exec(&String::from_utf8_lossy(stderr)) {
        return error;
    }
    let Some(said) = said(stderr, stdout) else {
        return began_nothing();
    };
    Error::new(Kind::Protocol, format!("the machine cannot run the driver's far side: {said}")).hint(
        "The image needs a POSIX login shell and sh, cat, dd, grep, head, mkdir, mkfifo, mv, rm, sleep, tail and wc on PATH \
         (coreutils or busybox); while /etc/nologin is there, OpenSSH runs commands of root alone.",
    )
}

/// The machine lets in, and starts nothing; or does not even let in, having done so before.
pub(super) fn began_nothing() -> Error {
    Error::new(
        Kind::Unreachable,
        "the machine begins no command, and does not say why: its limit of processes may be reached",
    )
    .hint(
        "Did the job's earlier scripts leave processes running? Have them end what they start, or raise the limit: `ulimit -u` of the \
         login's user, the pids limit of the container. If it is the job's first script: is the login's shell one, and does no start-up file of it \
         `exit`?",
    )
}

/// The machine let in again and again, and nothing came of it for too long; this is how the last connection went, and what the
/// far side wrote on it.
pub(super) fn out_of_reach(limit: Duration, loss: Loss, stderr: &[u8], stdout: &[u8]) -> Error {
    let said = said(stderr, stdout).map_or(String::new(), |said| format!(" ({said})"));
    let own = "The machine may be out of memory or of processes, or a script of the job ends its logins: see its own log; retry the \
               job.";
    let hint = match loss {
        Loss::Silent => format!("{START_UP_FILES} {own}"),
        Loss::Closed | Loss::NoCommand | Loss::Ended => own.to_owned(),
    };
    Error::new(
        Kind::Unreachable,
        format!(
            "the machine lets in, but its script was out of reach for {}: {}{said}",
            humantime::format_duration(limit),
            loss.told(),
        ),
    )
    .hint(hint)
}

pub(super) fn out_of_step(at: u64, expected: u64) -> Error {
    Error::new(
        Kind::Protocol,
        format!(
            "the machine goes on at byte {at} of the script's output, but {expected} were received"
        ),
    )
    .hint("Please report this.")
}

pub(super) fn malformed(error: Malformed) -> Error {
    Error::new(
        Kind::Protocol,
        "the machine does not keep the driver's protocol",
    )
    .because(error)
    .hint("Does a start-up file of its login shell print or loop without end?")
}

/// Returns what a far side wrote that should have spoken, on one line: a shell complains on standard error, a login that
/// refuses ("Please login as the user ...") on standard output.
pub(super) fn said(stderr: &[u8], stdout: &[u8]) -> Option<String> {
    let lines = [stderr, stdout].map(|bytes| one_line(&String::from_utf8_lossy(bytes)));
    lines.into_iter().find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_shells_and_servers_that_cannot_start_a_process_are_known() {
        for said in [
            "gad: 44: Cannot fork",
            "gad: line 43: can't fork: Resource temporarily unavailable",
            "environment: fork: retry: Resource temporarily unavailable",
            "bash: fork: Cannot allocate memory",
            "/bin/bash: Resource temporarily unavailable",
            "OCI runtime exec failed: fork/exec /proc/self/fd/6: resource temporarily unavailable",
            "OCI runtime exec failed: exec failed: unable to start container process: read init-p: connection reset by peer: unknown",
            "fatal error: newosproc",
        ] {
            assert!(is_crowded(said.as_bytes()), "{said}");
        }
        for said in [
            "",
            "sh: 1: mkfifo: not found",
            "This account is not available",
        ] {
            assert!(!is_crowded(said.as_bytes()), "{said}");
        }
        let error = crowded("cannot run the script");
        assert!(!error.remedy().unwrap().contains("disk"));
        let silent = not_started(b"", b"");
        assert!(silent.to_string().contains("limit of processes"));
    }
}
