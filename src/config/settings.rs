//! Checked settings: what the rest of the program works with, whatever the file's spelling.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::file::Keys;
use crate::error::{Error, Kind};

/// Which family of spellings the file uses; some defaults follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Only keys that GitLab's Go Fargate driver knows: behaves as that driver did.
    GoDriver,
    /// At least one key of this driver's own.
    New,
}

/// One place where a job may run; tried in the order in which the file lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Fargate Spot.
    FargateSpot,
    /// Fargate on demand.
    Fargate,
    /// Any other capacity provider of the cluster, by its name.
    Ecs(String),
    /// A Spot EC2 instance.
    Ec2Spot,
    /// An on-demand EC2 instance.
    Ec2,
    /// This host itself, as the Runner's own user; isolates nothing.
    Local,
}

impl fmt::Display for Rung {
    /// Writes the rung as the file names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FargateSpot => f.write_str("fargate-spot"),
            Self::Fargate => f.write_str("fargate"),
            Self::Ecs(provider) => write!(f, "ecs:{provider}"),
            Self::Ec2Spot => f.write_str("ec2-spot"),
            Self::Ec2 => f.write_str("ec2"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// The architecture of a machine's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Intel's and AMD's.
    X86_64,
    /// Graviton's.
    Arm64,
}

impl fmt::Display for Architecture {
    /// Writes the architecture as AWS names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        })
    }
}

/// The checked settings of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The family of spellings found in the file.
    pub style: Style,
    /// Rungs, tried in order; empty with a Go-driver file (the cluster's own default decides).
    pub capacity: Vec<Rung>,
    /// How long one rung may keep a task waiting before the next is tried.
    pub rung_wait: Duration,
    /// How long a job may wait for any rung, all prepare tries together.
    pub capacity_wait: Duration,
    /// How much longer than the job's own time limit a machine may live: for its start, and for the work after the script.
    pub deadline_margin: Duration,
    /// Whether `local` may be used on a bastion.
    pub allow_jobs_on_this_host: bool,
    /// Answered to the Runner by `config`; a Go-driver file leaves it alone.
    pub builds_dir: Option<String>,
    /// Answered to the Runner by `config`; a Go-driver file leaves it alone.
    pub cache_dir: Option<String>,
    /// Where and how diagnostics are written.
    pub log: Log,
    /// Where intents, records and tombstones live.
    pub state_directory: PathBuf,
    /// The bastion's name, by which everything that it launches is marked, in place of a random one that is bound to this host.
    pub manager: Option<String>,
    /// The fleet: a tag by which this driver recognises its machines, the same on all hosts that share them.
    pub fleet: String,
    /// The administrator's own tags, for cost allocation; AWS takes them all.
    pub tags: Vec<(String, String)>,
    /// The login to machines.
    pub ssh: Ssh,
    /// The machine that `local` starts.
    pub local: Local,
    /// ECS settings.
    pub fargate: Option<Fargate>,
    /// EC2 settings.
    pub ec2: Option<Ec2>,
    /// What a job may choose; `None` with a Go-driver file (everything is allowed). With a new file, what is not listed is refused.
    pub limits: Option<Limits>,
    /// Overrides for some jobs, first match wins.
    pub profiles: Vec<Profile>,
}

impl Settings {
    /// Returns why no task can be launched with these settings: the Go driver validated nothing, so its files
    /// are taken as they are, and what they lack shows when a job needs it. A task definition may still come
    /// from a flag or from the job (`plan::overwrites`).
    #[must_use]
    pub fn fargate_problem(&self) -> Option<Error> {
        let go = self.style == Style::GoDriver;
        let lacks = |key: &str, example: &str| {
            let table = if go { "[Fargate]" } else { "[fargate]" };
            let error = Error::new(
                Kind::Config,
                format!("the configuration has no {table} {key}, and a task needs one"),
            );
            error.hint(format!("For example, under {table}: {key} = {example}"))
        };
        match &self.fargate {
            Some(fargate) if !fargate.subnets.is_empty() => None,
            _ if go => Some(lacks("Subnet", "\"subnet-0a1b2c3d\"")),
            _ => Some(lacks("subnets", "[\"subnet-0a1b2c3d\"]")),
        }
    }
}

impl Settings {
    /// Returns all settings that may apply to a job: the file's own, and each profile's.
    pub fn each(&self) -> impl Iterator<Item = &Self> {
        let profiles = self.profiles.iter().map(|profile| &profile.settings);
        std::iter::once(self).chain(profiles)
    }
}

