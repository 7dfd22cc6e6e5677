//! Jobs on EC2 instances leave nothing behind and pay for nothing twice: with answers that are lost or late, deaths at any
//! moment, state directories that are gone.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::kills::Random;
use crate::kills::look_on;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::aws::Instance;
use crate::lab::aws::Meanwhile;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces;
use crate::lab::traces::long;
use crate::lab::traces::until;

fn job() -> Runner {
    Runner::builder().on_ec2().build()
}

/// The one instance that a job may have had at most.
#[track_caller]
fn one_at_most(account: &Account) -> Option<Instance> {
    let mut instances = account.instances();
    assert!(instances.len() <= 1, "{instances:#?}");
    instances.pop()
}

/// Calls `cleanup`, after which there must be nothing, not even for a second one to do.
#[track_caller]
fn clean(runner: &Runner) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    let tombstones = traces::tombstones(runner.state_directory());
    assert!(tombstones <= 1, "{tombstones}");
    let calls = runner.account().calls("*").len();
    runner.cleanup().assert_success();
    assert_eq!(runner.account().calls("*").len(), calls);
}

/// Waits until the first CreateFleet has taken effect or was refused, whenever that is.
fn wait_first_effect(account: &Account) {
    account.wait("the effect of the first call", |_| {
        account.calls("CreateFleet")[0].status.is_some()
    });
}

/// Makes the driver's template, so that the next CreateFleet is the one that launches.
fn with_template(runner: &Runner) {
    runner.start();
    runner.cleanup().assert_success();
    runner.next_attempt();
}

#[test]
fn an_answer_that_is_lost_launches_no_second_instance() {
    let runner = job();
    let account = runner.account();
    account.fault(&Fault::lost_answer("CreateFleet").times(3));
    runner.start();
    runner
        .run("build_script", "echo here")
        .assert_stdout("here\n");
    assert!(one_at_most(account).is_some());
    clean(&runner);
}

#[test]
fn an_effect_that_comes_after_the_next_call_launches_no_second_instance() {
    let runner = job();
    with_template(&runner);
    let account = runner.account();
    account.fault(&Fault::delayed(
        "CreateFleet",
        Duration::from_secs(2),
        Meanwhile::Cut,
    ));
    runner.prepare().assert_success();
    runner
        .run("build_script", "echo here")
        .assert_stdout("here\n");
    account.wait("both effects", |_| {
        let calls = account.calls("CreateFleet");
        calls.iter().all(|call| call.status.is_some())
    });
    assert_eq!(account.instances().len(), 2, "the template's and this one");
    clean(&runner);
}

#[test]
fn instances_that_nobody_asked_for_are_ended_at_once() {
    let runner = job();
    let account = runner.account();
    account.surplus(1);
    runner.start();
    let state = account.wait("one to be ended", |state| {
        state.instances.iter().any(|one| !one.is_alive())
    });
    assert_eq!(state.instances.len(), 2);
    runner
        .run("build_script", "echo here")
        .assert_stdout("here\n");
    clean(&runner);
}

/// Kills `prepare` while its CreateFleet travels, and cleans up; the call takes effect so late.
fn killed_in_flight(effect: Duration, replay: Option<&Fault>) {
    let runner = job();
    let account = runner.account();
    with_template(&runner);
    let before = account.calls("CreateFleet").len();
    account.fault(&Fault::delayed("CreateFleet", effect, Meanwhile::Waits));
    if let Some(fault) = replay {
        account.fault(fault);
    }
    let prepare = runner.spawn_prepare();
    account.wait_calls("CreateFleet", before + 1);
    prepare.signal(Signal::KILL);
    prepare.wait(PATIENCE);
    runner.cleanup().assert_success();
    account.wait("the effect of the call", |_| {
        account.calls("CreateFleet")[before].status.is_some()
    });
    runner.assert_nothing_left();
    assert!(account.instances().len() <= 2, "{:#?}", account.instances());
}

#[test]
fn an_effect_after_our_death_and_the_replay() {
    killed_in_flight(Duration::from_secs(4), None);
}

