//! What EC2 says of an instance.

use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_ec2::types::{self, Reservation};

use super::Api;
use crate::compute::aws::classify::Action;
use crate::compute::aws::poller;
use crate::compute::ec2::instance::{Instance, Phase};
use crate::machine::instance::Ec2Place;
use crate::machine::verdict::Verdict;

impl Ec2Place {
    /// Asks for the instance's state, together with other jobs that ask for theirs; `None` where EC2 does not know it, or
    /// not yet.
    pub(super) async fn describe(
        &self,
        api: &Api,
        limit: Duration,
    ) -> Result<Option<Instance>, Verdict> {
        let ask = async |names: &[String]| {
            let call = async || {
                api.ec2
                    .describe_instances()
                    .set_instance_ids(Some(names.to_vec()))
                    .send()
                    .await
            };
            match api.aws.call(Action::DescribeInstances, limit, call).await {
                Ok(answer) => {
                    let all = answer
                        .reservations()
                        .iter()
                        .flat_map(Reservation::instances);
                    let read = all.map(Instance::read);
                    Ok(read.map(|i| (i.id.clone(), i)).collect())
                }
                Err(failure) => Err(failure.verdict),
            }
        };
        poller::state(&api.aws, "ec2", &self.instance, ask).await
    }
}

impl Instance {
    /// Reads what EC2 says.
    #[must_use]
    pub fn read(said: &types::Instance) -> Self {
        use types::InstanceStateName as State;
        let text = |t: Option<&str>| t.filter(|t| !t.is_empty()).map(str::to_owned);
        let interfaces = said.network_interfaces().iter();
        let mut addresses = interfaces.flat_map(types::InstanceNetworkInterface::ipv6_addresses);
        Self {
            id: said.instance_id().unwrap_or_default().to_owned(),
            phase: match said.state().and_then(types::InstanceState::name) {
                Some(State::Running) => Phase::Running,
                Some(State::ShuttingDown | State::Stopping | State::Stopped) => Phase::Ending,
                Some(State::Terminated) => Phase::Over,
                _ => Phase::Pending,
            },
            kind: text(said.instance_type().map(types::InstanceType::as_str)),
            zone: text(
                said.placement()
                    .and_then(types::Placement::availability_zone),
            ),
            spot: said.instance_lifecycle() == Some(&types::InstanceLifecycleType::Spot),
            private: text(said.private_ip_address()),
            public: text(said.public_ip_address()),
            ipv6: text(said.ipv6_address())
                .or_else(|| text(addresses.next().and_then(|a| a.ipv6_address()))),
            launched: said
                .launch_time()
                .and_then(|t| u64::try_from(t.secs()).ok())
                .and_then(|secs| UNIX_EPOCH.checked_add(Duration::from_secs(secs))),
            reason: said.state_reason().and_then(|r| {
                let code = r.code().unwrap_or_default();
                let message = r.message().unwrap_or_default();
                (!code.is_empty() || !message.is_empty())
                    .then(|| (code.to_owned(), message.to_owned()))
            }),
            transition: text(said.state_transition_reason()),
            tags: read_tags(said.tags()),
        }
    }
}

/// Reads tags.
pub(super) fn read_tags(tags: &[types::Tag]) -> Vec<(String, String)> {
    tags.iter()
        .filter_map(|t| {
            Some((
                t.key()?.to_owned(),
                t.value().unwrap_or_default().to_owned(),
            ))
        })
        .collect()
}
