//! The one interface that stages know of machines: settle, launch, come up, watch, end.
//!
//! Each kind of machine is a folder with the face that [`kind`] describes, and one line in the list below. What a build
//! cannot launch is refused by [`plan`](crate::plan), before anything is started.

pub mod aws;
#[macro_use]
mod dispatch;
pub mod ec2;
pub mod fargate;
pub mod kind;
pub mod ladder;
pub mod local;
mod watch;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::Notify;

use crate::container::Tokens;
use crate::error::Error;
use crate::machine::launch::{Launch, LaunchState};
use crate::machine::{Login, Machine, Place, Request};
use crate::runner::containers::Secret;
use crate::state::shared::Shared;
use crate::state::{Job, Store};
use crate::ui::Ui;
use kind::{Admits, ComingUp, Launched, MachineKind, News, Refused, Settled};

kinds! {
    Local: local::ThisHost,
    Ecs: fargate::Tasks,
    Ec2: ec2::Instances,
}

/// Asks for what logs in to ECR's registries of these regions, as the role that launched the machine.
///
/// # Errors
/// What ECR says; [`Kind::NotYet`](crate::error::Kind::NotYet) where no machine of this kind pulls images by itself.
pub async fn registry_tokens(
    place: &Place,
    regions: BTreeSet<String>,
    shared: &Shared,
    ui: Ui,
) -> Result<Tokens, Error> {
    let mut tokens = Tokens::new();
    for region in regions {
        let token = registry_token(place, &region, shared, ui).await?;
        tokens.insert(region, token);
    }
    Ok(tokens)
}
