//! The address that the driver dials: the interface's own, or its public one, which only EC2's API tells.

#[cfg(feature = "ec2")]
use std::time::Duration;

use super::task::Task;
use crate::compute::aws::Aws;
#[cfg(feature = "ec2")]
use crate::compute::aws::classify::Action;
use crate::error::{Error, Kind, Result};
use crate::machine::task::TaskRequest;
use crate::machine::verdict::Why;

/// One DescribeNetworkInterfaces, repeated within that time.
#[cfg(feature = "ec2")]
const DESCRIBE_LIMIT: Duration = Duration::from_secs(2 * 60);

/// Returns the address to dial, as soon as there is one.
pub(super) async fn of(aws: &Aws, task: &Task, request: &TaskRequest) -> Result<Option<String>> {
    if !request.dial_public {
        return Ok(task.private_address().map(|address| address.to_string()));
    }
    match &task.eni {
        Some(interface) => public(aws, interface).await,
        None => Ok(None),
    }
}

#[cfg(feature = "ec2")]
async fn public(aws: &Aws, interface: &str) -> Result<Option<String>> {
    let call = async || {
        aws.ec2
            .describe_network_interfaces()
            .network_interface_ids(interface)
            .send()
            .await
    };
    let action = Action::DescribeNetworkInterfaces;
    let answer = match aws.call(action, DESCRIBE_LIMIT, call).await {
        Ok(answer) => answer,
        // EC2 lags ECS: the interface that a task has just got may not be there yet.
        Err(failure) if failure.verdict.why == Why::NotFound => return Ok(None),
        Err(failure) => {
            return Err(failure.verdict.error(
                failure.verdict.why.kind(),
                "the public address of the task cannot be found out",
            ));
        }
    };
    let interface = answer.network_interfaces().first();
    let public = interface.and_then(|i| i.association()?.public_ip());
    Ok(public.map(str::to_owned))
}

#[cfg(not(feature = "ec2"))]
async fn public(_aws: &Aws, _interface: &str) -> Result<Option<String>> {
    Err(Error::new(
        Kind::NotYet,
        "this build cannot find out public addresses: it was made without the feature ec2",
    )
    .hint("Use the packaged driver, or dial the private address: use_public_ip = false under [fargate]."))
}

/// Builds the error for a task that runs and cannot be dialled.
pub(super) fn missing(task: &Task, request: &TaskRequest) -> Error {
    let (what, hint) = if request.dial_public {
        (
            "public",
            "Its subnet has to be a public one and enable_public_ip = true; or dial the private address: \
             use_public_ip = false under [fargate].",
        )
    } else {
        (
            "private",
            "Its task definition has to use the network mode awsvpc.",
        )
    };
    Error::new(
        Kind::Launch,
        format!("the task {} runs but has no {what} address", task.arn),
    )
    .hint(hint)
}
