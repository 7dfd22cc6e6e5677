//! `prepare`: settles where and how the job runs, writes down what it is about to do, does it, waits until
//! the machine lets it in, and leaves the record for the other stages.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};

use super::Context;
use crate::compute::{self, Machine, Request};
use crate::error::{Error, Kind, Result};
use crate::runner::owner;
use crate::ssh::connect::connect;
use crate::ssh::keys::JobKey;
use crate::state::record::{FinalFailure, Intent, Record, Tombstone};
use crate::state::{Job, Locked};

/// By how much a child's death may come to this process's knowledge before the signal that both were sent.
const HEARSAY: Duration = Duration::from_millis(100);

/// Runs the stage.
///
/// # Errors
/// Where no machine could be had for the job.
pub async fn run(context: &Context) -> Result<()> {
    for lost in &context.call.lost {
        context.ui.warn(lost);
    }
    let job = context.job();
    refuse_hopeless(&job)?;
    let key = JobKey::generate()?;
    let request = match compute::plan(&context.settings, &context.call.payload, key.public_line()?)
    {
        Ok(request) => request,
        Err(error) => {
            // Tries two and three would tell the same: they end at once with the same words.
            if error.kind() == Kind::NotYet {
                job.bury(&final_failure(&error))?;
            }
            return Err(error);
        }
    };
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|e| Error::new(Kind::Cancelled, "cannot listen for signals").because(e))?;
    let intent = Intent::new(context.call.attempt.clone(), owner::find(), request);
    let work = async {
        write_intent(&job, &intent).await?;
        bring_up(context, &job, &intent, &key).await
    };
    let owner_gone = async {
        match intent.owner {
            Some(owner) => owner.gone().await,
            None => std::future::pending().await,
        }
    };
    // On failure the intent stays: the `cleanup` that follows ends whatever came of it.
    let done = tokio::select! {
        biased;
        _ = terminate.recv() => return Err(cancelled()),
        () = owner_gone => {
            // Nobody will call that `cleanup`.
            super::cleanup::run(context).await?;
            return Err(Error::new(Kind::Cancelled, "GitLab Runner went away while the machine was prepared"));
        }
        done = work => done,
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

/// Returns why there is no machine. The Runner's signal goes to the whole process group, and a child that has only just
/// begun may die of it before this process hears of it: then that is the reason, not what the child could not say.
async fn reason<T>(error: Error, asked: impl Future<Output = T>) -> Error {
    if error.kind() == Kind::Launch && timeout(HEARSAY, asked).await.is_ok() {
        return cancelled();
    }
    error
}

/// Launches the machine, waits for the first login and writes the record.
async fn bring_up(context: &Context, job: &Job, intent: &Intent, key: &JobKey) -> Result<()> {
    let ui = context.ui;
    let began = Instant::now();
    let mut machine = compute::launch(&intent.request, job).await?;
    match &intent.request {
        Request::Local(_) => {
            ui.warn(
                "this job runs on this very host, as GitLab Runner's own user, beside its keys and other jobs: \
                 nothing is isolated",
            );
        }
    }
    ui.progress(&format!("Waiting for SSH on {}...", addresses(&machine)));
    let deadline = Instant::now() + context.settings.ssh.connect_timeout;
    let place = machine.place.clone();
    for endpoint in &mut machine.endpoints {
        let session = tokio::select! {
            biased;
            error = compute::gone(&place) => return Err(launch_failed(error, job)),
            session = connect(endpoint, key, deadline) => session?,
        };
        // Known from now on: another key at this address is another machine.
        endpoint.host_key = session.host_key().map(str::to_owned);
        session.hang_up().await;
    }
    let spool = crate::hash::random_hex()
        .map_err(|e| Error::new(Kind::Launch, "no randomness to be had").because(e))?;
    let mut record = Record::new(intent, machine, key.to_pem()?, spool);
    record.job_id = context.call.identity.job_id;
    record.project = context.call.payload.project_path.clone();
    // Not made anew: where the directory is gone, `cleanup` has been here.
    let written = match job.lock_existing_when_free().await? {
        Some(locked) => locked.write_record(&record)?,
        None => false,
    };
    if !written {
        // It found this machine, or it did not; it must not stay either way.
        compute::end(&intent.request).await?;
        return Err(Error::new(
            Kind::Cancelled,
            "`cleanup` ran while the machine was prepared",
        ));
    }
    ui.progress(&format!(
        "Machine ready after {:.1} s.",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Writes the intent. What an earlier try left behind (its `cleanup` was killed, say) is ended first.
async fn write_intent(job: &Job, intent: &Intent) -> Result<()> {
    let locked = job.lock_when_free().await?;
    end_leftover(&locked, intent).await?;
    locked.write_intent(intent)
}

async fn end_leftover(locked: &Locked<'_>, intent: &Intent) -> Result<()> {
    match locked.intent()? {
        Some(left) if left.attempt != intent.attempt => compute::end(&left.request).await,
        Some(_) => Err(Error::new(Kind::Contract, "`prepare` was called twice in one try of this job").hint(
            "GitLab Runner gives each try a TMPDIR of its own; is a wrapper script calling the driver again?",
        )),
        None => Ok(()),
    }
}

fn refuse_hopeless(job: &Job) -> Result<()> {
    match job.tombstone()?.and_then(|t| t.final_failure) {
        None => Ok(()),
        Some(failure) => {
            let error = Error::new(Kind::NotYet, failure.message);
            Err(match failure.hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
    }
}

fn final_failure(error: &Error) -> Tombstone {
    let mut tombstone = Tombstone::new();
    tombstone.final_failure = Some(FinalFailure {
        message: error.to_string(),
        hint: error.remedy().map(str::to_owned),
    });
    tombstone
}

/// Adds what the machine said last to the news that it is gone.
fn launch_failed(gone: Error, job: &Job) -> Error {
    let log = std::fs::read(job.directory().join("machine.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    match log.lines().rfind(|l| !l.trim().is_empty()) {
        Some(last) => Error::new(
            Kind::Launch,
            "the machine ended before anybody could log in",
        )
        .because(last.to_owned()),
        None => Error::new(
            Kind::Launch,
            "the machine ended before anybody could log in",
        )
        .because(gone),
    }
}

fn addresses(machine: &Machine) -> String {
    let all: Vec<String> = machine
        .endpoints
        .iter()
        .map(|e| format!("{}:{}", e.host, e.port))
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_launch_that_the_same_signal_ended_was_cancelled() {
        let asked = || tokio::time::sleep(HEARSAY / 2);
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
