//! What a job on EC2 costs in calls of AWS and in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::lab;
use crate::lab::aws::Account;
use crate::lab::port;
use crate::lab::runner::Runner;

/// The most calls of AWS's API that a job may cost, from its launch to its end.
const CALLS: usize = 8;

/// How long instances take on AWS whose `sshd` listens after 30 s.
const ORDINARY: [(&str, f64); 3] = [
    ("launching", 12.0),
    ("booting", 18.0),
    ("shutting-down", 1.0),
];

/// From an SSH server that listens to the end of `prepare`.
const READY_LIMIT: Duration = Duration::from_millis(300);
/// Where the limit is too hard for this host, since it runs other tests beside this one: in stages of the same jobs, each
/// of which is one login with a small script.
const READY_STAGES: u32 = 2;

#[test]
fn a_start_of_30_s_costs_few_calls_and_is_noticed_at_once() {
    let count = 3;
    let accounts: Vec<_> = (0..count).map(|_| Arc::new(Account::new())).collect();
    let runners: Vec<_> = accounts
        .iter()
        .map(|account| Runner::builder().on_ec2_of(account).build())
        .collect();
    // The driver's template is made once for all jobs of the same settings.
    let first: Vec<usize> = runners
        .iter()
        .map(|runner| {
            runner.start();
            runner.cleanup().assert_success();
            runner.account().timings(&ORDINARY);
            runner.next_attempt();
            runner.account().calls("*").len()
        })
        .collect();
    let (mut waits, mut stages): (Vec<Duration>, Vec<Duration>) = std::thread::scope(|scope| {
        let jobs: Vec<_> = runners
            .iter()
            .map(|runner| {
                scope.spawn(move || {
                    runner.account().wait("the first one's end", |state| {
                        state.instances.iter().all(|one| !one.is_alive())
                    });
                    port::wait_listening(runner.server().port(), false, lab::PATIENCE);
                    let prepare = runner.spawn_prepare();
                    port::wait_listening(runner.server().port(), true, lab::PATIENCE);
                    let listens = Instant::now();
                    let output = prepare.wait(lab::PATIENCE).assert_success();
                    let wait = listens.elapsed();
                    assert!(output.duration > Duration::from_secs(29), "{output}");
                    let stage = runner
                        .run("build_script", "echo here")
                        .assert_stdout("here\n");
                    runner.cleanup().assert_success();
                    (wait, stage.duration)
                })
            })
            .collect();
        jobs.into_iter().map(|job| job.join().unwrap()).collect()
    });
    waits.sort();
    stages.sort();
    let (median, worst) = (waits[count / 2], waits[count - 1]);
    let stage = stages[count / 2];
    eprintln!(
        "`prepare` was back {median:.0?} after sshd listened (median of {count}; worst {worst:.0?}); a stage took {stage:.0?}"
    );
    for (account, first) in accounts.iter().zip(first) {
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for call in &account.calls("*")[first..] {
            *calls.entry(call.action.clone()).or_default() += 1;
        }
        eprintln!("AWS calls for a start of 30 s: {calls:?}");
        let sum: usize = calls.values().sum();
        assert!(sum <= CALLS, "{calls:?}");
    }
    let limit = READY_LIMIT.max(READY_STAGES * stage);
    assert!(median < limit, "{waits:?}, limit {limit:?}");
}
