//! What a stage does when it is told to stop, or when another stage is in its way, and what it says then.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::bad_input::assert_refused;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Stage;
use crate::lab::traces::assert_only_tombstones;
use crate::lab::traces::long;
use crate::lab::traces::until;
use crate::lab::unread::spawn_unread;
use crate::lab::unread::wait_child;
use crate::output::machines;
use crate::scripts::record_file;

/// How long a stage waits for a lock, and what the test gives it for that.
const LOCK_LIMIT: Duration = Duration::from_secs(120);

/// Takes the lock of a job that is prepared, as a `cleanup` that hangs would.
pub(crate) fn hold(runner: &Runner) -> File {
    let directory = File::open(record_file(runner).parent().unwrap()).unwrap();
    rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
    directory
}

/// Waits until the stage has said what it does about SIGTERM; `false` where it was over before.
fn heeds_term(stage: &Stage) -> bool {
    const TERM: u64 = 1 << (15 - 1);
    let path = format!("/proc/{}/status", stage.pid().as_raw_nonzero());
    let mut heeds = false;
    until("the stage handles SIGTERM", PATIENCE, || {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        heeds = caught.is_some_and(|mask| mask & TERM != 0);
        heeds || stage.is_over()
    });
    heeds
}

#[track_caller]
fn assert_all_gone(runner: &Runner) {
    runner.assert_nothing_left();
    assert_only_tombstones(runner.state_directory(), 1);
}

/// Nobody may ever call it again.
#[test]
fn cleanup_that_is_told_to_stop_finishes_in_its_grace() {
    let runner = Runner::builder().build();
    runner.start();
    let traces = runner.traces();
    let held = hold(&runner);
    let stage = runner.spawn_cleanup();
    assert!(heeds_term(&stage), "{}", stage.so_far());
    stage.signal(Signal::TERM);
    drop(held);
    stage.wait(PATIENCE).assert_success().assert_stdout("");
    assert_all_gone(&runner);
    traces.assert_gone();
}

#[test]
fn cleanup_that_cannot_finish_in_its_grace_keeps_what_it_knows() {
    let runner = Runner::builder().exit_codes("70", "71").build();
    runner.start();
    let held = hold(&runner);
    for insists in [false, true] {
        let stage = runner.spawn_cleanup();
        assert!(heeds_term(&stage), "{}", stage.so_far());
        let told = Instant::now();
        stage.signal(Signal::TERM);
        if insists {
            // Two that come at once may count as one.
            until("the second is heard", PATIENCE, || {
                stage.signal(Signal::TERM);
                stage.is_over()
            });
        }
        let output = stage.wait(PATIENCE);
        let took = told.elapsed();
        assert!(took < Duration::from_secs(28), "{took:?}: {output}");
        assert_eq!(
            took < Duration::from_secs(15),
            insists,
            "{took:?}: {output}"
        );
        assert_refused(&output, 71, &["`cleanup` was told to stop"]);
        // The job is as it was.
        runner.run("build_script", "echo on").assert_stdout("on\n");
    }
    drop(held);
    runner.cleanup().assert_success();
    assert_all_gone(&runner);
}

/// The machine's first process belongs to the stage's process group for an instant, and dies of the signal that is meant
/// for the stage. What it could not say any more is not the reason.
#[test]
fn prepare_whose_child_dies_of_the_same_signal_says_that_it_was_cancelled() {
    let rounds: u32 = if long() { 200 } else { 10 };
    let mut cancelled = 0;
    for round in 0..rounds.max(50) {
        if round >= rounds && cancelled > 0 {
            break;
        }
        let runner = Runner::builder().build();
        runner.config().assert_success();
        let stage = runner.spawn_prepare();
        let pid = stage.pid().as_raw_nonzero();
        let children = format!("/proc/{pid}/task/{pid}/children");
        // The instant is short: no pause between two looks.
        while std::fs::read_to_string(&children).is_ok_and(|list| list.trim().is_empty()) {
            if stage.is_over() {
                break;
            }
        }
        stage.signal(Signal::TERM);
        let output = stage.wait(PATIENCE);
        // On a busy machine it may be over before this process is.
        if output.code() != Some(0) {
            let text = output.stderr_text();
            assert_eq!(output.code(), Some(2), "{output}");
            assert!(text.contains("ERROR: the job was cancelled"), "{output}");
            assert!(!text.contains("did not start"), "{output}");
            cancelled += 1;
        }
        runner.cleanup().assert_success();
        assert_all_gone(&runner);
    }
    assert!(cancelled > 0, "all were over too soon");
}

