//! Command lines, as people, GitLab Runner and the Go driver's users write them.

use super::*;
use crate::config::settings::{LogFormat, LogLevel};

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    let words = ["fargate"].iter().chain(words).map(OsString::from);
    super::parse(&go_driver_flags(words))
}

fn overrides(words: &[&str]) -> Overrides {
    let all = [words, &["custom", "prepare"]].concat();
    parse(&all).unwrap_or_else(|e| panic!("{e}")).overrides
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    <Cli>::command().debug_assert();
    VisibleCli::command().debug_assert();
}

#[test]
fn the_go_drivers_aliases_are_taken() {
    for (custom, stage) in [
        ("custom", ["config", "prepare", "cleanup"]),
        ("c", ["co", "p", "cl"]),
    ] {
        for stage in stage {
            assert!(parse(&[custom, stage]).is_ok(), "{custom} {stage}");
        }
    }
    for run in ["run", "r"] {
        let cli = parse(&["--config", "f", "c", run, "/tmp/s", "build_script"]).unwrap();
        let Command::UserCommand(UserCommand::Custom {
            stage: Stage::Run { script, name },
        }) = cli.command
        else {
            panic!("{run}")
        };
        assert_eq!((script, name), ("/tmp/s".into(), "build_script".to_owned()));
    }
}

#[test]
fn every_go_spelling_of_a_flag_means_the_same() {
    for words in [
        &["--task-def", "ci:1", "--log-level", "warn"][..],
        &["-task-def", "ci:1", "-log-level", "warn"],
        &["--task-def=ci:1", "--log-level=warn"],
        &["-task-def=ci:1", "-log-level=WARN"],
        &[
            "--task-def",
            "x",
            "--task-def",
            "ci:1",
            "--log-level=warning",
        ],
        &[
            "--task-def=ci:1",
            "--log-file",
            "",
            "--log-level=warn",
            "--platform-version=",
        ],
    ] {
        let given = overrides(words);
        assert_eq!(given.task_definition.as_deref(), Some("ci:1"), "{words:?}");
        assert_eq!(given.log_level, Some(LogLevel::Warn), "{words:?}");
        assert_eq!((given.log_file, given.platform_version), (None, None));
    }
    for (word, debug) in [
        ("--debug", true),
        ("-debug", true),
        ("-debug=true", true),
        ("--debug=T", true),
        ("--debug=0", false),
        ("--debug=", false),
    ] {
        assert_eq!(overrides(&[word]).debug, debug, "{word}");
    }
    // As in Go, whatever follows is the value.
    let odd = overrides(&["--task-def", "-debug", "-config", "--x"]);
    assert_eq!(odd.task_definition.as_deref(), Some("-debug"));
    assert!(!odd.debug);
}

#[test]
fn flags_after_the_command_and_unknown_ones_are_refused() {
    for words in [
        &["--config"][..],
        &["--config=", "custom", "prepare"],
        &["--log-level", "loud", "custom", "prepare"],
        &["--log-format=xml", "custom", "prepare"],
        &["--debug=maybe", "custom", "prepare"],
        &["--no-such", "custom", "prepare"],
        &["-x", "custom", "prepare"],
        &["custom", "prepare", "--task-def", "x"],
        &["custom", "-debug", "prepare"],
        &[],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn what_follows_the_first_word_stays_as_it_is() {
    let words = [
        "x",
        "-debug",
        "try",
        "-log-level",
        "",
        "--",
        "-v",
        "=",
        "-",
        "--=",
    ];
    let got = go_driver_flags(words.map(OsString::from));
    assert_eq!(got[1], "--debug");
    assert_eq!(got[2..], words[2..]);
    for help in ["-h", "-help", "--help", "-v", "-version", "--version"] {
        let error = parse(&[help]).err().unwrap();
        assert!(!error.use_stderr(), "{help}");
    }
    assert_eq!(go_driver_flags([]), Vec::<OsString>::new());
    assert_eq!(
        go_driver_flags(["x", "--task-def"].map(OsString::from)).len(),
        2
    );
}

#[test]
fn what_cannot_be_parsed_still_says_for_whom_it_is() {
    let read = |words: &[&str]| {
        let words = ["x"].iter().chain(words).map(OsString::from);
        let words = go_driver_flags(words);
        let name = command_name(&words).map(OsStr::to_owned);
        (name, asks_for_json(&words))
    };
    let config = ["--config", "f", "check", "--json", "--nonsense"];
    assert_eq!(read(&config), (Some("check".into()), true));
    assert_eq!(read(&["try", "--", "--json"]), (Some("try".into()), false));
    assert_eq!(read(&["--nonsense", "--json"]), (None, true));
    assert_eq!(read(&[]), (None, false));
}

#[test]
fn flags_stand_above_the_file_and_can_be_passed_on() {
    let given = overrides(&[
        "--debug",
        "--log-level",
        "error",
        "--log-file",
        "/f",
        "--log-format",
        "json",
        "--task-def",
        "a:1",
        "--platform-version",
        "1.4.0",
    ]);
    let mut settings = crate::config::parse("", "f".as_ref()).unwrap().settings;
    given.apply(&mut settings);
    assert_eq!(settings.log.level, LogLevel::Debug);
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.log.file.as_deref(), Some("/f".as_ref()));
    let fargate = settings.fargate.as_ref().unwrap();
    assert_eq!(fargate.task_definition.as_deref(), Some("a:1"));
    assert_eq!(fargate.platform_version.as_deref(), Some("1.4.0"));
    let words = given.words();
    let words: Vec<&str> = words.iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(overrides(&words), given);

    let mut same = settings.clone();
    Overrides::default().apply(&mut same);
    assert_eq!(same, settings);
    assert!(Overrides::default().words().is_empty());
}
