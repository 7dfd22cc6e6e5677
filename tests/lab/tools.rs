//! What the tests need of the machine that they run on, and saying so where it is missing.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::LazyLock;

/// Programs that the lab starts, and the Debian package that each comes with.
const PACKAGES: [(&str, &str); 17] = [
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("dropbear", "dropbear-bin"),
    ("dropbearkey", "dropbear-bin"),
    ("busybox", "busybox"),
    ("bash", "bash"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("git", "git"),
    ("tar", "tar"),
    ("cloud-init", "cloud-init"),
    ("systemd-run", "systemd"),
    ("podman", "podman"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("docker-registry", "docker-registry"),
];

/// Returns the path of a program.
///
/// # Panics
///
/// Says what to install where it is missing: a test never passes for want of a program.
pub(crate) fn program(name: &str) -> PathBuf {
    // The sbin directories are on no ordinary user's PATH.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    let found = path
        .split(':')
        .map(|directory| PathBuf::from(directory).join(name))
        .find(|candidate| candidate.is_file());
    let package = PACKAGES
        .iter()
        .find(|(program, _)| *program == name)
        .map_or(name, |(_, package)| package);
    found.unwrap_or_else(|| {
        panic!(
            "this test needs `{name}`: apt-get install -y {package} \
             (the test command of README.md installs all that the tests need)"
        )
    })
}

/// Returns the static agent of this tree, which runs in any image; built where it is not fresh.
///
/// # Panics
///
/// Says how to build it where that fails.
pub(crate) fn static_agent() -> &'static Path {
    // Cargo keeps two builds apart itself; another process finds what the first one has built.
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
        let done = Command::new(tree.join("packaging/agent"))
            .stdin(Stdio::null())
            .output()
            .expect("a script of this tree");
        assert!(
            done.status.success(),
            "this test needs the static agent: packaging/agent\n{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let path = String::from_utf8(done.stdout).expect("a path of letters");
        PathBuf::from(path.trim_end())
    });
    &BUILT
}

/// Tells whether busybox' shell takes its own applets wherever PATH has no program of that name, as that of Debian's
/// busybox-static does: there nothing can be taken from it.
pub(crate) fn busybox_needs_no_path() -> bool {
    let mut shell = Command::new(program("busybox"));
    let shell = shell.args(["sh", "-c", "command -v setsid"]);
    let output = shell.env("PATH", "/nonexistent").output();
    output.expect("busybox starts").status.success()
}

/// Checks that a machine with accounts of its own can be played here.
///
/// # Panics
///
/// Says what is missing.
pub(crate) fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: it gives each job machine a private /etc/passwd by `unshare --mount`"
    );
}
