//! Many jobs at once on one account, and what a job costs in calls and time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;
use std::time::Instant;

use crate::lab;
use crate::lab::aws::Account;
use crate::lab::runner::Runner;
use crate::lab::starts;
use crate::lab::traces;
use crate::lab::traces::long;

/// The most calls of AWS's API that a job may cost, from its launch to its end.
const CALLS: usize = 8;

/// How long tasks take on AWS that come up within 30 s: long enough after one poll, and before the next at 33 s, also where
/// this host is busy.
const ORDINARY: [(&str, f64); 3] = [
    ("provisioning", 10.0),
    ("pending", 15.0),
    ("activating", 2.0),
];

/// `prepare` reads the container's environment besides its login, and leaves a watchdog.
const READY_STAGES: u32 = 4;

#[test]
fn a_crowd_of_tasks_is_told_apart() {
    let count = if long() { 50 } else { 12 };
    let account = Arc::new(Account::new());
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let together = Barrier::new(count);
    let runners: Vec<_> = (0..count)
        .map(|_| {
            Runner::builder()
                .on_account(&account)
                .state_directory(&state)
                .build()
        })
        .collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (number, runner) in runners.iter().enumerate() {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                play(runner, number);
            });
        }
    });
    let took = began.elapsed();
    for runner in &runners {
        runner.assert_nothing_left();
    }
    traces::assert_only_tombstones(&state, count);
    let calls = calls_by_family(&account);
    assert_eq!(calls.len(), count);
    let all: Vec<_> = calls.values().copied().collect();
    let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    let sum: usize = all.iter().sum();
    eprintln!(
        "{count} jobs at once took {took:.1?}; AWS calls for each: {least} to {most}, {sum} in all"
    );
    // Where other tests run beside this one all takes longer, and each further poll is a call.
    let limit = if long() { CALLS } else { CALLS + 4 };
    assert!(*most <= limit, "{calls:?}");
    assert_eq!(account.tasks().len(), count);
}

/// One whole job.
fn play(runner: &Runner, number: usize) {
    runner.start();
    let code = number % 4;
    let mut expected = String::new();
    for line in 0..500 {
        expected += &format!("{number}: line {line}\n");
    }
    let script = format!(
        "i=0; while [ $i -lt 500 ]; do echo \"{number}: line $i\"; i=$((i + 1)); done\n\
         setsid sleep 7100 </dev/null >/dev/null 2>&1 &\n\
         exit {code}\n"
    );
    runner
        .run("build_script", script)
        .assert_code(i32::from(code != 0))
        .assert_stdout(expected);
    let wanted = (code != 0).then(|| code.to_string().into_bytes());
    assert_eq!(runner.exit_file(), wanted, "job {number}");
    runner.set_status(if code == 0 { "success" } else { "failed" });
    let output = runner.run("after_script", format!("echo after {number}"));
    output.assert_stdout(format!("after {number}\n"));
    runner.cleanup().assert_success();
}

/// Counts the calls that were made for the tasks of each family.
fn calls_by_family(account: &Account) -> BTreeMap<String, usize> {
    let tasks = account.tasks();
    let mut counts = BTreeMap::new();
    for call in account.calls("*") {
        let parameters = call.parameters.to_string();
        let about = |name: &str| parameters.contains(&format!("\"{name}\""));
        let task = tasks
            .iter()
            .find(|task| about(&task.family) || about(&task.arn));
        let task = task.unwrap_or_else(|| panic!("about no task: {call:?}"));
        *counts.entry(task.family.clone()).or_default() += 1;
    }
    counts
}

#[test]
fn a_start_of_30_s_costs_few_calls_and_is_noticed_at_once() {
    let count = 5;
    let account = Arc::new(Account::new());
    account.timings(&ORDINARY);
    let runners: Vec<_> = (0..count)
        .map(|_| Runner::builder().on_account(&account).build())
        .collect();
    let apart = Duration::from_secs(1);
    let coming = Duration::from_secs(26);
    starts::assert_noticed_at_once(&runners, apart, |_| {}, coming, READY_STAGES);
    let calls = calls_by_family(&account);
    eprintln!("AWS calls for a start of 30 s: {calls:?}");
    assert!(calls.values().all(|calls| *calls <= CALLS), "{calls:?}");
}
