//! `cleanup`: ends whatever the intent or the record names and leaves a tombstone. May be called any number
//! of times, at any point, beside any other stage, with nothing there.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::Context;
use crate::compute::{self, local};
use crate::error::{Error, Kind, Result};
use crate::state::Locked;
use crate::state::record::{Record, Tombstone};

/// From a SIGTERM to the end of the stage: there may never be another `cleanup`, so it still tries to finish, within
/// the 30 s that GitLab Runner leaves at the least.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the stage.
///
/// # Errors
/// Where something of the job may still be alive; what is known of it is kept for the next `cleanup`.
pub async fn run(context: &Context) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|e| Error::new(Kind::Cancelled, "cannot listen for signals").because(e))?;
    let insisted = async {
        terminate.recv().await;
        tokio::select! {
            () = sleep(GRACE) => {}
            _ = terminate.recv() => {}
        }
    };
    unless(insisted, end(context)).await
}

/// Does the work unless the Runner's patience ends before. Wherever the work is given up, it can be begun anew: what is
/// known of the job goes last and in one go.
async fn unless(
    insisted: impl Future<Output = ()>,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
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

async fn end(context: &Context) -> Result<()> {
    let job = context.job();
    let Some(locked) = job.lock_existing_when_free().await? else {
        // Another that was killed may have left half a tombstone.
        context.store().prune();
        return Ok(());
    };
    // Both are tried, whatever is wrong with either: one is enough to find the machine.
    let record = locked.record();
    let intent = locked.intent();
    if let Ok(Some(intent)) = &intent {
        compute::end(&intent.request).await?;
    }
    if let Ok(Some(record)) = &record {
        compute::end_machine(&record.machine).await?;
    }
    let (record, _) = (record?, intent?);
    forget(context, locked, record.as_ref())
}

/// Removes what is known of a job whose machine has ended, and leaves word of it.
pub(super) fn forget(context: &Context, locked: Locked<'_>, record: Option<&Record>) -> Result<()> {
    let store = context.store();
    let job = context.job();
    if let Some(record) = record {
        local::remove_spools(&record.spool);
    }
    drop(std::fs::remove_dir_all(store.work_directory(job.key())));
    // Word of the job first: whoever is killed in between leaves either the job or the word. But a full disk must not keep a
    // job that is over, and its end may make the room.
    let bury = || match job.tombstone()? {
        None => job.bury(&Tombstone::new()),
        Some(_) => Ok(()),
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
        let error = unless(sleep(GRACE), pending()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);
        assert!(error.remedy().unwrap().contains("kept"));
    }
}
