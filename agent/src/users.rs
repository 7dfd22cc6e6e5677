//! Whom this process runs as, by the kernel and by the image's own list.
//!
//! The list is read here and not by the C library: a static binary has no name services, and an image may have no list.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The list of users.
const LIST: &str = "/etc/passwd";

/// How much of the list is read. Images have a few kilobytes.
const LIST_MAX: u64 = 1 << 20;

/// What the list says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name.
    pub(crate) name: OsString,
    /// The home directory, where one is named.
    pub(crate) home: Option<PathBuf>,
}

/// Returns what the list says of the user that this process runs as, if it is listed.
pub(crate) fn own_entry() -> Option<Entry> {
    let mut list = Vec::new();
    let file = File::open(LIST).ok()?;
    // What was read before an error still counts.
    drop(file.take(LIST_MAX).read_to_end(&mut list));
    entry(&list, rustix::process::getuid().as_raw())
}

/// Returns the name that commands are given: the listed one, or what stands in for it.
pub(crate) fn own_name() -> OsString {
    match (own_entry(), rustix::process::getuid().as_raw()) {
        (Some(entry), _) => entry.name,
        (None, 0) => OsString::from("root"),
        (None, id) => OsString::from(id.to_string()),
    }
}

/// Returns the groups of this process besides its first one.
pub(crate) fn own_groups() -> Vec<u32> {
    rustix::process::getgroups()
        .unwrap_or_default()
        .into_iter()
        .map(rustix::process::Gid::as_raw)
        .collect()
}

fn entry(list: &[u8], id: u32) -> Option<Entry> {
    let id = id.to_string();
    list.split(|byte| *byte == b'\n').find_map(|line| {
        // name:password:uid:gid:comment:home:shell
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        if fields.nth(1)? != id.as_bytes() {
            return None;
        }
        let home = fields.nth(2).filter(|home| !home.is_empty());
        Some(Entry {
            name: OsStr::from_bytes(name).to_owned(),
            home: home.map(|home| PathBuf::from(OsStr::from_bytes(home))),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_homes_come_from_the_list() {
        let list =
            b"root:x:0:0:root:/root:/bin/sh\nnonsense\nbuild:x:1000:1000::/home/build:/bin/sh\n\
            short:x:7\nempty:x:8:8:::/bin/sh\n";
        let found = |id| entry(list, id).map(|entry| (entry.name, entry.home));
        assert_eq!(found(0), Some(("root".into(), Some("/root".into()))));
        assert_eq!(
            found(1000),
            Some(("build".into(), Some("/home/build".into())))
        );
        assert_eq!(found(7), Some(("short".into(), None)));
        assert_eq!(found(8), Some(("empty".into(), None)));
        assert_eq!(found(100), None);
        assert_eq!(entry(b"", 0), None);
    }
}
