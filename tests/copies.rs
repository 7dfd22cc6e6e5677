//! Copies of a bastion (its image, its backup, its directory) are others: none ends what is another's.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use crate::lab;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::reap::ended;
use crate::reap::killed_while_coming_up;
use crate::reap::reap;

const ONE: &str = "i-0aaaaaaaaaaaaaaaa";
const OTHER: &str = "i-0bbbbbbbbbbbbbbbb";
/// What a host's firmware tells is what a test says.
const FIRMWARE: &str = "mount -t tmpfs none /sys/class && mkdir -p /sys/class/dmi/id";
/// Longer than a lease stands still before it is anybody's.
const LATER: u32 = 3600;

/// A driver that finds itself on another host than the tests.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    /// Returns the driver on an EC2 instance, as its firmware tells.
    fn instance(id: &str) -> Self {
        Self::new(
            "",
            &format!("{FIRMWARE} && echo {id} > /sys/class/dmi/id/board_asset_tag"),
        )
    }

    /// Returns the same so many seconds later, by its boot's clock.
    fn instance_later(id: &str, seconds: u32) -> Self {
        Self::new(
            &format!("--time --boottime {seconds} --fork"),
            &format!("{FIRMWARE} && echo {id} > /sys/class/dmi/id/board_asset_tag"),
        )
    }

    /// Returns the driver on a host whose firmware tells nothing.
    fn silent() -> Self {
        Self::new("", "mount -t tmpfs none /sys/class")
    }

    /// Returns the driver on a host that is none of EC2's.
    fn machine(id: &str) -> Self {
        let file = "[ -e /etc/machine-id ] || exit 99; f=$(mktemp)";
        Self::new(
            "",
            &format!(
                "{FIRMWARE} && {file} && echo {id} > $f && mount --bind $f /etc/machine-id && rm $f"
            ),
        )
    }

    fn new(unshare: &str, mounts: &str) -> Self {
        let directory = lab::temp_dir();
        let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
        let text = format!(
            "#!/bin/sh\nexec unshare -m {unshare} sh -c '{mounts} && exec \"$@\"' sh {driver} \"$@\"\n"
        );
        let path = directory.path().join("driver");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn driver(&self) -> PathBuf {
        self.directory.path().join("driver")
    }
}

/// Returns a job of a bastion: a host with a state directory.
fn job(account: &Arc<Account>, host: &Host, state: &Path) -> Runner {
    let builder = Runner::builder().on_account(account).driver(&host.driver());
    builder.state_directory(state).build()
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

fn manager(account: &Account, runner: &Runner) -> String {
    let task = account.tasks().into_iter();
    let mut task = task.filter(|task| task.family == runner.family());
    task.next().unwrap().tags["gitlab-aws-driver:manager"].clone()
}

#[test]
fn a_copied_bastion_ends_nothing_of_the_first() {
    let account = Arc::new(Account::new());
    let directory = lab::temp_dir();
    let (state, copied) = (
        directory.path().join("state"),
        directory.path().join("copy"),
    );
    let (one, other) = (Host::instance(ONE), Host::instance(OTHER));
    let alive = job(&account, &one, &state);
    alive.start();
    let name = manager(&account, &alive);
    copy(&state, &copied);
    let second = job(&account, &other, &copied);
    let same_host = job(&account, &one, &copied);
    // With what it knows of the first one's jobs, and without, as an image of an idle bastion is.
    for runner in [&second, &same_host] {
        assert_eq!(reap(runner)["ended"], json!([]));
    }
    std::fs::remove_dir_all(copied.join("jobs")).unwrap();
    second.start();
    for runner in [&second, &same_host, &alive] {
        assert_eq!(reap(runner)["ended"], json!([]));
    }
    assert_ne!(manager(&account, &second), name);
    // Each knows its own.
    std::fs::remove_dir_all(copied.join("jobs")).unwrap();
    assert_eq!(ended(&reap(&second)).len(), 1);
    second.assert_nothing_left();
    alive.assert_runs_and_ends();
}

#[test]
fn elsewhere_than_on_ec2_a_host_is_its_machine_id() {
    let account = Arc::new(Account::new());
    account.fault(&Fault::denied("RunTask").forever());
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let names: Vec<String> = ["a", "b", "a"]
        .iter()
        .map(|id| name_of(&account, &Host::machine(&id.repeat(32)), &state, &[]))
        .collect();
    assert_eq!(names[0], names[2]);
    assert_ne!(names[0], names[1]);
}

/// Returns the name by which a host asks for a task, in vain.
fn name_of(
    account: &Arc<Account>,
    host: &Host,
    state: &Path,
    environment: &[(&str, Option<&str>)],
) -> String {
    let mut builder = Runner::builder()
        .on_account(account)
        .driver(&host.driver())
        .state_directory(state);
    for (name, value) in environment {
        builder = builder.environment(name, *value);
    }
    let runner = builder.build();
    runner.config().assert_success();
    let before = account.calls("RunTask").len();
    runner.prepare().assert_code(2);
    runner.cleanup().assert_success();
    let call = &account.calls("RunTask")[before];
    call.parameters["startedBy"].as_str().unwrap().to_owned()
}

#[test]
fn an_instance_whose_firmware_says_nothing_is_known_by_its_metadata() {
    let account = Arc::new(Account::new());
    let hosts: Vec<Runner> = (0..2)
        .map(|_| Runner::builder().on_ec2_of(&account).build())
        .collect();
    for host in &hosts {
        host.start();
    }
    let instances = account.instances().into_iter();
    let endpoints: Vec<_> = instances
        .map(|one| one.metadata_endpoint.unwrap())
        .collect();
    account.fault(&Fault::denied("RunTask").forever());
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let silent = Host::silent();
    let ask = |endpoint: &str, disabled: Option<&str>| {
        let environment = [
            ("AWS_EC2_METADATA_DISABLED", disabled),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", Some(endpoint)),
        ];
        name_of(&account, &silent, &state, &environment)
    };
    let asked: BTreeSet<String> = endpoints.iter().map(|it| ask(it, None)).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.contains(&ask(&endpoints[0], None)));
    assert!(!asked.contains(&ask(&endpoints[0], Some("true"))));
    for host in &hosts {
        host.cleanup().assert_success();
    }
}

