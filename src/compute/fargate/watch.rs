//! The state of a task while a script runs on it.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::EcsPlace;
use super::stopped;
use crate::compute::aws::Aws;
use crate::compute::aws::classify::Why;
use crate::error::{Error, Kind};
use crate::state::shared::Shared;

/// Between two looks. With [`REASONS`] less than the 10 s within which the job is told; short sub-stages make none.
const PERIOD: Duration = Duration::from_secs(6);
/// Between two looks after a connection was lost: it breaks a little before ECS knows why.
const SOON: Duration = Duration::from_secs(2);
/// How many of those looks there are.
const SOON_LOOKS: u32 = 3;
/// At least between two looks that lost connections ask for.
const AT_LEAST: Duration = Duration::from_millis(1500);
/// How long the containers' own reasons are waited for once the task is ending: they come with STOPPED.
const REASONS: Duration = Duration::from_millis(2500);
/// One describe call, repeated within that time.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(30);
/// That many times in a row MISSING: gone, and not a read that lags.
const MISSING: u32 = 3;

/// Resolves, with AWS's reason, when the task is gone or going. A lost connection asks for a look at once.
pub async fn gone(place: &EcsPlace, lost: &Notify, shared: &Shared) -> Error {
    // Most sub-stages are over before the first look: they need no client.
    let mut soon = match timeout(PERIOD, lost.notified()).await {
        Ok(()) => SOON_LOOKS,
        Err(_) => 0,
    };
    let aws = Aws::new(&place.access, None, shared).await;
    let mut missing = 0;
    loop {
        let looked = Instant::now();
        match place.describe(&aws, DESCRIBE_LIMIT).await {
            Ok(Some(task)) if task.stop.is_some() => return ending(place, &aws).await,
            Ok(Some(_)) => missing = 0,
            Ok(None) => {
                missing += 1;
                if missing >= MISSING {
                    return told(
                        "ECS does not know the task any more (MISSING)",
                        "Somebody stopped it more than an hour ago? Retry the job.",
                    );
                }
            }
            // Not to know is no reason to fail a job whose connection stands; a lost one has its own limit.
            Err(verdict) => tracing::debug!(cause = verdict.cause, "the task's state is not known"),
        }
        let wait = match soon {
            0 => PERIOD,
            _ => SOON,
        };
        soon = match timeout(wait, lost.notified()).await {
            Ok(()) => SOON_LOOKS,
            Err(_) => soon.saturating_sub(1),
        };
        sleep(AT_LEAST.saturating_sub(looked.elapsed())).await;
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
