//! The one interface that stages know of machines: plan, launch, come up, watch, endpoints, end.
//!
//! An enum rather than a trait: a new kind of machine turns into a list of compile errors. What a kind
//! cannot do yet is refused by [`plan`], before anything is started.

pub mod aws;
pub mod ec2;
pub mod fargate;
pub mod keeper;
pub mod ladder;
mod launching;
pub mod local;
mod login_shell;
pub mod plan;
mod watch;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::container::Tokens;
use crate::error::{Error, Kind, Result};
use crate::process::Process;
use crate::runner::substage::Role;
use crate::state::record::{Launch, LaunchState};
use crate::state::shared::Shared;
use crate::ui::Ui;
use aws::Aws;
use aws::classify::Verdict;
use ec2::Ec2Place;
use ec2::request::InstanceRequest;
use fargate::EcsPlace;
use fargate::coming::ComingUp;
use fargate::request::TaskRequest;

/// The exact request of one launch; sent again it finds what it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A machine on this host.
    Local(local::LocalRequest),
    /// A task of an ECS cluster.
    Ecs(Box<TaskRequest>),
    /// An EC2 instance.
    Ec2(Box<InstanceRequest>),
}

impl Request {
    /// Whether what it starts is elsewhere, and may outlive this host.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Ecs(_) | Self::Ec2(_) => true,
        }
    }

    /// Returns what it asks for, in a word for the job log; nothing for what is there at once.
    #[must_use]
    pub fn asks_for(&self) -> Option<&'static str> {
        match self {
            Self::Local(_) => None,
            Self::Ecs(_) => Some("a task"),
            Self::Ec2(_) => Some("an instance"),
        }
    }
}

impl Request {
    /// Names the capacity that the request is for, the same for all jobs that ask for the same; none where there is
    /// nothing to run out of.
    #[must_use]
    pub fn capacity(&self) -> Option<String> {
        match self {
            Self::Local(_) => None,
            Self::Ecs(request) => Some(request.capacity_name()),
            Self::Ec2(request) => Some(request.capacity_name()),
        }
    }
}

/// A machine: where it is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What it is.
    pub place: Place,
    /// How it is reached.
    pub endpoints: Vec<Endpoint>,
}

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A process on this host and all that it started.
    Local {
        /// The process.
        keeper: Process,
        /// The mark that everything it starts carries.
        token: String,
    },
    /// A task of an ECS cluster.
    Ecs(EcsPlace),
    /// An EC2 instance.
    Ec2(Ec2Place),
}

impl Place {
    /// Returns whether it is an instance that Spot may take back.
    #[must_use]
    pub fn is_spot_instance(&self) -> bool {
        matches!(self, Self::Ec2(place) if place.spot)
    }
}

/// One way into a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The sub-stages that run here.
    pub roles: Vec<Role>,
    /// Its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The login name.
    pub user: String,
    /// The host key as an OpenSSH line, known beforehand or pinned on first contact.
    pub host_key: Option<String>,
    /// The container on the machine that scripts run in; `None`: on the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
}

impl Machine {
    /// Returns the endpoint where a role's scripts run.
    ///
    /// # Errors
    /// Where the machine has none for it.
    pub fn endpoint(&self, role: Role) -> Result<&Endpoint> {
        self.endpoints
            .iter()
            .find(|e| e.roles.contains(&role))
            .ok_or_else(|| {
                Error::new(
                    Kind::State,
                    format!("the record names no endpoint for {role:?} scripts"),
                )
            })
    }

    /// Returns whether some of the job's scripts run in a container on the machine, and others beside it.
    #[must_use]
    pub fn is_shared_with_container(&self) -> bool {
        self.endpoints.iter().any(|e| e.inside.is_some())
    }
}

/// How machines are logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The login name.
    pub user: String,
    /// The port.
    pub port: u16,
}

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
