//! SIGTERM, as GitLab Runner sends it, at each step of each stage; what it ends, and what it leaves usable.

use std::fs::File;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::FlockOperation;
use rustix::process::Signal;

use super::PLACE;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::traces;
use crate::lab::traces::Traces;
use crate::lab::traces::until;

mod lost;
mod prepare;
mod script;

/// What a stage that was asked to end may take.
const LIMIT: Duration = Duration::from_secs(45);

/// A server that takes connections right away, to be put behind a proxy.
fn machine() -> ServerBuilder {
    ServerBuilder::new(Kind::OpenSsh, Login::Bash)
}

/// A job behind a proxy, on that machine.
fn behind_proxy() -> Runner {
    PLACE.job().machine(machine()).through_proxy().build()
}

/// The machines on which the far side of a cancel has to work; `None`: the place's own.
fn machines() -> Vec<Option<ServerBuilder>> {
    let all = [
        None,
        Some(ServerBuilder::new(Kind::Own, Login::Busybox).busybox_only()),
        Some(ServerBuilder::new(Kind::Dropbear, Login::Dash)),
        Some(machine()),
    ];
    PLACE.some(all, 2)
}

fn on_every_machine(test: impl Fn(&Runner) + Sync) {
    at_once(machines(), |machine| {
        let name = format!("on {machine:?}");
        let builder = PLACE.job();
        let runner = match machine {
            Some(machine) => builder.machine(machine).build(),
            None => builder.build(),
        };
        runner.start();
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            test(&runner);
            end(&runner);
        }));
        if let Err(panic) = passed {
            eprintln!("{name}");
            std::panic::resume_unwind(panic);
        }
    });
}

/// Cleans up and checks that nothing is left.
#[track_caller]
fn end(runner: &Runner) {
    let traces = runner.traces();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    traces.assert_gone();
    traces::assert_only_tombstones(runner.state_directory(), 1);
}

/// Cancels a stage and returns how it ended, which must be in time.
#[track_caller]
pub(crate) fn cancel(stage: Stage) -> Output {
    let began = Instant::now();
    stage.signal(Signal::TERM);
    let output = stage.wait(PATIENCE);
    assert!(began.elapsed() < LIMIT, "it took too long:\n{output}");
    output
}

/// Checks that a machine still does what comes after a cancel.
#[track_caller]
fn assert_usable(runner: &Runner) {
    runner.set_status("canceled");
    for stage in [
        "after_script",
        "archive_cache_on_failure",
        "upload_artifacts_on_failure",
        "cleanup_file_variables",
    ] {
        let text = format!("echo {stage} on this machine");
        runner
            .run(stage, text)
            .assert_success()
            .assert_stdout(format!("{stage} on this machine\n"));
    }
}

/// Returns whether the process has said what it does about SIGTERM, and it is not dying of it.
fn heeds_term(stage: &Stage) -> bool {
    const TERM: u64 = 1 << (15 - 1);
    let path = format!("/proc/{}/status", stage.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & TERM != 0)
}

#[track_caller]
fn wait_heeds_term(stage: &Stage) {
    until("the stage handles SIGTERM", PATIENCE, || {
        assert!(!stage.is_over(), "{}", stage.so_far());
        heeds_term(stage)
    });
}

/// Holds the lock on the job's directory, as a `cleanup` that hangs would.
struct Held {
    directory: File,
}

impl Held {
    /// Takes the lock of a job that may not have begun yet.
    fn of(runner: &Runner) -> Self {
        let answer = runner.config().assert_success();
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        let key = answer["hostname"].as_str().unwrap();
        let path = runner.state_directory().join("jobs").join(key);
        std::fs::create_dir_all(&path).unwrap();
        let directory = File::open(path).unwrap();
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
        Self { directory }
    }

    /// Waits until a process waits for the lock as such, and does nothing else meanwhile.
    fn wait_for(&self, stage: &Stage) {
        use std::os::unix::fs::MetadataExt as _;
        let inode = self.directory.metadata().unwrap().ino();
        let jobs = format!("/proc/{}/fd", stage.pid().as_raw_nonzero());
        until("the stage asks for the lock", PATIENCE, || {
            assert!(!stage.is_over(), "{}", stage.so_far());
            let open = std::fs::read_dir(&jobs).into_iter().flatten().flatten();
            open.filter_map(|fd| std::fs::metadata(fd.path()).ok())
                .any(|file| file.ino() == inode)
        });
    }
}

/// The Runner takes a stage that a signal ended for one that failed; anything else must be the code that it
/// asked for.
#[track_caller]
pub(crate) fn assert_given_up(output: &Output) {
    let given_up = output.code() == Some(2) || output.signal() == Some(15);
    assert!(given_up, "{output}");
}

/// Does something for each of several things, in a thread of its own.
fn at_once<T: Send>(all: Vec<T>, test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for one in all {
            scope.spawn(|| test(one));
        }
    });
}

fn left_of(runner: &Runner, command: &str) -> Vec<String> {
    let all = runner.processes();
    let all = all.iter().map(ToString::to_string);
    // The stage itself and shells that have the command in their text are others.
    all.filter(|line| {
        line.split_once(' ')
            .is_some_and(|(_, rest)| rest.trim() == command)
    })
    .collect()
}

/// Returns whether SIGTERM was sent to the process and did not reach it yet.
fn is_pending(stage: &Stage) -> bool {
    let path = format!("/proc/{}/status", stage.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let mut masks = status.lines().filter_map(|line| {
        line.strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"))
    });
    masks.any(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask != 0))
}

#[test]
fn cleanup_at_any_moment() {
    for polls in PLACE.some(0..8, 2) {
        let runner = PLACE.job().build();
        runner.start();
        let script = "setsid sleep 5433 </dev/null >/dev/null 2>&1 &";
        runner.run("build_script", script).assert_success();
        let traces = runner.traces();
        let stage = runner.spawn_cleanup();
        for _ in 0..polls * 100 {
            assert!(Path::new("/proc/self/stat").exists());
        }
        let output = cancel(stage);
        if output.code() != Some(0) {
            assert_given_up(&output);
        }
        end_again(&runner, &traces);
    }
}

#[test]
fn cleanup_that_waits_for_another() {
    if PLACE.leaves_out() {
        return;
    }
    let runner = PLACE.job().build();
    runner.start();
    let traces = runner.traces();
    let held = Held::of(&runner);
    let stage = runner.spawn_cleanup();
    held.wait_for(&stage);
    assert_given_up(&cancel(stage));
    drop(held);
    end_again(&runner, &traces);
}

#[track_caller]
fn end_again(runner: &Runner, traces: &Traces) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    traces.assert_gone();
    traces::assert_only_tombstones(runner.state_directory(), 1);
}
