//! The four stages that GitLab Runner calls, a file each, and what they share.

mod bring_up;
pub mod cleanup;
mod climb;
pub mod config;
pub mod containers;
mod first_login;
mod inherited;
pub mod prepare;
pub mod run;
mod rungs;
mod welcome;

use crate::cli::Overrides;
use crate::config::settings::Settings;
use crate::runner::Call;
use crate::state::shared::Shared;
use crate::state::shared::climb::Loss;
use crate::state::{Job, Store};
use crate::ui::Ui;

/// What every stage works with.
#[derive(Debug)]
pub struct Context {
    /// The checked configuration, as it holds for this job.
    pub settings: Settings,
    /// The profile that holds for this job.
    pub profile: Option<String>,
    /// What the command line says in place of the configuration.
    pub overrides: Overrides,
    /// What the Runner said.
    pub call: Call,
    /// The job log.
    pub ui: Ui,
}

impl Context {
    /// Returns the state directory.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::new(self.settings.state_directory.clone())
    }

    /// Returns what all jobs of this host share.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.store().shared()
    }

    /// Notes that the job was lost to Spot on that rung: its retry starts higher.
    async fn lost(&self, rung: &str, cause: &str) {
        if let Some(job) = self.call.payload.lineage() {
            let (rung, cause) = (rung.to_owned(), cause.to_owned());
            self.shared().lost(&job, Loss { rung, cause }).await;
        }
    }

    /// Returns this job's part of the state directory.
    #[must_use]
    pub fn job(&self) -> Job {
        self.store().job(&self.call.identity.key)
    }
}
