//! Why an instance ended, or is ending: AWS's code and message. Pure.

use crate::compute::aws::classify::{self, said};
use crate::compute::ec2::instance::Instance;
use crate::machine::verdict::{Verdict, Why};

/// Reads why an instance ended; `spot` where AWS may take it back.
#[must_use]
pub(super) fn ended(instance: &Instance, spot: bool) -> Verdict {
    let (code, message) = match &instance.reason {
        Some((code, message)) => (code.as_str(), message.as_str()),
        None => ("", ""),
    };
    let mut cause = said(code, message);
    if let Some(transition) = instance.transition.as_deref()
        && !cause.contains(transition)
    {
        let gap = if cause.is_empty() { "" } else { "; " };
        cause = format!("{cause}{gap}{transition}");
    }
    if cause.is_empty() {
        "the instance is being ended; AWS gives no reason".clone_into(&mut cause);
    }
    classify::instance_ended(code, &cause, spot)
}

/// Reads that EC2 does not know an instance any more.
#[must_use]
pub(super) fn missing(instance: &str, spot: bool) -> Verdict {
    classify::instance_ended(
        "",
        &format!("EC2 does not know the instance {instance} any more"),
        spot,
    )
}

/// What is told of a machine that went away under a job.
#[must_use]
pub(super) fn what(verdict: &Verdict) -> &'static str {
    match verdict.why {
        Why::Interrupted => "Spot capacity was taken back",
        _ => "the machine is gone",
    }
}
