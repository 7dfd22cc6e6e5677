//! What all connections of one agent share.

use std::sync::atomic::{AtomicBool, Ordering};

use russh::server::Config;

use crate::exec::Launcher;
use crate::hand_on::HandOn;
use crate::keys::HostKeys;
use crate::life::Life;
use crate::script::Scripts;
use crate::signals::Commands;
use crate::{Error, HostKey, Settings};

/// What all connections of one agent share.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Starts commands.
    pub(crate) launcher: Launcher,
    /// The scripts that were started and are not forgotten.
    pub(crate) scripts: Scripts,
    /// When the agent ends.
    pub(crate) life: Life,
    /// The keys that it is known by.
    pub(crate) host_keys: HostKeys,
    /// Which connections are for other agents.
    pub(crate) hand_on: HandOn,
    /// Whether clients may open terminals.
    terminals: AtomicBool,
}

impl Agent {
    pub(crate) fn new(
        settings: &Settings,
        commands: Commands,
        config: impl Fn(&HostKey) -> Config,
    ) -> Result<Self, Error> {
        let launch = &settings.launch;
        Ok(Self {
            launcher: Launcher::new(settings, commands.clone())?,
            scripts: Scripts::new(settings, commands),
            life: Life::new(launch),
            host_keys: HostKeys::new(&settings.host_key, launch.one_use_host_key, config)?,
            hand_on: HandOn::new(launch),
            terminals: AtomicBool::new(false),
        })
    }

    /// Allows terminals from now on, or no longer.
    pub(crate) fn allow_terminals(&self, allowed: bool) {
        self.terminals.store(allowed, Ordering::Relaxed);
    }

    /// Tells whether terminals are allowed.
    pub(crate) fn allows_terminals(&self) -> bool {
        self.terminals.load(Ordering::Relaxed)
    }
}
