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
use crate::terminal::{Master, Wishes};
use crate::valve::Valve;
use crate::{greeting, script, signals, terminal};

/// How many channels a connection may have open at once.
const MAX_CHANNELS: usize = 64;

/// How many channels a connection may open in its life, those that were refused included; the next one
/// ends it. The library keeps some 5 KiB of each until the connection ends: of one that we closed before
/// the client did, and of an answer that waits for the end of a key exchange.
const MAX_OPENED: usize = 2048;

/// How often it is said on a channel why something could not be started. The reasons wait for the client
/// to read them.
const MAX_REASONS: usize = 16;

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
    /// How many channels the client has opened or tried to.
    opened: usize,
}

/// One channel of a client.
struct Slot {
    /// Gives the channel its command; taken by the first exec request.
    start: Option<oneshot::Sender<Work>>,
    group: Option<Arc<Group>>,
    /// What is wished for the terminal that is not there yet.
    wishes: Wishes,
    /// The terminal, for as long as the channel's task keeps it.
    terminal: Weak<Master>,
    /// How many reasons may still be given.
    reasons: usize,
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
            opened: 0,
        }
    }

    /// Starts a command on a channel that has none yet, or a shell. If that fails by the system's fault,
    /// the error says why.
    fn start(&mut self, channel: ChannelId, command: Option<&[u8]>) -> Result<(), Option<String>> {
        let slot = self.slots.get_mut(&channel).ok_or(None)?;
        let with_terminal = slot.wishes.has_terminal() && self.agent.allows_terminals();
        let start = slot.start.take().ok_or(None)?;
        let launcher = &self.agent.launcher;
        let started = match command {
            _ if with_terminal => terminal::start(launcher, &slot.wishes, command).map(|running| {
                slot.terminal = Arc::downgrade(running.master());
                Work::Terminal(running)
            }),
            Some(command) => launcher.start(command).map(|(running, group)| {
                slot.group = Some(group);
                Work::Command(running)
            }),
            None => Err(String::new()),
        };
        match started {
            Ok(work) => {
                // Fails only when the channel has just gone, and then the pipes close.
                drop(start.send(work));
                Ok(())
            }
            Err(why) => {
                // The client may try again, for instance with a shorter command.
                slot.start = Some(start);
                let tell = !why.is_empty() && slot.reasons > 0;
                slot.reasons = slot.reasons.saturating_sub(1);
                Err(tell.then_some(why))
            }
        }
    }

    /// Starts a command or a shell, and answers.
    fn answer_start(
        &mut self,
        channel: ChannelId,
        command: Option<&[u8]>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.start(channel, command) {
            Ok(()) => session.channel_success(channel),
            Err(why) => {
                if let Some(why) = why {
                    session.extended_data(channel, STDERR, why.into_bytes())?;
                }
                session.channel_failure(channel)
            }
        }
    }

    /// Returns a channel that has no work yet, if terminals may be opened.
    fn wishing(&mut self, channel: ChannelId) -> Option<&mut Wishes> {
        if !self.agent.allows_terminals() {
            return None;
        }
        let slot = self.slots.get_mut(&channel)?;
        slot.start.is_some().then_some(&mut slot.wishes)
    }

    /// Counts the opening of a channel; fails when the client has opened too many.
    fn count_opened(&mut self) -> Result<(), russh::Error> {
        self.opened += 1;
        if self.opened > MAX_OPENED {
            return Err(russh::Error::Disconnect);
        }
        Ok(())
    }
}

fn answer(session: &mut Session, channel: ChannelId, granted: bool) -> Result<(), russh::Error> {
    if granted {
        session.channel_success(channel)
    } else {
        session.channel_failure(channel)
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
        self.count_opened()?;
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
                wishes: Wishes::default(),
                terminal: Weak::new(),
                reasons: MAX_REASONS,
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
        self.answer_start(channel, Some(command), session)
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let slot = self.slots.get(&channel);
        let granted = match (slot, signals::from_wire(&signal)) {
            (Some(slot), Some(signal)) => match (&slot.group, slot.terminal.upgrade()) {
                (Some(group), _) => {
                    group.kill(signal);
                    true
                }
                (None, Some(terminal)) => terminal.signal(signal),
                (None, None) => false,
            },
            _ => false,
        };
        answer(session, channel, granted)
    }

    /// Refuses, as the library would, but counts.
    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.count_opened()
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.count_opened()
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.count_opened()
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.count_opened()
    }

    // The library does not answer the following requests, and a client may wait for the answer.

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.answer_start(channel, None, session)
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
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let granted = self
            .wishing(channel)
            .is_some_and(|wishes| wishes.env(name, value));
        answer(session, channel, granted)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = terminal::size(columns, rows, width, height);
        let granted = self
            .wishing(channel)
            .is_some_and(|wishes| wishes.terminal(term, size, modes));
        answer(session, channel, granted)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = terminal::size(columns, rows, width, height);
        let granted =
            self.slots
                .get_mut(&channel)
                .is_some_and(|slot| match slot.terminal.upgrade() {
                    Some(terminal) => terminal.resize(size),
                    None => slot.wishes.resize(size),
                });
        answer(session, channel, granted)
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
