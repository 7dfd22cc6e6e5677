//! StopTask: for what a record names, and for whatever a bare intent may have started.

use std::time::Duration;

use super::launch::replay;
use super::request::TaskRequest;
use crate::compute::aws::Aws;
use crate::compute::aws::classify::{Action, Why};
use crate::compute::aws::tags;
use crate::error::Result;

/// How long AWS is asked before what is known stays for the next `cleanup` or `reap`.
const END_LIMIT: Duration = Duration::from_secs(90);

/// Ends a task. One that has ended, or that nobody knows, is as good.
///
/// # Errors
/// Where it may still be alive.
pub async fn stop(aws: &Aws, cluster: Option<&str>, task: &str, reason: &str) -> Result<()> {
    let call = async || {
        aws.ecs
            .stop_task()
            .set_cluster(cluster.map(str::to_owned))
            .task(task)
            .reason(tags::stop_reason(reason))
            .send()
            .await
    };
    match aws.call(Action::StopTask, END_LIMIT, call).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.verdict.why == Why::NotFound => Ok(()),
        Err(failure) => Err(failure.verdict.error(
            failure.verdict.why.kind(),
            &format!("the task {task} could not be stopped and may still run"),
        )),
    }
}

/// Ends whatever a request has started: the same request with the same token finds the task of an answer that was lost or
/// is still on its way, or starts one that can then be stopped. No list would know it yet.
///
/// # Errors
/// Where something of it may still be alive.
pub async fn end_asked(aws: &Aws, request: &TaskRequest, reason: &str) -> Result<()> {
    for task in replay(aws, request, END_LIMIT).await? {
        stop(aws, request.cluster.as_deref(), &task, reason).await?;
    }
    Ok(())
}
