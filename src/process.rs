//! Processes by pid, start time *and* boot, so that a pid that was given away again is never mistaken: start times
//! count from the boot, and after the next one both numbers may well come again. A pid means something in one PID
//! namespace only (a container has its own), so that stands beside them: of a process of another one nothing is known.
//!
//! Source: `/proc/PID/stat` as proc(5) describes it (fields 3 state, 4 ppid, 5 pgrp, 6 session, 22 start time),
//! `/proc/sys/kernel/random/boot_id` as random(4) does, and `/proc/self/ns/pid` as pid_namespaces(7) and namespaces(7) do.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;

/// How often a process is looked at of which no descriptor tells.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same, for a thread that waits.
const LOOK_PAUSE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// No number that a boot or a namespace ever had.
pub(crate) const UNKNOWN: u64 = 0;

/// One process of this host, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its start time, in clock ticks since boot.
    pub started: u64,
    /// The boot that it belongs to (see `boot`). Unknown (0) is no boot that ever was.
    #[serde(default)]
    pub boot: u64,
    /// The PID namespace that its pid is a number of (see `namespace`). Unknown (0): taken for one's own.
    #[serde(default)]
    pub namespace: u64,
}

/// What is known of a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Lives,
    /// It ended; a zombie has.
    Gone,
    /// Nobody here can tell: it is of another PID namespace, or the kernel does not say.
    Unknown,
}

/// What the numbers of processes that are seen from here belong to.
#[derive(Clone, Copy, Debug)]
struct Here {
    boot: u64,
    namespace: u64,
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

    /// Returns whether it is known to run still; a zombie does not.
    #[must_use]
    pub fn lives(self) -> bool {
        self.life() == Life::Lives
    }

    /// Returns what is known of its life.
    #[must_use]
    pub fn life(self) -> Life {
        self.life_from(Here::look())
    }

    /// Returns whether it is known to be of another boot than this one: gone, whatever its namespace.
    #[must_use]
    pub fn is_of_another_boot(self) -> bool {
        let now = boot();
        now != UNKNOWN && self.boot != UNKNOWN && self.boot != now
    }

    fn life_from(self, here: Here) -> Life {
        if self.boot != here.boot {
            // Whatever the namespace: nothing outlives its boot.
            return match here.boot {
                UNKNOWN => Life::Unknown,
                _ => Life::Gone,
            };
        }
        let known = self.namespace != UNKNOWN && here.namespace != UNKNOWN;
        if known && self.namespace != here.namespace {
            return Life::Unknown;
        }
        match stat_in(self.pid, here) {
            Ok(Some(stat)) if stat.lives() && stat.process.started == self.started => Life::Lives,
            Ok(_) => Life::Gone,
            Err(_) => Life::Unknown,
        }
    }

    /// Sends a signal unless the process is gone, or nobody can tell whose pid it is.
    pub fn signal(self, signal: rustix::process::Signal) {
        if self.lives()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // Gone in between: what was asked for has happened.
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// Resolves when the process is gone; never for one of which nobody can tell.
    pub async fn gone(self) {
        self.gone_by(self.pidfd()).await;
    }

    /// Waits by a descriptor, where there is one, and else by looking now and then.
    async fn gone_by(self, watched: Option<OwnedFd>) {
        // Opened by number: only now is it sure that the number still means this process.
        if let Some(fd) = watched
            && self.lives()
        {
            // tokio's one safe way to wait for a descriptor of this sort; a pidfd polls like a pipe with a reader.
            match Receiver::from_owned_fd_unchecked(fd) {
                Ok(fd) => drop(fd.readable().await),
                Err(error) => tracing::debug!(%error, "a process is looked at now and then"),
            }
        }
        while self.life() != Life::Gone {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the process is gone, holding up this thread.
    pub fn wait(self) {
        let watched = self.pidfd();
        loop {
            // Interrupted: look again.
            match (self.life(), &watched) {
                (Life::Gone, _) => return,
                (Life::Lives, Some(fd)) => {
                    poll(&mut [PollFd::new(fd, PollFlags::IN)], None).ok();
                }
                (Life::Lives | Life::Unknown, _) => {
                    poll(&mut [], Some(&LOOK_PAUSE)).ok();
                }
            }
        }
    }

    /// Returns what tells of its end, if that can be had. That it cannot says nothing of the process: descriptors may have
    /// run out, or a sandbox may forbid the call. Without flags, since kernels before 5.10 know none; nothing is read.
    fn pidfd(self) -> Option<OwnedFd> {
        pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()
    }
}

impl Here {
    fn look() -> Self {
        Self {
            boot: boot(),
            namespace: namespace(),
        }
    }
}

impl Stat {
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Reads one process's state.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    stat_in(pid, Here::look()).ok().flatten()
}

/// Reads one process's state; none where there is no such process.
fn stat_in(pid: i32, here: Here) -> io::Result<Option<Stat>> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(line) => parse_stat(&line, here)
            .map(Some)
            .ok_or_else(|| io::ErrorKind::InvalidData.into()),
        Err(error) if says_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error of reading from `/proc/PID` says that the process is gone; the second comes where it went while it was
/// read. All others (no descriptor left, no right to look) say nothing of it.
fn says_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Tells this boot of the host from all others: the first half of the kernel's random number for it.
pub(crate) fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or_default()
}

/// Tells the PID namespace of this process from all others: the inode that stands for it.
fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(UNKNOWN, |it| it.ino())
}

/// Returns every process of the host that can be seen.
pub(crate) fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let here = Here::look();
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat_in(pid, here).ok().flatten())
        .collect()
}

