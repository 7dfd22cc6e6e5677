//! The note that the stages of one attempt leave for each other in the Runner's own directory for the job (`TMPDIR`). The Runner
//! makes that directory for each attempt, keeps it for all its stages, and removes it. No variable of the job can change it.
//!
//! The note is not needed: a stage goes on without it if it is missing, and if it cannot be read or written.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::process::Process;

/// The file's name.
pub(crate) const NAME: &str = ".gitlab-aws-driver.json";
/// The version that this program writes, and the only one it reads.
const VERSION: u32 = 1;
/// A real one has some hundred bytes.
const LIMIT: u64 = 64 << 10;

/// What the first stage of an attempt knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    version: u32,
    /// The state directory in use.
    pub state_directory: PathBuf,
    /// The name that the job's state is kept under.
    pub key: String,
    /// The processes that may be the Runner (see [`super::ancestors`]), as that stage saw them.
    pub ancestors: Vec<Process>,
}

impl Note {
    /// Returns the note of a stage.
    #[must_use]
    pub fn new(state_directory: PathBuf, key: String, ancestors: Vec<Process>) -> Self {
        Self {
            version: VERSION,
            state_directory,
            key,
            ancestors,
        }
    }

    /// Reads the note of an earlier stage of the attempt.
    #[must_use]
    pub fn read(directory: &Path) -> Option<Self> {
        let bytes = files::read_own(&directory.join(NAME), LIMIT).ok()?;
        let note: Self = serde_json::from_slice(&bytes).ok()?;
        (note.version == VERSION && note.state_directory.is_absolute()).then_some(note)
    }

    /// Writes it, in place of an earlier one. Whole or not at all; not fsynced, since after a reboot the Runner is gone as well.
    pub fn leave(&self, directory: &Path) {
        let own = directory.join(format!("{NAME}.{}", std::process::id()));
        let left = serde_json::to_vec(self)
            .map_err(Into::into)
            .and_then(|text| {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&own)?;
                file.write_all(&text)?;
                fs::rename(&own, directory.join(NAME))
            });
        if let Err(error) = left {
            drop(fs::remove_file(&own));
            tracing::debug!(%error, "no note is left for the stages that follow");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn note() -> Note {
        Note::new(
            "/state".into(),
            "k-1".into(),
            vec![Process::this().unwrap()],
        )
    }

    #[test]
    fn a_note_is_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Note::read(dir.path()), None);
        for _ in 0..2 {
            note().leave(dir.path());
            assert_eq!(Note::read(dir.path()), Some(note()));
        }
        let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_note_that_cannot_be_understood_or_left_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let newer = serde_json::to_string(&Note {
            version: 2,
            ..note()
        });
        for text in ["", "{}", "null", &newer.unwrap()] {
            fs::write(&path, text).unwrap();
            assert_eq!(Note::read(dir.path()), None, "{text}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        note().leave(dir.path());
        assert_eq!(Note::read(dir.path()), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        note().leave(&dir.path().join("missing"));
    }
}
