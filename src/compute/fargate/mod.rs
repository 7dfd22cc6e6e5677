//! One ECS task per job: Fargate, Fargate Spot, or any other capacity provider of the cluster.
//!
//! ```text
//! request ─▶ launch (RunTask) ─▶ coming (DescribeTasks, address) ─▶ [the job] ─▶ end (StopTask)
//!                                                                   watch beside it
//! ```
//!
//! Types of the AWS SDK stop here. What AWS says is read once, by [`crate::compute::aws::classify`], into few kinds.

mod address;
mod coming;
pub mod end;
mod launch;
pub mod list;
pub mod progress;
pub mod request;
pub mod stopped;
pub mod task;
pub mod watch;

use std::time::Duration;

use tokio::sync::Notify;

use crate::compute::aws::classify::Action;
use crate::compute::aws::{Aws, poller};
use crate::compute::kind::{Launched, MachineKind, Refused, Settled};
use crate::error::Error;
use crate::machine::Login;
use crate::machine::task::{EcsPlace, TaskRequest};
use crate::machine::verdict::Verdict;
use crate::state::record::now;
use crate::state::shared::Shared;
use crate::state::{Job, Store};
use crate::ui::Ui;
use coming::Coming;
use task::Task;

/// How long one look may take whose answer nothing depends on.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Tasks of ECS clusters.
#[derive(Debug)]
pub enum Tasks {}

impl MachineKind for Tasks {
    type Request = TaskRequest;
    type Place = EcsPlace;
    type Coming = Coming;

    async fn settle(
        request: &mut TaskRequest,
        _store: &Store,
        _ui: Ui,
    ) -> Result<Settled, Refused> {
        request.asked = now();
        Ok(Settled::Ready)
    }

    async fn launch(
        request: &TaskRequest,
        _job: &Job,
        login: &Login,
        rung_wait: Duration,
        store: &Store,
        ui: Ui,
    ) -> Result<Launched<Coming>, Refused> {
        let aws = Aws::new(&request.access, Some(ui), &store.shared()).await;
        let launched = launch::launch(&aws, request).await?;
        Ok(launched.map(|arn| Coming::new(aws, request, arn, login.clone(), rung_wait)))
    }

    /// Nothing is made for one.
    async fn withdraw(_request: &TaskRequest, _store: &Store, _ui: Ui) {}

    async fn end_launch(
        request: &TaskRequest,
        name: Option<&str>,
        reason: &str,
        shared: &Shared,
        ui: Ui,
    ) -> Result<(), Error> {
        let aws = Aws::new(&request.access, Some(ui), shared).await;
        match name {
            Some(task) => end::end_named(&aws, request, task, reason).await,
            None => end::end_asked(&aws, request, reason).await,
        }
    }

    async fn end_machine(
        place: &EcsPlace,
        reason: &str,
        shared: &Shared,
        ui: Ui,
    ) -> Result<(), Error> {
        let aws = Aws::new(&place.access, Some(ui), shared).await;
        end::stop(&aws, place.cluster.as_deref(), &place.task, reason).await
    }

    async fn gone(place: &EcsPlace, lost: &Notify, shared: &Shared) -> Error {
        watch::gone(place, lost, shared).await
    }
}

impl EcsPlace {
    /// Returns whether ECS knows the task where this says it is, as far as it says so soon.
    pub async fn is_known(&self, shared: &Shared) -> bool {
        let aws = Aws::new(&self.access, None, shared).await;
        matches!(self.describe(&aws, LOOK_LIMIT).await, Ok(Some(_)))
    }

    /// Ends the task, and returns whether ECS knew it there.
    ///
    /// # Errors
    /// Where it may still be alive.
    pub async fn end(&self, reason: &str, shared: &Shared, ui: Ui) -> Result<bool, Error> {
        let aws = Aws::new(&self.access, Some(ui), shared).await;
        end::stop_known(&aws, self.cluster.as_deref(), &self.task, reason).await
    }

    /// Asks for the task's state, together with other jobs that ask for theirs; `None` where ECS does not know it, or not
    /// yet.
    async fn describe(&self, aws: &Aws, limit: Duration) -> Result<Option<Task>, Verdict> {
        let (cluster, own) = split(&self.task);
        let ask = async |names: &[String]| {
            let tasks: Vec<String> = names.iter().map(|n| format!("{cluster}{n}")).collect();
            let call = async || {
                aws.ecs
                    .describe_tasks()
                    .set_cluster(self.cluster.clone())
                    .set_tasks(Some(tasks.clone()))
                    .send()
                    .await
            };
            match aws.call(Action::DescribeTasks, limit, call).await {
                Ok(answer) => {
                    let read = |task| {
                        let task = Task::read(task, &self.container);
                        (split(&task.arn).1.to_owned(), task)
                    };
                    Ok(answer.tasks().iter().map(read).collect())
                }
                Err(failure) => Err(failure.verdict),
            }
        };
        let scope = format!("ecs {cluster} {}", self.container);
        poller::state(aws, &scope, own, ask).await
    }
}

/// Splits a task's ARN into what all of its cluster's have in common, and its own name.
fn split(arn: &str) -> (&str, &str) {
    arn.split_at(arn.rfind('/').map_or(0, |at| at + 1))
}
