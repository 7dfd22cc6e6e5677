//! What goes wrong with a task or with AWS for good: the right exit code, the cause in AWS's words, what to do about it, and
//! nothing left behind.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::assert_once;
use crate::fargate_capacity::lines;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::port::Port;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;

const EVERYTHING: [&str; 4] = [
    "ecs:RunTask",
    "ecs:DescribeTasks",
    "ecs:StopTask",
    "ecs:TagResource",
];

/// Within which a job is told of its machine's end, from when AWS knows.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

fn job() -> RunnerBuilder {
    Runner::builder().on_fargate()
}

fn without(denied: &str) -> Vec<&'static str> {
    EVERYTHING
        .into_iter()
        .filter(|action| *action != denied)
        .collect()
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

// What the role may not do.

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

// AWS out of reach.

#[test]
fn an_endpoint_that_does_not_answer_fails_within_a_minute() {
    let closed = Port::reserve();
    let endpoint = format!("http://127.0.0.1:{}", closed.number());
    let runner = job()
        .environment("AWS_ENDPOINT_URL", Some(&endpoint))
        .build();
    let output = fails(
        &runner,
        "the job's task was not started: tcp connect error: Connection refused",
        "This host does not reach AWS for ecs:RunTask",
    );
    assert!(output.duration < Duration::from_secs(58), "{output}");
    assert_once(&output, "Waiting for AWS to take ecs:RunTask: ");
    // What was never sent needs no end.
    let output = runner.cleanup().assert_success();
    assert!(output.duration < Duration::from_secs(15), "{output}");
}

#[test]
fn a_region_that_is_none_fails_within_a_minute() {
    let runner = job()
        .environment("AWS_ENDPOINT_URL", Some("http://ecs.eu-nowhere-1.invalid"))
        .build();
    let output = fails(&runner, "dns error", "that `region` under [fargate] exists");
    assert!(output.duration < Duration::from_secs(58), "{output}");
    let output = runner.cleanup().assert_success();
    assert!(output.duration < Duration::from_secs(15), "{output}");
}

#[test]
fn a_host_without_credentials_is_told_at_once() {
    let runner = job()
        .environment("AWS_ACCESS_KEY_ID", None)
        .environment("AWS_SECRET_ACCESS_KEY", None)
        .build();
    let output = fails(
        &runner,
        "credential",
        "Give the driver credentials: an instance profile",
    );
    assert!(output.duration < Duration::from_secs(10), "{output}");
    runner.cleanup().assert_success();
    assert!(runner.account().calls("*").is_empty());
}

#[test]
fn credentials_that_are_wrong_are_told_at_once() {
    let runner = job()
        .environment("AWS_ACCESS_KEY_ID", Some("AKIAWRONG"))
        .build();
    let output = fails(
        &runner,
        "The security token included in the request is invalid",
        "valid credentials",
    );
    assert!(output.duration < Duration::from_secs(15), "{output}");
    runner.cleanup().assert_success();
}

#[test]
fn a_host_without_a_region_is_told_at_once() {
    let runner = job().environment("AWS_REGION", None).build();
    let config = runner.default_config();
    let region = format!("region = \"{}\"\n", runner.account().region());
    runner.write_config(&config.replace(&region, ""));
    runner.config().assert_success();
    let output = runner.prepare();
    assert!(output.duration < Duration::from_secs(15), "{output}");
    assert_failure(output, "egion", "Set `region` under [fargate]");
    runner.cleanup().assert_success();
    assert!(runner.account().calls("*").is_empty());
}

#[test]
fn a_service_that_breaks_down_for_a_moment_costs_no_job() {
    let runner = job().build();
    let account = runner.account();
    account.fault(
        &Fault::error(
            "RunTask",
            500,
            "ServerException",
            "Service Unavailable. Please try again later.",
        )
        .times(2),
    );
    account.fault(&Fault::error("DescribeTasks", 500, "InternalFailure", "").times(2));
    account.fault(&Fault::error("StopTask", 503, "ServiceUnavailable", "").times(2));
    runner.start();
    runner
        .run("build_script", "echo on\n")
        .assert_stdout("on\n");
    runner.cleanup().assert_success();
    assert_eq!(account.tasks().len(), 1);
    assert_eq!(account.calls("RunTask").len(), 3);
    assert_eq!(account.calls("StopTask").len(), 3);
    runner.assert_nothing_left();
}

/// Stands before AWS and answers so many calls by itself, with a page.
fn pages(behind: SocketAddr, count: usize, status: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicUsize::new(count));
    let counted = Arc::clone(&left);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let took =
                counted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            std::thread::spawn(move || match took {
                Ok(_) => drop(answer_page(client, status)),
                Err(_) => splice(client, TcpStream::connect(behind).unwrap()),
            });
        }
    });
    (address, left)
}

fn answer_page(mut client: TcpStream, status: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    std::io::Read::read_exact(&mut reader, &mut vec![0; length])?;
    let page = "<html><head><title>Squid: access control</title></head>\n<body>no</body></html>";
    let length = page.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}

fn splice(client: TcpStream, server: TcpStream) {
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(std::net::Shutdown::Write));
    });
    let (mut from_server, mut to_client) = (server, client);
    drop(std::io::copy(&mut from_server, &mut to_client));
    drop(to_client.shutdown(std::net::Shutdown::Both));
}

pub(crate) fn behind_pages(count: usize, status: &'static str) -> Runner {
    let account = Arc::new(Account::new());
    let [(_, endpoint), ..] = account.environment();
    let behind = endpoint.trim_start_matches("http://").parse().unwrap();
    let (front, _) = pages(behind, count, status);
    Runner::builder()
        .on_account(&account)
        .environment("AWS_ENDPOINT_URL", Some(&format!("http://{front}")))
        .build()
}

#[test]
fn a_proxys_page_in_place_of_an_answer_is_waited_out() {
    for status in ["502 Bad Gateway", "200 OK", "429 Too Many Requests"] {
        let runner = behind_pages(5, status);
        runner.config().assert_success();
        let output = runner.prepare().assert_success();
        let told = assert_once(&output, "Waiting for AWS to take ecs:RunTask: ");
        assert!(
            told.contains(&status[..3]) && told.contains("Squid: access control"),
            "{told}"
        );
        assert_eq!(runner.account().tasks().len(), 1);
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
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
