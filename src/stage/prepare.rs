//! `prepare`: makes the plan for the job, tries rung after rung until it can log in to a machine, and writes the record for
//! the other stages.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::Context;
use super::bring_up::Preparation;
use crate::compute::ec2;
use crate::compute::kind::MachineKind;
use crate::config::settings::Rung;
use crate::config::trusted_variables::TrustedVariable;
use crate::error::{Error, Kind, Result};
use crate::plan::{Plan, PlanInput, plan};
use crate::runner::trusted_variables::{TrustedValue, missing_field};
use crate::ssh::keys::JobKey;
use crate::state::Job;
use crate::state::record::{FinalFailure, Intent, Tombstone};

/// The job's time limit if the payload does not have it (GitLab's own default). Its machine is paid for as long, so no variable
/// of the job counts.
const JOB_TIMEOUT: Duration = Duration::from_secs(3600);
/// How much earlier this process may learn of a child's death than of the signal that both were sent.
const SIGNAL_DELAY: Duration = Duration::from_millis(100);

/// Runs the stage.
///
/// # Errors
/// If the job gets no machine.
pub async fn run(context: &Context) -> Result<()> {
    for lost in &context.call.lost {
        context.ui.warn(lost);
    }
    if let Some(untold) = unknown_time_limit(context) {
        context.ui.warn(&untold);
    }
    if let Some(profile) = &context.profile {
        context
            .ui
            .progress(&format!("The profile {profile} holds for this job."));
    }
    let job = context.job();
    let mut intent = Intent::new(context.call.attempt.clone(), None, None, lifetime(context));
    intent.set_ownership(context.note_owner());
    intent.configuration.clone_from(&context.configuration);
    let tombstone = job.tombstone()?.filter(|t| t.holds_for(&intent));
    refuse_after_final_failure(tombstone.as_ref())?;
    if let Some(tombstone) = tombstone {
        intent.first_seen = tombstone.first_seen;
    }
    let key = JobKey::generate()?;
    let mut manager = String::new();
    // A machine on this host cannot be mistaken for another host's.
    if context.settings.capacity != [Rung::Local] {
        let bastion = context.bastion().await?;
        manager = context.manager(&bastion)?;
        intent.bastion = Some(bastion.digest);
    }
    let plan = match settle(context, &key, &intent, &manager) {
        Ok(plan) => plan,
        Err(error) => return Err(final_failure(error, &job, &intent)),
    };
    let running = job.begin_stage().await;
    // Without the lock nobody could tell a job whose directory somebody cleared from one that is over.
    intent.directory = running.as_ref().and_then(|_| context.directory());
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|e| Error::new(Kind::Cancelled, "cannot listen for signals").because(e))?;
    let owner = intent.owner;
    let owner_gone = async {
        match owner {
            Some(owner) => owner.gone().await,
            None => std::future::pending().await,
        }
    };
    let mut preparation = Preparation {
        context,
        job: &job,
        plan: &plan,
        key: &key,
        shared: context.shared(),
        intent,
        untagged: false,
        announced: false,
    };
    // On failure the intent stays: the `cleanup` that follows ends what was launched.
    let done = tokio::select! {
        biased;
        _ = terminate.recv() => return Err(cancelled()),
        () = owner_gone => {
            // The Runner is gone and will not call `cleanup`.
            super::cleanup::end_without_owner(context).await?;
            return Err(Error::new(Kind::Cancelled, "GitLab Runner went away while the machine was prepared"));
        }
        done = preparation.run() => done,
    };
    match done {
        Ok(()) => Ok(()),
        Err(error) => Err(reason(error, terminate.recv()).await),
    }
}

fn cancelled() -> Error {
    Error::new(
        Kind::Cancelled,
        "the job was cancelled while its machine was prepared",
    )
}

/// Returns why there is no machine. The Runner's signal goes to the whole process group. A child that has just started may die of
/// it before this process gets it: then the signal is the reason, not the child's missing answer.
async fn reason<T>(error: Error, asked: impl Future<Output = T>) -> Error {
    if error.kind() == Kind::Launch && timeout(SIGNAL_DELAY, asked).await.is_ok() {
        return cancelled();
    }
    error
}

/// Returns how long anything of the job may live: its own time limit, and a margin for what comes before and after.
pub(super) fn lifetime(context: &Context) -> Duration {
    let limit = context.call.payload.timeout;
    let limit = limit.map_or(JOB_TIMEOUT, Duration::from_secs);
    limit.saturating_add(context.settings.deadline_margin)
}

/// Warns if the payload does not have the job's time limit.
fn unknown_time_limit(context: &Context) -> Option<String> {
    let payload = &context.call.payload;
    match payload.trusted(TrustedVariable::JobTimeout) {
        TrustedValue::Missing(field) => Some(format!(
            "{}; the job's machine lives for {} at most",
            missing_field(field),
            humantime::format_duration(lifetime(context))
        )),
        _ => None,
    }
}

/// Makes a plan of what the administrator allows and what the job asks for.
fn settle(context: &Context, key: &JobKey, intent: &Intent, manager: &str) -> Result<Plan> {
    plan(&PlanInput {
        settings: &context.settings,
        call: &context.call,
        overrides: &context.overrides,
        overwrites: &context.overwrites,
        manager,
        public_key: key.public_line()?,
        until: intent.until,
        instances: ec2::Instances::HERE,
        ui: context.ui,
    })
}

fn refuse_after_final_failure(tombstone: Option<&Tombstone>) -> Result<()> {
    match tombstone.and_then(|t| t.final_failure.as_ref()) {
        None => Ok(()),
        Some(failure) => {
            let error = Error::new(Kind::Launch, &*failure.message);
            Err(match &failure.hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
    }
}

/// Notes that further attempts cannot succeed: attempts two and three then end at once with the same message.
pub(super) fn final_failure(error: Error, job: &Job, intent: &Intent) -> Error {
    let mut tombstone = Tombstone::of(intent);
    tombstone.final_failure = Some(FinalFailure {
        message: error.to_string(),
        hint: error.remedy().map(str::to_owned),
    });
    if let Err(unwritten) = job.bury(&tombstone) {
        tracing::debug!(%unwritten, "the tombstone was not written");
    }
    error
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_launch_that_the_same_signal_ended_was_cancelled() {
        let asked = || sleep(SIGNAL_DELAY / 2);
        for (kind, told) in [
            (Kind::Launch, Kind::Cancelled),
            (Kind::Unreachable, Kind::Unreachable),
        ] {
            let error = reason(Error::new(kind, "x"), asked()).await;
            assert_eq!(error.kind(), told);
        }
        let error = Error::new(Kind::Launch, "x");
        let error = reason(error, std::future::pending::<()>()).await;
        assert_eq!(error.kind(), Kind::Launch);
    }
}
