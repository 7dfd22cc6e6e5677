//! One SSH session: commands with their input, output and end.

use std::time::Duration;

use bytes::Bytes;
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect};
use tokio::time::timeout;

use super::bounded::KeepOpen;
use super::client::Client;
use super::first_line;

/// How long a server may take to start a command; then the connection counts as lost.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to answer a ping: a round trip, on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A logged-in connection. Dropping it ends the connection; [`Session::hang_up`] says goodbye first.
pub struct Session {
    handle: Handle<Client>,
    host_key: Option<String>,
    /// Dropped with the session.
    _hold: KeepOpen,
}

/// What a command sends.
#[derive(Debug)]
pub enum Event {
    /// Standard output.
    Out(Bytes),
    /// Standard error.
    Err(Bytes),
    /// The command ended, or was refused.
    Ended,
    /// The connection is lost: it ended before the command did.
    Lost,
}

/// The output and exit code of a command that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<u32>,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: Vec<u8>,
}

/// The half of a command that receives.
pub struct Receiver(ChannelReadHalf);

/// The half of a command that sends.
pub struct Sender(ChannelWriteHalf<Msg>);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("host_key", &self.host_key)
            .finish()
    }
}

impl Session {
    pub(super) fn new(handle: Handle<Client>, host_key: Option<String>, hold: KeepOpen) -> Self {
        Self {
            handle,
            host_key,
            _hold: hold,
        }
    }

    /// Returns the host key that the machine showed, as an OpenSSH line.
    #[must_use]
    pub fn host_key(&self) -> Option<&str> {
        self.host_key.as_deref()
    }

    async fn channel(&self) -> Option<Channel<Msg>> {
        let opening = self.handle.channel_open_session();
        timeout(CHANNEL_TIMEOUT, opening).await.ok()?.ok()
    }

    /// Runs a command; `None` if the connection is lost. If the server refuses it, the next event is its end.
    pub async fn exec(&self, command: Vec<u8>) -> Option<(Sender, Receiver)> {
        let channel = self.channel().await?;
        // Requests an answer without waiting for it: without an answer, a refusal would never be noticed.
        channel.exec(true, command).await.ok()?;
        let (receiver, sender) = channel.split();
        Some((Sender(sender), Receiver(receiver)))
    }

    /// As [`Session::exec`], but starts a subsystem of the server.
    pub async fn subsystem(&self, name: &str) -> Option<(Sender, Receiver)> {
        let channel = self.channel().await?;
        channel.request_subsystem(true, name).await.ok()?;
        let (receiver, sender) = channel.split();
        Some((Sender(sender), Receiver(receiver)))
    }

    /// Sends a shell text over standard input and runs it to its end; `None` if the connection is lost or the server refuses. Keeps
    /// only so many bytes of the end of each output.
    pub async fn run(&self, text: &str, keep: usize) -> Option<CommandOutput> {
        let channel = self.channel().await?;
        let command = format!("{}exec sh -s", first_line::TAKE);
        channel.exec(true, command).await.ok()?;
        let (mut receiver, sender) = channel.split();
        let mut said = CommandOutput::default();
        let mut ended = false;
        let text = Bytes::from([first_line::LINE, text].concat());
        // Both at once: if the session ends while the sender waits for room, the sender never returns.
        let mut sending = std::pin::pin!(async {
            sender.data_bytes(text).await.ok()?;
            sender.eof().await.ok()
        });
        let mut sent = false;
        loop {
            let message = tokio::select! {
                done = &mut sending, if !sent => {
                    done?;
                    sent = true;
                    continue;
                }
                message = receiver.wait() => message,
            };
            match message {
                Some(ChannelMsg::Data { data }) => keep_end(&mut said.out, &data, keep),
                Some(ChannelMsg::ExtendedData { data, .. }) => keep_end(&mut said.err, &data, keep),
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    said.code = Some(exit_status);
                    ended = true;
                }
                Some(ChannelMsg::ExitSignal { .. }) => ended = true,
                Some(ChannelMsg::Failure) => return None,
                // Any other end of the stream is a lost connection.
                Some(ChannelMsg::Close) | None => {
                    cut_to_end(&mut said.out, keep);
                    cut_to_end(&mut said.err, keep);
                    return ended.then_some(said);
                }
                Some(_) => {}
            }
        }
    }

    /// Returns whether the server itself answers, whatever its command does.
    pub async fn answers(&self) -> bool {
        let answer = timeout(ANSWER_TIMEOUT, self.handle.send_ping()).await;
        matches!(answer, Ok(Ok(())))
    }

    /// Ends the connection.
    pub async fn hang_up(self) {
        drop(
            self.handle
                .disconnect(Disconnect::ByApplication, "", "en")
                .await,
        );
    }
}

/// Appends received data and keeps only the end, without moving it for each byte: a server may send byte by byte.
fn keep_end(kept: &mut Vec<u8>, data: &[u8], most: usize) {
    kept.extend_from_slice(data);
    if kept.len() > 2 * most {
        cut_to_end(kept, most);
    }
}

fn cut_to_end(kept: &mut Vec<u8>, most: usize) {
    let excess = kept.len().saturating_sub(most);
    kept.drain(..excess);
}

impl Receiver {
    /// Waits for the next event. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            match self.0.wait().await {
                Some(ChannelMsg::Data { data }) => return Event::Out(data),
                Some(ChannelMsg::ExtendedData { data, .. }) => return Event::Err(data),
                Some(ChannelMsg::Close | ChannelMsg::Failure) => return Event::Ended,
                // An exit status or an end of file: the machine reports the result in frames.
                Some(_) => {}
                None => return Event::Lost,
            }
        }
    }
}

impl Sender {
    /// Sends bytes to the command's standard input. Never await it alone: if the session ends while this
    /// waits for the peer's window, it never returns.
    pub async fn send(&self, data: Bytes) -> bool {
        self.0.data_bytes(data).await.is_ok()
    }
}
