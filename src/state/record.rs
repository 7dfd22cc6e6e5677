//! What the state files hold.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files::{VERSION, Versioned};
use crate::compute::local::LocalRequest;
use crate::compute::{Machine, Request};
use crate::error::Result;
use crate::process::Process;
use crate::script::environment::ContainerEnvironment;

/// Written before a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    version: u32,
    /// The try of `prepare` that made it.
    pub attempt: String,
    /// Unix time, seconds.
    pub created: u64,
    /// When the job was first seen, in whichever try: Unix time, seconds.
    pub first_seen: u64,
    /// When nothing of the job may live any more: Unix time, seconds.
    pub deadline: u64,
    /// The Runner process that owns the job.
    pub owner: Option<Process>,
    /// Whether `cleanup` has begun: whoever lives, nothing of the job shall. The Runner calls it once, and where it fails
    /// `reap` goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
    /// What was launched, in order: one rung after the other, each before it was asked for.
    pub launches: Vec<Launch>,
}

/// One launch of one rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The exact request; sending it again finds what it started. Of one that is over nothing is left of it.
    pub request: Request,
    /// What came of it, as far as it was told.
    pub state: LaunchState,
}

/// What is known of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaunchState {
    /// It was, or is just being, asked for; no answer is known.
    Asked,
    /// It has a name of its own: a task's ARN, an instance's id.
    Named(String),
    /// Nothing of it can be alive.
    Over,
}

/// Written after a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The try of `prepare` that made it.
    pub attempt: String,
    /// Unix time, seconds.
    pub created: u64,
    /// When nothing of the job may live any more: Unix time, seconds.
    pub deadline: u64,
    /// The job's number.
    pub job_id: u64,
    /// The project's path, if known.
    pub project: Option<String>,
    /// The Runner process that owns the job.
    pub owner: Option<Process>,
    /// Where the job runs.
    pub machine: Machine,
    /// The rung that the machine is on, as the configuration names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<String>,
    /// The job's private key, OpenSSH's format; it dies with the job.
    pub private_key: String,
    /// Names the job's directories on the far side; nobody else can guess it.
    pub spool: String,
    /// The container's own environment, on a container machine where it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<ContainerEnvironment>,
}

/// Left by `cleanup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    version: u32,
    /// When the job was first seen: Unix time, seconds.
    pub first_seen: u64,
    /// Why no further try can succeed.
    pub final_failure: Option<FinalFailure>,
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
            deadline: now.saturating_add(lifetime.as_secs()),
            owner,
            ending: false,
            launches: Vec::new(),
        }
    }

    /// Returns what may still be alive.
    pub fn open_launches(&self) -> impl Iterator<Item = &Launch> {
        let over = |launch: &&Launch| launch.state != LaunchState::Over;
        self.launches.iter().filter(over)
    }
}

impl Launch {
    /// Notes what came of it. Whatever is named or over is never asked for again, so what the request told the machine alone
    /// need not lie here any longer. One that is over goes on counting, since launches are numbered, and no more: a job that
    /// waits for room may have thousands of them.
    pub fn settle(&mut self, state: LaunchState) {
        match (&mut self.request, &state) {
            (request, LaunchState::Over) => *request = nothing(),
            (Request::Ec2(request), LaunchState::Named(_)) => request.user_data.clear(),
            _ => {}
        }
        self.state = state;
    }
}

/// Returns what stands in the place of a request that is over: the smallest that the versions before this one read as well.
fn nothing() -> Request {
    Request::Local(LocalRequest {
        token: "over".to_owned(),
        command: Vec::new(),
        port: 0,
        user: String::new(),
        public_key: String::new(),
    })
}

impl Record {
    /// Returns the record of a machine that is up.
    #[must_use]
    pub fn new(intent: &Intent, machine: Machine, private_key: String, spool: String) -> Self {
        Self {
            version: VERSION,
            attempt: intent.attempt.clone(),
            created: now(),
            deadline: intent.deadline,
            job_id: 0,
            project: None,
            owner: intent.owner,
            machine,
            rung: None,
            private_key,
            spool,
            environment: None,
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
    /// Returns the tombstone of a job that was first seen then.
    #[must_use]
    pub fn new(first_seen: u64) -> Self {
        Self {
            version: VERSION,
            first_seen,
            final_failure: None,
        }
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

/// The last second of the year 9999, after which nothing is meant.
const LAST: u64 = 253_402_300_799;

/// Returns the time that a state file means by so many seconds of Unix time, whatever number a damaged one holds.
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
