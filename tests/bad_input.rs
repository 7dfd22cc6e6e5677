//! Whatever is wrong with what a stage is given: one line that says so, at most one that says what to do, the
//! code for failures of the machinery, and nothing lost.

use std::path::Path;

use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;

/// Checks that a stage failed for want of something other than the script, and how it reads.
#[track_caller]
pub(crate) fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code(), Some(code), "{output}");
    let text = output.stderr_text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        matches!(lines.len(), 1 | 2),
        "{} lines: {output}",
        lines.len()
    );
    let (red, reset) = ("\x1b[31;1m", "\x1b[0;m");
    for line in &lines {
        assert!(line.starts_with(red) && line.ends_with(reset), "{output}");
        let inner = &line[red.len()..line.len() - reset.len()];
        assert!(!inner.contains('\x1b') && inner.len() < 600, "{output}");
    }
    let cause = lines[0].trim_start_matches(red);
    assert!(cause.starts_with("ERROR: "), "{output}");
    for word in words {
        assert!(cause.contains(word), "no {word:?} in {output}");
    }
    for word in ["panicked", "RUST_BACKTRACE", "unwrap", "Some(", "Err("] {
        assert!(!text.contains(word), "{word:?} in {output}");
    }
    let remedy = lines.get(1).map_or("", |line| line.trim_start_matches(red));
    assert!(!remedy.starts_with("ERROR"), "{output}");
}

