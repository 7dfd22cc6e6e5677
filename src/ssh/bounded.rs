//! The byte stream below russh, with limits on what a server can do.
//!
//! It adds three limits to russh. Lines before the version are skipped ([`super::lines_before_version`]). As bytes arrive, the
//! memory of the stage is checked ([`super::memory_limit`]). And a connection that was dropped ends, even if its server sends
//! for ever: russh's task would go on reading, since it does not check for that during the key exchange.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::lines_before_version::{LinesBeforeVersion, VERSION};
use super::memory_limit::MemoryLimit;

/// How many bytes arrive between two checks of the memory; each takes some microseconds.
const LOOK: usize = 512 << 10;
/// How many bytes of a dropped connection are still read, until it has said goodbye.
const PARTING_BYTES: usize = 64 << 10;
/// For how long.
const PARTING_TIME: Duration = Duration::from_secs(2);

/// Keeps a connection open until it is dropped.
#[derive(Debug)]
pub(super) struct KeepOpen {
    _alive: Arc<()>,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    memory_limit: MemoryLimit,
    held: Weak<()>,
    /// When it was first seen to be dropped, and how much was read since.
    parting: Option<(Instant, usize)>,
    unlooked: usize,
    /// Until the version has begun.
    greeting: Option<LinesBeforeVersion>,
    /// The bytes that came with the beginning of the version.
    rest: Bytes,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, memory_limit: &MemoryLimit) -> (Self, KeepOpen) {
        let alive = Arc::new(());
        let bounded = Self {
            stream,
            memory_limit: memory_limit.clone(),
            held: Arc::downgrade(&alive),
            parting: None,
            unlooked: 0,
            greeting: Some(LinesBeforeVersion::default()),
            rest: Bytes::new(),
        };
        (bounded, KeepOpen { _alive: alive })
    }

    /// Counts received bytes. Returns `false` if the connection was dropped and has gone on for long enough.
    fn came(&mut self, bytes: usize) -> io::Result<bool> {
        self.unlooked += bytes;
        if self.unlooked >= LOOK {
            self.unlooked = 0;
            self.memory_limit.look().map_err(io::Error::other)?;
        }
        if self.held.strong_count() > 0 {
            return Ok(true);
        }
        let (since, read) = self.parting.get_or_insert_with(|| (Instant::now(), 0));
        *read += bytes;
        Ok(*read <= PARTING_BYTES && since.elapsed() <= PARTING_TIME)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while let Some(greeting) = &mut this.greeting {
            let mut space = [0; 512];
            let mut piece = ReadBuf::new(&mut space);
            let came = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece));
            let piece = piece.filled();
            if piece.is_empty()
                && let Some(words) = greeting.last()
            {
                let kind = io::ErrorKind::ConnectionAborted;
                return Poll::Ready(Err(io::Error::new(kind, words)));
            }
            came?;
            let passed = greeting.pass(piece);
            if let Some(at) = passed.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
                this.greeting = None;
                this.rest = [VERSION, &piece[at..]].concat().into();
            }
            if piece.is_empty() || !this.came(piece.len())? {
                return Poll::Ready(Ok(()));
            }
        }
        if !this.rest.is_empty() {
            let length = this.rest.len().min(into.remaining());
            into.put_slice(&this.rest[..length]);
            this.rest.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
        let came = this.came(into.filled().len() - before);
        if !matches!(came, Ok(true)) {
            // As if it had been closed, or had failed.
            into.set_filled(before);
        }
        Poll::Ready(came.map(drop))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that says this, and then zeros for ever.
    async fn flood(first: &str) -> tokio::io::DuplexStream {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let first = first.to_owned();
        tokio::spawn(async move {
            theirs.write_all(first.as_bytes()).await.ok();
            while theirs.write_all(&[0; 1 << 16]).await.is_ok() {}
        });
        ours
    }

    #[tokio::test]
    async fn the_lines_before_the_version_never_come_through() {
        let before = "wait\r\n".repeat(40) + &"x".repeat(400) + "\n";
        let stream = flood(&format!("{before}SSH-2.0-x\r\n")).await;
        let (mut bounded, _hold) = Bounded::new(stream, &MemoryLimit::of(u64::MAX));
        let mut read = [0; 13];
        bounded.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"SSH-2.0-x\r\n\0\0");
    }

    #[tokio::test]
    async fn a_connection_that_nobody_holds_ends() {
        let stream = flood("SSH-2.0-x\r\n").await;
        let (mut bounded, hold) = Bounded::new(stream, &MemoryLimit::of(u64::MAX));
        let mut read = vec![0; 1 << 20];
        bounded.read_exact(&mut read).await.unwrap();
        drop(hold);
        let mut rest = Vec::new();
        bounded.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() <= PARTING_BYTES, "{}", rest.len());
    }

    #[tokio::test(start_paused = true)]
    async fn nor_does_a_slow_one_go_on() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        tokio::spawn(async move {
            theirs.write_all(b"SSH-").await.ok();
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let (mut bounded, hold) = Bounded::new(ours, &MemoryLimit::of(u64::MAX));
        drop(hold);
        let began = Instant::now();
        let mut rest = Vec::new();
        bounded.read_to_end(&mut rest).await.unwrap();
        assert!(began.elapsed() <= 2 * PARTING_TIME, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn memory_is_looked_at_as_bytes_come() {
        let stream = flood("SSH-2.0-x\r\n").await;
        let memory_limit = MemoryLimit::of(1);
        let (mut bounded, _hold) = Bounded::new(stream, &memory_limit);
        let mut read = Vec::new();
        let error = bounded.read_to_end(&mut read).await.unwrap_err();
        assert!(error.to_string().contains("MiB of memory"), "{error}");
        assert!(read.len() <= 4 * LOOK, "{}", read.len());
        assert!(memory_limit.crossed().is_some());
    }

    #[tokio::test]
    async fn a_greeting_without_end_is_an_error() {
        let stream = flood("").await;
        let (mut bounded, _hold) = Bounded::new(stream, &MemoryLimit::of(u64::MAX));
        let error = bounded.read(&mut [0; 16]).await.unwrap_err();
        assert!(
            error.to_string().contains("before its SSH version"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_a_server_says_that_turns_away_before_its_version_is_kept() {
        for (said, last) in [
            (
                "Hello\nNot allowed at this time\r\n",
                Some("Not allowed at this time"),
            ),
            ("Exceeded MaxStartups", Some("Exceeded MaxStartups")),
            ("\r\n", None),
        ] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            theirs.write_all(said.as_bytes()).await.unwrap();
            drop(theirs);
            let (mut bounded, _hold) = Bounded::new(ours, &MemoryLimit::of(u64::MAX));
            let done = bounded.read(&mut [0; 16]).await;
            let words = done.map_err(|error| error.to_string()).err();
            assert_eq!(words.as_deref(), last, "{said}");
        }
    }
}
