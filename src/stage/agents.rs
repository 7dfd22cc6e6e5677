//! The first contact with each agent of a machine: what it tells, the host key that is agreed on, and until when it may live.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::machine::{Endpoint, FarSide, Machine};
use crate::script::greeting::{Contact, Greeting, agree};
use crate::ssh::connect::connect_within;
use crate::ssh::keys::JobKey;
use crate::ssh::memory_limit::MemoryLimit;
use crate::ssh::session::Session;

/// How many connections a contact may take.
const ATTEMPTS: u32 = 6;

/// The first contact.
pub(super) struct FirstContact<'a> {
    /// The job's key.
    pub(super) key: &'a JobKey,
    /// The Unix time at which the agents end.
    pub(super) until: Option<u64>,
    /// The timeout of another connection, if one is lost.
    pub(super) connect_timeout: Duration,
}

impl FirstContact<'_> {
    /// Greets each agent of the machine, the first over the session of the first login, and pins their own host keys. Returns
    /// what the first one told; without an agent, `None`.
    ///
    /// # Errors
    /// If one cannot run scripts, or is out of reach.
    pub(super) async fn run(
        &self,
        machine: &mut Machine,
        session: Session,
    ) -> Result<Option<Greeting>> {
        let mut first = Some(session);
        let mut told = None;
        for endpoint in &mut machine.endpoints {
            let session = first.take();
            if endpoint.far_side == FarSide::Agent {
                let greeting = self.greet(endpoint, session).await?;
                tracing::debug!(?greeting, "the agent greets");
                told = told.or(Some(greeting));
            } else if let Some(session) = session {
                session.hang_up().await;
            }
        }
        Ok(told)
    }

    /// If the connection is lost after `pin` was sent, the agent may show either key: each is tried, until it has said that it
    /// shows its own.
    async fn greet(
        &self,
        endpoint: &mut Endpoint,
        mut session: Option<Session>,
    ) -> Result<Greeting> {
        let mut other = None;
        let memory_limit = MemoryLimit::beside(0);
        for _ in 0..ATTEMPTS {
            let session = match session.take() {
                Some(session) => session,
                None => {
                    let deadline = Instant::now() + self.connect_timeout;
                    match connect_within(endpoint, self.key, &memory_limit, || deadline).await {
                        Err(error) if error.kind() == Kind::HostKey && other.is_some() => {
                            std::mem::swap(&mut endpoint.host_key, &mut other);
                            continue;
                        }
                        connected => connected?,
                    }
                }
            };
            match agree(&session, self.until).await? {
                Contact::Agreed(greeting) => {
                    session.hang_up().await;
                    endpoint.host_key = Some(greeting.host_key.clone());
                    return Ok(greeting);
                }
                Contact::Lost(None) => {}
                Contact::Lost(Some(own)) if endpoint.host_key.as_ref() == Some(&own) => {}
                Contact::Lost(Some(own)) => other = endpoint.host_key.replace(own),
            }
        }
        let what = "the connection to the agent was lost again and again at the first contact";
        let hint = "Check the network between this host and the machine; retry the job.";
        Err(Error::new(Kind::Unreachable, what).hint(hint))
    }
}
