//! What the driver says where its role lacks a permission.

use std::sync::Arc;

use serde_json::json;

use super::fails;
use super::fails_again_at_once;
use super::job;
use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::assert_once;
use crate::lab;
use crate::lab::aws::Account;
use crate::lab::aws::CONTAINER;
use crate::lab::runner::Runner;

const EVERYTHING: [&str; 4] = [
    "ecs:RunTask",
    "ecs:DescribeTasks",
    "ecs:StopTask",
    "ecs:TagResource",
];

fn without(denied: &str) -> Vec<&'static str> {
    EVERYTHING
        .into_iter()
        .filter(|action| *action != denied)
        .collect()
}

#[test]
fn a_role_that_may_not_run_tasks_is_told_what_it_lacks() {
    let runner = job().build();
    runner.account().allow(&without("ecs:RunTask"));
    let output = fails(
        &runner,
        "is not authorized to perform: ecs:RunTask",
        "Allow the driver's role ecs:RunTask",
    );
    fails_again_at_once(&runner, &output);
    assert_eq!(runner.account().calls("*").len(), 1);
}

#[test]
fn a_role_that_may_not_pass_the_tasks_roles_is_told_what_it_lacks() {
    let runner = job().build();
    let account = runner.account();
    let role = format!("arn:aws:iam::{}:role/task", account.id());
    account.register(&json!({
        "family": runner.family(),
        "taskRoleArn": role,
        "containerDefinitions": [{ "name": CONTAINER, "image": "lab", "essential": true }],
    }));
    account.allow(&EVERYTHING);
    let output = fails(
        &runner,
        "is not authorized to perform: iam:PassRole",
        "Allow the driver's role iam:PassRole on the task definition's task role and execution role",
    );
    assert!(output.contains(&role), "{output}");
    fails_again_at_once(&runner, &output);
}

#[test]
fn a_role_that_may_not_describe_tasks_is_told_what_it_lacks() {
    let runner = job().build();
    runner.account().allow(&without("ecs:DescribeTasks"));
    let output = fails(
        &runner,
        "is not authorized to perform: ecs:DescribeTasks",
        "Allow the driver's role ecs:DescribeTasks",
    );
    fails_again_at_once(&runner, &output);
    assert_eq!(runner.account().tasks().len(), 1);
}

#[test]
fn a_role_that_may_not_stop_tasks_fails_the_cleanup_and_the_next_one_ends_the_task() {
    let runner = job().build();
    let account = runner.account();
    runner.start();
    account.allow(&without("ecs:StopTask"));
    for _ in 0..2 {
        let output = assert_failure(
            runner.cleanup(),
            "is not authorized to perform: ecs:StopTask",
            "Allow the driver's role ecs:StopTask",
        );
        let task = &account.tasks()[0].arn;
        assert!(
            output.contains(&format!(
                "the task {task} could not be stopped and may still run"
            )),
            "{output}"
        );
        assert_eq!(account.alive().len(), 1);
    }
    account.allow(&EVERYTHING);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    assert_eq!(account.calls("StopTask").len(), 3);
}

#[test]
fn a_role_that_may_not_tag_launches_without_tags_and_the_next_job_knows() {
    let account = Arc::new(Account::new());
    account.allow(&without("ecs:TagResource"));
    let state = lab::temp_dir();
    let job = || {
        Runner::builder()
            .on_account(&account)
            .config_tables("[tags]\nteam = \"ci\"\n")
            .state_directory(state.path())
            .build()
    };
    let first = job();
    first.config().assert_success();
    let output = first.prepare().assert_success();
    let warning = assert_once(&output, "WARNING: tasks are started");
    assert!(
        warning.contains("is not authorized to perform: ecs:TagResource"),
        "{warning}"
    );
    assert!(warning.contains("without tags"), "{warning}");
    let runs = account.calls("RunTask");
    assert_eq!(runs.len(), 2);
    assert_ne!(
        runs[0].parameters["clientToken"],
        runs[1].parameters["clientToken"]
    );
    assert!(
        runs[1].parameters["tags"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    let second = job();
    second.config().assert_success();
    let output = second.prepare().assert_success();
    assert!(!output.contains("without tags"), "{output}");
    assert_eq!(account.calls("RunTask").len(), 3);
    for runner in [first, second] {
        runner.assert_runs_and_ends();
    }
}

#[test]
fn a_role_that_may_not_be_assumed_is_told_what_it_lacks() {
    let account = Arc::new(Account::new());
    let role = account.role("ci", None);
    account.allow(&EVERYTHING);
    let runner = Runner::builder()
        .on_account(&account)
        .config_tables(&format!("role_arn = \"{role}\"\n"))
        .build();
    let output = fails(
        &runner,
        "is not authorized to perform: sts:AssumeRole",
        "Allow the driver's role sts:AssumeRole on that role",
    );
    assert!(output.contains(&role), "{output}");
    fails_again_at_once(&runner, &output);
    assert_eq!(account.calls("*").len(), 1);
}

#[test]
fn a_role_that_may_not_look_up_public_addresses_is_told_what_it_lacks() {
    let runner = job().config_tables("enable_public_ip = true\n").build();
    runner.account().allow(&EVERYTHING);
    fails(
        &runner,
        "ec2:DescribeNetworkInterfaces",
        "Allow the driver's role ec2:DescribeNetworkInterfaces",
    );
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
