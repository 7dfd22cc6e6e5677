//! The test lab: all that a job meets outside the driver, on loopback, real where that is possible.
//!
//! - [`runner::Runner`] plays GitLab Runner for one job; [`stage::Stage`] is one process it started.
//! - [`servers::Server`] is a job machine: OpenSSH, dropbear or the project's own SSH server.
//! - [`aws::Account`] is AWS: an account of its own for each test, whose tasks are such machines.
//! - [`hostile::Hostile`] is a machine that says whatever a test wants it to.
//! - [`proxy::Proxy`] stands between driver and machine and breaks the connection on demand.
//! - [`engine::Engine`] is podman under docker's name, on a job machine; [`docker::Docker`] is a docker engine of this host.
//! - [`git::GitServer`] and [`helper::Helper`] are what the scripts of a job call.
//!
//! Tests share nothing: no port, directory or account; only [`docker::Docker`] is one for all tests of a process, since it takes a
//! second to start and its containers share nothing. Everything of one test lies under one temporary
//! directory, and every process of it carries that path in its environment, arguments or files,
//! which is how [`processes`] finds what a test left behind.

pub(crate) mod aws;
pub(crate) mod docker;
pub(crate) mod engine;
pub(crate) mod git;
pub(crate) mod helper;
pub(crate) mod hostile;
pub(crate) mod images;
pub(crate) mod launch;
pub(crate) mod place;
pub(crate) mod port;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod runner;
pub(crate) mod servers;
pub(crate) mod ssh;
pub(crate) mod stage;
pub(crate) mod starts;
pub(crate) mod tools;
pub(crate) mod traces;
pub(crate) mod tree;
pub(crate) mod unread;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

/// How long anything may take that is not itself about time, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long what was ended may take to be gone. A machine that heeds no SIGTERM is killed after three seconds, by a lab that
/// may be late itself.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Returns a new temporary directory whose path needs no quoting in shell scripts.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("gad-lab-")
        .tempdir()
        .expect("a temporary directory")
}

/// Writes an executable file.
///
/// Another process does the writing: while a file is open for writing anywhere it cannot be executed ("Text
/// file busy"), and a child that another thread is just starting holds all that is open here.
pub(crate) fn write_program(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = writer.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("a reader");
    drop(input);
    assert!(writer.wait().expect("own child").success());
}
