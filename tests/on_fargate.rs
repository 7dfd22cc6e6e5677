//! What holds of scripts, their watchers, cuts, cancels, endings, output, full disks and machines that are hard to reach,
//! shown on Fargate tasks too: the same tests once more.

#![expect(clippy::duplicate_mod, reason = "the same tests for another place")]

/// Where the jobs of these tests run.
const PLACE: crate::lab::place::Place = crate::lab::place::Place::Task;

/// Were the jobs of these tests elsewhere, they would show nothing.
#[test]
fn these_jobs_run_on_tasks() {
    let runner = PLACE.job().build();
    runner.start();
    let tasks = runner.account().alive();
    assert_eq!(tasks.len(), 1, "{tasks:#?}");
    assert_eq!(tasks[0].family, runner.family());
    let script = "readlink /proc/self/ns/pid; tr '\\0' ' ' < /proc/1/cmdline";
    let seen = runner.run("build_script", script).assert_success();
    let process = tasks[0].process.unwrap();
    let namespace = std::fs::read_link(format!("/proc/{process}/ns/pid")).unwrap();
    let first = seen.stdout_text();
    assert_eq!(first.lines().next(), namespace.to_str(), "{seen}");
    assert!(first.contains("sshd"), "{seen}");
}

#[path = "cancels/mod.rs"]
mod cancels;
#[path = "connecting.rs"]
mod connecting;
#[path = "cuts/mod.rs"]
mod cuts;
#[path = "disk.rs"]
mod disk;
#[path = "endings.rs"]
mod endings;
#[path = "output.rs"]
mod output;
#[path = "scripts.rs"]
mod scripts;
#[path = "watchers.rs"]
mod watchers;
