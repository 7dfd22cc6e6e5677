//! The `check` command, as a person types it.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::stage::Call;
use crate::lab::stage::Output;

fn check(file: &Path, args: &[&str]) -> Output {
    let mut all = vec!["--config".into(), file.into(), "check".into()];
    all.extend(args.iter().map(Into::into));
    Call {
        name: format!("check {}", file.display()),
        program: env!("CARGO_BIN_EXE_gitlab-aws-driver").into(),
        args: all,
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        directory: "/".into(),
        ..Call::default()
    }
    .spawn()
    .wait(PATIENCE)
}

pub(crate) fn check_text(text: &str, args: &[&str]) -> Output {
    let directory = lab::temp_dir();
    let file = directory.path().join("driver.toml");
    std::fs::write(&file, text).unwrap();
    check(&file, args)
}

/// Checks that one error was found, and that the last line says so.
#[track_caller]
fn assert_one_error(output: &Output) {
    let said = output.stderr_text();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("1 error"), "{output}");
    assert!(last.ends_with(": the file cannot be used."), "{output}");
}

/// Returns the examples that are for this driver.
fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config-examples");
    let all = std::fs::read_dir(folder).unwrap();
    let all = all.map(|entry| entry.unwrap().path());
    // Those of GitLab Runner's own configuration are not.
    all.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".toml") && !name.contains("runner")
    })
    .collect()
}

#[test]
fn the_examples_are_right_and_explained() {
    let all = examples();
    assert!(all.len() > 2, "{all:?}");
    for file in all {
        let output = check(&file, &[]).assert_success();
        let text = output.stdout_text();
        assert!(text.starts_with(&file.display().to_string()), "{output}");
        assert!(text.lines().count() > 10, "{output}");
        for line in output.stderr_text().lines() {
            assert!(line.starts_with("WARNING: "), "{output}");
            assert!(!line.contains("unknown key"), "{output}");
        }
        let output = check(&file, &["--json"]).assert_success();
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(object.is_object(), "{output}");
        assert!(output.stderr.is_empty(), "{output}");
    }
}

#[test]
fn what_is_wrong_is_said_with_file_line_key_and_what_would_be_right() {
    for (text, words) in [
        (
            "capacity = [\"fargate_spot\"]\n",
            &["driver.toml:1:", "capacity", "fargate-spot"][..],
        ),
        (
            "\n[ssh]\nport = 70000\n",
            &["driver.toml:3:", "port", "70000"],
        ),
        ("[ssh\n", &["driver.toml:1:", "not TOML"]),
    ] {
        let output = check_text(text, &[]).assert_code(1);
        assert!(output.stdout.is_empty(), "{output}");
        let said = output.stderr_text();
        assert!(said.starts_with("ERROR: "), "{output}");
        assert_eq!(said.matches("ERROR: ").count(), 1, "{output}");
        assert_one_error(&output);
        for word in words {
            assert!(said.contains(word), "no {word:?} in {output}");
        }
    }
    let missing = check(Path::new("/nonexistent/driver.toml"), &[]).assert_code(1);
    assert!(
        missing.contains("ERROR: there is no file /nonexistent/driver.toml"),
        "{missing}"
    );
}

#[test]
fn a_misspelt_key_is_told_with_the_one_that_was_meant() {
    let text =
        "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n\n[ssh]\nusernmae = \"ci\"\n";
    let output = check_text(text, &[]).assert_success();
    let said = output.stderr_text();
    let [line] = &said.lines().collect::<Vec<_>>()[..] else {
        panic!("{output}");
    };
    assert!(
        line.starts_with("WARNING: ") && line.contains("driver.toml:5"),
        "{output}"
    );
    assert!(
        line.contains("usernmae") && line.contains("username"),
        "{output}"
    );
}

