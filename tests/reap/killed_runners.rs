//! What `reap` and the stages do once the Runner of a job was killed.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::Bastion;
use super::reap;
use crate::lab::PATIENCE;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::aws::Meanwhile;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::stage::Stage;
use crate::lab::traces;
use crate::lab::traces::until;

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