/// Parses a stat line; the command's name in it may hold any byte, so fields count from its last `)`.
fn parse_stat(line: &[u8], here: Here) -> Option<Stat> {
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
            boot: here.boot,
            namespace: here.namespace,
        },
        state,
        parent,
        group,
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const HERE: Here = Here {
        boot: 5,
        namespace: 6,
    };

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let line = b"12 (a) (b c) S 3 4 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 99 0";
        let stat = parse_stat(line, HERE).unwrap();
        let process = Process {
            pid: 12,
            started: 777,
            boot: 5,
            namespace: 6,
        };
        assert_eq!(stat.process, process);
        assert_eq!((stat.state, stat.parent, stat.group), (b'S', 3, 4));
    }

    #[test]
    fn this_process_lives_and_another_birth_or_boot_does_not() {
        let me = Process::this().unwrap();
        assert!(me.lives());
        let (started, boot) = (me.started + 1, me.boot ^ 1);
        assert_eq!(Process { started, ..me }.life(), Life::Gone);
        assert_eq!(Process { boot, ..me }.life(), Life::Gone);
        let another = |boot| Process { boot, ..me }.is_of_another_boot();
        assert!(another(boot) && !another(me.boot) && !another(UNKNOWN));
    }

    #[test]
    fn a_boot_is_the_kernels_number_for_it() {
        assert_ne!(boot(), UNKNOWN);
        assert_eq!(boot(), boot());
    }

    #[test]
    fn of_another_namespace_nothing_is_known_but_that_its_boot_is_over() {
        let me = Process::this().unwrap();
        assert_ne!(me.namespace, UNKNOWN);
        // Whatever process has the number here.
        let there = Process {
            namespace: me.namespace ^ 1,
            ..me
        };
        assert_eq!(there.life(), Life::Unknown);
        assert!(!there.lives());
        let boot = me.boot ^ 1;
        assert_eq!(Process { boot, ..there }.life(), Life::Gone);
    }

    #[test]
    fn a_process_that_an_older_version_wrote_down_is_of_this_namespace() {
        let me = Process::this().unwrap();
        let json = format!(
            r#"{{"pid":{},"started":{},"boot":{}}}"#,
            me.pid, me.started, me.boot
        );
        let mut old: Process = serde_json::from_str(&json).unwrap();
        assert_eq!(old.namespace, UNKNOWN);
        assert!(old.lives());
        old.started += 1;
        assert_eq!(old.life(), Life::Gone);
    }

    #[test]
    fn where_the_boot_or_the_namespace_cannot_be_told() {
        let me = Process::this().unwrap();
        let here = Here::look();
        let no_boot = Here {
            boot: UNKNOWN,
            ..here
        };
        assert_eq!(me.life_from(no_boot), Life::Unknown);
        let no_namespace = Here {
            namespace: UNKNOWN,
            ..here
        };
        assert_eq!(me.life_from(no_namespace), Life::Lives);
    }

    #[test]
    fn only_a_missing_process_is_gone() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        for errno in [Errno::NOENT, Errno::SRCH] {
            assert!(says_gone(&error(errno)), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ACCESS, Errno::NOMEM] {
            assert!(!says_gone(&error(errno)), "{errno}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_descriptor_a_process_is_looked_at() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        let patience = LOOK_EVERY * 5;
        assert!(timeout(patience, process.gone_by(None)).await.is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(timeout(patience, process.gone_by(None)).await.is_ok());
        assert!(timeout(patience, process.gone()).await.is_ok());
        process.wait();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_process_elsewhere_is_never_told() {
        let mut there = Process::this().unwrap();
        there.namespace ^= 1;
        // No process has that number here.
        there.pid = i32::MAX;
        assert!(timeout(LOOK_EVERY * 5, there.gone()).await.is_err());
    }
}
