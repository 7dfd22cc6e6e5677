//! Jobs that go well, jobs that fail, and what the driver is told.

use std::fs;
use std::path::Path;

use super::super::EXIT_SYSTEM;
use super::super::verdict::Failure;
use super::{Theatre, script};

mod output;

const WHOLE: [&str; 7] = [
    "config",
    "prepare",
    "prepare_script",
    "get_sources",
    "build_script",
    "cleanup_file_variables",
    "cleanup",
];

#[test]
fn a_job_goes_through_all_stages_in_one_directory() {
    let theatre = Theatre::new();
    let mut plan = theatre.plan("echo hello from $PWD; echo $MODE");
    plan.job
        .variables
        .push(("MODE".into(), "$(it's raw)".into()));
    let played = theatre.play(plan);
    assert_eq!(played.report.failure, None, "{}", played.text());
    assert_eq!(played.report.exit_code(), 0);
    assert_eq!(theatre.calls(), WHOLE);
    let project = theatre.file("builds/try/try").display().to_string();
    let log = played.text();
    for line in [
        "Using Custom executor with driver fake 1.2...\n",
        "$ echo hello from $PWD; echo $MODE\n",
        &format!("hello from {project}\n$(it's raw)\n"),
        " via somewhere...\n",
        "Job succeeded\n",
    ] {
        assert!(log.contains(line), "{line:?} is missing in {log}");
    }
    let directory = theatre.env(1)["TMPDIR"].clone();
    assert!(Path::new(&directory).starts_with(theatre.file("temp")));
    for number in 1..=WHOLE.len() {
        let env = theatre.env(number);
        assert_eq!(env["TMPDIR"], directory);
        assert_eq!(
            env["JOB_RESPONSE_FILE"],
            format!("{directory}/response.json")
        );
        assert_eq!(
            env["BUILD_EXIT_CODE_FILE"],
            format!("{directory}/build_exit_code")
        );
        assert_eq!(
            (
                &*env["BUILD_FAILURE_EXIT_CODE"],
                &*env["SYSTEM_FAILURE_EXIT_CODE"]
            ),
            ("1", "2")
        );
        let (builds, project) = if number == 1 {
            (String::new(), String::new())
        } else {
            (
                theatre.file("builds").display().to_string(),
                project.clone(),
            )
        };
        assert_eq!(env["CUSTOM_ENV_CI_BUILDS_DIR"], builds);
        assert_eq!(env["CUSTOM_ENV_CI_PROJECT_DIR"], project);
        assert_eq!(
            env["CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR"],
            format!("{project}.tmp")
        );
        assert_eq!(env["CUSTOM_ENV_CI_JOB_SERVICES"], "");
        assert!(!env.contains_key("CUSTOM_ENV_CI_JOB_IMAGE"));
        let read =
            |what: &str| fs::read_to_string(theatre.file(&format!("{what}-{number}"))).unwrap();
        assert_eq!(
            read("cwd").trim_end(),
            fs::canonicalize(theatre.file("temp"))
                .unwrap()
                .join(Path::new(&directory).file_name().unwrap())
                .display()
                .to_string()
        );
        assert_eq!(read("modes"), "700\n600\n");
    }
    let statuses: Vec<_> = theatre
        .statuses()
        .into_iter()
        .map(|(_, status)| status)
        .collect();
    assert_eq!(
        statuses,
        [
            "running", "running", "running", "running", "running", "success", "success"
        ]
    );
}

#[test]
fn the_payload_and_the_environment_tell_of_image_and_services() {
    let theatre = Theatre::new();
    let mut plan = theatre.plan("true");
    plan.job.image = Some("alpine:3".into());
    plan.job.services = vec!["redis".into(), "db".into()];
    plan.job
        .variables
        .push(("CI_PROJECT_PATH".into(), "shadowed".into()));
    theatre.play(plan);
    let env = theatre.env(1);
    assert_eq!(env["CUSTOM_ENV_CI_JOB_IMAGE"], "alpine:3");
    assert_eq!(env["CUSTOM_ENV_CI_PROJECT_PATH"], "shadowed");
    assert_eq!(
        env["CUSTOM_ENV_CI_JOB_SERVICES"],
        r#"[{"name":"redis","alias":"","entrypoint":null,"command":null},{"name":"db","alias":"","entrypoint":null,"command":null}]"#
    );
    let payload: serde_json::Value =
        serde_json::from_slice(&fs::read(theatre.file("response-1")).unwrap()).unwrap();
    assert_eq!(payload["image"]["name"], "alpine:3");
    assert_eq!(payload["services"][1]["name"], "db");
    assert_eq!(payload["job_info"]["project_full_path"], "try/try");
    assert_eq!(payload["id"].to_string(), env["CUSTOM_ENV_CI_JOB_ID"]);
    assert_eq!(payload["runner_info"]["timeout"], 60);
    let paths: Vec<_> = payload["variables"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|v| v["key"] == "CI_PROJECT_PATH")
        .map(|v| v["value"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["try/try", "shadowed"]);
}

#[test]
fn the_answer_of_config_is_honoured() {
    let theatre = Theatre::new();
    let builds = theatre.file("elsewhere").display().to_string();
    theatre.on(
        "config",
        &format!(
            r#"printf '%s' '{{"builds_dir": "{builds}", "builds_dir_is_shared": true, "other": 1,
            "job_env": {{"COLOUR": "blue", "SYSTEM_FAILURE_EXIT_CODE": "7"}}}}'; exit 0"#
        ),
    );
    let played = theatre.play(theatre.plan("echo $COLOUR"));
    assert_eq!(played.report.failure, None, "{}", played.text());
    assert!(played.text().contains("Using Custom executor...\n"));
    assert!(!theatre.env(1).contains_key("COLOUR"));
    let env = theatre.env(2);
    assert_eq!(
        (&*env["COLOUR"], &*env["SYSTEM_FAILURE_EXIT_CODE"]),
        ("blue", "7")
    );
    assert_eq!(
        env["CUSTOM_ENV_CI_PROJECT_DIR"],
        format!("{builds}/trytrytry/0/try/try")
    );
    assert!(played.text().contains("\nblue\n"));
}

