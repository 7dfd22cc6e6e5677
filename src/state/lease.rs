//! Which host may end machines by the name in the configuration (`[state] manager`). The name belongs to no host, so that a
//! directory can move from one to another; but two hosts must never use it at once.
//!
//! ```text
//! DIRECTORY/shared/lease/holder.json     the holder, renewed with every stage, every few minutes of a long one, and every `reap`
//! DIRECTORY/shared/lease/seen.BASTION    since when another bastion has seen it unchanged, by its own clock
//! ```
//!
//! A host without the lease ends nothing by that name, and starts jobs under another one.
//!
//! Another bastion gets the lease once its holder is proven dead: AWS says that the holder's instance has ended, or that
//! bastion has itself seen the lease unchanged for [`TERM`]. It does not trust the clock of another host.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::deadline::Clock;
use super::files::{self, VERSION, Versioned};
use super::lock::LockFile;
use super::manager::Bastion;
use super::{Store, make_directory, shared};
use crate::error::Result;
use crate::hash::random_hex;

/// How long it must stay unchanged before another bastion may take it.
pub const TERM: Duration = Duration::from_secs(30 * 60);
/// How often a long stage renews it: a few renewals may be missed.
pub const RENEWAL: Duration = Duration::from_secs(5 * 60);
const HOLDER: &str = "holder.json";
/// So many dead holders are remembered.
const FORMER: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    version: u32,
    /// The bastion that has it.
    bastion: String,
    /// The bastion's instance, on EC2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// A new value at each renewal.
    stamp: String,
    /// Its earlier holders, the latest last: all of them are dead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<String>,
}

/// What a bastion has seen of another's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sight {
    version: u32,
    /// The stamp.
    stamp: String,
    /// The boot, and the time by its clock, at which it was first seen.
    boot: u64,
    seconds: u64,
}

/// Who has the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// This bastion, with the dead holders before it.
    Here(Vec<String>),
    /// Another bastion.
    There(Holder),
}

/// Another bastion that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The bastion's instance, on EC2.
    pub instance: Option<String>,
    /// For how long it has been seen unchanged; `None` if that is unknown.
    pub still: Option<Duration>,
    stamp: String,
}

impl Holder {
    fn of(lease: Lease) -> Self {
        Self {
            instance: lease.instance,
            still: None,
            stamp: lease.stamp,
        }
    }
}

impl Versioned for Lease {
    const WHAT: &'static str = "lease";
}

impl Versioned for Sight {
    const WHAT: &'static str = "note of a lease";
}

impl Store {
    /// Renews a bastion's lease, or takes it if nobody has it.
    ///
    /// # Errors
    /// If it cannot be read or written: then its holder is unknown.
    pub fn renew_lease(&self, bastion: &Bastion) -> Result<Held> {
        let (_lock, path) = self.lock_lease()?;
        let former = match files::read::<Lease>(&path)? {
            Some(lease) if lease.bastion != bastion.digest => {
                return Ok(Held::There(Holder::of(lease)));
            }
            Some(lease) => lease.former,
            None => Vec::new(),
        };
        write(&path, bastion, former)
    }

    /// Returns who has it, and changes nothing; `None` if nobody has it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn lease_of(&self, bastion: &Bastion) -> Result<Option<Held>> {
        let lease = files::read::<Lease>(&self.lease().join(HOLDER))?;
        Ok(lease.map(|lease| match lease.bastion == bastion.digest {
            true => Held::Here(lease.former),
            false => Held::There(Holder::of(lease)),
        }))
    }

    /// The same for repeated looks: notes since when another's lease is unchanged.
    ///
    /// # Errors
    /// As [`Self::renew_lease`].
    pub fn watch_lease(&self, bastion: &Bastion, clock: Clock) -> Result<Held> {
        let held = self.renew_lease(bastion)?;
        let Held::There(holder) = held else {
            return Ok(held);
        };
        let path = self.lease().join(format!("seen.{}", bastion.digest));
        let Some((boot, seconds)) = clock.in_boot() else {
            return Ok(Held::There(holder));
        };
        // If this bastion's own note cannot be read, the time starts again.
        let seen = files::read::<Sight>(&path).ok().flatten();
        let since = seen
            .filter(|seen| seen.stamp == holder.stamp && seen.boot == boot)
            .and_then(|seen| seconds.checked_sub(seen.seconds));
        if since.is_none() {
            let sight = Sight {
                version: VERSION,
                stamp: holder.stamp.clone(),
                boot,
                seconds,
            };
            files::write(&path, &sight)?;
        }
        let still = Some(Duration::from_secs(since.unwrap_or_default()));
        Ok(Held::There(Holder { still, ..holder }))
    }

    /// Takes the lease of a holder that is proven dead, unless that has renewed it meanwhile.
    ///
    /// # Errors
    /// As [`Self::renew_lease`].
    pub fn take_lease(&self, bastion: &Bastion, holder: &Holder) -> Result<Held> {
        let (_lock, path) = self.lock_lease()?;
        match files::read::<Lease>(&path)? {
            Some(lease) if lease.stamp == holder.stamp => {
                let mut former = lease.former;
                former.retain(|one| *one != bastion.digest);
                former.push(lease.bastion);
                former.drain(..former.len().saturating_sub(FORMER));
                write(&path, bastion, former)
            }
            _ => Ok(Held::There(Holder {
                still: None,
                ..holder.clone()
            })),
        }
    }

    fn lease(&self) -> PathBuf {
        self.root.join(shared::NAME).join("lease")
    }

    /// A reader may also write it: nobody else does meanwhile.
    fn lock_lease(&self) -> Result<(LockFile, PathBuf)> {
        let directory = self.lease();
        make_directory(&directory)?;
        let open = File::open(&directory).map_err(|e| files::problem("open", &directory, e))?;
        let lock = LockFile::new(open);
        lock.take(FlockOperation::LockExclusive)
            .map_err(|e| files::problem("lock", &directory, e))?;
        Ok((lock, directory.join(HOLDER)))
    }
}

