//! What the agent tells of itself and of where it runs, and what is agreed with it there.

use std::sync::Arc;

use crate::agent::Agent;
use crate::channel::Ends;

/// The subsystem's name.
pub(crate) const NAME: &str = "gad-greeting";

/// Serves one channel.
pub(crate) async fn serve(_ends: Ends, _agent: Arc<Agent>) {}
