//! The commands that are no server: `install` and `dial`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::PROGRAM;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_program_installs_itself_as_any_user_whatever_the_umask() {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let inside = |path: &str| root.path().join(path);
    let script =
        "umask 077; exec \"$0\" install \"$1/agent\" --open \"$1/builds\" --open \"$1/a/cache\"";
    for _ in 0..2 {
        let installed = Command::new("setpriv")
            .args(["--reuid=12345", "--regid=12345", "--clear-groups"])
            .args(["sh", "-c", script, PROGRAM])
            .arg(root.path())
            .env_clear()
            .status()
            .unwrap();
        assert!(installed.success());
        let copy = inside("agent/gitlab-aws-agent");
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(PROGRAM).unwrap());
        assert_eq!((mode(&copy), mode(&inside("agent"))), (0o755, 0o755));
        assert_eq!(mode(&inside("builds")), 0o777);
        assert_eq!(mode(&inside("a/cache")), 0o777);
        assert_eq!(inside("agent").read_dir().unwrap().count(), 1);
        let version = Command::new(&copy).arg("--version").output().unwrap();
        assert!(version.stdout.starts_with(b"gitlab-aws-agent "));
    }
}

#[test]
fn the_program_installs_itself_without_proc() {
    let root = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs none /proc && exec \"$0\" install \"$1\"";
    let installed = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, PROGRAM])
        .arg(root.path())
        .status()
        .unwrap();
    assert!(installed.success());
    let copy = root.path().join("gitlab-aws-agent");
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(PROGRAM).unwrap());
}

#[test]
fn what_cannot_be_installed_is_told() {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--clear-groups"])
        .args([PROGRAM, "install"])
        .arg(root.path().join("agent"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let path = root.path().join("agent");
    assert!(stderr.contains(path.to_str().unwrap()), "{stderr}");
    assert!(stderr.contains("ermission denied"), "{stderr}");
}

/// Answers one connection: the bytes that came, in capitals, once all have come.
fn answer(mut stream: impl std::io::Read + std::io::Write) {
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    came.make_ascii_uppercase();
    stream.write_all(&came).unwrap();
}

fn dial(server: &str) -> Vec<u8> {
    let mut process = Command::new(PROGRAM)
        .args(["dial", server])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(&b"some words\n".repeat(50_000)).unwrap();
    drop(stdin);
    let mut stdout = Vec::new();
    process
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut stdout)
        .unwrap();
    assert!(process.wait().unwrap().success());
    stdout
}

#[test]
fn dial_carries_bytes_both_ways_and_ends_with_the_server() {
    let expected = b"SOME WORDS\n".repeat(50_000);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || answer(tcp.accept().unwrap().0));
    assert!(dial(&address) == expected);
    server.join().unwrap();

    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || answer(unix.accept().unwrap().0));
    assert!(dial(path.to_str().unwrap()) == expected);
    server.join().unwrap();

    let output = Command::new(PROGRAM)
        .args(["dial", "/nowhere/socket"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/socket"));
}
