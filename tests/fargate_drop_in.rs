//! The Go driver's place on Fargate: its files, its command lines, its permissions, and jobs that it had prepared.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use crate::lab;
use crate::lab::aws::Account;
use crate::lab::aws::allowing;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;

mod prepared_jobs;
mod rsa_keys;

/// What users of the Go driver were ever told to allow.
const LEAST: [&str; 4] = [
    "ecs:RunTask",
    "ecs:DescribeTasks",
    "ecs:StopTask",
    "iam:PassRole",
];
/// What they were told to allow for public addresses.
const PUBLIC: &str = "ec2:DescribeNetworkInterfaces";
/// What one warning about tags names.
const UNTAGGED: &str = "ecs:TagResource";

/// Returns a policy of `config-examples/iam`, for this account.
pub(crate) fn policy(account: &Account, name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config-examples/iam");
    let text = std::fs::read_to_string(file.join(name)).unwrap();
    let text = text
        .replace("111122223333", account.id())
        .replace("eu-west-1", account.region());
    serde_json::from_str(&text).unwrap()
}

/// Checks that nothing was asked of AWS that the example of a bastion's policy does not name.
#[track_caller]
pub(crate) fn assert_example_names_all(account: &Account) {
    let policy = policy(account, "bastion.json");
    let statements = policy["Statement"].as_array().unwrap();
    let named: Vec<&str> = statements
        .iter()
        .flat_map(|statement| statement["Action"].as_array().unwrap())
        .map(|action| action.as_str().unwrap())
        .collect();
    for call in account.calls("*") {
        let action = format!("{}:{}", call.service, call.action);
        assert!(named.contains(&&*action), "{action} is not in {named:?}");
    }
}

/// An account, and the driver in the Go driver's place.
struct Place {
    account: Arc<Account>,
    /// A link to the driver, named as its users have it.
    _opt: tempfile::TempDir,
    link: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self::on(Arc::new(Account::new()))
    }

    /// Another driver in the same account.
    fn new_on(other: &Self) -> Self {
        Self::on(Arc::clone(&other.account))
    }

    fn on(account: Arc<Account>) -> Self {
        let opt = lab::temp_dir();
        let link = opt.path().join("fargate");
        let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
        std::os::unix::fs::symlink(driver, &link).unwrap();
        Self {
            account,
            _opt: opt,
            link,
        }
    }

    fn builder(&self) -> RunnerBuilder {
        Runner::builder()
            .on_account(&self.account)
            .driver(&self.link)
    }
}

/// Changes the payload of the current try.
pub(crate) fn edit_payload(runner: &Runner, edit: impl FnOnce(&mut Value)) {
    let file = runner.attempt().join("response.json");
    let mut payload = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    edit(&mut payload);
    std::fs::write(&file, payload.to_string()).unwrap();
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/go_driver");
    std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap()
}

