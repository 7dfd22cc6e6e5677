//! When the agent ends: when it is told, at its "until", or when nobody has logged in for the idle limit.

use std::sync::Arc;

use crate::Settings;

/// When the agent ends. Copies speak of the same agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life(Arc<()>);

/// Holds back the agent's end at TERM for as long as it lives: a script runs, or its result was not fetched yet.
#[derive(Debug)]
pub(crate) struct Hold(#[expect(dead_code, reason = "skeleton")] Arc<()>);

impl Life {
    pub(crate) fn new(_settings: &Settings) -> Self {
        Self::default()
    }

    /// Says that a script was started; it is over when the answer is dropped.
    pub(crate) fn hold(&self) -> Hold {
        Hold(Arc::clone(&self.0))
    }
}
