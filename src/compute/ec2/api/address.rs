//! The public address of a task, which only EC2's API tells.

use std::time::Duration;

use super::ec2;
use crate::compute::aws::Aws;
use crate::compute::aws::classify::Action;
use crate::error::Result;
use crate::machine::verdict::Why;

/// One DescribeNetworkInterfaces, repeated within that time.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(2 * 60);

/// Whoever knows public addresses of network interfaces.
#[derive(Debug)]
pub struct PublicAddresses {
    aws: Aws,
    ec2: aws_sdk_ec2::Client,
}

impl PublicAddresses {
    /// Makes the client; AWS is not called yet.
    pub(in crate::compute) fn new(aws: &Aws) -> Self {
        Self {
            aws: aws.clone(),
            ec2: ec2(aws),
        }
    }

    /// Returns the address of an interface, as soon as there is one.
    ///
    /// # Errors
    /// Where AWS does not say.
    pub(in crate::compute) async fn of(&self, interface: &str) -> Result<Option<String>> {
        let call = async || {
            self.ec2
                .describe_network_interfaces()
                .network_interface_ids(interface)
                .send()
                .await
        };
        let action = Action::DescribeNetworkInterfaces;
        let answer = match self.aws.call(action, DESCRIBE_LIMIT, call).await {
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
}
