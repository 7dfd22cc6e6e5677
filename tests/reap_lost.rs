//! `reap` and a launch whose answer was lost, of a role that may not launch any more: kept as long as asking again could
//! tell what came of it, then given up, with what somebody has to look for. So is one that is named and that nobody may end.

use serde_json::Value;
use serde_json::json;

use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::lab::traces;
use crate::reap::Bastion;
use crate::reap::ended;
use crate::reap::files;
use crate::reap::reap;
use crate::reap::unix_now;

/// Whatever a role may that may not launch.
const NO_LAUNCH: [&str; 2] = ["ecs:DescribeTasks", "ecs:StopTask"];

const HOUR: u64 = 3600;

/// Has a job's Runner be gone, and its deadline be past for so long.
fn orphan(bastion: &Bastion, past: u64) {
    for path in files(&bastion.state.join("jobs")) {
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["owner"]["started"] = json!(1);
        // As version 0.1.0 left it, which knew no clock but the wall's.
        value["deadline"] = json!(unix_now() - past);
        value.as_object_mut().unwrap().remove("deadline_in_boot");
        std::fs::write(path, value.to_string()).unwrap();
    }
}

/// Starts a job whose RunTask meets with that, kills it and its Runner, and has its deadline be past for so long.
fn lost(bastion: &Bastion, fault: &Fault, past: u64) -> Runner {
    let runner = bastion.job();
    let account = &bastion.account;
    account.fault(fault);
    runner.kill_prepare_at("RunTask");
    let all = files(&bastion.state.join("jobs"));
    let [path] = &all[..] else { panic!("{all:?}") };
    let intent: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(intent["launches"][0]["state"], "asked", "{intent:#}");
    orphan(bastion, past);
    account.no_faults();
    account.allow(&NO_LAUNCH);
    runner
}

#[test]
fn it_is_kept_while_asking_again_may_tell() {
    let bastion = Bastion::new();
    let runner = lost(&bastion, &Fault::lost_call("RunTask").forever(), 23 * HOUR);
    for _ in 0..2 {
        let output = runner.command(&["reap"]).assert_code(1);
        assert!(
            output.contains("whether the job's task was started cannot be found out"),
            "{output}"
        );
        assert!(output.contains("ecs:RunTask"), "{output}");
        assert_eq!(files(&bastion.state.join("jobs")).len(), 1);
    }
    // Whoever may ask again ends it.
    bastion.account.allow(&["ecs:*"]);
    assert_eq!(ended(&reap(&runner)).len(), 1);
    runner.assert_nothing_left();
    traces::assert_only_tombstones(&bastion.state, 1);
}

#[test]
fn it_is_given_up_once_nobody_can_tell_and_named() {
    let bastion = Bastion::new();
    let runner = lost(&bastion, &Fault::lost_call("RunTask").forever(), 25 * HOUR);
    let output = runner.command(&["reap"]).assert_code(1);
    let text = output.stderr_text();
    let started_by = &bastion.account.calls("RunTask")[0].parameters["startedBy"];
    let look = format!(
        "aws ecs list-tasks --cluster ci --started-by {}.",
        started_by.as_str().unwrap()
    );
    assert!(text.contains("is given up"), "{output}");
    assert!(
        text.contains("ecs:RunTask") && text.contains(&look),
        "{output}"
    );
    traces::assert_only_tombstones(&bastion.state, 1);
    let again = runner.command(&["reap"]).assert_success();
    assert!(again.contains("nothing is left over"), "{again}");
}

#[test]
fn a_task_that_was_given_up_is_ended_by_whoever_may_list_it() {
    let bastion = Bastion::new();
    let runner = lost(
        &bastion,
        &Fault::lost_answer("RunTask").forever(),
        25 * HOUR,
    );
    let task = bastion.account.wait_task("its task", |_| true).arn;
    runner.command(&["reap"]).assert_code(1);
    assert_eq!(bastion.account.alive().len(), 1);
    let look = ["ecs:ListTasks", "ecs:DescribeTasks", "ecs:StopTask"];
    bastion.account.allow(&look);
    assert_eq!(ended(&reap(&runner)), [task]);
    runner.assert_nothing_left();
}

#[test]
fn a_task_that_nobody_may_end_is_given_up_and_named_a_day_after_its_time() {
    let bastion = Bastion::new();
    let runner = bastion.job();
    runner.start();
    let task = bastion.account.tasks().remove(0).arn;
    bastion.account.allow(&["ecs:DescribeTasks"]);
    orphan(&bastion, 23 * HOUR);
    for _ in 0..2 {
        let output = runner.command(&["reap"]).assert_code(1);
        assert!(output.contains("could not be stopped"), "{output}");
        assert!(!output.contains("is given up"), "{output}");
        assert_eq!(files(&bastion.state.join("jobs")).len(), 2);
    }
    orphan(&bastion, 25 * HOUR);
    let output = runner.command(&["reap"]).assert_code(1);
    let look = format!("aws ecs describe-tasks --cluster ci --tasks {task}.");
    assert!(output.contains("is given up"), "{output}");
    assert!(
        output.contains("ecs:StopTask") && output.contains(&look),
        "{output}"
    );
    // Its private key is gone with all else that was known of it.
    traces::assert_only_tombstones(&bastion.state, 1);
    let again = runner.command(&["reap"]).assert_success();
    assert!(again.contains("nothing is left over"), "{again}");
    // Whoever may list and stop it ends it.
    assert_eq!(bastion.account.alive().len(), 1);
    bastion
        .account
        .allow(&["ecs:ListTasks", "ecs:DescribeTasks", "ecs:StopTask"]);
    assert_eq!(ended(&reap(&runner)), [task]);
    runner.assert_nothing_left();
}
