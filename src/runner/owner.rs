//! The Runner process that owns a job: once it is gone, no stage of the job will ever be called again.

use crate::process::{self, Process};

/// Returns the nearest ancestor outside this process group.
///
/// The Runner starts each stage in a group of its own, so whatever wrapper script an admin put around the
/// driver shares our group and dies with the stage; the first ancestor beyond it is the Runner.
#[must_use]
pub fn find() -> Option<Process> {
    let me = process::stat(rustix::process::getpid().as_raw_pid())?;
    let mut at = me;
    loop {
        let parent = process::stat(at.parent)?;
        if parent.group != me.group {
            return parent.lives().then_some(parent.process);
        }
        at = parent;
    }
}
