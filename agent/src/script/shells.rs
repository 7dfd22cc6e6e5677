//! Which shell runs scripts: the one that GitLab's docker executor would find.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// Where shells are looked for before PATH is.
const DIRECTORIES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// What PATH is where there is none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the program, and its first arguments, that runs a script, if there is one.
pub(crate) fn find() -> Option<Vec<OsString>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "scripts inherit this variable, so it is the process's own that counts"
    )]
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    find_by(&path, is_program)
}

fn find_by(path: &OsStr, is_program: impl Fn(&Path) -> bool) -> Option<Vec<OsString>> {
    let in_directories = |name: &'static str| DIRECTORIES.map(|dir| Path::new(dir).join(name));
    let on_path = |name: &'static str| {
        path.as_bytes()
            .split(|byte| *byte == b':')
            // A relative entry would find a program of the job's own.
            .filter(|dir| dir.starts_with(b"/"))
            .map(move |dir| Path::new(OsStr::from_bytes(dir)).join(name))
    };
    let plain = in_directories("bash")
        .into_iter()
        .chain(in_directories("sh"))
        .chain([PathBuf::from("/busybox/sh")])
        .chain(on_path("sh"))
        .chain(on_path("bash"))
        .find(|program| is_program(program))
        .map(|program| vec![program.into_os_string()]);
    plain.or_else(|| {
        on_path("busybox")
            .find(|program| is_program(program))
            .map(|program| vec![program.into_os_string(), "sh".into()])
    })
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, programs: &[&str]) -> Option<Vec<String>> {
        let is_program = |path: &Path| programs.iter().any(|program| Path::new(program) == path);
        find_by(OsStr::new(path), is_program).map(|words| {
            words
                .into_iter()
                .map(|word| word.into_string().unwrap())
                .collect()
        })
    }

    #[test]
    fn the_order_is_kept() {
        let order = [
            "/usr/local/bin/bash",
            "/usr/bin/bash",
            "/bin/bash",
            "/usr/local/bin/sh",
            "/usr/bin/sh",
            "/bin/sh",
            "/busybox/sh",
            "/a/sh",
            "/b/sh",
            "/a/bash",
            "/b/bash",
        ];
        for first in 0..order.len() {
            let words = found("/a:/b", &order[first..]).unwrap();
            assert_eq!(words, [order[first]]);
        }
    }

    #[test]
    fn a_lone_busybox_is_a_shell() {
        let words = found("/a:/b", &["/b/busybox"]).unwrap();
        assert_eq!(words, ["/b/busybox", "sh"]);
    }

    #[test]
    fn there_may_be_none() {
        assert_eq!(found("/a", &["/b/sh", "/a/zsh"]), None);
        assert_eq!(found("", &["sh", "/sh"]), None);
        assert_eq!(found("bin:.", &["bin/sh", "./sh", "/bin/zsh"]), None);
    }
}
