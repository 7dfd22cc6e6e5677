//! Machines that end by their deadline, whoever is left to end them.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use super::Bastion;
use super::LEAST;
use super::deadline;
use super::ended;
use super::files;
use super::killed_while_coming_up;
use super::lives;
use super::only_other;
use super::orphan;
use super::reap;
use super::stranger;
use super::unix_now;
use super::wait_end;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::Fate;
use crate::lab::aws::overdue::with_deadline;
use crate::lab::traces;

#[test]
fn a_machine_without_its_bastion_ends_by_its_watchdog() {
    let bastion = Bastion::new();
    let runner = bastion.short_job();
    runner.start();
    let task = bastion.account.tasks().remove(0);
    // All that knew of it is gone.
    std::fs::remove_dir_all(&bastion.state).unwrap();
    let calls = bastion.account.calls("*").len();
    let task = wait_end(&bastion.account, &task.arn);
    assert!(unix_now() >= deadline(&task), "it ended early: {task:?}");
    assert_eq!(task.stop_code.as_deref(), Some("EssentialContainerExited"));
    assert_eq!(bastion.account.calls("*").len(), calls);
}

#[test]
fn the_next_bastion_ends_what_is_past_its_deadline_and_nothing_else() {
    let first = Bastion::new();
    let account = &first.account;
    let lost = first.job();
    let task = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(&first.state).unwrap();
    let alive = first.job();
    alive.start();
    let past = unix_now().saturating_sub(1_000).to_string();
    let fleet = ("gitlab-aws-driver:fleet", "gitlab-aws-driver");
    let copied = with_deadline(&task.tags, past.parse().unwrap());
    let copied: Vec<(&str, &str)> = copied.iter().map(|(k, v)| (&**k, &**v)).collect();
    // It has the lost job's machine, which is not to come up.
    account.fate(&Fate::stuck("PENDING"));
    let copy = stranger(account, "x", &copied);
    let strangers = [
        stranger(account, "somebody", &[]),
        stranger(account, "gad-0123456789abcdef0123456789abcdef", &[fleet]),
        stranger(
            account,
            "gad-0123456789abcdef0123456789abcdef",
            &[
                ("gitlab-aws-driver:fleet", "another"),
                ("gitlab-aws-driver:deadline", &past),
            ],
        ),
        stranger(
            account,
            "gad-0123456789abcdef0123456789abcdef",
            &[fleet, ("gitlab-aws-driver:deadline", "soon")],
        ),
        stranger(account, "x", &[("gitlab-aws-driver:deadline", &past)]),
        stranger(
            account,
            "x",
            &[fleet, ("gitlab-aws-driver:deadline", &past)],
        ),
        // All tags of one of ours.
        copy,
    ];
    let second = Bastion::on(account);
    let timer = second.job();
    assert_eq!(reap(&timer)["ended"], json!([]), "its time is not over");
    // The bastion itself has a new name since its state was lost: it does not know the task either.
    assert_eq!(reap(&alive)["ended"], json!([]));
    assert!(deadline(&task) > unix_now(), "{task:?}");
    // Somebody's word alone does not make it so.
    let by_hand = BTreeMap::from([("gitlab-aws-driver:deadline".to_owned(), past.clone())]);
    account.tag_task(&task.arn, &by_hand);
    let report = reap(&timer);
    assert_eq!(report["ended"], json!([]), "{report:#}");
    let told = report["skipped"].to_string();
    assert!(told.contains(&task.arn), "{report:#}");
    assert!(told.contains("does not fit its other tags"), "{report:#}");
    account.tag_task(&task.arn, &with_deadline(&task.tags, past.parse().unwrap()));
    let report = reap(&timer);
    assert_eq!(
        ended(&report),
        std::slice::from_ref(&task.arn),
        "{report:#}"
    );
    let over = wait_end(account, &task.arn);
    assert!(
        over.reason.as_ref().unwrap().contains("deadline"),
        "{over:?}"
    );
    for stranger in &strangers {
        assert!(lives(account, stranger), "{stranger}");
        let stop = json!({ "cluster": CLUSTER, "task": stranger });
        account.call("ecs", "StopTask", &stop).unwrap();
    }
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
}

#[test]
fn a_job_that_its_runner_forgot_ends_after_its_deadline() {
    let bastion = Bastion::new();
    bastion.account.allow(&LEAST);
    let (runner, alive) = (bastion.job(), bastion.job());
    alive.start();
    killed_while_coming_up(&runner);
    assert_eq!(reap(&alive)["ended"], json!([]));
    let path = only_other(&bastion.state, &alive).join("intent.json");
    let mut intent: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(intent["deadline"].as_u64().unwrap() > unix_now());
    // As if the wall clock were days ahead by now: this boot's own says that the time is not over.
    for pointer in ["/deadline", "/made_in_boot/unix"] {
        let time = intent.pointer_mut(pointer).unwrap();
        *time = json!(time.as_u64().unwrap() - 200_000);
    }
    std::fs::write(&path, intent.to_string()).unwrap();
    assert_eq!(reap(&alive)["ended"], json!([]));
    intent["made_in_boot"]["unix"] = json!(unix_now());
    intent["deadline"] = json!(unix_now() - 1);
    std::fs::write(&path, intent.to_string()).unwrap();
    let report = reap(&alive);
    assert_eq!(ended(&report).len(), 1, "{report:#}");
    runner.assert_nothing_left();
    alive
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    alive.cleanup().assert_success();
}

/// A Runner in a container, whose pid says nothing to a `reap` on the host: the job is left alone until its time is over.
#[test]
fn a_job_whose_runner_cannot_be_seen_ends_after_its_deadline() {
    let bastion = Bastion::new();
    bastion.account.allow(&LEAST);
    let runner = bastion.job();
    runner.start();
    // No process here has that number and that start.
    orphan(&runner);
    let change = |pointer: &str, change: &dyn Fn(u64) -> u64| {
        for path in files(&bastion.state.join("jobs")) {
            let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let place = value.pointer_mut(pointer).unwrap();
            *place = change(place.as_u64().unwrap()).into();
            std::fs::write(&path, value.to_string()).unwrap();
        }
    };
    change("/owner/namespace", &|number| number ^ 1);
    assert_eq!(reap(&runner)["ended"], json!([]));
    runner
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    for pointer in ["/deadline", "/made_in_boot/unix"] {
        change(pointer, &|time| time - 200_000);
    }
    assert_eq!(reap(&runner)["ended"], json!([]));
    // Of another boot nothing but the wall clock tells.
    change("/made_in_boot/boot", &|boot| boot ^ 1);
    let report = reap(&runner);
    assert_eq!(ended(&report).len(), 1, "{report:#}");
    assert!(
        report["ended"][0]["why"]
            .as_str()
            .unwrap()
            .contains("deadline"),
        "{report:#}"
    );
    runner.assert_nothing_left();
    traces::assert_only_tombstones(&bastion.state, 1);
}
