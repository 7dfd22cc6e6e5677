//! What is above the agent: process 1, the agent's parent, and whether the container is the agent's to end.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::{Pid, getpid, getppid};

use crate::parameters;
use crate::processes::{name, read, status};

/// The number of the host's own process namespace, which the kernel fixes.
const HOST_NAMESPACE: &str = "4026531836";

/// How much of an environment or a command line is looked at.
const LOOK_MAX: u64 = 8 << 20;

/// Inits that hand signals on to their child, by their process's name.
const FORWARDING: [&str; 6] = [
    "tini",
    "tini-static",
    "docker-init",
    "dumb-init",
    "catatonit",
    "podman-init",
];

/// The path by which containers on AWS have their init. Its process's name alone is that of many other programs.
const AWS_INIT: &str = "/dev/init";

/// SIGTERM's bit in the mask of signals that a process catches.
const TERM_BIT: u64 = 1 << 14;

/// What is above the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Above {
    /// The agent is process 1.
    pub(crate) is_first: bool,
    /// The name of process 1, where it is another one and can be seen.
    pub(crate) first: Option<String>,
    /// The name of the agent's parent, where it has one that can be seen.
    pub(crate) parent: Option<String>,
    /// Whoever ends the container by a signal waits for the agent.
    pub(crate) holds_term: bool,
}

impl Above {
    /// Looks.
    pub(crate) fn now() -> Self {
        let is_first = getpid() == Pid::INIT;
        let parent = getppid();
        let first = (!is_first).then(|| name(1)).flatten();
        let is_child_of_first = parent == Some(Pid::INIT);
        let forwards = first
            .as_deref()
            .is_some_and(|name| forwards(name, program_of_first().as_deref()));
        Self {
            is_first,
            first,
            parent: parent.and_then(|parent| name(parent.as_raw_pid())),
            holds_term: is_first || (is_child_of_first && forwards),
        }
    }
}

/// Tells whether a process 1 hands signals on to its child.
fn forwards(name: &str, program: Option<&str>) -> bool {
    let base = program.map(|program| program.rsplit('/').next().unwrap_or(program));
    FORWARDING.contains(&name)
        || base.is_some_and(|base| FORWARDING.contains(&base))
        || program == Some(AWS_INIT)
}

/// Returns the program of process 1: its file where that may be seen, else the word by which it was called.
fn program_of_first() -> Option<String> {
    if let Ok(file) = std::fs::read_link("/proc/1/exe") {
        return Some(file.to_string_lossy().into_owned());
    }
    let line = read(Path::new("/proc/1/cmdline"), LOOK_MAX)?;
    let word = line.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(word).into_owned())
}

/// Tells whether process 1 catches TERM; the kernel keeps it from one that does not.
pub(crate) fn first_catches_term() -> bool {
    status(1, "SigCgt")
        .and_then(|mask| u64::from_str_radix(&mask, 16).ok())
        .is_some_and(|mask| mask & TERM_BIT != 0)
}

/// Tells whether this is a container that was launched for the agent, and no other process than process 1 ends it.
///
/// Where there is doubt it is not: the host's own processes or those of other containers would be killed. Process 1 must have
/// been given the agent's parameters itself, so that an agent that somebody starts by hand ends nothing but itself.
pub(crate) fn is_ours() -> bool {
    let own = getpid();
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    let is_hosts = namespace.map_or(true, |namespace| {
        namespace.to_string_lossy().contains(HOST_NAMESPACE)
    });
    // A /proc of another namespace shows other numbers.
    let is_shown = std::fs::read_link("/proc/self")
        .is_ok_and(|link| link.to_str() == Some(own.to_string().as_str()));
    own != Pid::INIT
        && !is_hosts
        && is_shown
        && has_our_root()
        && read(Path::new("/proc/1/environ"), LOOK_MAX).is_some_and(|it| holds_parameters(&it))
}

/// Containers that share their processes have roots of their own.
fn has_our_root() -> bool {
    match (std::fs::metadata("/proc/1/root"), std::fs::metadata("/")) {
        (Ok(first), Ok(own)) => (first.dev(), first.ino()) == (own.dev(), own.ino()),
        _ => false,
    }
}

fn holds_parameters(environment: &[u8]) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| {
        [parameters::VARIABLE, parameters::FILE_VARIABLE]
            .into_iter()
            .any(|name| {
                variable
                    .strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.starts_with(b"="))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inits_are_known_by_name_or_file() {
        assert!(forwards("tini", None));
        assert!(forwards("docker-init", Some("/sbin/docker-init")));
        assert!(forwards("init", Some("/sbin/docker-init")));
        assert!(forwards("init", Some("/dev/init")));
        assert!(!forwards("init", Some("/sbin/init")));
        assert!(!forwards("systemd", Some("/usr/lib/systemd/systemd")));
        assert!(!forwards("sh", Some("/bin/sh")));
        assert!(!forwards("init", None));
    }

    #[test]
    fn parameters_are_found_in_an_environment() {
        assert!(holds_parameters(b"A=b\0GITLAB_AWS_AGENT=login=x\0C=d\0"));
        assert!(holds_parameters(b"GITLAB_AWS_AGENT_FILE=/x"));
        assert!(!holds_parameters(
            b"A=GITLAB_AWS_AGENT=x\0GITLAB_AWS_AGENT_X=y\0"
        ));
        assert!(!holds_parameters(b""));
    }

    #[test]
    fn nothing_here_is_ours_to_end() {
        assert!(!is_ours());
    }
}
