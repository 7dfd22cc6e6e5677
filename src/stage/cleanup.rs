//! `cleanup`: ends whatever the intent or the record names and leaves a tombstone. May be called any number
//! of times, at any point, beside any other stage, with nothing there.

use super::Context;
use crate::compute::{self, local};
use crate::error::Result;
use crate::state::Locked;
use crate::state::record::{Record, Tombstone};

/// Runs the stage.
///
/// # Errors
/// Where something of the job may still be alive; what is known of it is kept for the next `cleanup`.
pub async fn run(context: &Context) -> Result<()> {
    let job = context.job();
    let Some(locked) = job.lock_existing()? else {
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
    // First what costs something, then word of it: a full disk must not keep a job that is over.
    locked.remove()?;
    store.prune();
    if job.tombstone()?.is_none() {
        job.bury(&Tombstone::new())?;
    }
    Ok(())
}
