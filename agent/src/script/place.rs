//! Where a script is kept: a directory of the job's with room for it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::request::Name;

/// What there must be room for besides the script.
const RESERVE: u64 = 128 << 10;

/// How much is written before other work gets its turn.
const PIECE: usize = 1 << 20;

/// The longest reason that fits into a frame with all that is around it.
const REASON_LIMIT: usize = 400;

/// Why nothing could be kept.
#[derive(Debug)]
pub(super) enum NoPlace {
    /// There are no descriptors or no memory for now.
    Crowded,
    /// What each directory said, on one line.
    Full(String),
}

/// A job's directory: of our own, closed to others, and no link.
#[derive(Debug, Clone)]
pub(super) struct Place(PathBuf);

impl Place {
    fn open(parent: &Path, name: &Name) -> io::Result<Self> {
        let path = parent.join(format!(".gad-{}", name.key));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = std::fs::symlink_metadata(&path)?;
        let user = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
            return Err(io::Error::other("not ours"));
        }
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a new file that only we can open.
    pub(super) fn new_file(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let path = self.0.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map(|file| (file, path))
    }

    /// Removes the directory unless something else of the job is in it.
    fn leave(&self) {
        // Another script of the job may be there, or have removed it.
        drop(std::fs::remove_dir(&self.0));
    }
}

/// A script's text in a file, with the room that was found for it. File and directory go with it.
#[derive(Debug)]
pub(super) struct ScriptFile {
    place: Place,
    path: PathBuf,
    file: File,
    length: u64,
    received: u64,
}

impl ScriptFile {
    /// Makes the file in the first directory that can take the script.
    ///
    /// `tag` tells the files of several starts of one script apart.
    pub(super) async fn reserve(
        parents: &[PathBuf],
        name: &Name,
        tag: u64,
        length: u64,
    ) -> Result<Self, NoPlace> {
        let mut reasons = Vec::new();
        for parent in parents {
            match Self::reserve_in(parent, name, tag, length).await {
                Ok(file) => return Ok(file),
                Err(error) if is_shortage(&error) => return Err(NoPlace::Crowded),
                Err(error) => reasons.push(format!("{}: {}", parent.display(), words(&error))),
            }
        }
        Err(NoPlace::Full(one_line(&reasons.join(", "))))
    }

    async fn reserve_in(parent: &Path, name: &Name, tag: u64, length: u64) -> io::Result<Self> {
        let place = Place::open(parent, name)?;
        let made = place.new_file(&format!("{}.{tag}", name.nonce));
        let (file, path) = match made {
            Ok(made) => made,
            Err(error) => {
                place.leave();
                return Err(error);
            }
        };
        let mut script = Self {
            place,
            path,
            file,
            length,
            received: 0,
        };
        // Written and not only asked for: no other way holds room on every file system.
        let mut missing = length.saturating_add(RESERVE);
        let zeros = vec![0; PIECE.min(usize::try_from(missing).unwrap_or(PIECE))];
        while missing > 0 {
            let piece = zeros.len().min(usize::try_from(missing).unwrap_or(PIECE));
            script.file.write_all(&zeros[..piece])?;
            missing -= piece as u64;
            if missing > 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(script)
    }

    /// Takes the next bytes of the script.
    pub(super) fn receive(&mut self, data: &[u8]) -> Result<(), NoPlace> {
        self.file
            .write_all_at(data, self.received)
            .map_err(|error| self.refusal(&error))?;
        self.received += data.len() as u64;
        Ok(())
    }

    /// Gives back the room beyond the script's end.
    pub(super) fn complete(&self) -> Result<(), NoPlace> {
        self.file
            .set_len(self.length)
            .map_err(|error| self.refusal(&error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Says what went wrong in this script's directory.
    pub(super) fn refusal(&self, error: &io::Error) -> NoPlace {
        if is_shortage(error) {
            return NoPlace::Crowded;
        }
        let reason = format!("{}: {}", self.place.path().display(), words(error));
        NoPlace::Full(one_line(&reason))
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        // A script may have removed it itself.
        drop(std::fs::remove_file(&self.path));
        self.place.leave();
    }
}

/// Tells whether the system has no more descriptors, processes or memory, which may pass.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Returns the system's words for an error, without its number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Returns what fits into a frame.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        let letter = if letter.is_control() { '?' } else { letter };
        if line.len() + letter.len_utf8() > REASON_LIMIT {
            break;
        }
        line.push(letter);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn name() -> Name {
        Name {
            key: "0".repeat(32),
            nonce: "1".repeat(32),
        }
    }

    #[tokio::test]
    async fn the_first_directory_with_room_is_taken_and_left_clean() {
        let root = tempfile::tempdir().unwrap();
        let parents = [root.path().join("missing"), root.path().to_owned()];
        let mut script = ScriptFile::reserve(&parents, &name(), 0, 5).await.unwrap();
        assert!(script.path().starts_with(&parents[1]));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(script.path()), 0o600);
        assert_eq!(mode(script.place().path()), 0o700);
        script.receive(b"ab").unwrap();
        script.receive(b"cde").unwrap();
        script.complete().unwrap();
        assert_eq!(std::fs::read(script.path()).unwrap(), b"abcde");
        drop(script);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_directory_that_others_could_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let parents = [root.path().to_owned()];
        let path = root.path().join(format!(".gad-{}", name().key));
        let refused = || async {
            match ScriptFile::reserve(&parents, &name(), 0, 5).await {
                Err(NoPlace::Full(reason)) => reason,
                other => panic!("{other:?}"),
            }
        };
        std::os::unix::fs::symlink("/tmp", &path).unwrap();
        assert_eq!(
            refused().await,
            format!("{}: not ours", root.path().display())
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(refused().await.ends_with("not ours"));
    }

    #[test]
    fn reasons_fit_into_a_frame() {
        assert_eq!(one_line("a\nb\u{1e}c"), "a?b?c");
        assert!(one_line(&"ü".repeat(1000)).len() <= REASON_LIMIT);
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(words(&full), "No space left on device");
    }
}
