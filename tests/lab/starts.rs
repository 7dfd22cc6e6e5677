//! What starts cost in time: from an SSH server that listens to the end of `prepare`, beside a stage of the same job.

use std::time::Duration;
use std::time::Instant;

use super::PATIENCE;
use super::port;
use super::runner::Runner;
use super::traces::long;

/// From an SSH server that listens to the end of `prepare`.
const READY_LIMIT: Duration = Duration::from_millis(300);

/// Plays one job of each runner, so far apart from each other that a moment in which this host stands still is not
/// every job's; prints what was measured.
///
/// The limit holds for the fastest one, for the median in the long form. Where it is too hard for this host, since that runs
/// other tests beside this one, so many stages of the same jobs are the limit: each is one login with a small script.
///
/// # Panics
///
/// Where a job fails, comes up sooner than it can, or the limit is passed.
pub(crate) fn assert_noticed_at_once(
    runners: &[Runner],
    apart: Duration,
    before: impl Fn(&Runner) + Sync,
    at_least: Duration,
    in_stages: u32,
) {
    let play = |runner: &Runner, number: u32| {
        std::thread::sleep(number * apart);
        before(runner);
        let prepare = runner.spawn_prepare();
        port::wait_listening(runner.server().port(), true, PATIENCE);
        let listens = Instant::now();
        let output = prepare.wait(PATIENCE).assert_success();
        let wait = listens.elapsed();
        assert!(output.duration > at_least, "{output}");
        let stage = runner
            .run("build_script", "echo here")
            .assert_stdout("here\n");
        runner.cleanup().assert_success();
        (wait, stage.duration)
    };
    let play = &play;
    let (mut waits, mut stages): (Vec<Duration>, Vec<Duration>) = std::thread::scope(|scope| {
        let jobs: Vec<_> = runners
            .iter()
            .zip(0..)
            .map(|(runner, number)| scope.spawn(move || play(runner, number)))
            .collect();
        jobs.into_iter()
            .map(|job| job.join().expect("a job that is right"))
            .collect()
    });
    waits.sort();
    stages.sort();
    let count = runners.len();
    let (fastest, median, worst) = (waits[0], waits[count / 2], waits[count - 1]);
    let stage = stages[count / 2];
    eprintln!(
        "`prepare` was back {median:.0?} after sshd listened (median of {count}; {fastest:.0?} to {worst:.0?}); a stage took \
         {stage:.0?}"
    );
    let limit = READY_LIMIT.max(in_stages * stage);
    let wait = if long() { median } else { fastest };
    assert!(wait < limit, "{waits:?}, limit {limit:?}");
}