/// The Go driver's own spellings, in any case that it took them.
#[test]
fn a_go_drivers_file_is_taken() {
    let text = "LogLevel = \"info\"\n\n[Fargate]\nCluster = \"c\"\nregion = \"eu-west-1\"\nSUBNET = \"subnet-1\"\n\
                SecurityGroup = \"sg-1\"\nTaskDefinition = \"t:1\"\n\n[TaskMetadata]\nDirectory = \"/opt/metadata\"\n\n\
                [SSH]\nUsername = \"ci\"\nPort = 2222\n";
    let output = check_text(text, &["--json"]).assert_success();
    assert!(output.stderr.is_empty(), "{output}");
    let output = check_text(text, &[]).assert_success();
    let said = output.stdout_text();
    for word in [
        "eu-west-1",
        "subnet-1",
        "sg-1",
        "t:1",
        "/opt/metadata",
        "ci on port 2222",
    ] {
        assert!(said.contains(word), "no {word:?} in {output}");
    }
    assert!(!output.contains("unknown key"), "{output}");
}

/// `local` isolates nothing, so nobody shall get it without having asked for it, or without being told.
#[test]
fn jobs_on_this_host_have_to_be_asked_for_and_are_told_of() {
    let refused = check_text("capacity = [\"local\"]\n", &[]).assert_code(1);
    assert!(refused.contains("allow_jobs_on_this_host"), "{refused}");
    let runner = lab::runner::Runner::builder().build();
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let text = output.stderr_text();
    let told = text
        .lines()
        .any(|line| line.contains("WARNING: ") && line.contains("nothing is isolated"));
    assert!(told, "{output}");
}

/// Six errors and a warning, each in the line that its name says.
const MANY: &str = "capacity = [\"fargate_spot\"] # 1\nrung_wait = \"31days\" # 2\n[ssh]\nport = 70000 # 4\nprot = 1\n\
                    [limits]\nroles = [\"ci-*\"] # 7\n[[profile]]\nname = \"a\"\nmatch = { projekt = \"g\" } # 10\n\
                    [profile.limits]\ntask_definition = [\"x\"] # 12\n";

