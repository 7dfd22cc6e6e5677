//! Tasks as a cluster lists them: for `reap`, which has no record to go by.

use std::time::Duration;

use super::task::Task;
use crate::compute::aws::Aws;
use crate::compute::aws::classify::Action;
use crate::error::Result;

/// One call, repeated within that time.
const LIST_LIMIT: Duration = Duration::from_secs(2 * 60);
/// The most tasks that one DescribeTasks takes.
const BATCH: usize = 100;

/// Returns the ARNs of a cluster's tasks that are not stopped: all, or those that one manager started.
///
/// # Errors
/// Where AWS does not say.
pub async fn tasks(
    aws: &Aws,
    cluster: Option<&str>,
    started_by: Option<&str>,
) -> Result<Vec<String>> {
    let mut arns = Vec::new();
    let mut page: Option<String> = None;
    loop {
        let call = async || {
            aws.ecs
                .list_tasks()
                .set_cluster(cluster.map(str::to_owned))
                .set_started_by(started_by.map(str::to_owned))
                .set_next_token(page.clone())
                .send()
                .await
        };
        let answer = match aws.call(Action::ListTasks, LIST_LIMIT, call).await {
            Ok(answer) => answer,
            Err(failure) => {
                let what = "the cluster's tasks cannot be listed";
                return Err(failure.verdict.error(failure.verdict.why.kind(), what));
            }
        };
        arns.extend_from_slice(answer.task_arns());
        page = answer.next_token().map(str::to_owned);
        if page.is_none() {
            return Ok(arns);
        }
    }
}

/// Returns what is known of tasks, with their tags.
///
/// # Errors
/// Where AWS does not say.
pub async fn details(aws: &Aws, cluster: Option<&str>, arns: &[String]) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for batch in arns.chunks(BATCH) {
        let call = async || {
            aws.ecs
                .describe_tasks()
                .set_cluster(cluster.map(str::to_owned))
                .set_tasks(Some(batch.to_vec()))
                .include(aws_sdk_ecs::types::TaskField::Tags)
                .send()
                .await
        };
        match aws.call(Action::DescribeTasks, LIST_LIMIT, call).await {
            Ok(answer) => tasks.extend(answer.tasks().iter().map(|task| Task::read(task, ""))),
            Err(failure) => {
                let what = "the cluster's tasks cannot be described";
                return Err(failure.verdict.error(failure.verdict.why.kind(), what));
            }
        }
    }
    Ok(tasks)
}
