//! A Runner that stops reading for a while.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::Far;
use super::LONG_PATIENCE;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces::long;

/// What a driver may take for itself, however much output waits.
const MEMORY: u64 = 32 << 10;

#[test]
fn a_reader_that_stalls_loses_nothing() {
    const SIZE: u64 = 100 << 20;
    let far = Far::start(ServerBuilder::new(Kind::OpenSsh, Login::Bash));
    let (starts, finished) = (far.starts(), far.runner.root().join("finished"));
    // 128 bytes a line, each different.
    let script = format!(
        "echo started >> {}\nseq -f %0127.0f {}\ntouch {}\nexit 42\n",
        starts.display(),
        SIZE / 128,
        finished.display()
    );
    let script = far.runner.write_script(script);
    let mut child = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
        .arg("--config")
        .arg(far.runner.config_file())
        .args(["custom", "run"])
        .arg(&script)
        .arg("build_script")
        .env_clear()
        .envs(far.runner.stage_environment())
        .current_dir(far.runner.attempt())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // The first bytes show that it runs; then the time is what this is about.
    let mut first = [0; 128];
    stdout.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_secs(if long() { 90 } else { 5 }));
    assert!(!finished.exists(), "nothing held the script up");
    let stalled = peak(child.id());
    let mut buffer = vec![0; 1 << 16];
    let mut rest = first.to_vec();
    let (mut line, mut highest) = (0, stalled);
    let began = Instant::now();
    loop {
        while rest.len() >= 128 {
            line += 1;
            let expected = format!("{line:0127}\n");
            assert_eq!(String::from_utf8_lossy(&rest[..128]), expected);
            rest.drain(..128);
        }
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        rest.extend_from_slice(&buffer[..count]);
        if line % 4096 == 0 {
            highest = highest.max(peak(child.id()));
        }
        assert!(began.elapsed() < LONG_PATIENCE, "only {line} lines");
    }
    assert_eq!((line, rest.len()), (SIZE / 128, 0));
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), &*stderr), (Some(1), ""));
    assert_eq!(far.runner.exit_file().as_deref(), Some(&b"42"[..]));
    assert_eq!(std::fs::read_to_string(&starts).unwrap(), "started\n");
    assert!(
        highest < MEMORY,
        "{stalled} KiB stalled, {highest} KiB in all"
    );
    far.assert_no_spool();
    far.end();
}

/// Returns the most memory that a process ever had, in KiB; nothing where it has ended.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default()
}
