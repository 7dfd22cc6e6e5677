//! What `prepare` does once on a machine that has let it in: on a container, brings in the environment of its process 1
//! and sets its watchdog. What cannot be had is said in the job log, and the job runs without.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::machine::environment::ContainerEnvironment;
use crate::machine::{Machine, Place};
use crate::script::quiet::Quiet;
use crate::script::welcome::{Welcome, welcome};
use crate::ssh::ceiling::Ceiling;
use crate::ssh::connect::connect_below;
use crate::ssh::keys::JobKey;
use crate::ssh::session::Session;
use crate::ui::Ui;

/// How often the command is sent, each time on a connection of its own, before the machine is out of reach.
const ATTEMPTS: u32 = 3;

/// The first command of a job on its machine.
pub(super) struct FirstCommand<'a> {
    /// The machine; its first endpoint is asked.
    pub(super) machine: &'a Machine,
    /// The job's key.
    pub(super) key: &'a JobKey,
    /// How long the machine may live from now on.
    pub(super) lifetime: Duration,
    /// For another connection, where one is lost.
    pub(super) connect_timeout: Duration,
    /// The job log.
    pub(super) ui: Ui,
}

impl FirstCommand<'_> {
    /// Sends it over the session of the first login, and over others where that is lost.
    ///
    /// # Errors
    /// Where the machine cannot run it, or is out of reach.
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
        let ceiling = Ceiling::beside(0);
        let mut attempt = 1;
        loop {
            match quiet
                .watch(&session, welcome(&session, self.lifetime))
                .await
            {
                Ok(welcome) => {
                    session.hang_up().await;
                    return Ok(self.heed(welcome));
                }
                Err(error) if error.kind() == Kind::Unreachable && attempt < ATTEMPTS => {
                    attempt += 1;
                    session = self.again(&ceiling).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn again(&self, ceiling: &Ceiling) -> Result<Session> {
        let none = || Error::new(Kind::Launch, "the machine has no way in");
        let endpoint = self.machine.endpoints.first().ok_or_else(none)?;
        let deadline = Instant::now() + self.connect_timeout;
        connect_below(endpoint, self.key, ceiling, || deadline).await
    }

    fn heed(&self, welcome: Welcome) -> Option<ContainerEnvironment> {
        if let Some(warning) = welcome.watchdog.warning() {
            self.ui.warn(&warning);
        }
        match welcome.environment {
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
