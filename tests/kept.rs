//! Machines of this host whose keeper or server is killed under a script: it is told at once.

use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;

use crate::connecting::assert_ends_at_once;
use crate::connecting::assert_system_failure;
use crate::connecting::spawn_endless;
use crate::lab;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::scripts;

fn keeper(runner: &Runner) -> Pid {
    let record = scripts::record(runner);
    let place = &record["machine"]["place"]["local"]["keeper"];
    let number = place["pid"].as_i64().or(place.as_i64()).unwrap();
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

/// Returns the direct children of a process.
fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero();
    let path = format!("/proc/{parent}/task/{parent}/children");
    std::fs::read_to_string(path)
        .unwrap()
        .split_whitespace()
        .map(|number| Pid::from_raw(number.parse().unwrap()).unwrap())
        .collect()
}

fn kill(process: Pid) {
    rustix::process::kill_process(process, Signal::KILL).unwrap();
}

fn builders() -> [lab::runner::RunnerBuilder; 4] {
    let machine = |kind, login| Runner::builder().machine(ServerBuilder::new(kind, login));
    [
        Runner::builder(),
        machine(Kind::OpenSsh, Login::Bash),
        machine(Kind::Dropbear, Login::Dash),
        machine(Kind::Own, Login::Busybox),
    ]
}

#[test]
fn a_machine_whose_keeper_is_gone_is_told() {
    for builder in builders() {
        let runner = builder.build();
        runner.start();
        let run = spawn_endless(&runner);
        let since = Instant::now();
        kill(keeper(&runner));
        let output = assert_ends_at_once(run, since);
        assert_system_failure(&runner, output, "the machine is gone");
        // What comes after it fails for the same reason, and at once.
        let since = Instant::now();
        let after = runner.spawn_run("after_script", "echo never");
        let output = assert_ends_at_once(after, since);
        assert_system_failure(&runner, output, "the machine is gone");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn a_machine_whose_server_is_gone_is_told() {
    for builder in builders() {
        let runner = builder.build();
        runner.start();
        let run = spawn_endless(&runner);
        let servers = children(keeper(&runner));
        let since = Instant::now();
        for server in servers {
            kill(server);
        }
        let output = assert_ends_at_once(run, since);
        assert_system_failure(&runner, output, "the machine is gone");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}
