//! The state of a task while a script runs on it.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::stopped;
use crate::compute::aws::Aws;
use crate::compute::watch::{AT_LEAST, DESCRIBE_LIMIT, Look, Looks};
use crate::error::{Error, Kind};
use crate::machine::task::EcsPlace;
use crate::machine::verdict::Why;
use crate::state::shared::Shared;

/// How long the containers' own reasons are waited for once the task is ending: they come with STOPPED.
const REASONS: Duration = Duration::from_millis(2500);

/// Resolves, with AWS's reason, when the task is gone or going. A lost connection asks for a look at once.
pub async fn gone(place: &EcsPlace, lost: &Notify, shared: &Shared) -> Error {
    let mut looks = Looks::first(lost).await;
    let aws = Aws::new(&place.access, None, shared).await;
    let look = async || match place.describe(&aws, DESCRIBE_LIMIT).await {
        Ok(Some(task)) if task.stop.is_some() => Look::Gone(()),
        Ok(Some(_)) => Look::There,
        Ok(None) => Look::Missing,
        Err(verdict) => {
            tracing::debug!(cause = verdict.cause, "the task's state is not known");
            Look::Unknown
        }
    };
    match looks.until_gone(look).await {
        Some(()) => ending(place, &aws).await,
        None => told(
            "ECS does not know the task any more (MISSING)",
            "Somebody stopped it more than an hour ago? Retry the job.",
        ),
    }
}

/// Waits a little for the containers' reasons, which say more than the task's.
async fn ending(place: &EcsPlace, aws: &Aws) -> Error {
    let began = Instant::now();
    let mut verdict = None;
    loop {
        if let Ok(Some(task)) = place.describe(aws, DESCRIBE_LIMIT).await {
            let told = stopped::stopped(&task, &place.container);
            let enough = task.phase.is_over()
                || matches!(told.why, Why::Interrupted | Why::StoppedBySomeone);
            verdict = Some(told);
            if enough {
                break;
            }
        }
        if began.elapsed() + AT_LEAST > REASONS {
            break;
        }
        sleep(AT_LEAST).await;
    }
    match verdict {
        Some(verdict) if verdict.why == Why::Interrupted => {
            let what = "the machine is gone";
            verdict.error(Kind::TakenBack, what)
        }
        Some(verdict) => told(&verdict.cause, &verdict.remedy),
        None => told(
            "its task is being stopped",
            "See the task in the ECS console.",
        ),
    }
}

fn told(cause: &str, remedy: &str) -> Error {
    Error::new(Kind::MachineGone, format!("the machine is gone: {cause}")).hint(remedy)
}