impl Settings {
    /// Returns the user and the port for the login to tasks.
    #[must_use]
    pub fn login_of_tasks(&self) -> (&str, u16) {
        let table = self.fargate.as_ref();
        self.login(
            table.and_then(|t| t.username.as_deref()),
            table.and_then(|t| t.port),
        )
    }

    /// Returns the user and the port for the login to instances.
    #[must_use]
    pub fn login_of_instances(&self) -> (&str, u16) {
        let table = self.ec2.as_ref();
        self.login(
            table.and_then(|t| t.username.as_deref()),
            table.and_then(|t| t.port),
        )
    }

    fn login<'a>(&'a self, username: Option<&'a str>, port: Option<u16>) -> (&'a str, u16) {
        (
            username.unwrap_or(&self.ssh.username),
            port.unwrap_or(self.ssh.port),
        )
    }
}

impl Rung {
    /// Returns whether a job on this rung runs on an ECS task.
    #[must_use]
    pub fn is_task(&self) -> bool {
        match self {
            Self::FargateSpot | Self::Fargate | Self::Ecs(_) => true,
            Self::Ec2Spot | Self::Ec2 | Self::Local => false,
        }
    }

    /// Returns whether a job on this rung has an EC2 instance of its own.
    #[must_use]
    pub fn is_instance(&self) -> bool {
        matches!(self, Self::Ec2Spot | Self::Ec2)
    }
}

/// Diagnostics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The most detailed level written.
    pub level: LogLevel,
    /// The format.
    pub format: LogFormat,
    /// A file to append to (mode 0600) in place of standard error.
    pub file: Option<PathBuf>,
}

/// Levels, by the Go driver's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `panic`, `fatal` and `error`.
    Error,
    /// `warn`, `warning`.
    Warn,
    /// `info`.
    Info,
    /// `debug`.
    Debug,
    /// `trace`.
    Trace,
}

impl LogLevel {
    /// Returns the name that the file would use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Formats, by the Go driver's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `text`.
    Text,
    /// `text-simple`: no time stamps.
    TextSimple,
    /// `json`.
    Json,
}

impl LogFormat {
    /// Returns the name that the file would use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::TextSimple => "text-simple",
            Self::Json => "json",
        }
    }
}

/// The login to machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// The login name on machines whose table names none.
    pub username: String,
    /// The port of machines whose table names none.
    pub port: u16,
    /// From a running machine to the first login.
    pub connect_timeout: Duration,
    /// How long a running script may be out of reach.
    pub reconnect_timeout: Duration,
}

/// The machine that `local` starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// A program to start in place of the built-in SSH server: a job image's entrypoint, say. It gets
    /// the job's key in `SSH_PUBLIC_KEY` and must listen on 127.0.0.1 at `[ssh] port`.
    pub command: Vec<String>,
    /// Whether a job runs in a container of its image, by this host's docker.
    pub container: bool,
    /// The image of jobs that name none.
    pub container_image: Option<String>,
    /// The agent's static binary; `None`: where the packages have it.
    pub agent: Option<PathBuf>,
}

/// The container that gets the job unless the file says otherwise; the Go driver's only choice.
pub const CONTAINER: &str = "ci-coordinator";

/// ECS settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fargate {
    /// AWS region; where there is none, AWS's own settings on this host name it.
    pub region: Option<String>,
    /// Cluster name or ARN.
    pub cluster: Option<String>,
    /// Family, family:revision or ARN.
    pub task_definition: Option<String>,
    /// The one of jobs that ask for arm64.
    pub task_definition_arm64: Option<String>,
    /// Subnets.
    pub subnets: Vec<String>,
    /// Security groups.
    pub security_groups: Vec<String>,
    /// Asks for a public address.
    pub enable_public_ip: bool,
    /// Connects to the public address; absent means that `enable_public_ip` decides.
    pub use_public_ip: Option<bool>,
    /// Fargate platform version.
    pub platform_version: Option<String>,
    /// ECS Exec.
    pub enable_execute_command: bool,
    /// The container of the task that gets the job.
    pub container: String,
    /// A role to take on for all that is asked of AWS about tasks.
    pub role_arn: Option<String>,
    /// Whether a task gets the tags of its task definition too.
    pub propagate_tags: bool,
    /// The login name on tasks; `None`: as [`Ssh`] says.
    pub username: Option<String>,
    /// The port of tasks; `None`: as [`Ssh`] says.
    pub port: Option<u16>,
}

