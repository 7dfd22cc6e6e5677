//! `reap`: ends what no live job owns, and nothing else.

use std::collections::BTreeMap;
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
use crate::lab::aws::overdue::with_deadline;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Call;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::traces;
use crate::lab::traces::until;

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

/// Plays a Runner that can be killed: stages run in process groups of their own, up to a point at which it waits.
const MORTAL_RUNNER: &str = "set -m\n\
    gad() { \"$driver\" --config \"$config\" custom \"$@\" > \"$1.out\" 2>&1; }\n\
    mkfifo idle\n\
    idle() { : > idling; read -r nothing <> idle; }\n\
    gad config\n\
    case $phase in\n\
    config) idle ;;\n\
    prepare) gad prepare & wait; idle ;;\n\
    esac\n\
    gad prepare || exit 1\n\
    case $phase in\n\
    prepared) idle ;;\n\
    run) gad run \"$script\" build_script & wait; idle ;;\n\
    cleanup) gad cleanup & wait; idle ;;\n\
    esac\n\
    gad run \"$script\" build_script\n\
    idle\n";

/// What a job was at when its Runner was killed.
struct Phase {
    /// How far it came.
    phase: &'static str,
    /// What shows that it has come so far.
    shows: Shows,
    /// Its script.
    script: &'static str,
    /// What becomes of calls about it.
    fault: Option<Fault>,
    /// What becomes of its task.
    fate: Option<Fate>,
    /// Whether the stage that ran then is killed as well.
    stage_dies: bool,
}

