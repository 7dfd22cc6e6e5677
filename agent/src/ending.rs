//! The end of all that was started for the agent: its own descendants, and the container.
//!
//! A container ends with its process 1, which may be an entrypoint that waits for the agent, that does something afterwards, or
//! that does not care. So the agent leaves somebody behind to see to it, and ends itself: an entrypoint that waits for it
//! goes on at once.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{sleep, timeout};

use crate::container;
use crate::processes::{self, Process};

/// The hidden command that sees to the end of a container.
pub const COMMAND: &str = "end-container";

/// How long what was killed may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// How often is looked whether it is.
const LOOK: Duration = Duration::from_millis(10);

/// How long process 1 has between TERM and the end of all that started the agent.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait before all processes are killed, and then again.
const ROUND: Duration = Duration::from_secs(5);

/// Kills all that descends from this process, again and again until nothing is left. As orphans fall to this process, nothing
/// escapes by being one.
pub(crate) async fn descendants() {
    let killed = async {
        loop {
            let left = processes::descendants();
            if left.is_empty() {
                return;
            }
            left.iter().for_each(Process::kill);
            sleep(LOOK).await;
        }
    };
    // What sits in the kernel for longer than that goes with the container.
    drop(timeout(GONE, killed).await);
}

/// Has this container ended, if it is the agent's. As process 1 the agent need only end itself.
pub(crate) async fn container() {
    if !container::is_ours() {
        return;
    }
    let ancestors = ancestors();
    let successor = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .args(&ancestors)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if successor.is_err() {
        // No process is to be had, so this one stays.
        see_to_it(&ancestors).await;
    }
}

/// Returns what started the agent, as words for the successor.
fn ancestors() -> Vec<OsString> {
    processes::ancestors()
        .into_iter()
        .map(|process| format!("{}.{}", process.pid, process.start).into())
        .collect()
}

/// Sees to it that the container ends that this process is in: TERM to process 1, then KILL to what started the agent, then
/// KILL to all. Returns only where there is nothing to do: the end of process 1 is the end of this one.
///
/// `ancestors` are words `PID.START`.
pub async fn see_to_it(ancestors: &[OsString]) {
    if !container::is_ours() {
        return;
    }
    // A group leader cannot leave its session, and does not need to.
    let _ = rustix::process::setsid();
    let _ = kill_process(Pid::INIT, Signal::TERM);
    // One that does not catch it would never hear of it.
    if container::first_catches_term() {
        sleep(GRACE).await;
    }
    for (pid, start) in ancestors.iter().filter_map(parse) {
        let process = Process::of(pid).filter(|process| process.start == start);
        if let Some(process) = process.filter(|process| process.pid > 1) {
            process.kill();
        }
    }
    loop {
        sleep(ROUND).await;
        // To all but process 1 and this one. Again, for what was started meanwhile.
        let _ = kill_process_group(Pid::INIT, Signal::KILL);
    }
}

fn parse(word: &OsString) -> Option<(i32, u64)> {
    let (pid, start) = word.to_str()?.split_once('.')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}
