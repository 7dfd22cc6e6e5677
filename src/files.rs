//! Files that somebody else may have put where this program looks: read only if they are regular files, and never more of
//! one than it may hold. A named pipe, whose opening waits for a writer, holds up nobody.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// The bits of a mode by which the group and all others may write.
const OTHERS: u32 = 0o022;

/// Reads a regular file of at most so many bytes. Links are followed: whoever named the path may have made them.
///
/// # Errors
/// Beside what the system says: `InvalidInput` where it is no regular file, `FileTooLarge` where it is larger.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(OpenOptions::new().read(true), OFlags::empty(), path)?;
    read_opened(file, most)
}

/// Reads a regular file of at most so many bytes that nobody but root and this process's user can have written.
///
/// # Errors
/// As [`read`], and `InvalidInput` where it is a link, another user's, or one that others may write to.
pub(crate) fn read_own(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_own(OpenOptions::new().read(true), path)?;
    read_opened(file, most)
}

/// Opens a regular file that nobody but root and this process's user can have written.
///
/// # Errors
/// As [`read_own`].
pub(crate) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = match open(options, OFlags::NOFOLLOW, path) {
        Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(unfit("it is a symbolic link, and no regular file"));
        }
        opened => opened?,
    };
    match others(&file.metadata()?, me()) {
        Some(problem) => Err(unfit(problem)),
        None => Ok(file),
    }
}

/// Returns the user that this process acts as.
pub(crate) fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Says how somebody else than root and that user may change what this is of.
pub(crate) fn others(metadata: &Metadata, user: u32) -> Option<String> {
    let mode = metadata.mode() & 0o7777;
    let writable = || {
        let owner = metadata.uid();
        format!("others than its owner may write to it (user {owner}, mode {mode:04o})")
    };
    let stranger = stranger(metadata, user);
    stranger.or_else(|| (mode & OTHERS != 0).then(writable))
}

/// Says whose this is, where it is neither root's nor that user's.
pub(crate) fn stranger(metadata: &Metadata, user: u32) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    (owner != 0 && owner != user).then(|| format!("it belongs to user {owner} (mode {mode:04o})"))
}

fn open(options: &mut OpenOptions, more: OFlags, path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | more;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let kind = file.metadata()?.file_type();
    let what = if kind.is_file() {
        return Ok(file);
    } else if kind.is_dir() {
        return Err(Errno::ISDIR.into());
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    };
    Err(unfit(format!("it is {what}, and no regular file")))
}

fn read_opened(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may grow while it is read.
    if file.metadata()?.len() <= most {
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= most {
            return Ok(bytes);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it is larger than {most} bytes"),
    ))
}

fn unfit(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem.into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    const MOST: u64 = 10;

    #[test]
    fn only_regular_files_are_read_and_none_holds_up() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let pipe = at("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let socket = at("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::write(at("file"), "0123456789").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("pipe"), at("to-pipe")).unwrap();
        for reader in [read, read_own] {
            let refused = |path: PathBuf, word: &str| {
                let error = reader(&path, MOST).unwrap_err();
                assert!(error.to_string().contains(word), "{path:?}: {error}");
            };
            assert_eq!(reader(&at("file"), MOST).unwrap(), b"0123456789");
            refused(at("pipe"), "pipe");
            refused(at("none"), "No such file");
            refused(dir.path().to_owned(), "Is a directory");
            refused("/dev/zero".into(), "it is a device");
            refused(socket.clone(), "");
            let error = reader(&at("file"), MOST - 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
        assert!(read(&at("link"), MOST).is_ok());
        assert!(read(&at("to-pipe"), MOST).is_err());
        let error = read_own(&at("link"), MOST).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        // Nothing tells its size beforehand.
        let error = read(Path::new("/proc/self/status"), MOST).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_others_may_write_is_not_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        for (mode, fit) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_own(&path, MOST).is_ok(), fit, "{mode:o}");
            assert!(read(&path, MOST).is_ok());
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let seen = fs::metadata(&path).unwrap();
        let owner = seen.uid();
        assert_eq!(others(&seen, owner), None);
        let of_another = others(&seen, owner + 1);
        assert_eq!(of_another.is_some(), owner != 0, "{of_another:?}");
    }
}
