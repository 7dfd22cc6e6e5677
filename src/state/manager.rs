//! The bastion's name. Everything that it launches is marked with it, and by it `reap` recognises its own.
//!
//! The name is a digest of a random seed (`DIRECTORY/manager`), the host and the directory. So it is bound to both. A host that
//! boots from an image of a bastion, a restored backup and a copied directory all have the seed but another name, and never end
//! the first bastion's machines. A host that returns to its own directory has its own name again. In version 0.1.0 the random
//! text was the name itself; here it is a seed.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::prune::is_unfinished;
use super::{Store, files, make_directory};
use crate::error::{Error, Kind, Result};
use crate::files::read_own;
use crate::hash::{random_hex, sha256_hex};
use crate::host::Host;

/// 16 random bytes in hexadecimal.
const LENGTH: usize = 32;

/// One host with one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bastion {
    /// A digest of both.
    pub digest: String,
    /// The host's instance, on EC2.
    pub instance: Option<String>,
}

impl Store {
    /// Returns which bastion this is on a host; `None` if there is no directory yet.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub fn bastion(&self, host: &Host) -> Result<Option<Bastion>> {
        let inode = match fs::metadata(&self.root) {
            Ok(directory) => directory.ino(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(files::problem("look at", &self.root, e)),
        };
        // The device does not count: it has another number after a reboot.
        Ok(Some(Bastion {
            digest: digest(&format!("{} {inode}", host.digest)),
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

    /// Returns a bastion's name. Makes its seed at the first call.
    ///
    /// # Errors
    /// Where the state directory cannot be read or written.
    pub fn manager(&self, bastion: &Bastion) -> Result<String> {
        loop {
            match self.known_manager(bastion)? {
                Some(name) => return Ok(name),
                None => draw(&self.seed())?,
            }
        }
    }

    /// Returns a bastion's name, if it has a seed already.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub fn known_manager(&self, bastion: &Bastion) -> Result<Option<String>> {
        let path = self.seed();
        let read = read_own(&path, 2 * LENGTH as u64);
        match read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
            Ok(text) if text.trim().len() == LENGTH => {
                Ok(Some(digest(&format!("{} {}", text.trim(), bastion.digest))))
            }
            Ok(_) => Err(Error::new(
                Kind::State,
                format!("{} does not hold {LENGTH} hexadecimal digits", path.display()),
            )
            .hint("Remove it; a new name is drawn, and machines of the old one end at their deadline.")),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(files::problem("read", &path, e)),
        }
    }

    fn seed(&self) -> PathBuf {
        self.root.join("manager")
    }

    /// Removes half-made seeds of processes that died.
    pub(super) fn prune_seeds(&self) {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let drawn = entries.map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("manager."))
        });
        drawn
            .filter(|path| is_unfinished(path))
            .for_each(|path| drop(fs::remove_file(path)));
    }
}

fn digest(text: &str) -> String {
    let mut digest = sha256_hex(text.as_bytes());
    digest.truncate(LENGTH);
    digest
}

/// Many processes may do this at once: a link is made only once, and whole.
fn draw(path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    let draw = || random_hex().map_err(|e| files::problem("draw", path, e));
    // Unique even if two containers share the directory: their processes may have the same pid.
    let own = path.with_extension(format!("{}.{}", draw()?, std::process::id()));
    let seed = draw()?;
    // Fsynced before it gets its name: half a seed after a power cut would stop every job.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(&own).and_then(|mut file| {
        file.write_all(format!("{seed}\n").as_bytes())?;
        file.sync_all()
    });
    let linked = written.map(|()| fs::hard_link(&own, path));
    drop(fs::remove_file(&own));
    match linked.map_err(|e| files::problem("write", path, e))? {
        Ok(()) => Ok(()),
        // Another process was first, or took this file for a dead process's: look again.
        Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(files::problem("write", path, e)),
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
        // A look does not make a seed.
        assert_eq!(store.bastion(&one).unwrap(), None);
        let here = store.make_bastion(&one).unwrap();
        assert_eq!(store.known_manager(&here).unwrap(), None);
        let name = store.manager(&here).unwrap();
        assert_eq!(store.manager(&here).unwrap(), name);
        assert_eq!(name.len(), LENGTH);
        let there = store.make_bastion(&other).unwrap();
        assert_ne!(store.manager(&there).unwrap(), name);
        assert_eq!(store.manager(&here).unwrap(), name, "it comes back");

        let copy = Store::new(dir.path().join("copy"));
        let copied = copy.make_bastion(&one).unwrap();
        fs::copy(store.seed(), copy.seed()).unwrap();
        assert_ne!(copy.manager(&copied).unwrap(), name);
        fs::rename(dir.path().join("state"), dir.path().join("moved")).unwrap();
        let moved = Store::new(dir.path().join("moved"));
        let bastion = moved.make_bastion(&one).unwrap();
        assert_eq!(moved.manager(&bastion).unwrap(), name);
    }

    #[test]
    fn the_name_of_the_first_version_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned());
        let old = "0123456789abcdef0123456789abcdef";
        fs::write(store.seed(), format!("{old}\n")).unwrap();
        let bastion = store.make_bastion(&Host::instance("i-1")).unwrap();
        assert_ne!(store.manager(&bastion).unwrap(), old);
        assert_eq!(fs::read_to_string(store.seed()).unwrap().trim(), old);
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
        assert_eq!(fs::read_dir(&store.root).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_seed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("state"));
        let bastion = store.make_bastion(&Host::instance("i-1")).unwrap();
        store.manager(&bastion).unwrap();
        for text in ["", "abc"] {
            fs::write(store.seed(), text).unwrap();
            let error = store.manager(&bastion).unwrap_err();
            assert!(error.to_string().contains("hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn only_what_a_dead_process_drew_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned());
        let pid = std::process::id();
        // Those of version 0.1.0 too.
        for (name, stays) in [
            ("manager.2147483647".to_owned(), false),
            ("manager.ab.2147483647".to_owned(), false),
            (format!("manager.ab.{pid}"), true),
            ("manager".to_owned(), true),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            store.prune_seeds();
            assert_eq!(path.exists(), stays, "{}", path.display());
        }
    }
}
