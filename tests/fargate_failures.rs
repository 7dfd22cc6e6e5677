//! What goes wrong with a task or with AWS for good: the right exit code, the cause in AWS's words, what to do about it, and
//! nothing left behind.

use std::time::Duration;
use std::time::Instant;

use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::assert_once;
use crate::fargate_capacity::lines;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::Fate;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;

pub(crate) mod out_of_reach;
mod permissions;

/// Within which a job is told of its machine's end, from when AWS knows.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

fn job() -> RunnerBuilder {
    Runner::builder().on_fargate()
}

/// Checks that `prepare` fails so.
#[track_caller]
fn fails(runner: &Runner, cause: &str, remedy: &str) -> Output {
    runner.config().assert_success();
    assert_failure(runner.prepare(), cause, remedy)
}

/// Checks that the next try of `prepare` fails at once with the same words, without any call.
#[track_caller]
fn fails_again_at_once(runner: &Runner, first: &Output) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    let calls = runner.account().calls("*").len();
    runner.next_attempt();
    let again = runner.prepare().assert_code(2);
    let told = lines(first);
    assert_eq!(lines(&again), told[told.len() - 2..]);
    runner.cleanup().assert_success();
    assert_eq!(runner.account().calls("*").len(), calls);
}

// On the way up.

#[test]
fn an_image_that_cannot_be_pulled_is_told_with_what_to_do_about_it() {
    for (reason, remedy, is_final) in [
        (
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref \
             registry.example/ci:latest: registry.example/ci:latest: not found",
            "Push the image, or correct `image` of the container ci-coordinator",
            true,
        ),
        (
            "CannotPullContainerError: pull access denied for registry.example/ci, repository does not exist or may \
             require 'docker login': denied: requested access to the resource is denied",
            "execution role",
            true,
        ),
        (
            "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
             registry.example/ci:latest: failed to do request: Head \"https://registry.example\": dial tcp \
             10.0.0.1:443: i/o timeout",
            "NAT gateway",
            false,
        ),
        (
            "CannotPullContainerError: httpReadSeeker: failed open: unexpected status code: 429 Too Many Requests - \
             toomanyrequests: You have reached your pull rate limit",
            "pull-through cache",
            false,
        ),
        (
            "CannotPullContainerError: ref pull has been retried 1 time(s): failed to extract layer: no space left on device",
            "ephemeralStorage",
            true,
        ),
        (
            "CannotPullContainerError: image Manifest does not contain descriptor matching platform 'linux/amd64'",
            "runtimePlatform",
            true,
        ),
        (
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: \
             unable to retrieve secrets from ssm: AccessDeniedException: not authorized",
            "*execution* role",
            true,
        ),
    ] {
        let runner = job().build();
        runner.account().fate(&Fate::failed_to_start(reason));
        let output = fails(&runner, reason, remedy);
        let error = assert_once(&output, "ERROR: ");
        assert_eq!(error.matches(reason).count(), 1, "said twice: {output}");
        assert_eq!(runner.account().calls("RunTask").len(), 1);
        if is_final {
            fails_again_at_once(&runner, &output);
        } else {
            runner.cleanup().assert_success();
            runner.next_attempt();
            runner.prepare().assert_success();
            runner.cleanup().assert_success();
        }
        runner.assert_nothing_left();
    }
}

#[test]
fn a_container_that_exits_at_once_is_told_with_its_code() {
    for (code, remedy, is_final) in [
        (1, "exec sshd -D", false),
        (127, "127 that it is not there", true),
        (137, "137 is SIGKILL", false),
    ] {
        let runner = job().build();
        runner.account().fate(&Fate::exits_at_once(code));
        let cause = format!(
            "Essential container in task exited; container ci-coordinator exited with {code}"
        );
        let output = fails(&runner, &cause, remedy);
        if is_final {
            fails_again_at_once(&runner, &output);
        }
        runner.cleanup().assert_success();
        assert_eq!(runner.account().tasks().len(), 1);
        runner.assert_nothing_left();
    }
}

/// Returns a job whose machine runs but never listens.
fn deaf(job: RunnerBuilder) -> Runner {
    let runner = job.build();
    let program = runner.root().join("deaf");
    lab::write_program(
        &program,
        "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 600 &\nwait\n",
    );
    runner.account().machine_program(&runner.family(), &program);
    runner
}

