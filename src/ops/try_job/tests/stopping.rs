//! Cancels and time-outs: what they end, what they skip, what follows all the same.
//!
//! What is to be stopped sleeps in short steps: a shell that gets a signal while it is about to start a
//! command acts on it only after that command.

use std::time::Duration;

use tokio::sync::watch;

use super::super::verdict::Failure;
use super::super::{EXIT_CANCELLED, EXIT_TIMEOUT};
use super::{SHORT, Theatre};

/// Waits until the log shows it.
async fn until(log: &mut watch::Receiver<Vec<u8>>, text: &str) {
    let there = |all: &Vec<u8>| memchr::memmem::find(all, text.as_bytes()).is_some();
    log.wait_for(there).await.unwrap();
}

fn cancel(by: &watch::Sender<u32>) {
    by.send_modify(|count| *count += 1);
}

#[test]
fn a_first_cancel_ends_the_script_and_the_rest_follows() {
    let theatre = Theatre::new();
    let mut plan = theatre.plan("echo un''derway; while :; do sleep 0.01; done");
    plan.job.after_script = Some(b"echo after $CI_JOB_STATUS".to_vec());
    let played = theatre.play_with(plan, async |by, mut log, _| {
        until(&mut log, "underway").await;
        cancel(by);
    });
    assert_eq!(
        played.report.failure,
        Some(Failure::Cancelled { hard: false })
    );
    assert_eq!(
        (played.report.exit_code(), played.report.status()),
        (EXIT_CANCELLED, "canceled")
    );
    let told = "WARNING: script canceled externally (UI, API)\nRunning after_script\n";
    for text in [told, "\nafter canceled\n"] {
        assert!(played.text().contains(text), "{}", played.text());
    }
    assert_eq!(
        theatre.calls()[4..],
        [
            "build_script",
            "after_script",
            "cleanup_file_variables",
            "cleanup"
        ]
    );
    assert_eq!(theatre.last_status(), "canceled");
}

#[test]
fn a_second_cancel_skips_to_the_cleanup() {
    let theatre = Theatre::new();
    let mut plan = theatre
        .plan("trap 'echo he''ard' TERM; echo un''derway; while :; do sleep 0.01 || :; done");
    plan.job.after_script = Some(b"true".to_vec());
    // The test takes as long; less, and a busy machine kills it before it is heard.
    plan.limits.grace.term = Duration::from_secs(4);
    let played = theatre.play_with(plan, async |by, mut log, _| {
        until(&mut log, "underway").await;
        cancel(by);
        until(&mut log, "heard").await;
        cancel(by);
    });
    assert_eq!(
        played.report.failure,
        Some(Failure::Cancelled { hard: true })
    );
    assert_eq!(played.report.exit_code(), EXIT_CANCELLED);
    assert_eq!(theatre.calls()[4..], ["build_script", "cleanup"]);
    assert_eq!(theatre.last_status(), "failed");
    // It took SIGKILL to end it.
    assert_eq!(played.report.stages[4].exit_code, None);
}

#[test]
fn a_cancel_during_prepare_ends_the_job_without_another_try() {
    let theatre = Theatre::new();
    theatre.on("prepare", "echo underway; while :; do sleep 0.01; done");
    let played = theatre.play_with(theatre.plan("true"), async |by, mut log, _| {
        until(&mut log, "underway").await;
        cancel(by);
    });
    assert_eq!(theatre.calls(), ["config", "prepare", "cleanup"]);
    assert_eq!(played.report.exit_code(), EXIT_CANCELLED);
    assert_eq!(theatre.last_status(), "running");
}

#[test]
fn a_cancel_between_two_tries_ends_the_job_at_once() {
    let theatre = Theatre::new();
    theatre.on("prepare", "exit 2");
    let mut plan = theatre.plan("true");
    plan.limits.prepare_pause = super::LONG;
    let played = theatre.play_with(plan, async |by, mut log, _| {
        until(&mut log, "Will be retried in ").await;
        cancel(by);
    });
    assert_eq!(theatre.calls(), ["config", "prepare", "cleanup"]);
    assert_eq!(played.report.exit_code(), EXIT_CANCELLED);
}

#[test]
fn a_cancel_during_get_sources_skips_the_scripts() {
    let theatre = Theatre::new();
    let mut plan = theatre.plan("true");
    plan.attempts = 3;
    plan.job.pre_get_sources = Some(b"echo un''derway; while :; do sleep 0.01; done".to_vec());
    plan.job.after_script = Some(b"true".to_vec());
    theatre.play_with(plan, async |by, mut log, _| {
        until(&mut log, "underway").await;
        cancel(by);
    });
    // Until the script begins a cancel is one of the whole job.
    assert_eq!(theatre.calls()[3..], ["get_sources", "cleanup"]);
    assert_eq!(theatre.last_status(), "failed");
}