#[test]
fn an_effect_after_our_death_and_before_the_replay() {
    let replay = Fault::delayed("CreateFleet", Duration::from_secs(3), Meanwhile::Waits);
    killed_in_flight(Duration::from_secs(1), Some(&replay));
}

#[test]
fn an_effect_after_our_death_and_a_replay_whose_answer_is_lost() {
    killed_in_flight(
        Duration::from_secs(2),
        Some(&Fault::lost_answer("CreateFleet").times(2)),
    );
}

#[test]
fn an_instance_that_ec2_does_not_know_yet_is_ended_all_the_same() {
    let runner = job();
    let account = runner.account();
    account.lag(Duration::from_secs(2), Duration::from_secs(2));
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    account.wait("an instance", |state| !state.instances.is_empty());
    prepare.signal(Signal::KILL);
    prepare.wait(PATIENCE);
    clean(&runner);
}

#[test]
fn an_instance_that_ec2_does_not_know_yet_comes_up_all_the_same() {
    let runner = job();
    runner
        .account()
        .lag(Duration::from_secs(3), Duration::from_secs(3));
    runner.start();
    assert!(one_at_most(runner.account()).is_some());
    clean(&runner);
}

/// Where in a job's life the driver is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    PrepareBegins,
    FleetTravels,
    InstanceComesUp,
    SshIsWaitedFor,
    PrepareEnds,
    RunPrints,
    CleanupBegins,
    TerminateTravels,
}

const MOMENTS: [Moment; 8] = [
    Moment::FleetTravels,
    Moment::PrepareEnds,
    Moment::InstanceComesUp,
    Moment::TerminateTravels,
    Moment::RunPrints,
    Moment::CleanupBegins,
    Moment::PrepareBegins,
    Moment::SshIsWaitedFor,
];

#[test]
fn the_driver_killed_at_random_moments() {
    let rounds = if long() { 50 } else { 7 };
    let mut random = Random::from_seed();
    let first = usize::try_from(random.below(8)).unwrap();
    for round in 0..rounds {
        let moment = MOMENTS[(first + round) % MOMENTS.len()];
        let looks = random.below(6_000);
        let swept = round % 3 == 2;
        eprintln!("round {round}: {moment:?}, {looks} looks, swept: {swept}");
        kill_at(moment, looks, random.below(60_000), swept);
    }
}

fn kill_at(moment: Moment, looks: u64, bytes: u64, swept: bool) {
    let account = Arc::new(Account::new());
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let machine = match moment {
        Moment::SshIsWaitedFor => machine.listen_late(Duration::from_secs(600)),
        _ => machine,
    };
    let runner = Runner::builder()
        .machine(machine)
        .on_ec2_of(&account)
        .build();
    runner.config().assert_success();
    if matches!(
        moment,
        Moment::RunPrints | Moment::CleanupBegins | Moment::TerminateTravels
    ) {
        runner.prepare().assert_success();
    }
    let slowly = |action: &str| {
        account.fault(&Fault::slow(action, Duration::from_millis(bytes / 200)));
    };
    let stage = match moment {
        Moment::PrepareBegins => runner.spawn_prepare(),
        Moment::FleetTravels => {
            slowly("CreateFleet");
            let stage = runner.spawn_prepare();
            account.wait_calls("CreateFleet", 1);
            stage
        }
        Moment::InstanceComesUp => {
            let stage = runner.spawn_prepare();
            account.wait("an instance", |state| !state.instances.is_empty());
            stage
        }
        Moment::SshIsWaitedFor | Moment::PrepareEnds => {
            let stage = runner.spawn_prepare();
            stage.wait_output(b"Waiting for SSH", PATIENCE);
            stage
        }
        Moment::RunPrints => {
            let prints = "i=0; while :; do echo \"line $i\"; i=$((i + 1)); done";
            let stage = runner.spawn_run("build_script", prints);
            stage.wait_stdout_len(bytes + 1, PATIENCE);
            stage
        }
        Moment::CleanupBegins => runner.spawn_cleanup(),
        Moment::TerminateTravels => {
            slowly("TerminateInstances");
            let stage = runner.spawn_cleanup();
            account.wait_calls("TerminateInstances", 1);
            stage
        }
    };
    look_on(&stage, looks);
    stage.signal(Signal::KILL);
    stage.wait(PATIENCE);
    if swept {
        sweep(&account, &runner);
    } else {
        clean(&runner);
    }
    one_at_most(&account);
}

