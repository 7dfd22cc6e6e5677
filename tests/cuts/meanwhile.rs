//! A script begins while the one before is still being forgotten: its stage was over before the word got through.

use std::io::Read as _;
use std::io::Write as _;
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
    let verb = Verb::Start {
        script: SCRIPT.len() as u64,
        prelude: 0,
    };
    let command = Nonce::draw(spool).unwrap().command(verb, None);
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