#[test]
fn a_failing_script_is_followed_by_all_the_rest_and_keeps_its_code() {
    for code in [1, 2, 42, 126, 255] {
        let theatre = Theatre::new();
        let mut plan = theatre.plan(format!("exit {code}"));
        plan.job.after_script = Some(b"echo after $CI_JOB_STATUS; exit 3".to_vec());
        let played = theatre.play(plan);
        assert_eq!(played.report.failure, Some(script(code)));
        assert_eq!(i64::from(played.report.exit_code()), code);
        assert!(played.text().contains("\nafter failed\n"));
        assert!(
            played
                .text()
                .contains(&format!("ERROR: Job failed: exit status {code}\n"))
        );
        assert_eq!(
            theatre.calls()[4..],
            [
                "build_script",
                "after_script",
                "cleanup_file_variables",
                "cleanup"
            ]
        );
        assert_eq!(theatre.last_status(), "failed");
    }
}

#[test]
fn a_system_failure_of_the_script_is_followed_by_all_the_rest_too() {
    for (code, why) in [
        (2, "exit status 2"),
        (
            3,
            "unknown Custom executor executable exit code 3; executable execution terminated with: exit status 3",
        ),
        (
            0,
            "unknown Custom executor executable exit code -1; executable execution terminated with: signal: killed",
        ),
    ] {
        let theatre = Theatre::new();
        theatre.on(
            "build_script",
            &if code == 0 {
                "kill -9 $$".into()
            } else {
                format!("exit {code}")
            },
        );
        let mut plan = theatre.plan("true");
        plan.job.after_script = Some(b"true".to_vec());
        let played = theatre.play(plan);
        assert_eq!(played.report.failure, Some(Failure::System(why.into())));
        assert_eq!(played.report.exit_code(), EXIT_SYSTEM);
        assert_eq!(
            theatre.calls()[4..],
            [
                "build_script",
                "after_script",
                "cleanup_file_variables",
                "cleanup"
            ]
        );
    }
}

#[test]
fn prepare_that_fails_is_tried_three_times_each_in_a_fresh_directory() {
    let theatre = Theatre::new();
    theatre.on(
        "prepare",
        r#"[ "$(grep -c prepare "$here/calls")" -ge 3 ] || exit $SYSTEM_FAILURE_EXIT_CODE"#,
    );
    let played = theatre.play(theatre.plan("true"));
    assert_eq!(played.report.failure, None, "{}", played.text());
    let calls = theatre.calls();
    assert_eq!(
        calls[..6],
        [
            "config", "prepare", "cleanup", "config", "prepare", "cleanup"
        ]
    );
    assert_eq!(calls[6..], WHOLE);
    let directories: Vec<_> = (1..=calls.len())
        .map(|n| theatre.env(n)["TMPDIR"].clone())
        .collect();
    assert_eq!(directories[0], directories[2]);
    assert_ne!(directories[2], directories[3]);
    assert_ne!(directories[5], directories[6]);
    // What the first answer settled stays, as with the Runner.
    assert_ne!(theatre.env(4)["CUSTOM_ENV_CI_BUILDS_DIR"], "");
    let attempts: Vec<_> = played.report.stages[..7]
        .iter()
        .map(|s| s.attempt)
        .collect();
    assert_eq!(attempts, [1, 1, 1, 2, 2, 2, 3]);
}

