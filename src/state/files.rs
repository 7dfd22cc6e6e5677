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

/// The most that is read of a state file: records hold a key and a few addresses.
const LIMIT: u64 = 1 << 20;

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
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(problem("read", path, e)),
    };
    parse(&bytes, path).map(Some)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, LIMIT), &mut bytes)?;
    Ok(bytes)
}

/// Parses a file's content; what cannot be understood is left where it is, for a person to look at.
pub(crate) fn parse<T: DeserializeOwned + Versioned>(bytes: &[u8], path: &Path) -> Result<T> {
    let damaged = |e: serde_json::Error| {
        Error::new(
            Kind::State,
            format!("the {} {} is damaged", T::WHAT, path.display()),
        )
        .because(e)
        .hint("It is left as it is. Restore it, or end what it named by hand and remove it.")
    };
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

/// Writes a file: beside its place, fsynced, renamed, and the directory fsynced.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> Result<()> {
    let fail = |e: io::Error| problem("write", path, e);
    let bytes = serde_json::to_vec_pretty(content).map_err(|e| fail(e.into()))?;
    // Two writers at once each have their own; the last rename wins, both are whole.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
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

/// Says what could not be done to which file, and what usually helps.
pub(crate) fn problem(act: &str, path: &Path, e: io::Error) -> Error {
    let hint = match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "Make the [state] directory of the configuration writable for the user that GitLab Runner runs as."
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
