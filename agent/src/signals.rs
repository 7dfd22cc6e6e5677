//! Signals: their names on the wire, the dispositions that commands inherit, and orphans.

use std::collections::HashSet;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::Sig;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// Returns the signal that a client asked for, if there is such a one here.
pub(crate) fn from_wire(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(name) if name == "USR2" => Signal::USR2,
        Sig::Custom(_) => return None,
    })
}

/// Returns the name under which a signal goes over the wire: RFC 4254 names thirteen, and OpenSSH calls
/// all others by one name.
pub(crate) fn to_wire(signal: i32) -> Sig {
    match Signal::from_named_raw(signal) {
        Some(Signal::ABORT) => Sig::ABRT,
        Some(Signal::ALARM) => Sig::ALRM,
        Some(Signal::FPE) => Sig::FPE,
        Some(Signal::HUP) => Sig::HUP,
        Some(Signal::ILL) => Sig::ILL,
        Some(Signal::INT) => Sig::INT,
        Some(Signal::KILL) => Sig::KILL,
        Some(Signal::PIPE) => Sig::PIPE,
        Some(Signal::QUIT) => Sig::QUIT,
        Some(Signal::SEGV) => Sig::SEGV,
        Some(Signal::TERM) => Sig::TERM,
        Some(Signal::USR1) => Sig::USR1,
        Some(Signal::USR2) => Sig::Custom("USR2".to_owned()),
        _ => Sig::Custom("SIG@openssh.com".to_owned()),
    }
}

/// How a command ended, in the terms of the wire.
#[derive(Debug)]
pub(crate) enum Ending {
    Code(u32),
    Signal { name: Sig, core_dumped: bool },
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (None, Some(signal)) => Self::Signal {
                name: to_wire(signal),
                core_dumped: status.core_dumped(),
            },
            (code, _) => Self::Code(code.unwrap_or(255).unsigned_abs()),
        }
    }
}

/// Makes commands start with default dispositions even where this process was started with signals
/// ignored, as a shell's `&` and `nohup` do: an ignored signal stays ignored over exec, whereas one with
/// a handler becomes default. A handler that does nothing ignores just as well. Needs a runtime around it.
pub fn shed_ignored_signals() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for number in ignored(&status) {
        // SIGPIPE is the standard library's: ignored here, default in children. The rest that refuse a
        // handler (SIGKILL, SIGSTOP) cannot be ignored either.
        if number != Signal::PIPE.as_raw() {
            drop(signal(SignalKind::from_raw(number)));
        }
    }
}

fn ignored(status: &str) -> Vec<i32> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    (1..=64)
        .filter(|number| mask & (1 << (number - 1)) != 0)
        .collect()
}

/// The commands that this server started and has not yet reaped.
///
/// Holding the lock over starting a command keeps the reaping of orphans from taking its status.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commands(Arc<Mutex<HashSet<i32>>>);

impl Commands {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reaps what a job leaves behind: all orphans below this process fall to it. Where there is no `/proc` to see them by, they
/// stay until this process ends.
pub(crate) struct Orphans {
    commands: Commands,
    child_ended: SignalStream,
}

impl Orphans {
    pub(crate) fn new(commands: Commands) -> io::Result<Self> {
        // Process 1 gets them in any case.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        Ok(Self {
            commands,
            child_ended: signal(SignalKind::child())?,
        })
    }

    /// Reaps for as long as it is waited for.
    pub(crate) async fn reap(&mut self) {
        // First what an entrypoint has left to the process that became this one.
        self.look();
        while self.child_ended.recv().await.is_some() {
            self.look();
        }
        std::future::pending::<()>().await;
    }

    fn look(&self) {
        let commands = self.commands.lock();
        for pid in children().into_iter().filter(|pid| !commands.contains(pid)) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// Returns the children of all threads of this process.
fn children() -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_wire() {
        for number in [1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
            let back = from_wire(&to_wire(number)).unwrap();
            assert_eq!(back.as_raw(), number);
        }
        assert!(matches!(to_wire(7), Sig::Custom(name) if name == "SIG@openssh.com"));
        assert!(from_wire(&Sig::Custom("WINCH".to_owned())).is_none());
    }

    #[test]
    fn the_ignored_mask_is_read() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001006\n"), [2, 3, 13]);
        assert!(ignored("").is_empty());
    }
}