#[test]
fn a_task_that_dies_before_the_first_login_is_told_with_why() {
    for (fate, cause, remedy) in [
        (
            Fate::out_of_memory(Duration::ZERO),
            "OutOfMemoryError: Container killed due to memory usage",
            "more `memory`",
        ),
        (
            Fate::stopped_by_someone(Duration::ZERO, "Spring cleaning"),
            "Spring cleaning",
            "CloudTrail",
        ),
    ] {
        let runner = deaf(job());
        let account = runner.account();
        runner.config().assert_success();
        let prepare = runner.spawn_prepare();
        prepare.wait_output(b"Task running", PATIENCE);
        account.meet(&account.alive()[0].arn, &fate);
        let output = assert_failure(prepare.wait(PATIENCE), cause, remedy);
        assert!(!output.contains("no SSH session"), "{output}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn a_server_that_never_listens_is_given_its_time_from_when_the_task_runs() {
    let runner = deaf(job().connect_timeout("3s"));
    runner.account().timings(&[("activating", 5.0)]);
    let output = fails(
        &runner,
        "no SSH session with root@",
        "Does the image start an SSH server on port",
    );
    assert!(output.contains("connection refused"), "{output}");
    assert!(output.duration > Duration::from_secs(8), "{output}");
    assert!(output.duration < Duration::from_secs(30), "{output}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    assert_eq!(runner.account().calls("RunTask").len(), 1);
}

// While a script runs.

/// Starts a script that runs for ever; returns it and its task.
fn endless(runner: &Runner) -> (Stage, String) {
    runner.start();
    let stage = runner.spawn_run("build_script", "echo on\nsleep 600\n");
    stage.wait_output(b"on\n", PATIENCE);
    (stage, runner.account().alive().remove(0).arn)
}

#[test]
fn the_end_of_a_machine_under_a_script_is_told_with_why() {
    for (fate, cause, remedy) in [
        (
            Fate::spot_interruption(Duration::ZERO),
            "SpotInterruption: Your Spot Task was interrupted.",
            "put `fargate` before `fargate-spot`",
        ),
        (
            Fate::out_of_memory(Duration::ZERO),
            "EssentialContainerExited: Essential container in task exited; container ci-coordinator exited with 137: OutOfMemoryError: Container killed due to memory usage",
            "more `memory`",
        ),
        (
            Fate::exits_at_once(1),
            "EssentialContainerExited: Essential container in task exited; container ci-coordinator exited with 1",
            "logs of ci-coordinator",
        ),
        (
            Fate::stopped_by_someone(Duration::ZERO, "Spring cleaning by Alice"),
            "UserInitiated: Spring cleaning by Alice",
            "CloudTrail",
        ),
    ] {
        let runner = job().build();
        let (stage, task) = endless(&runner);
        runner.account().meet(&task, &fate);
        let known = Instant::now();
        let output = stage.wait(PATIENCE);
        let took = known.elapsed();
        assert!(took < TOLD_WITHIN, "{took:?}\n{output}");
        let output = assert_failure(output, &format!("the machine is gone: {cause}"), remedy)
            .assert_contains("on\n");
        assert_eq!(lines(&output).len(), 3, "{output}");
        assert_eq!(runner.exit_file(), None, "{output}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn a_machine_that_outlives_its_notice_is_told_of_all_the_same() {
    // Process 1 does not heed SIGTERM: the connection stands while ECS says that the task ends.
    let runner = job().build();
    let program = runner.root().join("stubborn");
    let server = runner.server().command().join(" ");
    let text = format!("#!/bin/sh\ntrap '' TERM\n{server} \"$@\" &\nwhile :; do wait; done\n");
    lab::write_program(&program, &text);
    runner.account().machine_program(&runner.family(), &program);
    let (stage, task) = endless(&runner);
    let account = runner.account();
    account.stop_timeout(Duration::from_secs(20));
    account.meet(&task, &Fate::spot_interruption(Duration::ZERO));
    let known = Instant::now();
    let output = stage.wait(PATIENCE);
    let took = known.elapsed();
    assert!(
        account.alive()[0].machine_alive,
        "the lab's machine heeds SIGTERM"
    );
    assert!(took < TOLD_WITHIN, "{took:?}\n{output}");
    assert_failure(
        output,
        "the machine is gone: SpotInterruption",
        "put `fargate` before",
    );
    runner.cleanup().assert_success();
    account.wait_task("its end", |task| !task.is_alive());
}

#[test]
fn a_script_that_ends_before_its_machine_has_passed() {
    let runner = job().build();
    runner.start();
    let account = runner.account();
    runner
        .run("build_script", "echo on\n")
        .assert_success()
        .assert_stdout("on\n");
    assert_eq!(runner.exit_file(), None);
    let spot = Fate::spot_interruption(Duration::ZERO);
    account.meet(&account.alive()[0].arn, &spot);
    account.wait_task("STOPPED", |task| task.status == "STOPPED");
    // The next sub-stage finds out.
    let output = runner.run("after_script", "echo never\n");
    assert!(
        output.duration < TOLD_WITHIN + Duration::from_secs(1),
        "{output}"
    );
    assert_failure(
        output,
        "the machine is gone: SpotInterruption",
        "put `fargate` before",
    );
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
