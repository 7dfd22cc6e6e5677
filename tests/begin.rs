//! How a stage begins: who the job is comes from the copy that GitLab Runner hands over and from nothing else, `cleanup` ends
//! what it left whatever is wrong, and diagnostics keep nothing from going on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::bad_input::assert_refused;
use crate::bad_input::jobs;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::stage::Output;
use crate::scripts::record_file;

/// What every error begins with where the job cannot be told from others.
const UNKNOWN: &str = "which job this is cannot be told";

/// Ways to hand over no job, and what is said of each.
fn unreadable() -> [(&'static str, Option<Vec<u8>>, &'static str); 9] {
    let deep = format!(r#"{{"id":7,"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    [
        ("missing", None, "No such file"),
        ("empty", Some(Vec::new()), "EOF"),
        ("cut off", Some(b"{\"id\": 7, \"job_in".to_vec()), "EOF"),
        ("no JSON", Some(vec![0; 64]), "expected value"),
        ("no job", Some(b"[]".to_vec()), "holds no job"),
        ("no number", Some(b"{\"id\":null}".to_vec()), "holds no job"),
        ("too deep", Some(deep.into_bytes()), "recursion limit"),
        ("a pipe", None, "no regular file"),
        ("a directory", None, "directory"),
    ]
}

/// Puts something in the place of the payload.
fn replace_payload(runner: &Runner, what: &str, text: Option<&[u8]>) {
    let file = runner.attempt().join("response.json");
    match std::fs::symlink_metadata(&file) {
        Ok(there) if there.is_dir() => std::fs::remove_dir(&file).unwrap(),
        Ok(_) => std::fs::remove_file(&file).unwrap(),
        Err(_) => {}
    }
    match (what, text) {
        ("a pipe", _) => make_pipe(&file),
        ("a directory", _) => std::fs::create_dir(&file).unwrap(),
        (_, Some(text)) => std::fs::write(&file, text).unwrap(),
        (_, None) => {}
    }
}

fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

/// Runs a stage with other variables than the Runner gives; a `None` removes one.
fn with(runner: &Runner, args: &[&str], changes: &[(&str, Option<&str>)]) -> Output {
    let mut env = runner.stage_environment();
    for (name, value) in changes {
        match value {
            Some(value) => drop(env.insert(name.into(), value.into())),
            None => drop(env.remove(OsStr::new(name))),
        }
    }
    let words = args.iter().map(OsString::from).collect();
    let stage = runner.spawn_in(args[0], words, env, &runner.attempt());
    stage.wait(PATIENCE)
}

#[test]
fn without_the_copy_of_the_job_nothing_begins_and_no_other_job_is_touched() {
    let shared = lab::temp_dir();
    let state = shared.path().join("state");
    let [victim, runner] = [(), ()].map(|()| Runner::builder().state_directory(&state).build());
    victim.start();
    // All that the job can say of itself is that it is the other.
    let id = victim.job().to_string();
    let forged = [("CUSTOM_ENV_CI_JOB_ID", Some(id.as_str()))];
    let good = std::fs::read(runner.attempt().join("response.json")).unwrap();
    let script = runner.write_script("echo never");
    let script = script.to_str().unwrap();
    for (what, text, why) in unreadable() {
        replace_payload(&runner, what, text.as_deref());
        for args in [
            &["config"][..],
            &["prepare"],
            &["run", script, "build_script"],
        ] {
            let output = with(&runner, args, &forged);
            assert_refused(&output, 2, &[UNKNOWN, why]);
            assert!(output.contains("GitLab Runner (15.0 or later)"), "{output}");
            assert!(output.stdout.is_empty(), "{what}: {output}");
        }
        let output = with(&runner, &["cleanup"], &forged).assert_success();
        let output = output.assert_contains("nothing that this try has started is known");
        assert!(output.contains(why), "{what}: {output}");
        victim.run("build_script", "echo on").assert_stdout("on\n");
    }
    let absent = [forged[0], ("JOB_RESPONSE_FILE", None)];
    for args in [
        &["config"][..],
        &["prepare"],
        &["run", script, "build_script"],
        &["cleanup"],
    ] {
        assert_refused(
            &with(&runner, args, &absent),
            2,
            &[UNKNOWN, "no JOB_RESPONSE_FILE"],
        );
    }
    victim.run("build_script", "echo on").assert_stdout("on\n");
    // With the copy it is a job like any other, and loses it again.
    replace_payload(&runner, "whole", Some(&good));
    runner.start();
    replace_payload(&runner, "cut off", Some(b"{\"id\": 7"));
    let output = with(&runner, &["run", script, "build_script"], &forged);
    assert_refused(&output, 2, &[UNKNOWN]);
    let output = with(&runner, &["cleanup"], &forged).assert_success();
    let output = output.assert_contains(UNKNOWN);
    assert!(
        output.contains("machine was ended all the same"),
        "{output}"
    );
    runner.assert_nothing_left();
    assert_eq!(jobs(&state), 1);
    victim.run("build_script", "echo on").assert_stdout("on\n");
    victim.cleanup().assert_success();
}

