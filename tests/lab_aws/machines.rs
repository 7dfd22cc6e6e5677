//! The real machines behind the tasks' addresses.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::json;

use super::Lab;
use super::detail;
use super::with;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::Fate;
use crate::lab::aws::Server;
use crate::lab::aws::Task;
use crate::lab::port;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::ssh::Client;

/// Process 1, as a login sees it.
const ENVIRON: &str = "tr '\\0' '\\n' < /proc/1/environ";

#[test]
fn every_server_is_a_machine_of_its_own() {
    for kind in [Kind::OpenSsh, Kind::Dropbear, Kind::Own] {
        is_a_machine(kind);
    }
}

fn is_a_machine(kind: Kind) {
    let lab = Lab::with(ServerBuilder::new(kind, Login::Bash));
    let task = lab.run_task(&lab.request());
    let running = lab.wait_status(&task, "RUNNING");
    let address = detail(&running, "privateIPv4Address").unwrap();
    // A machine begins to start when its task is said to run.
    let started = |seen: &Task| seen.process.is_some() && seen.machine_alive;
    let known = lab.account.wait_task("a machine", started);
    assert_eq!(known.address.as_deref(), Some(address.as_str()));
    // A process that is no child of the login's would be killed as well, were it this host's.
    let seen = lab.ssh(
        &address,
        "kill -9 1; ls -d /proc/[0-9]* | wc -l; echo alive",
    );
    let text = seen.stdout_text();
    assert!(text.ends_with("\nalive\n"), "{kind:?}: {seen}");
    let count: u32 = text.lines().next().unwrap().parse().unwrap();
    assert!(count < 10, "{kind:?}: {seen}");
    // All in there but process 1 can be killed; this test is not.
    let bystander = lab.ssh(&address, "sleep 3600 > /dev/null 2>&1 & echo $!");
    let bystander = bystander.stdout_text();
    let port = lab.server.as_ref().unwrap().port();
    let killing = lab.client.spawn_at(&address, port, "kill -9 -1");
    // How it ends is the server's affair: whoever asks is spared, but what carries its session may not be. The project's
    // own server is process 1 itself; `kill` succeeds there, or finds nobody but the bystander's remains.
    killing.wait(PATIENCE);
    let gone = format!(
        "until case $(cat /proc/{0}/stat 2> /dev/null) in '' | *') Z '*) ;; *) false ;; esac; do sleep 0.02; done",
        bystander.trim()
    );
    lab.ssh(&address, &gone);

    lab.stop(&task, "");
    let stopped = lab.wait_status(&task, "STOPPED");
    assert_eq!(stopped["stopCode"], "UserInitiated");
    port::wait_listening(port, false, PATIENCE);
    let left = processes::of(lab.directory.path());
    assert!(left.is_empty(), "{kind:?}: {}", left[0]);
}

#[test]
fn process_1_has_the_environment_of_its_container() {
    let lab = Lab::with(ServerBuilder::new(Kind::OpenSsh, Login::Bash).init());
    let account = &lab.account;
    account.register(&json!({
        "family": "job",
        "taskRoleArn": format!("arn:aws:iam::{}:role/job", account.id()),
        "containerDefinitions": [{ "name": "ci-coordinator", "image": "lab", "environment": [
            { "name": "DEFINED", "value": "by the definition" },
            { "name": "BOTH", "value": "by the definition" },
        ] }],
    }));
    let mut request = lab.request();
    let variables = &mut request["overrides"]["containerOverrides"][0]["environment"];
    let both = json!({ "name": "BOTH", "value": "by the request" });
    variables.as_array_mut().unwrap().push(both);
    let task = lab.run_task(&request);
    let running = lab.wait_status(&task, "RUNNING");
    let address = detail(&running, "privateIPv4Address").unwrap();
    let seen = lab.ssh(&address, ENVIRON).stdout_text();
    for line in [
        "IMAGE_SAYS=a = \"b\"",
        "c",
        "DEFINED=by the definition",
        "BOTH=by the request",
        "AWS_EXECUTION_ENV=AWS_ECS_FARGATE",
        &format!("AWS_REGION={}", account.region()),
        &format!("SSH_PUBLIC_KEY={}", lab.client.public_key()),
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} in {seen}");
    }
    for name in [
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/",
        "ECS_CONTAINER_METADATA_URI_V4=http",
    ] {
        assert!(
            seen.lines().any(|line| line.starts_with(name)),
            "{name} in {seen}"
        );
    }
    // Nothing of this host's.
    assert!(!seen.contains("CARGO"), "{seen}");
    // Among what is ignored there is no SIGINT and no SIGQUIT.
    let ignored = lab.ssh(&address, "grep SigIgn /proc/self/status");
    let ignored = ignored.stdout_text();
    let mask = u64::from_str_radix(ignored.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(mask & 0b110, 0, "{ignored}");
    lab.stop(&task, "");
    lab.wait_status(&task, "STOPPED");

    // A server that is process 1 has written over its environment.
    let lab = Lab::ordinary();
    let task = lab.run_task(&lab.request());
    let running = lab.wait_status(&task, "RUNNING");
    let address = detail(&running, "privateIPv4Address").unwrap();
    let seen = lab.ssh(&address, ENVIRON);
    assert!(!seen.contains("SSH_PUBLIC_KEY="), "{seen}");
    lab.stop(&task, "");
}

