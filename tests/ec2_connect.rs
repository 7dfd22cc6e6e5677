//! EC2 Instance Connect: jobs whose key AWS itself vouches for, a minute long, on instances whose user data name nobody.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use base64ct::Base64;
use base64ct::Encoding as _;

use crate::fargate_capacity::assert_failure;
use crate::fargate_drop_in::policy;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Harm;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces::long;

/// The action, as the lab's log has it.
const SEND: &str = "SendSSHPublicKey";

/// A machine whose sshd asks for keys, as with the package ec2-instance-connect.
fn asking() -> ServerBuilder {
    ServerBuilder::new(Kind::OpenSsh, Login::Bash).instance_connect()
}

fn job_of(account: &Arc<Account>, machine: ServerBuilder) -> RunnerBuilder {
    let builder = Runner::builder().machine(machine).on_ec2_of(account);
    builder.ec2_line("instance_connect = true")
}

fn job(machine: ServerBuilder) -> RunnerBuilder {
    job_of(&Arc::new(Account::new()), machine)
}

/// Returns the lines of the account's `authorized_keys`.
fn kept(runner: &Runner) -> Vec<String> {
    let file = runner.server().home().join(".ssh/authorized_keys");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    text.lines().map(String::from).collect()
}

#[track_caller]
fn clean(runner: &Runner) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_job_is_admitted_by_aws_and_its_user_data_name_no_key() {
    let account = Arc::new(Account::new());
    account.policy(&policy(&account, "bastion-ec2.json"));
    let runner = job_of(&account, asking()).build();
    runner.start();
    let instance = account.instances_alive().remove(0);
    let told = Base64::decode_vec(&instance.user_data.unwrap()).unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("ed25519_private"), "{told}");
    assert!(!told.contains("authorized_keys"), "{told}");

    let sent = account.calls(SEND);
    let [sent] = &sent[..] else {
        panic!("{sent:#?}");
    };
    assert_eq!(sent.parameters["InstanceId"], instance.id.as_str());
    assert_eq!(sent.parameters["InstanceOSUser"], "root");
    let key = sent.parameters["SSHPublicKey"].as_str().unwrap();
    assert!(!told.contains(key.split(' ').nth(1).unwrap()), "{told}");

    // The minute is over, and the account has the key itself.
    account.expire_sent_keys();
    runner
        .run("build_script", "echo here")
        .assert_stdout("here\n");
    assert_eq!(kept(&runner), [key.trim_end()]);
    let mode = |name: &str| {
        let path = runner.server().home().join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode(".ssh"), 0o700);
    assert_eq!(mode(".ssh/authorized_keys"), 0o600);
    clean(&runner);
}

#[test]
fn an_ordinary_login_keeps_the_key_in_its_own_home() {
    let runner = job(asking().user("admin")).build();
    runner.start();
    let account = runner.account();
    let sent = account.calls(SEND).pop().unwrap();
    assert_eq!(sent.parameters["InstanceOSUser"], "admin");
    account.expire_sent_keys();
    runner
        .run("build_script", "id -un")
        .assert_stdout("admin\n");
    assert_eq!(kept(&runner).len(), 1);
    clean(&runner);
}

#[test]
fn a_cut_while_the_account_takes_the_key_costs_no_more_than_another_login() {
    let account = Arc::new(Account::new());
    let play = |fault: Option<(Direction, u64)>| {
        let runner = job_of(&account, asking()).through_proxy().build();
        let proxy = runner.proxy();
        if let Some((direction, bytes)) = fault {
            proxy.fault_after(direction, bytes, Harm::Cut(Cut::Reset));
        }
        runner.start();
        let counts = proxy.counts();
        account.expire_sent_keys();
        runner
            .run("build_script", "echo here")
            .assert_stdout("here\n");
        assert_eq!(kept(&runner).len(), 1);
        clean(&runner);
        counts
    };
    let whole = play(None);
    assert_eq!(whole.cut, 0);
    // The end of the login, the command that keeps the key, its answer.
    for direction in [Direction::Up, Direction::Down] {
        for part in (52..100).step_by(if long() { 2 } else { 15 }) {
            let at = whole.bytes(direction) * part / 100;
            assert_eq!(play(Some((direction, at))).cut, 1, "{direction:?} {at}");
        }
    }
}

