//! Removes shared files that nobody has used for long, each kind at its own age. Never a file in use: its lock is taken first,
//! and a process that waits for the lock then checks whether its file still has the name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};

use super::{Shared, spot_losses};
use crate::state::lock::LockFile;
use crate::state::prune::{entries, is_older};

/// A bucket is full again long before: only minutes are given in advance.
const BUDGET_AGE: Duration = Duration::from_secs(3600);
/// A failure counts for 15 minutes, and a rung is skipped for 30.
const RUNG_AGE: Duration = Duration::from_secs(3600);
/// Processes wait for seconds; the directory changes with each that comes or goes.
const POLL_AGE: Duration = Duration::from_secs(3600);

impl Shared {
    /// Removes what nobody has used for long.
    pub(in crate::state) fn prune(&self) {
        prune(&self.directory.join("budget"), BUDGET_AGE);
        prune(&self.directory.join("rungs"), RUNG_AGE);
        prune(&self.directory.join("climbs"), spot_losses::AGE);
        for entry in entries(&self.directory.join("poll")) {
            let old = |metadata: &Metadata| metadata.is_dir() && is_older(metadata, POLL_AGE);
            if entry.metadata().is_ok_and(|metadata| old(&metadata)) {
                super::queue::remove_unused(&entry.path());
            }
        }
    }
}

/// Removes the files of a directory that nobody has changed for so long.
fn prune(directory: &Path, age: Duration) {
    for entry in entries(directory) {
        let old = |metadata: &Metadata| metadata.is_file() && is_older(metadata, age);
        if !entry.metadata().is_ok_and(|metadata| old(&metadata)) {
            continue;
        }
        let path = entry.path();
        // Under its lock: another process may have just started to use it.
        if let Ok(Some(lock)) = lock_existing(&path)
            && lock.metadata().is_ok_and(|metadata| old(&metadata))
        {
            drop(fs::remove_file(path));
        }
    }
}

/// Locks an existing file, unless another process has it.
pub(super) fn lock_existing(path: &Path) -> io::Result<Option<LockFile>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let lock = LockFile::new(file);
    let taken = lock.take(FlockOperation::NonBlockingLockExclusive)?;
    Ok((taken && lock.is_at(path)).then_some(lock))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::state::Store;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// Makes something as old as that.
    fn aged(path: &Path, age: Duration) {
        let file = File::open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn file(path: &Path, age: Duration) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        aged(path, age);
        path.to_owned()
    }

    #[test]
    fn each_kind_goes_at_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        for (kind, kept, gone) in [
            ("tombstones", DAY - BUDGET_AGE, DAY + BUDGET_AGE),
            ("known", 39 * DAY, 41 * DAY),
            ("notes", DAY - BUDGET_AGE, DAY + BUDGET_AGE),
            ("shared/budget", BUDGET_AGE / 2, BUDGET_AGE * 2),
            ("shared/rungs", RUNG_AGE / 2, RUNG_AGE * 2),
            ("shared/climbs", DAY - BUDGET_AGE, DAY + BUDGET_AGE),
        ] {
            let directory = folder.path().join(kind);
            let kept = file(&directory.join("kept"), kept);
            let gone = file(&directory.join("gone"), gone);
            // Something that is none of ours.
            let strange = directory.join("directory");
            fs::create_dir(&strange).unwrap();
            aged(&strange, 100 * DAY);
            // A clock that was years ahead.
            let future = file(&directory.join("future"), Duration::ZERO);
            let ahead = File::open(&future).unwrap();
            ahead.set_modified(SystemTime::now() + 1000 * DAY).unwrap();
            store.prune();
            assert!(kept.exists() && !gone.exists(), "{kind}");
            assert!(strange.exists() && !future.exists(), "{kind}");
        }
    }

    #[test]
    fn what_somebody_holds_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let cell = file(&folder.path().join("shared/budget/a.b"), DAY);
        let held = lock_existing(&cell).unwrap().unwrap();
        store.prune();
        assert!(cell.exists());
        drop(held);
        store.prune();
        assert!(!cell.exists());
    }

    #[tokio::test]
    async fn a_queue_goes_when_nobody_leads_or_waits() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        fs::create_dir(folder.path().join("shared")).unwrap();
        let queue = store.shared().queue("x");
        let directory = || {
            let mut all = entries(&folder.path().join("shared/poll"));
            all.next().map(|entry| entry.path())
        };
        let lead = queue.lead().unwrap().unwrap();
        aged(&directory().unwrap(), DAY);
        store.prune();
        assert!(directory().is_some());
        let place = queue.join("a").unwrap();
        drop(lead);
        aged(&directory().unwrap(), DAY);
        store.prune();
        assert_eq!(entries(&directory().unwrap()).count(), 2);
        drop(place);
        // Young again, since somebody went.
        store.prune();
        assert!(directory().is_some());
        aged(&directory().unwrap(), DAY);
        store.prune();
        assert_eq!(directory(), None);
        // It comes anew for whoever waits or leads.
        let place = queue.join("b").unwrap();
        let lead = queue.lead().unwrap().unwrap();
        assert_eq!(lead.waiting().len(), 1);
        drop(place);
    }
}
