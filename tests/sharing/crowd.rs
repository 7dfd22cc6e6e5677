//! Many jobs at once under AWS's documented limits, and a poller that is killed.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

use super::files;
use super::job;
use crate::lab;
use crate::lab::aws::Account;
use crate::lab::aws::Called;
use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces;
use crate::lab::traces::long;
use crate::lab::traces::until;

/// How long a crowd may take on a machine of two cores.
const LONG: Duration = Duration::from_secs(15 * 60);

/// Returns how many polls a second there may be. A call that was held up on a busy host is followed by the next one too soon.
fn most() -> f64 {
    if long() { 2.05 } else { 2.2 }
}

/// Returns the most calls a second, over any span of at least ten seconds.
fn rate(calls: &[Called]) -> f64 {
    let times: Vec<f64> = calls.iter().map(|call| call.time).collect();
    let mut most = 0f64;
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            most = most.max((last - first) as f64 / (to - from).max(10.0));
        }
    }
    most
}

#[test]
fn a_crowd_under_awss_limits_is_never_throttled() {
    let count = if long() { 200 } else { 30 };
    let account = Arc::new(Account::new());
    account.documented_limits();
    account.timings(&[("provisioning", 6.0), ("pending", 6.0)]);
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    // The lab's own machines may take long to come up where hundreds do so at once.
    let runners: Vec<_> = (0..count)
        .map(|_| job(&account, &state).connect_timeout("5m").build())
        .collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for runner in &runners {
            scope.spawn(|| {
                runner.spawn_prepare().wait(LONG).assert_success();
                let script = runner.spawn_run("build_script", "echo on; sleep 10\n");
                script.wait(LONG).assert_success().assert_stdout("on\n");
                runner.spawn_cleanup().wait(LONG).assert_success();
            });
        }
    });
    let took = began.elapsed();
    for runner in &runners {
        runner.assert_nothing_left();
    }
    traces::assert_only_tombstones(&state, count);
    // Of those that waited for answers nobody is left.
    let places: Vec<_> = files(&state.join("shared/poll"))
        .into_iter()
        .filter(|path| !path.ends_with("lock"))
        .collect();
    assert!(places.is_empty(), "{places:?}");
    let launches = account.calls("RunTask");
    let asking = launches[count - 1].time - launches[0].time;
    let describes = account.calls("DescribeTasks");
    let rate = rate(&describes);
    eprintln!(
        "{count} jobs at once took {took:.1?}; all were asked for within {asking:.1} s; {} calls of DescribeTasks, \
         {rate:.2} a second at most",
        describes.len()
    );
    let throttled: Vec<_> = account
        .calls("*")
        .into_iter()
        .filter(|c| c.fault.is_some())
        .collect();
    assert!(throttled.is_empty(), "{throttled:#?}");
    assert_eq!(launches.len(), count);
    assert!(rate <= most(), "{rate}");
}

#[test]
fn a_crowd_of_instances_is_asked_for_in_time_and_never_throttled() {
    let count = if long() { 60 } else { 12 };
    let account = Arc::new(Account::new());
    account.documented_limits();
    account.timings(&[("launching", 4.0)]);
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let runners: Vec<_> = (0..count)
        .map(|_| {
            let job = Runner::builder().machine(ServerBuilder::new(Kind::Own, Login::Dash));
            let job = job.on_ec2_of(&account).state_directory(&state);
            job.connect_timeout("5m").build()
        })
        .collect();
    std::thread::scope(|scope| {
        for runner in &runners {
            scope.spawn(|| {
                runner.spawn_prepare().wait(LONG).assert_success();
                let script = runner.spawn_run("build_script", "echo on; sleep 7\n");
                script.wait(LONG).assert_success().assert_stdout("on\n");
                runner.spawn_cleanup().wait(LONG).assert_success();
            });
        }
    });
    for runner in &runners {
        runner.assert_nothing_left();
    }
    traces::assert_only_tombstones(&state, count);
    let calls = account.calls("*");
    let throttled: Vec<_> = calls.iter().filter(|c| c.fault.is_some()).collect();
    assert!(throttled.is_empty(), "{throttled:#?}");
    // One more for the template that none of them found at first, where several met its absence.
    let launches: Vec<_> = account
        .calls("CreateFleet")
        .into_iter()
        .filter(|call| call.code.is_none())
        .collect();
    let asking = launches[count - 1].time - launches[0].time;
    let describes = account.calls("DescribeInstances");
    let rate = rate(&describes);
    eprintln!(
        "{count} jobs at once on instances: all asked for within {asking:.1} s; {} calls in all, {} of DescribeInstances, \
         {rate:.2} a second at most",
        calls.len(),
        describes.len()
    );
    assert_eq!(launches.len(), count);
    assert!(asking <= if long() { 20.0 } else { 60.0 }, "{asking}");
    assert!(rate <= most(), "{rate}");
}

/// Returns who holds the lock of the one that polls.
fn poller(state: &Path) -> Option<i32> {
    let lock = files(&state.join("shared/poll"))
        .into_iter()
        .find(|path| path.ends_with("lock"))?;
    let inode = format!(":{}", std::fs::metadata(lock).ok()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ours = fields.get(5)?.ends_with(&inode) && fields[1] == "FLOCK";
        ours.then(|| fields[4].parse().unwrap())
    })
}

#[test]
fn a_poller_that_is_killed_delays_the_others_by_two_seconds_at_most() {
    let count = 6;
    let account = Arc::new(Account::new());
    account.timings(&[("provisioning", 15.0)]);
    // All begin to ask at once, however long it took any of them to come that far: none waits for another's answer for ever.
    account.fault(&Fault::gathered("RunTask", count));
    // Whoever asks first waits for its answer for good.
    account.fault(&Fault::slow("DescribeTasks", lab::PATIENCE));
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let runners: Vec<_> = (0..count).map(|_| job(&account, &state).build()).collect();
    let stages: Vec<_> = runners.iter().map(Runner::spawn_prepare).collect();
    until("all others wait", lab::PATIENCE, || {
        files(&state.join("shared/poll")).len() == count
    });
    // The others may be there before its call is.
    assert_eq!(account.wait_calls("DescribeTasks", 1).len(), 1);
    let pid = poller(&state).expect("somebody polls");
    let killed = Instant::now();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let calls = account.wait_calls("DescribeTasks", 2);
    let took = killed.elapsed();
    eprintln!("the next poll came {took:.1?} after the poller was killed");
    // A busy host may let nobody run for seconds; the answer of the poller that is dead takes longer than that.
    let limit = if long() {
        Duration::from_secs(2)
    } else {
        lab::PATIENCE / 4
    };
    assert!(took < limit, "{took:?}");
    let tasks = calls[1].parameters["tasks"].as_array().unwrap().len();
    assert_eq!(tasks, count - 1, "{calls:#?}");
    let mut lost = 0;
    for (runner, stage) in runners.iter().zip(stages) {
        let output = stage.wait(lab::PATIENCE);
        if output.code() == Some(0) {
            runner
                .run("build_script", "echo on\n")
                .assert_stdout("on\n");
        } else {
            lost += 1;
        }
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
    assert_eq!(lost, 1);
}
