//! The exact request of one launch, of whichever kind of machine.

use serde::{Deserialize, Serialize};

use super::instance::InstanceRequest;
use super::local::LocalRequest;
use super::task::TaskRequest;

/// The exact request of one launch; sent again it finds what it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A machine on this host.
    Local(LocalRequest),
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
            Self::Local(request) => request.container.is_some().then_some("a container"),
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
