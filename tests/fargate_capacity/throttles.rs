//! AWS that throttles: each call is waited out.

use std::time::Duration;

use super::LONG;
use super::assert_once;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;

/// Checks that a stage lives through ten throttles of an action, told in one line at most, and returns its output.
#[track_caller]
fn bears(runner: &Runner, stage: &str, action: &str) -> Output {
    let account = runner.account();
    let before = account.calls(action).len();
    account.fault(&Fault::throttle(action).times(10));
    let started = match stage {
        "prepare" => runner.spawn_prepare(),
        _ => runner.spawn_cleanup(),
    };
    let output = started.wait(LONG).assert_success();
    assert!(account.calls(action).len() > before + 10);
    let calls = account.calls(action).split_off(before);
    assert!(
        calls[..10].iter().all(|call| call.fault.is_some()),
        "{calls:#?}"
    );
    output
}

#[track_caller]
fn runs_and_ends(runner: &Runner) {
    assert_eq!(runner.account().tasks().len(), 1);
    runner.assert_runs_and_ends();
}

#[test]
fn ten_throttles_of_run_task_are_waited_out() {
    let runner = Runner::builder().on_fargate().build();
    let output = bears(&runner, "prepare", "RunTask");
    let told = assert_once(&output, "Waiting for AWS to take ecs:RunTask: ");
    assert!(told.contains("Rate exceeded"), "{told}");
    assert_eq!(runner.account().calls("RunTask").len(), 11);
    runs_and_ends(&runner);
}

#[test]
fn ten_throttles_of_describe_tasks_are_waited_out() {
    let runner = Runner::builder().on_fargate().build();
    let output = bears(&runner, "prepare", "DescribeTasks");
    assert_once(&output, "Waiting for AWS to take ecs:DescribeTasks: ");
    assert_eq!(runner.account().calls("RunTask").len(), 1);
    runs_and_ends(&runner);
}

#[test]
fn ten_throttles_of_stop_task_are_waited_out() {
    let runner = Runner::builder().on_fargate().build();
    runner.start();
    let output = bears(&runner, "cleanup", "StopTask");
    let told = assert_once(&output, "Waiting for AWS to take ecs:StopTask: ");
    assert!(told.contains("Rate exceeded"), "{told}");
    assert_eq!(runner.account().calls("StopTask").len(), 11);
    runner.assert_nothing_left();
}

#[test]
fn ten_throttles_of_an_assumed_role_are_waited_out() {
    let account = std::sync::Arc::new(Account::new());
    let role = account.role("ci", None);
    let runner = Runner::builder()
        .on_account(&account)
        .config_tables(&format!("role_arn = \"{role}\"\n"))
        .build();
    let output = bears(&runner, "prepare", "AssumeRole");
    assert_once(&output, "Waiting for AWS to take sts:AssumeRole: ");
    assert!(!output.contains(" WARN "), "{output}");
    assert_eq!(account.calls("AssumeRole").len(), 11);
    assert_eq!(account.calls("RunTask").len(), 1);
    runs_and_ends(&runner);
}

#[test]
fn ten_throttles_of_a_public_address_are_waited_out() {
    let runner = Runner::builder()
        .on_fargate()
        .config_tables("enable_public_ip = true\n")
        .build();
    let output = bears(&runner, "prepare", "DescribeNetworkInterfaces");
    assert_once(
        &output,
        "Waiting for AWS to take ec2:DescribeNetworkInterfaces: ",
    );
    runs_and_ends(&runner);
}

#[test]
fn a_task_that_ecs_does_not_know_yet_is_waited_for() {
    let runner = Runner::builder().on_fargate().build();
    runner
        .account()
        .lag(Duration::from_secs(5), Duration::from_secs(5));
    runner.start();
    runs_and_ends(&runner);
    assert_eq!(runner.account().calls("RunTask").len(), 1);
}
