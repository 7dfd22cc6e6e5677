//! The far side of a script: starts it once, keeps its output until it was received, ends it on demand. See docs/protocol.md.

use std::sync::Arc;

use crate::Settings;
use crate::agent::Agent;
use crate::channel::Ends;
use crate::signals::Commands;

/// The subsystem's name.
pub(crate) const NAME: &str = "gad-script";

/// The scripts that were started and are not forgotten.
#[derive(Debug)]
pub(crate) struct Scripts {}

impl Scripts {
    pub(crate) fn new(_settings: &Settings, _commands: Commands) -> Self {
        Self {}
    }
}

/// Serves one channel.
pub(crate) async fn serve(_ends: Ends, _agent: Arc<Agent>) {}
