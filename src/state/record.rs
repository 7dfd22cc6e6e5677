//! What the state files hold.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files::{VERSION, Versioned};
use crate::compute::{Machine, Request};
use crate::error::Result;
use crate::process::Process;

/// Written before a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    version: u32,
    /// The try of `prepare` that made it.
    pub attempt: String,
    /// Unix time, seconds.
    pub created: u64,
    /// The Runner process that owns the job.
    pub owner: Option<Process>,
    /// The exact request; sending it again finds what it started.
    pub request: Request,
}

/// Written after a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The try of `prepare` that made it.
    pub attempt: String,
    /// Unix time, seconds.
    pub created: u64,
    /// The job's number.
    pub job_id: u64,
    /// The project's path, if known.
    pub project: Option<String>,
    /// The Runner process that owns the job.
    pub owner: Option<Process>,
    /// Where the job runs.
    pub machine: Machine,
    /// The job's private key, OpenSSH's format; it dies with the job.
    pub private_key: String,
    /// Names the job's directories on the far side; nobody else can guess it.
    pub spool: String,
}

/// Left by `cleanup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    version: u32,
    /// When the job was first seen: Unix time, seconds.
    pub first_seen: u64,
    /// Why no further try can succeed.
    pub final_failure: Option<FinalFailure>,
    /// The rung that the job had reached.
    pub rung: Option<String>,
}

/// A failure that another try cannot mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalFailure {
    /// The cause, as the first try told it.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl Intent {
    /// Returns the intent of an attempt that begins now.
    #[must_use]
    pub fn new(attempt: String, owner: Option<Process>, request: Request) -> Self {
        Self {
            version: VERSION,
            attempt,
            created: now(),
            owner,
            request,
        }
    }
}

impl Record {
    /// Returns the record of a machine that is up.
    #[must_use]
    pub fn new(intent: &Intent, machine: Machine, private_key: String, spool: String) -> Self {
        Self {
            version: VERSION,
            attempt: intent.attempt.clone(),
            created: now(),
            job_id: 0,
            project: None,
            owner: intent.owner,
            machine,
            private_key,
            spool,
        }
    }

    /// Parses a record; for the fuzz target.
    ///
    /// # Errors
    /// Where it is damaged or from a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        super::files::parse(bytes, Path::new("record.json"))
    }
}

impl Tombstone {
    /// Returns the tombstone of a job that was first seen now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: VERSION,
            first_seen: now(),
            final_failure: None,
            rung: None,
        }
    }
}

impl Default for Tombstone {
    fn default() -> Self {
        Self::new()
    }
}

impl Versioned for Intent {
    const WHAT: &'static str = "intent";
}

impl Versioned for Record {
    const WHAT: &'static str = "record";
}

impl Versioned for Tombstone {
    const WHAT: &'static str = "tombstone";
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
