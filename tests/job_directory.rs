//! A job whose `cleanup` came to nothing while its Runner lives: `reap` ends it once the Runner's own directory for the job is
//! surely gone, and leaves it alone wherever that cannot be told.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::stage::Stage;
use crate::lab::tools;
use crate::reap::ended;
use crate::reap::reap;
use crate::scripts::Gate;
use crate::scripts::record_file;
use crate::stops::hold;

/// Checks that `reap` leaves the job alone, and that it goes on.
#[track_caller]
fn assert_left_alone(runner: &Runner) {
    assert_eq!(reap(runner)["ended"], json!([]));
    assert!(record_file(runner).exists());
    assert!(!runner.processes().is_empty());
}

#[track_caller]
fn assert_ended(runner: &Runner) {
    assert_reaped(runner);
    runner.assert_nothing_left();
}

#[track_caller]
fn assert_reaped(runner: &Runner) {
    let report = reap(runner);
    assert_eq!(ended(&report).len(), 1, "{report:#}");
    assert!(
        report.to_string().contains("removed its directory"),
        "{report:#}"
    );
}

#[test]
fn a_job_whose_cleanup_was_killed_ends_once_its_directory_is_gone() {
    let runner = Runner::builder().build();
    runner.start();
    runner.run("build_script", "echo on").assert_stdout("on\n");
    let held = hold(&runner);
    let cleanup = runner.spawn_cleanup();
    cleanup.signal(Signal::KILL);
    cleanup.wait(PATIENCE);
    drop(held);
    assert_left_alone(&runner);
    std::fs::remove_dir_all(runner.attempt()).unwrap();
    let output = runner.command(&["reap", "--dry-run"]).assert_success();
    assert!(output.stdout_text().contains("would end"), "{output}");
    assert!(!runner.processes().is_empty());
    assert_ended(&runner);
}

/// Five minutes after a hard cancel the Runner removes it beside a `run` that still lives, and systemd-tmpfiles may at any time.
#[test]
fn a_job_whose_stage_lives_is_left_alone_though_its_directory_is_gone() {
    let runner = Runner::builder().build();
    runner.start();
    let gate = Gate::new(runner.root());
    let script = format!("echo begun\nread -r code < {gate}\nexit $code\n");
    let run = runner.spawn_run("build_script", script);
    run.wait_output(b"begun\n", PATIENCE);
    std::fs::remove_dir_all(runner.attempt()).unwrap();
    assert_left_alone(&runner);
    gate.open("0");
    run.wait(PATIENCE).assert_success().assert_stdout("begun\n");
    assert_ended(&runner);
}

