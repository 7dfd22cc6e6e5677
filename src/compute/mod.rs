//! The one interface that stages know of machines: launch, watch, endpoints, end.
//!
//! An enum rather than a trait: a new kind of machine turns into a list of compile errors. What a kind
//! cannot do yet is refused here, before anything is started.

pub mod keeper;
pub mod local;

use serde::{Deserialize, Serialize};

use crate::config::settings::{Rung, Settings};
use crate::error::{Error, Kind, Result};
use crate::process::Process;
use crate::runner::payload::Payload;
use crate::runner::substage::Role;
use crate::state::Job;

/// The exact request of one launch; sent again it finds what it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A machine on this host.
    Local(local::LocalRequest),
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

/// Makes the request for a job, or says what this version cannot do.
///
/// # Errors
/// For anything but a plain job on `local`.
pub fn plan(settings: &Settings, payload: &Payload, public_key: String) -> Result<Request> {
    let refuse = |what: String, hint: &str| Err(Error::new(Kind::NotYet, what).hint(hint));
    match settings.capacity.as_slice() {
        [Rung::Local] => {}
        [] => {
            return refuse(
                "this version cannot run jobs on ECS yet, which this Go-driver configuration asks for".into(),
                "Keep the Go driver until a version with Fargate is out; `capacity = [\"local\"]` with \
                 `allow_jobs_on_this_host = true` runs jobs on this host.",
            );
        }
        [first, ..] => {
            return refuse(
                format!("this version cannot run jobs on the rung {first} yet"),
                "Only `capacity = [\"local\"]` with `allow_jobs_on_this_host = true` works so far.",
            );
        }
    }
    if let Some(image) = &payload.image {
        return refuse(
            format!("the job asks for the image {image}, and `local` runs no images"),
            "Remove `image:` from this job, or send it to another runner by its tags.",
        );
    }
    if let [first, ..] = payload.services.as_slice() {
        return refuse(
            format!("the job asks for the service {first}, and `local` runs no services"),
            "Remove `services:` from this job, or send it to another runner by its tags.",
        );
    }
    Ok(Request::Local(local::LocalRequest::new(
        settings, public_key,
    )?))
}

/// Starts what a request asks for, and returns once its address is known.
///
/// # Errors
/// Where it cannot be started.
pub async fn launch(request: &Request, job: &Job) -> Result<Machine> {
    match request {
        Request::Local(request) => local::launch(request, job).await,
    }
}

/// Resolves, with the reason, when a machine is gone.
pub async fn gone(place: &Place) -> Error {
    match place {
        Place::Local { keeper, .. } => {
            keeper.gone().await;
            Error::new(
                Kind::MachineGone,
                format!("the machine is gone: its process {} on this host ended", keeper.pid),
            )
            .hint("Something killed it (out of memory, an admin, a script that kills by name?); retry the job.")
        }
    }
}

/// Ends whatever a request may have started, record or not.
///
/// # Errors
/// Where something of it is left alive.
pub async fn end(request: &Request) -> Result<()> {
    match request {
        Request::Local(request) => local::end(&request.token).await,
    }
}

/// Ends a machine.
///
/// # Errors
/// Where something of it is left alive.
pub async fn end_machine(machine: &Machine) -> Result<()> {
    match &machine.place {
        Place::Local { token, .. } => local::end(token).await,
    }
}