/// Ends what a job has left whose state directory is gone, as another bastion of the fleet does after the deadline.
#[track_caller]
fn sweep(account: &Arc<Account>, runner: &Runner) {
    drop(std::fs::remove_dir_all(runner.state_directory()));
    let other = Runner::builder().on_ec2_of(account).build();
    account.wait("calls that travel", |_| {
        let calls = account.calls("CreateFleet");
        calls.iter().all(|call| call.status.is_some())
    });
    account.make_overdue();
    until("all to be swept", PATIENCE, || {
        other.command(&["reap"]);
        account.state().ec2_alive(|_| true).is_empty()
    });
    runner.assert_nothing_left();
}

#[test]
fn what_outlives_its_instance_is_swept_by_its_tags() {
    for kind in ["volume", "spot-request"] {
        let account = Arc::new(Account::new());
        let builder = || Runner::builder().on_ec2_of(&account);
        let runner = builder().build();
        runner.start();
        account.leave_behind(kind);
        runner.cleanup().assert_success();
        let state = account.wait("the end", |state| {
            state.instances.iter().all(|one| !one.is_alive())
        });
        let left = state.ec2_alive(|_| true);
        assert_eq!(left.len(), 1, "{kind}: {left:?}");
        let other = builder().build();
        // Such a thing may belong to a launch on its way while it is young.
        let again = other.command(&["reap"]).assert_success();
        let left = account.state().ec2_alive(|_| true);
        assert!(left.len() <= 1, "{again}");
        account.age(20 * 60);
        account.make_overdue();
        until("the sweep", PATIENCE, || {
            other.command(&["reap"]);
            account.state().ec2_alive(|_| true).is_empty()
        });
    }
}

#[test]
fn three_tries_are_three_tokens_and_three_instances() {
    let runner = job();
    let account = runner.account();
    account.instance_fate(&crate::lab::aws::InstanceFate::dies_booting().times(2));
    for _ in 0..2 {
        runner.config().assert_success();
        runner.prepare().assert_code(2);
        runner.cleanup().assert_success();
        runner.next_attempt();
    }
    runner.start();
    let instances = account.instances();
    let tokens: std::collections::BTreeSet<_> = instances.iter().map(|one| &one.token).collect();
    assert_eq!((instances.len(), tokens.len()), (3, 3), "{instances:#?}");
    assert_eq!(account.instances_alive().len(), 1);
    clean(&runner);
}

#[test]
fn a_token_that_aws_takes_for_another_requests_is_one_clear_failure_and_leaves_nothing() {
    // With nothing behind the token, and with an instance of whose launch no answer came.
    for launched in [false, true] {
        let runner = job();
        with_template(&runner);
        let account = runner.account();
        if launched {
            account.fault(&Fault::lost_answer("CreateFleet"));
        }
        let code = "IdempotentParameterMismatch";
        account.fault(&Fault::error("CreateFleet", 400, code, "Another request.").forever());
        runner.config().assert_success();
        let output = runner.prepare().assert_code(2);
        let told = output.stderr_text();
        let told = told.lines().filter(|line| line.contains(code)).count();
        assert_eq!(told, 1, "{output}");
        assert!(output.contains("Retry the job."), "{output}");
        let count = account.instances_alive().len();
        assert_eq!(count, usize::from(launched), "{output}");
        clean(&runner);
        account.no_faults();
        runner.next_attempt();
        runner.start();
        clean(&runner);
    }
}

#[test]
fn cleanup_beside_a_prepare_that_is_launching() {
    let runner = job();
    let account = runner.account();
    account.fault(&Fault::slow("CreateFleet", Duration::from_secs(6)).skip(1));
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    account.wait_calls("CreateFleet", 2);
    runner.cleanup().assert_success();
    let output = prepare.wait(PATIENCE).assert_code(2);
    assert!(output.contains("`cleanup` ran"), "{output}");
    wait_first_effect(account);
    runner.assert_nothing_left();
    assert!(one_at_most(account).is_some());
}
