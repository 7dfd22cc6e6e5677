//! Carries bytes between one channel and one command.
//!
//! A channel's task lives from the opening of the channel to its end. It takes in all that arrives at
//! once (see `valve` for why) and keeps no more output than fits into the client's window.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::agent::Agent;
use crate::exec::Running;
use crate::signals::Ending;
use crate::valve::Valve;
use crate::{greeting, script, terminal};

/// How much output is read at once: as much as a pipe takes.
const CHUNK: usize = 64 << 10;

/// How much is sent at once while the client's window is closed; any amount would do.
const PROBE: usize = 32 << 10;

/// How much is kept of what comes before a channel has its work. Nobody who means well sends any.
const EARLY: usize = 64 << 10;

/// What keeping a chunk costs on top of its bytes. A client that sends single bytes pays for it.
const CHUNK_COST: usize = 96;

/// The number by which stderr goes over the wire.
pub(crate) const STDERR: u32 = 1;

/// What a channel is for.
pub(crate) enum Work {
    /// A command of the launcher's.
    Command(Running),
    /// The script protocol.
    Script,
    /// The greeting.
    Greeting,
    /// A terminal.
    Terminal(terminal::Running),
}

/// Both halves of a channel that the agent itself serves.
pub(crate) struct Ends {
    /// What the client sends. It must be taken in at once: see `valve`. Bytes that are kept are counted there.
    pub(crate) read: ChannelReadHalf,
    /// For what is sent, by [`send`].
    pub(crate) write: ChannelWriteHalf<Msg>,
    /// Data that came before the channel had its work; the valve counts them.
    pub(crate) early: Queue,
    /// The client has sent its last byte.
    pub(crate) at_end: bool,
    /// The valve of the channel's connection.
    pub(crate) valve: Arc<Valve>,
}

/// Serves a channel until the client closes it, the connection is lost or its work is done.
///
/// A command itself outlives all of these; only its pipes are closed.
pub(crate) async fn serve(
    channel: Channel<Msg>,
    handle: Handle,
    mut started: oneshot::Receiver<Work>,
    agent: Arc<Agent>,
    valve: Arc<Valve>,
) {
    let (mut read, write) = channel.split();
    let mut early = Queue::new(Arc::clone(&valve));
    let mut room = EARLY;
    let mut at_end = false;
    let work = loop {
        tokio::select! {
            biased;
            work = &mut started => match work {
                Ok(work) => break work,
                // The connection is gone.
                Err(_) => return,
            },
            message = read.wait() => match message {
                Some(ChannelMsg::Data { data }) if data.is_empty() => {}
                Some(ChannelMsg::Data { data }) => match room.checked_sub(data.len() + CHUNK_COST) {
                    Some(left) => {
                        room = left;
                        early.push(data);
                    }
                    None => {
                        // Fails when the connection is gone, which is as good.
                        drop(write.close().await);
                        return;
                    }
                },
                Some(ChannelMsg::Eof) => at_end = true,
                Some(ChannelMsg::Close) | None => return,
                Some(_) => {}
            },
        }
    };
    let ends = Ends {
        read,
        write,
        early,
        at_end,
        valve,
    };
    match work {
        Work::Command(running) => run(ends, handle, running).await,
        Work::Script => script::serve(ends, agent).await,
        Work::Greeting => greeting::serve(ends, agent).await,
        Work::Terminal(running) => terminal::serve(ends, handle, running).await,
    }
}

/// Carries bytes between a command and its client.
async fn run(ends: Ends, handle: Handle, mut running: Running) {
    let Ends {
        read,
        write,
        early,
        at_end,
        valve,
    } = ends;
    let stdin = running.stdin.take();
    tokio::select! {
        () = pump_input(read, early, at_end, stdin) => {}
        // An error means that the connection is gone.
        done = pump_output(&write, &handle, running, &valve) => drop(done),
    }
}

/// Input that nobody has read yet. The valve counts it for as long as it is here.
pub(crate) struct Queue {
    chunks: VecDeque<Bytes>,
    valve: Arc<Valve>,
}

impl Queue {
    pub(crate) fn new(valve: Arc<Valve>) -> Self {
        Self {
            chunks: VecDeque::new(),
            valve,
        }
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.valve.add(chunk.len() + CHUNK_COST);
            self.chunks.push_back(chunk);
        }
    }

    pub(crate) fn front(&self) -> Option<&Bytes> {
        self.chunks.front()
    }

    pub(crate) fn advance(&mut self, bytes: usize) {
        let mut freed = bytes;
        if let Some(front) = self.chunks.front_mut() {
            front.advance(bytes);
            if front.is_empty() {
                self.chunks.pop_front();
                freed += CHUNK_COST;
            }
        }
        self.valve.remove(freed);
    }

    /// Takes the next bytes, at most `limit`.
    pub(crate) fn some(&mut self, limit: u64) -> Option<Bytes> {
        let front = self.chunks.front()?;
        let count = front
            .len()
            .min(usize::try_from(limit).unwrap_or(usize::MAX));
        let bytes = front.slice(..count);
        self.advance(count);
        Some(bytes)
    }

    pub(crate) fn clear(&mut self) {
        let bytes = self
            .chunks
            .drain(..)
            .map(|chunk| chunk.len() + CHUNK_COST)
            .sum();
        self.valve.remove(bytes);
    }
}

