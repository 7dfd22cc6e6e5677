//! A machine on this host.

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
}

/// A process on this host and all that it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPlace {
    /// The process.
    pub keeper: Process,
    /// The mark that everything it starts carries.
    pub token: String,
}
