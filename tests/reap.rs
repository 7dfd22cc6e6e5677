//! `reap`: ends what no live job owns, and nothing else.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::aws::Meanwhile;
use crate::lab::aws::Task;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::traces;
use crate::lab::traces::until;

mod deadlines;
mod killed_runners;
mod trouble;

/// A job that has this long, with [`MARGIN`], is over soon enough for a test, and lasts long enough to come up.
const SHORT: u64 = 20;
const MARGIN: &str = "deadline_margin = \"1s\"";

/// What a bastion with the public least-privilege policy may do.
const LEAST: [&str; 3] = ["ecs:RunTask", "ecs:DescribeTasks", "ecs:StopTask"];

/// An account whose jobs share one state directory: a bastion.
pub(crate) struct Bastion {
    pub(crate) account: Arc<Account>,
    _directory: tempfile::TempDir,
    pub(crate) state: PathBuf,
}

impl Bastion {
    pub(crate) fn new() -> Self {
        Self::on(&Arc::new(Account::new()))
    }

    /// Returns another bastion of the same fleet.
    pub(crate) fn on(account: &Arc<Account>) -> Self {
        let directory = lab::temp_dir();
        Self {
            account: Arc::clone(account),
            state: directory.path().join("state"),
            _directory: directory,
        }
    }

    pub(crate) fn job(&self) -> Runner {
        self.job_of(ServerBuilder::new(Kind::OpenSsh, Login::Bash))
    }

    fn job_of(&self, machine: ServerBuilder) -> Runner {
        let builder = Runner::builder().machine(machine).on_account(&self.account);
        builder.state_directory(&self.state).build()
    }

    /// Returns a job whose deadline comes soon.
    fn short_job(&self) -> Runner {
        let builder = Runner::builder()
            .on_account(&self.account)
            .state_directory(&self.state);
        builder.job_timeout(SHORT).config_line(MARGIN).build()
    }
}

/// Starts a job that is killed on its way up: no watchdog is on its machine.
pub(crate) fn killed_while_coming_up(runner: &Runner) -> Task {
    let account = runner.account();
    account.fate(&Fate::stuck("PENDING"));
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    let family = runner.family();
    let task = account.wait_task("a task", |task| task.family == family);
    // Its name stands in the intent when it is asked after.
    account.wait("a look at it", |_| {
        let calls = account.calls("DescribeTasks");
        calls
            .iter()
            .any(|call| call.parameters.to_string().contains(&task.arn))
    });
    prepare.signal(Signal::KILL);
    prepare.wait(PATIENCE);
    task
}

/// Has the Runner that owns a job be gone: one that was started at another time is none that lives.
fn orphan(runner: &Runner) {
    let jobs = std::fs::read_dir(runner.state_directory().join("jobs")).unwrap();
    let own = jobs.flatten().map(|job| job.path()).find(|job| {
        let intent = std::fs::read_to_string(job.join("intent.json")).unwrap();
        intent.contains(&format!("\"{}\"", runner.family()))
    });
    for path in files(&own.unwrap()) {
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let started = value.pointer_mut("/owner/started").unwrap();
        *started = json!(started.as_u64().unwrap() + 1);
        std::fs::write(&path, value.to_string()).unwrap();
    }
}

/// Returns all files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Runs `reap --json`; returns the report.
#[track_caller]
pub(crate) fn reap(runner: &Runner) -> Value {
    let output = runner.command(&["reap", "--json"]).assert_success();
    report(&output)
}

#[track_caller]
pub(crate) fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[track_caller]
pub(crate) fn ended(report: &Value) -> Vec<String> {
    let all = report["ended"].as_array().unwrap().iter();
    all.map(|ended| ended["what"].as_str().unwrap().to_owned())
        .collect()
}

fn lives(account: &Account, arn: &str) -> bool {
    account
        .tasks()
        .iter()
        .any(|task| task.arn == arn && task.desired == "RUNNING")
}

#[track_caller]
fn wait_end(account: &Account, arn: &str) -> Task {
    account.wait_task("its end", |task| task.arn == arn && !task.is_alive())
}

