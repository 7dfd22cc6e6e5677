//! One ECS task per job: Fargate, Fargate Spot, or any other capacity provider of the cluster.
//!
//! ```text
//! request ─▶ launch (RunTask) ─▶ coming (DescribeTasks, address) ─▶ [the job] ─▶ end (StopTask)
//!                                                                   watch beside it
//! ```
//!
//! Types of the AWS SDK stop here. What AWS says is read once, by [`super::aws::classify`], into few kinds.

mod address;
pub mod coming;
pub mod end;
pub mod launch;
pub mod list;
pub mod progress;
pub mod request;
pub mod stopped;
pub mod task;
pub mod watch;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aws::Aws;
use super::aws::access::Access;
use super::aws::classify::{Action, Verdict};
use task::Task;

/// Which task a machine is, and how to ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsPlace {
    /// Where calls go, and as whom.
    pub access: Access,
    /// Cluster name or ARN.
    pub cluster: Option<String>,
    /// The task's ARN.
    pub task: String,
    /// The container that the job runs in.
    pub container: String,
}

impl EcsPlace {
    /// Asks for the task's state; `None` where ECS does not know it, or not yet.
    async fn describe(&self, aws: &Aws, limit: Duration) -> Result<Option<Task>, Verdict> {
        let call = async || {
            aws.ecs
                .describe_tasks()
                .set_cluster(self.cluster.clone())
                .tasks(&self.task)
                .send()
                .await
        };
        match aws.call(Action::DescribeTasks, limit, call).await {
            Ok(answer) => {
                let task = answer.tasks().first();
                Ok(task.map(|task| Task::read(task, &self.container)))
            }
            Err(failure) => Err(failure.verdict),
        }
    }
}
