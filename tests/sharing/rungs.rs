//! What one job finds out of a rung is all jobs': the breaker, the crowd at an empty rung, the climb after a loss.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;

use super::files;
use super::job;
use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::assert_once;
use crate::fargate_capacity::lines;
use crate::lab;
use crate::lab::aws::Account;
use crate::lab::aws::Called;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;

const SKIPPED: &str = "fargate-spot is skipped until ";
/// The task definition of all jobs: there may be room for one and none for another.
const DEFINITION: &str = "ci-shared";
const LIMITS: &str =
    "[limits]\ntask_definitions = [\"ci-shared\"]\nmax_cpu = \"16\"\nmax_memory = \"32GiB\"\n";

struct Bastion {
    account: Arc<Account>,
    directory: tempfile::TempDir,
}

impl Bastion {
    fn new() -> Self {
        let account = Account::new();
        account.task_definition(DEFINITION);
        Self {
            account: Arc::new(account),
            directory: lab::temp_dir(),
        }
    }

    fn state(&self) -> std::path::PathBuf {
        self.directory.path().join("state")
    }

    fn job(&self, rungs: &[&str]) -> RunnerBuilder {
        job(&self.account, &self.state())
            .capacity(rungs)
            .config_tables(LIMITS)
            .variable("FARGATE_TASK_DEFINITION", DEFINITION)
    }

    /// Returns how often Fargate Spot was asked for.
    fn spot_asked(&self) -> usize {
        let calls = self.account.calls("RunTask").into_iter();
        calls.filter(is_spot).count()
    }

    fn no_room_on_spot(&self) {
        let fault = Fault::capacity().matching("capacityProviderStrategy", "FARGATE_SPOT");
        self.account.fault(&fault.forever());
    }

    /// Lets the second pass for which a failure answers for all who ask meanwhile.
    fn let_a_second_pass(&self) {
        for path in files(&self.state().join("shared/rungs")) {
            let mut known = read(&path);
            for failure in known["failures"].as_array_mut().unwrap() {
                *failure = (failure.as_f64().unwrap() - 1.5).into();
            }
            std::fs::write(path, known.to_string()).unwrap();
        }
    }

    /// Lets the time of all open breakers pass.
    fn let_time_pass(&self) {
        for path in files(&self.state().join("shared/rungs")) {
            let mut known = read(&path);
            if !known["open_until"].is_null() {
                known["open_until"] = 1.0.into();
                std::fs::write(path, known.to_string()).unwrap();
            }
        }
    }
}