impl Default for Fargate {
    fn default() -> Self {
        super::file::Fargate::default().into()
    }
}

/// EC2 settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2 {
    /// AWS region; where there is none, AWS's own settings on this host name it.
    pub region: Option<String>,
    /// AMI id, or the name of an SSM parameter with one (`/aws/service/…`).
    pub image_id: Option<String>,
    /// Instance types, in any order.
    pub instance_types: Vec<String>,
    /// The image of jobs that ask for arm64.
    pub image_id_arm64: Option<String>,
    /// The instance types of jobs that ask for arm64.
    pub instance_types_arm64: Vec<String>,
    /// Subnets, in any order.
    pub subnets: Vec<String>,
    /// Security groups.
    pub security_groups: Vec<String>,
    /// A role to take on for all that is asked of AWS about instances.
    pub role_arn: Option<String>,
    /// The administrator's own launch template (`NAME` or `lt-ID`, then `:VERSION` where it is not the default one); without
    /// one the driver makes its own.
    pub launch_template: Option<String>,
    /// The instance profile, by name or ARN.
    pub instance_profile: Option<String>,
    /// A key pair for people.
    pub key_name: Option<String>,
    /// Of the root volume, bytes; `None`: the image's own.
    pub volume_size: Option<u64>,
    /// Of the root volume; `None`: gp3.
    pub volume_type: Option<String>,
    /// The most that an hour of Spot may cost, in dollars, as a decimal number.
    pub max_price: Option<String>,
    /// Asks for a public address.
    pub public_ip: bool,
    /// Connects to the public address; absent means that `public_ip` decides.
    pub use_public_ip: Option<bool>,
    /// Connects to the IPv6 address.
    pub use_ipv6: bool,
    /// Sends the job's key by EC2 Instance Connect instead of with the user data.
    pub instance_connect: bool,
    /// Runs jobs in a container of their `image:`.
    pub container: bool,
    /// The image of jobs that name none.
    pub container_image: Option<String>,
    /// Whether the container is privileged.
    pub privileged: bool,
    /// Whether the container gets the instance's docker socket.
    pub docker_socket: bool,
    /// Whose role logs in to ECR for images that nobody else has credentials for.
    pub ecr_login: EcrLogin,
    /// How long a job's services, all together, may take to answer at a port before the job goes on without them.
    pub services_timeout: Duration,
    /// The login name on instances; `None`: as [`Ssh`] says.
    pub username: Option<String>,
    /// The port of instances; `None`: as [`Ssh`] says.
    pub port: Option<u16>,
}

impl Default for Ec2 {
    fn default() -> Self {
        super::file::Ec2::default().into()
    }
}

/// Whose role logs in to ECR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcrLogin {
    /// The instance's, with the credential helper in its image.
    #[default]
    Instance,
    /// The role that launches instances; the instance gets a token for the time of a pull.
    Driver,
}

impl EcrLogin {
    /// Returns the word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Driver => "driver",
        }
    }
}

/// What a job may choose by CI/CD variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Patterns of task definitions.
    pub task_definitions: Vec<String>,
    /// Patterns of role ARNs.
    pub roles: Vec<String>,
    /// Patterns of images.
    pub images: Vec<String>,
    /// vCPU, in thousandths.
    pub max_cpu_millis: Option<u32>,
    /// Bytes.
    pub max_memory: Option<u64>,
    /// Bytes.
    pub max_disk: Option<u64>,
    /// Architectures.
    pub architectures: Vec<Architecture>,
    /// Patterns of AMI ids and names of SSM parameters.
    pub machine_images: Vec<String>,
    /// Patterns of instance types.
    pub instance_types: Vec<String>,
    /// Rungs; never `local`.
    pub capacity: Vec<Rung>,
}

/// Overrides for the jobs that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Which jobs it applies to.
    pub matches: Match,
    /// The keys that override the file's own, as written (without `name` and `match`).
    pub overrides: Keys,
    /// The settings of its jobs: the file's own, overridden by the profile's. They have no profiles themselves.
    pub settings: Settings,
}

/// Which jobs a profile applies to: all that is named must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// A pattern of the job's name.
    pub job_name: Option<String>,
    /// A pattern of the project's path.
    pub project: Option<String>,
    /// A pattern of the branch or tag.
    pub reference: Option<String>,
    /// Whether the job's ref is protected.
    pub protected: Option<bool>,
    /// A pattern of the job's image.
    pub image: Option<String>,
    /// Patterns of variables, by their names.
    pub variables: Vec<(String, String)>,
}
