//! The binary in the Go driver's place: its command lines, its flags, its files.

use std::ffi::OsString;
use std::path::Path;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::stage::Output;

/// Calls the binary as a person does.
fn by_hand(args: &[&str], directory: &Path) -> Output {
    let path = OsString::from("/usr/bin:/bin");
    Call {
        name: args.join(" "),
        program: env!("CARGO_BIN_EXE_gitlab-aws-driver").into(),
        args: args.iter().map(Into::into).collect(),
        env: [("PATH".into(), path), ("HOME".into(), directory.into())].into(),
        directory: directory.to_owned(),
        ..Call::default()
    }
    .spawn()
    .wait(PATIENCE)
}

#[test]
fn a_job_runs_by_the_go_drivers_aliases_and_flags() {
    let runner = Runner::builder().build();
    let config = runner.config_file();
    let config = config.to_str().unwrap();
    let equals = format!("-config={config}");
    let script = runner.write_script("echo on\nexit 3\n");
    let script = script.to_str().unwrap();
    let answer = runner
        .call(&["--debug=false", "--config", config, "c", "co"])
        .assert_success();
    assert!(answer.stdout_text().contains("\"hostname\""), "{answer}");
    // So that the end of the test calls `cleanup`, whatever happens.
    drop(runner.spawn_prepare().wait(PATIENCE).assert_success());
    let ended = runner.call(&[
        &equals,
        "-log-level",
        "error",
        "c",
        "r",
        script,
        "build_script",
    ]);
    let ended = ended.assert_code(1).assert_stdout("on\n");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]), "{ended}");
    runner
        .call(&["-config", config, "custom", "cl"])
        .assert_success();
    runner.assert_nothing_left();
    runner.next_attempt();
    runner
        .call(&[
            "--config",
            config,
            "--task-def",
            "",
            "--platform-version=",
            "c",
            "p",
        ])
        .assert_success();
    runner
        .call(&["--config", config, "c", "cl"])
        .assert_success();
}

#[test]
fn flags_of_the_log_stand_above_the_file() {
    let runner = Runner::builder()
        .config_line("log_level = \"error\"\nlog_format = \"text\"")
        .build();
    let config = runner.config_file();
    let config = config.to_str().unwrap();
    let log = runner.root().join("diagnostics");
    let log = log.to_str().unwrap();
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    runner.start();
    let script = runner.write_script("echo on\n");
    let script = script.to_str().unwrap();
    let run = ["custom", "run", script, "build_script"];
    let flags = ["--config", config, "--log-file", log, "--log-format=json"];
    runner
        .call(&[&flags[..], &run].concat())
        .assert_stdout("on\n");
    assert_eq!(said(), "");
    runner
        .call(&[&flags[..], &["--debug"], &run].concat())
        .assert_stdout("on\n");
    let text = said();
    assert!(text.lines().count() > 0, "nothing at level debug");
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string(), "{line}");
    }
    // An empty value overrides nothing.
    let flags = ["--config", config, "--log-file", log, "--log-level="];
    runner
        .call(&[&flags[..], &run].concat())
        .assert_stdout("on\n");
    assert_eq!(said(), text);
}

#[test]
fn a_wrong_flag_is_the_machinerys_failure() {
    let runner = Runner::builder().exit_codes("7", "9").build();
    let config = runner.config_file();
    let config = config.to_str().unwrap();
    for (flags, word) in [
        (&["--log-level", "loud"][..], "loud"),
        (&["--log-format=xml"], "xml"),
        (&["--debug=maybe"], "maybe"),
        (&["-no-such-flag"], "-n"),
        (&["--config="], "--config"),
    ] {
        for stage in ["config", "prepare", "cleanup"] {
            let args = [&["--config", config][..], flags, &["custom", stage]].concat();
            let output = runner.call(&args).assert_code(9);
            assert!(
                output.contains(word) && output.stdout.is_empty(),
                "{output}"
            );
            assert!(!output.contains("panicked"), "{output}");
        }
    }
    let missing = ["--config", "/no/such/file.toml", "custom", "prepare"];
    runner.call(&missing).assert_code(9);
    let late = ["--config", config, "custom", "prepare", "--task-def", "x"];
    runner.call(&late).assert_code(9);
    assert!(!runner.state_directory().join("jobs").exists());
}

#[test]
fn files_of_the_go_driver_load_as_they_are() {
    let runner = Runner::builder().build();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/go_driver");
    for name in ["documented", "lower-case", "unknown-keys", "no-port"] {
        // None of them may write outside the test's own directory.
        let text = std::fs::read_to_string(files.join(format!("{name}.toml"))).unwrap();
        let state = runner.root().join(name);
        let text = text
            .replace("/opt/gitlab-runner/metadata", state.to_str().unwrap())
            .replace("/var/log/gitlab-runner", runner.root().to_str().unwrap());
        runner.write_config(&text);
        let answer = runner.config().assert_success();
        let json: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(json["builds_dir"], serde_json::Value::Null, "{answer}");
        assert!(json["hostname"].is_string(), "{answer}");
        runner.cleanup().assert_success();

        let config = runner.config_file();
        let page = by_hand(
            &["--config", config.to_str().unwrap(), "check"],
            runner.root(),
        );
        let page = page.assert_success();
        assert!(
            page.contains("a file of GitLab's Go Fargate driver"),
            "{page}"
        );
        assert_eq!(
            page.contains("unknown key"),
            name == "unknown-keys",
            "{page}"
        );
    }
}

#[test]
fn check_shows_what_flags_stand_above_the_file() {
    let directory = lab::temp_dir();
    let file = directory.path().join("f.toml");
    let text = "[Fargate]\nSubnet = \"a\"\nTaskDefinition = \"of-the-file\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let flags = [
        "--config",
        file,
        "--task-def",
        "of-the-flag:1",
        "--debug",
        "check",
    ];
    let page = by_hand(&flags, directory.path()).assert_success();
    assert!(
        page.contains("of-the-flag:1") && page.contains("level debug"),
        "{page}"
    );
    assert!(!page.contains("of-the-file"), "{page}");
}

#[test]
fn help_completions_and_the_manual_come_from_the_binary() {
    let directory = lab::temp_dir();
    let help = by_hand(&["-help"], directory.path()).assert_success();
    for word in [
        "--task-def",
        "--platform-version",
        "Flags of the Go driver",
        "reap",
    ] {
        assert!(help.contains(word), "no {word} in {help}");
    }
    let version = by_hand(&["-v"], directory.path()).assert_success();
    version.assert_stdout(format!("gitlab-aws-driver {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let text = by_hand(&["completions", shell], directory.path()).assert_success();
        assert!(
            text.contains("gitlab-aws-driver") && text.contains("task-def"),
            "{text}"
        );
    }
    let page = by_hand(&["man"], directory.path()).assert_success();
    assert!(page.contains(".TH gitlab-aws-driver 1"), "{page}");
    let page = by_hand(&["man", "try"], directory.path()).assert_success();
    assert!(page.contains("stage\\-attempts"), "{page}");
    by_hand(&["man", "local-guard"], directory.path()).assert_code(1);
    by_hand(&["completions", "tcsh"], directory.path()).assert_code(2);
}
