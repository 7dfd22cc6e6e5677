//! What one client may ask for, and the answers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use tokio::sync::oneshot;

use crate::agent::Agent;
use crate::channel::{self, STDERR, Work};
use crate::exec::Group;
use crate::keys::AuthorizedKey;
use crate::valve::Valve;
use crate::{greeting, script, signals};

/// How many channels a connection may have open at once.
const MAX_CHANNELS: usize = 64;

/// One client, logged in or not yet.
///
/// Whatever has no method here is refused by the library's defaults: all other ways to log in, and every
/// channel and global request that forwards something.
pub(crate) struct Client {
    key: AuthorizedKey,
    agent: Arc<Agent>,
    valve: Arc<Valve>,
    logged_in: Option<oneshot::Sender<()>>,
    slots: HashMap<ChannelId, Slot>,
}

/// One channel of a client.
struct Slot {
    /// Gives the channel its command; taken by the first exec request.
    start: Option<oneshot::Sender<Work>>,
    group: Option<Arc<Group>>,
    /// Kept by the channel's task.
    alive: Weak<()>,
}

impl Client {
    pub(crate) fn new(
        key: AuthorizedKey,
        agent: Arc<Agent>,
        valve: Arc<Valve>,
        logged_in: oneshot::Sender<()>,
    ) -> Self {
        Self {
            key,
            agent,
            valve,
            logged_in: Some(logged_in),
            slots: HashMap::new(),
        }
    }

    /// Starts a command on a channel that has none yet. If that fails by the system's fault, the error says why.
    fn exec(&mut self, channel: ChannelId, command: &[u8]) -> Result<(), Option<String>> {
        let slot = self.slots.get_mut(&channel).ok_or(None)?;
        let start = slot.start.take().ok_or(None)?;
        match self.agent.launcher.start(command) {
            Ok((running, group)) => {
                slot.group = Some(group);
                // Fails only when the channel has just gone, and then the pipes close.
                drop(start.send(Work::Command(running)));
                Ok(())
            }
            Err(why) => {
                // The client may try again, for instance with a shorter command.
                slot.start = Some(start);
                Err(Some(why))
            }
        }
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(verdict(self.key.is(offer.public_key)))
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(verdict(self.key.is(key.public_key)))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        self.valve.logged_in();
        if let Some(logged_in) = self.logged_in.take() {
            let _ = logged_in.send(());
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // A channel that we closed is not reported as closed, hence the look at its task.
        self.slots.retain(|_, slot| slot.alive.strong_count() > 0);
        if self.slots.len() >= MAX_CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let alive = Arc::new(());
        let (start, started) = oneshot::channel();
        self.slots.insert(
            channel.id(),
            Slot {
                start: Some(start),
                group: None,
                alive: Arc::downgrade(&alive),
            },
        );
        let handle = session.handle();
        let agent = Arc::clone(&self.agent);
        let valve = Arc::clone(&self.valve);
        tokio::spawn(async move {
            channel::serve(channel, handle, started, agent, valve).await;
            drop(alive);
        });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.slots.remove(&channel);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.exec(channel, command) {
            Ok(()) => session.channel_success(channel),
            Err(why) => {
                if let Some(why) = why {
                    session.extended_data(channel, STDERR, why.into_bytes())?;
                }
                session.channel_failure(channel)
            }
        }
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let group = self
            .slots
            .get(&channel)
            .and_then(|slot| slot.group.as_ref());
        match (group, signals::from_wire(&signal)) {
            (Some(group), Some(signal)) => {
                group.kill(signal);
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    // The library does not answer the following requests, and a client may wait for the answer.

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let work = match name {
            script::NAME => Work::Script,
            greeting::NAME => Work::Greeting,
            _ => return session.channel_failure(channel),
        };
        let slot = self.slots.get_mut(&channel);
        match slot.and_then(|slot| slot.start.take()) {
            Some(start) => {
                // Fails only when the channel has just gone.
                drop(start.send(work));
                session.channel_success(channel)
            }
            None => session.channel_failure(channel),
        }
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}

fn verdict(accepted: bool) -> Auth {
    if accepted {
        Auth::Accept
    } else {
        Auth::reject()
    }
}
