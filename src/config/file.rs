//! The file as written: one struct per table, each value read and checked by itself.
//!
//! The names here are those of [`super::keys`] in lower case; `normalise` has rewritten every
//! spelling to this form, and removed unknown keys, before serde sees it. A profile is
//! read by the same struct as the file, so that what it overrides is checked the same way.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::settings::{Architecture, EcrLogin, LogFormat, LogLevel, Rung};
use super::values;

mod overlay;

/// All keys of the file, or of one profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Keys {
    /// A profile's name.
    #[serde(deserialize_with = "values::profile_name")]
    pub name: Option<String>,
    /// Which jobs a profile holds for.
    #[serde(rename = "match")]
    pub matches: Option<Match>,
    /// Rungs, in order.
    #[serde(deserialize_with = "values::rungs")]
    pub capacity: Option<Vec<Rung>>,
    /// How long one rung may keep a task waiting.
    #[serde(deserialize_with = "values::wait")]
    pub rung_wait: Option<Duration>,
    /// How long a job may wait for any rung.
    #[serde(deserialize_with = "values::wait")]
    pub capacity_wait: Option<Duration>,
    /// How much longer than the job's own time limit a machine may live.
    #[serde(deserialize_with = "values::wait")]
    pub deadline_margin: Option<Duration>,
    /// Whether `local` may be used on a bastion.
    #[serde(deserialize_with = "values::flag")]
    pub allow_jobs_on_this_host: Option<bool>,
    /// Answered to the Runner by `config`.
    #[serde(deserialize_with = "values::directory")]
    pub builds_dir: Option<String>,
    /// Answered to the Runner by `config`.
    #[serde(deserialize_with = "values::directory")]
    pub cache_dir: Option<String>,
    /// The most detailed level written.
    #[serde(deserialize_with = "values::log_level")]
    pub log_level: Option<LogLevel>,
    /// The format of diagnostics.
    #[serde(deserialize_with = "values::log_format")]
    pub log_format: Option<LogFormat>,
    /// A file for diagnostics.
    #[serde(deserialize_with = "values::path")]
    pub log_file: Option<PathBuf>,
    /// `[state]`.
    pub state: State,
    /// The Go driver's `[TaskMetadata]`.
    pub taskmetadata: Directory,
    /// The fleet: by its tag this driver recognises its machines.
    #[serde(deserialize_with = "values::fleet")]
    pub fleet: Option<String>,
    /// `[tags]`.
    #[serde(deserialize_with = "values::tags")]
    pub tags: Option<Vec<(String, String)>>,
    /// `[ssh]`.
    pub ssh: Ssh,
    /// `[local]`.
    pub local: Local,
    /// `[fargate]`.
    pub fargate: Option<Fargate>,
    /// `[ec2]`.
    pub ec2: Option<Ec2>,
    /// `[limits]`.
    pub limits: Option<Limits>,
    /// `[[profile]]`.
    pub profile: Vec<Keys>,
}

/// Which jobs a profile holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Match {
    /// A pattern of the job's name.
    #[serde(deserialize_with = "values::text")]
    pub job_name: Option<String>,
    /// A pattern of the project's path.
    #[serde(deserialize_with = "values::project_fit")]
    pub project: Option<String>,
    /// A pattern of the branch or tag.
    #[serde(rename = "ref", deserialize_with = "values::ref_fit")]
    pub reference: Option<String>,
    /// Whether the job's ref is protected.
    #[serde(deserialize_with = "values::flag")]
    pub protected: Option<bool>,
    /// A pattern of the job's image.
    #[serde(deserialize_with = "values::image_fit")]
    pub image: Option<String>,
    /// Patterns of variables.
    #[serde(deserialize_with = "values::variables")]
    pub variables: Option<Vec<(String, String)>>,
}

/// `[state]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct State {
    /// Where state lives.
    #[serde(deserialize_with = "values::path")]
    pub directory: Option<PathBuf>,
    /// The bastion's name, by which everything that it launches is marked.
    #[serde(deserialize_with = "values::manager")]
    pub manager: Option<String>,
}

