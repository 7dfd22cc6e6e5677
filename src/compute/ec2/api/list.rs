//! Instances as EC2 lists them: those of one launch, and for `reap` those of the whole fleet.

use std::time::Duration;

use aws_sdk_ec2::types::{Filter, Reservation};

use super::Api;
use crate::compute::aws::classify::Action;
use crate::compute::ec2::instance::{Instance, Phase};
use crate::error::Result;
use crate::machine::proof::LAUNCH;
use crate::machine::tags;
use crate::machine::verdict::Why;

/// One call, repeated within that time.
const LIST_LIMIT: Duration = Duration::from_secs(2 * 60);
/// What costs money, or will again. Not `shutting-down`: that is on its way out.
const ALIVE: [&str; 4] = ["pending", "running", "stopping", "stopped"];

impl Api {
    /// Returns the instances that one launch has started and that are not gone.
    ///
    /// # Errors
    /// Where AWS does not say.
    pub(super) async fn of_launch(&self, token: &str) -> Result<Vec<Instance>> {
        instances(self, LAUNCH, token).await
    }

    /// Returns how far an instance has come; none where EC2 does not know it here.
    ///
    /// # Errors
    /// Where AWS does not say.
    pub async fn phase_of(&self, instance: &str) -> Result<Option<Phase>> {
        let call = async || {
            self.ec2
                .describe_instances()
                .instance_ids(instance)
                .send()
                .await
        };
        match self
            .aws
            .call(Action::DescribeInstances, LIST_LIMIT, call)
            .await
        {
            Ok(answer) => Ok(answer
                .reservations()
                .iter()
                .flat_map(Reservation::instances)
                .map(|one| Instance::read(one).phase)
                .next()),
            Err(failure) if failure.verdict.why == Why::NotFound => Ok(None),
            Err(failure) => {
                let what = format!("whether the instance {instance} lives cannot be found out");
                Err(failure.verdict.error(failure.verdict.why.kind(), &what))
            }
        }
    }

    /// Returns the fleet's instances that are not gone.
    ///
    /// # Errors
    /// Where AWS does not say.
    pub async fn of_fleet(&self, fleet: &str) -> Result<Vec<Instance>> {
        instances(self, "fleet", &tags::value(fleet)).await
    }
}

/// Returns a filter by one of the driver's own tags.
pub(super) fn tagged(name: &str, value: &str) -> Filter {
    filter(&format!("tag:{}{name}", tags::PREFIX), &[value])
}

/// Returns a filter.
pub(super) fn filter(name: &str, values: &[&str]) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.iter().map(|v| (*v).to_owned()).collect()))
        .build()
}

async fn instances(api: &Api, name: &str, value: &str) -> Result<Vec<Instance>> {
    let mut all = Vec::new();
    let mut page: Option<String> = None;
    loop {
        let call = async || {
            api.ec2
                .describe_instances()
                .filters(tagged(name, value))
                .filters(filter("instance-state-name", &ALIVE))
                .set_next_token(page.clone())
                .send()
                .await
        };
        let answer = match api
            .aws
            .call(Action::DescribeInstances, LIST_LIMIT, call)
            .await
        {
            Ok(answer) => answer,
            Err(failure) => {
                let what = "the instances of this fleet cannot be listed";
                return Err(failure.verdict.error(failure.verdict.why.kind(), what));
            }
        };
        let found = answer
            .reservations()
            .iter()
            .flat_map(Reservation::instances);
        all.extend(found.map(Instance::read));
        page = answer
            .next_token()
            .filter(|t| !t.is_empty())
            .map(str::to_owned);
        if page.is_none() {
            return Ok(all);
        }
    }
}