/// Checks that a stage named this process as the one that is in its way.
#[track_caller]
fn assert_names_us(output: &lab::stage::Output, job: &Path) {
    let us = format!("process {} has kept the lock on", std::process::id());
    let job = job.display().to_string();
    assert_refused(output, 2, &[&us, &job, "for 120 s"]);
}

#[test]
fn a_lock_that_somebody_keeps_is_told_and_nothing_is_lost() {
    if !long() {
        eprintln!("skipped: takes minutes; GAD_LONG=1 runs it");
        return;
    }
    let runner = Runner::builder().build();
    runner.start();
    let job = record_file(&runner).parent().unwrap().to_owned();
    let held = hold(&runner);
    let cleanup = runner.spawn_cleanup();
    // A job whose output nobody reads any more meets the same lock.
    let mut child = spawn_unread(&runner, "echo ready; sleep 600");
    let mut reader = child.stdout.take().unwrap();
    let mut first = [0; 6];
    reader.read_exact(&mut first).unwrap();
    drop(reader);
    assert_names_us(&cleanup.wait(LOCK_LIMIT + PATIENCE), &job);
    assert_eq!(wait_child(&mut child, LOCK_LIMIT + PATIENCE), 2);
    assert!(job.join("intent.json").exists() && job.join("record.json").exists());
    drop(held);
    runner.cleanup().assert_success();
    assert_all_gone(&runner);
}

/// A `cleanup` that is killed while it leaves word of the job.
#[test]
fn word_of_a_job_is_left_whole_whenever_cleanup_is_killed() {
    for _ in 0..8 {
        let runner = Runner::builder().build();
        runner.start();
        let job = record_file(&runner).parent().unwrap().to_owned();
        let stage = runner.spawn_cleanup();
        let deadline = Instant::now() + PATIENCE;
        // The moment is short: no pause between two looks.
        while job.exists() {
            assert!(Instant::now() < deadline, "{}", stage.so_far());
        }
        stage.signal(Signal::KILL);
        stage.wait(PATIENCE);
        runner.cleanup().assert_success();
        assert_all_gone(&runner);
        // What the kill may have cut off, whoever wrote it: no live process has this number.
        let tombstones = runner.state_directory().join("tombstones");
        std::fs::write(tombstones.join("another.json.4194304"), "{").unwrap();
        runner.cleanup().assert_success();
        assert_all_gone(&runner);
    }
}

/// As with a Runner that was started by `nohup`, or by a shell's `&`: an ignored signal stays ignored in every child.
#[test]
fn scripts_ignore_no_signal_though_the_runner_does() {
    let directory = lab::temp_dir();
    let nohup = directory.path().join("nohup");
    let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
    let text = format!("#!/bin/sh\ntrap '' HUP INT QUIT\nexec '{driver}' \"$@\"\n");
    lab::write_program(&nohup, &text);
    for builder in machines() {
        let runner = builder.driver(&nohup).build();
        runner.start();
        // A shell ignores some by itself; what it starts tells.
        let mask = "exec grep SigIgn /proc/self/status";
        let mask = runner.run("build_script", mask).assert_success();
        let text = mask.stdout_text();
        let digits = text.trim().trim_start_matches("SigIgn:").trim();
        let ignored = u64::from_str_radix(digits, 16).unwrap();
        // From 32 on they are the C library's own.
        assert_eq!(ignored & 0x7fff_ffff, 0, "{mask}");
        runner
            .run("build_script", "kill -HUP 0; exit 7")
            .assert_code(1);
        assert_eq!(runner.exit_file().as_deref(), Some(&b"129"[..]));
    }
}

/// A stage that cannot go on in a way that nobody foresaw: it has no room for a thread.
#[test]
fn a_panic_is_a_failure_of_the_machinery() {
    let runner = Runner::builder().exit_codes("70", "71").build();
    runner.start();
    let script = runner.write_script("echo never");
    let mut env = runner.stage_environment();
    // No host has so much memory.
    env.insert("RUST_MIN_STACK".into(), (1_u64 << 60).to_string().into());
    let args = ["run".into(), script.into(), "build_script".into()];
    let stage = runner.spawn_in("run", args.into(), env, &runner.attempt());
    let output = stage.wait(PATIENCE);
    assert_refused(&output, 71, &["gitlab-aws-driver failed at ", "thread"]);
    assert!(output.stdout.is_empty(), "{output}");
    assert_eq!(runner.exit_file(), None);
    runner.run("build_script", "echo on").assert_stdout("on\n");
}