fn is_spot(call: &Called) -> bool {
    call.parameters["capacityProviderStrategy"][0]["capacityProvider"] == "FARGATE_SPOT"
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const BOTH: [&str; 2] = ["fargate-spot", "fargate"];

/// Prepares a job and cleans up; returns what `prepare` said.
fn play(job: RunnerBuilder) -> Output {
    let runner = job.build();
    let output = runner.prepare().assert_success();
    runner.cleanup().assert_success();
    output
}

#[test]
fn a_rung_without_room_is_skipped_for_a_while_and_tried_again_by_one_job() {
    let bastion = Bastion::new();
    bastion.no_room_on_spot();
    let play = || play(bastion.job(&BOTH));
    for asked in 1..=2 {
        assert_once(&play(), "No room on fargate-spot: ");
        assert_eq!(bastion.spot_asked(), asked);
        bastion.let_a_second_pass();
    }
    let line = assert_once(&play(), SKIPPED);
    assert!(
        line.contains(" UTC, since it had no room lately: "),
        "{line}"
    );
    assert!(line.contains("Capacity is unavailable"), "{line}");
    assert_eq!(bastion.spot_asked(), 2);
    // Half an hour later there is still none: one failure is enough now.
    bastion.let_time_pass();
    assert_once(&play(), "No room on fargate-spot: ");
    bastion.let_a_second_pass();
    assert_once(&play(), SKIPPED);
    assert_eq!(bastion.spot_asked(), 3);
    // And then there is.
    bastion.account.no_faults();
    bastion.let_time_pass();
    for asked in 4..=5 {
        let output = play();
        assert!(!output.contains(SKIPPED), "{output}");
        assert_eq!(bastion.spot_asked(), asked);
    }
}

#[test]
fn want_of_room_for_large_jobs_closes_no_rung_for_small_ones() {
    let bastion = Bastion::new();
    let fault = Fault::capacity().matching("capacityProviderStrategy", "FARGATE_SPOT");
    let fault = fault.matching("overrides.cpu", "16384");
    bastion.account.fault(&fault.forever());
    let large = || {
        let job = bastion.job(&BOTH).variable("AWS_DRIVER_CPU", "16");
        play(job.variable("AWS_DRIVER_MEMORY", "32GiB"))
    };
    for asked in 1..=2 {
        assert_once(&large(), "No room on fargate-spot: ");
        assert_eq!(bastion.spot_asked(), asked);
        bastion.let_a_second_pass();
    }
    assert_once(&large(), SKIPPED);
    assert_eq!(bastion.spot_asked(), 2);
    let small = play(bastion.job(&BOTH));
    assert!(!small.contains(SKIPPED), "{small}");
    assert!(!small.contains("No room"), "{small}");
    assert_eq!(bastion.spot_asked(), 3);
}

#[test]
fn where_all_rungs_are_skipped_they_are_tried_all_the_same() {
    let bastion = Bastion::new();
    bastion.account.fault(&Fault::capacity().forever());
    for _ in 0..2 {
        let runner = bastion
            .job(&["fargate-spot"])
            .config_line("capacity_wait = \"1s\"")
            .build();
        assert_failure(runner.prepare(), "Capacity is unavailable", "capacity_wait");
        runner.cleanup().assert_success();
        bastion.let_a_second_pass();
    }
    bastion.account.no_faults();
    let before = bastion.spot_asked();
    let runner = bastion.job(&["fargate-spot"]).build();
    let output = runner.prepare().assert_success();
    assert_once(&output, SKIPPED);
    // Else the line after it would contradict it.
    let told = lines(&output);
    let at = |begins: &str| told.iter().position(|line| line.starts_with(begins));
    let all = at("All rungs are skipped, so all are tried all the same.");
    assert!(
        at(SKIPPED) < all && all < at("Asking for a task on fargate-spot"),
        "{output}"
    );
    assert_eq!(bastion.spot_asked(), before + 1);
    runner.cleanup().assert_success();
}

#[test]
fn ten_jobs_that_meet_an_empty_rung_at_once_ask_few_times() {
    let bastion = Bastion::new();
    bastion.no_room_on_spot();
    let runners: Vec<_> = (0..10).map(|_| bastion.job(&BOTH).build()).collect();
    let stages: Vec<_> = runners.iter().map(Runner::spawn_prepare).collect();
    for (runner, stage) in runners.iter().zip(stages) {
        stage.wait(lab::PATIENCE).assert_success();
        runner.cleanup().assert_success();
    }
    let calls = bastion.account.calls("RunTask").len();
    let spot = bastion.spot_asked();
    eprintln!("ten jobs asked for Spot {spot} times, {calls} calls of RunTask in all");
    assert!((1..=3).contains(&spot), "{spot}");
    assert_eq!(calls, spot + 10);
}

#[test]
fn a_job_lost_to_spot_starts_one_rung_higher() {
    let bastion = Bastion::new();
    let runner = bastion.job(&BOTH).build();
    runner.start();
    let stage = runner.spawn_run("build_script", "echo on\nsleep 600\n");
    stage.wait_output(b"on\n", lab::PATIENCE);
    let task = bastion.account.alive().remove(0).arn;
    let fate = Fate::spot_interruption(Duration::ZERO);
    bastion.account.meet(&task, &fate);
    assert_failure(stage.wait(lab::PATIENCE), "SpotInterruption", "fargate");
    runner.cleanup().assert_success();
    assert_eq!(bastion.spot_asked(), 1);

    // GitLab retries it: another job of the same name in the same pipeline.
    let retry = bastion.job(&BOTH).build();
    let output = retry.prepare().assert_success();
    let line = assert_once(
        &output,
        "Starting on fargate, since this job was lost on fargate-spot",
    );
    assert!(line.contains("Your Spot Task was interrupted"), "{line}");
    retry.cleanup().assert_success();
    assert_eq!(bastion.spot_asked(), 1);

    // A day later it is forgotten.
    for path in files(&bastion.state().join("shared/climbs")) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
        file.set_modified(yesterday).unwrap();
    }
    let later = bastion.job(&BOTH).build();
    later.prepare().assert_success();
    later.cleanup().assert_success();
    assert_eq!(bastion.spot_asked(), 2);
}

#[test]
fn a_task_that_spot_takes_before_the_first_login_is_the_next_rungs_turn() {
    let bastion = Bastion::new();
    let machine = ServerBuilder::new(Kind::Own, Login::Dash).listen_late(Duration::from_secs(12));
    let runner = bastion.job(&BOTH).machine(machine).build();
    let stage = runner.spawn_prepare();
    stage.wait_output(b"Task running on FARGATE_SPOT", lab::PATIENCE);
    let task = bastion.account.alive().remove(0).arn;
    let fate = Fate::spot_interruption(Duration::ZERO);
    bastion.account.meet(&task, &fate);
    let output = stage.wait(lab::PATIENCE).assert_success();
    assert_once(&output, "Task running on FARGATE_SPOT");
    let line = assert_once(&output, "No room on fargate-spot: ");
    assert!(line.contains("SpotInterruption"), "{line}");
    runner
        .run("build_script", "echo on\n")
        .assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
