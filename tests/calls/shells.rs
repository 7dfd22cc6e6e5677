//! Runners whose own file names another shell than machines have.

use crate::fargate_capacity::assert_failure;
use crate::lab::runner::Runner;

#[test]
fn the_runner_is_asked_for_bash() {
    let runner = Runner::builder().build();
    let answer: serde_json::Value =
        serde_json::from_slice(&runner.config().assert_success().stdout).unwrap();
    assert_eq!(answer["shell"], "bash");
}

#[test]
fn with_a_file_of_the_go_driver_the_runners_shell_stays_and_its_scripts_are_refused() {
    let runner = Runner::builder().on_fargate().build();
    runner.write_config(&runner.go_driver_file());
    let config = runner.config().assert_success();
    let answer: serde_json::Value = serde_json::from_slice(&config.stdout).unwrap();
    assert_eq!(answer.get("shell"), None);
    runner.prepare().assert_success();
    for (name, language) in [
        ("script.ps1", "PowerShell"),
        ("script.cmd", "Windows' command processor"),
    ] {
        let script = runner.attempt().join(name);
        std::fs::write(&script, "echo never\n").unwrap();
        let output = runner.spawn_run_file("prepare_script", &script);
        let output = output.wait(crate::lab::PATIENCE);
        let cause = format!("for {language}, and the job's machine has a POSIX shell");
        let output = assert_failure(output, &cause, "Write shell = \"bash\" under [[runners]]");
        assert!(!output.contains("never"), "{output}");
    }
    // What is written for bash has no ending, or an empty one.
    let script = runner.attempt().join("script.");
    std::fs::write(&script, "echo on\n").unwrap();
    let output = runner.spawn_run_file("build_script", &script);
    output
        .wait(crate::lab::PATIENCE)
        .assert_success()
        .assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
