//! Rungs without room, rungs that cannot be used, and AWS asking for patience: what a job makes of them.

use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use crate::lab::aws::Account;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::Called;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::stage::Output;

mod throttles;

/// Ten throttles in a row take a minute or so.
const LONG: Duration = Duration::from_secs(180);
const NO_CAPACITY: &str = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
const NOT_ASSOCIATED: &str =
    "cannot contain a capacity provider that is not associated with the cluster";

/// Returns the lines of a stage, without colours.
pub(crate) fn lines(output: &Output) -> Vec<String> {
    let text = output.stdout_text() + &output.stderr_text();
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\x1b') {
        plain += &rest[..at];
        let end = rest[at..].find('m').map_or(rest.len(), |m| at + m + 1);
        rest = &rest[end..];
    }
    plain += rest;
    plain.lines().map(str::to_owned).collect()
}

/// Checks that a stage failed for the machinery's sake, with its cause in one line and the remedy in the next.
#[track_caller]
pub(crate) fn assert_failure(output: Output, cause: &str, remedy: &str) -> Output {
    let output = output.assert_code(2);
    let lines = lines(&output);
    let errors: Vec<_> = (0..lines.len())
        .filter(|at| lines[*at].starts_with("ERROR: "))
        .collect();
    assert_eq!(errors.len(), 1, "{output}");
    let at = errors[0];
    assert!(
        lines[at].contains(cause),
        "{cause:?} should be named:\n{output}"
    );
    let next = lines.get(at + 1).cloned().unwrap_or_default();
    assert!(
        next.contains(remedy),
        "{remedy:?} should be told:\n{output}"
    );
    output
}

/// Checks that exactly one line of a stage's output begins so; returns it.
#[track_caller]
pub(crate) fn assert_once(output: &Output, begins: &str) -> String {
    let lines = lines(output);
    let mut found = lines.iter().filter(|line| line.starts_with(begins));
    let line = found
        .next()
        .unwrap_or_else(|| panic!("no line {begins:?}:\n{output}"));
    assert!(
        found.next().is_none(),
        "more than one line {begins:?}:\n{output}"
    );
    line.clone()
}

/// Returns what each RunTask asked for: a capacity provider or a launch type.
fn asked(account: &Account) -> Vec<String> {
    let asked = |call: &Called| {
        let provider = &call.parameters["capacityProviderStrategy"][0]["capacityProvider"];
        let either = [provider, &call.parameters["launchType"]];
        let named = either.into_iter().find_map(Value::as_str);
        named.unwrap_or("default").to_owned()
    };
    account.calls("RunTask").iter().map(asked).collect()
}

/// Has a day have passed since something was noted.
fn forget_note(runner: &Runner, begins: &str) {
    let notes = std::fs::read_dir(runner.state_directory().join("notes")).unwrap();
    let name = |note: &std::fs::DirEntry| note.file_name().into_string().unwrap();
    let ours: Vec<_> = notes
        .flatten()
        .filter(|n| name(n).starts_with(begins))
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    let file = std::fs::File::options().write(true).open(ours[0].path());
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600 + 1);
    file.unwrap().set_modified(yesterday).unwrap();
}

fn spot_first() -> RunnerBuilder {
    Runner::builder()
        .on_fargate()
        .capacity(&["fargate-spot", "fargate"])
}

/// Checks that a job whose first rung is full runs on the second, within one `prepare`, and is told once why.
#[track_caller]
fn hands_over(runner: &Runner, cause: &str) -> Output {
    let account = runner.account();
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let told = assert_once(&output, "No room on ");
    assert!(told.starts_with("No room on fargate-spot: "), "{told}");
    assert!(
        told.contains(cause) && told.ends_with(". Trying fargate..."),
        "{told}"
    );
    assert_eq!(asked(account), ["FARGATE_SPOT", "FARGATE"]);
    let tokens: Vec<_> = account
        .calls("RunTask")
        .iter()
        .map(|c| c.parameters["clientToken"].clone())
        .collect();
    assert_ne!(tokens[0], tokens[1]);
    assert_once(&output, "Asking for a task on ");
    assert_eq!(account.alive().len(), 1, "{:#?}", account.tasks());
    runner
        .run("build_script", "echo on\n")
        .assert_success()
        .assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    output
}

