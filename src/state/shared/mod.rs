//! What all processes of one bastion share, so that many jobs at once stay within AWS's API limits, and do not each find out
//! again what one of them knows already.
//!
//! ```text
//! DIRECTORY/shared/budget/SCOPE.NAME   how many calls AWS would accept now
//! DIRECTORY/shared/poll/SCOPE/         who waits for the state of a machine, and who asks for all of them
//! DIRECTORY/shared/rungs/KEY           the recent results of a rung
//! DIRECTORY/shared/climbs/KEY          the rung on which a job was lost to Spot
//! DIRECTORY/shared/lease/              which host may use the name in the configuration (`state::lease`)
//! ```
//!
//! Nothing in here is needed: if a file cannot be read or written, the job goes on without it. What nobody has used for long is
//! removed. Nothing is fsynced. Locks are `flock`s, which end with their process.

pub mod breaker;
pub mod budget;
mod locked_file;
mod prune;
pub mod queue;
pub mod spot_losses;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use budget::Bucket;
use queue::Queue;

/// The name of all this in the state directory.
pub(super) const NAME: &str = "shared";

/// Makes a directory in here, but never the state directory itself: if that is missing, somebody only looks (`reap --dry-run`, for
/// example), and its owner is unknown.
fn make_directory(directory: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(directory);
    let made = match (make(), directory.parent()) {
        (Err(e), Some(parent))
            if e.kind() == io::ErrorKind::NotFound && !directory.ends_with(NAME) =>
        {
            make_directory(parent)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// The part of the state directory that all jobs share.
#[derive(Clone, Debug)]
pub struct Shared {
    directory: PathBuf,
}

impl Shared {
    /// Names the directory. Does not touch it yet.
    #[must_use]
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Takes a token out of a bucket, and returns how long to wait for it: zero if the bucket had one, or if its level is
    /// unknown. The caller does the waiting.
    pub async fn take(&self, scope: &str, bucket: &Bucket) -> Duration {
        let path = self.bucket(scope, bucket);
        let wait = locked_file::change(&path, |level| budget::take(level, bucket, now())).await;
        wait.unwrap_or_default()
    }

    /// Empties a bucket: AWS has throttled, so its own bucket is empty.
    pub async fn drain(&self, scope: &str, bucket: &Bucket) {
        let path = self.bucket(scope, bucket);
        locked_file::change(&path, |level| (budget::drain(level, bucket, now()), ())).await;
    }

    fn bucket(&self, scope: &str, bucket: &Bucket) -> PathBuf {
        let name = bucket.name.replace(':', "-");
        self.directory
            .join("budget")
            .join(format!("{}.{name}", key(scope)))
    }

    /// Returns the queue for answers of one kind.
    #[must_use]
    pub fn queue(&self, scope: &str) -> Queue {
        Queue::new(self.directory.join("poll").join(key(scope)))
    }
}

/// Makes a file name of any text.
fn key(text: &str) -> String {
    crate::hash::sha256_hex(text.as_bytes())[..32].to_owned()
}

/// Returns the time: Unix time, seconds.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
