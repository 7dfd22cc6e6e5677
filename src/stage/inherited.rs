//! Jobs that the Go driver prepared, before the binary was swapped under them: run (where their key is one that is
//! spoken here) and ended like any other, by the file that it left for each.

use super::Context;
use super::cleanup::reason;
use crate::compute::fargate::EcsPlace;
use crate::compute::{Endpoint, Machine, Place, end_machine, plan};
use crate::error::{Error, Kind, Result};
use crate::runner::substage::Role;
use crate::runner::wishes::settle_role;
use crate::state::go_driver::{GoJob, GoKey};
use crate::state::record::{Intent, Record};

/// Returns the record that this driver would have left, if the Go driver prepared this job.
///
/// # Errors
/// Where its file is damaged or its key is of no use here.
pub(super) fn record(context: &Context) -> Result<Option<Record>> {
    let Some(job) = find(context)? else {
        return Ok(None);
    };
    let unusable = |why: &str| {
        Error::new(
            Kind::State,
            format!("the Go driver prepared this job, and {why}"),
        )
        .hint("It can be ended and no more: retry the job.")
    };
    let key = match &job.private_key {
        GoKey::Ed25519(key) => key.clone(),
        GoKey::Rsa => return Err(unusable("its RSA key is not spoken here")),
        GoKey::Unusable(why) => return Err(unusable(why)),
    };
    let host = job
        .container_ip
        .clone()
        .ok_or_else(|| unusable("its file names no address"))?;
    let ssh = &context.settings.ssh;
    let machine = Machine {
        endpoints: vec![Endpoint {
            roles: vec![Role::Build, Role::Helper],
            host,
            port: ssh.port,
            user: ssh.username.clone(),
            host_key: None,
            inside: None,
        }],
        ..machine(context, &job)?
    };
    // Nobody else can guess it, and it is the same for all sub-stages of the job.
    let spool = crate::hash::sha256_hex(key.as_bytes())[..32].to_owned();
    let mut intent = Intent::new(
        context.call.attempt.clone(),
        None,
        None,
        std::time::Duration::ZERO,
    );
    intent.set_ownership(context.claim());
    Ok(Some(Record::new(&intent, machine, key, spool)))
}

/// Ends the task of a job that the Go driver prepared, if it did.
///
/// # Errors
/// Where the task may still be alive; the file is kept then.
pub(super) async fn end(context: &Context) -> Result<()> {
    let Some(job) = find(context)? else {
        return Ok(());
    };
    end_machine(
        &machine(context, &job)?,
        &reason(context),
        &context.shared(),
        context.ui,
    )
    .await?;
    job.remove()
}

fn find(context: &Context) -> Result<Option<GoJob>> {
    GoJob::read(
        &context.settings.state_directory,
        &context.call.identity.key,
    )
}

fn machine(context: &Context, job: &GoJob) -> Result<Machine> {
    let settings = &context.settings;
    // Its task runs: what the job asked to run, and whether it still might, is of no account any more.
    let fargate = settings.fargate.clone().unwrap_or_default();
    let role = settle_role(fargate.role_arn.as_ref(), settings, &context.call.wishes)?;
    Ok(Machine {
        place: Place::Ecs(EcsPlace {
            access: plan::access(&fargate, role.as_ref()),
            cluster: fargate.cluster,
            task: job.task_arn.clone(),
            container: fargate.container,
        }),
        endpoints: Vec::new(),
    })
}
