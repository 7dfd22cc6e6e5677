//! The state of an instance while a script runs on it.

use tokio::sync::Notify;

use super::{Api, ended};
use crate::compute::watch::{DESCRIBE_LIMIT, Look, Looks};
use crate::error::{Error, Kind};
use crate::machine::instance::Ec2Place;
use crate::machine::verdict::{Verdict, Why};
use crate::state::shared::Shared;

/// Resolves, with AWS's reason, when the instance is gone or going. A lost connection asks for a look at once.
pub(super) async fn gone(place: &Ec2Place, lost: &Notify, shared: &Shared) -> Error {
    let mut looks = Looks::first(lost).await;
    let api = Api::new(&place.access, None, shared).await;
    let look = async || match place.describe(&api, DESCRIBE_LIMIT).await {
        Ok(Some(instance)) if instance.is_ending() => {
            Look::Gone(ended::ended(&instance, place.spot))
        }
        Ok(Some(_)) => Look::There,
        Ok(None) => Look::Missing,
        Err(verdict) => {
            tracing::debug!(cause = verdict.cause, "the instance's state is not known");
            Look::Unknown
        }
    };
    let verdict = looks.until_gone(look).await;
    told(&verdict.unwrap_or_else(|| ended::missing(&place.instance, place.spot)))
}

fn told(verdict: &Verdict) -> Error {
    let kind = match verdict.why {
        Why::Interrupted => Kind::TakenBack,
        _ => Kind::MachineGone,
    };
    verdict.error(kind, ended::what(verdict))
}
