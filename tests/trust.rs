//! What the driver believes of what it finds on its own host: nothing that somebody else may have put there, and nothing that
//! holds it up.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::bad_input::assert_refused;
use crate::bad_input::jobs;
use crate::lab;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;
use crate::lab::tools;
use crate::scripts::record_file;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn pipe(path: &Path) {
    let made = Command::new(tools::program("mkfifo")).arg(path).status();
    assert!(made.unwrap().success());
}

/// Checks that whatever rests on the state directory is refused, and that a machine is ended all the same.
#[track_caller]
fn assert_distrusted(runner: &Runner, words: &[&str]) {
    assert_refused(&runner.run("build_script", "echo never"), 2, words);
    let reaped = runner.command(&["reap"]).assert_code(1);
    for word in words {
        assert!(reaped.contains(word), "no {word:?} in {reaped}");
    }
    let checked = runner.command(&["check"]).assert_code(1);
    for word in words {
        assert!(checked.contains(word), "no {word:?} in {checked}");
    }
    let last = checked.stderr_text();
    let last = last.lines().last().unwrap_or_default();
    assert!(last.starts_with("1 error: "), "{checked}");
}

#[test]
fn a_state_directory_that_others_may_change_is_refused_and_its_machine_is_ended() {
    let place = lab::temp_dir();
    let state = place.path().join("above/state");
    let runner = Runner::builder().state_directory(&state).build();
    // (What of it, as it is, as it shall not be.)
    for (part, bits) in [
        ("..", 0o777),
        ("", 0o770),
        ("jobs", 0o775),
        ("notes", 0o757),
    ] {
        runner.next_attempt();
        runner.start();
        let path = state.join(part);
        std::fs::create_dir_all(&path).unwrap();
        let was = path.metadata().unwrap().permissions();
        mode(&path, bits);
        let shown = format!("mode {bits:04o}");
        assert_distrusted(&runner, &["cannot be trusted", &shown]);
        let output = runner.cleanup().assert_success();
        assert!(
            output.contains("WARNING: ") && output.contains(&shown),
            "{output}"
        );
        runner.assert_nothing_left();
        assert_eq!(jobs(&state), 0, "{part}");
        runner.next_attempt();
        runner.config().assert_success();
        assert_refused(&runner.prepare(), 2, &["cannot be trusted", &shown]);
        runner.assert_nothing_left();
        std::fs::set_permissions(&path, was).unwrap();
        runner.cleanup().assert_success();
    }
    runner.next_attempt();
    runner.start();
    runner.command(&["check"]).assert_success();
    runner.assert_runs_and_ends();
}

#[test]
fn a_state_directory_of_somebody_else_is_refused_also_behind_a_link() {
    let place = lab::temp_dir();
    let (theirs, link) = (place.path().join("theirs"), place.path().join("link"));
    for folder in [&theirs, &theirs.join("state")] {
        std::fs::create_dir(folder).unwrap();
        mode(folder, 0o755);
    }
    symlink(theirs.join("state"), &link).unwrap();
    let runner = Runner::builder().state_directory(&link).build();
    runner.start();
    runner.assert_runs_and_ends();
    chown(&theirs, Some(4711), None).unwrap();
    runner.next_attempt();
    assert_refused(&runner.prepare(), 2, &["cannot be trusted", "user 4711"]);
    runner.cleanup().assert_success();
    assert!(!theirs.join("state/jobs").read_dir().unwrap().any(|_| true));
}

/// What lies in the place of a file that the driver wrote.
fn replaced(path: &Path, how: &str) {
    std::fs::remove_file(path).unwrap();
    match how {
        "pipe" => pipe(path),
        "device" => symlink("/dev/zero", path).unwrap(),
        "directory" => std::fs::create_dir(path).unwrap(),
        "link" => symlink("/etc/passwd", path).unwrap(),
        _ => {
            std::fs::write(path, "{}").unwrap();
            mode(path, 0o666);
        }
    }
}

#[test]
fn what_is_no_file_of_the_drivers_own_holds_up_no_stage() {
    let runner = Runner::builder().build();
    for (how, word) in [
        ("pipe", "a named pipe"),
        ("device", "symbolic link"),
        ("directory", "Is a directory"),
        ("link", "symbolic link"),
        ("open", "others than its owner may write to it"),
    ] {
        for name in ["record.json", "intent.json"] {
            runner.next_attempt();
            runner.start();
            let path = record_file(&runner).with_file_name(name);
            let good = std::fs::read(&path).unwrap();
            replaced(&path, how);
            if name == "record.json" {
                assert_refused(&runner.run("build_script", "echo never"), 2, &[name, word]);
            }
            runner.command(&["reap", "--dry-run"]).assert_code(1);
            assert_refused(&runner.cleanup(), 2, &[name, word]);
            // The other file was enough.
            runner.assert_nothing_left();
            match how {
                "directory" => std::fs::remove_dir(&path).unwrap(),
                _ => std::fs::remove_file(&path).unwrap(),
            }
            std::fs::write(&path, &good).unwrap();
            runner.cleanup().assert_success();
        }
    }
}

#[test]
fn a_named_pipe_in_the_place_of_the_name_holds_up_no_stage() {
    // What runs on this host has no name to be known by.
    let runner = Runner::builder().on_fargate().build();
    let state = runner.state_directory();
    std::fs::create_dir_all(state).unwrap();
    mode(state, 0o700);
    pipe(&state.join("manager"));
    assert_refused(&runner.prepare(), 2, &["manager", "a named pipe"]);
    std::fs::remove_file(state.join("manager")).unwrap();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_configuration_that_is_no_file_is_refused_at_once() {
    let runner = Runner::builder().build();
    let file = runner.config_file();
    let refused = |output: Output, word: &str| assert_refused(&output, 2, &["cannot read", word]);
    std::fs::remove_file(&file).unwrap();
    pipe(&file);
    refused(runner.config(), "a named pipe");
    refused(runner.run("build_script", "echo never"), "a named pipe");
    std::fs::remove_file(&file).unwrap();
    symlink("/dev/zero", &file).unwrap();
    refused(runner.config(), "it is a device");
    std::fs::remove_file(&file).unwrap();
    runner.write_config(&runner.default_config());
}

/// No number that a server, a file or an administrator writes makes a panic of a sum of times.
#[test]
fn huge_times_are_bounded_or_refused() {
    let runner = Runner::builder().job_timeout(u64::MAX).build();
    runner.start();
    let path = record_file(&runner).with_file_name("intent.json");
    let read =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
    let mut intent = read();
    let (created, deadline) = (&intent["created"], &intent["deadline"]);
    let lifetime = deadline.as_u64().unwrap() - created.as_u64().unwrap();
    assert!(lifetime < 400 * 24 * 3600, "{lifetime}");
    for key in ["created", "first_seen", "deadline"] {
        intent[key] = json!(u64::MAX);
    }
    std::fs::write(&path, intent.to_string()).unwrap();
    let reaped = runner.command(&["reap"]).assert_success();
    assert!(!reaped.contains("panicked"), "{reaped}");
    runner.assert_runs_and_ends();

    let file = runner.default_config();
    for key in ["rung_wait", "capacity_wait", "deadline_margin"] {
        for time in [
            "99999999999999999y",
            "18446744073709551615s 1000ms",
            "31days",
            "0s",
            "-1s",
        ] {
            runner.write_config(&format!("{key} = \"{time}\"\n{file}"));
            assert_refused(&runner.config(), 2, &["config.toml:1:", key, time]);
        }
    }
    runner.write_config(&file);
}
