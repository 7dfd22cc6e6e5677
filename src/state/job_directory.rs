//! The Runner's own directory for a job shows whether the job is over: GitLab Runner makes one for each attempt and removes it when
//! the attempt is over, even if `cleanup` failed.
//!
//! It only counts as gone if its parent directory is certainly the same: the same inode of the same device, in the same boot.
//! `/tmp` may be another one here (systemd's `PrivateTmp`, a container), or somebody may have cleared it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::process::{self, Process};

/// The Runner's directory for one attempt of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDirectory {
    path: PathBuf,
    /// The directory itself.
    own: Inode,
    /// The parent directory.
    parent: Inode,
    /// The boot in which these numbers are valid (see [`Process::boot`]).
    boot: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inode {
    device: u64,
    number: u64,
}

/// What a look at it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    There,
    Gone,
    /// The parent is another directory, or cannot be read.
    Unknown,
}

impl JobDirectory {
    /// Records which directory that is; `None` if it could not be recognised later.
    #[must_use]
    pub fn note(path: &Path) -> Option<Self> {
        // Such a path cannot be written to a file, or cannot be found from another working directory.
        if !path.is_absolute() || path.to_str().is_none() {
            return None;
        }
        let parent = std::fs::metadata(path.parent()?).ok()?;
        let own = std::fs::symlink_metadata(path).ok()?;
        let inode = |metadata: &std::fs::Metadata| Inode {
            device: metadata.dev(),
            number: metadata.ino(),
        };
        let boot = process::boot();
        (own.is_dir() && boot != 0).then(|| Self {
            path: path.to_owned(),
            own: inode(&own),
            parent: inode(&parent),
            boot,
        })
    }

    /// Whether the Runner has certainly removed it, as this process sees it; or, if the Runner sees other directories, as the
    /// Runner sees it.
    #[must_use]
    pub fn is_gone(&self, runner: Option<Process>) -> bool {
        if self.boot != process::boot() {
            return false;
        }
        match (self.look(Path::new("/")), runner) {
            (Seen::Unknown, Some(runner)) if runner.lives() => {
                let root = PathBuf::from(format!("/proc/{}/root", runner.pid));
                // Only now is it certain whose root that was.
                self.look(&root) == Seen::Gone && runner.lives()
            }
            (seen, _) => seen == Seen::Gone,
        }
    }

    fn look(&self, root: &Path) -> Seen {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Seen::Unknown;
        };
        let below = parent.components().filter(|c| *c != Component::RootDir);
        let parent = root.join(below.collect::<PathBuf>());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Kept open, so that the look is certainly into this directory.
        let Ok(parent) = openat(CWD, &parent, flags, Mode::empty()) else {
            return Seen::Unknown;
        };
        if !fstat(&parent).is_ok_and(|now| self.parent.is(&now)) {
            return Seen::Unknown;
        }
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(now) if self.own.is(&now) => Seen::There,
            Ok(_) | Err(Errno::NOENT) => Seen::Gone,
            Err(_) => Seen::Unknown,
        }
    }
}

impl Inode {
    fn is(self, now: &Stat) -> bool {
        self.device == now.st_dev && self.number == now.st_ino
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tmp/job");
        std::fs::create_dir_all(&path).unwrap();
        (dir, path)
    }

    #[test]
    fn it_is_gone_once_it_is_removed_or_another() {
        let (dir, path) = directory();
        let noted = JobDirectory::note(&path).unwrap();
        let me = Process::this();
        assert!(!noted.is_gone(None) && !noted.is_gone(me));
        // Another, while the first is still somewhere, so that it has another number.
        let moved = dir.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        assert!(noted.is_gone(None) && noted.is_gone(me));
        std::fs::create_dir(&path).unwrap();
        assert!(noted.is_gone(None));
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&moved, &path).unwrap();
        assert!(!noted.is_gone(None));
    }

    #[test]
    fn of_a_parent_that_is_another_nothing_is_believed() {
        let (dir, path) = directory();
        let noted = JobDirectory::note(&path).unwrap();
        let parent = dir.path().join("tmp");
        let moved = dir.path().join("moved");
        std::fs::rename(&parent, &moved).unwrap();
        let me = Process::this();
        assert!(!noted.is_gone(None) && !noted.is_gone(me), "no parent");
        std::fs::create_dir(&parent).unwrap();
        assert!(!noted.is_gone(None) && !noted.is_gone(me), "another parent");
        let another = JobDirectory {
            boot: noted.boot ^ 1,
            ..noted.clone()
        };
        std::fs::remove_dir(&parent).unwrap();
        std::fs::rename(&moved, &parent).unwrap();
        std::fs::remove_dir(&path).unwrap();
        assert!(
            noted.is_gone(None) && !another.is_gone(None),
            "another boot"
        );
    }

    #[test]
    fn what_could_not_be_told_again_is_not_noted() {
        let (_dir, path) = directory();
        assert_eq!(JobDirectory::note(Path::new("tmp")), None);
        assert_eq!(JobDirectory::note(Path::new("/")), None);
        assert_eq!(JobDirectory::note(&path.join("missing")), None);
    }
}
