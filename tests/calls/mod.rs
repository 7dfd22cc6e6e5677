//! Calls as they fail before AWS hears of them: certificates, proxies, a zone in a region's place. They are told at once, as what
//! they are, and nothing is given up for them.

mod front;
mod logins;
mod names;
mod policies;
mod proxies;
mod shells;
mod trust;
mod zones;

use std::time::Duration;

use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::lines;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;

/// Far less than an outage is waited out, and far more than a busy machine takes to say one thing.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Checks that `prepare` is refused at once.
#[track_caller]
fn refused(runner: &Runner, cause: &str, remedy: &str) -> Output {
    runner.config().assert_success();
    let output = assert_failure(runner.prepare(), cause, remedy);
    assert!(output.duration < AT_ONCE, "{output}");
    assert!(!output.contains("Waiting for AWS"), "{output}");
    output
}

/// Checks that the next try says the same, and asks nobody.
#[track_caller]
fn refused_again(runner: &Runner, first: &Output) {
    runner.cleanup().assert_success();
    runner.next_attempt();
    let again = runner.prepare().assert_code(2);
    let told = lines(first);
    assert_eq!(lines(&again), told[told.len() - 2..]);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
