//! Jobs that the Go driver prepared before its binary was replaced by this one. They run (with the key that it made, RSA or
//! ed25519) and end like any other, by the file that the Go driver left for each.
//!
//! That file names neither the role that launched the task nor the host key that the machine showed. The first `run` finds
//! the machine, notes its host key, and writes intent and record as `prepare` would have: from then on another host key is
//! refused, and `reap` knows the job. `[limits]` does not apply here: the task exists already, and must end whatever they say now.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Context;
use super::cleanup::{self, reason};
use super::prepare::lifetime;
use crate::compute;
use crate::error::{Error, Kind, Result};
use crate::machine::launch::{Launch, LaunchState};
use crate::machine::task::{EcsPlace, TaskRequest};
use crate::machine::{Endpoint, FarSide, Machine, Place, Request};
use crate::plan;
use crate::runner::substage::Role;
use crate::ssh::connect::connect;
use crate::ssh::keys::JobKey;
use crate::state::go_driver::{GoJob, GoKey, place_of};
use crate::state::record::{Intent, Record};
use crate::state::{Job, Store};

/// Returns the record that this driver would have written, if the Go driver prepared this job, and writes it.
///
/// # Errors
/// If its file is damaged, its key cannot be used here, or the login fails.
pub(super) async fn record(context: &Context) -> Result<Option<Record>> {
    let Some(go_job) = find(context)? else {
        return Ok(None);
    };
    let unusable = |why: &str| {
        Error::new(
            Kind::State,
            format!("the Go driver prepared this job, and {why}"),
        )
        .hint("It can be ended and no more: retry the job.")
    };
    let key = match &go_job.private_key {
        GoKey::Ed25519(key) | GoKey::Rsa(key) => key.clone(),
        GoKey::Unusable(why) => return Err(unusable(why)),
    };
    let pair = JobKey::from_pem(&key).map_err(|e| unusable("its key is of no use").because(e))?;
    let host = go_job
        .container_ip
        .clone()
        .ok_or_else(|| unusable("its file names no address"))?;
    let (user, port) = context.settings.login_of_tasks();
    let endpoint = Endpoint {
        roles: vec![Role::Build, Role::Helper],
        host,
        port,
        user: user.to_owned(),
        host_key: None,
        inside: None,
        far_side: FarSide::Login,
        socket: None,
    };
    unless_cancelled(async {
        let place = most_likely_place(context, &go_job).await;
        let host_key = first_contact(context, &place, &endpoint, &pair).await?;
        let machine = Machine {
            place: Place::Ecs(place),
            endpoints: vec![Endpoint {
                host_key,
                ..endpoint
            }],
        };
        adopt(context, machine, key).await
    })
    .await
}

/// Does the work before the job's script. A signal ends it, since no script has started yet.
async fn unless_cancelled<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|e| Error::new(Kind::Cancelled, "cannot listen for signals").because(e))?;
    tokio::select! {
        biased;
        _ = terminate.recv() => Err(Error::new(
            Kind::Cancelled,
            "the job was cancelled before its script began",
        )),
        done = work => done,
    }
}

/// Logs in once, and returns the host key that the machine shows.
async fn first_contact(
    context: &Context,
    place: &EcsPlace,
    endpoint: &Endpoint,
    key: &JobKey,
) -> Result<Option<String>> {
    let deadline = Instant::now() + context.settings.ssh.reconnect_timeout;
    let place = Place::Ecs(place.clone());
    let (lost, shared) = (Notify::new(), context.shared());
    tokio::select! {
        biased;
        gone = compute::gone(&place, &lost, &shared) => Err(gone),
        session = connect(endpoint, key, || deadline) => {
            let session = session?;
            let host_key = session.host_key().map(str::to_owned);
            session.hang_up().await;
            Ok(host_key)
        }
    }
}

/// Writes intent and record, unless another stage was quicker. Returns `None` if the job was ended meanwhile.
async fn adopt(context: &Context, machine: Machine, key: String) -> Result<Option<Record>> {
    let job = context.job();
    let bastion = context.bastion().await.ok();
    let locked = job.lock_when_free().await?;
    if let Some(record) = locked.record()? {
        return Ok(Some(record));
    }
    // A job that a `cleanup` has ended must not get files again.
    if find(context)?.is_none() {
        locked.remove()?;
        return Ok(None);
    }
    let call = &context.call;
    let mut intent = Intent::new(call.attempt.clone(), None, None, lifetime(context));
    intent.set_ownership(context.note_owner());
    intent.bastion = bastion.map(|bastion| bastion.digest);
    if let Place::Ecs(place) = &machine.place {
        intent.launches.push(Launch {
            request: Request::Ecs(Box::new(TaskRequest::of_another(place))),
            state: LaunchState::Named(place.task.clone()),
        });
    }
    // Nobody else can guess it, and it is the same for all sub-stages of the job.
    let spool = crate::hash::sha256_hex(key.as_bytes())[..32].to_owned();
    let mut record = Record::new(&intent, machine, key, spool);
    record.job_id = call.identity.job_id;
    record.project.clone_from(&call.payload.project_path);
    locked.write_intent(&intent)?;
    locked.write_record(&record)?;
    Ok(Some(record))
}