/// `[TaskMetadata]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Directory {
    /// Where state lives.
    #[serde(deserialize_with = "values::path")]
    pub directory: Option<PathBuf>,
}

/// `[ssh]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Ssh {
    /// The login name.
    #[serde(deserialize_with = "values::username")]
    pub username: Option<String>,
    /// The port.
    #[serde(deserialize_with = "values::port")]
    pub port: Option<u16>,
    /// From a running machine to the first login.
    #[serde(deserialize_with = "values::wait")]
    pub connect_timeout: Option<Duration>,
    /// How long a running script may be out of reach.
    #[serde(deserialize_with = "values::wait")]
    pub reconnect_timeout: Option<Duration>,
}

/// `[local]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Local {
    /// A program to start in place of the built-in SSH server.
    #[serde(deserialize_with = "values::command")]
    pub command: Option<Vec<String>>,
    /// Whether a job runs in a container of its image.
    pub container: Option<bool>,
    /// The image of jobs that name none.
    #[serde(deserialize_with = "values::container_image")]
    pub container_image: Option<String>,
    /// The agent's static binary.
    #[serde(deserialize_with = "values::file")]
    pub agent: Option<String>,
}

/// `[fargate]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Fargate {
    /// AWS region.
    #[serde(deserialize_with = "values::text")]
    pub region: Option<String>,
    /// Cluster name or ARN.
    #[serde(deserialize_with = "values::text")]
    pub cluster: Option<String>,
    /// Family, family:revision or ARN.
    #[serde(deserialize_with = "values::text")]
    pub task_definition: Option<String>,
    /// The one of jobs that ask for arm64.
    #[serde(deserialize_with = "values::text")]
    pub task_definition_arm64: Option<String>,
    /// The Go driver's one subnet.
    #[serde(deserialize_with = "values::text")]
    pub subnet: Option<String>,
    /// Subnets.
    #[serde(deserialize_with = "values::task_subnets")]
    pub subnets: Option<Vec<String>>,
    /// The Go driver's one security group.
    #[serde(deserialize_with = "values::text")]
    pub securitygroup: Option<String>,
    /// Security groups.
    #[serde(deserialize_with = "values::task_security_groups")]
    pub security_groups: Option<Vec<String>>,
    /// Asks for a public address.
    #[serde(deserialize_with = "values::flag")]
    pub enable_public_ip: Option<bool>,
    /// Connects to the public address.
    #[serde(deserialize_with = "values::flag")]
    pub use_public_ip: Option<bool>,
    /// Fargate platform version.
    #[serde(deserialize_with = "values::text")]
    pub platform_version: Option<String>,
    /// ECS Exec.
    #[serde(deserialize_with = "values::flag")]
    pub enable_execute_command: Option<bool>,
    /// The job's container.
    #[serde(deserialize_with = "values::container")]
    pub container: Option<String>,
    /// A role to take on.
    #[serde(deserialize_with = "values::role_arn")]
    pub role_arn: Option<String>,
    /// Whether the task gets the task definition's tags.
    #[serde(deserialize_with = "values::flag")]
    pub propagate_tags: Option<bool>,
    /// The login name on tasks.
    #[serde(deserialize_with = "values::username")]
    pub username: Option<String>,
    /// The port of tasks.
    #[serde(deserialize_with = "values::port")]
    pub port: Option<u16>,
}

