//! Sub-stages whose output a test reads itself, or does not.

use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use super::runner::Runner;
use super::traces::until;

/// Starts a sub-stage whose standard output the test itself holds, and reads, or does not.
pub(crate) fn spawn_unread(runner: &Runner, script: &str) -> std::process::Child {
    let script = runner.write_script(script);
    Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
        .arg("--config")
        .arg(runner.config_file())
        .args(["custom", "run"])
        .arg(script)
        .arg("build_script")
        .env_clear()
        .envs(runner.stage_environment())
        .current_dir(runner.attempt())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Waits for a child of the test's own; returns its exit code or minus the signal's number.
#[track_caller]
pub(crate) fn wait_child(child: &mut std::process::Child, within: Duration) -> i32 {
    let mut ended = None;
    until("the stage's end", within, || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let status = ended.unwrap();
    status
        .code()
        .unwrap_or_else(|| -status.signal().unwrap_or_default())
}
