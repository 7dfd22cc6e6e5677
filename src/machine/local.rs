//! A machine on this host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::Process;

/// A launch of a local machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRequest {
    /// Unique to the launch.
    pub token: String,
    /// A program in place of the built-in server.
    pub command: Vec<String>,
    /// The port on which that program will listen.
    pub port: u16,
    /// The login name for that program.
    pub user: String,
    /// The job's public key.
    pub public_key: String,
    /// The container that is the machine; `None`: this host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Box<LocalContainer>>,
}

/// A container of this host's docker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalContainer {
    /// Its image.
    pub image: String,
    /// What replaces the image's ENTRYPOINT: `None`, nothing; empty or one empty word, no entrypoint at all.
    pub entrypoint: Option<Vec<String>>,
    /// The user, as docker takes it; `None`: the image's.
    pub user: Option<String>,
    /// The platform, as docker takes it.
    pub platform: Option<String>,
    /// When the image is pulled, in docker's word.
    pub pull: Option<String>,
    /// The agent's static binary on this host; `None`: where the packages have it.
    pub agent: Option<PathBuf>,
    /// The Unix time at which the agent ends.
    pub until: u64,
}

/// A process on this host and all that it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPlace {
    /// The process.
    pub keeper: Process,
    /// The mark that everything it starts carries.
    pub token: String,
    /// Whether the machine is a container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub container: bool,
}
