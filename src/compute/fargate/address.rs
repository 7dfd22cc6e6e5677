//! The address that the driver connects to: the interface's own, or its public one, which only EC2's API tells.

use super::task::Task;
use crate::compute::ec2::PublicAddresses;
use crate::error::{Error, Kind, Result};
use crate::machine::task::TaskRequest;

/// Returns the address to connect to, as soon as there is one: the public one where these are given.
pub(super) async fn of(task: &Task, public: Option<&PublicAddresses>) -> Result<Option<String>> {
    match (public, &task.eni) {
        (None, _) => Ok(task.private_address().map(|address| address.to_string())),
        (Some(public), Some(interface)) => public.of(interface).await,
        (Some(_), None) => Ok(None),
    }
}

/// Builds the error for a task that runs and has no address to connect to.
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
