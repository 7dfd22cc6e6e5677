//! Jobs on ECS tasks leave nothing behind: with answers that are lost or late, deaths and signals at any moment, tries that
//! fail, and `cleanup` called at any time and how often.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::aws::Meanwhile;
use crate::lab::aws::Task;
use crate::lab::runner::Runner;
use crate::lab::traces;

mod kills;

/// How soon a stage has to end that was told to.
const SOON: Duration = Duration::from_secs(15);
/// What `cleanup` takes where it waits for nothing, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(15);
/// An effect that comes late.
const LATE: Duration = Duration::from_secs(5);

fn job() -> Runner {
    Runner::builder().on_fargate().build()
}

/// The one task that a job may have had at most.
#[track_caller]
fn one_task_at_most(account: &Account) -> Option<Task> {
    let mut tasks = account.tasks();
    assert!(tasks.len() <= 1, "{tasks:#?}");
    tasks.pop()
}

/// Calls `cleanup`, after which there must be nothing, not even for a second one to do.
#[track_caller]
fn clean(runner: &Runner) {
    runner.cleanup().assert_success();
    nothing_is_left(runner);
}

#[track_caller]
fn nothing_is_left(runner: &Runner) {
    runner.assert_nothing_left();
    let tombstones = traces::tombstones(runner.state_directory());
    assert!(tombstones <= 1, "{tombstones}");
    let calls = runner.account().calls("*").len();
    let again = runner.cleanup().assert_success();
    assert!(again.duration < AT_ONCE, "a lock was left: {again}");
    assert_eq!(runner.account().calls("*").len(), calls, "{again}");
}

/// Waits until the first RunTask has taken effect, whenever that is.
fn wait_first_effect(account: &Account) {
    account.wait("the effect of the first call", |_| {
        account.calls("RunTask")[0].status.is_some()
    });
}

#[test]
fn an_answer_that_is_lost_starts_no_second_task() {
    let runner = job();
    runner
        .account()
        .fault(&Fault::lost_answer("RunTask").times(3));
    runner.start();
    runner
        .run("build_script", "echo here")
        .assert_stdout("here\n");
    assert_eq!(runner.account().calls("RunTask").len(), 4);
    assert!(one_task_at_most(runner.account()).is_some());
    clean(&runner);
}

#[test]
fn an_effect_that_comes_after_the_next_call_starts_no_second_task() {
    let runner = job();
    runner.account().fault(&Fault::delayed(
        "RunTask",
        Duration::from_secs(2),
        Meanwhile::Cut,
    ));
    runner.start();
    wait_first_effect(runner.account());
    assert!(one_task_at_most(runner.account()).is_some());
    clean(&runner);
}

#[test]
fn an_effect_that_is_still_possible_keeps_the_next_rung_away() {
    let runner = Runner::builder()
        .on_fargate()
        .capacity(&["fargate-spot", "fargate"])
        .build();
    runner.account().fault(&Fault::delayed(
        "RunTask",
        Duration::from_secs(2),
        Meanwhile::Cut,
    ));
    runner.account().fault(&Fault::capacity());
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains("Capacity is unavailable"), "{output}");
    runner.cleanup().assert_success();
    wait_first_effect(runner.account());
    assert!(one_task_at_most(runner.account()).is_some());
    nothing_is_left(&runner);
}

/// Kills `prepare` while its RunTask travels, and cleans up; the call takes effect so late.
fn killed_in_flight(runner: &Runner, effect: Duration, replay: Option<&Fault>) {
    let account = runner.account();
    account.fault(&Fault::delayed("RunTask", effect, Meanwhile::Waits));
    if let Some(fault) = replay {
        account.fault(fault);
    }
    runner.kill_prepare_at("RunTask");
    runner.cleanup().assert_success();
    wait_first_effect(account);
    assert!(one_task_at_most(account).is_some());
    nothing_is_left(runner);
}

#[test]
fn an_effect_after_our_death_and_the_replay() {
    killed_in_flight(&job(), LATE, None);
}

#[test]
fn an_effect_after_our_death_and_before_the_replay() {
    let replay = Fault::delayed("RunTask", Duration::from_secs(3), Meanwhile::Waits);
    killed_in_flight(&job(), Duration::from_secs(1), Some(&replay));
}

#[test]
fn an_effect_after_our_death_and_a_replay_whose_answer_is_lost() {
    killed_in_flight(
        &job(),
        Duration::from_secs(2),
        Some(&Fault::lost_answer("RunTask").times(2)),
    );
}

