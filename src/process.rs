//! Processes by pid, start time *and* boot, so that a pid that was given away again is never mistaken: start times
//! count from the boot, and after the next one both numbers may well come again.
//!
//! Source: `/proc/PID/stat` as proc(5) describes it (fields 3 state, 4 ppid, 5 pgrp, 6 session, 22 start time), and
//! `/proc/sys/kernel/random/boot_id` as random(4) does.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;

/// One process of this host, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its start time, in clock ticks since boot.
    pub started: u64,
    /// The boot that it belongs to (see [`boot`]). Unknown (0) is no boot that ever was.
    #[serde(default)]
    pub boot: u64,
}

/// What `/proc/PID/stat` tells, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) process: Process,
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
}

impl Process {
    /// Returns the live process with that pid.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).filter(Stat::lives).map(|s| s.process)
    }

    /// Returns this process.
    #[must_use]
    pub fn this() -> Option<Self> {
        Self::of(rustix::process::getpid().as_raw_pid())
    }

    /// Returns whether it still runs; a zombie does not.
    #[must_use]
    pub fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal unless the process is gone.
    pub fn signal(self, signal: rustix::process::Signal) {
        if self.lives()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // Gone in between: what was asked for has happened.
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// Resolves when the process is gone.
    pub async fn gone(self) {
        let Some(fd) = self.pidfd() else { return };
        // Opened by number: only now is it sure that the number still means this process.
        if !self.lives() {
            return;
        }
        // tokio's one safe way to wait for a descriptor of this sort; a pidfd polls like a pipe with a reader.
        match Receiver::from_owned_fd_unchecked(fd) {
            Ok(fd) => drop(fd.readable().await),
            Err(error) => {
                tracing::error!(%error, "cannot watch a process");
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the process is gone, holding up this thread.
    pub fn wait(self) {
        let Some(fd) = self.pidfd() else { return };
        while self.lives() {
            let mut watched = [PollFd::new(&fd, PollFlags::IN)];
            // Interrupted: look again.
            poll(&mut watched, None).ok();
        }
    }

    fn pidfd(self) -> Option<OwnedFd> {
        pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()
    }
}

impl Stat {
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Reads one process's state.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    stat_in(pid, boot())
}

fn stat_in(pid: i32, boot: u64) -> Option<Stat> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?, boot)
}

/// Tells this boot of the host from all others: the first half of the kernel's random number for it.
fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or_default()
}

/// Returns every process of the host that can be seen.
pub(crate) fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let boot = boot();
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat_in(pid, boot))
        .collect()
}

/// Parses a stat line; the command's name in it may hold any byte, so fields count from its last `)`.
fn parse_stat(line: &[u8], boot: u64) -> Option<Stat> {
    let text = String::from_utf8_lossy(line);
    let (pid, rest) = text.split_once(' ')?;
    let mut fields = rest.rsplit_once(") ")?.1.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Field 22, of which state (3), ppid (4) and pgrp (5) are taken.
    let started = fields.nth(16)?.parse().ok()?;
    Some(Stat {
        process: Process {
            pid: pid.parse().ok()?,
            started,
            boot,
        },
        state,
        parent,
        group,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let line = b"12 (a) (b c) S 3 4 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 99 0";
        let stat = parse_stat(line, 5).unwrap();
        let process = Process {
            pid: 12,
            started: 777,
            boot: 5,
        };
        assert_eq!(stat.process, process);
        assert_eq!((stat.state, stat.parent, stat.group), (b'S', 3, 4));
    }

    #[test]
    fn this_process_lives_and_another_birth_or_boot_does_not() {
        let me = Process::this().unwrap();
        assert!(me.lives());
        let (started, boot) = (me.started + 1, me.boot ^ 1);
        assert!(!Process { started, ..me }.lives());
        assert!(!Process { boot, ..me }.lives());
    }

    #[test]
    fn a_boot_is_the_kernels_number_for_it() {
        assert_ne!(boot(), 0);
        assert_eq!(boot(), boot());
    }
}
