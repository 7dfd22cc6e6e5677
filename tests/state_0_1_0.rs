//! A state directory as version 0.1.0 leaves it: every later version reads it, and ends its jobs.
//!
//! What lies in `state_0_1_0/` was written by that version (commit d52d4b0) against the lab's AWS, at each point at which a
//! job may be left. Only what belongs to one run of it was replaced, by names for what takes its place: `@TASK@` is an ARN,
//! `"@NOW@"` a number. So were the calls that had started the machines (`RunTask.json`, `CreateFleet.json`); they are
//! made again here, so that what a file names really runs. Private keys are made when they are needed.
//!
//! It stays as it is. What a later version writes gets files of its own beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use base64ct::Base64;
use base64ct::Encoding as _;
use gitlab_aws_driver::ssh::keys::JobKey;
use serde_json::Value;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::port;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Call;
use crate::lab::stage::Stage;
use crate::lab::traces::assert_only_tombstones;
use crate::reap::ended;
use crate::reap::files;
use crate::reap::reap;

mod values;

use self::values::Values;
use self::values::form;
use self::values::hex;
use self::values::started;

/// Jobs on tasks: one that was asked for and not answered yet; a rung that is over, and a task on its way up; a machine
/// that is ready, with its container's environment; one whose `cleanup` could not end it.
const ON_ECS: [&str; 4] = ["ecs-asked", "ecs-named", "ecs-ready", "ecs-ending"];
/// Jobs on instances: asked for; ready, with Spot's notice told; ready, with a container in it.
const ON_EC2: [&str; 3] = ["ec2-asked", "ec2-ready", "ec2-container"];
/// Jobs on this host: by the driver's own server, and by a program of the administrator's.
const HERE: [&str; 2] = ["local", "local-command"];

/// How long a job of that version had: an hour, and its margin.
const LIFETIME: u64 = 5400;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state_0_1_0")
}

/// A state directory with all that belongs to no job, and the account of its jobs.
struct World {
    account: Arc<Account>,
    state: PathBuf,
    _directory: tempfile::TempDir,
}

/// What becomes of the Runner that owned a job, and of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is this process.
    Lives,
    /// It is gone.
    Gone,
    /// It is of an earlier boot, of which nothing lives.
    OfAnotherBoot,
    /// Nobody knows, and the job's time is over.
    UnknownAndPast,
}

/// One job of that directory, whose machine runs.
struct Job {
    runner: Runner,
    /// The name of its directory.
    key: String,
    /// What ends a machine of this host at the test's end.
    _machine: Option<Stage>,
}

impl World {
    fn new() -> Self {
        let directory = lab::temp_dir();
        let state = directory.path().join("state");
        for part in ["manager", "notes", "known", "shared"] {
            for from in files(&folder().join(part))
                .into_iter()
                .chain(Some(folder().join(part)).filter(|path| path.is_file()))
            {
                let to = state.join(from.strip_prefix(folder()).unwrap());
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(from, to).unwrap();
            }
        }
        Self {
            account: Arc::new(Account::new()),
            state,
            _directory: directory,
        }
    }

    fn manager() -> String {
        let text = std::fs::read_to_string(folder().join("manager")).unwrap();
        text.trim().to_owned()
    }

    /// Starts the machine that a job names, and lays the job's files down.
    fn job(&self, name: &str, owner: Owner) -> Job {
        let builder = Runner::builder().state_directory(&self.state);
        let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
        let runner = match name.split_once('-') {
            Some(("ecs", _)) => builder.machine(machine).on_account(&self.account),
            Some(("ec2", _)) => builder.machine(machine).on_ec2_of(&self.account),
            _ => builder.machine(machine),
        }
        .build();
        let (key, host_key) = (JobKey::generate().unwrap(), JobKey::generate().unwrap());
        let host_private = host_key.to_pem().unwrap();
        let attempt = runner.attempt().display().to_string();
        let job = runner.job().to_string();
        let account = &self.account;
        let mut values = Values::new(owner);
        for (name, value) in [
            ("JOB", job.as_str()),
            ("JOB_NUMBER", &job),
            ("FAMILY", &runner.family()),
            ("ACCOUNT", account.id()),
            ("SUBNET_A", &account.subnets()[0]),
            ("SUBNET_B", &account.subnets()[1]),
            ("GROUP", account.security_group()),
            ("IMAGE", account.image()),
            ("MANAGER", &Self::manager()),
            ("ATTEMPT", &hex(&attempt)),
            ("TOKEN", &hex(&format!("token of {attempt}"))),
            ("SPOOL", &hex(&format!("spool of {attempt}"))[..32]),
            ("PUBLIC_KEY", &key.public_line().unwrap()),
            ("PRIVATE_KEY", &key.to_pem().unwrap()),
            ("HOST_KEY", &host_key.public_line().unwrap()),
            ("HOST_PRIVATE_KEY", &host_private.replace('\n', "\\n")),
            ("PORT", &runner.server().port().to_string()),
            ("ADDRESS", "127.0.0.1"),
            ("PROGRAM", &runner.server().command()[0]),
        ] {
            values.set(name, value);
        }
        let machine = match name.split_once('-') {
            Some(("ecs", _)) => self.start_task(name, &runner, &mut values),
            Some(("ec2", _)) => self.start_instance(name, &runner, &mut values),
            _ => Some(start_here(&runner, &mut values)),
        };
        // The name is the `hostname` of the config answer.
        let answer = runner.config().assert_success();
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        let key = answer["hostname"].as_str().unwrap().to_owned();
        let to = self.state.join("jobs").join(&key);
        std::fs::create_dir_all(&to).unwrap();
        for file in ["intent.json", "record.json", "notice.json"] {
            let from = folder().join("jobs").join(name).join(file);
            if from.exists() {
                std::fs::write(to.join(file), values.filled(&from)).unwrap();
            }
        }
        Job {
            runner,
            key,
            _machine: machine,
        }
    }

