//! The one interface that stages know of machines: plan, launch, come up, watch, endpoints, end.
//!
//! An enum rather than a trait: a new kind of machine turns into a list of compile errors. What a kind
//! cannot do yet is refused by [`plan`], before anything is started.

pub mod aws;
pub mod fargate;
pub mod keeper;
pub mod ladder;
pub mod local;
pub mod plan;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::{Error, Kind, Result};
use crate::process::Process;
use crate::runner::substage::Role;
use crate::state::Job;
use crate::state::record::{Launch, LaunchState};
use crate::state::shared::Shared;
use crate::ui::Ui;
use aws::Aws;
use fargate::coming::ComingUp;
use fargate::request::TaskRequest;
use fargate::{EcsPlace, end, watch};

/// The exact request of one launch; sent again it finds what it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A machine on this host.
    Local(local::LocalRequest),
    /// A task of an ECS cluster.
    Ecs(Box<TaskRequest>),
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
}

/// How machines are logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The login name.
    pub user: String,
    /// The port.
    pub port: u16,
}

/// What came of a launch.
#[derive(Debug)]
pub enum Launched {
    /// Something is on its way.
    Coming(Coming),
    /// The rung has no room now, in the cloud's words.
    NoRoom(String),
    /// The rung cannot be used at all, in the cloud's words.
    Unusable(String),
    /// Nothing was started because the role may not tag, in the cloud's words.
    Untaggable(String),
}

/// Why there is nothing.
pub use fargate::launch::Refused;

/// A machine on its way up.
#[derive(Debug)]
pub enum Coming {
    /// On this host: it is there as soon as it is launched.
    Local {
        /// The machine.
        machine: Machine,
        /// How much of it was told.
        told: u8,
        /// What this host's other jobs do.
        shared: Shared,
    },
    /// A task.
    Ecs(Box<ComingUp>),
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
        /// In the cloud's words.
        cause: String,
        /// Whether nothing is left of it; else what there is has to be ended.
        over: bool,
    },
    /// It will not come, and no further try of the job can fare better.
    Hopeless(Error),
}

/// Sends a request.
///
/// # Errors
/// Where nothing can be started by it.
pub async fn launch(
    request: &Request,
    job: &Job,
    login: &Login,
    rung_wait: Duration,
    shared: &Shared,
    ui: Ui,
) -> std::result::Result<Launched, Refused> {
    match request {
        Request::Local(request) => match local::launch(request, job).await {
            Ok(machine) => Ok(Launched::Coming(Coming::Local {
                machine,
                told: 0,
                shared: shared.clone(),
            })),
            Err(error) => Err(Refused {
                error,
                unanswered: true,
                hopeless: false,
            }),
        },
        Request::Ecs(request) => {
            use fargate::launch::Launched as Answer;
            let aws = Aws::new(&request.access, Some(ui), shared).await;
            Ok(match fargate::launch::launch(&aws, request).await? {
                Answer::Task(arn) => {
                    let coming = ComingUp::new(aws, request, arn, login.clone(), rung_wait);
                    Launched::Coming(Coming::Ecs(Box::new(coming)))
                }
                Answer::NoRoom(verdict) => Launched::NoRoom(verdict.cause),
                Answer::Unusable(verdict) => Launched::Unusable(verdict.cause),
                Answer::Untaggable(verdict) => Launched::Untaggable(verdict.cause),
            })
        }
    }
}

impl Coming {
    /// Returns the name that the cloud gave it, if it gave one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Local { .. } => None,
            Self::Ecs(coming) => Some(coming.task()),
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
                    1 => Ok(News::Reachable(machine.clone())),
                    2 => Ok(News::Running),
                    _ => Err(gone(&machine.place, &Notify::new(), shared).await),
                }
            }
            Self::Ecs(coming) => coming.next().await,
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
        Place::Ecs(place) => watch::gone(place, lost, shared).await,
    }
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
            end::stop(&aws, request.cluster.as_deref(), task, reason).await
        }
        (Request::Ecs(request), LaunchState::Asked) => {
            let aws = Aws::new(&request.access, Some(ui), shared).await;
            end::end_asked(&aws, request, reason).await
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
            end::stop(&aws, place.cluster.as_deref(), &place.task, reason).await
        }
    }
}
