//! Finds the shell of a terminal.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where shells are looked for first, whatever the image's `PATH` says.
const PLACES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// A shell, and how it is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shell {
    pub(super) program: PathBuf,
    /// Its name, which is `sh` for a busybox: that goes by the name that it is called by.
    pub(super) name: OsString,
}

impl Shell {
    /// Returns the name by which a shell knows that it is a login shell.
    pub(super) fn login_name(&self) -> OsString {
        let mut name = OsString::from("-");
        name.push(&self.name);
        name
    }
}

/// Returns the best shell of this image: bash, then sh, then a busybox.
pub(super) fn find(path: Option<&OsStr>) -> Option<Shell> {
    let places = || PLACES.iter().map(PathBuf::from);
    let on_path =
        || std::env::split_paths(path.unwrap_or_default()).filter(|dir| dir.is_absolute());
    let named = |dir: PathBuf, name: &str| dir.join(name);
    places()
        .map(|dir| named(dir, "bash"))
        .chain(places().map(|dir| named(dir, "sh")))
        .chain([PathBuf::from("/busybox/sh")])
        .chain(
            ["sh", "bash", "busybox"]
                .into_iter()
                .flat_map(|name| on_path().map(move |dir| named(dir, name))),
        )
        .find(|program| is_program(program))
        .map(|program| {
            let name = match program.file_name() {
                Some(name) if name != "busybox" => name.to_owned(),
                _ => OsString::from("sh"),
            };
            Shell { program, name }
        })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busybox_is_called_sh() {
        let shell = Shell {
            program: PathBuf::from("/bin/bash"),
            name: OsString::from("bash"),
        };
        assert_eq!(shell.login_name(), "-bash");
        // Every machine that runs the tests has bash or sh in one of the places.
        let found = find(None).unwrap();
        assert!(PLACES.iter().any(|place| found.program.starts_with(place)));
    }
}