/// Of two things that tell a try from others one is not enough: the directory's name may come again, and so may its Runner.
#[test]
fn a_cleanup_without_the_copy_of_the_job_ends_none_of_another_runner_or_try() {
    let runner = Runner::builder().build();
    runner.start();
    let files =
        ["record.json", "intent.json"].map(|name| record_file(&runner).with_file_name(name));
    let whole = files.each_ref().map(|path| std::fs::read(path).unwrap());
    let good = std::fs::read(runner.attempt().join("response.json")).unwrap();
    replace_payload(&runner, "missing", None);
    let another_runner: &dyn Fn(&mut Value) = &|value| {
        let started = value["owner"]["started"].as_u64().unwrap();
        value["owner"]["started"] = (started + 1).into();
    };
    let another_try: &dyn Fn(&mut Value) = &|value| value["attempt"] = "0".repeat(64).into();
    for change in [another_runner, another_try] {
        for (path, text) in files.iter().zip(&whole) {
            let mut value: Value = serde_json::from_slice(text).unwrap();
            change(&mut value);
            std::fs::write(path, value.to_string()).unwrap();
        }
        let output = with(&runner, &["cleanup"], &[]).assert_success();
        assert!(
            output.contains("nothing that this try has started"),
            "{output}"
        );
        assert!(!runner.processes().is_empty());
    }
    for (path, text) in files.iter().zip(&whole) {
        std::fs::write(path, text).unwrap();
    }
    replace_payload(&runner, "whole", Some(&good));
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
}

