//! The one interface that stages know of machines: plan, launch, come up, watch, endpoints, end.
//!
//! An enum rather than a trait: a new kind of machine turns into a list of compile errors. What a kind
//! cannot do yet is refused by [`crate::plan`], before anything is started.

pub mod aws;
pub mod ec2;
pub mod fargate;
pub mod keeper;
pub mod ladder;
mod launching;
pub mod local;
mod login_shell;
mod watch;

use std::collections::BTreeSet;

use tokio::sync::Notify;

use crate::container::Tokens;
use crate::error::{Error, Kind, Result};
use crate::machine::launch::{Launch, LaunchState};
use crate::machine::verdict::Verdict;
use crate::machine::{Machine, Place, Request};
use crate::state::shared::Shared;
use crate::ui::Ui;
use aws::Aws;
use fargate::coming::ComingUp;

/// Why there is nothing.
pub use fargate::launch::Refused;
pub use launching::{Launched, Settled, launch, settle, withdraw};

/// A machine on its way up.
#[derive(Debug)]
pub enum Coming {
    /// On this host: it is there as soon as it is launched.
    Local {
        /// The machine.
        machine: Box<Machine>,
        /// How much of it was told.
        told: u8,
        /// What this host's other jobs do.
        shared: Shared,
    },
    /// A task.
    Ecs(Box<ComingUp>),
    /// An instance.
    #[cfg(feature = "ec2")]
    Ec2(Box<ec2::coming::ComingUp>),
}

/// What a machine has to be asked for before a login, where it does not know the job's key by itself.
#[derive(Debug)]
pub enum Admission {
    /// To an instance, by EC2 Instance Connect.
    #[cfg(feature = "ec2")]
    Ec2(ec2::admission::Admission),
}

impl Admission {
    /// Has the machine take the job's key for a login that comes now; `refused`: it did not the last time.
    ///
    /// # Errors
    /// Where the cloud does not admit it.
    #[cfg_attr(
        not(feature = "ec2"),
        expect(clippy::unused_async, reason = "this build admits nobody")
    )]
    pub async fn renew(&mut self, refused: bool) -> std::result::Result<(), Refused> {
        #[cfg(not(feature = "ec2"))]
        let _ = refused;
        match *self {
            #[cfg(feature = "ec2")]
            Self::Ec2(ref mut admission) => admission.renew(refused).await,
        }
    }
}

/// What happens on the way.
#[derive(Debug)]
pub enum News {
    /// A line for the job log.
    Progress(String),
    /// It has an address: dialling makes sense.
    Reachable(Machine),
    /// It runs: its SSH server should answer soon.
    Running,
    /// It will not come, or not soon, for want of room: another rung's turn.
    NoRoom {
        /// In the cloud's words, with what helps.
        verdict: Verdict,
        /// Whether nothing is left of it; else what there is has to be ended.
        over: bool,
    },
    /// It comes no further, or nobody can reach it, and not for want of room: another rung's turn, where there is one.
    Stuck(Error),
    /// It will not come, and no further try of the job can fare better.
    Hopeless(Error),
}

impl Coming {
    /// Returns the name that the cloud gave it, if it gave one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Local { .. } => None,
            Self::Ecs(coming) => Some(coming.task()),
            #[cfg(feature = "ec2")]
            Self::Ec2(coming) => Some(coming.instance()),
        }
    }

    /// Hands out what each login has to be admitted by, where the machine does not know the job's key by itself; once.
    pub fn admission(&mut self) -> Option<Admission> {
        match self {
            Self::Local { .. } | Self::Ecs(_) => None,
            #[cfg(feature = "ec2")]
            Self::Ec2(coming) => coming.admission().map(Admission::Ec2),
        }
    }

    /// Notes that somebody is in: from now on the machine is no longer waited for, but only watched.
    pub fn entered(&mut self) {
        match self {
            Self::Local { .. } => {}
            Self::Ecs(coming) => coming.entered(),
            #[cfg(feature = "ec2")]
            Self::Ec2(coming) => coming.entered(),
        }
    }

    /// Waits for what happens next. Cancel-safe.
    ///
    /// # Errors
    /// Where the machine will never be there.
    pub async fn next(&mut self) -> Result<News> {
        match self {
            Self::Local {
                machine,
                told,
                shared,
            } => {
                *told = told.saturating_add(1);
                match told {
                    1 => Ok(News::Reachable((**machine).clone())),
                    2 => Ok(News::Running),
                    _ => Err(gone(&machine.place, &Notify::new(), shared).await),
                }
            }
            Self::Ecs(coming) => coming.next().await,
            #[cfg(feature = "ec2")]
            Self::Ec2(coming) => coming.next().await,
        }
    }
}

