//! Carries bytes between one channel and one command.
//!
//! A channel's task lives from the opening of the channel to its end. It takes in all that arrives at
//! once (see `valve` for why) and keeps no more output than fits into the client's window.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::oneshot;

use crate::exec::Running;
use crate::signals::Ending;
use crate::valve::Valve;

/// How much output is read at once: as much as a pipe takes.
const CHUNK: usize = 64 << 10;

/// How much is sent at once while the client's window is closed; any amount would do.
const PROBE: usize = 32 << 10;

/// The number by which stderr goes over the wire.
pub(crate) const STDERR: u32 = 1;

/// Serves a channel until the client closes it, the connection is lost or its command is done.
///
/// The command itself outlives all of these; only its pipes are closed.
pub(crate) async fn serve(
    channel: Channel<Msg>,
    handle: Handle,
    started: oneshot::Receiver<Running>,
    valve: Arc<Valve>,
) {
    let (read, write) = channel.split();
    let (give_stdin, stdin) = oneshot::channel();
    let output = async {
        let Ok(mut running) = started.await else {
            // The connection is gone, which the reading side notices too.
            return std::future::pending().await;
        };
        drop(give_stdin.send(running.stdin.take()));
        // An error means that the connection is gone.
        drop(pump_output(&write, &handle, running, &valve).await);
    };
    tokio::select! {
        () = pump_input(read, stdin, &valve) => {}
        () = output => {}
    }
}

/// Input that a command has not read yet.
struct Queue<'a> {
    chunks: VecDeque<Bytes>,
    valve: &'a Valve,
}

impl Queue<'_> {
    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.valve.add(chunk.len());
            self.chunks.push_back(chunk);
        }
    }

    fn advance(&mut self, bytes: usize) {
        if let Some(front) = self.chunks.front_mut() {
            front.advance(bytes);
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.valve.remove(bytes);
    }

    fn clear(&mut self) {
        let bytes = self.chunks.drain(..).map(|chunk| chunk.len()).sum();
        self.valve.remove(bytes);
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What becomes of a command's stdin.
enum Stdin {
    NotYet(oneshot::Receiver<Option<ChildStdin>>),
    Open(ChildStdin),
    Closed,
}

/// Feeds the command until the channel is gone.
async fn pump_input(
    mut read: ChannelReadHalf,
    stdin: oneshot::Receiver<Option<ChildStdin>>,
    valve: &Valve,
) {
    let mut queue = Queue {
        chunks: VecDeque::new(),
        valve,
    };
    let mut stdin = Stdin::NotYet(stdin);
    let mut at_end = false;
    loop {
        if at_end && queue.chunks.is_empty() && matches!(stdin, Stdin::Open(_)) {
            stdin = Stdin::Closed;
        }
        let feed = async {
            match (&mut stdin, queue.chunks.front()) {
                (Stdin::NotYet(given), _) => Fed::Given(given.await.ok().flatten()),
                (Stdin::Open(stdin), Some(chunk)) => Fed::Wrote(stdin.write(chunk).await),
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
                Fed::Given(given) => stdin = given.map_or(Stdin::Closed, Stdin::Open),
                Fed::Wrote(Ok(bytes)) => queue.advance(bytes),
                Fed::Wrote(Err(_)) => {
                    // The command has closed its end; what else comes is for nobody.
                    stdin = Stdin::Closed;
                    queue.clear();
                }
            },
        }
    }
}

enum Fed {
    Given(Option<ChildStdin>),
    Wrote(io::Result<usize>),
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
struct Gone;

async fn wait_for(
    ended: &mut Option<oneshot::Receiver<std::process::ExitStatus>>,
) -> Option<Ending> {
    match ended {
        Some(ended) => ended.await.ok().map(Ending::from),
        None => std::future::pending().await,
    }
}

/// One of the two pipes that a command writes to.
struct Output<P> {
    pipe: Option<P>,
    buffer: BytesMut,
}

impl<P: AsyncRead + Unpin> Output<P> {
    fn new(pipe: Option<P>) -> Self {
        Self {
            pipe,
            buffer: BytesMut::new(),
        }
    }

    /// Reads what is there; nothing means that the pipe has ended. Nothing is lost when dropped early.
    async fn read(&mut self) -> Bytes {
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
async fn send(
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

async fn report(
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
