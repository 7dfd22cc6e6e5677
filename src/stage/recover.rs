//! `cleanup` with a broken configuration, or without a readable copy of the job. It still ends what the job's intent or record
//! names, since those have their own region and role.
//!
//! Without the copy of the job nothing says which job this is, and variables of the job prove nothing. A job then counts as
//! this one only if its intent names this attempt's own directory and its Runner is an ancestor of this process.

use std::path::{Path, PathBuf};

use super::cleanup::{self, Ending};
use crate::config::{self, broken_file};
use crate::error::{Error, Result};
use crate::process::Process;
use crate::runner::identity::Identity;
use crate::runner::note::Note;
use crate::runner::{self, Environment, ancestors};
use crate::state::{Job, Store};
use crate::ui::Ui;

/// Added to the error.
const ENDED: &str = "The job's machine was ended all the same.";

/// What is still known of the job.
struct Known {
    /// Where its state may be, the most likely place first.
    directories: Vec<PathBuf>,
    /// Its name, where the copy of the job can be read.
    key: Option<String>,
    /// Identifies its attempt, if TMPDIR is set.
    attempt: Option<String>,
    /// The processes that may be the Runner.
    ancestors: Vec<Process>,
}

/// Whether all went well apart from the first error.
enum Found {
    Ended,
    Nothing,
    /// There are jobs that may be this one.
    Unclear,
}

/// Ends the job's machine, and returns the result of a `cleanup` that could not start because of that error.
///
/// # Errors
/// The error that it could not start for, or rather one that kept a machine alive.
pub async fn run(config: Option<&Path>, env: &Environment, error: Error, ui: Ui) -> Result<()> {
    let loaded = config::load(config).ok();
    let directory = runner::directory(env).ok();
    let note = directory.as_deref().and_then(Note::read);
    let noted = note.as_ref().map(|note| &*note.key);
    let identity = runner::payload(env).and_then(|job| Identity::of(&job, env, noted));
    let configured = match &loaded {
        Some(loaded) => loaded.settings.state_directory.clone(),
        None => broken_file::state_directory(config),
    };
    let mut directories: Vec<PathBuf> = note.map(|note| note.state_directory).into_iter().collect();
    if !directories.contains(&configured) {
        directories.push(configured);
    }
    // Only the copy of the job is wrong. Then the result is whether this stage could do its work.
    let only_untold = identity.is_err() && loaded.is_some() && is_handed_over(env);
    let known = Known {
        directories,
        key: identity.ok().map(|identity| identity.key),
        attempt: directory.as_deref().map(runner::attempt),
        ancestors: ancestors::ancestors(),
    };
    match cleanup::in_grace(known.end(ui)).await {
        Err(kept) => {
            ui.warn(&error.to_string());
            Err(kept)
        }
        Ok(Found::Ended) if only_untold => {
            ui.warn(&format!("{error}. {ENDED}"));
            Ok(())
        }
        Ok(Found::Nothing) if only_untold => {
            ui.warn(&format!(
                "{error}; nothing that this try has started is known either"
            ));
            Ok(())
        }
        Ok(Found::Ended) => {
            let remedy = error.remedy().unwrap_or_default();
            let told = format!("{ENDED} {remedy}");
            Err(error.hint(told.trim_end()))
        }
        Ok(Found::Nothing | Found::Unclear) => Err(error),
    }
}

/// Whether the Runner handed over what its contract promises.
fn is_handed_over(env: &Environment) -> bool {
    env.get("JOB_RESPONSE_FILE").is_some() && env.get("TMPDIR").is_some()
}

impl Known {
    async fn end(&self, ui: Ui) -> Result<Found> {
        let mut found = Found::Nothing;
        for directory in &self.directories {
            let store = Store::new(directory.clone());
            let Some(job) = self.find(&store, &mut found)? else {
                continue;
            };
            let Some(locked) = job.lock_existing_when_free().await? else {
                continue;
            };
            let reason = "its job is over";
            cleanup::end_job(&store, &job, locked, reason, Ending::Called, ui).await?;
            return Ok(Found::Ended);
        }
        Ok(found)
    }

    fn find(&self, store: &Store, found: &mut Found) -> Result<Option<Job>> {
        if let Some(key) = &self.key {
            return Ok(Some(store.job(key)));
        }
        let mut ours = Vec::new();
        for job in store.jobs()? {
            match self.is_ours(&job) {
                Ok(true) => ours.push(job),
                Ok(false) => {}
                Err(_) => *found = Found::Unclear,
            }
        }
        match ours.len() {
            0 | 1 => Ok(ours.pop()),
            // A directory that several jobs name identifies none of them.
            _ => {
                *found = Found::Unclear;
                Ok(None)
            }
        }
    }

    /// Whether a job is of this attempt. If the directory was not the Runner's own (a wrapper script had replaced it), this
    /// cannot be told.
    fn is_ours(&self, job: &Job) -> Result<bool> {
        let Some(intent) = job.intent()? else {
            return Ok(false);
        };
        Ok(intent.directory.is_some()
            && self.attempt.as_ref() == Some(&intent.attempt)
            && intent.ownership().is_among(&self.ancestors))
    }
}
