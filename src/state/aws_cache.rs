//! A cache of AWS's answers about things that seldom change, so that not every job asks again.
//!
//! Nothing in it is needed: if an entry cannot be read or written, the driver asks AWS.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Store, make_directory};
use crate::files::read_own;
use crate::hash::sha256_hex;

/// The most that is read.
const LARGEST: u64 = 1 << 20;

impl Store {
    fn known(&self, about: &[&str]) -> PathBuf {
        let name = sha256_hex(about.join("\n").as_bytes());
        self.root.join("known").join(&name[..32])
    }

    /// Returns the entry with that key, if it is not older than `age`.
    #[must_use]
    pub fn recall<T: DeserializeOwned>(&self, about: &[&str], age: Duration) -> Option<T> {
        let path = self.known(about);
        let kept = fs::metadata(&path).and_then(|m| m.modified()).ok()?;
        // An entry from the future was written under a wrong clock.
        let since = SystemTime::now().duration_since(kept).ok()?;
        if since >= age {
            return None;
        }
        serde_json::from_slice(&read_own(&path, LARGEST).ok()?).ok()
    }

    /// Stores an entry under that key, in place of an earlier one.
    pub fn keep<T: Serialize>(&self, about: &[&str], what: &T) {
        let path = self.known(about);
        let Some(directory) = path.parent() else {
            return;
        };
        let own = path.with_extension(std::process::id().to_string());
        drop(fs::remove_file(&own));
        let mut private = OpenOptions::new();
        private.write(true).create_new(true).mode(0o600);
        if make_directory(directory).is_ok()
            && let Ok(text) = serde_json::to_vec(what)
            && private
                .open(&own)
                .and_then(|mut file| file.write_all(&text))
                .is_ok()
        {
            drop(fs::rename(&own, &path));
        }
    }

    /// Removes the entry with that key.
    pub fn forget(&self, about: &[&str]) {
        drop(fs::remove_file(self.known(about)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_recalled_until_it_is_too_old() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().to_owned());
        let hour = Duration::from_secs(3600);
        assert_eq!(store.recall::<Vec<u8>>(&["a"], hour), None);
        store.keep(&["a"], &vec![1u8, 2]);
        store.keep(&["a", "b"], &vec![3u8]);
        assert_eq!(store.recall(&["a"], hour), Some(vec![1u8, 2]));
        assert_eq!(store.recall(&["a", "b"], hour), Some(vec![3u8]));
        assert_eq!(store.recall::<Vec<u8>>(&["a"], Duration::ZERO), None);
        // Of another shape: kept by another version.
        assert_eq!(store.recall::<String>(&["a"], hour), None);
        store.prune();
        assert_eq!(store.recall(&["a"], hour), Some(vec![1u8, 2]));
        store.forget(&["a"]);
        assert_eq!(store.recall::<Vec<u8>>(&["a"], hour), None);
        assert_eq!(store.recall(&["a", "b"], hour), Some(vec![3u8]));
    }
}
