//! What a job on EC2 costs in calls of AWS and in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::lab;
use crate::lab::aws::Account;
use crate::lab::port;
use crate::lab::runner::Runner;
use crate::lab::starts;

/// The most calls of AWS's API that a job may cost, from its launch to its end.
const CALLS: usize = 8;

/// How long instances take on AWS whose `sshd` listens after 30 s.
const ORDINARY: [(&str, f64); 3] = [
    ("launching", 12.0),
    ("booting", 18.0),
    ("shutting-down", 1.0),
];

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
    let gone = |runner: &Runner| {
        runner.account().wait("the first one's end", |state| {
            state.instances.iter().all(|one| !one.is_alive())
        });
        port::wait_listening(runner.server().port(), false, lab::PATIENCE);
    };
    let apart = Duration::from_secs(2);
    let coming = Duration::from_secs(29);
    starts::assert_noticed_at_once(&runners, apart, gone, coming, 2);
    for (account, first) in accounts.iter().zip(first) {
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for call in &account.calls("*")[first..] {
            *calls.entry(call.action.clone()).or_default() += 1;
        }
        eprintln!("AWS calls for a start of 30 s: {calls:?}");
        let sum: usize = calls.values().sum();
        assert!(sum <= CALLS, "{calls:?}");
    }
}
