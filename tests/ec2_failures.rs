//! Jobs on EC2 whose instance or role is not as it should be: one clear outcome each, and nothing left running.

use std::time::Duration;

use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::assert_once;
use crate::lab::PATIENCE;
use crate::lab::aws::InstanceFate;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;

/// All that a job on EC2 needs.
const EVERYTHING: [&str; 7] = [
    "ec2:CreateFleet",
    "ec2:CreateLaunchTemplate",
    "ec2:CreateTags",
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:RunInstances",
    "ec2:TerminateInstances",
];

fn job() -> RunnerBuilder {
    Runner::builder().on_ec2()
}

/// Returns all that a job needs, but for one action.
fn without(denied: &str) -> Vec<&'static str> {
    let all = EVERYTHING.into_iter();
    all.filter(|action| *action != denied).collect()
}

/// Checks that `prepare` fails so, and that `cleanup` leaves nothing.
#[track_caller]
fn fails(runner: &Runner, cause: &str, remedy: &str) -> Output {
    runner.config().assert_success();
    let output = assert_failure(runner.prepare(), cause, remedy);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    output
}

// On the way up.

#[test]
fn an_instance_that_fails_to_come_up_is_told_with_aws_words_and_asked_for_again() {
    let runner = job().build();
    let account = runner.account();
    account.instance_fate(&InstanceFate::fails(
        "Server.InternalError",
        "Internal error on launch",
    ));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    assert_once(
        &output,
        "No room on ec2-spot: Server.InternalError: Internal error on launch",
    );
    assert_eq!(account.instances().len(), 2);
    assert_eq!(account.instances_alive().len(), 1);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn an_instance_that_never_comes_up_is_ended_when_the_job_is_cancelled() {
    let runner = job().build();
    let account = runner.account();
    account.instance_fate(&InstanceFate::never_comes_up());
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    account.wait_calls("DescribeInstances", 1);
    prepare.signal(rustix::process::Signal::TERM);
    prepare.wait(PATIENCE).assert_code(2);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    assert_eq!(account.instances().len(), 1);
}

#[test]
fn a_machine_that_never_listens_is_given_its_time_from_when_it_runs() {
    let runner = job().connect_timeout("5s").build();
    let account = runner.account();
    account.timings(&[("launching", 3.0)]);
    account.instance_fate(&InstanceFate::never_listens());
    let output = fails(&runner, "connection refused", "");
    // From when it runs, not from when it was asked for.
    assert!(output.duration > Duration::from_secs(7), "{output}");
    assert!(output.duration < Duration::from_secs(25), "{output}");
    assert_eq!(account.instances().len(), 1);
}

#[test]
fn another_host_key_than_the_one_sent_is_refused_at_once() {
    let runner = job().build();
    let account = runner.account();
    account.instance_fate(&InstanceFate::other_host_key());
    let output = fails(&runner, "it shows the host key", "");
    assert!(output.duration < Duration::from_secs(20), "{output}");
    // The job's key was shown to nobody who is not the job's machine.
    assert_eq!(runner.server().logins(), 0);
}

#[test]
fn an_instance_that_dies_while_it_boots_is_told() {
    let runner = job().build();
    runner
        .account()
        .instance_fate(&InstanceFate::dies_booting());
    fails(
        &runner,
        "Client.InstanceInitiatedShutdown",
        "shut itself down",
    );
}

#[test]
fn an_instance_that_somebody_ends_under_a_script_is_told_with_why() {
    for (fate, cause) in [
        (
            InstanceFate::terminated_by_someone(Duration::ZERO),
            "Client.UserInitiatedShutdown",
        ),
        (
            InstanceFate::spot_interruption(Duration::ZERO, Duration::ZERO),
            "Spot capacity was taken back",
        ),
        (
            InstanceFate::power_off(),
            "Client.InstanceInitiatedShutdown",
        ),
    ] {
        let runner = job().reconnect_timeout("20s").build();
        runner.start();
        let account = runner.account();
        let stage = runner.spawn_run("build_script", "echo begun; sleep 6011; echo never");
        stage.wait_output(b"begun\n", PATIENCE);
        account.instance_meets(&account.instances()[0].id, &fate);
        let output = stage.wait(PATIENCE).assert_code(2);
        assert!(output.contains(cause), "{cause}: {output}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn a_power_off_from_inside_ends_the_instance_and_all_that_is_its() {
    let runner = job().build();
    runner.start();
    let account = runner.account();
    let instance = account.instances_alive().remove(0);
    assert_eq!(instance.shutdown_behavior, "terminate");
    account.instance_meets(&instance.id, &InstanceFate::power_off());
    let state = account.wait("the end", |state| state.ec2_alive(|_| true).is_empty());
    assert!(state.volumes.is_empty());
    runner.cleanup().assert_success();
}

// What the role may not do.

#[test]
fn a_role_without_one_action_is_told_which() {
    for action in [
        "ec2:CreateFleet",
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:CreateLaunchTemplate",
    ] {
        let runner = job().build();
        runner.account().allow(&without(action));
        let said = format!("is not authorized to perform: {action}");
        let output = fails(&runner, &said, &format!("Allow the driver's role {action}"));
        assert!(output.duration < Duration::from_secs(20), "{output}");
        assert!(runner.account().instances().is_empty());
    }
}

#[test]
fn a_role_that_may_not_pass_the_profiles_role_is_told_so() {
    let runner = job().ec2_line("instance_profile = \"ci\"").build();
    let account = runner.account();
    account.instance_profile("ci");
    account.allow(&EVERYTHING);
    fails(
        &runner,
        "is not authorized to perform: iam:PassRole",
        "Allow the driver's role iam:PassRole on the role of `instance_profile`",
    );
}

#[test]
fn a_role_that_may_not_describe_instances_is_told_so_and_leaves_none() {
    let runner = job().build();
    runner.account().allow(&without("ec2:DescribeInstances"));
    runner.config().assert_success();
    assert_failure(
        runner.prepare(),
        "is not authorized to perform: ec2:DescribeInstances",
        "Allow the driver's role ec2:DescribeInstances",
    );
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    assert_eq!(runner.account().instances().len(), 1);
}

#[test]
fn a_role_that_may_not_terminate_fails_the_cleanup_and_the_next_one_ends_the_instance() {
    let runner = job().build();
    let account = runner.account();
    runner.start();
    account.allow(&without("ec2:TerminateInstances"));
    let output = assert_failure(
        runner.cleanup(),
        "is not authorized to perform: ec2:TerminateInstances",
        "Allow the driver's role ec2:TerminateInstances",
    );
    let instance = &account.instances()[0].id;
    assert!(
        output.contains(instance) && output.contains("may still run"),
        "{output}"
    );
    assert_eq!(account.instances_alive().len(), 1);
    account.allow(&EVERYTHING);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_role_that_may_not_look_at_subnets_works_all_the_same() {
    let runner = job().build();
    let account = runner.account();
    account.allow(&EVERYTHING);
    runner.start();
    assert_eq!(account.instances_alive().len(), 1);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

// What the machine is like.

#[test]
fn every_server_lets_the_job_in_by_its_user_data_alone() {
    for kind in [Kind::Dropbear, Kind::Own] {
        let machine = ServerBuilder::new(kind, Login::Bash);
        let runner = Runner::builder().machine(machine).on_ec2().build();
        runner.start();
        runner
            .run("build_script", "echo on\n")
            .assert_stdout("on\n");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}
