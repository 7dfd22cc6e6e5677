//! Jobs that the Go driver prepared: they run, they end, and what is refused them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64ct::Base64;
use base64ct::Encoding as _;
use serde_json::Value;
use serde_json::json;

use super::LEAST;
use super::Place;
use super::assert_example_names_all;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::allowing;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::scripts::record;
use crate::scripts::record_file;
use gitlab_aws_driver::ssh::keys::JobKey;

/// A task that the Go driver started for a job, and the file that it left.
pub(super) struct Inherited {
    pub(super) place: Place,
    pub(super) runner: Runner,
    pub(super) file: PathBuf,
}

impl Inherited {
    pub(super) fn new(public_key: &str, private_key: &str) -> Self {
        Self::of(Place::new(), public_key, private_key, &[])
    }

    pub(super) fn with_key(place: Place, variables: &[(&str, &str)]) -> Self {
        let key = JobKey::generate().unwrap();
        let public = key.public_line().unwrap();
        Self::of(place, &public, &key.to_pem().unwrap(), variables)
    }

    pub(super) fn of(
        place: Place,
        public_key: &str,
        private_key: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut builder = place.builder();
        for (name, value) in variables {
            builder = builder.variable(name, value);
        }
        Self::on(place, builder, public_key, private_key)
    }

    pub(super) fn on(
        place: Place,
        builder: RunnerBuilder,
        public_key: &str,
        private_key: &str,
    ) -> Self {
        let account = &place.account;
        // Any job might choose anything then.
        let runner = builder
            .variable("FARGATE_TASK_DEFINITION", "gone-since")
            .build();
        runner.write_config(&runner.go_driver_file());
        account.allow(&LEAST);
        let parameters = json!({
            "cluster": CLUSTER, "taskDefinition": runner.family(), "count": 1, "launchType": "FARGATE",
            "networkConfiguration": { "awsvpcConfiguration": {
                "subnets": [account.subnets()[0]], "securityGroups": [account.security_group()],
            } },
            "overrides": { "containerOverrides": [{
                "name": CONTAINER,
                "environment": [{ "name": "SSH_PUBLIC_KEY", "value": public_key }],
            }] },
        });
        let answer = account.call("ecs", "RunTask", &parameters).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let arn = answer.json()["tasks"][0]["taskArn"]
            .as_str()
            .unwrap()
            .to_owned();
        let task = account.wait_task("running", |task| task.status == "RUNNING");
        runner.server().wait_listening();
        // The name is the `hostname` of the config answer.
        let answer = runner.config().assert_success();
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        let file = format!("{}.json", answer["hostname"].as_str().unwrap());
        let file = runner.state_directory().join(file);
        std::fs::create_dir_all(runner.state_directory()).unwrap();
        let left = json!({
            "TaskARN": arn,
            "ContainerIP": task.address,
            "PrivateKey": Base64::encode_string(private_key.as_bytes()),
        });
        std::fs::write(&file, left.to_string()).unwrap();
        Self {
            place,
            runner,
            file,
        }
    }

    pub(super) fn assert_ended(self) {
        self.runner.cleanup().assert_success();
        let account = &self.place.account;
        assert!(account.left(None).is_empty());
        assert!(!self.file.exists());
        assert_eq!(account.calls("RunTask").len(), 1, "that of the Go driver");
        let task = account.tasks().pop().unwrap();
        assert_eq!(task.stop_code.as_deref(), Some("UserInitiated"));
        self.runner.cleanup().assert_success();
        assert_eq!(account.calls("StopTask").len(), 1);
        assert_example_names_all(account);
    }
}

#[test]
fn a_job_that_the_go_driver_prepared_runs_and_ends() {
    let key = JobKey::generate().unwrap();
    let job = Inherited::new(&key.public_line().unwrap(), &key.to_pem().unwrap());
    job.runner
        .run("prepare_script", "echo on")
        .assert_stdout("on\n");
    let ended = job
        .runner
        .run("build_script", "echo built; exit 42")
        .assert_code(1);
    assert_eq!(ended.stdout_text(), "built\n", "{ended}");
    assert_eq!(job.runner.exit_file().as_deref(), Some(&b"42"[..]));
    // With a new file, whose limits are closed, the job goes on all the same.
    job.runner.write_config(&job.runner.default_config());
    job.runner
        .run("after_script", "echo after")
        .assert_stdout("after\n");
    job.assert_ended();
}

#[test]
fn the_host_key_of_such_a_job_is_noted_at_first_contact_and_another_one_refused() {
    let job = Inherited::with_key(Place::new(), &[]);
    let runner = &job.runner;
    runner
        .run("prepare_script", "echo on")
        .assert_stdout("on\n");
    let file = record_file(runner);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut record = record(runner);
    let shown = record["machine"]["endpoints"][0]["host_key"].clone();
    let machine = runner.server().home().parent().unwrap().to_owned();
    let own = std::fs::read_to_string(machine.join("host_key.pub")).unwrap();
    let own: Vec<&str> = own.split_whitespace().take(2).collect();
    assert!(
        shown.as_str().unwrap().starts_with(&own.join(" ")),
        "{shown}"
    );
    // The same machine goes on.
    runner
        .run("build_script", "echo built")
        .assert_stdout("built\n");
    // As if another one stood there now: it is known by another key.
    let other = JobKey::generate().unwrap().public_line().unwrap();
    record["machine"]["endpoints"][0]["host_key"] = other.into();
    std::fs::write(&file, record.to_string()).unwrap();
    let refused = runner.run("after_script", "echo never").assert_code(2);
    assert_eq!(
        refused.stderr_text().matches("SHA256:").count(),
        2,
        "{refused}"
    );
    assert!(refused.stdout.is_empty(), "{refused}");
    job.assert_ended();
}

