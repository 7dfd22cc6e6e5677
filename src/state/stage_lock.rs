//! Whether any stage of a job runs: `prepare` and `run` have a shared lock for as long as they live.
//!
//! If the Runner lives, `reap` takes this lock before it ends a job whose directory is gone: somebody may have cleared `/tmp` under
//! the job, and five minutes after a hard cancel the Runner itself removes its directory beside a `run` that still lives.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;
use tokio::time::{Instant, sleep};

use super::lock::LockFile;
use super::{BUSY_PAUSE, Job, LOCK_LIMIT, make_directory};
use crate::files::open_own;

/// The name of the directory, below the shared one.
pub(in crate::state) const NAME: &str = "stages";

/// The lock of a stage, or of a process that found that no stage runs.
#[derive(Debug)]
pub struct StageLock {
    _lock: LockFile,
}

impl Job {
    /// Marks that a stage of the job runs, for as long as the result lives. Returns `None` if that fails: a full disk must not
    /// keep a script from running. Cancel-safe.
    pub async fn begin_stage(&self) -> Option<StageLock> {
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match self.share_stages() {
                Ok(Some(lock)) => return Some(lock),
                // `reap` is looking at the job now, or is ending it.
                Ok(None) if Instant::now() < deadline => sleep(BUSY_PAUSE).await,
                Ok(None) => return None,
                Err(error) => {
                    tracing::debug!(%error, "that a stage runs cannot be told to others");
                    return None;
                }
            }
        }
    }

    /// Makes sure that no stage of the job runs, or starts while the result lives. Returns `None` if one runs, or if none has
    /// ever had the lock.
    #[must_use]
    pub fn without_stages(&self) -> Option<StageLock> {
        let lock = LockFile::new(open_own(OpenOptions::new().read(true), &self.stages).ok()?);
        self.take_stages(lock, FlockOperation::NonBlockingLockExclusive)
            .ok()?
    }

    fn share_stages(&self) -> io::Result<Option<StageLock>> {
        if let Some(directory) = self.stages.parent() {
            make_directory(directory).map_err(io::Error::other)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = open_own(options.mode(0o600), &self.stages)?;
        self.take_stages(LockFile::new(file), FlockOperation::NonBlockingLockShared)
    }

    /// The process that had the lock may have removed the file; a lock on a removed file means nothing.
    fn take_stages(
        &self,
        lock: LockFile,
        operation: FlockOperation,
    ) -> io::Result<Option<StageLock>> {
        let same = |now: fs::Metadata| lock.metadata().is_ok_and(|m| m.ino() == now.ino());
        let taken = lock.take(operation)? && fs::metadata(&self.stages).is_ok_and(same);
        Ok(taken.then_some(StageLock { _lock: lock }))
    }

    /// Removes the lock's file, with all other files of the job.
    pub(in crate::state) fn forget_stages(&self) {
        drop(fs::remove_file(&self.stages));
    }
}

/// Removes the files of jobs that are gone (somebody removed their directories by hand). Only old files, since a stage that starts
/// has its file before its job's directory.
pub(in crate::state) fn prune(
    directory: &Path,
    is_known: impl Fn(&str) -> bool,
    old: impl Fn(&Path) -> bool,
) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(&is_known) && old(&entry.path()) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_is_without_stages_once_all_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let job = Store::new(dir.path().to_owned()).job("k-1");
        assert!(job.without_stages().is_none(), "nobody ever said anything");
        let (one, two) = (job.begin_stage().await, job.begin_stage().await);
        assert!(one.is_some() && two.is_some());
        assert!(job.without_stages().is_none());
        drop(one);
        assert!(job.without_stages().is_none());
        drop(two);
        let held = job.without_stages().unwrap();
        // One that begins meanwhile waits.
        assert!(job.share_stages().unwrap().is_none());
        job.forget_stages();
        // The job was ended; the old lock has nothing to do with another job of that name.
        let next = job.begin_stage().await;
        assert!(next.is_some());
        assert!(job.without_stages().is_none());
        drop(held);
        assert!(job.without_stages().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_can_be_written_a_stage_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let job = Store::new(file).job("k-1");
        assert!(job.begin_stage().await.is_none());
    }
}