/// Runs a job with a file of the Go driver's users, in which only names of the account have changed.
fn job_by_file(name: &str, cluster: &str, port: u16, policy: impl Fn(&Account) -> Value) -> Place {
    let place = Place::new();
    let account = &place.account;
    account.cluster(cluster, &["FARGATE", "FARGATE_SPOT"], &["FARGATE_SPOT"]);
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash).init();
    let runner = place
        .builder()
        .machine(machine.option(&format!("Port {port}")))
        .build();
    // The same machine behind the family that the file names; `ci` is another name of root there.
    for _ in 0..7 {
        account.task_definition("ci-job");
    }
    account.machine("ci-job", runner.server(), &BTreeMap::new());
    let machine = runner.server().home().parent().unwrap().to_owned();
    for (file, line) in [
        (
            "passwd",
            format!(
                "ci:x:0:0:ci:{}:/bin/bash\n",
                runner.server().home().display()
            ),
        ),
        ("shadow", "ci:*:19000:0:99999:7:::\n".to_owned()),
    ] {
        let file = machine.join(file);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text + &line).unwrap();
    }
    account.policy(&policy(account));

    let text = fixture(name)
        .replace(
            "/opt/gitlab-runner/metadata",
            runner.state_directory().to_str().unwrap(),
        )
        .replace("/var/log/gitlab-runner", runner.root().to_str().unwrap())
        .replace("subnet-0a1b2c3d", &account.subnets()[1])
        .replace("sg-0a1b2c3d", account.security_group())
        .replace("111122223333", account.id());
    runner.write_config(&text);

    // By the aliases, as they may be typed in the Runner's configuration.
    let config = runner.config_file();
    let config = config.to_str().unwrap();
    let answer = runner
        .call(&["--config", config, "c", "co"])
        .assert_success();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["builds_dir"], Value::Null);
    let prepared = runner.prepare().assert_success();
    // One warning for each of the things that users of the Go driver did not have either.
    let warned = prepared.contains(UNTAGGED);
    assert!(warned, "{prepared}");
    // Diagnostics, where the file asks for them, tell no secrets.
    let secret = &account.environment()[2].1;
    assert!(!prepared.contains(secret) && !prepared.contains("lab-job-token"));
    let task = account.alive().pop().unwrap();
    assert_eq!(
        task.provider.as_deref(),
        Some("FARGATE_SPOT"),
        "the default strategy"
    );
    assert!(task.tags.is_empty());
    let began = runner.run("prepare_script", "echo on").assert_success();
    assert_eq!(began.stdout_text(), "on\n", "{began}");
    assert_only_diagnostics(&began, name);
    let ended = runner.run("build_script", "echo out; echo err >&2; exit 3");
    let ended = ended.assert_code(1);
    assert_eq!(ended.stdout_text(), "out\nerr\n", "{ended}");
    assert_only_diagnostics(&ended, name);
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    runner.run("after_script", "true").assert_success();
    runner.cleanup().assert_success();
    assert!(account.left(None).is_empty());
    runner
        .call(&["--config", config, "c", "cl"])
        .assert_success();
    let stopped = account.tasks().pop().unwrap();
    assert!(stopped.reason.unwrap().contains("group/project"));
    assert_example_names_all(account);
    let refused: Vec<_> = account
        .calls("*")
        .into_iter()
        .filter(|c| c.status != Some(200))
        .collect();
    assert_eq!(refused.len(), 1, "only the one with tags: {refused:#?}");
    place
}

/// The driver itself adds nothing, unless its diagnostics were asked for.
#[track_caller]
fn assert_only_diagnostics(output: &Output, file: &str) {
    let text = output.stderr_text();
    let wanted = file == "lower-case";
    let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
    assert!(text.lines().all(|line| wanted && is_json(line)), "{output}");
}

fn least(_: &Account) -> Value {
    allowing(&LEAST)
}

#[test]
fn the_documented_file_works_as_it_is() {
    let place = job_by_file("documented", "ci-cluster", 22, least);
    let call = place.account.calls("RunTask").pop().unwrap().parameters;
    let network = &call["networkConfiguration"]["awsvpcConfiguration"];
    assert_eq!(network["assignPublicIp"], "ENABLED");
    assert_eq!(network["subnets"], json!([place.account.subnets()[1]]));
    assert_eq!(call["platformVersion"], "LATEST");
    assert_eq!(call["taskDefinition"], "ci-job:7");
    assert_eq!(call["launchType"], Value::Null);
    assert_eq!(call["capacityProviderStrategy"], Value::Null);
    // Public for outbound traffic alone.
    assert!(place.account.calls("DescribeNetworkInterfaces").is_empty());
}

#[test]
fn a_file_in_lower_case_works_as_it_is() {
    let place = job_by_file("lower-case", "ci", 2222, least);
    let call = place.account.calls("RunTask").pop().unwrap().parameters;
    assert_eq!(
        call["platformVersion"],
        Value::Null,
        "an empty value says nothing"
    );
    assert!(call["cluster"].as_str().unwrap().starts_with("arn:"));
}

