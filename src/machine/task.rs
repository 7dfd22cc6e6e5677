//! A task of an ECS cluster: what RunTask is asked for, and which task it is.

use serde::{Deserialize, Serialize};

use super::access::Access;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Which task a machine is, and how to ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsPlace {
    /// Where calls go, and as whom.
    pub access: Access,
    /// Cluster name or ARN.
    pub cluster: Option<String>,
    /// The task's ARN.
    pub task: String,
    /// The container that the job runs in.
    pub container: String,
}

/// What RunTask is told in place of what the task definition says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSize {
    /// In CPU units, of which a vCPU has 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// In MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Of the task's own disk, in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
}

impl TaskSize {
    /// Returns whether nothing is asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the vCPU in thousandths.
    #[must_use]
    pub fn cpu_millis(&self) -> Option<u64> {
        self.cpu.map(|units| units.saturating_mul(1000) / 1024)
    }

    /// Returns the memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory.map(|mib| mib.saturating_mul(MIB))
    }

    /// Returns the disk in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> Option<u64> {
        self.disk.map(|gib| gib.saturating_mul(GIB))
    }
}

/// Whose capacity a task takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    /// The cluster's default strategy, as with a Go-driver file.
    ClusterDefault,
    /// Fargate on demand by its launch type: works on every cluster, whereas a strategy needs the
    /// provider `FARGATE` to be associated with it.
    LaunchTypeFargate,
    /// One capacity provider of the cluster, by name: `FARGATE_SPOT`, or an administrator's own.
    Provider(String),
}

impl Capacity {
    /// Returns Fargate Spot: reached only through its provider.
    #[must_use]
    pub fn fargate_spot() -> Self {
        Self::Provider("FARGATE_SPOT".to_owned())
    }

    /// Whether what only Fargate takes (a public address, a platform version) may be sent along. With the
    /// cluster's default nobody knows, and what the file says is sent, as the Go driver does.
    #[must_use]
    pub fn takes_fargate_settings(&self) -> bool {
        match self {
            Self::ClusterDefault | Self::LaunchTypeFargate => true,
            Self::Provider(name) => name == "FARGATE" || name == "FARGATE_SPOT",
        }
    }
}

/// The exact request of one launch, as it stands in the intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// Where the calls go, and as whom.
    pub access: Access,
    /// Cluster name or ARN; without it AWS takes the one named `default`.
    pub cluster: Option<String>,
    /// Family, family:revision or ARN.
    pub task_definition: String,
    /// Whose capacity.
    pub capacity: Capacity,
    /// Subnets, 1 to 16.
    pub subnets: Vec<String>,
    /// Security groups, at most 5; without any AWS takes the VPC's default one.
    pub security_groups: Vec<String>,
    /// Asks for a public address.
    pub public_ip: bool,
    /// Dials the public address.
    pub dial_public: bool,
    /// Fargate platform version; without it AWS takes the latest.
    pub platform_version: Option<String>,
    /// Turns ECS Exec on.
    pub execute_command: bool,
    /// The container that the job runs in, by its name in the task definition.
    pub container: String,
    /// What that container gets in its environment.
    pub environment: Vec<(String, String)>,
    /// Who started it: at most 36 characters, see [`super::tags::started_by`].
    pub started_by: String,
    /// Makes the request repeatable: at most 64 characters, see [`super::tags::client_token`].
    pub token: String,
    /// Tags, already legal and at most 50, see [`super::tags::all`].
    pub tags: Vec<(String, String)>,
    /// Copies the task definition's tags to the task.
    pub propagate_tags: bool,
    /// What the job asks for in place of the task definition's own size.
    #[serde(default, skip_serializing_if = "TaskSize::is_default")]
    pub size: TaskSize,
    /// When it was first asked for: Unix time, seconds. Not sent.
    #[serde(default)]
    pub asked: u64,
}

impl TaskRequest {
    /// Returns what stands in the place of the request that started somebody else's task. Its task is known, so it is never
    /// sent: all that counts of it is where the task is, and as whom it is ended.
    #[must_use]
    pub fn of_another(place: &EcsPlace) -> Self {
        Self {
            access: place.access.clone(),
            cluster: place.cluster.clone(),
            task_definition: String::new(),
            capacity: Capacity::ClusterDefault,
            subnets: Vec::new(),
            security_groups: Vec::new(),
            public_ip: false,
            dial_public: false,
            platform_version: None,
            execute_command: false,
            container: place.container.clone(),
            environment: Vec::new(),
            started_by: String::new(),
            token: String::new(),
            tags: Vec::new(),
            propagate_tags: false,
            size: TaskSize::default(),
            asked: 0,
        }
    }

    /// Names the capacity that is asked for, the same for all jobs that ask for the same: where there is no room for 16 vCPU,
    /// or on arm64 (which is the task definition's word), there may be enough for others.
    #[must_use]
    pub fn capacity_name(&self) -> String {
        format!(
            "ecs {} {} {:?} {:?} {} {:?}",
            self.access.account(None),
            self.cluster.as_deref().unwrap_or_default(),
            self.capacity,
            self.subnets,
            self.task_definition,
            self.size,
        )
    }

    /// Returns the same request without anything that needs `ecs:TagResource`, for a role that may not tag.
    ///
    /// The token must be another one: the same token with other parameters is a conflict.
    #[must_use]
    pub fn without_tags(&self, token: String) -> Self {
        Self {
            tags: Vec::new(),
            propagate_tags: false,
            token,
            ..self.clone()
        }
    }
}
