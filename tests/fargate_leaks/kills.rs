//! The driver killed, or told to stop, at any moment.

use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use super::SOON;
use super::clean;
use super::job;
use super::nothing_is_left;
use super::one_task_at_most;
use super::wait_first_effect;
use crate::kills::Random;
use crate::kills::look_on;
use crate::lab::PATIENCE;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::aws::Meanwhile;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces::long;

/// Where in a job's life the driver is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    PrepareBegins,
    RunTaskTravels,
    TaskComesUp,
    SshIsWaitedFor,
    PrepareEnds,
    RunBegins,
    RunPrints,
    CleanupBegins,
    StopTaskTravels,
}

const MOMENTS: [Moment; 9] = [
    Moment::RunTaskTravels,
    Moment::PrepareEnds,
    Moment::TaskComesUp,
    Moment::StopTaskTravels,
    Moment::RunPrints,
    Moment::CleanupBegins,
    Moment::PrepareBegins,
    Moment::SshIsWaitedFor,
    Moment::RunBegins,
];

#[test]
fn the_driver_killed_at_random_moments() {
    let rounds = if long() { 50 } else { 7 };
    let mut random = Random::from_seed();
    // Which moments come up in a short form is left to chance as well.
    let first = usize::try_from(random.below(9)).unwrap();
    for round in 0..rounds {
        let moment = MOMENTS[(first + round) % MOMENTS.len()];
        let looks = random.below(6_000);
        eprintln!("round {round}: {moment:?}, {looks} looks");
        kill_at(moment, looks, random.below(60_000));
    }
}

fn kill_at(moment: Moment, looks: u64, bytes: u64) {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let machine = match moment {
        Moment::SshIsWaitedFor => machine.listen_late(Duration::from_secs(600)),
        _ => machine,
    };
    let runner = Runner::builder().machine(machine).on_fargate().build();
    let account = runner.account();
    runner.config().assert_success();
    if matches!(
        moment,
        Moment::RunBegins | Moment::RunPrints | Moment::CleanupBegins | Moment::StopTaskTravels
    ) {
        runner.prepare().assert_success();
    }
    let prints = "i=0; while :; do echo \"line $i\"; i=$((i + 1)); done";
    let stage = match moment {
        Moment::PrepareBegins => runner.spawn_prepare(),
        Moment::RunTaskTravels => {
            account.fault(&Fault::slow("RunTask", Duration::from_millis(bytes / 200)));
            let stage = runner.spawn_prepare();
            account.wait_calls("RunTask", 1);
            stage
        }
        Moment::TaskComesUp => {
            let stage = runner.spawn_prepare();
            account.wait("a task", |state| !state.tasks.is_empty());
            stage
        }
        Moment::SshIsWaitedFor | Moment::PrepareEnds => {
            let stage = runner.spawn_prepare();
            stage.wait_output(b"Waiting for SSH", PATIENCE);
            stage
        }
        Moment::RunBegins => runner.spawn_run("build_script", prints),
        Moment::RunPrints => {
            let stage = runner.spawn_run("build_script", prints);
            stage.wait_stdout_len(bytes + 1, PATIENCE);
            stage
        }
        Moment::CleanupBegins => runner.spawn_cleanup(),
        Moment::StopTaskTravels => {
            account.fault(&Fault::slow("StopTask", Duration::from_millis(bytes / 200)));
            let stage = runner.spawn_cleanup();
            account.wait_calls("StopTask", 1);
            stage
        }
    };
    look_on(&stage, looks);
    stage.signal(Signal::KILL);
    stage.wait(PATIENCE);
    clean(&runner);
    one_task_at_most(account);
}

/// Sends SIGTERM to a `prepare` that has come so far; then the Runner calls `cleanup`.
fn terminated(runner: &Runner, come: impl FnOnce(&crate::lab::stage::Stage)) {
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    come(&prepare);
    prepare.signal(Signal::TERM);
    let asked = Instant::now();
    let output = prepare.wait(PATIENCE).assert_code(2);
    assert!(asked.elapsed() < SOON, "{output}");
    assert!(output.contains("cancelled"), "{output}");
    runner.cleanup().assert_success();
    wait_first_effect(runner.account());
    nothing_is_left(runner);
    assert!(one_task_at_most(runner.account()).is_some());
}

#[test]
fn prepare_told_to_stop_while_run_task_travels() {
    let runner = job();
    let account = runner.account();
    account.fault(&Fault::delayed(
        "RunTask",
        Duration::from_secs(6),
        Meanwhile::Waits,
    ));
    terminated(&runner, |_| drop(account.wait_calls("RunTask", 1)));
}

#[test]
fn prepare_told_to_stop_while_the_task_comes_up() {
    for at in ["PROVISIONING", "PENDING"] {
        let runner = job();
        let account = runner.account();
        account.fate(&Fate::stuck(at));
        terminated(&runner, |_| drop(account.wait_calls("DescribeTasks", 1)));
    }
}

#[test]
fn prepare_told_to_stop_while_ssh_is_waited_for() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let machine = machine.listen_late(Duration::from_secs(600));
    let runner = Runner::builder().machine(machine).on_fargate().build();
    terminated(&runner, |prepare| {
        prepare.wait_output(b"Waiting for SSH", PATIENCE);
    });
}