/// Runs each stage in turn.
fn each_stage(runner: &Runner) -> [(&'static str, Output); 4] {
    [
        ("config", runner.config()),
        ("prepare", runner.prepare()),
        ("run", runner.run("build_script", "echo never")),
        ("cleanup", runner.cleanup()),
    ]
}

#[test]
fn what_is_wrong_with_the_configuration_is_said_with_file_line_and_key() {
    // (The change, what the message holds.)
    let cases: [(&str, &str, &[&str]); 18] = [
        // Broken TOML.
        (
            "capacity = [\"local\"]",
            "capacity = [\"local\"",
            &["config.toml:", "not TOML"],
        ),
        (
            "capacity = [\"local\"]",
            "capacity",
            &["config.toml:1:", "not TOML"],
        ),
        ("[ssh]", "[ssh", &["config.toml:", "not TOML"]),
        ("[ssh]", "[ssh]\n= 1", &["config.toml:", "not TOML"]),
        (
            "username = \"root\"",
            "username = \"root",
            &["config.toml:", "not TOML"],
        ),
        (
            "username = \"root\"",
            "username = \"a\"\nusername = \"b\"",
            &["config.toml:", "username"],
        ),
        ("[ssh]", "[state]", &["config.toml:", "state"]),
        // Wrong types.
        (
            "capacity = [\"local\"]",
            "capacity = 7",
            &["config.toml:1:", "capacity"],
        ),
        (
            "capacity = [\"local\"]",
            "capacity = [\"moon\"]",
            &["config.toml:1:", "moon"],
        ),
        (
            "capacity = [\"local\"]",
            "capacity = [1]",
            &["config.toml:1:", "capacity"],
        ),
        (
            "allow_jobs_on_this_host = true",
            "allow_jobs_on_this_host = \"yes\"",
            &["config.toml:2:", "allow_jobs_on_this_host"],
        ),
        (
            "username = \"root\"",
            "username = 5",
            &["config.toml:", "username"],
        ),
        (
            "username = \"root\"",
            "connect_timeout = \"soon\"",
            &["config.toml:", "connect_timeout"],
        ),
        // Out of range.
        (
            "username = \"root\"",
            "port = 70000",
            &["config.toml:", "port", "70000", "65535"],
        ),
        ("username = \"root\"", "port = 0", &["config.toml:", "port"]),
        (
            "username = \"root\"",
            "port = -1",
            &["config.toml:", "port"],
        ),
        (
            "username = \"root\"",
            "port = \"22\"",
            &["config.toml:", "port"],
        ),
        // Not meant for here.
        (
            "allow_jobs_on_this_host = true",
            "allow_jobs_on_this_host = false",
            &["config.toml:", "local", "allow_jobs_on_this_host"],
        ),
    ];
    let runner = Runner::builder().build();
    let good = runner.default_config();
    for (old, new, words) in cases {
        assert!(good.contains(old), "{old}");
        // Each wait is there already, and may not stand twice.
        let base = match new.split(' ').next() {
            Some("connect_timeout") => good.replace("connect_timeout = \"30s\"\n", ""),
            _ => good.clone(),
        };
        let text = base.replacen(old, new, 1);
        runner.write_config(&text);
        let mut seen = Vec::new();
        for (stage, output) in each_stage(&runner) {
            assert_refused(&output, 2, words);
            assert!(output.stdout.is_empty(), "{stage}: {output}");
            seen.push(output.stderr_text());
        }
        assert!(seen.iter().all(|text| *text == seen[0]), "{seen:#?}");
        // The line of the key itself is the one named.
        if let Some(line) = text.lines().position(|line| line.starts_with("port = ")) {
            let place = format!("config.toml:{}:", line + 1);
            assert!(seen[0].contains(&place), "{place}: {}", seen[0]);
        }
    }
    runner.write_config(&good);
    runner.assert_nothing_left();
    assert!(!runner.state_directory().exists());
}

#[test]
fn a_configuration_that_is_no_text_or_not_there_is_said() {
    let runner = Runner::builder().build();
    let good = runner.default_config();
    let file = runner.config_file();
    let refused = |words: &[&str]| {
        for (_, output) in each_stage(&runner) {
            assert_refused(&output, 2, words);
        }
    };
    std::fs::write(&file, b"capacity = [\"local\"]\n# \xff\xfe\n").unwrap();
    refused(&["config.toml:2:", "UTF-8"]);
    std::fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
    refused(&["config.toml", "1 MiB"]);
    std::fs::write(&file, vec![0; 4096]).unwrap();
    refused(&["config.toml:1:"]);
    std::fs::remove_file(&file).unwrap();
    refused(&["config.toml"]);
    std::fs::create_dir(&file).unwrap();
    refused(&["config.toml"]);
    std::fs::remove_dir(&file).unwrap();
    rustix::fs::symlink("config.toml", &file).unwrap();
    refused(&["config.toml"]);
    std::fs::remove_file(&file).unwrap();
    runner.write_config(&good);
    runner.start();
    // It goes away under a job: no script runs, and the job goes on once it is back.
    std::fs::remove_file(&file).unwrap();
    let output = runner.run("build_script", "echo never");
    assert_refused(&output, 2, &["config.toml"]);
    assert!(!runner.processes().is_empty());
    runner.write_config(&good);
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn codes_that_are_missing_or_no_numbers_are_said() {
    // (Build code, system code, the code to end with.)
    let cases: [(Option<&str>, Option<&str>, i32, &str); 12] = [
        (None, Some("9"), 9, "BUILD_FAILURE_EXIT_CODE is not set"),
        (Some("1"), None, 2, "SYSTEM_FAILURE_EXIT_CODE is not set"),
        (None, None, 2, "_FAILURE_EXIT_CODE is not set"),
        (Some(""), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("one"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("0"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("256"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("-1"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("1"), Some("two"), 2, "SYSTEM_FAILURE_EXIT_CODE"),
        (Some("1"), Some("0"), 2, "SYSTEM_FAILURE_EXIT_CODE"),
        (Some("1"), Some("2 system"), 2, "SYSTEM_FAILURE_EXIT_CODE"),
        (
            Some("1"),
            Some("99999999999999999999"),
            2,
            "SYSTEM_FAILURE_EXIT_CODE",
        ),
    ];
    let runner = Runner::builder().build();
    for (build, system, code, words) in cases {
        runner.next_attempt();
        runner.start();
        runner.run("build_script", "echo on").assert_stdout("on\n");
        let spawn = |name: &str, args: &[&str]| {
            let mut env = runner.stage_environment();
            for (name, value) in [
                ("BUILD_FAILURE_EXIT_CODE", build),
                ("SYSTEM_FAILURE_EXIT_CODE", system),
            ] {
                match value {
                    Some(value) => drop(env.insert(name.into(), value.into())),
                    None => drop(env.remove(std::ffi::OsStr::new(name))),
                }
            }
            let args = args.iter().map(Into::into).collect();
            let stage = runner.spawn_in(name, args, env, &runner.attempt());
            stage.wait(PATIENCE)
        };
        let script = runner.write_script("echo never");
        let script = script.to_str().unwrap();
        for (name, args) in [
            ("config", &["config"][..]),
            ("prepare", &["prepare"]),
            ("run", &["run", script, "build_script"]),
        ] {
            let output = spawn(name, args);
            assert_refused(&output, code, &[words]);
            assert!(output.stdout.is_empty(), "{output}");
        }
        // A cleanup does its work all the same.
        let output = spawn("cleanup", &["cleanup"]);
        assert_refused(&output, code, &[words]);
        runner.assert_nothing_left();
        assert_eq!(jobs(runner.state_directory()), 0);
        runner.cleanup().assert_success();
    }
}

/// Returns how many jobs the state knows.
pub(crate) fn jobs(state: &Path) -> usize {
    std::fs::read_dir(state.join("jobs")).map_or(0, Iterator::count)
}

#[test]
fn a_script_that_is_not_there_is_said() {
    let runner = Runner::builder().build();
    runner.start();
    let missing = runner.attempt().join("no-such-script");
    let refused = |path: &Path, words: &[&str]| {
        let output = runner.spawn_run_file("build_script", path).wait(PATIENCE);
        assert_refused(&output, 2, words);
        assert_eq!(runner.exit_file(), None);
    };
    refused(&missing, &["no-such-script", "No such file"]);
    refused(&runner.attempt(), &["directory"]);
    refused(&missing.join("below"), &["no-such-script"]);
    runner.run("build_script", "echo on").assert_stdout("on\n");
}

#[test]
fn a_wrong_command_line_never_blames_the_script() {
    let runner = Runner::builder().exit_codes("7", "9").build();
    for args in [
        &["run"][..],
        &["run", "x"],
        &["prepare", "extra"],
        &["no-such-stage"],
        &[],
    ] {
        let output = runner.spawn("misused", args).wait(PATIENCE);
        // 7 would blame the user's script.
        assert!(!matches!(output.code(), Some(0 | 7) | None), "{output}");
        assert!(!output.contains("panicked"), "{output}");
    }
}

#[test]
fn a_job_that_was_never_prepared_is_said() {
    let runner = Runner::builder().build();
    let output = runner.run("build_script", "echo never");
    assert_refused(&output, 2, &["nothing is known of this job"]);
    assert!(output.stdout.is_empty());
    assert!(!runner.state_directory().exists());
    runner.cleanup().assert_success();
}

#[test]
fn a_prepare_that_is_called_twice_leaves_the_machine_as_it_is() {
    let runner = Runner::builder().build();
    runner.start();
    assert_refused(&runner.prepare(), 2, &["twice"]);
    runner.run("build_script", "echo on").assert_stdout("on\n");
}

#[test]
fn a_job_that_cannot_be_told_from_others_is_refused() {
    let cases = [
        (
            vec!["CUSTOM_ENV_CI_JOB_ID", "JOB_RESPONSE_FILE"],
            "which job this is",
        ),
        (vec!["TMPDIR"], "TMPDIR"),
    ];
    let runner = Runner::builder().build();
    for (removed, word) in cases {
        let mut env = runner.stage_environment();
        for name in removed {
            assert!(env.remove(std::ffi::OsStr::new(name)).is_some());
        }
        for stage in ["config", "prepare", "cleanup"] {
            let args = vec![stage.into()];
            let stage = runner.spawn_in(stage, args, env.clone(), runner.root());
            assert_refused(&stage.wait(PATIENCE), 2, &[word]);
        }
    }
    runner.assert_nothing_left();
    assert!(!runner.state_directory().exists());
}

#[test]
fn a_payload_that_cannot_be_read_is_named_where_nothing_else_tells_the_job() {
    let runner = Runner::builder()
        .environment("JOB_RESPONSE_FILE", Some("/nonexistent/response.json"))
        .environment("CUSTOM_ENV_CI_JOB_ID", None)
        .build();
    for output in [runner.config(), runner.run("build_script", "echo never")] {
        let why = "/nonexistent/response.json: No such file or directory";
        assert_refused(&output, 2, &["which job this is cannot be told", why]);
    }
    runner.assert_nothing_left();
}

#[test]
fn a_machine_of_this_host_that_cannot_start_is_told_with_why() {
    let runner = Runner::builder()
        .environment("HOME", Some("/nonexistent"))
        .build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    let why = "could log in: the SSH server failed: the home directory /nonexistent cannot be used";
    output
        .assert_contains(why)
        .assert_contains("the machine of `local`");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
