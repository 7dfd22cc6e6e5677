//! Decides when a connection may be read from, and ends it on demand.
//!
//! The SSH library renews a channel's window as soon as data arrives, whether or not the command reads
//! it, and it stops everything on a connection while a channel's queue is full. A command that writes
//! before it reads (`cat` is enough) would then wait for us and we for it. So every channel takes in
//! what arrives at once, the bytes not yet read by commands are counted here, and above a bound the
//! connection is simply not read from any more, which makes the client wait while output still flows.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Input not yet read by commands at which a connection is no longer read from.
const FULL: usize = 8 << 20;

/// The same while output waits for the client to open its window: the permission is itself behind
/// input that must be read first. At this bound we wait for the command in any case.
const OVERFULL: usize = 64 << 20;

/// How much a client may send before it is logged in. A login takes 4 KiB; what comes in a flood of other
/// packets, key exchanges among them, costs the client a new connection now and then.
const BEFORE_LOGIN: usize = 64 << 10;

/// How often a full connection is read from a little all the same, so that a client that waits for its
/// command is not taken for dead.
const TRICKLE_EVERY: Duration = Duration::from_secs(20);

/// How much is read then.
const TRICKLE: usize = 64 << 10;

/// The valve of one connection, shared by its stream and its channels.
#[derive(Debug, Default)]
pub(crate) struct Valve(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queued: usize,
    starving: usize,
    cut: bool,
    /// What may still be read before the login; no bound after it.
    before_login: Option<usize>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    fn open(&self) -> bool {
        self.queued < FULL || (self.starving > 0 && self.queued < OVERFULL)
    }
}

impl Valve {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the valve of a client that has not logged in.
    pub(crate) fn before_login() -> Self {
        Self(Mutex::new(State {
            before_login: Some(BEFORE_LOGIN),
            ..State::default()
        }))
    }

    /// Says that the client has logged in.
    pub(crate) fn logged_in(&self) {
        self.state().before_login = None;
    }

    /// Counts bytes that came; fails when they are too many for a client that has not logged in.
    fn came(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.state();
        if let Some(left) = &mut state.before_login {
            *left = left.checked_sub(bytes).ok_or_else(cut)?;
        }
        Ok(())
    }

    /// Counts bytes that a channel has taken in.
    pub(crate) fn add(&self, bytes: usize) {
        self.state().queued += bytes;
    }

    /// Counts bytes that a command has read or that nobody will read.
    pub(crate) fn remove(&self, bytes: usize) {
        let mut state = self.state();
        state.queued = state.queued.saturating_sub(bytes);
        Self::wake_if_open(state);
    }

    /// Says that output waits for the client's window, for as long as the answer is kept.
    pub(crate) fn starving(&self) -> Starving<'_> {
        let mut state = self.state();
        state.starving += 1;
        Self::wake_if_open(state);
        Starving(self)
    }

    /// Ends the connection: all reading and writing fails from now on.
    pub(crate) fn cut(&self) {
        let mut state = self.state();
        state.cut = true;
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn wake_if_open(mut state: MutexGuard<'_, State>) {
        let waker = if state.open() {
            state.reader.take()
        } else {
            None
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Keeps the valve open further while it lives; see [`Valve::starving`].
pub(crate) struct Starving<'a>(&'a Valve);

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.starving = state.starving.saturating_sub(1);
    }
}

/// A stream that obeys a valve.
pub(crate) struct Valved<S> {
    stream: S,
    valve: Arc<Valve>,
    trickle: Interval,
    allowance: usize,
}

impl<S> Valved<S> {
    pub(crate) fn new(stream: S, valve: Arc<Valve>) -> Self {
        let mut trickle = interval_at(Instant::now() + TRICKLE_EVERY, TRICKLE_EVERY);
        trickle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stream,
            valve,
            trickle,
            allowance: 0,
        }
    }

    /// Fails when the connection has been cut, else sees to it that a cut wakes the writer.
    fn check_writer(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut state = self.valve.state();
        if state.cut {
            return Err(cut());
        }
        remember(&mut state.writer, cx);
        Ok(())
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server hung up")
}

impl<S: AsyncRead + Unpin> AsyncRead for Valved<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let open = {
            let mut state = this.valve.state();
            if state.cut {
                return Poll::Ready(Err(cut()));
            }
            remember(&mut state.reader, cx);
            state.open()
        };
        if !open && this.allowance == 0 {
            ready!(this.trickle.poll_tick(cx));
            this.allowance = TRICKLE;
        }
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        let bytes = buf.filled().len().saturating_sub(before);
        this.allowance = this.allowance.saturating_sub(bytes);
        Poll::Ready(result.and_then(|()| this.valve.came(bytes)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Valved<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_writer(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_writer(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn readable(stream: &mut Valved<tokio::io::DuplexStream>) -> bool {
        let mut byte = [0];
        tokio::select! {
            biased;
            read = stream.read(&mut byte) => read.is_ok(),
            () = tokio::task::yield_now() => false,
        }
    }

    #[tokio::test]
    async fn a_full_valve_stops_reading_and_opens_again() {
        let valve = Arc::new(Valve::default());
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = Valved::new(near, Arc::clone(&valve));
        far.write_all(&[7; 32]).await.unwrap();
        assert!(readable(&mut stream).await);

        valve.add(FULL);
        assert!(!readable(&mut stream).await);
        let starving = valve.starving();
        assert!(readable(&mut stream).await);
        drop(starving);
        assert!(!readable(&mut stream).await);
        valve.remove(1);
        assert!(readable(&mut stream).await);

        valve.add(OVERFULL);
        let _starving = valve.starving();
        assert!(!readable(&mut stream).await);
        stream.trickle.reset_immediately();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn before_the_login_little_is_read() {
        for logged_in in [false, true] {
            let valve = Arc::new(Valve::before_login());
            let (near, mut far) = tokio::io::duplex(BEFORE_LOGIN + 1);
            let mut stream = Valved::new(near, Arc::clone(&valve));
            far.write_all(&[7; BEFORE_LOGIN + 1]).await.unwrap();
            let mut all = [0; BEFORE_LOGIN];
            stream.read_exact(&mut all).await.unwrap();
            if logged_in {
                valve.logged_in();
            }
            assert_eq!(stream.read_u8().await.is_ok(), logged_in);
        }
    }

    #[tokio::test]
    async fn a_cut_wakes_a_waiting_reader() {
        let valve = Arc::new(Valve::default());
        let (near, _far) = tokio::io::duplex(64);
        let mut stream = Valved::new(near, Arc::clone(&valve));
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        valve.cut();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
