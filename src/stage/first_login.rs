//! The first login to a machine, at each of its endpoints. If the machine does not know the job's key, AWS admits the key for
//! this login, and the driver then installs it on the machine, so that later connections need no admission.

use std::cell::Cell;

use tokio::time::Instant;

use crate::compute::Admission;
use crate::compute::kind::{Admits, Refused};
use crate::error::{Error, Kind};
use crate::machine::Endpoint;
use crate::script::keep_key::{self, keep};
use crate::script::silent_login::{self, Quiet};
use crate::ssh::connect::connect_with_admission;
use crate::ssh::keys::JobKey;
use crate::ssh::memory_limit::MemoryLimit;
use crate::ssh::session::Session;
use crate::ui::Ui;

type Result<T> = std::result::Result<T, Failed>;

/// How often the driver tries to install the key, each time on a new connection, before the machine counts as out of reach.
const ATTEMPTS: u32 = 3;

/// What the first login needs.
pub(super) struct FirstLogin<'a> {
    /// The job's key.
    pub(super) key: &'a JobKey,
    /// The deadline, which may be set only meanwhile.
    pub(super) deadline: &'a Cell<Instant>,
    /// How AWS admits the key before each login, if it must.
    pub(super) admission: Option<Admission>,
    /// The job log.
    pub(super) ui: Ui,
}

/// Why the login failed.
pub(super) enum Failed {
    /// The machine refused the login, or its key could not be installed.
    Machine(Error),
    /// AWS did not admit the key.
    Cloud(Refused),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Machine(error)
    }
}

impl FirstLogin<'_> {
    /// Logs in to every endpoint, pins the host keys, and keeps the first session.
    ///
    /// # Errors
    /// If the login to one of them fails.
    pub(super) async fn run(mut self, endpoints: &mut [Endpoint]) -> Result<Session> {
        let memory_limit = MemoryLimit::beside(0);
        let mut first = None;
        for endpoint in endpoints {
            let session = self.log_in(endpoint, &memory_limit).await?;
            // The host key is pinned from now on: another key at this address is another machine.
            endpoint.host_key = session.host_key().map(str::to_owned);
            match first {
                None => first = Some(session),
                Some(_) => session.hang_up().await,
            }
        }
        first.ok_or_else(|| Error::new(Kind::Launch, "the machine has no way in").into())
    }

    async fn log_in(&mut self, endpoint: &Endpoint, memory_limit: &MemoryLimit) -> Result<Session> {
        let user = endpoint.user.clone();
        let (mut quiet, mut silent) = (Quiet::new(self.ui, &user), false);
        for _ in 0..ATTEMPTS {
            let session = self.connect(endpoint, memory_limit).await?;
            if self.admission.is_none() {
                return Ok(session);
            }
            let began = Instant::now();
            let line = self.key.public_line()?;
            if quiet.watch(&session, keep(&session, &line)).await? {
                return Ok(session);
            }
            silent = began.elapsed() >= keep_key::TIME_LIMIT;
        }
        if silent {
            return Err(silent_login::error(keep_key::TIME_LIMIT).into());
        }
        let what =
            "the connection to the machine was lost again and again before it had the job's key";
        let hint = "Check the network between this host and the machine; retry the job.";
        Err(Error::new(Kind::Unreachable, what).hint(hint).into())
    }

    async fn connect(
        &mut self,
        endpoint: &Endpoint,
        memory_limit: &MemoryLimit,
    ) -> Result<Session> {
        let deadline = || self.deadline.get();
        let admission = &mut self.admission;
        let admit = async |refused| match admission {
            Some(admission) => admission.renew(refused).await.map_err(Failed::Cloud),
            None => Ok(()),
        };
        connect_with_admission(endpoint, self.key, memory_limit, deadline, admit).await
    }
}
