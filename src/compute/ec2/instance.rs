//! An instance as EC2 describes it, read once into what the rest works with. Pure.

use std::time::SystemTime;

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
    /// Returns the address to connect to, as soon as there is one.
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
