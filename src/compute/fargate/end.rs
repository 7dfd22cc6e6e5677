//! StopTask: for what a record names, and for whatever a bare intent may have started.

use std::cell::Cell;
use std::time::Duration;

use aws_sdk_ecs::config::Region;
use aws_sdk_ecs::operation::stop_task::StopTaskError;
use tokio::time::sleep;

use super::launch::replay;
use crate::compute::aws::classify::Action;
use crate::compute::aws::{Aws, LAG};
use crate::error::Result;
use crate::machine::tags;
use crate::machine::task::TaskRequest;
use crate::machine::verdict::Why;
use crate::state::record::now;

/// How long AWS is asked before what is known stays for the next `cleanup` or `reap`.
const END_LIMIT: Duration = Duration::from_secs(90);
/// ECS knows a task for an hour after its end: one that was asked for so lately and is not found is not known *yet*. Longer
/// than RunTask is repeated.
const YOUNG: Duration = Duration::from_secs(10 * 60);

/// Ends a task that is known for a while. One that has ended, or that nobody knows, is as good.
///
/// # Errors
/// Where it may still be alive.
pub async fn stop(aws: &Aws, cluster: Option<&str>, task: &str, reason: &str) -> Result<()> {
    let known = stop_despite_lag(aws, cluster, task, reason, &[]);
    known.await.map(drop)
}

/// Ends a task, and returns whether ECS knew it: where the call may go to another account than the task's own, that it is not
/// known there says nothing.
///
/// # Errors
/// Where it may still be alive.
pub async fn stop_known(
    aws: &Aws,
    cluster: Option<&str>,
    task: &str,
    reason: &str,
) -> Result<bool> {
    stop_despite_lag(aws, cluster, task, reason, &[]).await
}

/// Ends the task that answered a request.
///
/// # Errors
/// Where it may still be alive.
pub async fn end_named(aws: &Aws, request: &TaskRequest, task: &str, reason: &str) -> Result<()> {
    let lag: &[Duration] = match is_young(request, now()) {
        true => &LAG,
        false => &[],
    };
    let known = stop_despite_lag(aws, request.cluster.as_deref(), task, reason, lag);
    known.await.map(drop)
}

/// Ends whatever a request has started: the same request with the same token finds the task of an answer that was lost or
/// is still on its way, or starts one that can then be stopped. No list would know it yet.
///
/// # Errors
/// Where something of it may still be alive.
pub async fn end_asked(aws: &Aws, request: &TaskRequest, reason: &str) -> Result<()> {
    for task in replay(aws, request, END_LIMIT).await? {
        // Whenever the request was made, the task may be of this very moment.
        stop_despite_lag(aws, request.cluster.as_deref(), &task, reason, &LAG).await?;
    }
    Ok(())
}

/// Whether ECS may not know the request's task yet; `now` is Unix time, in seconds.
fn is_young(request: &TaskRequest, now: u64) -> bool {
    now.saturating_sub(request.asked) < YOUNG.as_secs()
}

/// Ends a task, which is believed not to be there after these pauses. Returns whether it was.
async fn stop_despite_lag(
    aws: &Aws,
    cluster: Option<&str>,
    task: &str,
    reason: &str,
    lag: &[Duration],
) -> Result<bool> {
    let mut pauses = lag.iter();
    let no_cluster = Cell::new(false);
    loop {
        let call = async || {
            let answer = aws
                .ecs
                .stop_task()
                .set_cluster(cluster.map(str::to_owned))
                .task(task)
                .reason(tags::stop_reason(reason))
                .send()
                .await;
            if let Err(error) = &answer {
                let refused = error.as_service_error();
                no_cluster.set(refused.is_some_and(StopTaskError::is_cluster_not_found_exception));
            }
            answer
        };
        let Err(failure) = aws.call(Action::StopTask, END_LIMIT, call).await else {
            return Ok(true);
        };
        // ECS deletes no cluster in which a task runs.
        if no_cluster.get() && is_in_region(aws, task) {
            return Ok(false);
        }
        if failure.verdict.why != Why::NotFound {
            return Err(failure.verdict.error(
                failure.verdict.why.kind(),
                &format!("the task {task} could not be stopped and may still run"),
            ));
        }
        match pauses.next() {
            Some(pause) => sleep(*pause).await,
            None => return Ok(false),
        }
    }
}

/// Whether calls go to the task's own region: in another one its cluster is not known either, and the task runs on.
fn is_in_region(aws: &Aws, task: &str) -> bool {
    let region = aws.ecs.config().region().map(Region::as_ref);
    region.is_some() && task.split(':').nth(3) == region
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fargate::request::tests::request;

    #[test]
    fn only_what_was_asked_for_lately_may_not_be_known_yet() {
        let asked = |asked| TaskRequest { asked, ..request() };
        assert!(is_young(&asked(1_000_000), 1_000_000));
        assert!(is_young(&asked(1_000_000), 1_000_599));
        assert!(!is_young(&asked(1_000_000), 1_000_600));
        // A clock that was set back; an intent of a version that did not note it.
        assert!(is_young(&asked(1_000_001), 1_000_000));
        assert!(!is_young(&asked(0), 1_000_000));
    }
}