#[test]
fn the_end_of_process_1_is_the_tasks_end() {
    let lab = Lab::with(ServerBuilder::new(Kind::OpenSsh, Login::Dash).init());
    for (command, code) in [("kill 1", 0), ("pkill -KILL -o sshd; true", 137)] {
        let task = lab.run_task(&lab.request());
        let running = lab.wait_status(&task, "RUNNING");
        let address = detail(&running, "privateIPv4Address").unwrap();
        let port = lab.server.as_ref().unwrap().port();
        port::wait_listening(port, true, PATIENCE);
        lab.client.spawn_at(&address, port, command).wait(PATIENCE);
        let stopped = lab.wait_status(&task, "STOPPED");
        assert_eq!(stopped["stopCode"], "EssentialContainerExited", "{stopped}");
        let exit = &stopped["containers"][0]["exitCode"];
        assert_eq!(*exit, json!(code), "{command}");
        let known = lab.account.tasks().pop().unwrap();
        assert_eq!(known.exit_code, Some(code));
        assert_eq!(known.desired, "STOPPED");
        port::wait_listening(port, false, PATIENCE);
    }
    let task = lab.run_task(&lab.request());
    lab.wait_status(&task, "RUNNING");
    let known = lab
        .account
        .wait_task("a process", |task| task.process.is_some());
    let process = Pid::from_raw(known.process.unwrap()).unwrap();
    rustix::process::kill_process(process, Signal::KILL).unwrap();
    let stopped = lab.wait_status(&task, "STOPPED");
    assert_eq!(stopped["containers"][0]["exitCode"], 137);
}

#[test]
fn a_stop_is_sigterm_first() {
    // Nothing here listens to SIGTERM: only SIGKILL ends it.
    let lab = Lab::ordinary();
    let directory = lab.directory.path();
    let deaf = directory.join("deaf");
    crate::lab::write_program(&deaf, "#!/bin/sh\ntrap '' TERM\nexec sleep 1000\n");
    lab.account.machine_program("job", &deaf);
    let grace = Duration::from_secs(5);
    lab.account.stop_timeout(grace);
    let task = lab.run_task(&lab.request());
    lab.wait_status(&task, "RUNNING");
    let began = std::time::Instant::now();
    lab.account
        .meet(&task, &Fate::spot_interruption(Duration::ZERO));
    lab.account
        .wait_task("the stop", |seen| seen.status == "STOPPING");
    let seen = lab.describe(&task);
    assert_eq!(seen["desiredStatus"], "STOPPED");
    assert_eq!(seen["stopCode"], "SpotInterruption");
    let stopped = lab.wait_status(&task, "STOPPED");
    assert!(began.elapsed() >= grace);
    assert_eq!(stopped["containers"][0]["exitCode"], 137);
}

#[test]
fn addresses_are_public_and_six_where_asked() {
    let lab = Lab::ordinary();
    let account = &lab.account;
    let path = "networkConfiguration/awsvpcConfiguration/assignPublicIp";
    let task = lab.run_task(&with(&lab.request(), path, json!("ENABLED")));
    let running = lab.wait_status(&task, "RUNNING");
    let interface = detail(&running, "networkInterfaceId").unwrap();
    let form = format!(
        "Action=DescribeNetworkInterfaces&Version=2016-11-15&NetworkInterfaceId.1={interface}"
    );
    let answer = account.query("ec2", None, &form).unwrap();
    let public = account.tasks()[0].public_address.clone().unwrap();
    let tag = format!("<publicIp>{public}</publicIp>");
    assert!(answer.text().contains(&tag), "{}", answer.text());
    // A login at the first address proves that all of them are listened at.
    lab.ssh(&detail(&running, "privateIPv4Address").unwrap(), "true");
    lab.ssh(&public, "true");
    lab.stop(&task, "");
    lab.wait_status(&task, "STOPPED");

    account.addresses("ipv6");
    account.machine_at("ACTIVATING");
    account.timings(&[("activating", 30.0)]);
    let task = lab.run_task(&lab.request());
    let coming = lab.wait_status(&task, "ACTIVATING");
    assert_eq!(detail(&coming, "privateIPv4Address"), None);
    let address = detail(&coming, "ipv6Address").unwrap();
    lab.ssh(&address, "true");
    lab.stop(&task, "");
}