#[test]
fn set_up_that_fails_for_good() {
    let bad_json = "printf '{\"builds_dir\": 5}'; exit 0";
    for (stage, text, tries, code) in [
        ("prepare", "exit $SYSTEM_FAILURE_EXIT_CODE", 3, 125),
        ("prepare", "exit 9", 3, 125),
        ("config", "exit 2", 3, 125),
        ("config", "printf nonsense; exit 0", 3, 125),
        ("config", bad_json, 3, 125),
        // A build failure is final, and reads as the user's script failing.
        ("config", "exit $BUILD_FAILURE_EXIT_CODE", 1, 1),
        ("prepare", "printf 5 > $BUILD_EXIT_CODE_FILE; exit 1", 1, 5),
    ] {
        let theatre = Theatre::new();
        theatre.on(stage, text);
        let played = theatre.play(theatre.plan("true"));
        let one: &[&str] = if stage == "config" {
            &["config", "cleanup"]
        } else {
            &["config", "prepare", "cleanup"]
        };
        assert_eq!(theatre.calls(), one.repeat(tries), "{stage}: {text}");
        assert_eq!(played.report.exit_code(), code, "{stage}: {text}");
        assert_eq!(theatre.last_status(), "running");
    }
}

#[test]
fn prepare_script_that_fails_goes_straight_to_cleanup() {
    // As the Runner judges it: by the code, whatever the sub-stage.
    for (code, kind, exit) in [(1, "", 1), (2, " (system failure)", EXIT_SYSTEM)] {
        let theatre = Theatre::new();
        theatre.on("prepare_script", &format!("exit {code}"));
        let played = theatre.play(theatre.plan("true"));
        assert_eq!(
            theatre.calls(),
            ["config", "prepare", "prepare_script", "cleanup"]
        );
        let last = format!(
            "ERROR: Job failed{kind}: prepare environment: exit status {code}. Check \
             https://docs.gitlab.com/runner/shells/#shell-profile-loading for more information\n"
        );
        assert!(played.text().ends_with(&last), "{}", played.text());
        assert_eq!(played.report.exit_code(), exit);
        assert_eq!(theatre.last_status(), "running");
    }
}

#[test]
fn get_sources_is_tried_as_often_as_asked_for() {
    for (attempts, works_at, passes) in [(3, 3, true), (3, 9, false), (1, 2, false)] {
        let theatre = Theatre::new();
        let mut plan = theatre.plan("echo built");
        plan.attempts = attempts;
        let calls = theatre.file("calls").display().to_string();
        plan.job.pre_get_sources =
            Some(format!("test $(grep -c get_sources {calls}) -ge {works_at}").into_bytes());
        let played = theatre.play(plan);
        let mut expected = vec!["config", "prepare", "prepare_script", "get_sources"];
        if attempts > 1 {
            expected.extend(["clear_worktree", "get_sources", "get_sources"]);
        }
        if passes {
            expected.push("build_script");
        }
        expected.extend(["cleanup_file_variables", "cleanup"]);
        assert_eq!(theatre.calls(), expected);
        assert_eq!(played.report.failure, (!passes).then_some(script(1)));
        assert_eq!(
            theatre.last_status(),
            if passes { "success" } else { "running" }
        );
    }
}

#[test]
fn a_clearing_that_fails_was_the_attempt() {
    let theatre = Theatre::new();
    theatre.on("clear_worktree", "exit 1");
    let mut plan = theatre.plan("true");
    plan.attempts = 3;
    plan.job.pre_get_sources = Some(b"exit 7".to_vec());
    let played = theatre.play(plan);
    assert_eq!(
        theatre.calls()[3..],
        [
            "get_sources",
            "clear_worktree",
            "get_sources",
            "cleanup_file_variables",
            "cleanup"
        ]
    );
    assert_eq!(played.report.failure, Some(script(7)));
    assert_eq!(played.text().matches("Retrying in 20ms\n").count(), 1);
}

#[test]
fn what_cleanup_file_variables_fails_of_changes_nothing() {
    for code in [1, 2] {
        let theatre = Theatre::new();
        theatre.on("cleanup_file_variables", &format!("exit {code}"));
        let played = theatre.play(theatre.plan("true"));
        assert_eq!(played.report.failure, None, "{}", played.text());
        assert_eq!(theatre.last_status(), "success");
    }
}

#[test]
fn cleanup_changes_nothing_and_speaks_beside_the_log() {
    let theatre = Theatre::new();
    theatre.on("cleanup", "echo swept; echo dust >&2; exit 4");
    let played = theatre.play(theatre.plan("true"));
    assert_eq!(played.report.exit_code(), 0);
    assert!(
        played
            .text()
            .contains("WARNING: Cleanup script failed: unknown Custom executor executable exit code 4; executable execution terminated with: exit status 4\n")
    );
    assert!(!played.text().contains("swept"));
    let console = String::from_utf8_lossy(&played.console).into_owned();
    assert!(
        console.contains("swept\n") && console.contains("dust\n"),
        "{console}"
    );
}
