//! `cleanup`: ends whatever the intent or the record names and leaves a tombstone. It may be called any number of times,
//! at any moment, beside any other stage, and with nothing to do.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::{Context, go_driver_jobs};
use crate::compute::{self, local};
use crate::error::{Error, Kind, Result};
use crate::machine::launch::Launch;
use crate::state::record::{Intent, Record, Tombstone, now};
use crate::state::shared::Shared;
use crate::state::{Job, Locked, Store};
use crate::ui::Ui;

/// From a SIGTERM to the end of the stage: there may never be another `cleanup`, so it still tries to finish, within
/// the 30 s that GitLab Runner leaves at the least.
const GRACE: Duration = Duration::from_secs(20);

/// Why a job is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The Runner called `cleanup`. This is certain, so it is written to the intent.
    Called,
    /// A check found that the job has no owner any more. A clock or the look at the Runner may have been wrong: if AWS refuses, the
    /// next check decides again.
    Judged,
}

/// Runs the stage.
///
/// # Errors
/// If something of the job may still be alive. Its files stay for the next `cleanup`.
pub async fn run(context: &Context) -> Result<()> {
    in_grace(end(context, Ending::Called)).await
}

/// Runs the work of a `cleanup`, and continues for a while after a SIGTERM.
///
/// # Errors
/// If the work fails, or its time is over.
pub(super) async fn in_grace<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|e| Error::new(Kind::Cancelled, "cannot listen for signals").because(e))?;
    let insisted = async {
        terminate.recv().await;
        tokio::select! {
            () = sleep(GRACE) => {}
            _ = terminate.recv() => {}
        }
    };
    unless(insisted, work).await
}

/// Does the same for a job whose Runner seems to be gone: no Runner called it.
///
/// # Errors
/// As [`run`].
pub(super) async fn end_without_owner(context: &Context) -> Result<()> {
    end(context, Ending::Judged).await
}

/// Does the work unless the Runner kills the stage first. The work can be interrupted anywhere and started again: the job's files
/// are removed last and at once.
async fn unless<T>(
    insisted: impl Future<Output = ()>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = insisted => Err(Error::new(
            Kind::Cancelled,
            "`cleanup` was told to stop before the job's machine had ended",
        )
        .hint("What is known of the job is kept for the next `cleanup`; give it more time (cleanup_exec_timeout).")),
    }
}

async fn end(context: &Context, ending: Ending) -> Result<()> {
    go_driver_jobs::end(context).await?;
    let (store, job) = (context.store(), context.job());
    match job.lock_existing_when_free().await? {
        Some(locked) => end_job(&store, &job, locked, &reason(context), ending, context.ui).await,
        None => {
            // Another process that was killed may have left half a tombstone.
            store.prune();
            Ok(())
        }
    }
}

/// Returns the reason that AWS records for the end of the job's machine.
pub(super) fn reason(context: &Context) -> String {
    let project = context.call.payload.project_path.as_deref();
    format!(
        "GitLab job {} of {} is over",
        context.call.identity.job_id,
        project.unwrap_or("an unknown project")
    )
}

/// Ends all that is known of a job, and removes its files.
///
/// # Errors
/// If something of the job may still be alive. Its files stay.
pub async fn end_job(
    store: &Store,
    job: &Job,
    locked: Locked<'_>,
    reason: &str,
    ending: Ending,
    ui: Ui,
) -> Result<()> {
    let record = locked.record();
    let intent = locked.intent();
    // Either file is enough to find the machine, even if the other is damaged. The intent knows more.
    if let Ok(Some(intent)) = &intent {
        if ending == Ending::Called {
            mark(&locked, intent);
        }
        end_launches(intent, reason, &store.shared(), ui).await?;
    } else if let Ok(Some(record)) = &record {
        compute::end_machine(&record.machine, reason, &store.shared(), ui).await?;
    }
    let (record, intent) = (record?, intent?);
    forget(store, job, locked, record.as_ref(), intent.as_ref())
}

/// Removes the files of a job about whose launches nothing more can be found out.
///
/// # Errors
/// Where the state directory cannot be written.
pub async fn give_up(store: &Store, job: &Job, intent: &Intent) -> Result<()> {
    match job.lock_existing_when_free().await? {
        Some(locked)
            if locked
                .intent()?
                .is_some_and(|i| i.attempt == intent.attempt) =>
        {
            forget(store, job, locked, None, Some(intent))
        }
        // Another process has ended the job.
        _ => Ok(()),
    }
}

/// Writes that the job is over before AWS is called. If AWS does not answer, `reap` ends the job although its Runner lives.
fn mark(locked: &Locked<'_>, intent: &Intent) {
    let remote = |launch: &Launch| launch.request.is_remote();
    if intent.ending || !intent.open_launches().any(remote) {
        return;
    }
    let mut ending = intent.clone();
    ending.ending = true;
    // A full disk must not keep a machine alive.
    if let Err(error) = locked.write_intent(&ending) {
        tracing::debug!(%error, "the intent was not marked");
    }
}

/// Ends all that an intent may have started. If one launch cannot be ended, the others still are.
///
/// # Errors
/// If something may still be alive.
pub(super) async fn end_launches(
    intent: &Intent,
    reason: &str,
    shared: &Shared,
    ui: Ui,
) -> Result<()> {
    let mut all = Ok(());
    for launch in intent.open_launches() {
        all = all.and(compute::end(launch, reason, shared, ui).await);
    }
    all
}

/// Removes the files of a job whose machine has ended, and leaves a tombstone.
pub(super) fn forget(
    store: &Store,
    job: &Job,
    locked: Locked<'_>,
    record: Option<&Record>,
    intent: Option<&Intent>,
) -> Result<()> {
    if let Some(record) = record {
        local::remove_spools(&record.spool);
        go_driver_jobs::forget(store, job, record);
    }
    drop(std::fs::remove_dir_all(store.work_directory(job.key())));
    // The tombstone first: a process that is killed in between leaves either the job or the tombstone. But a full disk must
    // not keep a job that is over, and removing it may make the room.
    let bury = || match (job.tombstone()?, intent) {
        (Some(tombstone), Some(intent)) if tombstone.holds_for(intent) => Ok(()),
        (_, Some(intent)) => job.bury(&Tombstone::of(intent)),
        (None, None) => job.bury(&Tombstone::new(now())),
        (Some(_), None) => Ok(()),
    };
    let told = bury();
    locked.remove()?;
    store.prune();
    told.or_else(|_| bury())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_in_the_grace_counts_and_other_work_is_given_up() {
        let in_time = async {
            sleep(GRACE / 2).await;
            Ok(())
        };
        assert!(unless(sleep(GRACE), in_time).await.is_ok());
        let error = unless(sleep(GRACE), pending::<Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);
        assert!(error.remedy().unwrap().contains("kept"));
    }
}
