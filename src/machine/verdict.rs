//! What AWS's words come to: a kind, from which follows who tries again, where, and when; AWS's own words; and a remedy.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// What AWS's answer comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The kind.
    pub why: Why,
    /// AWS's own words, on one line.
    pub cause: String,
    /// What to do about it, as a full sentence.
    pub remedy: String,
}

impl Verdict {
    /// Makes it an error: what failed, AWS's words, and the remedy as its hint.
    #[must_use]
    pub fn error(&self, kind: Kind, what: &str) -> Error {
        let message = if self.cause.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {}", self.cause)
        };
        Error::new(kind, message).hint(self.remedy.clone())
    }
}

/// What went wrong, as far as anybody has to act differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// No capacity, or no network interface: another rung, or later.
    NoRoom,
    /// There may be room, and something of the account's own bars it that changes: no address is free, Spot's price is above the
    /// job's. Another rung, or later.
    Short,
    /// A quota of the account is used up: another rung may have its own, and it frees up as tasks end.
    Quota,
    /// This request never gets it here, however long it waits: a quota that it exceeds by itself, a type that the zone does
    /// not have. Another rung.
    Never,
    /// AWS could not, this once, and nobody has to correct anything: another rung, or the same one in a moment.
    Busy,
    /// Too many calls: the same call again, later.
    Throttled,
    /// AWS is in trouble, or did not answer: a call may be sent again, with the same token.
    Outage,
    /// A role may not do it: the driver's, or (in a stop reason) the task's execution role.
    Denied,
    /// The driver's credentials are missing, expired or wrong, or this host's clock is.
    Credentials,
    /// The cluster has no default strategy, and nothing else was asked for.
    NoDefaultProvider,
    /// The cluster does not have the capacity provider that was asked for.
    NoSuchProvider,
    /// The image, or what it starts, is wrong for good.
    Image,
    /// The image could not be pulled this time: rate limits, a registry in trouble.
    Registry,
    /// Something that the task needs is out of its network's reach.
    Network,
    /// Memory ran out under process 1.
    Memory,
    /// Spot took it back.
    Interrupted,
    /// The host under it went away or was drained.
    HostGone,
    /// Somebody (or something) told it to stop.
    StoppedBySomeone,
    /// Its process 1, or that of another essential container, ended by itself.
    Exited,
    /// What comes and goes is not there: a task, an interface. (A missing cluster is [`Why::Settings`].)
    NotFound,
    /// What was asked for does not fit together or does not exist: the settings or the task definition are wrong.
    Settings,
    /// Nothing reaches AWS before somebody changes something on the way: a certificate, a proxy. It says nothing of calls before.
    Barred,
    /// The token was used before with other parameters.
    Conflict,
    /// Nothing that this version knows.
    Other,
}

impl Why {
    /// Whether the next rung may do better, for a task that has not come up yet.
    #[must_use]
    pub fn hands_over(self) -> bool {
        matches!(
            self,
            Self::NoRoom
                | Self::Short
                | Self::Quota
                | Self::Never
                | Self::Busy
                | Self::NoSuchProvider
                | Self::NoDefaultProvider
                | Self::Interrupted
                | Self::HostGone
        )
    }

    /// Whether a launch on the same rung may do better later, by itself.
    #[must_use]
    pub fn is_worth_waiting(self) -> bool {
        matches!(
            self,
            Self::NoRoom
                | Self::Short
                | Self::Quota
                | Self::Busy
                | Self::Throttled
                | Self::Outage
                | Self::Registry
                | Self::Interrupted
                | Self::HostGone
        )
    }

    /// Whether no further try of this job can do better until somebody changes something.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Denied | Self::Image | Self::Settings | Self::Barred
        )
    }

    /// Whether other jobs would be told the same of that rung.
    #[must_use]
    pub fn is_want_of_room(self) -> bool {
        self.hands_over() && !matches!(self, Self::Busy | Self::HostGone)
    }

    /// Whether it was a fault of the moment, on which no try of a later moment is to be judged.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Busy | Self::Interrupted | Self::HostGone)
    }

    /// Whether the very same call, with the same token, is worth sending again at once (with a pause).
    #[must_use]
    pub fn repeats_call(self) -> bool {
        matches!(self, Self::Throttled | Self::Outage)
    }
}

impl Why {
    /// Says of which kind an error is that AWS's words come to.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::NoRoom | Self::Short | Self::Quota | Self::Never => Kind::Capacity,
            // AWS has refused nothing: whoever ends machines keeps what is known of them.
            Self::Throttled | Self::Outage | Self::Busy | Self::Barred => Kind::Throttled,
            Self::Denied => Kind::Denied,
            Self::Credentials => Kind::Credentials,
            Self::NoDefaultProvider
            | Self::NoSuchProvider
            | Self::Image
            | Self::Registry
            | Self::Network
            | Self::Memory
            | Self::Interrupted
            | Self::HostGone
            | Self::StoppedBySomeone
            | Self::Exited
            | Self::NotFound
            | Self::Settings
            | Self::Conflict
            | Self::Other => Kind::Launch,
        }
    }
}
