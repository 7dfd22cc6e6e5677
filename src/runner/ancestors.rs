//! The processes that may be the Runner that called this stage: its ancestors.

use rustix::process::getpid;

use crate::process::{self, Process};

/// More ancestors than any stage has.
const MOST: usize = 64;
/// The process that adopts the orphans of a PID namespace. It outlives every Runner. If it is the Runner itself, the whole
/// namespace ends with it.
const INIT: i32 = 1;

/// Returns the live ancestors outside this process group, the nearest first.
///
/// The Runner starts each stage in a group of its own, so an administrator's wrapper script around the driver is in our group and
/// ends with the stage. A wrapper that gives the driver another group (`timeout`, `setsid`, `sudo` with a terminal) can only be
/// told apart from the Runner by another stage, because it is not an ancestor of that one.
#[must_use]
pub fn ancestors() -> Vec<Process> {
    let mut found = Vec::new();
    let Some(me) = process::stat(getpid().as_raw_pid()) else {
        return found;
    };
    let mut at = me;
    for _ in 0..MOST {
        if at.parent <= INIT {
            break;
        }
        let Some(parent) = process::stat(at.parent) else {
            break;
        };
        // The pid was reused between the two looks: no parent is younger than its child.
        if parent.process.started > at.process.started {
            break;
        }
        if parent.group != me.group && parent.lives() {
            found.push(parent.process);
        }
        at = parent;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_live_and_are_neither_this_process_nor_init() {
        let me = Process::this().unwrap();
        for ancestor in ancestors() {
            assert!(ancestor.lives() && ancestor != me && ancestor.pid > INIT);
        }
    }
}
