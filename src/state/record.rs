//! The content of the state files.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::deadline::Deadline;
use super::files::{VERSION, Versioned};
use super::job_directory::JobDirectory;
use crate::error::Result;
use crate::machine::Machine;
use crate::machine::environment::ContainerEnvironment;
use crate::machine::launch::{Launch, LaunchState};
use crate::process::Process;

/// Written before a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    version: u32,
    /// The attempt of `prepare` that made it.
    pub attempt: String,
    /// Unix time, seconds.
    pub created: u64,
    /// When any attempt first saw the job: Unix time, seconds.
    pub first_seen: u64,
    /// The time after which nothing of the job may live.
    #[serde(flatten)]
    pub until: Deadline,
    /// The Runner process that owns the job, once it is known (see [`super::owner`]).
    pub owner: Option<Process>,
    /// Until then: the processes that may be it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Process>,
    /// The Runner's own directory for this attempt, if its removal would mean the job's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<JobDirectory>,
    /// A digest of the configuration that the attempt uses; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub configuration: String,
    /// The bastion that the Runner is on; absent if an earlier version wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bastion: Option<String>,
    /// Whether the Runner called `cleanup`. Then nothing of the job may live, even if its Runner does. The Runner calls it
    /// once; if it fails, `reap` continues. Only that call is written here: any other check for the job's end is made again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
    /// The launches in order, one rung after the other, each written before its request.
    pub launches: Vec<Launch>,
}

/// Written after a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The attempt of `prepare` that made it.
    pub attempt: String,
    /// Unix time, seconds.
    pub created: u64,
    /// The time after which nothing of the job may live.
    #[serde(flatten)]
    pub until: Deadline,
    /// The job's number.
    pub job_id: u64,
    /// The project's path, if known.
    pub project: Option<String>,
    /// The Runner process that owns the job, once it is known (see [`super::owner`]).
    pub owner: Option<Process>,
    /// The bastion that the Runner is on; absent if an earlier version wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bastion: Option<String>,
    /// Until then: the processes that may be it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Process>,
    /// Where the job runs.
    pub machine: Machine,
    /// The rung that the machine is on, as the configuration names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<String>,
    /// The job's private key, OpenSSH's format; it is removed with the job.
    pub private_key: String,
    /// The name of the job's directories on the machine; nobody else can guess it.
    pub spool: String,
    /// The container's own environment, on a container machine, if it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<ContainerEnvironment>,
}

/// Left by `cleanup`, for the same Runner process and the same configuration. A restarted Runner may run another job with the
/// same number (its own check at each start does), and an administrator who changed the file may have corrected it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    version: u32,
    /// When the job was first seen: Unix time, seconds.
    pub first_seen: u64,
    /// Why no further attempt can succeed.
    pub final_failure: Option<FinalFailure>,
    /// The Runner process that it applies to, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Process>,
    /// Until then: the processes that may be it, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Process>,
    /// A digest of the configuration that it applies to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub configuration: String,
}

/// A failure that another attempt cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalFailure {
    /// The cause, in the words of the first attempt.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl Intent {
    /// Returns the intent of an attempt that starts now.
    #[must_use]
    pub fn new(
        attempt: String,
        owner: Option<Process>,
        first_seen: Option<u64>,
        lifetime: Duration,
    ) -> Self {
        let now = now();
        Self {
            version: VERSION,
            attempt,
            created: now,
            first_seen: first_seen.unwrap_or(now),
            until: Deadline::after(lifetime),
            owner,
            bastion: None,
            candidates: Vec::new(),
            directory: None,
            configuration: String::new(),
            ending: false,
            launches: Vec::new(),
        }
    }

    /// Returns the launches that may still be alive.
    pub fn open_launches(&self) -> impl Iterator<Item = &Launch> {
        let over = |launch: &&Launch| launch.state != LaunchState::Over;
        self.launches.iter().filter(over)
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
            until: intent.until,
            job_id: 0,
            project: None,
            owner: intent.owner,
            bastion: intent.bastion.clone(),
            candidates: intent.candidates.clone(),
            machine,
            rung: None,
            private_key,
            spool,
            environment: None,
        }
    }

    /// Whether another record is of the same machine, even if its owner became known meanwhile.
    #[must_use]
    pub fn is_of_same_machine(&self, other: &Self) -> bool {
        (&self.attempt, &self.spool) == (&other.attempt, &other.spool)
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
    /// Returns the tombstone of a job of which only the time of its end is known: it applies to no attempt.
    #[must_use]
    pub fn new(first_seen: u64) -> Self {
        Self {
            version: VERSION,
            first_seen,
            final_failure: None,
            owner: None,
            candidates: Vec::new(),
            configuration: String::new(),
        }
    }

    /// Returns the tombstone of an attempt.
    #[must_use]
    pub fn of(intent: &Intent) -> Self {
        Self {
            owner: intent.owner,
            candidates: intent.candidates.clone(),
            configuration: intent.configuration.clone(),
            ..Self::new(intent.first_seen)
        }
    }

    /// Whether it applies to an attempt: certainly the same Runner process, and the same configuration.
    #[must_use]
    pub fn holds_for(&self, intent: &Intent) -> bool {
        let callers = match &intent.owner {
            Some(owner) => std::slice::from_ref(owner),
            None => &intent.candidates,
        };
        let same_runner = match &self.owner {
            Some(owner) => callers.contains(owner),
            // Farther ancestors may be shared by several Runners: a supervisor that restarts them, for example.
            None => callers
                .first()
                .is_some_and(|one| self.candidates.first() == Some(one)),
        };
        same_runner && !self.configuration.is_empty() && self.configuration == intent.configuration
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

/// The last second of the year 9999: no later time makes sense.
const LAST: u64 = 253_402_300_799;

/// Returns the time of so many seconds of Unix time in a state file, whatever number a damaged file has.
#[must_use]
pub fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))
}

/// Returns the time: Unix time, seconds.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
