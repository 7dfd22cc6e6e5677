//! Temporary directories that are private and gone at the end, and the random names they need.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Error, Kind, Result};

/// A directory that only this user can enter, removed with its content when dropped.
#[derive(Debug)]
pub(super) struct TempDir {
    path: PathBuf,
    there: bool,
}

impl TempDir {
    /// Makes a directory of a name that nobody else has.
    pub(super) fn create(parent: &Path, prefix: &str) -> Result<Self> {
        let failed = |e: io::Error| {
            let text = format!("cannot make a temporary directory in {}", parent.display());
            Error::new(Kind::State, text).because(e)
        };
        // Stages have another working directory than this process.
        let parent = std::path::absolute(parent).map_err(failed)?;
        let mut tries = 0;
        loop {
            let path = parent.join(format!(
                "{prefix}{}",
                random().map_err(failed)? % 10_000_000_000
            ));
            match private_directory(&path) {
                Ok(()) => return Ok(Self { path, there: true }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it now and says whether that worked.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.there = false;
        remove_all(&self.path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if self.there {
            drop(remove_all(&self.path));
        }
    }
}

/// Makes a directory of mode 0700.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Returns a number that nobody can foresee.
pub(super) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // So few bytes come whole or not at all.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Removes a tree, also one with directories that a job made read-only, as package caches are.
fn remove_all(path: &Path) -> io::Result<()> {
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    make_writable(path);
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_writable(directory: &Path) {
    drop(fs::set_permissions(
        directory,
        Permissions::from_mode(0o700),
    ));
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}
