//! The first command of `prepare` on a new machine. On a container it reads the environment of process 1 and starts the
//! watchdog. If either fails, the job log says so, and the job runs without it.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::machine::environment::ContainerEnvironment;
use crate::machine::{Machine, Place};
use crate::script::first_command::{FirstAnswer, run_first_command};
use crate::script::silent_login::Quiet;
use crate::ssh::connect::connect_within;
use crate::ssh::keys::JobKey;
use crate::ssh::memory_limit::MemoryLimit;
use crate::ssh::session::Session;
use crate::ui::Ui;

/// How often the command is sent, each time on a connection of its own, before the machine is out of reach.
const ATTEMPTS: u32 = 3;

/// The first command of a job on its machine.
pub(super) struct FirstCommand<'a> {
    /// The machine; the command goes to its first endpoint.
    pub(super) machine: &'a Machine,
    /// The job's key.
    pub(super) key: &'a JobKey,
    /// How long the machine may live from now on.
    pub(super) lifetime: Duration,
    /// The timeout of another connection, if one is lost.
    pub(super) connect_timeout: Duration,
    /// The job log.
    pub(super) ui: Ui,
}

impl FirstCommand<'_> {
    /// Sends it over the session of the first login, and over new sessions if that is lost.
    ///
    /// # Errors
    /// If the machine cannot run it, or is out of reach.
    pub(super) async fn run(&self, mut session: Session) -> Result<Option<ContainerEnvironment>> {
        match self.machine.place {
            Place::Ecs(_) => {}
            // No container: the environment is the login's. A machine on this host ends with its keeper, and an instance has
            // its last limit from its user data.
            Place::Local(_) | Place::Ec2(_) => {
                session.hang_up().await;
                return Ok(None);
            }
        }
        let user = self
            .machine
            .endpoints
            .first()
            .map_or("", |endpoint| &endpoint.user);
        let mut quiet = Quiet::new(self.ui, user);
        let memory_limit = MemoryLimit::beside(0);
        let mut attempt = 1;
        loop {
            match quiet
                .watch(&session, run_first_command(&session, self.lifetime))
                .await
            {
                Ok(answer) => {
                    session.hang_up().await;
                    return Ok(self.warn_of_what_is_missing(answer));
                }
                Err(error) if error.kind() == Kind::Unreachable && attempt < ATTEMPTS => {
                    attempt += 1;
                    session = self.reconnect(&memory_limit).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn reconnect(&self, memory_limit: &MemoryLimit) -> Result<Session> {
        let none = || Error::new(Kind::Launch, "the machine has no way in");
        let endpoint = self.machine.endpoints.first().ok_or_else(none)?;
        let deadline = Instant::now() + self.connect_timeout;
        connect_within(endpoint, self.key, memory_limit, || deadline).await
    }

    fn warn_of_what_is_missing(&self, answer: FirstAnswer) -> Option<ContainerEnvironment> {
        if let Some(warning) = answer.watchdog.warning() {
            self.ui.warn(&warning);
        }
        match answer.environment {
            Ok(environment) => {
                if let Some(warning) = environment.warning() {
                    self.ui.warn(&warning);
                }
                Some(environment)
            }
            Err(missing) => {
                self.ui.warn(&missing.warning());
                None
            }
        }
    }
}
