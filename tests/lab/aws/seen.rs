//! What the lab tells of an account: its tasks, the calls that were made, the sessions.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The tag by which an instance's machine is found, and by which a test knows whose it is.
pub(crate) const JOB_TAG: &str = "gitlab-aws-driver:job";

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

/// An EC2 instance as the lab knows it, which is more than AWS tells.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Instance {
    /// Its id.
    pub(crate) id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopped`.
    pub(crate) state: String,
    /// The code of the state's reason.
    pub(crate) reason: Option<String>,
    /// The instance type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The availability zone.
    pub(crate) zone: String,
    /// The subnet.
    pub(crate) subnet: String,
    /// Whether it is a Spot instance.
    pub(crate) spot: bool,
    /// The Spot request's id.
    pub(crate) spot_request: Option<String>,
    /// The root volume's id.
    pub(crate) volume: String,
    /// The root volume's size, GiB.
    pub(crate) volume_size: u64,
    /// The root volume's type.
    pub(crate) volume_type: String,
    /// The image's id.
    pub(crate) image: String,
    /// The instance profile's ARN.
    pub(crate) profile: Option<String>,
    /// The security groups.
    pub(crate) groups: Vec<String>,
    /// The key pair.
    pub(crate) key_name: Option<String>,
    /// What `poweroff` on it means: `stop` or `terminate`.
    pub(crate) shutdown_behavior: String,
    /// `MetadataOptions`.
    pub(crate) metadata_options: Value,
    /// The launch template's id.
    pub(crate) template: String,
    /// The token of the call that launched it.
    pub(crate) token: Option<String>,
    /// The fleet's id.
    pub(crate) fleet: String,
    /// The instance's tags.
    pub(crate) tags: BTreeMap<String, String>,
    /// The volume's tags.
    pub(crate) volume_tags: BTreeMap<String, String>,
    /// The network interface's tags.
    pub(crate) interface_tags: BTreeMap<String, String>,
    /// The Spot request's tags.
    pub(crate) spot_request_tags: BTreeMap<String, String>,
    /// The user data as sent, in base64.
    pub(crate) user_data: Option<String>,
    /// Its IPv6 address.
    pub(crate) ipv6: Option<String>,
    /// The private IPv4 address.
    pub(crate) address: String,
    /// The public address, where one was asked for.
    pub(crate) public_address: Option<String>,
    /// Where the metadata service listens, once the machine boots.
    pub(crate) metadata_endpoint: Option<String>,
    /// What was asked of the metadata service, in order.
    pub(crate) metadata_asked: Vec<String>,
    /// This host's id of the machine's process 1.
    pub(crate) process: Option<i32>,
    /// Whether the machine lives.
    pub(crate) machine_alive: bool,
    /// When it was asked for, in Unix seconds.
    pub(crate) created: f64,
    /// When it was terminated.
    pub(crate) ended: Option<f64>,
    /// Who launched it, by ARN.
    pub(crate) caller: String,
}

/// An EBS volume.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Volume {
    /// Its id.
    pub(crate) id: String,
    /// `in-use` or `available`.
    pub(crate) state: String,
    /// The instance that it is attached to.
    pub(crate) instance: Option<String>,
    /// Its tags.
    pub(crate) tags: BTreeMap<String, String>,
}

/// A Spot request.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SpotRequest {
    /// Its id.
    pub(crate) id: String,
    /// `open`, `active`, `closed`, `cancelled`.
    pub(crate) state: String,
    /// The status code.
    pub(crate) status: String,
    /// Its instance.
    pub(crate) instance: Option<String>,
    /// Its tags.
    pub(crate) tags: BTreeMap<String, String>,
}

/// A launch template.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Template {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its own tags.
    pub(crate) tags: BTreeMap<String, String>,
    /// Its latest version's data.
    pub(crate) data: Value,
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
    /// Every EC2 instance ever, oldest first.
    pub(crate) instances: Vec<Instance>,
    /// The volumes that there are.
    pub(crate) volumes: Vec<Volume>,
    /// Every Spot request ever.
    pub(crate) spot_requests: Vec<SpotRequest>,
    /// The launch templates that there are.
    pub(crate) templates: Vec<Template>,
    /// Every session that was asked for from here.
    pub(crate) sessions: Vec<Session>,
    /// How many network interfaces there are.
    pub(crate) interfaces: usize,
    /// How many calls were made.
    pub(crate) calls: usize,
}

impl State {
    /// Returns what lives or costs: tasks, instances, volumes, and Spot requests that may still bring an instance.
    pub(crate) fn alive(&self) -> Vec<String> {
        let tasks = self.tasks.iter().filter(|task| task.is_alive());
        let mut found: Vec<_> = tasks.map(|task| format!("{task:?}")).collect();
        found.extend(self.ec2_alive(|_| true));
        found
    }

    /// Returns what lives or costs of EC2's, where its tags are as wanted.
    pub(crate) fn ec2_alive(
        &self,
        wanted: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Vec<String> {
        let instances = self.instances.iter();
        let instances = instances.filter(|one| one.is_alive() && wanted(&one.tags));
        let mut found: Vec<_> = instances
            .map(|one| format!("{} is {}", one.id, one.state))
            .collect();
        let of_wanted = |instance: &Option<String>, tags: &BTreeMap<String, String>| {
            let known = |id: &String| self.instances.iter().find(|one| one.id == *id);
            wanted(
                instance
                    .as_ref()
                    .and_then(known)
                    .map_or(tags, |one| &one.tags),
            )
        };
        let volumes = self.volumes.iter();
        let volumes = volumes.filter(|one| of_wanted(&one.instance, &one.tags));
        found.extend(volumes.map(|one| format!("{} is {}", one.id, one.state)));
        let requests = self.spot_requests.iter();
        let requests = requests.filter(|one| {
            ["open", "active"].contains(&one.state.as_str()) && of_wanted(&one.instance, &one.tags)
        });
        found.extend(requests.map(|one| format!("{} is {}", one.id, one.state)));
        found
    }
}

impl Instance {
    /// Tells whether the instance is not over yet: one that is merely stopped costs, and stays.
    pub(crate) fn is_alive(&self) -> bool {
        self.state != "terminated" || self.machine_alive
    }

    /// Returns the job that it is for, by its tag.
    pub(crate) fn job(&self) -> Option<&str> {
        self.tags.get(JOB_TAG).map(String::as_str)
    }
}

impl Task {
    /// Tells whether the task is not over yet.
    pub(crate) fn is_alive(&self) -> bool {
        self.status != "STOPPED" || self.machine_alive
    }
}