#[test]
fn no_room_said_at_once_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    runner.account().fault(&Fault::capacity());
    hands_over(&runner, NO_CAPACITY);
    assert_eq!(runner.account().tasks().len(), 1);
    assert_eq!(runner.account().calls("StopTask").len(), 1);
}

#[test]
fn no_room_among_the_failures_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    runner.account().fault(&Fault::failure("RESOURCE:ENI"));
    hands_over(&runner, "RESOURCE:ENI");
}

#[test]
fn no_room_said_by_a_task_that_stopped_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    let fate = Fate::stopped("PROVISIONING", "TaskFailedToStart", NO_CAPACITY);
    runner.account().fate(&fate);
    hands_over(&runner, &format!("TaskFailedToStart: {NO_CAPACITY}"));
    assert_eq!(runner.account().tasks().len(), 2);
    // The one that stopped by itself needs none.
    assert_eq!(runner.account().calls("StopTask").len(), 1);
}

#[test]
fn a_network_interface_that_does_not_come_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    let reason = "Timeout waiting for network interface provisioning to complete.";
    runner
        .account()
        .fate(&Fate::stopped("PROVISIONING", "TaskFailedToStart", reason));
    hands_over(
        &runner,
        "Timeout waiting for network interface provisioning to complete",
    );
}

#[test]
fn a_subnet_without_addresses_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    let reason = "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment \
                  disabled in subnet 'subnet-1': InsufficientFreeAddressesInSubnet";
    runner.account().fate(&Fate::failed_to_start(reason));
    hands_over(&runner, "InsufficientFreeAddressesInSubnet");
}

#[test]
fn a_task_that_spot_takes_on_its_way_up_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    let reason = "Your Spot Task was interrupted.";
    runner
        .account()
        .fate(&Fate::stopped("PENDING", "SpotInterruption", reason));
    hands_over(&runner, "Your Spot Task was interrupted");
}

#[test]
fn a_task_that_waits_for_room_for_too_long_is_ended_and_the_next_rung_tried() {
    let runner = spot_first().config_line("rung_wait = \"6s\"").build();
    let account = runner.account();
    account.fate(&Fate::stuck("PROVISIONING"));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    assert_once(
        &output,
        "No room on fargate-spot: the task still waited for room (PROVISIONING) after 6s. Trying fargate...",
    );
    assert_eq!(asked(account), ["FARGATE_SPOT", "FARGATE"]);
    let stops = account.calls("StopTask");
    assert_eq!(stops.len(), 1);
    assert_eq!(stops[0].parameters["task"], account.tasks()[0].arn.as_str());
    let reason = stops[0].parameters["reason"].as_str().unwrap();
    assert!(reason.contains("no room on fargate-spot"), "{reason}");
    runner.cleanup().assert_success();
    assert_eq!(account.calls("StopTask").len(), 2);
    runner.assert_nothing_left();
}