#[test]
fn a_call_that_was_refused_for_its_tags_after_our_death_holds_nobody_up() {
    let runner = job();
    let account = runner.account();
    account.allow(&["ecs:RunTask", "ecs:DescribeTasks", "ecs:StopTask"]);
    account.fault(&Fault::delayed(
        "RunTask",
        Duration::from_secs(6),
        Meanwhile::Waits,
    ));
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    account.wait_calls("RunTask", 1);
    prepare.signal(Signal::KILL);
    prepare.wait(PATIENCE);
    clean(&runner);
    wait_first_effect(account);
    assert!(one_task_at_most(account).is_none());
}

#[test]
fn a_task_that_ecs_does_not_know_yet_is_ended_all_the_same() {
    // What is known of it is its request alone, or its name.
    for action in ["RunTask", "DescribeTasks"] {
        let runner = job();
        let account = runner.account();
        account.fate(&Fate::stuck("PENDING"));
        account.stop_lag(Duration::from_secs(2));
        if action == "RunTask" {
            account.fault(&Fault::slow("RunTask", Duration::from_secs(6)));
        }
        runner.kill_prepare_at(action);
        clean(&runner);
        assert!(one_task_at_most(account).is_some());
    }
}

#[test]
fn a_task_that_ecs_says_twice_not_to_know_is_asked_for_again() {
    let runner = job();
    runner.start();
    let account = runner.account();
    let message = "The referenced task was not found.";
    let unknown = Fault::error("StopTask", 400, "InvalidParameterException", message);
    account.fault(&unknown.times(2));
    clean(&runner);
    assert_eq!(account.calls("StopTask").len(), 3);
}

#[test]
fn a_cluster_that_is_deleted_has_no_task_to_end() {
    let runner = job();
    runner.start();
    let account = runner.account();
    let task = account.alive().remove(0).arn;
    account.meet(&task, &Fate::stopped_by_someone(Duration::ZERO, "by hand"));
    account.wait("its end", |state| !state.tasks[0].is_alive());
    let message = "Cluster not found.";
    account.fault(&Fault::error(
        "StopTask",
        400,
        "ClusterNotFoundException",
        message,
    ));
    clean(&runner);
    assert_eq!(account.calls("StopTask").len(), 1);
}

#[test]
fn three_tries_are_three_tokens_and_three_tasks() {
    // The Runner calls `cleanup` after each try; where that fails the next try does its work.
    for cleans in [true, false] {
        let runner = job();
        let account = runner.account();
        account.fate(&Fate::exits_at_once(1).times(2));
        for _ in 0..2 {
            runner.config().assert_success();
            runner
                .prepare()
                .assert_code(2)
                .assert_contains("ended before anybody could log in");
            if cleans {
                runner.cleanup().assert_success();
            }
            runner.next_attempt();
        }
        runner.start();
        let tasks = account.tasks();
        let mut tokens: Vec<_> = tasks
            .iter()
            .map(|task| task.token.clone().unwrap())
            .collect();
        tokens.sort();
        tokens.dedup();
        assert_eq!((tasks.len(), tokens.len()), (3, 3), "{tasks:#?}");
        assert_eq!(account.alive().len(), 1);
        clean(&runner);
    }
}

#[test]
fn a_try_whose_cleanup_never_came_is_ended_by_the_next() {
    let runner = job();
    let account = runner.account();
    account.fate(&Fate::stuck("PENDING"));
    runner.kill_prepare_at("DescribeTasks");
    runner.next_attempt();
    runner.start();
    let alive = account.wait("the end of the first", |state| !state.tasks[0].is_alive());
    assert_eq!(alive.tasks.len(), 2);
    assert!(alive.tasks[1].is_alive());
    clean(&runner);
}

#[test]
fn cleanup_many_times_and_by_many_at_once() {
    let runner = job();
    runner.config().assert_success();
    runner.cleanup().assert_success();
    runner.prepare().assert_success();
    let all: Vec<_> = (0..8).map(|_| runner.spawn_cleanup()).collect();
    for stage in all {
        stage.wait(PATIENCE).assert_success();
    }
    for _ in 0..3 {
        clean(&runner);
    }
    assert!(one_task_at_most(runner.account()).is_some());
    assert_eq!(runner.account().calls("StopTask").len(), 1);
}

#[test]
fn cleanup_beside_a_prepare_that_is_launching() {
    // While the call travels, and once more when its effect comes later than the replay's.
    for meanwhile in [
        Fault::slow("RunTask", Duration::from_secs(6)),
        Fault::delayed("RunTask", Duration::from_secs(6), Meanwhile::Waits),
    ] {
        let runner = job();
        let account = runner.account();
        account.fault(&meanwhile);
        runner.config().assert_success();
        let prepare = runner.spawn_prepare();
        account.wait_calls("RunTask", 1);
        runner.cleanup().assert_success();
        let output = prepare.wait(PATIENCE).assert_code(2);
        assert!(output.contains("`cleanup` ran"), "{output}");
        nothing_is_left(&runner);
        assert!(one_task_at_most(account).is_some());
    }
}

