//! Reading and writing one state file: whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};

/// The version that this program writes, and the newest it reads.
pub(crate) const VERSION: u32 = 1;

/// The largest state file that is read, and so the largest that is written: a record may have a container's whole
/// environment, several times its size; an intent grows with each launch.
const LIMIT: usize = 16 << 20;

/// A state file's content.
pub(crate) trait Versioned {
    /// What the file is, for messages.
    const WHAT: &'static str;
}

#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

/// Reads a file; a missing one is `None`.
pub(crate) fn read<T: DeserializeOwned + Versioned>(path: &Path) -> Result<Option<T>> {
    match crate::files::read_own(path, LIMIT as u64) {
        Ok(bytes) => parse(&bytes, path).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::FileTooLarge => Err(damaged::<T>(path, too_large())),
        Err(e) => Err(problem("read", path, e)),
    }
}

fn too_large() -> String {
    format!("it is larger than {} MiB", LIMIT >> 20)
}

fn damaged<T: Versioned>(
    path: &Path,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(
        Kind::State,
        format!("the {} {} is damaged", T::WHAT, path.display()),
    )
    .because(why)
    .hint("It is left as it is. Restore it, or end what it named by hand and remove it.")
}

/// Parses a file's content. A file that cannot be understood stays, so that a person can look at it.
pub(crate) fn parse<T: DeserializeOwned + Versioned>(bytes: &[u8], path: &Path) -> Result<T> {
    let damaged = |e: serde_json::Error| damaged::<T>(path, e);
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > VERSION {
        return Err(Error::new(
            Kind::State,
            format!(
                "the {} {} has format {version}, written by a newer gitlab-aws-driver; this one knows {VERSION}",
                T::WHAT,
                path.display()
            ),
        )
        .hint("It is left as it is. Install the newer version again, at least until its jobs have ended."));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Writes a file: beside its place, fsynced, renamed, and the directory fsynced. A file that is too large to be read again is not
/// written: the old one then stays readable, and names what has to be ended.
pub(crate) fn write<T: Serialize + Versioned>(path: &Path, content: &T) -> Result<()> {
    let fail = |e: io::Error| problem("write", path, e);
    let bytes = serde_json::to_vec_pretty(content).map_err(|e| fail(e.into()))?;
    if bytes.len() > LIMIT {
        return Err(Error::new(
            Kind::State,
            format!("the {} {} is not written", T::WHAT, path.display()),
        )
        .because(too_large())
        .hint(
            "It would never be read again. Does the job log tell of thousands of tries? Shorten capacity_wait. \
             Otherwise report it.",
        ));
    }
    // Two writers at once each have a file of their own. The last rename wins, and both files are whole.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        // A process with that pid that was killed left it. A new file is made, so that no link is followed.
        drop(fs::remove_file(&temporary));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    })();
    written.map_err(|e| {
        drop(fs::remove_file(&temporary));
        fail(e)
    })
}

/// Returns an error that says what could not be done to which file, and what usually helps.
pub(crate) fn problem(act: &str, path: &Path, e: io::Error) -> Error {
    let hint = match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "The [state] directory belongs to the user that GitLab Runner runs as, and to nobody else: run this as that user (as root with \
             GitLab's packages), or give the directory to it."
        }
        io::ErrorKind::InvalidInput => {
            "Only what GitLab Runner's user (or root) alone can have written is believed. Look who put it there; `chmod go-w` where it is the \
             driver's own, and else take it away: what it stood for then has to be ended by hand."
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Free some room on the disk that holds the [state] directory."
        }
        _ => "Check the [state] directory of the configuration.",
    };
    Error::new(Kind::State, format!("cannot {act} {}", path.display()))
        .because(e)
        .hint(hint)
}
