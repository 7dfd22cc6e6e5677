//! Jobs that are over though their Runner lives, and nobody ended them: `cleanup` was killed, say. The Runner removes its own
//! directory for a try once that is over, whatever became of `cleanup`.

use std::fmt;

use crate::state::record::Intent;
use crate::state::{Job, StageLock};

/// A job that is over; no stage of it begins while this lives.
#[derive(Debug)]
pub(super) struct Over {
    _no_stage: StageLock,
}

/// Looks whether a job is surely over: its directory is gone, and no stage of it runs. Somebody may have cleared the directory
/// under a stage that lives.
pub(super) fn look(job: &Job, intent: &Intent) -> Option<Over> {
    let directory = intent.directory.as_ref()?;
    let _no_stage = job.without_stages()?;
    directory
        .is_gone(intent.owner)
        .then_some(Over { _no_stage })
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GitLab Runner has removed its directory for the job")
    }
}
