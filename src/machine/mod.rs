//! What outlives a process: what is asked for, what came of it, which machine it is and how it is reached.
//!
//! Data that the state directory keeps, `compute` acts on, `ssh` connects to and `script` brings along. Nothing here calls
//! anybody: it is written and read by several versions of the driver, so its form changes only by additions.

pub mod access;
pub mod environment;
pub mod instance;
pub mod launch;
pub mod local;
pub mod proof;
pub mod request;
pub mod tags;
pub mod task;
pub mod template;
pub mod verdict;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::runner::substage::Role;
use instance::Ec2Place;
use local::LocalPlace;
pub use request::Request;
use task::EcsPlace;

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
    Local(LocalPlace),
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
    /// What serves there.
    #[serde(default, skip_serializing_if = "FarSide::is_login")]
    pub far_side: FarSide,
    /// A Unix socket of this host that leads there, in place of address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

impl Endpoint {
    /// Returns where it is, for people: `10.0.0.7:22`, `[::1]:22`, or a socket's path.
    #[must_use]
    pub fn address(&self) -> String {
        match (&self.socket, self.host.contains(':')) {
            (Some(socket), _) => socket.display().to_string(),
            (None, true) => format!("[{}]:{}", self.host, self.port),
            (None, false) => format!("{}:{}", self.host, self.port),
        }
    }
}

/// What serves at an endpoint, and so how a script is started there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FarSide {
    /// An SSH server of any make: its login's shell is sent the far side with each command.
    #[default]
    Login,
    /// The agent, which is the far side itself.
    Agent,
}

impl FarSide {
    fn is_login(&self) -> bool {
        *self == Self::Login
    }
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