fn write(path: &Path, bastion: &Bastion, former: Vec<String>) -> Result<Held> {
    let lease = Lease {
        version: VERSION,
        bastion: bastion.digest.clone(),
        instance: bastion.instance.clone(),
        stamp: random_hex().map_err(|e| files::problem("draw", path, e))?,
        former: former.clone(),
    };
    files::write(path, &lease)?;
    Ok(Held::Here(former))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    fn bastions() -> (tempfile::TempDir, Store, Bastion, Bastion) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("state"));
        let one = store.make_bastion(&Host::instance("i-1")).unwrap();
        let other = store.make_bastion(&Host::instance("i-2")).unwrap();
        (dir, store, one, other)
    }

    fn holder(held: Held) -> Holder {
        match held {
            Held::There(holder) => holder,
            Held::Here(_) => panic!("{held:?}"),
        }
    }

    #[test]
    fn the_first_has_it_and_the_next_only_once_it_is_dead() {
        let (_dir, store, one, other) = bastions();
        assert_eq!(store.renew_lease(&one).unwrap(), Held::Here(Vec::new()));
        let seen = holder(store.renew_lease(&other).unwrap());
        assert_eq!((seen.instance.as_deref(), seen.still), (Some("i-1"), None));
        // Renewed meanwhile: whoever was thought dead is not.
        store.renew_lease(&one).unwrap();
        holder(store.take_lease(&other, &seen).unwrap());
        let seen = holder(store.renew_lease(&other).unwrap());
        let taken = store.take_lease(&other, &seen).unwrap();
        assert_eq!(taken, Held::Here(vec![one.digest.clone()]));
        holder(store.renew_lease(&one).unwrap());
        assert_eq!(
            store.renew_lease(&other).unwrap(),
            Held::Here(vec![one.digest.clone()])
        );
        // The first one again, which is no dead one then.
        let seen = holder(store.renew_lease(&one).unwrap());
        assert_eq!(
            store.take_lease(&one, &seen).unwrap(),
            Held::Here(vec![other.digest])
        );
    }

    #[test]
    fn it_stands_still_as_long_as_one_boot_has_seen_it_so() {
        let (_dir, store, one, other) = bastions();
        store.renew_lease(&one).unwrap();
        let at = Clock::look();
        let later = |seconds| at.advanced(seconds);
        let still = |clock| {
            let held = store.watch_lease(&other, clock).unwrap();
            holder(held).still.map(|still| still.as_secs())
        };
        assert_eq!(still(at), Some(0));
        assert_eq!(still(later(100)), Some(100));
        assert_eq!(still(later(1_900)), Some(1_900));
        // A wall clock that jumps says nothing.
        assert_eq!(still(later(1_900).set_back(1_000_000)), Some(1_900));
        store.renew_lease(&one).unwrap();
        assert_eq!(still(later(2_000)), Some(0));
        assert_eq!(still(later(2_010)), Some(10));
        assert_eq!(still(later(2_010).in_another_boot()), Some(0));
        let path = store.lease().join(format!("seen.{}", other.digest));
        std::fs::write(path, "{").unwrap();
        assert_eq!(still(later(2_020)), Some(0));
    }

    #[test]
    fn a_damaged_lease_is_nobodys() {
        let (_dir, store, one, _) = bastions();
        store.renew_lease(&one).unwrap();
        std::fs::write(store.lease().join(HOLDER), "{").unwrap();
        assert!(store.renew_lease(&one).is_err());
    }
}