#[test]
fn a_waiting_task_that_cannot_be_stopped_is_ended_by_the_cleanup() {
    let runner = spot_first().config_line("rung_wait = \"6s\"").build();
    let account = runner.account();
    account.fate(&Fate::stuck("PROVISIONING"));
    account.fault(&Fault::denied("StopTask"));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let warning = assert_once(&output, "WARNING: the task ");
    assert!(
        warning.contains("may still run") && warning.contains("ecs:StopTask"),
        "{warning}"
    );
    assert_eq!(account.alive().len(), 2);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn an_answer_that_names_neither_a_task_nor_a_failure_is_ended_and_the_next_rung_tried() {
    let runner = spot_first().build();
    let account = runner.account();
    account.fault(&Fault::neither("RunTask"));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let told = assert_once(&output, "No room on fargate-spot: ");
    assert!(
        told.contains("neither a task nor a failure was named"),
        "{told}"
    );
    // It had started one all the same, which the same request has found.
    assert_eq!(asked(account), ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]);
    let state = account.wait("one task to be left", |state| {
        let tasks = state.tasks.iter();
        tasks.filter(|task| task.desired == "RUNNING").count() == 1
    });
    assert_eq!(state.tasks.len(), 2);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_task_without_the_address_that_is_dialled_is_ended_and_the_next_rung_tried() {
    let runner = spot_first()
        .config_tables("enable_public_ip = true\nuse_public_ip = true\n")
        .build();
    let account = runner.account();
    let code = "InvalidNetworkInterfaceID.NotFound";
    let unknown = Fault::error("DescribeNetworkInterfaces", 400, code, "It does not exist.");
    account.fault(&unknown.forever());
    runner.config().assert_success();
    let output = runner.prepare();
    let told = assert_once(&output, "fargate-spot cannot be used: the task ");
    assert!(
        told.contains("runs but has no public address (Its subnet has to be")
            && told.ends_with("Trying fargate..."),
        "{told}"
    );
    // Where no rung is left its own words are the failure.
    assert_failure(output, "runs but has no public address", "enable_public_ip");
    assert_eq!(asked(account), ["FARGATE_SPOT", "FARGATE"]);
    assert_eq!(account.calls("StopTask").len(), 1);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_provider_of_the_clusters_own_gets_nothing_that_only_fargate_takes() {
    let runner = Runner::builder()
        .on_fargate()
        .capacity(&["ecs:batch", "fargate"])
        .config_tables(
            "platform_version = \"1.4.0\"\nenable_public_ip = true\nuse_public_ip = false\n",
        )
        .build();
    let account = runner.account();
    account.provider("batch");
    account.cluster(CLUSTER, &["batch", "FARGATE"], &[]);
    account.register(&json!({
        "family": runner.family(),
        "requiresCompatibilities": ["FARGATE", "MANAGED_INSTANCES"],
        "containerDefinitions": [{ "name": CONTAINER, "image": "lab", "essential": true, "memory": 64 }],
    }));
    account.fate(&Fate::ordinary());
    account.fate(&Fate::stopped(
        "PROVISIONING",
        "TaskFailedToStart",
        "RESOURCE:MEMORY",
    ));
    runner.start();
    runner.cleanup().assert_success();
    runner.next_attempt();
    let output = runner.prepare().assert_success();
    assert_once(
        &output,
        "No room on ecs:batch: TaskFailedToStart: RESOURCE:MEMORY. Trying fargate...",
    );
    assert_eq!(asked(account), ["batch", "batch", "FARGATE"]);
    let network = "/networkConfiguration/awsvpcConfiguration/assignPublicIp";
    for (call, (version, public)) in account.calls("RunTask").iter().zip([
        (Value::Null, None),
        (Value::Null, None),
        (json!("1.4.0"), Some(&json!("ENABLED"))),
    ]) {
        let parameters = &call.parameters;
        assert_eq!(parameters["platformVersion"], version, "{parameters:#}");
        assert_eq!(parameters.pointer(network), public, "{parameters:#}");
        assert_eq!(call.status, Some(200), "{call:#?}");
    }
}

#[test]
fn where_all_rungs_stay_empty_the_job_fails_after_its_wait_and_further_tries_at_once() {
    let runner = spot_first().config_line("capacity_wait = \"5s\"").build();
    let account = runner.account();
    account.fault(
        &Fault::capacity()
            .matching("launchType", "FARGATE")
            .forever(),
    );
    account.fault(&Fault::failure("RESOURCE:ENI").forever());
    runner.config().assert_success();
    let output = runner.prepare();
    // The wait is counted in whole seconds since the job was first seen.
    assert!(output.duration >= Duration::from_secs(4), "{output}");
    assert_once(&output, "No room on any rung; trying again in ");
    let first = assert_failure(
        output,
        &format!(
            "on any rung within 5s: fargate-spot: RESOURCE:ENI; fargate: ClientException: {NO_CAPACITY}"
        ),
        "capacity_wait",
    );
    assert_eq!(asked(account), ["FARGATE_SPOT", "FARGATE"].repeat(2));
    let told = lines(&first).split_off(lines(&first).len() - 2);
    for _ in 2..=3 {
        runner.cleanup().assert_success();
        runner.next_attempt();
        let output = runner.prepare().assert_code(2);
        assert_eq!(lines(&output), told);
    }
    runner.cleanup().assert_success();
    // Nothing was started: nothing is asked or stopped.
    assert_eq!(account.calls("*").len(), 4);
}

#[test]
fn room_that_comes_while_the_job_waits_is_taken() {
    let runner = spot_first().build();
    let account = runner.account();
    account.fault(&Fault::capacity().times(2));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    assert_once(&output, "No room on any rung; trying again in 5 s");
    assert_eq!(asked(account), ["FARGATE_SPOT", "FARGATE", "FARGATE_SPOT"]);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_provider_that_the_cluster_does_not_have_is_passed_over() {
    let runner = spot_first().build();
    let account = runner.account();
    account.cluster(CLUSTER, &["FARGATE"], &[]);
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let told = assert_once(&output, "fargate-spot cannot be used: ");
    assert!(
        told.contains(NOT_ASSOCIATED) && told.ends_with("Trying fargate..."),
        "{told}"
    );
    assert_eq!(asked(account), ["FARGATE_SPOT", "FARGATE"]);
}

#[test]
fn a_provider_that_the_cluster_does_not_have_fails_at_once_where_it_is_the_only_rung() {
    for (rung, cause) in [
        ("fargate-spot", NOT_ASSOCIATED),
        ("ecs:missing", "'missing' was not found"),
    ] {
        let runner = Runner::builder().on_fargate().capacity(&[rung]).build();
        let account = runner.account();
        account.cluster(CLUSTER, &["FARGATE"], &[]);
        runner.config().assert_success();
        let output = assert_failure(
            runner.prepare(),
            cause,
            "aws ecs put-cluster-capacity-providers",
        );
        assert_eq!(
            lines(&output)
                .iter()
                .filter(|line| line.contains(cause))
                .count(),
            1,
            "{output}"
        );
        runner.cleanup().assert_success();
        runner.next_attempt();
        assert_failure(
            runner.prepare(),
            cause,
            "aws ecs put-cluster-capacity-providers",
        );
        assert_eq!(account.calls("*").len(), 1);
    }
}

#[test]
fn without_a_default_strategy_a_go_driver_file_means_fargate() {
    let runner = Runner::builder().on_fargate().build();
    let account = runner.account();
    runner.write_config(&runner.go_driver_file());
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let no_limits = "there is no [limits]";
    assert!(output.contains(no_limits), "{output}");
    let told = assert_once(&output, "the cluster's default cannot be used: ");
    assert!(told.contains("No Container Instances were found"), "{told}");
    assert!(told.ends_with("Trying fargate..."), "{told}");
    assert_eq!(asked(account), ["default", "FARGATE"]);
    runner
        .run("build_script", "echo on\n")
        .assert_stdout("on\n");
    runner.cleanup().assert_success();

    // The next job need not ask again, nor tell again what is wrong with the file.
    runner.next_attempt();
    let output = runner.prepare().assert_success();
    assert!(!output.contains("cannot be used"), "{output}");
    assert!(!output.contains(no_limits), "{output}");
    assert_once(&output, "Asking for a task on fargate...");
    runner.cleanup().assert_success();
    assert_eq!(asked(account), ["default", "FARGATE", "FARGATE"]);

    // Where there is one it decides alone; that there is one now is found out the day after.
    account.cluster(CLUSTER, &["FARGATE", "FARGATE_SPOT"], &["FARGATE_SPOT"]);
    forget_note(&runner, "no-default-strategy-");
    forget_note(&runner, "warned-");
    runner.next_attempt();
    let output = runner.prepare().assert_success();
    assert!(output.contains(no_limits), "{output}");
    assert_eq!(asked(account)[3..], ["default"]);
    let task = account.alive().remove(0);
    assert_eq!(task.provider.as_deref(), Some("FARGATE_SPOT"));
}
