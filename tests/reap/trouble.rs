//! `reap` where something is missing: permissions, files that can be read, AWS, credentials.

use serde_json::json;

use super::Bastion;
use super::LEAST;
use super::ended;
use super::files;
use super::orphan;
use super::reap;
use super::report;
use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::lab::traces;

#[test]
fn without_list_tasks_the_state_directory_is_enough() {
    let bastion = Bastion::new();
    let (orphaned, alive) = (bastion.job(), bastion.job());
    bastion.account.allow(&LEAST);
    orphaned.start();
    orphan(&orphaned);
    alive.start();
    let output = alive.command(&["reap", "--json"]).assert_success();
    assert!(output.stderr_text().contains("ecs:ListTasks"), "{output}");
    let report = report(&output);
    assert_eq!(ended(&report).len(), 1, "{report:#}");
    assert!(
        report["skipped"].to_string().contains("ecs:ListTasks"),
        "{report:#}"
    );
    assert_eq!(report["problems"], json!([]));
    orphaned.assert_nothing_left();
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
}

#[test]
fn a_live_job_whose_files_are_damaged_keeps_its_task() {
    let bastion = Bastion::new();
    let (runner, timer) = (bastion.job(), bastion.job());
    runner.start();
    let job = files(&bastion.state.join("jobs"));
    let whole: Vec<_> = job
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    for damaged in [vec![0], vec![1], vec![0, 1]] {
        for index in damaged {
            std::fs::write(&job[index], "{\"version\": 99}").unwrap();
        }
        let output = timer.command(&["reap", "--json"]).assert_code(1);
        let report = report(&output);
        assert_eq!(report["ended"], json!([]), "{report:#}");
        assert_eq!(
            report["problems"].as_array().unwrap().len(),
            1,
            "{report:#}"
        );
        for (path, text) in job.iter().zip(&whole) {
            std::fs::write(path, text).unwrap();
        }
    }
    runner
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    runner.cleanup().assert_success();
}

#[test]
fn a_dead_job_with_a_damaged_file_ends_all_the_same() {
    for damaged in ["record.json", "intent.json"] {
        let bastion = Bastion::new();
        let (runner, timer) = (bastion.job(), bastion.job());
        runner.start();
        orphan(&runner);
        let job = files(&bastion.state.join("jobs"));
        let path = job.iter().find(|path| path.ends_with(damaged)).unwrap();
        std::fs::write(path, "{").unwrap();
        let output = timer.command(&["reap", "--json"]).assert_code(1);
        assert!(output.contains(damaged), "{output}");
        assert!(bastion.account.left(None).is_empty(), "{output}");
        std::fs::remove_file(path).unwrap();
        reap(&timer);
        runner.assert_nothing_left();
    }
}

#[test]
fn aws_out_of_reach_is_a_problem_and_the_next_time_does_it() {
    let bastion = Bastion::new();
    let runner = bastion.job();
    runner.start();
    orphan(&runner);
    bastion.account.fault(&Fault::denied("StopTask"));
    let output = runner.command(&["reap", "--json"]).assert_code(1);
    let report = report(&output);
    assert_eq!(report["ended"], json!([]), "{report:#}");
    assert!(
        report["problems"].to_string().contains("ecs:StopTask"),
        "{report:#}"
    );
    assert_eq!(bastion.account.alive().len(), 1);
    assert_eq!(ended(&reap(&runner)).len(), 1);
    runner.assert_nothing_left();
    traces::assert_only_tombstones(&bastion.state, 1);
}

#[test]
fn a_cleanup_that_failed_is_done_by_reap_though_the_runner_lives() {
    // With all permissions, and with those that the Go driver's users have.
    for least in [false, true] {
        let bastion = Bastion::new();
        let runner = bastion.job();
        if least {
            bastion.account.allow(&LEAST);
        }
        runner.start();
        bastion.account.fault(&Fault::denied("StopTask"));
        let output = runner.cleanup();
        assert_ne!(output.code(), Some(0), "{output}");
        let report = reap(&runner);
        assert_eq!(ended(&report).len(), 1, "{report:#}");
        runner.assert_nothing_left();
        traces::assert_only_tombstones(&bastion.state, 1);
    }
}

#[test]
fn a_bastion_without_credentials_cannot_say_that_nothing_is_left() {
    let runner = Runner::builder()
        .on_fargate()
        .environment("AWS_ACCESS_KEY_ID", None)
        .environment("AWS_SECRET_ACCESS_KEY", None)
        .environment("AWS_EC2_METADATA_DISABLED", Some("true"))
        .build();
    let output = runner.command(&["reap"]).assert_code(1);
    assert!(!output.contains("nothing is left over"), "{output}");
    let output = output.assert_contains("not all could be looked at");
    output.assert_contains("no credentials found");
}