#[test]
fn all_that_is_wrong_is_told_in_order_then_the_warnings_and_the_verdict() {
    let output = check_text(MANY, &[]).assert_code(1);
    let said = output.stderr_text();
    let starts: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once("driver.toml:")?.1.split(':').next())
        .collect();
    assert_eq!(starts, ["1", "2", "4", "7", "10", "12", "5"], "{output}");
    let kinds: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(kind, _)| ["ERROR", "WARNING"].into_iter().find(|k| *k == kind))
        .collect();
    assert_eq!(kinds, [["ERROR"; 6].as_slice(), &["WARNING"]].concat());
    let verdict = "6 errors, 1 warning: the file cannot be used.";
    assert_eq!(said.lines().last(), Some(verdict), "{output}");
    assert!(output.stdout.is_empty(), "{output}");

    let output = check_text(MANY, &["--json"]).assert_code(1);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = object["errors"].as_array().unwrap().iter();
    let lines: Vec<_> = lines.map(|error| error["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 2, 4, 7, 10, 12], "{object:#}");
    let fifth = &object["errors"][4];
    assert_eq!(fifth["key"], "profile[0].match.projekt", "{object:#}");
    assert!(fifth["file"].as_str().unwrap().ends_with("driver.toml"));
    assert!(fifth["cause"].as_str().unwrap().contains("project"));
    assert!(fifth["remedy"].as_str().unwrap().contains("more jobs"));
    assert_eq!(object["warnings"].as_array().map(Vec::len), Some(1));
    assert_eq!(object["verdict"]["text"], verdict);

    // A stage tells the first, and that it is not alone.
    let runner = lab::runner::Runner::builder().build();
    runner.write_config(MANY);
    let told = runner.config().assert_code(2).stderr_text();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(
        told.contains("fargate_spot") && told.contains("5 more errors"),
        "{told}"
    );
    runner.write_config(&runner.default_config());
}

#[test]
fn a_warning_counts_where_it_is_asked_for() {
    let right = "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n";
    for args in [&[][..], &["--strict"]] {
        let output = check_text(right, args).assert_success();
        let last = output.stdout_text();
        assert_eq!(
            last.lines().last(),
            Some("The file can be used."),
            "{output}"
        );
    }
    let odd = format!("{right}[ssh]\nprot = 1\n");
    let output = check_text(&odd, &[]).assert_success();
    assert!(
        output.contains("1 warning: the file can be used."),
        "{output}"
    );
    let output = check_text(&odd, &["--strict"]).assert_code(1);
    let said = output.stderr_text();
    assert!(
        said.lines().last().unwrap().contains("--strict"),
        "{output}"
    );
    let output = check_text(&odd, &["--strict", "--json"]).assert_code(1);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["verdict"]["good"], false, "{object:#}");
    let help = check_text("", &["--help"]).assert_success();
    assert!(
        help.contains("--strict") && help.contains("ends with 0"),
        "{help}"
    );
}

/// What is left out of a narrowing profile would leave its jobs with more than meant.
#[test]
fn what_looks_like_a_profile_or_a_limit_is_never_passed_over() {
    let profile = "[[profile]]\nname = \"a\"\nmatch = { project = \"g/**\" }\n";
    for (text, word) in [
        (
            "[profiles.limits]\ntask_definitions = []\n".to_owned(),
            "[[profile]]",
        ),
        ("[[profiles]]\nname = \"a\"\n".to_owned(), "[[profile]]"),
        ("[profile]\nname = \"a\"\n".to_owned(), "[[profile]]"),
        ("[[job_profile]]\nname = \"a\"\n".to_owned(), "profile"),
        ("[limit]\nroles = []\n".to_owned(), "limits"),
        ("[[limits]]\nroles = []\n".to_owned(), "[limits]"),
        ("[job-limits]\nroles = []\n".to_owned(), "limits"),
        ("limits = \"none\"\n".to_owned(), "[limits]"),
        ("[fargate.limits]\nroles = []\n".to_owned(), "limits"),
        ("[aws.limits]\nroles = []\n".to_owned(), "limits"),
        ("[[fargate.profile]]\nname = \"a\"\n".to_owned(), "profile"),
        (
            format!("{profile}[profile.limits]\ntask_definition = []\n"),
            "task_definitions",
        ),
        (format!("{profile}[profile.limit]\nroles = []\n"), "limits"),
        (
            format!("{profile}[profile.fargate]\nclutser = \"a\"\n"),
            "cluster",
        ),
        (
            format!("{profile}fargate = {{ nothing_known = 1 }}\n"),
            "nothing_known",
        ),
        (format!("{profile}ssh.prot = 1\n"), "port"),
        (format!("{profile}protected = true\n"), "[profile.match]"),
        (format!("{profile}max_cpu = \"1\"\n"), "[profile.limits]"),
        (format!("{profile}something = 1\n"), "something"),
    ] {
        let output = check_text(&text, &[]).assert_code(1);
        let said = output.stderr_text();
        assert!(
            said.starts_with("ERROR: ") && said.contains(word),
            "{text}{output}"
        );
        assert_one_error(&output);
    }
}

#[test]
fn gitlab_runners_own_file_is_known_for_what_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config-examples");
    let example = std::fs::read_to_string(folder.join("gitlab-runner-config.toml")).unwrap();
    for text in [
        example.as_str(),
        "concurrent = 4\ncheck_interval = 0\n\n[session_server]\n  session_timeout = 1800\n",
    ] {
        let output = check_text(text, &[]).assert_code(1);
        let said = output.stderr_text();
        assert!(
            said.contains("GitLab Runner's own configuration"),
            "{output}"
        );
        assert!(said.contains("--config FILE"), "{output}");
        assert_one_error(&output);
    }
}

#[test]
fn a_program_is_told_in_json_what_is_wrong() {
    let error = |output: Output| -> Value {
        let output = output.assert_code(1).assert_contains("ERROR: ");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        object["error"].clone()
    };
    let wrong = error(check_text("capacity = [\"fargate_spot\"]", &["--json"]));
    let message = wrong["message"].as_str().unwrap();
    assert!(message.contains("driver.toml:1:13: capacity: "), "{wrong}");
    assert!(
        wrong["remedy"].as_str().unwrap().contains("For example"),
        "{wrong}"
    );

    let directory = lab::temp_dir();
    let file = directory.path().join("payload.json");
    let file = file.to_str().unwrap();
    for payload in ["[{}]", "{}", "no json", ""] {
        std::fs::write(file, payload).unwrap();
        let wrong = error(check_text("", &["--json", "--job", file]));
        assert!(wrong["message"].as_str().unwrap().contains(file), "{wrong}");
        assert!(
            wrong["remedy"]
                .as_str()
                .unwrap()
                .contains("JOB_RESPONSE_FILE"),
            "{wrong}"
        );
    }
}
