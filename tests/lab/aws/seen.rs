//! What the lab tells of an account: its tasks, the calls that were made, the sessions.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A call that was made.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Called {
    /// When, in Unix seconds.
    pub(crate) time: f64,
    /// Who, by ARN.
    pub(crate) caller: String,
    /// The service, as signatures name it.
    pub(crate) service: String,
    /// The operation.
    pub(crate) action: String,
    /// What was asked for.
    pub(crate) parameters: Value,
    /// The fault that it met.
    pub(crate) fault: Option<String>,
    /// The answer's HTTP status; none while the call travels.
    pub(crate) status: Option<u16>,
    /// The error's code.
    pub(crate) code: Option<String>,
    /// The error's text.
    pub(crate) message: Option<String>,
    /// The answer, where it is JSON.
    pub(crate) answer: Option<Value>,
    /// Whether it took effect.
    pub(crate) executed: bool,
}

/// A task as the lab knows it, which is more than AWS tells.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Task {
    /// The task's name.
    pub(crate) arn: String,
    /// `lastStatus`.
    pub(crate) status: String,
    /// `desiredStatus`.
    pub(crate) desired: String,
    /// The task definition's family.
    pub(crate) family: String,
    /// The capacity provider.
    pub(crate) provider: Option<String>,
    /// `startedBy`.
    pub(crate) started_by: Option<String>,
    /// The token of the call that started it.
    pub(crate) token: Option<String>,
    /// The tags.
    pub(crate) tags: BTreeMap<String, String>,
    /// The private IPv4 address, once there is one.
    pub(crate) address: Option<String>,
    /// The public address, where one was asked for.
    pub(crate) public_address: Option<String>,
    /// The subnet.
    pub(crate) subnet: Option<String>,
    /// This host's id of the machine's process 1.
    pub(crate) process: Option<i32>,
    /// Whether the machine lives.
    pub(crate) machine_alive: bool,
    /// `stopCode`.
    pub(crate) stop_code: Option<String>,
    /// `stoppedReason`.
    pub(crate) reason: Option<String>,
    /// The container's exit code.
    pub(crate) exit_code: Option<i32>,
    /// Who started it, by ARN.
    pub(crate) caller: String,
}

/// A session of an assumed role.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Session {
    /// The role's ARN.
    pub(crate) role: String,
    /// The session's name.
    pub(crate) name: String,
    /// The session tags.
    pub(crate) tags: BTreeMap<String, String>,
}

/// All of an account that changes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct State {
    pub(super) version: u64,
    /// Every task ever, oldest first.
    pub(crate) tasks: Vec<Task>,
    /// Every session that was asked for from here.
    pub(crate) sessions: Vec<Session>,
    /// How many network interfaces there are.
    pub(crate) interfaces: usize,
    /// How many calls were made.
    pub(crate) calls: usize,
}

impl Task {
    /// Tells whether the task is not over yet.
    pub(crate) fn is_alive(&self) -> bool {
        self.status != "STOPPED" || self.machine_alive
    }
}
