//! The end of a machine under a script: what has still come of its output, and whether its result is known all the same.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::follow::{Connection, Ended, Progress, guarded};
use super::frames::{Frame, Item, Scanner};
use super::notice;
use super::output::Output;
use crate::error::Error;
use crate::script::command_channel::CommandChannel;
use crate::script::interruptions::{Interruption, Interruptions, Stopped};
use crate::ssh::session::Event;

type Result<T> = std::result::Result<T, Stopped>;

/// How long a machine that is gone may still speak, and the Runner take to read what it said.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much of what it said waits for a Runner that reads late; what is more is handed on as it comes, to a Runner that reads.
const KEPT: usize = 1 << 20;
/// It waits in pieces of that size, however small those were in which it came: each costs more than it holds.
const PIECE: usize = 32 << 10;

/// Hands bytes on. Returns why the machine is gone, where that comes first: what is left of them is still to be handed on then.
pub(super) async fn put(
    interruptions: &mut Interruptions,
    output: &Output,
    bytes: &mut Bytes,
) -> Result<Option<Error>> {
    let mut putting = pin!(output.put(bytes));
    loop {
        tokio::select! {
            biased;
            interruption = interruptions.next() => {
                if let Interruption::Machine(error) = interruption? {
                    return Ok(Some(error));
                }
            }
            () = &mut putting => return Ok(None),
        }
    }
}

/// What the connection of a machine that is gone still holds.
pub(super) struct FinalOutput {
    channel: CommandChannel,
    stdout: Scanner,
    /// Output that is being handed on.
    first: Bytes,
    /// What comes after that.
    rest: VecDeque<BytesMut>,
    ended: Option<Ended>,
}

impl FinalOutput {
    pub(super) fn new(channel: CommandChannel, stdout: Scanner, put: Bytes) -> Self {
        Self {
            channel,
            stdout,
            first: put,
            rest: VecDeque::new(),
            ended: None,
        }
    }

    /// Hands on what has still come. A result that had come before the machine's end was known counts, however late the Runner
    /// reads; of what comes after it, success alone: any other code may be the end's own doing.
    pub(super) async fn read_on(
        mut self,
        gone: Error,
        interruptions: &mut Interruptions,
        progress: &mut Progress,
        output: &Output,
    ) -> Result<Connection> {
        // A machine that is said to be gone and talks on all the same has the same time for that as for the rest.
        drop(timeout(LAST_WORDS, self.listen(Duration::ZERO, progress, output)).await);
        let mut counts = self
            .ended
            .is_some_and(|ended| !notice::is_a_signals(ended.code));
        if self.ended.is_none() {
            // Such a connection usually breaks at once; where it does not, nothing more comes.
            drop(timeout(LAST_WORDS, self.listen(LAST_WORDS, progress, output)).await);
            counts = self.ended.is_some_and(|ended| ended.code == 0);
        }
        let put = async {
            output.put(&mut self.first).await;
            for piece in self.rest {
                output.put(&mut piece.freeze()).await;
            }
        };
        match self.ended.filter(|_| counts) {
            Some(ended) => {
                guarded(interruptions, put).await?;
                Ok(Connection::Ended(ended, self.channel))
            }
            None => {
                drop(timeout(LAST_WORDS, put).await);
                Err(gone.into())
            }
        }
    }

    /// Takes what comes until the script's end, or until nothing has come for so long. What is more than may be kept is handed
    /// on at once.
    async fn listen(&mut self, patience: Duration, progress: &mut Progress, output: &Output) {
        loop {
            self.take(progress);
            if self.ended.is_some() {
                return;
            }
            while self.rest.len() > KEPT / PIECE {
                output.put(&mut self.first).await;
                self.first = self.rest.pop_front().unwrap_or_default().freeze();
            }
            match timeout(patience, self.more()).await {
                Ok(Some(data)) => self.stdout.push(&data),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn keep(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut last = match self.rest.pop_back() {
                Some(last) if last.len() < PIECE => last,
                full => {
                    self.rest.extend(full);
                    BytesMut::with_capacity(PIECE)
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - last.len()));
            last.extend_from_slice(now);
            self.rest.push_back(last);
            bytes = later;
        }
    }

    /// Returns what comes next on standard output; nothing at the connection's end.
    async fn more(&mut self) -> Option<Bytes> {
        loop {
            match self.channel.receiver.next().await {
                Event::Out(data) => return Some(data),
                Event::Err(_) => {}
                Event::Lost | Event::Ended => return None,
            }
        }
    }

    /// Takes what has come.
    fn take(&mut self, progress: &mut Progress) {
        while self.ended.is_none()
            && let Ok(Some(item)) = self.stdout.take()
        {
            match item {
                Item::Bytes(bytes) => {
                    progress.offset += bytes.len() as u64;
                    self.keep(&bytes);
                }
                Item::Frame(Frame::End(code, memory_kills)) => {
                    self.ended = Some(Ended { code, memory_kills });
                }
                Item::Frame(_) => {}
            }
        }
    }
}