/// Hands the chunks out, which are not counted from then on.
impl Iterator for Queue {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.some(u64::MAX)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What becomes of a command's stdin.
enum Stdin<W> {
    Open(W),
    Closed,
}

/// Feeds the command until the channel is gone.
pub(crate) async fn pump_input<W: AsyncWrite + Unpin>(
    mut read: ChannelReadHalf,
    mut queue: Queue,
    mut at_end: bool,
    stdin: Option<W>,
) {
    let mut stdin = stdin.map_or(Stdin::Closed, Stdin::Open);
    loop {
        if at_end
            && queue.chunks.is_empty()
            && let Stdin::Open(open) = &mut stdin
        {
            // A pipe ends by being dropped; a terminal has to be told.
            drop(open.shutdown().await);
            stdin = Stdin::Closed;
        }
        let feed = async {
            match (&mut stdin, queue.front()) {
                (Stdin::Open(stdin), Some(chunk)) => stdin.write(chunk).await,
                (Stdin::Open(_), None) | (Stdin::Closed, _) => std::future::pending().await,
            }
        };
        tokio::select! {
            message = read.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    if !matches!(stdin, Stdin::Closed) {
                        queue.push(data);
                    }
                }
                Some(ChannelMsg::Eof) => at_end = true,
                Some(ChannelMsg::Close) | None => return,
                Some(_) => {}
            },
            fed = feed => match fed {
                Ok(bytes) => queue.advance(bytes),
                Err(_) => {
                    // The command has closed its end; what else comes is for nobody.
                    stdin = Stdin::Closed;
                    queue.clear();
                }
            },
        }
    }
}

/// Sends what the command writes and how it ended, then closes the channel.
///
/// As OpenSSH does, it reports the end at once but keeps the channel open for as long as anybody holds
/// the command's stdout or stderr.
async fn pump_output(
    write: &ChannelWriteHalf<Msg>,
    handle: &Handle,
    running: Running,
    valve: &Valve,
) -> Result<(), Gone> {
    let mut stdout = Output::new(running.stdout);
    let mut stderr = Output::new(running.stderr);
    let mut ended = Some(running.ended);
    while stdout.pipe.is_some() || stderr.pipe.is_some() || ended.is_some() {
        tokio::select! {
            data = stdout.read(), if stdout.pipe.is_some() => send(write, None, data, valve).await?,
            data = stderr.read(), if stderr.pipe.is_some() => {
                send(write, Some(STDERR), data, valve).await?;
            }
            status = wait_for(&mut ended), if ended.is_some() => {
                ended = None;
                if let Some(status) = status {
                    report(write, handle, status).await?;
                }
            }
        }
    }
    write.eof().await.map_err(|_| Gone)?;
    write.close().await.map_err(|_| Gone)
}

/// The connection has ended.
pub(crate) struct Gone;

async fn wait_for(
    ended: &mut Option<oneshot::Receiver<std::process::ExitStatus>>,
) -> Option<Ending> {
    match ended {
        Some(ended) => ended.await.ok().map(Ending::from),
        None => std::future::pending().await,
    }
}

/// One of the pipes that a command writes to.
pub(crate) struct Output<P> {
    /// Nothing once it has ended.
    pub(crate) pipe: Option<P>,
    buffer: BytesMut,
}

impl<P: AsyncRead + Unpin> Output<P> {
    pub(crate) fn new(pipe: Option<P>) -> Self {
        Self {
            pipe,
            buffer: BytesMut::new(),
        }
    }

    /// Reads what is there; nothing means that the pipe has ended. Nothing is lost when dropped early.
    pub(crate) async fn read(&mut self) -> Bytes {
        let Some(pipe) = &mut self.pipe else {
            return std::future::pending().await;
        };
        self.buffer.reserve(CHUNK);
        if !matches!(pipe.read_buf(&mut self.buffer).await, Ok(1..)) {
            self.pipe = None;
        }
        self.buffer.split().freeze()
    }
}

/// Sends output, waiting for the client's window.
///
/// Only this function sends on a channel, and one call after the other, so a window that was found open
/// stays open until the send.
pub(crate) async fn send(
    write: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
    mut data: Bytes,
    valve: &Valve,
) -> Result<(), Gone> {
    while !data.is_empty() {
        let room = write.writable_packet_size().await;
        let starving = (room == 0).then(|| valve.starving());
        let room = if room == 0 { PROBE } else { room };
        let packet = data.split_to(room.min(data.len()));
        match stream {
            None => write.data_bytes(packet).await,
            Some(stream) => write.extended_data_bytes(stream, packet).await,
        }
        .map_err(|_| Gone)?;
        drop(starving);
    }
    Ok(())
}

/// Tells how a command ended.
pub(crate) async fn report(
    write: &ChannelWriteHalf<Msg>,
    handle: &Handle,
    ending: Ending,
) -> Result<(), Gone> {
    match ending {
        Ending::Code(code) => write.exit_status(code).await.map_err(|_| Gone),
        Ending::Signal { name, core_dumped } => handle
            .exit_signal_request(write.id(), name, core_dumped, String::new(), String::new())
            .await
            .map_err(|()| Gone),
    }
}