#[test]
fn a_key_that_came_too_late_is_sent_again() {
    let runner = job(asking()).build();
    let account = runner.account();
    account.stale_keys(1);
    runner.start();
    assert_eq!(account.calls(SEND).len(), 2);
    account.expire_sent_keys();
    runner
        .run("build_script", "echo here")
        .assert_stdout("here\n");
    assert_eq!(kept(&runner).len(), 1);
    clean(&runner);
}

#[test]
fn nothing_is_sent_before_something_listens() {
    let machine = asking().listen_late(Duration::from_secs(8));
    let runner = job(machine).build();
    let account = runner.account();
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    account.wait_instance("the machine's start", |one| one.machine_alive);
    assert!(account.calls(SEND).is_empty());
    prepare.wait(PATIENCE).assert_success();
    assert_eq!(account.calls(SEND).len(), 1);
    clean(&runner);
}

#[test]
fn an_instance_that_the_service_does_not_know_yet_is_asked_for_again() {
    for code in [
        "EC2InstanceNotFoundException",
        "EC2InstanceStateInvalidException",
    ] {
        let runner = job(asking()).build();
        let account = runner.account();
        account.fault(&Fault::error(SEND, 400, code, "Not yet.").times(2));
        account.fault(&Fault::throttle(SEND));
        runner.start();
        assert_eq!(account.calls(SEND).len(), 4, "{code}");
        clean(&runner);
    }
}

#[test]
fn what_aws_refuses_is_told_with_its_remedy_and_nothing_stays() {
    let denied = "is not authorized to perform: ec2-instance-connect:SendSSHPublicKey";
    let allow = "Allow the driver's role ec2-instance-connect:SendSSHPublicKey";
    let kind = "EC2InstanceTypeInvalidException";
    for (fault, cause, remedy) in [
        (Fault::denied(SEND), denied, allow),
        (
            Fault::error(SEND, 400, kind, "Not of that type."),
            kind,
            "`instance_types`",
        ),
    ] {
        let runner = job(asking()).build();
        let account = runner.account();
        account.fault(&fault);
        runner.config().assert_success();
        let output = assert_failure(runner.prepare(), cause, remedy);
        assert!(output.duration < Duration::from_secs(20), "{output}");
        assert_eq!(account.calls(SEND).len(), 1);
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
        // Nobody can do better until somebody changes something: the next try asks for nothing.
        let instances = account.instances().len();
        runner.next_attempt();
        assert_failure(runner.prepare(), cause, remedy);
        assert_eq!(account.instances().len(), instances);
        clean(&runner);
    }
}

#[test]
fn a_role_is_told_by_its_policy_alone_whom_it_may_admit() {
    let account = Arc::new(Account::new());
    let mut document = policy(&account, "bastion-ec2.json");
    let statements = document["Statement"].as_array_mut().unwrap().iter_mut();
    let send = |one: &serde_json::Value| one["Sid"] == "SendKeysToTheFleetsInstances";
    for statement in statements.filter(|one| send(one)) {
        statement["Condition"]["StringEquals"]["ec2:osuser"] = "somebody".into();
    }
    account.policy(&document);
    let runner = job_of(&account, asking()).build();
    runner.config().assert_success();
    assert_failure(
        runner.prepare(),
        "SendSSHPublicKey",
        "Allow the driver's role",
    );
    clean(&runner);
}

#[test]
fn an_image_that_asks_nobody_is_told_what_it_lacks() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let runner = job(machine).connect_timeout("8s").build();
    runner.config().assert_success();
    assert_failure(
        runner.prepare(),
        "it does not accept the job's key",
        "ec2-instance-connect",
    );
    clean(&runner);
}

#[test]
fn an_account_that_cannot_keep_the_key_is_told_why() {
    let runner = job(asking()).build();
    // A file stands where the directory should.
    let folder = runner.server().home().join(".ssh");
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    runner.config().assert_success();
    let output = assert_failure(
        runner.prepare(),
        "the login's account cannot keep the job's key: ",
        "~/.ssh/authorized_keys",
    );
    assert!(output.contains("File exists"), "{output}");
    clean(&runner);
}
