//! One EC2 instance per job, Spot or on demand.
//!
//! ```text
//! request ─▶ settle (subnets, root device) ─▶ launch (CreateFleet) ─▶ coming (DescribeInstances) ─▶ [the job] ─▶ end (TerminateInstances)
//!                                                                                                  watch beside it
//! ```
//!
//! All that calls EC2 is in `api`, and types of the AWS SDK stop there. A build without the feature `ec2` has `without` in
//! its place: the same names, and nothing behind them, since a record of another build may name an instance. No other file
//! asks which build this is.

#[cfg(feature = "ec2")]
mod api;
pub mod instance;
pub mod leftover;
#[cfg(not(feature = "ec2"))]
mod without;

#[cfg(feature = "ec2")]
pub use api::{Api, Instances, PublicAddresses};
#[cfg(not(feature = "ec2"))]
pub use without::{Api, Instances, PublicAddresses};