#[test]
fn such_a_job_is_ended_as_the_role_that_launched_it_whatever_the_limits_say_now() {
    let place = Place::new();
    let role = place.account.role("ci-of-the-go-driver", None);
    let job = Inherited::with_key(
        place,
        &[
            ("ROLE_ARN", &role),
            ("SESSION_VARS", "GITLAB_USER_LOGIN, odd name"),
        ],
    );
    let account = &job.place.account;
    account.policy(&allowing(&["sts:AssumeRole", "sts:TagSession"]));
    // A new file, in which no job may choose a role.
    job.runner.write_config(&job.runner.default_config());
    job.runner
        .run("build_script", "echo built")
        .assert_stdout("built\n");
    let record = record_file(&job.runner);
    job.runner.cleanup().assert_success();
    assert!(account.left(None).is_empty() && !job.file.exists());
    let stops = account.calls("StopTask");
    assert_eq!(stops.len(), 1, "{stops:#?}");
    assert!(
        stops[0].caller.contains("ci-of-the-go-driver"),
        "{stops:#?}"
    );
    assert!(!record.exists());
}

#[test]
fn where_the_role_is_not_to_be_had_such_a_job_is_ended_as_the_host_itself() {
    let place = Place::new();
    let role = format!("arn:aws:iam::{}:role/never-was", place.account.id());
    // The Go driver's older versions ignored the variable. Another account's role cannot have launched the task.
    for role in [
        &*role,
        "arn:aws:iam::999999999999:role/elsewhere",
        "nonsense",
    ] {
        let job = Inherited::with_key(Place::new_on(&place), &[("ROLE_ARN", role)]);
        let account = &job.place.account;
        account.policy(&allowing(&[&LEAST[..], &["sts:AssumeRole"]].concat()));
        job.runner.write_config(&job.runner.default_config());
        job.runner.cleanup().assert_success();
        assert!(account.left(None).is_empty(), "{role}");
        assert!(!job.file.exists(), "{role}");
    }
}

#[test]
fn reap_ends_a_job_of_the_go_driver_that_a_stage_has_seen() {
    let job = Inherited::with_key(Place::new(), &[]);
    job.runner
        .run("build_script", "echo built")
        .assert_stdout("built\n");
    let intent = record_file(&job.runner).with_file_name("intent.json");
    let mut text: Value = serde_json::from_slice(&std::fs::read(&intent).unwrap()).unwrap();
    text["deadline"] = 1.into();
    // By the wall clock, as of a job of an earlier boot.
    text["made_in_boot"] = Value::Null;
    std::fs::write(&intent, text.to_string()).unwrap();
    job.runner.command(&["reap"]).assert_success();
    assert!(job.place.account.left(None).is_empty());
    assert!(!job.file.exists() && !intent.exists());
    job.runner.cleanup().assert_success();
}

#[test]
fn a_role_is_not_told_what_an_author_can_forge_and_the_job_goes_on() {
    let place = Place::new();
    let account = &place.account;
    let role = account.role("ci-project", None);
    account.allow(&["sts:AssumeRole", "sts:TagSession"]);
    let names = "CI_PROJECT_PATH,GITLAB_USER_LOGIN,GITLAB_USER_EMAIL,CI_COMMIT_BRANCH,TEAM,CI_COMMIT_REF_PROTECTED";
    let runner = place
        .builder()
        .variable("ROLE_ARN", &role)
        .variable("SESSION_VARS", names)
        .variable("GITLAB_USER_LOGIN", "admin")
        .variable("CI_COMMIT_REF_PROTECTED", "true")
        .variable("CI_PROJECT_PATH", "forged/path")
        .variable("TEAM", "infra")
        .build();
    runner.write_config(&runner.go_driver_file());
    let prepared = runner.prepare().assert_success();
    let text = prepared.stderr_text();
    let warned: Vec<_> = text
        .lines()
        .filter(|line| line.contains("SESSION_VARS"))
        .collect();
    assert_eq!(warned.len(), 1, "{prepared}");
    for word in [
        "GITLAB_USER_LOGIN (whoever writes the job can set it or have it expanded)",
        "GITLAB_USER_EMAIL (",
        "CI_COMMIT_BRANCH (",
        "CI_COMMIT_REF_PROTECTED (this job's payload has no git_info.protected",
    ] {
        assert!(warned[0].contains(word), "{word}\n{prepared}");
    }
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    for session in account.state().sessions {
        let tags: Vec<_> = session.tags.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            tags,
            [("CI_PROJECT_PATH", "group/project"), ("TEAM", "infra")]
        );
    }
}
