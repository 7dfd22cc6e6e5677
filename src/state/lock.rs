//! Locks on files and directories.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// An open file whose lock, if it has one, ends when it is dropped.
///
/// Closing alone is not enough: a child that another thread has just forked has a copy of the descriptor, and the lock
/// with it, until it runs its own program.
#[derive(Debug)]
pub(in crate::state) struct LockFile(File);

impl LockFile {
    pub(in crate::state) fn new(file: File) -> Self {
        Self(file)
    }

    /// Returns whether the lock was taken.
    pub(in crate::state) fn take(&self, operation: FlockOperation) -> io::Result<bool> {
        match flock(&self.0, operation) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns whether this is still the file with that name. The process that had the lock before may have removed it, and there
    /// may be another in its place.
    pub(in crate::state) fn is_at(&self, path: &Path) -> bool {
        let (Ok(own), Ok(now)) = (self.0.metadata(), fs::metadata(path)) else {
            return false;
        };
        (own.dev(), own.ino()) == (now.dev(), now.ino())
    }
}

impl Deref for LockFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing follows, which does the same, if later.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let open = || LockFile::new(File::open(dir.path()).unwrap());
        let take = |file: &LockFile| file.take(FlockOperation::NonBlockingLockExclusive).unwrap();
        let (first, second) = (open(), open());
        assert!(take(&first));
        assert!(!take(&second));
        // As a child has it that was just forked.
        let copy = first.try_clone().unwrap();
        // One that has no lock ends nobody's.
        drop(second);
        assert!(!take(&open()));
        drop(first);
        assert!(take(&open()));
        drop(copy);
    }
}
