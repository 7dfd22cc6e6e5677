//! A script begins while the one before is still being forgotten: its stage was over before the word got through. Or while an
//! earlier start of it, whose connection was lost, is about to begin it.

use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use gitlab_aws_driver::script::Nonce;
use gitlab_aws_driver::script::Verb;
use gitlab_aws_driver::ssh::first_line::LINE;

use super::PLACE;

const SCRIPT: &[u8] = b"echo done; exit 3\n";

/// Begins the script on a far side of its own.
fn begin(spool: &str, shell: &Path) -> Child {
    start(&Nonce::draw(spool).unwrap(), shell)
}

fn start(nonce: &Nonce, shell: &Path) -> Child {
    let verb = Verb::Start {
        script: SCRIPT.len() as u64,
        prelude: 0,
    };
    let command = nonce.command(verb, None);
    let path = std::env::var("PATH").unwrap();
    let child = Command::new("sh")
        .arg("-c")
        .arg(String::from_utf8(command).unwrap())
        .env("PATH", format!("{}:{path}", shell.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = child.stdin.as_ref().unwrap();
    orders.write_all(LINE.as_bytes()).unwrap();
    orders.write_all(SCRIPT).unwrap();
    child
}

/// Reads until the frame comes; what came otherwise where the far side ended before.
fn wait_for(word: &str, child: &mut Child) -> Result<(), String> {
    let mut seen = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        match child.stdout.as_mut().unwrap().read(&mut bytes).unwrap() {
            0 => return Err(String::from_utf8_lossy(&seen).into_owned()),
            length => seen.extend_from_slice(&bytes[..length]),
        }
        let text = String::from_utf8_lossy(&seen);
        if text.lines().any(|line| line.contains(word)) {
            return Ok(());
        }
    }
}

/// Once `after_script` failed right after a cancel whose connection came back to life: of two that forgot the same
/// script one lost its footing, and the directory above went away between two lines of the one that began.
#[test]
fn a_script_begins_while_another_is_being_forgotten() {
    if PLACE.leaves_out() {
        return;
    }
    for name in ["dash", "bash", "busybox"] {
        let directory = tempfile::tempdir().unwrap();
        let shell = Path::new("/bin").join(name);
        symlink(shell, directory.path().join("sh")).unwrap();
        let spool = Nonce::draw("").unwrap();
        for round in 0..8 {
            let mut before = begin(spool.as_str(), directory.path());
            wait_for(" end 3 ", &mut before).unwrap();
            let mut orders = before.stdin.take().unwrap();
            let mut after = begin(spool.as_str(), directory.path());
            // The race itself: how far the second has come when the first is told.
            std::thread::sleep(Duration::from_millis(round * 4));
            // It may be gone: the second one ends what it finds.
            orders.write_all(b"done\n").unwrap_or_default();
            if let Err(said) = wait_for(" end 3 ", &mut after) {
                panic!("{name}, round {round}: {said:?}");
            }
            after.stdin.take().unwrap().write_all(b"drop\n").unwrap();
            wait_for(" forgotten", &mut after).unwrap();
            drop(orders);
            before.wait().unwrap();
            after.wait().unwrap();
        }
    }
}

/// Where there is no room: another start has found some meanwhile, and begun.
const HEAD: &str = "#!/bin/sh\necho 1 1 >sup; echo 'No space left on device' >&2; exit 1\n";

#[test]
fn a_start_that_another_has_outrun_neither_ends_its_script_nor_begins_it_again() {
    if PLACE.leaves_out() {
        return;
    }
    for name in ["dash", "bash", "busybox"] {
        let directory = tempfile::tempdir().unwrap();
        symlink(Path::new("/bin").join(name), directory.path().join("sh")).unwrap();
        let head = directory.path().join("head");
        std::fs::write(&head, HEAD).unwrap();
        std::fs::set_permissions(&head, std::fs::Permissions::from_mode(0o755)).unwrap();
        let key = Nonce::draw("").unwrap();
        let places = ["/var/tmp", "/tmp"].map(|place| format!("{place}/.gad-{}", key.as_str()));

        // It finds out as it makes its own place.
        let nonce = Nonce::draw(key.as_str()).unwrap();
        let mut outrun = start(&nonce, directory.path());
        let said = wait_for(" end ", &mut outrun).unwrap_err();
        assert!(
            !said.contains(" fail ") && !said.contains(" open "),
            "{name}: {said:?}"
        );
        assert_eq!(outrun.wait().unwrap().code(), Some(1), "{name}");
        let spool = |place: &str, nonce: &Nonce| Path::new(place).join(nonce.as_str());
        assert!(spool(&places[0], &nonce).join("sup").exists(), "{name}");
        assert!(!spool(&places[1], &nonce).exists(), "{name}");

        // It has found the place where the other began first, and not the one where it has begun.
        let nonce = Nonce::draw(key.as_str()).unwrap();
        let [first, other] = places.each_ref().map(|place| spool(place, &nonce));
        for path in [&first, &other] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(other.join("sup"), "1 1\n").unwrap();
        start(&nonce, directory.path()).wait().unwrap();
        assert!(other.join("sup").exists(), "{name}");
        for place in &places {
            std::fs::remove_dir_all(place).unwrap();
        }
    }
}

/// The connection was lost right behind the script, and the driver is back at once.
#[test]
fn two_starts_of_one_script_do_not_fail_for_each_other() {
    if PLACE.leaves_out() {
        return;
    }
    for name in ["dash", "bash", "busybox"] {
        let directory = tempfile::tempdir().unwrap();
        let shell = Path::new("/bin").join(name);
        symlink(shell, directory.path().join("sh")).unwrap();
        let key = Nonce::draw("").unwrap();
        for round in 0..12 {
            let nonce = Nonce::draw(key.as_str()).unwrap();
            let mut both = [(); 2].map(|()| start(&nonce, directory.path()));
            // One of them follows in the end; the other is ended by it, or ends.
            let seen = both.each_mut().map(|child| wait_for(" end 3 ", child));
            let failed = |said: &Result<(), String>| {
                said.as_ref().is_err_and(|said| said.contains(" fail "))
            };
            assert!(
                seen.iter().any(Result::is_ok),
                "{name}, round {round}: {seen:?}"
            );
            assert!(!seen.iter().any(failed), "{name}, round {round}: {seen:?}");
            for child in &mut both {
                let mut orders = child.stdin.take().unwrap();
                orders.write_all(b"drop\n").unwrap_or_default();
            }
            for child in &mut both {
                child.wait().unwrap();
            }
        }
    }
}
