//! Who this is: the name that all carries which this bastion launches, and by which `reap` knows its own.
//!
//! ```text
//! DIRECTORY/shared/managers/BASTION     the name that was drawn here, by this host in this directory
//! DIRECTORY/manager                     the name of version 0.1.0, bound to nothing: of no use but to people
//! ```
//!
//! A name is bound to its host and its directory. Whoever boots from an image of a bastion, restores its backup or copies its
//! directory finds no name of his own, and draws one: the other's machines are none of his. Names are drawn once and never
//! changed, so whoever comes back to his own directory has his own name again.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Store, files, is_unfinished, make_directory, shared};
use crate::error::{Error, Kind, Result};
use crate::hash::{random_hex, sha256_hex};
use crate::host::Host;

/// 16 random bytes in hexadecimal.
const LENGTH: usize = 32;
/// Hexadecimal digits of what a bastion is known by.
const DIGEST: usize = 32;

/// One host with one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bastion {
    /// A digest of both.
    pub digest: String,
    /// The instance that the host is, on EC2.
    pub instance: Option<String>,
}

impl Store {
    /// Returns which bastion this is on a host; none where there is no directory yet.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub fn bastion(&self, host: &Host) -> Result<Option<Bastion>> {
        let inode = match fs::metadata(&self.root) {
            Ok(directory) => directory.ino(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(files::problem("look at", &self.root, e)),
        };
        // Not its device: that has another number after a reboot.
        let mut digest = sha256_hex(format!("{} {inode}", host.digest).as_bytes());
        digest.truncate(DIGEST);
        Ok(Some(Bastion {
            digest,
            instance: host.instance.clone(),
        }))
    }

    /// Returns which bastion this is on a host, making its directory.
    ///
    /// # Errors
    /// Where the state directory cannot be read or written.
    pub fn make_bastion(&self, host: &Host) -> Result<Bastion> {
        loop {
            make_directory(&self.root)?;
            if let Some(bastion) = self.bastion(host)? {
                return Ok(bastion);
            }
        }
    }

    /// Returns a bastion's name, drawing it at the first call.
    ///
    /// # Errors
    /// Where the state directory cannot be read or written.
    pub fn manager(&self, bastion: &Bastion) -> Result<String> {
        loop {
            match self.known_manager(bastion)? {
                Some(name) => return Ok(name),
                None => draw(&self.name_of(bastion))?,
            }
        }
    }

    /// Returns a bastion's name, if it was drawn already.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub fn known_manager(&self, bastion: &Bastion) -> Result<Option<String>> {
        let path = self.name_of(bastion);
        match fs::read_to_string(&path) {
            Ok(text) if is_name(text.trim()) => Ok(Some(text.trim().to_owned())),
            Ok(_) => Err(Error::new(
                Kind::State,
                format!("{} does not hold {LENGTH} hexadecimal digits", path.display()),
            )
            .hint("Remove it; a new name is drawn, and machines of the old one end at their deadline.")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(files::problem("read", &path, e)),
        }
    }

    fn managers(&self) -> PathBuf {
        self.root.join(shared::NAME).join("managers")
    }

    fn name_of(&self, bastion: &Bastion) -> PathBuf {
        self.managers().join(&bastion.digest)
    }

    /// Removes what was being drawn when its process died.
    pub(super) fn prune_managers(&self) {
        let drawn = fs::read_dir(self.managers());
        // Versions before this one drew theirs beside the file.
        let old = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let old = old
            .map(|entry| entry.path())
            .filter(|path| path.file_stem().is_some_and(|name| name == "manager"));
        let drawn = drawn.into_iter().flatten().flatten();
        let all = drawn.map(|entry| entry.path()).chain(old);
        all.filter(|path| is_unfinished(path))
            .for_each(|path| drop(fs::remove_file(path)));
    }
}

fn is_name(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Many processes may do this at once; a link is made once only, and whole.
fn draw(path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    let name = random_hex().map_err(|e| files::problem("draw", path, e))?;
    let own = path.with_extension(std::process::id().to_string());
    // On disk before it has its name: half a name after a power cut would stop every job.
    let drawn = File::create(&own)
        .and_then(|mut file| {
            file.write_all(format!("{name}\n").as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::hard_link(&own, path));
    drop(fs::remove_file(&own));
    match drawn {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(files::problem("write", path, e)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_is_one_hosts_in_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("state"));
        let (one, other) = (Host::instance("i-1"), Host::instance("i-2"));
        // To look is no reason to draw one.
        assert_eq!(store.bastion(&one).unwrap(), None);
        let here = store.make_bastion(&one).unwrap();
        assert_eq!(store.known_manager(&here).unwrap(), None);
        fs::write(dir.path().join("state/manager"), "0".repeat(32)).unwrap();
        assert_eq!(
            store.known_manager(&here).unwrap(),
            None,
            "bound to nothing"
        );
        let name = store.manager(&here).unwrap();
        assert_eq!(store.manager(&here).unwrap(), name);
        let there = store.make_bastion(&other).unwrap();
        assert_ne!(store.manager(&there).unwrap(), name);
        assert_eq!(store.manager(&here).unwrap(), name, "it comes back");

        let copy = Store::new(dir.path().join("copy"));
        fs::create_dir_all(copy.managers()).unwrap();
        for entry in fs::read_dir(store.managers()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            fs::copy(&path, copy.managers().join(name)).unwrap();
        }
        let copied = copy.make_bastion(&one).unwrap();
        assert_ne!(copy.manager(&copied).unwrap(), name);
        fs::rename(dir.path().join("state"), dir.path().join("moved")).unwrap();
        let moved = Store::new(dir.path().join("moved"));
        assert_eq!(
            moved.manager(&moved.make_bastion(&one).unwrap()).unwrap(),
            name
        );
    }

    #[test]
    fn of_many_who_draw_at_once_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("state"));
        let host = Host::instance("i-1");
        let names: BTreeSet<String> = std::thread::scope(|scope| {
            let draw = || store.manager(&store.make_bastion(&host).unwrap()).unwrap();
            let all: Vec<_> = (0..8).map(|_| scope.spawn(draw)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(fs::read_dir(store.managers()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_name_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("state"));
        let bastion = store.make_bastion(&Host::instance("i-1")).unwrap();
        store.manager(&bastion).unwrap();
        for text in ["", "abc", &"x".repeat(32)] {
            fs::write(store.name_of(&bastion), text).unwrap();
            let error = store.manager(&bastion).unwrap_err();
            assert!(error.to_string().contains("hexadecimal digits"), "{error}");
        }
    }
}