/// Resolves, with the reason, when a machine is gone. `lost` is told when a connection to it was lost.
pub async fn gone(place: &Place, lost: &Notify, shared: &Shared) -> Error {
    match place {
        Place::Local { keeper, .. } => {
            keeper.gone().await;
            Error::new(
                Kind::MachineGone,
                format!("the machine is gone: its process {} on this host ended", keeper.pid),
            )
            .hint("Something killed it (out of memory, an admin, a script that kills by name?); retry the job.")
        }
        Place::Ecs(place) => fargate::watch::gone(place, lost, shared).await,
        Place::Ec2(place) => ec2::watch::gone(place, lost, shared).await,
    }
}

/// Asks for what logs in to ECR's registries of these regions, as the role that launched the machine.
///
/// # Errors
/// What ECR says; [`Kind::NotYet`] where no machine of this kind pulls images by itself.
pub async fn registry_tokens(
    place: &Place,
    regions: BTreeSet<String>,
    shared: &Shared,
    ui: Ui,
) -> Result<Tokens> {
    let mut tokens = Tokens::new();
    for region in regions {
        let Place::Ec2(place) = place else {
            return Err(Error::new(
                Kind::NotYet,
                "only instances pull images by the driver's role",
            ));
        };
        let token = ec2::registry::token(&place.access, &region, shared, ui).await?;
        tokens.insert(region, token);
    }
    Ok(tokens)
}

/// Ends whatever a launch may have started, answer or not. The reason is for AWS's records; long waits for it are told.
///
/// # Errors
/// Where something of it is left alive.
pub async fn end(launch: &Launch, reason: &str, shared: &Shared, ui: Ui) -> Result<()> {
    match (&launch.request, &launch.state) {
        (_, LaunchState::Over) => Ok(()),
        (Request::Local(request), _) => local::end(&request.token).await,
        (Request::Ecs(request), LaunchState::Named(task)) => {
            let aws = Aws::new(&request.access, Some(ui), shared).await;
            fargate::end::end_named(&aws, request, task, reason).await
        }
        (Request::Ecs(request), LaunchState::Asked) => {
            let aws = Aws::new(&request.access, Some(ui), shared).await;
            fargate::end::end_asked(&aws, request, reason).await
        }
        (Request::Ec2(request), LaunchState::Named(instance)) => {
            let aws = Aws::new(&request.access, Some(ui), shared).await;
            ec2::end::terminate(&aws, instance).await
        }
        (Request::Ec2(request), LaunchState::Asked) => {
            let aws = Aws::new(&request.access, Some(ui), shared).await;
            ec2::end::end_asked(&aws, request).await
        }
    }
}

/// Ends a machine; long waits are told.
///
/// # Errors
/// Where something of it is left alive.
pub async fn end_machine(machine: &Machine, reason: &str, shared: &Shared, ui: Ui) -> Result<()> {
    match &machine.place {
        Place::Local { token, .. } => local::end(token).await,
        Place::Ecs(place) => {
            let aws = Aws::new(&place.access, Some(ui), shared).await;
            fargate::end::stop(&aws, place.cluster.as_deref(), &place.task, reason).await
        }
        Place::Ec2(place) => {
            let aws = Aws::new(&place.access, Some(ui), shared).await;
            ec2::end::terminate(&aws, &place.instance).await
        }
    }
}