/// As GitLab's own tests have it.
#[test]
fn a_job_may_have_the_number_0() {
    let runner = Runner::builder()
        .payload_field("id", serde_json::json!(0))
        .build();
    runner.start();
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// A job may have its own say in how its state is called, and have it differ from stage to stage (`$CI_JOB_STATUS`).
#[test]
fn a_short_token_that_changes_hides_no_machine() {
    let runner = Runner::builder().build();
    runner.start();
    let token = |value| [("CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN", Some(value))];
    let script = runner.write_script("echo on");
    let run = ["run", script.to_str().unwrap(), "build_script"];
    with(&runner, &run, &token("failed")).assert_stdout("on\n");
    with(&runner, &["cleanup"], &token("success")).assert_success();
    runner.assert_nothing_left();
    assert_eq!(jobs(runner.state_directory()), 0);
    runner.cleanup().assert_success();
}

#[test]
fn cleanup_ends_the_machine_whatever_is_wrong_with_the_configuration() {
    let broken: [(&str, &str); 5] = [
        ("missing", "there is no file"),
        ("no TOML", "not TOML"),
        ("wrong", "port"),
        ("a directory", "directory"),
        ("too large", "1 MiB"),
    ];
    for (index, (what, why)) in broken.into_iter().enumerate() {
        let runner = Runner::builder().build();
        let good = runner.default_config();
        runner.start();
        let file = runner.config_file();
        std::fs::remove_file(&file).unwrap();
        match what {
            "missing" => {}
            "no TOML" => runner.write_config(&good.replacen("[ssh]", "[ssh", 1)),
            "wrong" => runner.write_config(&good.replacen("[ssh]", "[ssh]\nport = 0", 1)),
            "a directory" => std::fs::create_dir(&file).unwrap(),
            _ => std::fs::write(&file, vec![b'#'; 2 << 20]).unwrap(),
        }
        // The file alone says where the state is, where it can still be read, and else the job's own directory.
        if index == 1 {
            std::fs::remove_file(runner.attempt().join(".gitlab-aws-driver.json")).unwrap();
        }
        let output = runner.cleanup();
        assert_refused(&output, 2, &["config.toml", why]);
        assert!(
            output.contains("The job's machine was ended all the same."),
            "{what}: {output}"
        );
        runner.assert_nothing_left();
        assert_eq!(jobs(runner.state_directory()), 0);
        // There is nothing more to say of.
        let again = runner.cleanup();
        assert_refused(&again, 2, &["config.toml", why]);
        assert!(!again.contains("ended"), "{again}");
        if what == "a directory" {
            std::fs::remove_dir(&file).unwrap();
        }
        runner.write_config(&good);
        runner.cleanup().assert_success();
    }
}

/// The region and the role of a task stand in its request: nothing of the file is needed to end it.
#[test]
fn cleanup_ends_a_task_without_its_configuration_or_the_copy_of_its_job() {
    let runner = Runner::builder().on_fargate().build();
    let good = runner.default_config();
    runner.start();
    runner.write_config("capacity = \n");
    let payload = std::fs::read(runner.attempt().join("response.json")).unwrap();
    replace_payload(&runner, "missing", None);
    assert_refused(&runner.cleanup(), 2, &["config.toml:1:"]);
    runner.assert_nothing_left();
    runner.write_config(&good);
    replace_payload(&runner, "whole", Some(&payload));
    runner.cleanup().assert_success();
}

#[test]
fn a_job_is_found_where_it_was_prepared_though_the_state_directory_changed() {
    let runner = Runner::builder().build();
    runner.start();
    let elsewhere = runner.root().join("elsewhere");
    let old = format!("directory = \"{}\"", runner.state_directory().display());
    let new = format!("directory = \"{}\"", elsewhere.display());
    runner.write_config(&runner.default_config().replacen(&old, &new, 1));
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    assert_eq!(jobs(runner.state_directory()), 0);
    assert!(!elsewhere.join("jobs").exists());
}

/// Returns what `log_file` may be that cannot be written, and why.
fn unwritable(root: &Path) -> [(String, &'static str); 4] {
    let pipe = root.join("pipe");
    make_pipe(&pipe);
    let root = root.display();
    [
        (format!("{root}/missing/log"), "No such file"),
        (format!("{root}"), "Is a directory"),
        (pipe.display().to_string(), "No such device or address"),
        ("/dev/full".to_owned(), "No space left"),
    ]
}

#[test]
fn a_log_file_that_cannot_be_written_is_a_warning_and_no_more() {
    let directory = lab::temp_dir();
    for (file, why) in unwritable(directory.path()) {
        let runner = Runner::builder()
            .config_line(&format!("log_file = {file:?}\nlog_level = \"trace\""))
            .build();
        let words = format!("cannot write the log file {file}: {why}");
        let told = |output: Output| {
            let output = output.assert_success();
            let text = output.stderr_text();
            assert_eq!(
                text.matches("WARNING: there are no diagnostics").count(),
                1,
                "{output}"
            );
            assert!(text.contains(&words) && !text.contains("TRACE"), "{output}");
            output
        };
        let answer = told(runner.config()).stdout;
        assert!(
            serde_json::from_slice::<Value>(&answer).is_ok(),
            "{answer:?}"
        );
        told(runner.prepare());
        let output = told(runner.run("build_script", "echo on"));
        assert_eq!(output.stdout, b"on\n", "{output}");
        for command in [&["check"][..], &["reap"], &["try", "--", "true"]] {
            let output = runner.command(command).assert_success();
            assert!(output.contains(&words), "{output}");
        }
        told(runner.cleanup());
        runner.assert_nothing_left();
    }
}

/// What a check says of a log file makes none: another user than the Runner's would own it.
#[test]
fn check_makes_no_log_file() {
    let runner = Runner::builder().build();
    let log = runner.root().join("log");
    let line = format!("log_file = {log:?}\n");
    runner.write_config(&(line + &runner.default_config()));
    let output = runner.command(&["check"]).assert_success();
    assert!(!output.contains("diagnostics: cannot"), "{output}");
    assert!(!log.exists());
    runner.config().assert_success();
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_diagnostics_stand_in_an_answer() {
    let runner = Runner::builder()
        .config_line("log_file = \"/dev/stdout\"\nlog_level = \"trace\"")
        .build();
    let output = runner.config().assert_success();
    assert!(
        serde_json::from_slice::<Value>(&output.stdout).is_ok(),
        "{output}"
    );
    runner.prepare().assert_success();
    let output = runner.run("build_script", "echo on").assert_success();
    assert_eq!(output.stdout, b"on\n", "{output}");
}

/// Plays another Runner process: the stages' parent is that shell.
const ANOTHER_RUNNER: &str = "set -m\n\
    \"$driver\" --config \"$config\" custom config > config.out || exit 3\n\
    \"$driver\" --config \"$config\" custom prepare\n\
    exit $?";

fn by_another_runner(runner: &Runner) -> Output {
    let mut env = runner.stage_environment();
    let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
    env.extend(BTreeMap::<OsString, OsString>::from([
        ("driver".into(), driver.into()),
        ("config".into(), runner.config_file().into()),
    ]));
    let stage = Call {
        name: "another Runner".to_owned(),
        program: "/bin/bash".into(),
        args: ["-c", ANOTHER_RUNNER].map(Into::into).into(),
        env,
        directory: runner.attempt(),
        ..Call::default()
    }
    .spawn();
    stage.wait(PATIENCE)
}

/// GitLab Runner's check of itself at each start runs a job that has the same number each time.
#[test]
fn a_final_failure_holds_for_one_runner_process_and_one_content_of_the_configuration() {
    let image = serde_json::json!({ "name": "alpine:3.20" });
    let runner = Runner::builder().payload_field("image", image).build();
    let told = |output: Output| {
        let output = output.assert_code(2);
        output.contains("as it was told")
    };
    let tombstones = runner.state_directory().join("tombstones");
    // Leaves the failure of a try, in words by which it is known again.
    let fail = || {
        runner.next_attempt();
        runner.config().assert_success();
        assert!(!told(with(&runner, &["prepare"], &[])));
        let path = std::fs::read_dir(&tombstones)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["final_failure"]["message"] = "as it was told".into();
        std::fs::write(&path, value.to_string()).unwrap();
        runner.cleanup().assert_success();
        runner.next_attempt();
        path
    };
    let prepare = || {
        runner.config().assert_success();
        told(with(&runner, &["prepare"], &[]))
    };
    fail();
    assert!(prepare(), "the next try of the same");
    runner.next_attempt();
    assert!(
        told(with(&runner, &["prepare"], &[])),
        "and without a `config`"
    );
    runner.next_attempt();
    assert!(!told(by_another_runner(&runner)));
    // That left its own word.
    std::fs::remove_dir_all(&tombstones).unwrap();
    fail();
    runner.write_config(&format!("{}# mended\n", runner.default_config()));
    assert!(!prepare());
    std::fs::remove_dir_all(&tombstones).unwrap();
    fail();
    let flags = ["--task-def", "other"];
    let config = runner.config_file();
    let words = [
        &["--config", config.to_str().unwrap()],
        &flags[..],
        &["custom", "prepare"],
    ];
    assert!(!told(runner.call(&words.concat())));
    std::fs::remove_dir_all(&tombstones).unwrap();
    // As 0.1.0 left it: for nobody in particular.
    let path = fail();
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for newer in ["owner", "candidates", "configuration"] {
        value.as_object_mut().unwrap().remove(newer);
    }
    std::fs::write(&path, value.to_string()).unwrap();
    assert!(!prepare());
    runner.assert_nothing_left();
}

/// The time for which all tries together wait for room begins anew with another Runner process.
#[test]
fn when_a_job_was_first_seen_holds_for_one_runner_process() {
    let runner = Runner::builder().build();
    let seen = || {
        let intent = record_file(&runner).with_file_name("intent.json");
        let intent: Value = serde_json::from_slice(&std::fs::read(intent).unwrap()).unwrap();
        intent["first_seen"].as_u64().unwrap()
    };
    runner.start();
    runner.cleanup().assert_success();
    // Long ago, as far as the word of it tells.
    let tombstones = runner.state_directory().join("tombstones");
    let path = std::fs::read_dir(&tombstones)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    value["first_seen"] = 7.into();
    std::fs::write(&path, value.to_string()).unwrap();
    runner.next_attempt();
    runner.start();
    assert_eq!(seen(), 7);
    runner.cleanup().assert_success();
    runner.next_attempt();
    by_another_runner(&runner).assert_success();
    assert!(seen() > 7);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// A stage that is killed leaves no lock behind it, and one that lives is no reason to wait.
#[test]
fn stages_of_a_job_run_beside_each_other() {
    let runner = Runner::builder().build();
    runner.start();
    let one = runner.spawn_run("build_script", "echo begun; sleep 600");
    one.wait_output(b"begun\n", PATIENCE);
    runner.run("after_script", "echo on").assert_stdout("on\n");
    one.signal(Signal::KILL);
    one.wait(PATIENCE);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