#[test]
fn a_file_with_unknown_keys_works_as_it_is() {
    // And the policy that is shown to those who come from the Go driver.
    let policy = |account: &Account| policy(account, "bastion-go-driver.json");
    let place = job_by_file("unknown-keys", "ci", 22, policy);
    let call = place.account.calls("RunTask").pop().unwrap().parameters;
    assert_eq!(call["launchType"], Value::Null, "no key of the Go driver's");
}

#[test]
fn a_file_without_a_port_works_as_it_is() {
    let public = |_: &Account| allowing(&[&LEAST[..], &[PUBLIC]].concat());
    let place = job_by_file("no-port", "ci", 22, public);
    // It dials the public address.
    assert!(!place.account.calls("DescribeNetworkInterfaces").is_empty());
}

#[test]
fn tags_that_may_not_be_set_are_tried_once() {
    let place = Place::new();
    let account = &place.account;
    // Nor has the cluster a default strategy.
    account.allow(&LEAST);
    let first = place.builder().build();
    first.write_config(&first.go_driver_file());
    let prepared = first.prepare().assert_success();
    let text = prepared.stderr_text();
    let warnings = text.lines().filter(|line| line.contains(UNTAGGED));
    assert_eq!(warnings.count(), 1, "{prepared}");
    assert!(!prepared.contains("ERROR"), "{prepared}");
    let calls = account.calls("RunTask");
    let tagged: Vec<bool> = calls
        .iter()
        .map(|c| !c.parameters["tags"].is_null())
        .collect();
    assert_eq!(
        tagged,
        [true, false, false],
        "refused, without a strategy, on Fargate"
    );
    assert_eq!(calls[2].parameters["launchType"], "FARGATE");
    let tokens: Vec<&Value> = calls.iter().map(|c| &c.parameters["clientToken"]).collect();
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2]);
    first
        .run("build_script", "echo hello")
        .assert_stdout("hello\n");

    let second = place
        .builder()
        .state_directory(first.state_directory())
        .build();
    second.write_config(&second.go_driver_file());
    let prepared = second.prepare().assert_success();
    assert!(!prepared.contains(UNTAGGED), "{prepared}");
    let calls = account.calls("RunTask").split_off(3);
    assert!(
        calls.iter().all(|c| c.parameters["tags"].is_null()),
        "{calls:#?}"
    );
    second.run("build_script", "exit 7").assert_code(1);
    second.cleanup().assert_success();
    first.cleanup().assert_success();
    let actions = account.calls("*").into_iter().map(|c| c.action);
    assert!(
        actions
            .into_iter()
            .all(|a| LEAST.contains(&&*format!("ecs:{a}")))
    );
}

#[test]
fn an_image_is_ignored_with_the_old_file_and_refused_with_a_new_one() {
    let place = Place::new();
    let ask = |runner: &Runner| {
        edit_payload(runner, |payload| {
            payload["image"]["name"] = json!("ruby:3.3");
        });
    };
    let old = place.builder().build();
    old.write_config(&old.go_driver_file());
    ask(&old);
    let prepared = old.prepare().assert_success();
    let text = prepared.stdout_text() + &prepared.stderr_text();
    assert_eq!(text.matches("ruby:3.3").count(), 1, "{prepared}");
    old.run("build_script", "echo there")
        .assert_stdout("there\n");
    old.cleanup().assert_success();

    let new = place.builder().exit_codes("1", "9").build();
    ask(&new);
    let refused = new.prepare().assert_code(9);
    assert!(
        refused.contains("ruby:3.3") && refused.contains("image:"),
        "{refused}"
    );
    new.cleanup().assert_success();
    assert!(
        place
            .account
            .calls("RunTask")
            .iter()
            .all(|c| c.parameters["taskDefinition"] != new.family())
    );
}