/// Starts a task as somebody else; returns its ARN.
fn stranger(account: &Account, started_by: &str, tags: &[(&str, &str)]) -> String {
    account.task_definition("stranger");
    let tags: Vec<_> = tags
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    let mut request = json!({
        "cluster": CLUSTER,
        "taskDefinition": "stranger",
        "launchType": "FARGATE",
        "startedBy": started_by,
        "networkConfiguration": { "awsvpcConfiguration": {
            "subnets": account.subnets(), "securityGroups": [account.security_group()],
        } },
        "overrides": { "containerOverrides": [{ "name": CONTAINER }] },
    });
    if !tags.is_empty() {
        request["tags"] = tags.into();
    }
    let answer = account.call("ecs", "RunTask", &request).unwrap();
    let value = answer.json();
    value["tasks"][0]["taskArn"]
        .as_str()
        .unwrap_or_else(|| panic!("{value}"))
        .to_owned()
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn deadline(task: &Task) -> u64 {
    task.tags["gitlab-aws-driver:deadline"].parse().unwrap()
}

#[test]
fn a_task_without_a_record_ends_at_once() {
    let bastion = Bastion::new();
    let lost = bastion.job();
    let task = killed_while_coming_up(&lost);
    let alive = bastion.job();
    alive.start();
    std::fs::remove_dir_all(only_other(&bastion.state, &alive)).unwrap();
    let report = reap(&alive);
    assert_eq!(
        ended(&report),
        std::slice::from_ref(&task.arn),
        "{report:#}"
    );
    wait_end(&bastion.account, &task.arn);
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
    assert_eq!(ended(&reap(&alive)), Vec::<String>::new());
}

/// Returns the directory of the job that is not this one.
pub(crate) fn only_other(state: &Path, runner: &Runner) -> PathBuf {
    let jobs = std::fs::read_dir(state.join("jobs")).unwrap().flatten();
    let mut jobs = jobs.map(|job| job.path()).filter(|job| {
        let intent = std::fs::read_to_string(job.join("intent.json")).unwrap();
        !intent.contains(&runner.family())
    });
    let job = jobs.next().unwrap();
    assert!(jobs.next().is_none());
    job
}

#[test]
fn a_task_that_appears_after_its_job_was_forgotten() {
    let bastion = Bastion::new();
    let runner = bastion.job();
    let account = &bastion.account;
    account.fault(&Fault::delayed(
        "RunTask",
        Duration::from_secs(6),
        Meanwhile::Waits,
    ));
    runner.kill_prepare_at("RunTask");
    // As far as AWS tells, there is nothing.
    account.fault(&Fault::capacity());
    runner.cleanup().assert_success();
    let task = account.wait_task("the late effect", |task| task.desired == "RUNNING");
    let report = reap(&runner);
    assert_eq!(
        ended(&report),
        std::slice::from_ref(&task.arn),
        "{report:#}"
    );
    wait_end(account, &task.arn);
}

#[test]
fn a_dry_run_changes_nothing() {
    let bastion = Bastion::new();
    let (orphaned, lost, alive) = (bastion.job(), bastion.job(), bastion.job());
    // Nothing is drawn or made either, where there is nothing yet.
    let output = alive.command(&["reap", "--dry-run"]).assert_success();
    assert_eq!(output.stdout_text(), "nothing is left over\n");
    assert!(!bastion.state.exists());

    alive.start();
    let recordless = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(only_other(&bastion.state, &alive)).unwrap();
    orphaned.start();
    orphan(&orphaned);
    let look = || {
        // How many calls may still be made is known to all who make some.
        let shared = bastion.state.join("shared");
        let all = files(&bastion.state).into_iter();
        let all = all.filter(|path| !path.starts_with(&shared));
        all.map(|path| (std::fs::read(&path).unwrap(), path))
            .collect::<Vec<_>>()
    };
    let before = look();
    let output = alive
        .command(&["reap", "--dry-run", "--json"])
        .assert_success();
    let report = report(&output);
    assert_eq!(report["dry_run"], json!(true));
    let would = ended(&report);
    assert_eq!(would.len(), 2, "{report:#}");
    assert!(would.contains(&recordless.arn), "{report:#}");
    let output = alive.command(&["reap", "--dry-run"]).assert_success();
    assert_eq!(
        output.stdout_text().matches("would end ").count(),
        2,
        "{output}"
    );
    assert_eq!(look(), before);
    assert!(bastion.account.calls("StopTask").is_empty());
    assert_eq!(bastion.account.alive().len(), 3);

    let text = alive.command(&["reap"]).assert_success();
    assert_eq!(text.stdout_text().matches("ended ").count(), 2, "{text}");
    wait_end(&bastion.account, &recordless.arn);
    let family = orphaned.family();
    bastion
        .account
        .wait_task("its end", |task| task.family == family && !task.is_alive());
    orphaned.assert_nothing_left();
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
    traces::assert_only_tombstones(&bastion.state, 2);
}

#[test]
fn a_list_that_lags_harms_nobody() {
    let bastion = Bastion::new();
    let account = &bastion.account;
    let lag = Duration::from_secs(4);
    account.lag(lag, Duration::ZERO);
    let (lost, alive) = (bastion.job(), bastion.job());
    alive.start();
    let task = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(only_other(&bastion.state, &alive)).unwrap();
    let mut reaped = Vec::new();
    until("the list to show it", PATIENCE, || {
        reaped.extend(ended(&reap(&alive)));
        !reaped.is_empty()
    });
    assert_eq!(reaped, std::slice::from_ref(&task.arn));
    wait_end(account, &task.arn);
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
}

#[test]
fn a_job_that_waits_for_its_answer_keeps_its_task() {
    let bastion = Bastion::new();
    let account = &bastion.account;
    let (runner, timer) = (bastion.job(), bastion.job());
    account.fault(&Fault::slow("RunTask", Duration::from_secs(4)));
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    // It is in AWS's list, and its name in no file.
    account.wait("the task", |state| {
        state.tasks.iter().any(|task| task.status == "RUNNING")
    });
    assert_eq!(reap(&timer)["ended"], json!([]));
    prepare.wait(PATIENCE).assert_success();
    runner
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    runner.cleanup().assert_success();
}

#[test]
fn many_reaps_at_once_beside_a_cleanup() {
    let bastion = Bastion::new();
    let (orphaned, ending, alive) = (bastion.job(), bastion.job(), bastion.job());
    for runner in [&orphaned, &ending, &alive] {
        runner.start();
    }
    orphan(&orphaned);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| alive.command(&["reap"]).assert_success());
        }
        scope.spawn(|| ending.cleanup().assert_success());
    });
    for runner in [&orphaned, &ending] {
        runner.assert_nothing_left();
    }
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
    traces::assert_only_tombstones(&bastion.state, 3);
}