/// Has a job's file say what all that it launches is called.
fn named(runner: Runner) -> Runner {
    let text = runner.default_config();
    runner.write_config(&text.replace("[state]\n", "[state]\nmanager = \"ci\"\n"));
    runner
}

#[test]
fn a_name_that_moves_is_used_by_one_host_at_a_time() {
    let account = Arc::new(Account::new());
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let (one, other) = (Host::instance(ONE), Host::instance(OTHER));
    let (first, lost) = (
        named(job(&account, &one, &state)),
        named(job(&account, &one, &state)),
    );
    let orphan = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(state.join("jobs")).unwrap();
    first.start();
    assert_eq!(manager(&account, &first), "ci");
    assert_eq!(orphan.started_by.as_deref(), Some("gad-ci"));
    // The directory is another host's now, or both have it.
    let second = named(job(&account, &other, &state));
    for _ in 0..2 {
        let told = reap(&second);
        assert_eq!(told["ended"], json!([]), "{told:#}");
        let skipped = told["skipped"].to_string();
        assert!(skipped.contains("is not proven dead"), "{told:#}");
    }
    second.config().assert_success();
    let output = second.prepare().assert_success();
    assert!(output.contains("in use by another host"), "{output}");
    assert_ne!(manager(&account, &second), "ci");
    second.assert_runs_and_ends();
    first
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    // A stage of the first has renewed it: it has to be seen to stand still again.
    let hosts = [LATER, 2 * LATER].map(|seconds| Host::instance_later(OTHER, seconds));
    let [later, much_later] = hosts
        .each_ref()
        .map(|host| named(job(&account, host, &state)));
    assert_eq!(reap(&later)["ended"], json!([]));
    // Its holder is dead by now, and with it the Runner of its job.
    let told = reap(&much_later);
    let all = ended(&told);
    assert_eq!(all.len(), 2, "{told:#}");
    assert!(all.contains(&orphan.arn), "{told:#}");
    first.assert_nothing_left();
    let told = reap(&first);
    assert!(told["skipped"].to_string().contains(OTHER), "{told:#}");
    first.cleanup().assert_success();
}

#[test]
fn a_name_is_taken_from_an_instance_once_aws_says_that_it_is_gone() {
    let account = Arc::new(Account::new());
    let holder = Runner::builder().on_ec2_of(&account).build();
    holder.start();
    let instance = account.instances().remove(0).id;
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let host = Host::instance(&instance);
    let lost = named(job(&account, &host, &state));
    let orphan = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(state.join("jobs")).unwrap();
    // However long its lease has stood still.
    for seconds in [LATER, 2 * LATER] {
        let host = Host::instance_later(OTHER, seconds);
        let other = named(job(&account, &host, &state));
        assert_eq!(reap(&other)["ended"], json!([]));
    }
    holder.cleanup().assert_success();
    let host = Host::instance(OTHER);
    let other = named(job(&account, &host, &state));
    let told = reap(&other);
    assert_eq!(ended(&told), [orphan.arn], "{told:#}");
}