#[test]
fn no_two_accounts_share_an_address() {
    let accounts: Vec<_> = (0..20).map(|_| Account::new()).collect();
    let mut all: Vec<_> = accounts
        .iter()
        .flat_map(|account| account.cidrs().to_vec())
        .collect();
    assert!(all.iter().all(|range| range.starts_with("127.")), "{all:?}");
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn nothing_outlives_the_server() {
    // Killed, and told to end.
    for kill in [true, false] {
        let lab = Lab::ordinary();
        let server = Server::start();
        let account = Account::on(&server);
        let machine = lab.server.as_ref().unwrap();
        account.task_definition("job");
        account.machine("job", machine, &BTreeMap::new());
        let mut request = lab.request();
        let network = &mut request["networkConfiguration"]["awsvpcConfiguration"];
        network["subnets"] = json!(account.subnets());
        network["securityGroups"] = json!([account.security_group()]);
        let answer = account.call("ecs", "RunTask", &request).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        account.wait_task("running", |task| task.process.is_some());
        port::wait_listening(machine.port(), true, PATIENCE);
        if kill {
            server.kill();
        } else {
            drop(server);
        }
        port::wait_listening(machine.port(), false, PATIENCE);
        let left = processes::wait_none(lab.directory.path(), PATIENCE);
        assert!(left.is_empty(), "{}", left[0]);
        account.forgive_leftovers();
    }
}

#[test]
fn a_job_can_be_played_on_a_task_behind_a_proxy() {
    let account = Arc::new(Account::new());
    let runners: Vec<_> = [Kind::Dropbear, Kind::Own]
        .map(|kind| {
            Runner::builder()
                .on_account(&account)
                .machine(ServerBuilder::new(kind, Login::Bash))
                .through_proxy()
                .capacity(&["fargate-spot", "fargate"])
                .image_variable("LANG", "C")
                .build()
        })
        .into();
    let alone = Runner::builder().on_fargate().build();
    assert_ne!(alone.account().id(), account.id());
    assert_ne!(runners[0].family(), runners[1].family());
    for runner in &runners {
        let config = runner.default_config();
        let expected = format!(
            "capacity = [\"fargate-spot\", \"fargate\"]\n\
             port = {}\n\
             task_definition = \"{}\"\n\
             cluster = \"ci\"\n",
            runner.proxy().port(),
            runner.family()
        );
        for line in expected.lines() {
            assert!(
                config.lines().any(|seen| seen == line),
                "{line} in {config}"
            );
        }
        let environment = runner.stage_environment();
        assert!(environment.contains_key(OsStr::new("AWS_ENDPOINT_URL")));

        // What the driver will do, by hand.
        let client = Client::new(runner.root());
        let key = json!({ "name": "SSH_PUBLIC_KEY", "value": client.public_key() });
        let request = json!({
            "cluster": CLUSTER,
            "taskDefinition": runner.family(),
            "launchType": "FARGATE",
            "networkConfiguration": { "awsvpcConfiguration": { "subnets": account.subnets() } },
            "overrides": { "containerOverrides": [{ "name": CONTAINER, "environment": [key] }] },
        });
        let answer = account.call("ecs", "RunTask", &request).unwrap().json();
        let task = answer["tasks"][0]["taskArn"].as_str().unwrap().to_owned();
        let family = runner.family();
        let known = account.wait_task("running", |task| {
            task.family == family && task.status == "RUNNING" && task.process.is_some()
        });
        port::wait_listening(runner.server().port(), true, PATIENCE);
        let address = known.address.unwrap();
        let seen = client.spawn_at(&address, runner.proxy().port(), "echo here");
        seen.wait(PATIENCE)
            .assert_success()
            .assert_contains("here\n");
        assert_eq!(runner.proxy().counts().connections, 1);
        // What lies on its disk, and who lives there, is found from here.
        let pid_file = format!("lab-{}", runner.job());
        let script = format!("echo $$ > /var/tmp/{pid_file}; echo there; exec sleep 4711");
        let sleeper = client.spawn_at(&address, runner.proxy().port(), &script);
        sleeper.wait_output(b"there\n", PATIENCE);
        let pid_file = runner.server().var_tmp().unwrap().join(pid_file);
        let inner = std::fs::read_to_string(pid_file).unwrap();
        let inner = Pid::from_raw(inner.trim().parse().unwrap()).unwrap();
        let process_1 = Pid::from_raw(known.process.unwrap()).unwrap();
        let outer = processes::of_namespace(process_1, inner).unwrap();
        assert_ne!(outer, inner);
        rustix::process::kill_process(outer, Signal::KILL).unwrap();
        assert_ne!(sleeper.wait(PATIENCE).code(), Some(0));
        assert!(!runner.processes().is_empty());
        let stop = json!({ "cluster": CLUSTER, "task": task });
        account.call("ecs", "StopTask", &stop).unwrap();
        runner.assert_nothing_left();
    }
    assert!(account.alive().is_empty());
}
