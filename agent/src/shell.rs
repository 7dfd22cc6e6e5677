//! Finds the image's shell.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where a shell may be, in the order in which the docker executor looks.
const PLACES: [&str; 7] = [
    "/usr/local/bin/bash",
    "/usr/bin/bash",
    "/bin/bash",
    "/usr/local/bin/sh",
    "/usr/bin/sh",
    "/bin/sh",
    "/busybox/sh",
];

/// Returns the words that start the image's shell, if it has one.
pub(crate) fn find() -> Option<Vec<OsString>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the container's own, which commands get as well"
    )]
    let path = std::env::var_os("PATH");
    let path = path.as_deref();
    let fixed = PLACES.iter().map(PathBuf::from);
    let on_path = ["sh", "bash"]
        .into_iter()
        .filter_map(|name| look(path, name));
    fixed
        .chain(on_path)
        .find(|place| runs(place))
        .map(|place| vec![place.into_os_string()])
        .or_else(|| {
            look(path, "busybox").map(|busybox| vec![busybox.into_os_string(), "sh".into()])
        })
}

/// Returns the first program of this name on the search path.
fn look(path: Option<&OsStr>, name: &str) -> Option<PathBuf> {
    // An entry that is not absolute would mean another directory to each command.
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|place| runs(place))
}

/// Tells whether this is a file that this process may execute.
fn runs(place: &Path) -> bool {
    place.is_file() && rustix::fs::access(place, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn programs_are_found_on_the_path_if_they_run() {
        let root = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| root.path().join(name));
        for directory in [&first, &second] {
            std::fs::create_dir(directory).unwrap();
        }
        let path = std::env::join_paths([Path::new("relative"), &first, &second]).unwrap();
        assert_eq!(look(Some(&path), "sh"), None);
        assert_eq!(look(None, "sh"), None);
        std::fs::write(first.join("sh"), "").unwrap();
        std::fs::set_permissions(first.join("sh"), Permissions::from_mode(0o644)).unwrap();
        std::fs::write(second.join("sh"), "").unwrap();
        std::fs::set_permissions(second.join("sh"), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(look(Some(&path), "sh"), Some(second.join("sh")));
    }
}
