//! What a client sends on a channel: taken in at once, read in pieces or lines later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::Notify;

use super::request::LINE_LIMIT;
use crate::channel::Queue;

/// What a client has sent and nobody has read yet.
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    queue: Queue,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// What comes is for nobody.
    deaf: bool,
}

/// What there is of the next line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it, without its end.
    Whole(Vec<u8>),
    /// It is longer than any line may be.
    TooLong,
    /// The client has sent its last byte.
    End,
}

impl Inbox {
    pub(super) fn new(early: Queue, at_end: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                queue: early,
                line: Vec::new(),
                ended: at_end,
                deaf: false,
            }),
            changed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in all that comes, until the channel is gone.
    pub(super) async fn fill(&self, mut read: ChannelReadHalf) {
        loop {
            let message = read.wait().await;
            let mut state = self.state();
            match message {
                Some(ChannelMsg::Data { data }) if !state.deaf && !state.ended => {
                    state.queue.push(data);
                }
                Some(ChannelMsg::Eof) => state.ended = true,
                Some(ChannelMsg::Close) | None => {
                    state.ended = true;
                    drop(state);
                    self.changed.notify_waiters();
                    return;
                }
                Some(_) => continue,
            }
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Drops what is there and what still comes.
    pub(super) fn deafen(&self) {
        let mut state = self.state();
        state.deaf = true;
        state.queue.clear();
    }

    /// Waits until all that is there has been read.
    pub(super) async fn is_drained(&self) {
        self.when(|state| state.queue.front().is_none().then_some(()))
            .await;
    }

    /// Returns the next bytes, at most `limit`; nothing after the last one.
    pub(super) async fn take(&self, limit: u64) -> Option<Bytes> {
        self.when(|state| match state.queue.some(limit) {
            Some(bytes) => Some(Some(bytes)),
            None => state.ended.then_some(None),
        })
        .await
    }

    /// Returns the next line. Nothing is lost when dropped early.
    pub(super) async fn line(&self) -> Line {
        self.when(State::line).await
    }

    async fn when<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Made before the look: what changes after it is not missed.
            let changed = self.changed.notified();
            let (found, is_empty) = {
                let mut state = self.state();
                (look(&mut state), state.queue.front().is_none())
            };
            if let Some(found) = found {
                if is_empty {
                    // For whoever waits until all is read.
                    self.changed.notify_waiters();
                }
                return found;
            }
            changed.await;
        }
    }
}

impl State {
    fn line(&mut self) -> Option<Line> {
        loop {
            let room = (LINE_LIMIT + 1).saturating_sub(self.line.len());
            if room == 0 {
                return Some(Line::TooLong);
            }
            let Some(front) = self.queue.front() else {
                return self.ended.then_some(Line::End);
            };
            let seen = &front[..front.len().min(room)];
            let end = seen.iter().position(|byte| *byte == b'\n');
            let count = end.unwrap_or(seen.len());
            self.line.extend_from_slice(&seen[..count]);
            self.queue.advance(count + usize::from(end.is_some()));
            if end.is_some() {
                return Some(Line::Whole(std::mem::take(&mut self.line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::valve::Valve;

    fn inbox(pieces: &[&[u8]], at_end: bool) -> Arc<Inbox> {
        let mut queue = Queue::new(Arc::new(Valve::default()));
        for piece in pieces {
            queue.push(Bytes::copy_from_slice(piece));
        }
        Inbox::new(queue, at_end)
    }

    #[tokio::test]
    async fn lines_are_whole_however_they_are_cut() {
        let text = b"start a\nbytes\nack 1\n\ncancel";
        for cut in 0..text.len() {
            let inbox = inbox(&[&text[..cut], &text[cut..]], true);
            assert_eq!(inbox.line().await, Line::Whole(b"start a".to_vec()));
            let mut bytes = Vec::new();
            while bytes.len() < 6 {
                let left = 6 - bytes.len() as u64;
                bytes.extend_from_slice(&inbox.take(left).await.unwrap());
            }
            assert_eq!(bytes, b"bytes\n");
            assert_eq!(inbox.line().await, Line::Whole(b"ack 1".to_vec()));
            assert_eq!(inbox.line().await, Line::Whole(Vec::new()));
            // Cut off, so it is no line.
            assert_eq!(inbox.line().await, Line::End);
            assert_eq!(inbox.take(1).await, None);
        }
    }

    #[tokio::test]
    async fn a_line_has_a_limit() {
        let mut longest = vec![b'x'; LINE_LIMIT];
        longest.push(b'\n');
        let inbox_of = |line: &[u8]| inbox(&line.chunks(7).collect::<Vec<_>>(), false);
        let line = inbox_of(&longest).line().await;
        assert_eq!(line, Line::Whole(longest[..LINE_LIMIT].to_vec()));
        longest.insert(0, b'x');
        assert_eq!(inbox_of(&longest).line().await, Line::TooLong);
    }
}
