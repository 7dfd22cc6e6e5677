//! What the stages promise to GitLab Runner: answers, retries, ends that may come at any time and more than
//! once, jobs that know nothing of each other.

use std::time::Duration;

use serde_json::json;

use crate::bad_input::assert_refused;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::scripts::Gate;
use crate::scripts::assert_no_spool;
use crate::scripts::record;
use crate::scripts::record_file;

#[test]
fn config_answers_one_json_object_and_says_nothing_else() {
    let runner = Runner::builder().build();
    let output = runner.config().assert_success();
    assert!(output.stderr.is_empty(), "{output}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["driver"]["name"], "gitlab-aws-driver");
    assert_eq!(answer["driver"]["version"], env!("CARGO_PKG_VERSION"));
    let builds = runner.root().join("builds").display().to_string();
    assert_eq!(answer["builds_dir"], builds.as_str());
    let cache = runner.root().join("cache").display().to_string();
    assert_eq!(answer["cache_dir"], cache.as_str());
    let hostname = answer["hostname"].as_str().unwrap();
    assert!(hostname.starts_with("labrunner-"), "{hostname}");
    // Nothing is started or written down in the state by it.
    assert!(!runner.state_directory().exists());
    runner.assert_nothing_left();
}

#[test]
fn a_healthy_job_has_nothing_but_its_own_output_in_its_log() {
    let runner = Runner::builder().build();
    runner.start();
    for stage in [
        "prepare_script",
        "get_sources",
        "step_script",
        "after_script",
    ] {
        runner
            .run(stage, "echo mine")
            .assert_success()
            .assert_stdout("mine\n");
    }
    runner.cleanup().assert_success().assert_stdout("");
}

/// The Runner's own retries carry the same name and the same text, and must really run again.
#[test]
fn a_sub_stage_that_is_tried_again_runs_again() {
    let runner = Runner::builder().build();
    runner.start();
    let file = runner.root().join("tries");
    let file = file.display();
    let path = runner.write_script(format!(
        "echo try >> {file}\ncat {file}\n[ $(wc -l < {file}) -eq 3 ] || exit 128\n"
    ));
    for (tries, code) in [(1, 1), (2, 1), (3, 0)] {
        let output = runner.spawn_run_file("get_sources", &path).wait(PATIENCE);
        let output = output
            .assert_code(code)
            .assert_stdout("try\n".repeat(tries));
        assert_eq!(runner.exit_file().is_some(), code != 0, "{output}");
    }
}

#[test]
fn sub_stages_of_any_name_run() {
    let runner = Runner::builder().build();
    runner.start();
    for stage in [
        "prepare_script",
        "get_sources",
        "clear_worktree",
        "restore_cache",
        "download_artifacts",
        "step_",
        "step_release.of the day",
        "build_script",
        "after_script",
        "archive_cache_on_failure",
        "upload_artifacts_on_failure",
        "cleanup_file_variables",
        "no_such_stage",
        "../../etc/passwd",
        "",
    ] {
        runner
            .run(stage, "echo on")
            .assert_success()
            .assert_stdout("on\n");
    }
}

#[test]
fn what_needs_images_or_services_is_refused_at_each_try() {
    let image = json!({"image": {"name": "alpine:3.20"}});
    let services = json!({"services": [{"name": "postgres:16"}, {"name": "redis"}]});
    for (change, word) in [
        (image, "\"alpine:3.20\" by `image:`"),
        (services, "\"postgres:16\" by `services:`"),
    ] {
        let runner = Runner::builder().build();
        let mut said = Vec::new();
        for _ in 0..3 {
            let file = runner.attempt().join("response.json");
            let mut payload: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            for (key, value) in change.as_object().unwrap() {
                payload[key] = value.clone();
            }
            std::fs::write(&file, payload.to_string()).unwrap();
            runner.config().assert_success();
            let output = runner.prepare();
            assert_refused(&output, 2, &[word]);
            said.push(output.stderr_text());
            runner.assert_nothing_left();
            runner.cleanup().assert_success().assert_stdout("");
            runner.next_attempt();
        }
        assert!(said.iter().all(|text| *text == said[0]), "{said:#?}");
    }
}

#[test]
fn a_job_that_names_an_image_for_show_only_is_run() {
    // What a job's variables say of images is theirs; only the payload counts. Old servers send null.
    let runner = Runner::builder()
        .variable("CI_JOB_IMAGE", "alpine")
        .variable("CI_JOB_SERVICES", "[{\"name\":\"redis\"}]")
        .build();
    let file = runner.attempt().join("response.json");
    let mut payload: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    payload["image"] = json!(null);
    payload["services"] = json!(null);
    std::fs::write(&file, payload.to_string()).unwrap();
    runner.start();
    runner.run("build_script", "echo on").assert_stdout("on\n");
}

#[test]
fn cleanup_is_called_with_nothing_there() {
    let runner = Runner::builder().build();
    for _ in 0..3 {
        runner.cleanup().assert_success().assert_stdout("");
        assert!(!runner.state_directory().join("jobs").exists());
    }
    runner.start();
    runner.run("build_script", "echo on").assert_stdout("on\n");
}

#[test]
fn cleanup_is_called_again_and_again() {
    let runner = Runner::builder().build();
    runner.start();
    runner
        .run("build_script", "sleep 600 & echo on")
        .assert_stdout("on\n");
    for _ in 0..3 {
        runner.cleanup().assert_success().assert_stdout("");
        runner.assert_nothing_left();
        assert_nothing_known(&runner);
    }
    // And the job may be prepared once more, in another try.
    runner.next_attempt();
    runner.start();
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    assert_nothing_known(&runner);
}

/// Checks that no directory of any job is left in the state.
fn assert_nothing_known(runner: &Runner) {
    let jobs = runner.state_directory().join("jobs");
    let left: Vec<_> = std::fs::read_dir(jobs)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(left, <[std::path::PathBuf; 0]>::default());
}

#[test]
fn cleanup_is_called_eight_times_at_once() {
    for kind in [None, Some(Kind::OpenSsh)] {
        let mut builder = Runner::builder();
        if let Some(kind) = kind {
            builder = builder.machine(ServerBuilder::new(kind, Login::Bash));
        }
        let runner = builder.build();
        runner.start();
        runner
            .run("build_script", "setsid sleep 600 & echo on")
            .assert_stdout("on\n");
        let all: Vec<_> = (0..8).map(|_| runner.spawn_cleanup()).collect();
        for stage in all {
            stage.wait(PATIENCE).assert_success().assert_stdout("");
        }
        runner.assert_nothing_left();
        assert_nothing_known(&runner);
    }
}

/// A cleanup that comes beside a script, as after a hard cancel that `run` takes its time for.
#[test]
fn cleanup_ends_a_job_whose_script_still_runs() {
    let runner = Runner::builder().build();
    runner.start();
    let stage = runner.spawn_run("build_script", "echo begun; trap '' TERM; sleep 600");
    stage.wait_output(b"begun\n", PATIENCE);
    runner.cleanup().assert_success().assert_stdout("");
    let output = stage.wait(PATIENCE);
    assert_eq!(output.stdout, b"begun\n", "{output}");
    assert_refused(&output, 2, &["machine"]);
    assert_eq!(runner.exit_file(), None);
    runner.assert_nothing_left();
    assert_nothing_known(&runner);
}

#[test]
fn cleanup_wins_over_a_prepare_that_waits_for_its_machine() {
    let machine =
        ServerBuilder::new(Kind::OpenSsh, Login::Bash).listen_late(Duration::from_secs(600));
    let runner = Runner::builder()
        .machine(machine)
        .connect_timeout("10m")
        .build();
    let prepare = runner.spawn_prepare();
    prepare.wait_output(b"Waiting for SSH", PATIENCE);
    runner.cleanup().assert_success().assert_stdout("");
    let output = prepare.wait(PATIENCE);
    assert_failed_quietly(&output, 2);
    runner.assert_nothing_left();
    assert_nothing_known(&runner);
}

/// Checks a failure of the machinery among other lines of progress.
fn assert_failed_quietly(output: &lab::stage::Output, code: i32) {
    assert_eq!(output.code(), Some(code), "{output}");
    let text = output.stderr_text();
    assert_eq!(text.matches("ERROR: ").count(), 1, "{output}");
    assert!(!text.contains("panicked"), "{output}");
    assert!(output.stdout.is_empty(), "{output}");
}

/// Whichever of the two comes first, nothing is left: neither machine nor record.
#[test]
fn cleanup_runs_beside_prepare_at_any_moment() {
    for round in 0..20 {
        let runner = Runner::builder().build();
        let prepare = runner.spawn_prepare();
        match round % 4 {
            0 => {}
            1 => wait_for(|| runner.state_directory().join("jobs").exists()),
            2 => wait_for(|| {
                let jobs = std::fs::read_dir(runner.state_directory().join("jobs"));
                jobs.is_ok_and(|mut jobs| {
                    jobs.any(|job| job.is_ok_and(|job| job.path().join("intent.json").exists()))
                })
            }),
            _ => prepare.wait_output(b"Waiting", PATIENCE),
        }
        runner.spawn_cleanup().wait(PATIENCE).assert_success();
        let output = prepare.wait(PATIENCE);
        match output.code() {
            // The cleanup came first and found nothing; or prepare was done.
            Some(0) => {}
            _ => assert_failed_quietly(&output, 2),
        }
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
        assert_nothing_known(&runner);
    }
}

/// Waits until something can be seen in the file system.
fn wait_for(there: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !there() {
        assert!(std::time::Instant::now() < deadline);
        // Another process' file is no event that could be waited for.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn jobs_do_not_disturb_each_other() {
    let shared = lab::temp_dir();
    let state = shared.path().join("state");
    let [one, two] = [(), ()].map(|()| Runner::builder().state_directory(&state).build());
    one.start();
    two.start();
    assert_ne!(record_file(&one), record_file(&two));
    for field in ["private_key", "spool", "machine"] {
        assert_ne!(record(&one)[field], record(&two)[field]);
    }
    one.run("build_script", "sleep 600 & echo $! > \"$HOME/child\"")
        .assert_stdout("");
    let gate = Gate::new(one.root());
    let script = format!("echo begun\nread -r code < {gate}\nexit $code\n");
    let stage = one.spawn_run("build_script", script);
    stage.wait_output(b"begun\n", PATIENCE);
    two.run("build_script", "exit 43").assert_code(1);
    two.run("build_script", "kill 0").assert_code(1);
    assert_eq!(one.exit_file(), None);
    two.cleanup().assert_success();
    two.assert_nothing_left();
    two.cleanup().assert_success();
    assert!(!stage.is_over());
    gate.open("42");
    stage.wait(PATIENCE).assert_code(1).assert_stdout("begun\n");
    assert_eq!(one.exit_file().as_deref(), Some(&b"42"[..]));
    one.run(
        "after_script",
        "kill -0 $(cat \"$HOME/child\") && echo lives",
    )
    .assert_stdout("lives\n");
    assert_no_spool(&one);
    one.cleanup().assert_success();
    one.assert_nothing_left();
}

/// The files of the state are for the Runner's user alone.
#[test]
fn the_state_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let runner = Runner::builder().build();
    runner.start();
    let path = record_file(&runner);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for name in ["record.json", "intent.json"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    // Neither the key nor the spool's name stands where other users look.
    let secrets = [record(&runner)["private_key"].clone()];
    for process in runner.processes() {
        let file = format!("/proc/{}/cmdline", process.pid.as_raw_nonzero());
        let line = String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
        for secret in &secrets {
            assert!(!line.contains(secret.as_str().unwrap()), "{line}");
        }
    }
}