#[test]
fn cleanup_beside_a_prepare_that_waits() {
    let runner = job();
    let account = runner.account();
    account.fate(&Fate::stuck("PENDING"));
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    account.wait_calls("DescribeTasks", 1);
    runner.cleanup().assert_success();
    prepare.wait(PATIENCE).assert_code(2);
    nothing_is_left(&runner);
}

#[test]
fn what_cannot_be_ended_now_is_kept_for_the_next_cleanup() {
    // A task that is known, and one of which only the request is.
    for action in ["StopTask", "RunTask"] {
        let runner = job();
        let account = runner.account();
        runner.config().assert_success();
        if action == "StopTask" {
            runner.prepare().assert_success();
        } else {
            account.fault(&Fault::slow("RunTask", Duration::from_secs(6)));
            let prepare = runner.spawn_prepare();
            account.wait_calls("RunTask", 1);
            prepare.signal(Signal::KILL);
            prepare.wait(PATIENCE);
        }
        account.fault(&Fault::lost_call(action).forever());
        let before = account.calls(action).len();
        let cleanup = runner.spawn_cleanup();
        account.wait_calls(action, before + 2);
        // The Runner's patience ends.
        cleanup.signal(Signal::TERM);
        cleanup.signal(Signal::TERM);
        // Two signals that come at once may count as one: then the grace is over.
        let output = cleanup.wait(PATIENCE);
        assert_ne!(output.code(), Some(0), "{output}");
        assert!(output.contains("kept"), "{output}");
        assert_eq!(account.alive().len(), 1);
        account.no_faults();
        clean(&runner);
        assert!(one_task_at_most(account).is_some());
    }
}

#[test]
fn a_denied_stop_is_told_and_kept() {
    let runner = job();
    runner.start();
    let account = runner.account();
    account.fault(&Fault::denied("StopTask"));
    let output = runner.cleanup();
    assert_ne!(output.code(), Some(0), "{output}");
    assert!(output.contains("ecs:StopTask"), "{output}");
    assert!(output.contains("may still run"), "{output}");
    clean(&runner);
}

#[test]
fn a_damaged_file_does_not_keep_a_task_alive() {
    for (file, text) in [
        ("record.json", "{"),
        ("intent.json", "{"),
        ("record.json", ""),
        ("intent.json", "{\"version\": 1}"),
        ("record.json", "{\"version\": 99}"),
    ] {
        let runner = job();
        runner.start();
        let job = only_job(&runner);
        std::fs::write(job.join(file), text).unwrap();
        let output = runner.cleanup();
        assert_ne!(output.code(), Some(0), "{output}");
        assert!(output.contains(file), "{output}");
        assert_eq!(runner.account().left(None).len(), 0, "{output}");
        // As the message says.
        std::fs::remove_file(job.join(file)).unwrap();
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
        traces::assert_only_tombstones(runner.state_directory(), 1);
    }
}

/// The directory of the only job that is known.
fn only_job(runner: &Runner) -> std::path::PathBuf {
    let mut jobs = std::fs::read_dir(runner.state_directory().join("jobs")).unwrap();
    let job = jobs.next().unwrap().unwrap().path();
    assert!(jobs.next().is_none());
    job
}

#[test]
fn a_throttled_stop_is_repeated() {
    let runner = job();
    runner.start();
    runner
        .account()
        .fault(&Fault::throttle("StopTask").times(4));
    runner.cleanup().assert_success();
    assert_eq!(runner.account().calls("StopTask").len(), 5);
    nothing_is_left(&runner);
}

#[test]
fn cleanup_does_not_wait_for_the_end() {
    let runner = job();
    runner.start();
    let account = runner.account();
    account.timings(&[("deprovisioning", 20.0)]);
    let output = runner.cleanup().assert_success();
    assert!(output.duration < AT_ONCE, "{output}");
    assert_ne!(account.tasks()[0].status, "STOPPED");
    assert_eq!(account.calls("StopTask").len(), 1);
    account.wait_task("its end", |task| !task.is_alive());
    nothing_is_left(&runner);
}

#[test]
fn a_job_in_a_crowd_ends_only_its_own_task() {
    let account = Arc::new(Account::new());
    let directory = crate::lab::temp_dir();
    let state = directory.path().join("state");
    let shared = || {
        Runner::builder()
            .on_account(&account)
            .state_directory(&state)
            .build()
    };
    let (one, other) = (shared(), shared());
    one.start();
    other.start();
    one.cleanup().assert_success();
    one.assert_nothing_left();
    other
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    other.cleanup().assert_success();
    other.assert_nothing_left();
}
