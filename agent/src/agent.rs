//! What all connections of one agent share.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::Settings;
use crate::exec::Launcher;
use crate::life::Life;
use crate::script::Scripts;
use crate::signals::Commands;

/// What all connections of one agent share.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Starts commands.
    pub(crate) launcher: Launcher,
    /// The scripts that were started and are not forgotten.
    pub(crate) scripts: Scripts,
    /// When the agent ends.
    pub(crate) life: Life,
    terminals: AtomicBool,
}

impl Agent {
    pub(crate) fn new(settings: &Settings, commands: Commands) -> Result<Self, Error> {
        Ok(Self {
            launcher: Launcher::new(settings, commands.clone())?,
            scripts: Scripts::new(settings, commands),
            life: Life::new(settings),
            terminals: AtomicBool::new(false),
        })
    }

    /// Says whether terminals may be opened from now on; those that are open stay.
    pub(crate) fn allow_terminals(&self, allowed: bool) {
        self.terminals.store(allowed, Ordering::Relaxed);
    }

    /// Tells whether terminals may be opened. None may at the start.
    pub(crate) fn allows_terminals(&self) -> bool {
        self.terminals.load(Ordering::Relaxed)
    }
}