#[test]
fn a_first_cancel_during_after_script_is_ignored() {
    let theatre = Theatre::new();
    let go = theatre.file("go");
    let mut plan = theatre.plan("true");
    let text = format!(
        "echo un''derway; until [ -e {} ]; do sleep 0.01; done; echo do''ne",
        go.display()
    );
    plan.job.after_script = Some(text.into_bytes());
    let played = theatre.play_with(plan, async |by, mut log, _| {
        until(&mut log, "underway").await;
        cancel(by);
        std::fs::write(&go, "").unwrap();
    });
    assert!(played.text().contains("\ndone\n"));
    assert_eq!(played.report.exit_code(), 0);
    assert_eq!(theatre.last_status(), "success");
}

#[test]
fn a_second_cancel_during_after_script_skips_to_the_cleanup() {
    let theatre = Theatre::new();
    let mut plan = theatre.plan("echo un''derway; while :; do sleep 0.01; done");
    plan.job.after_script = Some(b"echo af''ter; while :; do sleep 0.01; done".to_vec());
    theatre.play_with(plan, async |by, mut log, _| {
        until(&mut log, "underway").await;
        cancel(by);
        until(&mut log, "after\n").await;
        cancel(by);
    });
    assert_eq!(
        theatre.calls()[4..],
        ["build_script", "after_script", "cleanup"]
    );
    assert_eq!(theatre.last_status(), "failed");
}

#[test]
fn the_end_of_the_jobs_time_skips_to_the_cleanup() {
    let theatre = Theatre::new();
    let mut plan = theatre.plan("while :; do sleep 0.01; done");
    // Long enough for the stages before the script, on a busy machine too.
    plan.timeout = Duration::from_secs(15);
    plan.job.after_script = Some(b"true".to_vec());
    let played = theatre.play(plan);
    assert_eq!(played.report.failure, Some(Failure::Timeout));
    assert_eq!(played.report.exit_code(), EXIT_TIMEOUT);
    assert_eq!(theatre.calls()[4..], ["build_script", "cleanup"]);
    assert_eq!(theatre.last_status(), "failed");
    assert!(played.text().contains(
        "WARNING: step_script could not run to completion because the timeout was exceeded. "
    ));
    assert!(
        played
            .text()
            .contains("ERROR: Job failed: execution took longer than 15s seconds\n")
    );
}

#[test]
fn after_script_has_a_time_of_its_own_and_does_not_fail_the_job() {
    let theatre = Theatre::new();
    let mut plan = theatre.plan("true");
    plan.job.after_script = Some(b"while :; do sleep 0.01; done".to_vec());
    // Not shorter: bash forgets a TERM that comes while its subshell begins, and the script runs on.
    plan.limits.after_script = Duration::from_secs(2);
    let played = theatre.play(plan);
    assert_eq!(played.report.exit_code(), 0);
    // Its own note may be missing: it has hardly begun.
    let names: Vec<_> = played.report.stages[5..].iter().map(|s| s.name).collect();
    assert_eq!(names, ["after_script", "cleanup_file_variables", "cleanup"]);
    let told =
        "WARNING: after_script could not run to completion because the timeout was exceeded. ";
    assert!(played.text().contains(told), "{}", played.text());
}

#[test]
fn cleanup_begins_beside_a_stage_that_does_not_end() {
    let theatre = Theatre::new();
    theatre.on("cleanup", r#"touch "$here/go""#);
    let go = theatre.file("go");
    let mut plan = theatre.plan(format!(
        "trap : TERM; echo un''derway; until [ -e {} ]; do sleep 0.01; done",
        go.display()
    ));
    plan.limits.cleanup_wait = SHORT;
    let played = theatre.play_with(plan, async |by, mut log, _| {
        until(&mut log, "underway").await;
        cancel(by);
        cancel(by);
    });
    // Without the cleanup beside it the script would have waited for ever.
    assert_eq!(theatre.calls()[4..], ["build_script", "cleanup"]);
    assert_eq!(played.report.exit_code(), EXIT_CANCELLED);
}

#[test]
fn nothing_stops_the_cleanup() {
    let theatre = Theatre::new();
    theatre.on(
        "cleanup",
        r#"echo underway; until [ -e "$here/go" ]; do sleep 0.01; done; echo swept"#,
    );
    let go = theatre.file("go");
    let played = theatre.play_with(theatre.plan("true"), async |by, _, mut console| {
        until(&mut console, "underway").await;
        cancel(by);
        cancel(by);
        std::fs::write(&go, "").unwrap();
    });
    assert!(played.console.ends_with(b"swept\n"));
    assert_eq!(played.report.exit_code(), 0);
}
