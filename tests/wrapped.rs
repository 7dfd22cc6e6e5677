//! What stands between GitLab Runner and the driver: wrapper programs are never taken for the Runner, and its end is noticed
//! behind them.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::kills::MORTAL_RUNNER;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::traces;
use crate::lab::traces::until;
use crate::reap::reap;
use crate::scripts::record;
use crate::scripts::record_file;

/// Ways to call the driver that give it a process group of its own, below a process that is another one for each stage.
const WRAPPERS: [(&str, &str); 4] = [
    ("timeout", "timeout 100 \"$driver\" \"$@\"\nexit $?"),
    ("setsid", "setsid -w \"$driver\" \"$@\"\nexit $?"),
    ("exec setsid", "exec setsid -w \"$driver\" \"$@\""),
    ("two", "setsid -w timeout 100 \"$driver\" \"$@\"\nexit $?"),
];

/// Writes such a program into a directory.
fn wrapper(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("wrapper");
    let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
    lab::write_program(&path, &format!("#!/bin/sh\ndriver='{driver}'\n{text}\n"));
    path
}

fn us() -> Value {
    json!(std::process::id())
}

#[test]
fn a_wrapper_is_not_taken_for_the_runner() {
    for (name, text) in WRAPPERS {
        let directory = lab::temp_dir();
        let runner = Runner::builder().driver(&wrapper(&directory, text)).build();
        runner.start();
        assert_eq!(record(&runner)["owner"]["pid"], us(), "{name}");
        // The wrappers of the stages before are gone.
        assert_eq!(reap(&runner)["ended"], json!([]), "{name}");
        runner.run("build_script", "echo on").assert_stdout("on\n");
        runner.run("build_script", "exit 7").assert_code(1);
        assert_eq!(runner.exit_file().as_deref(), Some(&b"7"[..]), "{name}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

/// `config_exec` is not needed: then the first script settles it.
#[test]
fn without_a_config_stage_the_first_script_settles_who_the_runner_is() {
    for (name, text) in [
        ("none", "exec \"$driver\" \"$@\""),
        WRAPPERS[0],
        WRAPPERS[2],
    ] {
        let directory = lab::temp_dir();
        let runner = Runner::builder().driver(&wrapper(&directory, text)).build();
        runner.prepare().assert_success();
        assert_eq!(record(&runner)["owner"], json!(null), "{name}");
        assert_eq!(reap(&runner)["ended"], json!([]), "{name}");
        runner
            .run("prepare_script", "echo on")
            .assert_stdout("on\n");
        assert_eq!(record(&runner)["owner"]["pid"], us(), "{name}");
        let intent = record_file(&runner).with_file_name("intent.json");
        let intent: Value = serde_json::from_slice(&std::fs::read(intent).unwrap()).unwrap();
        assert_eq!(intent["owner"]["pid"], us(), "{name}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

/// As `setsid` without `-w`: the Runner is no ancestor of any stage.
#[test]
fn a_stage_that_nobody_waits_for_knows_no_runner_and_works() {
    let directory = lab::temp_dir();
    let text = "exec setsid \"$driver\" \"$@\"";
    let runner = Runner::builder().driver(&wrapper(&directory, text)).build();
    runner.start();
    assert_eq!(reap(&runner)["ended"], json!([]));
    for _ in 0..2 {
        runner.run("build_script", "echo on").assert_stdout("on\n");
    }
    assert_eq!(reap(&runner)["ended"], json!([]));
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// Whoever was taken for the Runner has not called this stage. As versions before this one noted it behind a wrapper, and as
/// after a boot.
#[test]
fn an_owner_that_did_not_call_is_corrected_and_nothing_is_ended() {
    let runner = Runner::builder().build();
    runner.start();
    let boot: &dyn Fn(&mut Value) =
        &|owner| owner["boot"] = (owner["boot"].as_u64().unwrap() ^ 1).into();
    let gone: &dyn Fn(&mut Value) = &|owner| owner["started"] = 1.into();
    let stranger: &dyn Fn(&mut Value) = &|owner| {
        let stat = std::fs::read_to_string("/proc/1/stat").unwrap();
        let started = stat
            .rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .nth(19)
            .unwrap();
        owner["pid"] = 1.into();
        owner["started"] = started.parse::<u64>().unwrap().into();
    };
    for change in [boot, gone, stranger] {
        let files = ["record.json", "intent.json"];
        let files = files.map(|name| record_file(&runner).with_file_name(name));
        for path in &files {
            let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            change(&mut value["owner"]);
            std::fs::write(path, value.to_string()).unwrap();
        }
        runner.run("get_sources", "echo on").assert_stdout("on\n");
        assert_eq!(record(&runner)["owner"], json!(null));
        assert_eq!(reap(&runner)["ended"], json!([]));
        runner.run("build_script", "echo on").assert_stdout("on\n");
        assert_eq!(record(&runner)["owner"]["pid"], us());
        assert_eq!(reap(&runner)["ended"], json!([]));
    }
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_runner_that_dies_is_missed_behind_a_wrapper() {
    for (name, text) in [WRAPPERS[0], WRAPPERS[2]] {
        let directory = lab::temp_dir();
        let wrapper = wrapper(&directory, text);
        let runner = Runner::builder().build();
        let script = runner.write_script("echo ready; sleep 6005");
        let mortal = Call {
            name: "a Runner".to_owned(),
            program: "/bin/bash".into(),
            args: [
                "-c".into(),
                MORTAL_RUNNER.into(),
                "bash".into(),
                wrapper.into(),
            ]
            .into_iter()
            .chain([runner.config_file().into(), script.into()])
            .collect(),
            env: runner.stage_environment(),
            directory: runner.attempt(),
            ..Call::default()
        }
        .spawn();
        let read =
            |name: &str| std::fs::read_to_string(runner.attempt().join(name)).unwrap_or_default();
        until("the script's first line", PATIENCE, || {
            assert!(
                !mortal.is_over(),
                "{}{}",
                mortal.so_far(),
                read("prepare.out")
            );
            read("run.out").contains("ready\n")
        });
        mortal.signal(Signal::KILL);
        let left = processes::wait_none(runner.root(), PATIENCE);
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "{name}: {left:?}\n{}", read("run.err"));
        traces::assert_only_tombstones(runner.state_directory(), 1);
        assert!(
            read("run.err").contains("GitLab Runner is gone"),
            "{}",
            read("run.err")
        );
    }
}