#[test]
fn of_a_directory_whose_parent_is_another_nothing_is_believed() {
    let runner = Runner::builder().build();
    runner.start();
    let parent = runner.attempt().parent().unwrap().to_owned();
    let moved = runner.root().join("moved");
    std::fs::rename(&parent, &moved).unwrap();
    assert_left_alone(&runner);
    std::fs::create_dir(&parent).unwrap();
    assert_left_alone(&runner);
    std::fs::remove_dir(&parent).unwrap();
    std::fs::rename(&moved, &parent).unwrap();
    runner.run("build_script", "echo on").assert_stdout("on\n");
    // Nor in another boot than the one in which its number was noted: the same number may be another's.
    let intent = record_file(&runner).with_file_name("intent.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&intent).unwrap()).unwrap();
    let boot = value["directory"]["boot"].as_u64().unwrap();
    value["directory"]["boot"] = (boot ^ 1).into();
    std::fs::write(&intent, value.to_string()).unwrap();
    let kept = runner.root().join("kept");
    std::fs::rename(runner.attempt(), &kept).unwrap();
    assert_left_alone(&runner);
    std::fs::rename(&kept, runner.attempt()).unwrap();
    runner.cleanup().assert_success();
}

/// A wrapper script that names a directory of its own says nothing of the job's life by it.
#[test]
fn a_directory_that_is_not_the_runners_tells_nothing() {
    let runner = Runner::builder().build();
    let own = runner.root().join("own");
    std::fs::create_dir(&own).unwrap();
    let mut env = runner.stage_environment();
    env.insert("TMPDIR".into(), own.clone().into());
    for name in ["config", "prepare"] {
        let stage = runner.spawn_in(name, vec![name.into()], env.clone(), &runner.attempt());
        stage.wait(PATIENCE).assert_success();
    }
    std::fs::remove_dir_all(&own).unwrap();
    assert_left_alone(&runner);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// A Runner in namespaces of its own, which has another directory where the temporary ones are, and in it a job that is
/// prepared.
struct Apart<'a> {
    runner: &'a Runner,
    player: Stage,
    /// Its directory for the job, as it is seen from outside.
    inside: PathBuf,
}

const APART: &str = "set -m\n\
    mkdir \"$private\"\n\
    cp -a \"$tmp\"/. \"$private\"\n\
    mount --bind \"$private\" \"$tmp\"\n\
    cd \"$TMPDIR\"\n\
    \"$driver\" --config \"$config\" custom config > config.out || exit 1\n\
    \"$driver\" --config \"$config\" custom prepare > prepare.out 2>&1 || { cat prepare.out; exit 1; }\n\
    cd /\n\
    echo prepared\n\
    eval \"read -r nothing < $idle\"\n";

impl<'a> Apart<'a> {
    fn start(runner: &'a Runner, gate: &Gate, more: &[&str]) -> Self {
        let tmp = runner.attempt().parent().unwrap().to_owned();
        let private = runner.root().join("private");
        let inside = private.join(runner.attempt().file_name().unwrap());
        let mut env = runner.stage_environment();
        env.extend(BTreeMap::<OsString, OsString>::from([
            (
                "driver".into(),
                env!("CARGO_BIN_EXE_gitlab-aws-driver").into(),
            ),
            ("config".into(), runner.config_file().into()),
            ("idle".into(), gate.to_string().into()),
            ("private".into(), private.into()),
            ("tmp".into(), tmp.into()),
        ]));
        let usual = ["--mount", "--propagation", "private"];
        let words = usual.iter().chain(more).chain(&["bash", "-c", APART]);
        let player = Call {
            name: "a Runner apart".to_owned(),
            program: tools::program("unshare"),
            args: words.map(Into::into).collect(),
            env,
            directory: runner.root().to_owned(),
            ..Call::default()
        }
        .spawn();
        player.wait_output(b"prepared\n", PATIENCE);
        Self {
            runner,
            player,
            inside,
        }
    }

    /// Removes the job's directory where everybody else sees one.
    fn remove_outside(&self) {
        let attempt = self.runner.attempt();
        assert_ne!(inode(&attempt), inode(&self.inside));
        std::fs::remove_dir_all(attempt).unwrap();
    }
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap().ino()
}

/// As with systemd's `PrivateTmp`.
#[test]
fn a_runner_with_a_private_tmp_is_believed_by_its_own_alone() {
    let runner = Runner::builder().build();
    let gate = Gate::new(runner.root());
    let apart = Apart::start(&runner, &gate, &[]);
    apart.remove_outside();
    assert_left_alone(&runner);
    std::fs::remove_dir_all(&apart.inside).unwrap();
    assert_reaped(&runner);
    gate.open("");
    apart.player.wait(PATIENCE).assert_success();
    runner.assert_nothing_left();
}

/// Nobody outside can tell whether that Runner lives, nor where it sees its directories.
#[test]
fn of_a_runner_in_a_container_nothing_is_believed() {
    let runner = Runner::builder().build();
    let gate = Gate::new(runner.root());
    let apart = Apart::start(&runner, &gate, &["--pid", "--fork", "--mount-proc"]);
    apart.remove_outside();
    assert_left_alone(&runner);
    std::fs::remove_dir_all(&apart.inside).unwrap();
    assert_left_alone(&runner);
    gate.open("");
    apart.player.wait(PATIENCE).assert_success();
}
