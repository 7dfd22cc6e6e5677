//! What DescribeTasks says of a task, read into a [`Task`] of our own. Pure.
//!
//! AWS leaves members out while a task comes up and adds statuses as it likes, so everything here may
//! be missing and nothing of it is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types;
use serde::{Deserialize, Serialize};

/// A task, as far as a job has to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its ARN.
    pub arn: String,
    /// How far it is.
    pub phase: Phase,
    /// The task definition that it really runs, with its revision.
    pub definition: Option<String>,
    /// The capacity provider that took it; none with a launch type.
    pub capacity_provider: Option<String>,
    /// The availability zone.
    pub zone: Option<String>,
    /// The subnet.
    pub subnet: Option<String>,
    /// The network interface, which EC2 knows a public address of.
    pub eni: Option<String>,
    /// Whether that interface is attached: from then on dialling makes sense.
    pub attached: bool,
    /// The private IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// When RunTask was accepted.
    pub created: Option<SystemTime>,
    /// When the image pull began.
    pub pull_started: Option<SystemTime>,
    /// When the image pull ended.
    pub pull_stopped: Option<SystemTime>,
    /// When the task turned RUNNING; never, for one that failed on the way up.
    pub started: Option<SystemTime>,
    /// When it was told to stop.
    pub stopping: Option<SystemTime>,
    /// When it had stopped.
    pub stopped: Option<SystemTime>,
    /// Its containers, in AWS's order.
    pub containers: Vec<Container>,
    /// Why it goes or went down: there as soon as AWS wants it stopped, which is before it is.
    pub stop: Option<Stop>,
    /// Tags; only where DescribeTasks was asked for them.
    pub tags: Vec<(String, String)>,
    /// What RunTask was told.
    pub started_by: Option<String>,
}

/// How far a task is, in the order in which AWS goes through it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Phase {
    /// A status that this version does not know, or none at all: says nothing either way.
    #[default]
    Other,
    /// Waits for capacity, then for its network interface.
    Provisioning,
    /// Placed; images are pulled.
    Pending,
    /// Registered with a load balancer, say.
    Activating,
    /// Its containers run.
    Running,
    /// Told to stop.
    Deactivating,
    /// Its containers are being stopped.
    Stopping,
    /// Its network interface is being given back.
    Deprovisioning,
    /// Gone.
    Stopped,
    /// Gone, and nearly forgotten.
    Deleted,
}

/// Why a task stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// `stopCode`, as AWS spells it.
    pub code: Option<String>,
    /// `stoppedReason`.
    pub reason: Option<String>,
    /// All containers, in AWS's order.
    pub containers: Vec<Container>,
}

/// One container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name in the task definition.
    pub name: String,
    /// The exit code of its process 1; 128 and more is a signal.
    pub exit_code: Option<i32>,
    /// Why it stopped or could not start.
    pub reason: Option<String>,
}

impl Phase {
    /// Reads `lastStatus`.
    #[must_use]
    pub fn read(status: &str) -> Self {
        match status {
            "PROVISIONING" => Self::Provisioning,
            "PENDING" => Self::Pending,
            "ACTIVATING" => Self::Activating,
            "RUNNING" => Self::Running,
            "DEACTIVATING" => Self::Deactivating,
            "STOPPING" => Self::Stopping,
            "DEPROVISIONING" => Self::Deprovisioning,
            "STOPPED" => Self::Stopped,
            "DELETED" => Self::Deleted,
            _ => Self::Other,
        }
    }

    /// Whether it is on its way down, or down.
    #[must_use]
    pub fn is_ending(self) -> bool {
        self > Self::Running
    }

    /// Whether nothing of it runs any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        // Containers are gone before the interface is given back.
        self >= Self::Deprovisioning
    }
}

