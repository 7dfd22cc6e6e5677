//! What was typed, what `config` answers and what exit codes mean.

use clap::Parser;

use super::super::args::Args;
use super::super::verdict::{Exit, Failure, go_duration, judge};
use super::script;
use crate::error::Kind;
use crate::ops::try_job::config_answer::Answer;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parse(words: &[&str]) -> Result<Args, String> {
    let words = ["try"].iter().chain(words);
    Cli::try_parse_from(words)
        .map(|cli| cli.args)
        .map_err(|e| e.to_string())
}

#[test]
fn the_command_becomes_one_line() {
    let args = parse(&["--env", "A=b=c", "--", "sh", "-c", "echo 'it''s' $HOME", ""]).unwrap();
    let job = args.job().unwrap();
    assert_eq!(
        String::from_utf8(job.script).unwrap(),
        r"sh -c 'echo '\''it'\'''\''s'\'' $HOME' ''"
    );
    assert_eq!(job.variables, [("A".to_owned(), "b=c".to_owned())]);
    assert_eq!(job.timeout.as_secs(), 3600);
}

#[test]
fn attempts_become_a_variable() {
    let job = parse(&["--stage-attempts", "3", "--", "true"])
        .unwrap()
        .job()
        .unwrap();
    assert_eq!(
        job.variables,
        [("GET_SOURCES_ATTEMPTS".to_owned(), "3".to_owned())]
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    for words in [
        &[][..],
        &["--script", "x", "--", "true"],
        &["--stage-attempts", "0", "--", "true"],
        &["--stage-attempts", "11", "--", "true"],
        &["--timeout", "0.1s", "--", "true"],
        &["--timeout", "10ms", "--", "true"],
        &["--timeout", "soon", "--", "true"],
        &["--env", "A", "--", "true"],
        &["--env", "=b", "--", "true"],
        &["--env", "1A=b", "--", "true"],
        &["--env", "A-B=c", "--", "true"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn a_script_that_no_shell_could_hold_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script");
    let job = |file: &std::path::Path| parse(&["--script", file.to_str().unwrap()]).unwrap().job();
    let missing = job(&file).unwrap_err();
    assert_eq!(missing.kind(), Kind::Contract);
    std::fs::write(&file, b"echo\0").unwrap();
    let nul = job(&file).unwrap_err();
    assert_eq!(nul.kind(), Kind::Contract);
    assert!(
        nul.to_string().ends_with("has a NUL byte at offset 4"),
        "{nul}"
    );
    std::fs::write(&file, b"echo \xff\r\n").unwrap();
    assert_eq!(job(&file).unwrap().script, b"echo \xff\r\n");
}

#[test]
fn the_answer_is_nothing_or_one_object() {
    assert_eq!(Answer::read(b"").unwrap(), Answer::default());
    assert_eq!(
        Answer::read(br#"{"x": 1, "builds_dir": null}"#).unwrap(),
        Answer::default()
    );
    assert_eq!(
        Answer::read(br#"{"shell": "sh"}"#)
            .unwrap()
            .shell
            .as_deref(),
        Some("sh")
    );
    for bad in [
        &b"\n"[..],
        b"[]",
        b"{",
        b"{} {}",
        br#"{"hostname": 5}"#,
        br#"{"shell": "pwsh"}"#,
        b"\xff",
    ] {
        assert!(Answer::read(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_exit_code_file_is_read_as_the_runner_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("build_exit_code");
    // Without a file the build code counts as the script's.
    assert_eq!(judge(&Exit::Code(1), &file), Some(script(1)));
    for (content, code) in [
        ("42", Some(42)),
        ("42\n", Some(42)),
        ("42\r\n", Some(42)),
        ("42\n\nmore", Some(42)),
        ("-1", Some(-1)),
        ("+7", Some(7)),
        ("300", Some(300)),
        ("", None),
        ("\n42", None),
        (" 42", None),
        ("42 ", None),
        ("4x", None),
    ] {
        std::fs::write(&file, content).unwrap();
        let expected = code.map_or_else(
            || {
                let why = "unknown Custom executor executable exit code 2; executable execution terminated with: exit status 1";
                Failure::System(why.into())
            },
            |code| Failure::Script {
                code,
                // As it is in the file, its sign included.
                said: format!("exit status {}", content.lines().next().unwrap()),
            },
        );
        assert_eq!(judge(&Exit::Code(1), &file), Some(expected), "{content:?}");
    }
    // It is looked at for the build code alone.
    assert_eq!(judge(&Exit::Code(0), &file), None);
    assert_eq!(
        judge(&Exit::Code(2), &file),
        Some(Failure::System("exit status 2".into()))
    );
}

#[test]
fn a_code_that_no_process_can_have_still_reads_as_failure() {
    for (code, exit) in [(42, 42), (255, 255), (0, 1), (256, 1), (-1, 1)] {
        assert_eq!(script(code).exit_code(), exit);
    }
}

#[test]
fn an_end_is_told_in_the_runners_words() {
    let file = std::path::Path::new("/nonexistent");
    let said = |exit: Exit| match judge(&exit, file) {
        Some(Failure::System(said)) => said,
        other => panic!("{exit:?}: {other:?}"),
    };
    let unknown = "unknown Custom executor executable exit code";
    let by = "executable execution terminated with";
    for (exit, words) in [
        (Exit::Code(2), "exit status 2".to_owned()),
        (Exit::Code(9), format!("{unknown} 9; {by}: exit status 9")),
        (
            Exit::Signal(9, false),
            format!("{unknown} -1; {by}: signal: killed"),
        ),
        (
            Exit::Signal(6, true),
            format!("{unknown} -1; {by}: signal: aborted (core dumped)"),
        ),
        (
            Exit::dormant(Some(5)),
            "failed to kill process PID=5, likely process is dormant".to_owned(),
        ),
    ] {
        assert_eq!(said(exit), words);
    }
}

#[test]
fn durations_are_written_as_go_does() {
    for (ms, text) in [
        (20, "20ms"),
        (3_000, "3s"),
        (90_000, "1m30s"),
        (3_600_000, "1h0m0s"),
        (93_784_000, "26h3m4s"),
    ] {
        assert_eq!(go_duration(std::time::Duration::from_millis(ms)), text);
    }
}

/// Whoever pastes a line of a job log into a search finds it on the page, with its cause.
#[test]
fn the_runners_lines_are_explained() {
    let page = include_str!("../../../../docs/troubleshooting.md");
    let file = std::path::Path::new("/nonexistent");
    let hour = std::time::Duration::from_secs(3600);
    let system = judge(&Exit::Code(2), file).unwrap();
    for line in [
        Failure::Timeout.last_line(hour),
        Failure::Cancelled { hard: true }.last_line(hour),
        system.last_line(hour),
        system.clone().of_environment().last_line(hour),
        "Will be retried in 3s ...".to_owned(),
        "WARNING: Cleanup script failed: exit status 2".to_owned(),
    ] {
        assert!(page.contains(&format!("`{line}`")), "{line}");
    }
    for words in [
        "git: command not found`",
        "`Missing gitlab-runner. Uploading artifacts is disabled.`",
        "`fatal: detected dubious ownership in repository at '…'`",
        "`unknown Custom executor executable exit code N; executable execution terminated with: …`",
    ] {
        assert!(page.contains(words), "{words}");
    }
}
