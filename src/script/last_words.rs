//! The end of a machine under a script: what has still come of its output, and whether its result is known all the same.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::follow::{Connection, Ended, Line, Progress, guarded};
use super::frames::{Frame, Item, Scanner};
use super::notice;
use super::output::Output;
use super::world::{Interruption, Stopped, World};
use crate::error::Error;
use crate::ssh::session::Event;

type Result<T> = std::result::Result<T, Stopped>;

/// How long a machine that is gone may still speak, and the Runner take to read what it said.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Hands bytes on. Returns why the machine is gone, where that comes first: they are still to be handed on then.
pub(super) async fn put(
    world: &mut World,
    output: &Output,
    bytes: &Bytes,
) -> Result<Option<Error>> {
    let mut putting = pin!(output.put(bytes.clone()));
    loop {
        tokio::select! {
            biased;
            interruption = world.next() => {
                if let Interruption::Machine(error) = interruption? {
                    return Ok(Some(error));
                }
            }
            () = &mut putting => return Ok(None),
        }
    }
}

/// What the connection of a machine that is gone still holds.
pub(super) struct LastWords {
    pub(super) line: Line,
    pub(super) stdout: Scanner,
    /// Output that is not handed on yet.
    pub(super) put: Vec<Bytes>,
}

impl LastWords {
    /// Hands on what has still come. A result that had come before the machine's end was known counts, however late the Runner
    /// reads; of what comes after it, success alone: any other code may be the end's own doing.
    pub(super) async fn heed(
        mut self,
        gone: Error,
        world: &mut World,
        progress: &mut Progress,
        output: &Output,
    ) -> Result<Connection> {
        let mut ended = self.take(progress);
        while ended.is_none()
            && let Ok(Some(data)) = timeout(Duration::ZERO, self.more()).await
        {
            self.stdout.push(&data);
            ended = self.take(progress);
        }
        let mut counts = ended.is_some_and(|ended| !notice::is_a_signals(ended.code));
        if ended.is_none() {
            let more = async {
                while ended.is_none()
                    && let Some(data) = self.more().await
                {
                    self.stdout.push(&data);
                    ended = self.take(progress);
                }
            };
            // Such a connection usually breaks at once; where it does not, nothing more comes.
            drop(timeout(LAST_WORDS, more).await);
            counts = ended.is_some_and(|ended| ended.code == 0);
        }
        let put = async {
            for bytes in self.put {
                output.put(bytes).await;
            }
        };
        match ended.filter(|_| counts) {
            Some(ended) => {
                guarded(world, put).await?;
                Ok(Connection::Ended(ended, self.line))
            }
            None => {
                drop(timeout(LAST_WORDS, put).await);
                Err(gone.into())
            }
        }
    }

    /// Returns what comes next on standard output; nothing at the connection's end.
    async fn more(&mut self) -> Option<Bytes> {
        loop {
            match self.line.receiver.next().await {
                Event::Out(data) => return Some(data),
                Event::Err(_) => {}
                Event::Lost | Event::Ended => return None,
            }
        }
    }

    /// Takes what has come; returns how the script ended, where that is among it.
    fn take(&mut self, progress: &mut Progress) -> Option<Ended> {
        while let Ok(Some(item)) = self.stdout.take() {
            match item {
                Item::Bytes(bytes) => {
                    progress.offset += bytes.len() as u64;
                    self.put.push(bytes);
                }
                Item::Frame(Frame::End(code, memory_kills)) => {
                    return Some(Ended { code, memory_kills });
                }
                Item::Frame(_) => {}
            }
        }
        None
    }
}