    fn start_task(&self, name: &str, runner: &Runner, values: &mut Values) -> Option<Stage> {
        let call = values.filled(&folder().join("jobs").join(name).join("RunTask.json"));
        let call: Value = serde_json::from_str(&call).unwrap();
        let answer = self.account.call("ecs", "RunTask", &call).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let arn = answer["tasks"][0]["taskArn"].as_str().unwrap();
        values.set("TASK", arn);
        values.set("TASK_ID", arn.rsplit('/').next().unwrap());
        let task = self.account.wait_task("running", |task| {
            task.arn == arn && task.status == "RUNNING"
        });
        runner.server().wait_log("listening", 1, PATIENCE);
        values.set("ADDRESS", task.address.as_deref().unwrap());
        // A task shows the key that its image has: it was pinned at the first contact.
        values.set(
            "HOST_KEY",
            &shown_key(task.address.as_deref().unwrap(), runner),
        );
        None
    }

    fn start_instance(&self, name: &str, runner: &Runner, values: &mut Values) -> Option<Stage> {
        let folder = folder().join("jobs").join(name);
        let user_data = values.filled_plainly(&folder.join("user_data"));
        values.set("USER_DATA", &Base64::encode_string(user_data.as_bytes()));
        for action in ["CreateLaunchTemplate", "CreateFleet"] {
            let call = values.filled(&folder.join(format!("{action}.json")));
            let form = form(&serde_json::from_str(&call).unwrap());
            let answer = self.account.ec2(action, &form);
            let there = answer.text().contains("AlreadyExists");
            assert!(answer.status == 200 || there, "{}", answer.text());
        }
        let job = runner.job().to_string();
        let instance = self.account.wait_instance("running", |one| {
            one.job() == Some(job.as_str()) && one.state == "running"
        });
        runner.server().wait_log("listening", 1, PATIENCE);
        values.set("INSTANCE", &instance.id);
        values.set("ADDRESS", &instance.address);
        None
    }
}

/// Starts a machine of this host as that version's keeper did: a parent that carries the mark, which the server below it
/// overwrites with its title.
fn start_here(runner: &Runner, values: &mut Values) -> Stage {
    let stage = Call {
        name: "a machine of 0.1.0".to_owned(),
        program: "/bin/sh".into(),
        args: ["-c", "\"$0\" & wait", &runner.server().command()[0]]
            .map(Into::into)
            .into(),
        env: BTreeMap::from([
            ("SSH_PUBLIC_KEY".into(), values.get("PUBLIC_KEY").into()),
            ("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            (
                "GITLAB_AWS_DRIVER_MACHINE".into(),
                values.get("TOKEN").into(),
            ),
        ]),
        directory: runner.root().to_owned(),
        ..Call::default()
    }
    .spawn();
    port::wait_listening(runner.server().port(), true, PATIENCE);
    let pid = stage.pid().as_raw_nonzero().get();
    values.set("KEEPER_PID", &pid.to_string());
    values.set("KEEPER_STARTED", &started(pid).to_string());
    values.set("HOST_KEY", &shown_key("127.0.0.1", runner));
    stage
}

/// Returns the host key that a machine shows.
fn shown_key(host: &str, runner: &Runner) -> String {
    let port = runner.server().port().to_string();
    let output = Command::new(lab::tools::program("ssh-keyscan"))
        .args(["-T", "60", "-t", "ed25519", "-p", &port, host])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| !line.starts_with('#'));
    let (_, key) = line.and_then(|line| line.split_once(' ')).unwrap();
    key.to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

