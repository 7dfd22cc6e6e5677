//! The first login to a machine: to each of its ends, admitted where the machine does not know the job's key by itself,
//! and kept there then, so that no later connection needs that.

use std::cell::Cell;

use tokio::time::Instant;

use crate::compute::Admission;
use crate::compute::kind::{Admits, Refused};
use crate::error::{Error, Kind};
use crate::machine::Endpoint;
use crate::script::keep_key::{self, keep};
use crate::script::quiet::{self, Quiet};
use crate::ssh::ceiling::Ceiling;
use crate::ssh::connect::connect_admitted;
use crate::ssh::keys::JobKey;
use crate::ssh::session::Session;
use crate::ui::Ui;

type Result<T> = std::result::Result<T, Failed>;

/// How often the key is given to be kept, each time on a connection of its own, before the machine is out of reach.
const ATTEMPTS: u32 = 3;

/// What it takes to log in first.
pub(super) struct FirstLogin<'a> {
    /// The job's key.
    pub(super) key: &'a JobKey,
    /// Until when, which may be settled only meanwhile.
    pub(super) deadline: &'a Cell<Instant>,
    /// What each login has to be admitted by.
    pub(super) admission: Option<Admission>,
    /// The job log.
    pub(super) ui: Ui,
}

/// Why there is no login.
pub(super) enum Failed {
    /// The machine did not let the job in, or could not keep its key.
    Machine(Error),
    /// The cloud did not admit the job.
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
    /// Where one of them lets nobody in.
    pub(super) async fn run(mut self, endpoints: &mut [Endpoint]) -> Result<Session> {
        let ceiling = Ceiling::beside(0);
        let mut first = None;
        for endpoint in endpoints {
            let session = self.log_in(endpoint, &ceiling).await?;
            // Known from now on: another key at this address is another machine.
            endpoint.host_key = session.host_key().map(str::to_owned);
            match first {
                None => first = Some(session),
                Some(_) => session.hang_up().await,
            }
        }
        first.ok_or_else(|| Error::new(Kind::Launch, "the machine has no way in").into())
    }

    async fn log_in(&mut self, endpoint: &Endpoint, ceiling: &Ceiling) -> Result<Session> {
        let user = endpoint.user.clone();
        let (mut quiet, mut silent) = (Quiet::new(self.ui, &user), false);
        for _ in 0..ATTEMPTS {
            let session = self.connect(endpoint, ceiling).await?;
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
            return Err(quiet::error(keep_key::TIME_LIMIT).into());
        }
        let what =
            "the connection to the machine was lost again and again before it had the job's key";
        let hint = "Check the network between this host and the machine; retry the job.";
        Err(Error::new(Kind::Unreachable, what).hint(hint).into())
    }

    async fn connect(&mut self, endpoint: &Endpoint, ceiling: &Ceiling) -> Result<Session> {
        let deadline = || self.deadline.get();
        let admission = &mut self.admission;
        let admit = async |refused| match admission {
            Some(admission) => admission.renew(refused).await.map_err(Failed::Cloud),
            None => Ok(()),
        };
        connect_admitted(endpoint, self.key, ceiling, deadline, admit).await
    }
}
