//! Cancels of `prepare`, before, while and after there is a machine.

use std::time::Duration;

use super::super::PLACE;
use super::Held;
use super::behind_proxy;
use super::cancel;
use super::end;
use super::heeds_term;
use super::machine;
use super::wait_heeds_term;
use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Door;

#[test]
fn prepare_before_the_machine() {
    let runner = PLACE.job().build();
    let held = Held::of(&runner);
    let stage = runner.spawn_prepare();
    // From here on it can only wait: it cannot even write down what it is about to start.
    wait_heeds_term(&stage);
    cancel(stage).assert_code(2).assert_contains("cancelled");
    drop(held);
    end(&runner);
}

#[test]
fn prepare_at_any_moment() {
    for polls in PLACE.some(0..12, 4) {
        let runner = PLACE.job().build();
        runner.config().assert_success();
        let stage = runner.spawn_prepare();
        wait_heeds_term(&stage);
        for _ in 0..polls * 20 {
            heeds_term(&stage);
        }
        let output = cancel(stage);
        if output.code() == Some(0) {
            runner.run("build_script", "echo up").assert_stdout("up\n");
        } else {
            // What it says depends on who of the group, it or the machine's first process, dies first.
            output.assert_code(2);
        }
        end(&runner);
    }
}

#[test]
fn prepare_while_it_waits_for_ssh() {
    let late = machine().listen_late(Duration::from_secs(600));
    let runner = PLACE.job().machine(late).connect_timeout("10m").build();
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    stage.wait_output(b"Waiting for SSH", PATIENCE);
    let output = cancel(stage);
    assert!(output.contains("cancelled"), "{output}");
    output.assert_code(2);
    end(&runner);
}

#[test]
fn prepare_while_a_server_accepts_and_says_nothing() {
    // Nobody knows the agent's socket before it is there.
    if PLACE.has_the_agent() {
        return;
    }
    let runner = PLACE
        .job()
        .machine(machine())
        .through_proxy()
        .connect_timeout("10m")
        .build();
    runner.proxy().door(Door::Silent);
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    runner.proxy().wait_connections(1, PATIENCE);
    cancel(stage).assert_code(2).assert_contains("cancelled");
    end(&runner);
}

#[test]
fn prepare_while_it_writes_the_record() {
    // Nobody knows the agent's socket before it is there.
    if PLACE.has_the_agent() {
        return;
    }
    let runner = behind_proxy();
    runner.proxy().door(Door::Silent);
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    runner.proxy().wait_connections(1, PATIENCE);
    let held = Held::of(&runner);
    runner.proxy().door(Door::Open);
    // The connection that nobody answered is given up only after a while.
    runner.proxy().cut(Cut::Reset);
    runner.server().wait_log("Accepted publickey", 1, PATIENCE);
    cancel(stage).assert_code(2).assert_contains("cancelled");
    drop(held);
    end(&runner);
}

#[test]
fn prepare_when_it_is_as_good_as_over() {
    let runner = PLACE.job().build();
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    stage.wait_output(b"Machine ready", PATIENCE);
    let output = cancel(stage);
    assert!(matches!(output.code(), Some(0 | 2)), "{output}");
    runner.run("build_script", "echo up").assert_stdout("up\n");
    end(&runner);
}