enum Shows {
    File(&'static str),
    Text(&'static str, &'static str),
    Call(&'static str),
}

fn phases() -> Vec<Phase> {
    let phase = |phase, shows, script, stage_dies| Phase {
        phase,
        shows,
        script,
        fault: None,
        fate: None,
        stage_dies,
    };
    let prints = "while :; do echo line; sleep 0.01; done";
    let stuck = |stage_dies| Phase {
        fate: Some(Fate::stuck("PENDING")),
        ..phase("prepare", Shows::Call("DescribeTasks"), "", stage_dies)
    };
    let travels = |stage_dies| Phase {
        fault: Some(Fault::delayed(
            "RunTask",
            Duration::from_secs(4),
            Meanwhile::Waits,
        )),
        ..phase("prepare", Shows::Call("RunTask"), "", stage_dies)
    };
    vec![
        phase("config", Shows::File("idling"), "", true),
        travels(true),
        travels(false),
        stuck(true),
        stuck(false),
        phase("prepared", Shows::File("idling"), "", true),
        phase("run", Shows::Text("run.out", "line\n"), prints, true),
        phase(
            "run",
            Shows::Text("run.out", "ready\n"),
            "echo ready; sleep 6100",
            false,
        ),
        Phase {
            fault: Some(Fault::throttle("StopTask").times(2)),
            ..phase("cleanup", Shows::Call("StopTask"), "", true)
        },
        phase("done", Shows::File("idling"), "echo done", true),
    ]
}

impl Phase {
    fn spawn(&self, runner: &Runner) -> Stage {
        let account = runner.account();
        if let Some(fault) = &self.fault {
            let about = match self.phase {
                "prepare" => ("taskDefinition", runner.family()),
                _ => ("reason", format!("job {}", runner.job())),
            };
            account.fault(&fault.clone().matching(about.0, &about.1));
        }
        if let Some(fate) = &self.fate {
            account.fate(&fate.clone().of_family(&runner.family()));
        }
        let mut env = runner.stage_environment();
        let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
        for (name, value) in [
            ("driver", driver.into()),
            ("config", runner.config_file()),
            ("script", runner.write_script(self.script)),
            ("phase", self.phase.into()),
        ] {
            env.insert(name.into(), value.into());
        }
        Call {
            name: format!("a Runner ({})", self.phase),
            program: "/bin/bash".into(),
            args: ["-c", MORTAL_RUNNER].map(Into::into).into(),
            env,
            directory: runner.attempt(),
            ..Call::default()
        }
        .spawn()
    }

    fn wait(&self, runner: &Runner, mortal: &Stage) {
        let read =
            |name: &str| std::fs::read_to_string(runner.attempt().join(name)).unwrap_or_default();
        until(&format!("the phase {}", self.phase), PATIENCE, || {
            let told = ["config.out", "prepare.out", "run.out", "cleanup.out"]
                .map(read)
                .concat();
            assert!(!mortal.is_over(), "{}{told}", mortal.so_far());
            match self.shows {
                Shows::File(name) => runner.attempt().join(name).exists(),
                Shows::Text(name, text) => read(name).contains(text),
                Shows::Call(action) => self.was_called(runner, action),
            }
        });
    }

    fn was_called(&self, runner: &Runner, action: &str) -> bool {
        let family = runner.family();
        let tasks = runner.account().tasks();
        let own = tasks
            .iter()
            .find(|task| task.family == family)
            .map(|task| task.arn.clone());
        runner.account().calls(action).iter().any(|call| {
            let parameters = call.parameters.to_string();
            parameters.contains(&format!("\"{family}\""))
                || own.as_ref().is_some_and(|arn| parameters.contains(arn))
        })
    }
}

#[test]
fn a_runner_killed_under_ten_jobs() {
    let bastion = Bastion::new();
    let account = &bastion.account;
    let phases = phases();
    let jobs: Vec<_> = phases.iter().map(|_| bastion.job()).collect();
    let living = bastion.job();
    living.start();
    let script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended; exit 7";
    let script = format!("cd {}\n{script}", living.root().display());
    let script = living.spawn_run("build_script", script);
    script.wait_output(b"begun", PATIENCE);
    let mortals: Vec<_> = phases
        .iter()
        .zip(&jobs)
        .map(|(phase, job)| phase.spawn(job))
        .collect();
    for ((phase, job), mortal) in phases.iter().zip(&jobs).zip(&mortals) {
        phase.wait(job, mortal);
    }
    // The Runner dies, all at once.
    for mortal in &mortals {
        mortal.signal(Signal::KILL);
    }
    for (phase, job) in phases.iter().zip(&jobs) {
        let stages = job.processes().into_iter();
        let stages = stages.filter(|process| process.to_string().contains(" custom "));
        stages
            .filter(|_| phase.stage_dies)
            .for_each(|stage| stage.kill());
    }
    let report = reap(&living);
    eprintln!("{report:#}");
    for (phase, job) in phases.iter().zip(&jobs) {
        let left = processes::wait_none(job.root(), PATIENCE);
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "{}: {left:?}", phase.phase);
        // A call that still travels takes effect as well.
        account.wait("all calls to be answered", |_| {
            account
                .calls("RunTask")
                .iter()
                .all(|call| call.status.is_some())
        });
        assert!(
            account.left(Some(&job.family())).is_empty(),
            "{}",
            phase.phase
        );
        let family = job.family();
        let had = account
            .tasks()
            .iter()
            .filter(|task| task.family == family)
            .count();
        assert!(had <= 1, "{}: {had} tasks", phase.phase);
    }
    let known = std::fs::read_dir(bastion.state.join("jobs"))
        .unwrap()
        .count();
    assert_eq!(known, 1, "only the one that lives");
    // That one never noticed.
    std::fs::write(living.root().join("go"), "").unwrap();
    let output = script.wait(PATIENCE).assert_code(1);
    assert_eq!(output.stdout_text(), "begun\nended\n");
    assert_eq!(living.exit_file().unwrap(), b"7");
    living.cleanup().assert_success();
    living.assert_nothing_left();
    assert_eq!(reap(&bastion.job())["ended"], json!([]));
}

#[test]
fn a_run_whose_runner_is_gone_ends_the_task_itself() {
    for prints in [false, true] {
        let bastion = Bastion::new();
        let runner = bastion.job();
        let script = match prints {
            false => "echo ready; sleep 6101",
            true => "echo ready; while :; do echo line; sleep 0.01; done",
        };
        let phase = Phase {
            phase: "run",
            shows: Shows::Text("run.out", "ready\n"),
            script,
            fault: None,
            fate: None,
            stage_dies: false,
        };
        let mortal = phase.spawn(&runner);
        phase.wait(&runner, &mortal);
        mortal.signal(Signal::KILL);
        let task = bastion
            .account
            .wait_task("its end", |task| !task.is_alive());
        assert!(
            task.reason
                .as_ref()
                .unwrap()
                .contains("GitLab Runner is gone"),
            "{task:?}"
        );
        runner.assert_nothing_left();
        traces::assert_only_tombstones(&bastion.state, 1);
        assert!(bastion.account.calls("ListTasks").is_empty());
    }
}

#[test]
fn a_machine_without_its_bastion_ends_by_its_watchdog() {
    let bastion = Bastion::new();
    let runner = bastion.short_job();
    runner.start();
    let task = bastion.account.tasks().remove(0);
    // All that knew of it is gone.
    std::fs::remove_dir_all(&bastion.state).unwrap();
    let calls = bastion.account.calls("*").len();
    let task = wait_end(&bastion.account, &task.arn);
    assert!(unix_now() >= deadline(&task), "it ended early: {task:?}");
    assert_eq!(task.stop_code.as_deref(), Some("EssentialContainerExited"));
    assert_eq!(bastion.account.calls("*").len(), calls);
}

#[test]
fn the_next_bastion_ends_what_is_past_its_deadline_and_nothing_else() {
    let first = Bastion::new();
    let account = &first.account;
    let lost = first.job();
    let task = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(&first.state).unwrap();
    let alive = first.job();
    alive.start();
    let past = unix_now().saturating_sub(1_000).to_string();
    let fleet = ("gitlab-aws-driver:fleet", "gitlab-aws-driver");
    let copied = with_deadline(&task.tags, past.parse().unwrap());
    let copied: Vec<(&str, &str)> = copied.iter().map(|(k, v)| (&**k, &**v)).collect();
    // It has the lost job's machine, which is not to come up.
    account.fate(&Fate::stuck("PENDING"));
    let copy = stranger(account, "x", &copied);
    let strangers = [
        stranger(account, "somebody", &[]),
        stranger(account, "gad-0123456789abcdef0123456789abcdef", &[fleet]),
        stranger(
            account,
            "gad-0123456789abcdef0123456789abcdef",
            &[
                ("gitlab-aws-driver:fleet", "another"),
                ("gitlab-aws-driver:deadline", &past),
            ],
        ),
        stranger(
            account,
            "gad-0123456789abcdef0123456789abcdef",
            &[fleet, ("gitlab-aws-driver:deadline", "soon")],
        ),
        stranger(account, "x", &[("gitlab-aws-driver:deadline", &past)]),
        stranger(
            account,
            "x",
            &[fleet, ("gitlab-aws-driver:deadline", &past)],
        ),
        // All tags of one of ours.
        copy,
    ];
    let second = Bastion::on(account);
    let timer = second.job();
    assert_eq!(reap(&timer)["ended"], json!([]), "its time is not over");
    // The bastion itself has a new name since its state was lost: it does not know the task either.
    assert_eq!(reap(&alive)["ended"], json!([]));
    assert!(deadline(&task) > unix_now(), "{task:?}");
    // Somebody's word alone does not make it so.
    let by_hand = BTreeMap::from([("gitlab-aws-driver:deadline".to_owned(), past.clone())]);
    account.tag_task(&task.arn, &by_hand);
    let report = reap(&timer);
    assert_eq!(report["ended"], json!([]), "{report:#}");
    let told = report["skipped"].to_string();
    assert!(told.contains(&task.arn), "{report:#}");
    assert!(told.contains("does not fit its other tags"), "{report:#}");
    account.tag_task(&task.arn, &with_deadline(&task.tags, past.parse().unwrap()));
    let report = reap(&timer);
    assert_eq!(
        ended(&report),
        std::slice::from_ref(&task.arn),
        "{report:#}"
    );
    let over = wait_end(account, &task.arn);
    assert!(
        over.reason.as_ref().unwrap().contains("deadline"),
        "{over:?}"
    );
    for stranger in &strangers {
        assert!(lives(account, stranger), "{stranger}");
        let stop = json!({ "cluster": CLUSTER, "task": stranger });
        account.call("ecs", "StopTask", &stop).unwrap();
    }
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
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
fn without_list_tasks_the_state_directory_is_enough() {
    let bastion = Bastion::new();
    let (orphaned, alive) = (bastion.job(), bastion.job());
    bastion.account.allow(&LEAST);
    orphaned.start();
    orphan(&orphaned);
    alive.start();
    let output = alive.command(&["reap", "--json"]).assert_success();
    assert!(output.stderr_text().contains("ecs:ListTasks"), "{output}");
    let report = report(&output);
    assert_eq!(ended(&report).len(), 1, "{report:#}");
    assert!(
        report["skipped"].to_string().contains("ecs:ListTasks"),
        "{report:#}"
    );
    assert_eq!(report["problems"], json!([]));
    orphaned.assert_nothing_left();
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
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
fn a_live_job_whose_files_are_damaged_keeps_its_task() {
    let bastion = Bastion::new();
    let (runner, timer) = (bastion.job(), bastion.job());
    runner.start();
    let job = files(&bastion.state.join("jobs"));
    let whole: Vec<_> = job
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    for damaged in [vec![0], vec![1], vec![0, 1]] {
        for index in damaged {
            std::fs::write(&job[index], "{\"version\": 99}").unwrap();
        }
        let output = timer.command(&["reap", "--json"]).assert_code(1);
        let report = report(&output);
        assert_eq!(report["ended"], json!([]), "{report:#}");
        assert_eq!(
            report["problems"].as_array().unwrap().len(),
            1,
            "{report:#}"
        );
        for (path, text) in job.iter().zip(&whole) {
            std::fs::write(path, text).unwrap();
        }
    }
    runner
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    runner.cleanup().assert_success();
}

#[test]
fn a_dead_job_with_a_damaged_file_ends_all_the_same() {
    for damaged in ["record.json", "intent.json"] {
        let bastion = Bastion::new();
        let (runner, timer) = (bastion.job(), bastion.job());
        runner.start();
        orphan(&runner);
        let job = files(&bastion.state.join("jobs"));
        let path = job.iter().find(|path| path.ends_with(damaged)).unwrap();
        std::fs::write(path, "{").unwrap();
        let output = timer.command(&["reap", "--json"]).assert_code(1);
        assert!(output.contains(damaged), "{output}");
        assert!(bastion.account.left(None).is_empty(), "{output}");
        std::fs::remove_file(path).unwrap();
        reap(&timer);
        runner.assert_nothing_left();
    }
}

#[test]
fn aws_out_of_reach_is_a_problem_and_the_next_time_does_it() {
    let bastion = Bastion::new();
    let runner = bastion.job();
    runner.start();
    orphan(&runner);
    bastion.account.fault(&Fault::denied("StopTask"));
    let output = runner.command(&["reap", "--json"]).assert_code(1);
    let report = report(&output);
    assert_eq!(report["ended"], json!([]), "{report:#}");
    assert!(
        report["problems"].to_string().contains("ecs:StopTask"),
        "{report:#}"
    );
    assert_eq!(bastion.account.alive().len(), 1);
    assert_eq!(ended(&reap(&runner)).len(), 1);
    runner.assert_nothing_left();
    traces::assert_only_tombstones(&bastion.state, 1);
}

#[test]
fn a_cleanup_that_failed_is_done_by_reap_though_the_runner_lives() {
    // With all permissions, and with those that the Go driver's users have.
    for least in [false, true] {
        let bastion = Bastion::new();
        let runner = bastion.job();
        if least {
            bastion.account.allow(&LEAST);
        }
        runner.start();
        bastion.account.fault(&Fault::denied("StopTask"));
        let output = runner.cleanup();
        assert_ne!(output.code(), Some(0), "{output}");
        let report = reap(&runner);
        assert_eq!(ended(&report).len(), 1, "{report:#}");
        runner.assert_nothing_left();
        traces::assert_only_tombstones(&bastion.state, 1);
    }
}

#[test]
fn a_job_that_its_runner_forgot_ends_after_its_deadline() {
    let bastion = Bastion::new();
    bastion.account.allow(&LEAST);
    let (runner, alive) = (bastion.job(), bastion.job());
    alive.start();
    killed_while_coming_up(&runner);
    assert_eq!(reap(&alive)["ended"], json!([]));
    let path = only_other(&bastion.state, &alive).join("intent.json");
    let mut intent: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(intent["deadline"].as_u64().unwrap() > unix_now());
    // As if the wall clock were days ahead by now: this boot's own says that the time is not over.
    for pointer in ["/deadline", "/made_in_boot/unix"] {
        let time = intent.pointer_mut(pointer).unwrap();
        *time = json!(time.as_u64().unwrap() - 200_000);
    }
    std::fs::write(&path, intent.to_string()).unwrap();
    assert_eq!(reap(&alive)["ended"], json!([]));
    intent["made_in_boot"]["unix"] = json!(unix_now());
    intent["deadline"] = json!(unix_now() - 1);
    std::fs::write(&path, intent.to_string()).unwrap();
    let report = reap(&alive);
    assert_eq!(ended(&report).len(), 1, "{report:#}");
    runner.assert_nothing_left();
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
}

/// A Runner in a container, whose pid says nothing to a `reap` on the host: the job is left alone until its time is over.
#[test]
fn a_job_whose_runner_cannot_be_seen_ends_after_its_deadline() {
    let bastion = Bastion::new();
    bastion.account.allow(&LEAST);
    let runner = bastion.job();
    runner.start();
    // No process here has that number and that start.
    orphan(&runner);
    let change = |pointer: &str, change: &dyn Fn(u64) -> u64| {
        for path in files(&bastion.state.join("jobs")) {
            let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let place = value.pointer_mut(pointer).unwrap();
            *place = change(place.as_u64().unwrap()).into();
            std::fs::write(&path, value.to_string()).unwrap();
        }
    };
    change("/owner/namespace", &|number| number ^ 1);
    assert_eq!(reap(&runner)["ended"], json!([]));
    runner
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    for pointer in ["/deadline", "/made_in_boot/unix"] {
        change(pointer, &|time| time - 200_000);
    }
    assert_eq!(reap(&runner)["ended"], json!([]));
    // Of another boot nothing but the wall clock tells.
    change("/made_in_boot/boot", &|boot| boot ^ 1);
    let report = reap(&runner);
    assert_eq!(ended(&report).len(), 1, "{report:#}");
    assert!(
        report["ended"][0]["why"]
            .as_str()
            .unwrap()
            .contains("deadline"),
        "{report:#}"
    );
    runner.assert_nothing_left();
    traces::assert_only_tombstones(&bastion.state, 1);
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

#[test]
fn a_bastion_without_credentials_cannot_say_that_nothing_is_left() {
    let runner = Runner::builder()
        .on_fargate()
        .environment("AWS_ACCESS_KEY_ID", None)
        .environment("AWS_SECRET_ACCESS_KEY", None)
        .environment("AWS_EC2_METADATA_DISABLED", Some("true"))
        .build();
    let output = runner.command(&["reap"]).assert_code(1);
    assert!(!output.contains("nothing is left over"), "{output}");
    let output = output.assert_contains("not all could be looked at");
    output.assert_contains("no credentials found");
}
