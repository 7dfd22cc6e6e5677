//! An EC2 instance: what CreateFleet is asked for, and which instance it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::access::Access;
use super::template::{Given, Setting};

/// Which instance a machine is, and how to ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ec2Place {
    /// Where calls go, and as whom.
    pub access: Access,
    /// The instance's id.
    pub instance: String,
    /// Whether AWS may take it back.
    pub spot: bool,
}

/// Whose capacity an instance takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// What AWS has left over, and may take back.
    Spot,
    /// At the full price.
    OnDemand,
}

/// Which of an instance's addresses is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dial {
    /// Its own in the VPC.
    Private,
    /// Its public one.
    Public,
    /// Its IPv6 address.
    Ipv6,
}

/// The launch template that a request goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// The driver's own, made where it is not there yet.
    Own(Box<Setting>),
    /// The administrator's.
    Given(Given),
}

/// One subnet that an instance may come up in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// Its zone, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The least that an instance must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Least {
    /// Whole vCPU, as EC2 counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl Least {
    /// Returns whether any instance will do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The exact request of one launch, as it stands in the intent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRequest {
    /// Where the calls go, and as whom.
    pub access: Access,
    /// Whose capacity.
    pub market: Market,
    /// What every launch of these settings has in common.
    pub template: Template,
    /// The image in place of the template's: only beside an administrator's template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Types, any of which will do; none: the template's.
    pub instance_types: Vec<String>,
    /// What the type must have, of those that are named.
    #[serde(default, skip_serializing_if = "Least::is_nothing")]
    pub least: Least,
    /// Subnets, any of which will do, at most one in each zone; none: the template's.
    pub subnets: Vec<Subnet>,
    /// The most that an hour of Spot may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<String>,
    /// Which address is dialled.
    pub dial: Dial,
    /// What cloud-init reads at the first boot: the private half of the host key, and mostly the job's public key.
    pub user_data: String,
    /// The public half of that host key, as an OpenSSH line.
    pub host_key: String,
    /// The job's public key, as an OpenSSH line, where it is sent by EC2 Instance Connect and not with the user data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<String>,
    /// Makes the request repeatable, and names what it made: see [`super::tags::client_token`].
    pub token: String,
    /// Tags, already legal, the token among them.
    pub tags: Vec<(String, String)>,
}

impl fmt::Debug for InstanceRequest {
    /// Leaves out what only the instance may know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceRequest")
            .field("access", &self.access)
            .field("market", &self.market)
            .field("template", &self.template)
            .field("instance_types", &self.instance_types)
            .field("subnets", &self.subnets)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl InstanceRequest {
    /// Names the capacity that is asked for, the same for all jobs that ask for the same: where there is no room for a large
    /// type, or for one that runs the image of another architecture, there may be enough for others.
    #[must_use]
    pub fn capacity_name(&self) -> String {
        let subnets: Vec<&str> = self.subnets.iter().map(|s| s.id.as_str()).collect();
        let (given, image) = match &self.template {
            Template::Own(setting) => (None, Some(&setting.image)),
            Template::Given(given) => (Some(given), self.image.as_ref()),
        };
        format!(
            "ec2 {} {:?} {:?} {subnets:?} {:?} {given:?} {image:?} {:?}",
            self.access.account(None),
            self.market,
            self.instance_types,
            self.max_price,
            self.least,
        )
    }

    /// Returns whether AWS may take the instance back.
    #[must_use]
    pub fn is_spot(&self) -> bool {
        self.market == Market::Spot
    }
}