impl Job {
    /// Checks that nothing of it lives.
    #[track_caller]
    fn assert_ended(&self) {
        let left = processes::wait_none(self.runner.root(), PATIENCE);
        let left: Vec<_> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "{left:?}");
        self.runner.assert_nothing_left();
    }
}

/// A job whose `prepare` was done by that version.
fn under_way(name: &str) {
    let world = World::new();
    let job = world.job(name, Owner::Lives);
    let script = "echo \"here ${OF_IMAGE-}\"; exit 42";
    let output = job.runner.run("build_script", script).assert_code(1);
    let expected = match name.starts_with("ecs") {
        true => "here yes\n",
        false => "here \n",
    };
    assert_eq!(output.stdout_text(), expected, "{output}");
    assert_eq!(job.runner.exit_file().as_deref(), Some(&b"42"[..]));
    job.runner
        .run("after_script", "echo after")
        .assert_stdout("after\n");
    job.runner.cleanup().assert_success();
    job.assert_ended();
    assert_only_tombstones(&world.state, 1);
}

#[test]
fn a_job_under_way_on_a_task_runs_on_and_ends() {
    under_way("ecs-ready");
}

#[test]
fn a_job_under_way_on_an_instance_runs_on_and_ends() {
    under_way("ec2-ready");
}

#[test]
fn a_job_under_way_on_this_host_runs_on_and_ends() {
    under_way("local-command");
}

#[test]
fn cleanup_ends_whatever_a_job_was_left_with() {
    let world = World::new();
    let names = ON_ECS.iter().chain(&ON_EC2).chain(&HERE);
    let jobs: Vec<_> = names
        .map(|name| (name, world.job(name, Owner::Lives)))
        .collect();
    for (name, job) in &jobs {
        let output = job.runner.cleanup();
        assert_eq!(output.code(), Some(0), "{name}: {output}");
        job.assert_ended();
    }
    assert_only_tombstones(&world.state, jobs.len());
}

#[test]
fn reap_ends_what_a_runner_that_is_gone_has_left() {
    let world = World::new();
    let mut jobs = Vec::new();
    let owners = [Owner::Gone, Owner::OfAnotherBoot, Owner::UnknownAndPast];
    for (number, name) in ON_ECS.iter().chain(&ON_EC2).enumerate() {
        let owner = match *name {
            // Whoever lives, nothing of it shall.
            "ecs-ending" => Owner::Lives,
            _ => owners[number % owners.len()],
        };
        jobs.push(world.job(name, owner));
    }
    jobs.extend(HERE.map(|name| world.job(name, Owner::Gone)));
    // One whose Runner lives stays.
    let living = world.job("ecs-ready", Owner::Lives);
    // It looks at tasks and at instances, whatever this job is on.
    let report = reap(&jobs[0].runner);
    let ended = ended(&report);
    for job in &jobs {
        assert!(ended.contains(&job.key), "{}: {report}", job.key);
        job.assert_ended();
    }
    assert!(!ended.contains(&living.key), "{report}");
    assert_eq!(report["problems"], serde_json::json!([]), "{report}");
    living.runner.cleanup().assert_success();
    living.assert_ended();
    assert_only_tombstones(&world.state, jobs.len() + 1);
}

#[test]
fn tombstones_and_what_belongs_to_no_job_are_read_without_a_word() {
    let world = World::new();
    for name in ["over", "refused"] {
        let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash).init();
        let builder = Runner::builder()
            .machine(machine)
            .on_account(&world.account);
        let runner = builder.state_directory(&world.state).build();
        let answer = runner.config().assert_success();
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        let key = answer["hostname"].as_str().unwrap();
        let values = Values::new(Owner::Lives);
        let tombstone = values.filled(&folder().join("tombstones").join(format!("{name}.json")));
        std::fs::create_dir_all(world.state.join("tombstones")).unwrap();
        let file = world.state.join("tombstones").join(format!("{key}.json"));
        std::fs::write(&file, tombstone).unwrap();
        let output = runner.prepare();
        // What was refused then may be tried anew, or refused in the words that stand there.
        if name == "over" || output.code() == Some(0) {
            let output = output.assert_success();
            assert!(!output.contains("WARNING"), "{output}");
            runner.run("build_script", "echo on").assert_stdout("on\n");
        } else {
            assert!(
                output.contains("The key pair 'nobody' does not exist"),
                "{output}"
            );
        }
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
        // Still whole, whoever has written it last.
        assert!(serde_json::from_str::<Value>(&read(&file)).is_ok());
    }
}