/// `[ec2]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Ec2 {
    /// AWS region.
    #[serde(deserialize_with = "values::region")]
    pub region: Option<String>,
    /// AMI id or the name of an SSM parameter.
    #[serde(deserialize_with = "values::machine_image")]
    pub image_id: Option<String>,
    /// Instance types.
    #[serde(deserialize_with = "values::instance_types")]
    pub instance_types: Option<Vec<String>>,
    /// The image of jobs that ask for arm64.
    #[serde(deserialize_with = "values::machine_image")]
    pub image_id_arm64: Option<String>,
    /// The instance types of jobs that ask for arm64.
    #[serde(deserialize_with = "values::instance_types")]
    pub instance_types_arm64: Option<Vec<String>>,
    /// Subnets.
    #[serde(deserialize_with = "values::subnets")]
    pub subnets: Option<Vec<String>>,
    /// Security groups.
    #[serde(deserialize_with = "values::security_groups")]
    pub security_groups: Option<Vec<String>>,
    /// A role to take on.
    #[serde(deserialize_with = "values::role_arn")]
    pub role_arn: Option<String>,
    /// The administrator's own launch template.
    #[serde(deserialize_with = "values::launch_template")]
    pub launch_template: Option<String>,
    /// The instance profile, by name or ARN.
    #[serde(deserialize_with = "values::instance_profile")]
    pub instance_profile: Option<String>,
    /// A key pair for people.
    #[serde(deserialize_with = "values::key_name")]
    pub key_name: Option<String>,
    /// Of the root volume, bytes.
    #[serde(deserialize_with = "values::volume_size")]
    pub volume_size: Option<u64>,
    /// Of the root volume.
    #[serde(deserialize_with = "values::volume_type")]
    pub volume_type: Option<String>,
    /// The most that an hour of Spot may cost, in dollars.
    #[serde(deserialize_with = "values::price")]
    pub max_price: Option<String>,
    /// Asks for a public address.
    #[serde(deserialize_with = "values::flag")]
    pub public_ip: Option<bool>,
    /// Connects to the public address.
    #[serde(deserialize_with = "values::flag")]
    pub use_public_ip: Option<bool>,
    /// Connects to the IPv6 address.
    #[serde(deserialize_with = "values::flag")]
    pub use_ipv6: Option<bool>,
    /// Sends the job's key by EC2 Instance Connect.
    #[serde(deserialize_with = "values::flag")]
    pub instance_connect: Option<bool>,
    /// Runs jobs in a container of their `image:`.
    #[serde(deserialize_with = "values::flag")]
    pub container: Option<bool>,
    /// The image of jobs that name none.
    #[serde(deserialize_with = "values::container_image")]
    pub container_image: Option<String>,
    /// Whether the container is privileged.
    #[serde(deserialize_with = "values::flag")]
    pub privileged: Option<bool>,
    /// Whether the container gets the instance's docker socket.
    #[serde(deserialize_with = "values::flag")]
    pub docker_socket: Option<bool>,
    /// Whose role logs in to ECR.
    #[serde(deserialize_with = "values::ecr_login")]
    pub ecr_login: Option<EcrLogin>,
    /// How long services may take to answer.
    #[serde(deserialize_with = "values::wait")]
    pub services_timeout: Option<Duration>,
    /// The login name on instances.
    #[serde(deserialize_with = "values::username")]
    pub username: Option<String>,
    /// The port of instances.
    #[serde(deserialize_with = "values::port")]
    pub port: Option<u16>,
}

/// `[limits]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Limits {
    /// Patterns of task definitions.
    #[serde(deserialize_with = "values::patterns")]
    pub task_definitions: Option<Vec<String>>,
    /// Patterns of role ARNs.
    #[serde(deserialize_with = "values::arn_patterns")]
    pub roles: Option<Vec<String>>,
    /// Patterns of images.
    #[serde(deserialize_with = "values::patterns")]
    pub images: Option<Vec<String>>,
    /// vCPU, in thousandths.
    #[serde(deserialize_with = "values::cpu")]
    pub max_cpu: Option<u32>,
    /// Bytes.
    #[serde(deserialize_with = "values::size")]
    pub max_memory: Option<u64>,
    /// Bytes.
    #[serde(deserialize_with = "values::size")]
    pub max_disk: Option<u64>,
    /// Architectures.
    #[serde(deserialize_with = "values::architectures")]
    pub architectures: Option<Vec<Architecture>>,
    /// Patterns of AMI ids and names of SSM parameters.
    #[serde(deserialize_with = "values::patterns")]
    pub machine_images: Option<Vec<String>>,
    /// Patterns of instance types.
    #[serde(deserialize_with = "values::patterns")]
    pub instance_types: Option<Vec<String>>,
    /// Rungs that a job may choose.
    #[serde(deserialize_with = "values::choice_of_rungs")]
    pub capacity: Option<Vec<Rung>>,
}
