//! Removes files that nobody needs any more, so that a bastion that runs for years does not fill its disk: each kind by its age,
//! and the half-written files of processes that were killed.
//!
//! Called at each job's end, so that all these directories stay small. Nothing in them is needed (see [`super::shared`]) except
//! tombstones, which nobody needs after a day.

use std::fs::{self, DirEntry, Metadata};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{NOTE_AGE, Store, shared, stage_lock};
use crate::process::Process;

/// How long a tombstone is useful: longer than any pipeline waits before it retries a job.
const TOMBSTONE_AGE: Duration = Duration::from_secs(24 * 3600);
/// An answer of AWS's is used for a day at most; that a template was used counts for 30 days.
const KNOWN_AGE: Duration = Duration::from_secs(40 * 24 * 3600);

impl Store {
    /// Removes what nobody will need any more.
    pub fn prune(&self) {
        let in_root = |name: &str| self.root.join(name);
        remove(&in_root("tombstones"), |entry| {
            is_old_file(entry, TOMBSTONE_AGE) || is_unfinished(&entry.path())
        });
        remove(&in_root("known"), |entry| {
            is_old_file(entry, KNOWN_AGE) || is_unfinished(&entry.path())
        });
        remove(&in_root("notes"), |entry| is_old_file(entry, NOTE_AGE));
        self.prune_seeds();
        let old = |path: &Path| fs::metadata(path).is_ok_and(|m| is_older(&m, TOMBSTONE_AGE));
        let is_known = |key: &str| self.job(key).dir.exists();
        stage_lock::prune(&in_root(shared::NAME).join(stage_lock::NAME), is_known, old);
        self.shared().prune();
    }
}

/// Removes the matching files of a directory.
fn remove(directory: &Path, which: impl Fn(&DirEntry) -> bool) {
    for entry in entries(directory).filter(which) {
        drop(fs::remove_file(entry.path()));
    }
}

/// Whether it is a file that was not changed for so long.
fn is_old_file(entry: &DirEntry, age: Duration) -> bool {
    let metadata = entry.metadata().ok().filter(Metadata::is_file);
    metadata.is_some_and(|metadata| is_older(&metadata, age))
}

/// Returns the entries of a directory that can be read.
pub(in crate::state) fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

/// Whether it was not changed for so long, or lies as far in the future: then it was written under a wrong clock, and would
/// never get old.
pub(in crate::state) fn is_older(metadata: &Metadata, age: Duration) -> bool {
    let Ok(at) = metadata.modified() else {
        return false;
    };
    let now = SystemTime::now();
    let apart = now.duration_since(at).or_else(|_| at.duration_since(now));
    apart.is_ok_and(|apart| apart > age)
}

/// Returns whether a file is half-written and its writer, whose pid it ends with, is dead.
pub(super) fn is_unfinished(path: &Path) -> bool {
    let pid = path.extension().and_then(|end| end.to_str()?.parse().ok());
    pid.is_some_and(|pid| Process::of(pid).is_none())
}