impl Task {
    /// Reads AWS's answer; `container` is the one whose address counts.
    #[must_use]
    pub fn read(task: &types::Task, container: &str) -> Self {
        let phase = task.last_status().map_or(Phase::Other, Phase::read);
        let ours = task
            .containers()
            .iter()
            .find(|c| c.name() == Some(container));
        let interfaces = || {
            ours.into_iter()
                .flat_map(types::Container::network_interfaces)
        };
        let attachment = attachment(task, ours);
        let detail = |name: &str| {
            attachment?.details().iter().find_map(|d| {
                let known = d.name().is_some_and(|n| n.eq_ignore_ascii_case(name));
                d.value().filter(|v| known && !v.is_empty())
            })
        };
        let containers: Vec<Container> = task
            .containers()
            .iter()
            .map(|c| Container {
                name: c.name().unwrap_or_default().to_owned(),
                exit_code: c.exit_code(),
                reason: text(c.reason()),
            })
            .collect();
        let code = text(task.stop_code().map(types::TaskStopCode::as_str));
        let reason = text(task.stopped_reason());
        let stops = phase.is_ending()
            || code.is_some()
            || reason.is_some()
            || task.desired_status() == Some("STOPPED");
        Self {
            arn: task.task_arn().unwrap_or_default().to_owned(),
            phase,
            definition: text(task.task_definition_arn()),
            capacity_provider: text(task.capacity_provider_name()),
            zone: text(task.availability_zone()),
            subnet: text(detail("subnetId")),
            eni: text(detail("networkInterfaceId")),
            attached: attachment.and_then(types::Attachment::status) == Some("ATTACHED"),
            ipv4: interfaces()
                .filter_map(types::NetworkInterface::private_ipv4_address)
                .chain(detail("privateIPv4Address"))
                .find_map(|a| a.parse().ok()),
            ipv6: interfaces()
                .filter_map(types::NetworkInterface::ipv6_address)
                .chain(detail("ipv6Address"))
                .chain(detail("privateIPv6Address"))
                .find_map(|a| a.parse().ok()),
            created: time(task.created_at()),
            pull_started: time(task.pull_started_at()),
            pull_stopped: time(task.pull_stopped_at()),
            started: time(task.started_at()),
            stopping: time(task.stopping_at()),
            stopped: time(task.stopped_at()),
            stop: stops.then(|| Stop {
                code,
                reason,
                containers: containers.clone(),
            }),
            containers,
            tags: task
                .tags()
                .iter()
                .filter_map(|t| Some((t.key()?.to_owned(), t.value().unwrap_or("").to_owned())))
                .collect(),
            started_by: text(task.started_by()),
        }
    }

    /// Returns the address inside the VPC: IPv4, or IPv6 where the subnet has nothing else.
    #[must_use]
    pub fn private_address(&self) -> Option<IpAddr> {
        self.ipv4.map(IpAddr::V4).or(self.ipv6.map(IpAddr::V6))
    }

    /// Whether AWS listed containers and none of them has this name: the task definition is another one.
    #[must_use]
    pub fn lacks(&self, container: &str) -> bool {
        !self.containers.is_empty() && self.containers.iter().all(|c| c.name != container)
    }

    /// Whether it ran for a minute at least: what ended it then is not that it could not start.
    #[must_use]
    pub fn ran_for_a_while(&self) -> bool {
        let (Some(started), Some(ended)) = (self.started, self.stopping.or(self.stopped)) else {
            return false;
        };
        ended
            .duration_since(started)
            .is_ok_and(|ran| ran >= Duration::from_secs(60))
    }

    /// Returns the last part of the ARN: what the console and the CLI take.
    #[must_use]
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }
}

/// Returns the attachment that is the container's network interface, or the task's first one.
fn attachment<'a>(
    task: &'a types::Task,
    ours: Option<&types::Container>,
) -> Option<&'a types::Attachment> {
    // Volumes and Service Connect are attachments too.
    let interfaces = || {
        task.attachments().iter().filter(|a| {
            a.r#type().is_some_and(|t| {
                t.eq_ignore_ascii_case("ElasticNetworkInterface") || t.eq_ignore_ascii_case("eni")
            })
        })
    };
    let named = ours
        .into_iter()
        .flat_map(types::Container::network_interfaces)
        .find_map(|i| {
            let id = i.attachment_id()?;
            interfaces().find(|a| a.id() == Some(id))
        });
    named.or_else(|| interfaces().next())
}

fn text(text: Option<&str>) -> Option<String> {
    text.filter(|t| !t.trim().is_empty()).map(str::to_owned)
}

fn time(time: Option<&DateTime>) -> Option<SystemTime> {
    SystemTime::try_from(*time?).ok()
}

#[cfg(test)]
mod tests;