/// Ends the task of a job, if the Go driver prepared it, and removes the files that `run` wrote for it.
///
/// # Errors
/// If the task may still be alive. The file stays then.
pub(super) async fn end(context: &Context) -> Result<()> {
    let Some(go_job) = find(context)? else {
        return Ok(());
    };
    let mut refused = None;
    for place in places(context, &go_job) {
        match place
            .end(&reason(context), &context.shared(), context.ui)
            .await
        {
            // If another role does not know the task, that proves nothing: it may look into another account.
            Ok(false) if refused.is_some() => {}
            Ok(_) => return forget_all(context, &go_job).await,
            // If AWS is out of reach for one role, it is for all.
            Err(error) if error.kind() == Kind::Throttled => return Err(error),
            // The first place is the most likely one, so its error is the most useful.
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map_or(Ok(()), Err)
}

async fn forget_all(context: &Context, go_job: &GoJob) -> Result<()> {
    // Remove the file first: a `run` that looks for it under the lock must not adopt the job again.
    go_job.remove()?;
    let (store, job) = (context.store(), context.job());
    let Some(locked) = job.lock_existing_when_free().await? else {
        return Ok(());
    };
    let (record, intent) = (locked.record()?, locked.intent()?);
    match &record {
        Some(own) if is_of(own, go_job) => {
            cleanup::forget(&store, &job, locked, record.as_ref(), intent.as_ref())
        }
        // The record of another attempt, which has its own end.
        _ => Ok(()),
    }
}

/// Removes the Go driver's file of a job whose task has ended by its record.
pub(super) fn forget(store: &Store, job: &Job, record: &Record) {
    if let Ok(Some(go_job)) = store.go_job(job.key())
        && is_of(record, &go_job)
        && let Err(error) = go_job.remove()
    {
        tracing::debug!(%error, "the Go driver's file stays");
    }
}

/// Whether a record names the same task as the Go driver's file.
fn is_of(record: &Record, go_job: &GoJob) -> bool {
    match &record.machine.place {
        Place::Ecs(place) => place.task == go_job.task_arn,
        Place::Local(_) | Place::Ec2(_) => false,
    }
}

fn find(context: &Context) -> Result<Option<GoJob>> {
    context.store().go_job(&context.call.identity.key)
}

/// Returns where the task is, by the first of these roles that finds it.
async fn most_likely_place(context: &Context, go_job: &GoJob) -> EcsPlace {
    let mut places = places(context, go_job);
    let shared = context.shared();
    let mut seen = 0;
    if places.len() > 1 {
        for (at, place) in places.iter().enumerate() {
            if place.is_known(&shared).await {
                seen = at;
                break;
            }
        }
    }
    places.swap_remove(seen)
}

/// Returns where the task may be, once for each role with which the Go driver may have launched it.
fn places(context: &Context, go_job: &GoJob) -> Vec<EcsPlace> {
    let fargate = context.settings.fargate.clone().unwrap_or_default();
    // The task's ARN counts more than a file that may have changed since.
    let told = place_of(&go_job.task_arn);
    let roles = context
        .overwrites
        .roles_of_go_driver(fargate.role_arn.as_ref());
    let roles = roles.into_iter().filter(|role| {
        let account = role.as_ref().and_then(|role| role.arn.split(':').nth(4));
        // A role only starts tasks in its own account. There AWS knows no task of another account, which would look like a
        // task that ended.
        account.is_none() || told.account.is_none() || account == told.account
    });
    roles
        .map(|role| {
            let mut access = plan::access(&fargate, role.as_ref());
            access.region = told.region.map(str::to_owned).or(access.region);
            EcsPlace {
                access,
                cluster: told.cluster.map(str::to_owned).or(fargate.cluster.clone()),
                task: go_job.task_arn.clone(),
                container: fargate.container.clone(),
            }
        })
        .collect()
}
