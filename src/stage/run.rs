//! `run`: runs one sub-stage's script on the job's machine and returns its own exit code. Adds nothing to a
//! healthy job's output.

use std::ffi::OsStr;
use std::path::Path;

use super::cleanup::{self, Ending};
use super::{Context, go_driver_jobs};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::runner::exit::Outcome;
use crate::runner::{ancestors, substage};
use crate::script::follow::{self, Script};
use crate::script::{Nonce, Stopped};
use crate::ssh::keys::JobKey;
use crate::ssh::memory_limit::MemoryLimit;
use crate::state::record::Record;
use crate::state::{self, Job};

/// The largest script: far more than GitLab takes of a pipeline.
const LARGEST_SCRIPT: u64 = 1 << 30;

/// Runs the stage.
///
/// # Errors
/// If the script's result cannot be known.
pub async fn run(context: &Context, script: &Path, name: &str) -> Result<Outcome> {
    refuse_other_shells(script)?;
    let text = files::read(script, LARGEST_SCRIPT).map_err(|e| {
        Error::new(Kind::Contract, format!("cannot read the script {}", script.display())).because(e).hint(
            "GitLab Runner writes it before each sub-stage; `run` takes its path and the sub-stage's name.",
        )
    })?;
    let job = context.job();
    let _running = match job.directory().is_dir() {
        true => job.begin_stage().await,
        false => None,
    };
    let record = match job.record()? {
        Some(record) => claimed(record, &job),
        None => go_driver_jobs::record(context)
            .await?
            .ok_or_else(|| state::unknown(&job))?,
    };
    let key = JobKey::from_pem(&record.private_key)?;
    // The script itself, and a second copy with the lines that are added to it.
    let memory_limit = MemoryLimit::beside(2 * text.len());
    let endpoint = record.machine.endpoint(substage::role(name))?;
    let is_there = endpoint.inside.is_some() || !record.machine.is_shared_with_container();
    let ended = follow::run(Script {
        text: text.into(),
        // The environment is the container's, in which the job's own scripts run.
        environment: record.environment.as_ref().filter(|_| is_there),
        shares_files: !is_there,
        nonce: Nonce::draw(&record.spool)?,
        machine: &record.machine,
        endpoint,
        key: &key,
        reconnect_timeout: context.settings.ssh.reconnect_timeout,
        ceiling: memory_limit,
        owner: record.owner,
        shared: &context.shared(),
        job: &job,
        attempt: &record.attempt,
        ui: context.ui,
    })
    .await;
    match ended {
        Ok(ended) => {
            if let Some(hint) = ended.hint() {
                context.ui.warn(&hint);
            }
            Ok(match ended.code {
                0 => Outcome::Success,
                code => Outcome::ScriptFailed(code),
            })
        }
        Err(Stopped::Failed(error)) => {
            if error.kind() == Kind::TakenBack
                && let Some(rung) = &record.rung
            {
                context.note_spot_loss(rung, &error.to_string()).await;
            }
            Err(error)
        }
        Err(Stopped::RunnerGone(error)) => {
            end_job(context, &record).await?;
            Err(error)
        }
    }
}

/// Refuses a script for a shell that machines do not have. The Runner names the file by its language: a script for bash has no
/// extension.
fn refuse_other_shells(script: &Path) -> Result<()> {
    let ending = script.extension().map(OsStr::to_ascii_lowercase);
    let language = match ending.as_deref().and_then(|ending| ending.to_str()) {
        Some("ps1") => "PowerShell",
        Some("cmd" | "bat") => "Windows' command processor",
        _ => return Ok(()),
    };
    let message = format!(
        "GitLab Runner wrote the script {} for {language}, and the job's machine has a POSIX shell",
        script.display()
    );
    Err(Error::new(Kind::Contract, message).hint(
        "Write shell = \"bash\" under [[runners]] in GitLab Runner's config.toml, and restart it.",
    ))
}

/// Compares the job's owner with the caller of this stage, and corrects the record if they differ: the end of a process that may
/// not be the Runner means nothing.
fn claimed(mut record: Record, job: &Job) -> Record {
    let known = record.ownership();
    let seen = known.seen_by(&ancestors::ancestors());
    if seen != known {
        job.note_ownership(&record.attempt, &seen);
        record.set_ownership(seen);
    }
    record
}

/// Ends the job's machine, since the Runner will not call `cleanup`.
async fn end_job(context: &Context, record: &Record) -> Result<()> {
    let (store, job) = (context.store(), context.job());
    match job.lock_existing_when_free().await? {
        // A `cleanup` came, another job has this name now, or the Go driver prepared it.
        None => go_driver_jobs::end(context).await,
        Some(locked)
            if !locked
                .record()?
                .is_some_and(|now| now.is_of_same_machine(record)) =>
        {
            Ok(())
        }
        Some(locked) => {
            let reason = "GitLab Runner is gone";
            cleanup::end_job(&store, &job, locked, reason, Ending::Judged, context.ui).await
        }
    }
}
