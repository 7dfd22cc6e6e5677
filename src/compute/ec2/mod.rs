//! One EC2 instance per job, Spot or on demand.
//!
//! ```text
//! request ─▶ settle (subnets, root device) ─▶ launch (CreateFleet) ─▶ coming (DescribeInstances) ─▶ [the job] ─▶ end (TerminateInstances)
//!                                                                                                  watch beside it
//! ```
//!
//! Types of the AWS SDK stop here. What a request is, and what AWS's words mean, is known in every build: a record may
//! name an instance. Only what calls EC2 needs the feature `ec2`.

#[cfg(feature = "ec2")]
pub mod admission;
#[cfg(feature = "ec2")]
pub mod coming;
#[cfg(feature = "ec2")]
pub mod end;
#[cfg(feature = "ec2")]
mod ended;
#[cfg(feature = "ec2")]
mod fleet;
#[cfg(feature = "ec2")]
pub mod instance;
#[cfg(feature = "ec2")]
pub mod launch;
#[cfg(feature = "ec2")]
pub mod list;
#[cfg(feature = "ec2")]
pub mod made;
pub mod pools;
#[cfg(feature = "ec2")]
pub mod registry;
pub mod request;
#[cfg(feature = "ec2")]
pub mod settle;
#[cfg(feature = "ec2")]
pub mod sweep;
pub mod template;
#[cfg(feature = "ec2")]
pub mod watch;
#[cfg(not(feature = "ec2"))]
mod without;

#[cfg(not(feature = "ec2"))]
pub(super) use without::{end, refused, registry, watch};

#[cfg(feature = "ec2")]
mod describe {
    use std::time::Duration;

    use aws_sdk_ec2::types::Reservation;

    use super::instance::Instance;
    use crate::compute::aws::classify::Action;
    use crate::compute::aws::{Aws, poller};
    use crate::machine::instance::Ec2Place;
    use crate::machine::verdict::Verdict;

    impl Ec2Place {
        /// Asks for the instance's state, together with other jobs that ask for theirs; `None` where EC2 does not know it, or
        /// not yet.
        pub(super) async fn describe(
            &self,
            aws: &Aws,
            limit: Duration,
        ) -> Result<Option<Instance>, Verdict> {
            let ask = async |names: &[String]| {
                let call = async || {
                    aws.ec2
                        .describe_instances()
                        .set_instance_ids(Some(names.to_vec()))
                        .send()
                        .await
                };
                match aws.call(Action::DescribeInstances, limit, call).await {
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
            poller::state(aws, "ec2", &self.instance, ask).await
        }
    }
}
