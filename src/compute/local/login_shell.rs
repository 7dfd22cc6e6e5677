//! The shell that a login of `local` gets: the one that the user's entry in passwd names, as from any SSH server.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};

/// What every system has.
const SH: &str = "/bin/sh";
/// Shells that the driver's commands can be given to.
const POSIX: [&str; 10] = [
    "ash", "bash", "busybox", "dash", "ksh", "ksh93", "mksh", "sh", "yash", "zsh",
];
/// What stands in the place of a shell where a user is not meant to log in. The Runner's may be such a user.
const NONE: [&str; 3] = ["false", "nologin", "true"];

/// A login's shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoginShell {
    /// What commands are given to.
    pub(super) program: PathBuf,
    /// What SHELL says: the user's own, also where that is no POSIX shell.
    pub(super) named: PathBuf,
}

impl LoginShell {
    /// Returns the shell of the user that this process runs as.
    pub(super) fn of_this_user() -> Self {
        let id = rustix::process::getuid().as_raw().to_string();
        // It asks whoever has the list of users; a system without it has that in the file alone.
        let asked = Command::new("getent")
            .args(["passwd", &id])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let entry = asked.map(|done| done.stdout).unwrap_or_default();
        let list = std::fs::read("/etc/passwd").unwrap_or_default();
        let named = shell_of(&entry, &id).or_else(|| shell_of(&list, &id));
        Self::from(named.filter(|shell| access(shell, Access::EXEC_OK).is_ok()))
    }
}

impl From<Option<PathBuf>> for LoginShell {
    fn from(named: Option<PathBuf>) -> Self {
        let is_one_of = |names: &[&str], shell: &Path| {
            let name = shell.file_name().unwrap_or_default();
            names.iter().any(|one| name == *one)
        };
        let named = named
            .filter(|shell| shell.is_absolute() && !is_one_of(&NONE, shell))
            .unwrap_or_else(|| SH.into());
        let program = match is_one_of(&POSIX, &named) {
            true => named.clone(),
            false => SH.into(),
        };
        Self { program, named }
    }
}

/// Reads the shell of the user with that number out of lines as passwd has them.
fn shell_of(list: &[u8], id: &str) -> Option<PathBuf> {
    list.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [_, _, found, _, _, _, shell] = fields[..] else {
            return None;
        };
        let shell = PathBuf::from(std::ffi::OsStr::from_bytes(shell.trim_ascii_end()));
        (found == id.as_bytes()).then_some(shell)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_the_user_is_found() {
        let list = b"root:x:0:0:root:/root:/bin/bash\nodd\nci:x:10:0::/home/ci:/bin/zsh\n";
        assert_eq!(shell_of(list, "0"), Some("/bin/bash".into()));
        assert_eq!(shell_of(list, "10"), Some("/bin/zsh".into()));
        assert_eq!(shell_of(list, "1"), None);
    }

    #[test]
    fn what_is_no_shell_for_commands_is_not_given_any() {
        let shell = |named: &str| {
            let shell = LoginShell::from(Some(PathBuf::from(named)));
            let shown = |path: PathBuf| path.display().to_string();
            (shown(shell.program), shown(shell.named))
        };
        let both = |path: &str| (path.to_owned(), path.to_owned());
        assert_eq!(shell("/usr/bin/zsh"), both("/usr/bin/zsh"));
        let fish = (SH.to_owned(), "/usr/bin/fish".to_owned());
        assert_eq!(shell("/usr/bin/fish"), fish);
        for none in ["/usr/sbin/nologin", "/bin/false", "", "bash"] {
            assert_eq!(shell(none), both(SH), "{none}");
        }
        let none = LoginShell::from(None);
        assert_eq!(none.program, Path::new(SH));
    }
}
