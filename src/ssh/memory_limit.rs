//! The memory limit of a stage: the last protection against a machine that sends too much, if the other limits fail.
//!
//! It is not `RLIMIT_AS`: a failed allocation ends the process with a code that GitLab Runner does not know, and that limit would
//! apply to the helpers of `credential_process` as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Kind};

/// Several times what any stage needs; less than what a small bastion has for each of its jobs.
const LIMIT: u64 = 96 << 20;

/// The limit, and whether it was ever exceeded.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    limit: u64,
    /// How much memory was used when it was exceeded; 0 as long as it never was.
    crossed: Arc<AtomicU64>,
}

impl MemoryLimit {
    /// Returns the limit of a stage that has so many bytes of its own in memory, a script for example.
    #[must_use]
    pub fn beside(own: usize) -> Self {
        Self::of(LIMIT.saturating_add(own as u64))
    }

    pub(super) fn of(limit: u64) -> Self {
        Self {
            limit,
            crossed: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Checks the memory of this process. Fails if it is too much, and from then on.
    pub(super) fn look(&self) -> Result<(), Crossed> {
        if let Some(held) = resident().filter(|held| *held > self.limit) {
            self.crossed.store(held, Ordering::Relaxed);
        }
        match self.crossed.load(Ordering::Relaxed) {
            0 => Ok(()),
            held => Err(Crossed(held)),
        }
    }

    /// Returns whether the limit was exceeded, without another check.
    pub(super) fn crossed(&self) -> Option<Crossed> {
        match self.crossed.load(Ordering::Relaxed) {
            0 => None,
            held => Some(Crossed(held)),
        }
    }
}

/// The limit was exceeded, with so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the machine sends took {} MiB of memory on this host, far more than it may", .0 >> 20)]
pub struct Crossed(u64);

impl Crossed {
    /// Returns the error that ends the stage.
    pub(super) fn error(self) -> Error {
        Error::new(Kind::Protocol, self.to_string()).hint(
            "No output of a script does this: something on the machine sends what an SSH server does not. Look at what the job \
             runs; if it is nothing of that kind, please report this.",
        )
    }
}

/// Returns how many bytes of memory this process uses; `None` if the kernel does not say.
fn resident() -> Option<u64> {
    read(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn read(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words_are_read() {
        let status = "Name:\tgitlab\nVmHWM:\t   20000 kB\nVmRSS:\t   10240 kB\nThreads:\t2\n";
        assert_eq!(read(status), Some(10 << 20));
        assert_eq!(read("Name:\tgitlab\n"), None);
        assert!(resident().unwrap() > 1 << 20);
    }

    #[test]
    fn what_was_crossed_once_stays_crossed() {
        let memory_limit = MemoryLimit::of(1);
        let other = memory_limit.clone();
        assert_eq!(other.crossed(), None);
        let crossed = memory_limit.look().unwrap_err();
        assert_eq!(other.crossed(), Some(crossed));
        let told = crossed.error();
        assert!(told.to_string().contains("MiB of memory"), "{told}");
        assert!(told.remedy().is_some());
        assert_eq!(MemoryLimit::beside(1 << 40).look(), Ok(()));
    }
}
