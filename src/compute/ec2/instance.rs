//! An instance as EC2 describes it, read once into what the rest works with. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_ec2::types;
use serde::{Deserialize, Serialize};

use crate::machine::instance::Dial;
use crate::machine::tags;

/// How far an instance has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// On its way up, or in a state that this version does not know.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// On its way down, or stopped: it will not come back by itself.
    Ending,
    /// Gone.
    Over,
}

/// What is known of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// How far it has come.
    pub phase: Phase,
    /// Its type.
    pub kind: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Whether AWS may take it back.
    pub spot: bool,
    /// Its address in the VPC.
    pub private: Option<String>,
    /// Its public address.
    pub public: Option<String>,
    /// Its IPv6 address.
    pub ipv6: Option<String>,
    /// When it was launched.
    pub launched: Option<SystemTime>,
    /// Why it is in this state: AWS's code and message.
    pub reason: Option<(String, String)>,
    /// Who or what changed its state, in AWS's words.
    pub transition: Option<String>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl Instance {
    /// Reads what EC2 says.
    #[must_use]
    pub fn read(said: &types::Instance) -> Self {
        use types::InstanceStateName as State;
        let text = |t: Option<&str>| t.filter(|t| !t.is_empty()).map(str::to_owned);
        let interfaces = said.network_interfaces().iter();
        let mut addresses = interfaces.flat_map(types::InstanceNetworkInterface::ipv6_addresses);
        Self {
            id: said.instance_id().unwrap_or_default().to_owned(),
            phase: match said.state().and_then(types::InstanceState::name) {
                Some(State::Running) => Phase::Running,
                Some(State::ShuttingDown | State::Stopping | State::Stopped) => Phase::Ending,
                Some(State::Terminated) => Phase::Over,
                _ => Phase::Pending,
            },
            kind: text(said.instance_type().map(types::InstanceType::as_str)),
            zone: text(
                said.placement()
                    .and_then(types::Placement::availability_zone),
            ),
            spot: said.instance_lifecycle() == Some(&types::InstanceLifecycleType::Spot),
            private: text(said.private_ip_address()),
            public: text(said.public_ip_address()),
            ipv6: text(said.ipv6_address())
                .or_else(|| text(addresses.next().and_then(|a| a.ipv6_address()))),
            launched: said
                .launch_time()
                .and_then(|t| u64::try_from(t.secs()).ok())
                .and_then(|secs| UNIX_EPOCH.checked_add(Duration::from_secs(secs))),
            reason: said.state_reason().and_then(|r| {
                let code = r.code().unwrap_or_default();
                let message = r.message().unwrap_or_default();
                (!code.is_empty() || !message.is_empty())
                    .then(|| (code.to_owned(), message.to_owned()))
            }),
            transition: text(said.state_transition_reason()),
            tags: read_tags(said.tags()),
        }
    }

    /// Returns the address to dial, as soon as there is one.
    #[must_use]
    pub fn address(&self, dial: Dial) -> Option<&str> {
        match dial {
            Dial::Private => self.private.as_deref(),
            Dial::Public => self.public.as_deref(),
            Dial::Ipv6 => self.ipv6.as_deref(),
        }
    }

    /// Returns one of the driver's own tags.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        tags::own(&self.tags, name)
    }

    /// Whether it is on its way down, or gone.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Over)
    }

    /// Names it for the job log: what it is and where.
    #[must_use]
    pub fn described(&self) -> String {
        let market = if self.spot { "Spot" } else { "on demand" };
        let kind = self.kind.as_deref().map(|k| format!("{k}, "));
        let zone = self.zone.as_deref().map(|z| format!(" in {z}"));
        format!(
            "{} ({}{market}){}",
            self.id,
            kind.unwrap_or_default(),
            zone.unwrap_or_default()
        )
    }
}

/// Reads tags.
pub(super) fn read_tags(tags: &[types::Tag]) -> Vec<(String, String)> {
    tags.iter()
        .filter_map(|t| {
            Some((
                t.key()?.to_owned(),
                t.value().unwrap_or_default().to_owned(),
            ))
        })
        .collect()
}
