//! What all processes of one bastion share, so that many jobs at once ask AWS no more often than it allows, and do not
//! each find out for themselves what one of them knows already.
//!
//! ```text
//! DIRECTORY/shared/budget/SCOPE.NAME   how many calls AWS would take just now
//! DIRECTORY/shared/poll/SCOPE/         who waits for the state of a machine, and who asks for all of them
//! DIRECTORY/shared/rungs/KEY           what came of a rung lately
//! DIRECTORY/shared/climbs/KEY          the rung on which a job was lost to Spot
//! DIRECTORY/shared/lease/              who may use the name that the configuration says (`state::lease`)
//! ```
//!
//! Nothing in here is needed, and what nobody has used for long is removed: what cannot be read or written is done without, and no job fails for it. Nothing is
//! fsynced. Locks are `flock`s, which die with their holder.

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

/// Makes a directory in here, but never the state directory itself: where there is none, somebody only looks (`reap
/// --dry-run`, say), and whose it would be is not known.
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

/// The part of the state directory that belongs to no job.
#[derive(Clone, Debug)]
pub struct Shared {
    directory: PathBuf,
}

impl Shared {
    /// Names the directory; nothing is touched yet.
    #[must_use]
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Takes a token out of a bucket, and returns how long it takes until the bucket has it: nothing, where it had one,
    /// or where nobody knows. The caller waits for itself.
    pub async fn take(&self, scope: &str, bucket: &Bucket) -> Duration {
        let path = self.bucket(scope, bucket);
        let wait = locked_file::change(&path, |level| budget::take(level, bucket, now())).await;
        wait.unwrap_or_default()
    }

    /// Empties a bucket: AWS says that there is nothing left in its own.
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

    /// Returns those who wait for answers of one kind.
    #[must_use]
    pub fn queue(&self, scope: &str) -> Queue {
        Queue::new(self.directory.join("poll").join(key(scope)))
    }
}

/// Makes a file name of anything.
fn key(text: &str) -> String {
    crate::hash::sha256_hex(text.as_bytes())[..32].to_owned()
}

/// Returns the time: Unix time, seconds.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
