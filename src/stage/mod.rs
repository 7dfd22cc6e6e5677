//! The four stages that GitLab Runner calls, a file each, and what they share.

mod agents;
mod bring_up;
pub mod cleanup;
pub mod config;
pub mod containers;
mod first_command;
mod first_login;
mod go_driver_jobs;
pub mod prepare;
pub mod recover;
pub mod run;
mod shared_rungs;
mod try_rungs;

use crate::compute::aws::metadata::Metadata;
use crate::config::overrides::Overrides;
use crate::config::settings::Settings;
use crate::error::Result;
use crate::plan::overwrites::Overwrites;
use crate::process::Process;
use crate::runner::note::Note;
use crate::runner::{Call, ancestors};
use crate::state::lease::{self, Held};
use crate::state::manager::Bastion;
use crate::state::owner::Ownership;
use crate::state::shared::Shared;
use crate::state::shared::spot_losses::SpotLoss;
use crate::state::trust::Lenience;
use crate::state::{Job, JobDirectory, Store};
use crate::ui::Ui;

/// What every stage works with.
#[derive(Debug)]
pub struct Context {
    /// The checked configuration, as it applies to this job.
    pub settings: Settings,
    /// The profile that applies to this job.
    pub profile: Option<String>,
    /// The flags that override the configuration.
    pub overrides: Overrides,
    /// A digest of the administrator's whole configuration: the file's text and the flags.
    pub configuration: String,
    /// What the job overwrites.
    pub overwrites: Overwrites,
    /// What the Runner handed over.
    pub call: Call,
    /// Whether the driver may ask this host's metadata service.
    pub metadata: Metadata,
    /// The job log.
    pub ui: Ui,
}

impl Context {
    /// Returns the state directory.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::new(self.settings.state_directory.clone())
    }

    /// Refuses a state directory that others may change.
    ///
    /// # Errors
    /// If others may change it.
    pub fn trust(&self) -> Result<()> {
        let lenience = Lenience::of(self.settings.style);
        self.store().trust(lenience)?;
        self.job().trust()
    }

    /// Returns what all jobs of this host share.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.store().shared()
    }

    /// Returns which bastion this is.
    async fn bastion(&self) -> Result<Bastion> {
        self.store().make_bastion(&self.metadata.this_host().await)
    }

    /// Returns the name by which everything launched from here is marked: the one in the file, while no other host has its
    /// lease, or this bastion's own.
    fn manager(&self, bastion: &Bastion) -> Result<String> {
        let store = self.store();
        if let Some(name) = &self.settings.manager {
            let why = match store.renew_lease(bastion) {
                Ok(Held::Here(_)) => return Ok(name.clone()),
                Ok(Held::There(_)) => "is in use by another host".to_owned(),
                Err(error) => format!("cannot be used: {error}"),
            };
            self.ui.warn(&format!(
                "the name {name} of [state] manager {why}; this host goes by a name of its own"
            ));
        }
        store.manager(bastion)
    }

    /// Keeps the lease of the name in the file for as long as a stage takes. Never resolves.
    pub async fn keep_lease(&self) -> std::convert::Infallible {
        if self.settings.manager.is_none() {
            return std::future::pending().await;
        }
        loop {
            // The stage goes on if this fails. A lease that is not renewed may go to another host one day.
            let renewed = match self.bastion().await {
                Ok(bastion) => self.store().renew_lease(&bastion),
                Err(error) => Err(error),
            };
            if let Err(error) = renewed {
                tracing::debug!(%error, "the lease was not renewed");
            }
            tokio::time::sleep(lease::RENEWAL).await;
        }
    }

    /// Notes that the job was lost to Spot on that rung: its retry starts higher.
    async fn note_spot_loss(&self, rung: &str, cause: &str) {
        if let Some(job) = self.call.payload.lineage() {
            let (rung, cause) = (rung.to_owned(), cause.to_owned());
            self.shared()
                .note_spot_loss(&job, SpotLoss { rung, cause })
                .await;
        }
    }

    /// Returns who owns the job, as far as this stage and the note of an earlier one can tell, and notes it for later stages.
    fn note_owner(&self) -> Ownership {
        let ancestors = ancestors::ancestors();
        let ownership = match &self.call.note {
            Some(note) => Ownership::unsettled(note.ancestors.clone()).seen_by(&ancestors),
            None => Ownership::unsettled(ancestors.clone()),
        };
        self.leave_note(ancestors);
        ownership
    }

    /// Uses the state directory in which this attempt was prepared, if the configured one has nothing of the job: somebody has
    /// changed the configuration meanwhile, and the machine still lives.
    pub fn follow_note(&mut self) {
        let Some(note) = &self.call.note else { return };
        let is_known = |store: Store| store.job(&note.key).directory().exists();
        if !is_known(self.store()) && is_known(Store::new(note.state_directory.clone())) {
            self.settings
                .state_directory
                .clone_from(&note.state_directory);
        }
    }

    fn leave_note(&self, ancestors: Vec<Process>) {
        let state_directory = self.settings.state_directory.clone();
        let key = self.call.identity.key.clone();
        Note::new(state_directory, key, ancestors).leave(&self.call.directory);
    }

    /// Returns the Runner's own directory for this attempt, if its removal means the end of the job.
    fn directory(&self) -> Option<JobDirectory> {
        let is_runners = self.call.holds_payload;
        is_runners.then(|| JobDirectory::note(&self.call.directory))?
    }

    /// Returns this job's part of the state directory.
    #[must_use]
    pub fn job(&self) -> Job {
        self.store().job(&self.call.identity.key)
    }
}
