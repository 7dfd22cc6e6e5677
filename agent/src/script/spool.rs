//! A script's output on disk until it was received: segments in files without a name.
//!
//! The copier's thread writes, followers read, receipts free what lies before them. Whoever waits for output waits for
//! [`Progress`]; the copier waits for its eventfd.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;
use tokio::sync::watch;

use super::place::Place;

/// How long a segment gets before the next one begins.
const SEGMENT: u64 = 16 << 20;

/// How much may wait to be received before the script has to.
const CAP: u64 = 64 << 20;

/// How the output ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The script ended, and all that it wrote is in the spool.
    Ended(Exit),
    /// Nobody knows how it ended.
    Gone,
    /// The disk took no more.
    Full,
}

/// How the script's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    /// The exit code, as a shell would tell it; nothing if it could not be learnt.
    pub(super) code: Option<u8>,
    /// How often the kernel killed for want of memory meanwhile.
    pub(super) kills: u64,
}

/// How far the output has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// How many bytes are in the spool, or were.
    pub(super) written: u64,
    /// Set once, after the last byte.
    pub(super) outcome: Option<Outcome>,
}

/// Where a follower is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Where the segment begins that it reads.
    pub(super) segment: u64,
    /// The byte that it sends next.
    pub(super) at: u64,
}

/// What a follower sends next.
#[derive(Debug)]
pub(super) enum Piece {
    /// That many bytes from that place of the file.
    Bytes(Arc<File>, u64, u64),
    /// The segment is complete, and the next one begins at this byte.
    Next,
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End(Outcome),
    /// The segment is freed.
    Missing,
}

/// What the copier does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Take what comes, at most that much.
    Copy(u64),
    /// Wait: enough is not received.
    Wait,
    /// The process has ended: take what is in the pipe now, and no more.
    Finish(Exit),
    /// Nothing is wanted any more: drop what comes.
    Drain,
}

/// The output of one script.
#[derive(Debug)]
pub(super) struct Spool {
    place: Place,
    name: String,
    progress: watch::Sender<Progress>,
    inner: Mutex<Inner>,
    wake: OwnedFd,
}

#[derive(Debug)]
struct Inner {
    segments: VecDeque<Segment>,
    /// Before this byte all has been received.
    received: u64,
    exit: Option<Exit>,
    forgotten: bool,
}

#[derive(Debug)]
struct Segment {
    start: u64,
    /// Where the next one begins, if it does.
    end: Option<u64>,
    file: Arc<File>,
}

impl Spool {
    /// Makes an empty spool whose files begin with `name`.
    pub(super) fn new(place: &Place, name: String) -> io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let first = Segment {
            start: 0,
            end: None,
            file: Arc::new(segment_file(place, &name, 0)?),
        };
        Ok(Self {
            place: place.clone(),
            name,
            progress: watch::Sender::new(Progress::default()),
            inner: Mutex::new(Inner {
                segments: VecDeque::from([first]),
                received: 0,
                exit: None,
                forgotten: false,
            }),
            wake,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn directory(&self) -> &Path {
        self.place.path()
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Becomes readable when the copier's wish may have changed.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn wake_copier(&self) {
        // Only a counter at its very end refuses, and then the copier is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Returns where a follower begins: at `offset`, or at the nearest byte that there is.
    pub(super) fn cursor(&self, offset: u64) -> Cursor {
        let written = self.progress.borrow().written;
        let inner = self.inner();
        let first = inner.segments.front().map_or(0, |segment| segment.start);
        let at = offset.min(written).max(first);
        let segment = inner.segments.iter().rev().find(|s| s.start <= at);
        Cursor {
            segment: segment.map_or(first, |segment| segment.start),
            at,
        }
    }

    /// Returns what comes next, at most `limit` bytes of it.
    pub(super) fn piece(&self, cursor: Cursor, limit: u64) -> Piece {
        let Cursor { segment, at } = cursor;
        // Before the look at the segments: there is nothing behind an outcome.
        let Progress { written, outcome } = self.progress.borrow().clone();
        let inner = self.inner();
        let Some(segment) = inner.segments.iter().find(|s| s.start == segment) else {
            return Piece::Missing;
        };
        let length = segment.end.unwrap_or(written).saturating_sub(at).min(limit);
        match (segment.end, outcome) {
            _ if length > 0 => Piece::Bytes(Arc::clone(&segment.file), at - segment.start, length),
            (Some(_), _) => Piece::Next,
            (None, Some(outcome)) => Piece::End(outcome),
            (None, None) => Piece::Nothing,
        }
    }

    /// Notes that all before that byte was received, and frees the segments before it.
    pub(super) fn receipt(&self, byte: u64) {
        let written = self.progress.borrow().written;
        let mut inner = self.inner();
        inner.received = inner.received.max(byte.min(written));
        let received = inner.received;
        let mut freed = Vec::new();
        // The last segment has no end, and stays.
        while inner
            .segments
            .front()
            .and_then(|segment| segment.end)
            .is_some_and(|end| end <= received)
        {
            freed.extend(inner.segments.pop_front());
        }
        drop(inner);
        self.wake_copier();
    }

    /// Says that the script's process has been reaped.
    pub(super) fn exited(&self, exit: Exit) {
        self.inner().exit = Some(exit);
        self.wake_copier();
    }

    /// Frees all files; what still comes is dropped.
    pub(super) fn forget(&self) {
        let mut inner = self.inner();
        inner.forgotten = true;
        let freed = std::mem::take(&mut inner.segments);
        drop(inner);
        drop(freed);
        self.wake_copier();
    }

    /// Returns what the copier does next.
    pub(super) fn wish(&self) -> Wish {
        let Progress { written, outcome } = self.progress.borrow().clone();
        let inner = self.inner();
        if inner.forgotten || outcome.is_some() {
            return Wish::Drain;
        }
        match inner.exit {
            Some(exit) => Wish::Finish(exit),
            None => match CAP.saturating_sub(written - inner.received) {
                0 => Wish::Wait,
                room => Wish::Copy(room),
            },
        }
    }

    /// Adds output. If the disk takes only a part, the spool ends with that part.
    pub(super) fn append(&self, mut data: &[u8]) {
        while !data.is_empty() {
            if let Err(error) = self.append_some(&mut data)
                && error.kind() != io::ErrorKind::Interrupted
            {
                self.end(Outcome::Full);
                return;
            }
        }
    }

    fn append_some(&self, data: &mut &[u8]) -> io::Result<()> {
        let written = self.progress.borrow().written;
        let inner = self.inner();
        let Some((start, file)) = inner
            .segments
            .back()
            .map(|s| (s.start, Arc::clone(&s.file)))
        else {
            // Forgotten.
            *data = &[];
            return Ok(());
        };
        drop(inner);
        let length = written - start;
        let some = data
            .len()
            .min(usize::try_from(SEGMENT - length).unwrap_or(data.len()));
        let count = file.write_at(&data[..some], length)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *data = &data[count..];
        let written = written + count as u64;
        // At once, so that it is told, and receipts free it, before more comes. And before the bytes are told: whoever
        // waits for them looks only then.
        let begun = if written - start == SEGMENT {
            self.begin_segment(written)
        } else {
            Ok(())
        };
        self.progress
            .send_modify(|progress| progress.written = written);
        begun
    }

    fn begin_segment(&self, start: u64) -> io::Result<()> {
        let file = Arc::new(segment_file(&self.place, &self.name, start)?);
        let mut inner = self.inner();
        if inner.forgotten {
            return Ok(());
        }
        if let Some(last) = inner.segments.back_mut() {
            last.end = Some(start);
        }
        inner.segments.push_back(Segment {
            start,
            end: None,
            file,
        });
        Ok(())
    }

    /// Says how the output ended; the first word counts.
    pub(super) fn end(&self, outcome: Outcome) {
        self.progress.send_modify(|progress| {
            progress.outcome.get_or_insert(outcome);
        });
    }
}

/// Makes a file that has no name any more.
fn segment_file(place: &Place, name: &str, start: u64) -> io::Result<File> {
    let (file, path) = place.new_file(&format!("{name}.o.{start}"))?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::place::ScriptFile;
    use super::super::request::Name;
    use super::*;

    /// Makes a spool in a directory of its own, which lives as long as the file.
    async fn spool() -> (tempfile::TempDir, ScriptFile, Spool) {
        let root = tempfile::tempdir().unwrap();
        let name = Name {
            key: "a".repeat(32),
            nonce: "b".repeat(32),
        };
        let parents = [root.path().to_owned()];
        let file = ScriptFile::reserve(&parents, &name, 0, 0).await.unwrap();
        let spool = Spool::new(file.place(), "x".to_owned()).unwrap();
        (root, file, spool)
    }

    fn read(spool: &Spool, cursor: &mut Cursor) -> (Vec<u8>, Vec<u64>) {
        let (mut bytes, mut nexts) = (Vec::new(), Vec::new());
        loop {
            match spool.piece(*cursor, 10_000_000) {
                Piece::Bytes(file, from, length) => {
                    let before = bytes.len();
                    bytes.resize(before + usize::try_from(length).unwrap(), 0);
                    file.read_exact_at(&mut bytes[before..], from).unwrap();
                    cursor.at += length;
                }
                Piece::Next => {
                    nexts.push(cursor.at);
                    cursor.segment = cursor.at;
                }
                Piece::Nothing | Piece::End(_) | Piece::Missing => return (bytes, nexts),
            }
        }
    }

    #[tokio::test]
    async fn segments_are_read_in_order_and_freed_by_receipts() {
        let (_root, file, spool) = spool().await;
        // No file has a name, and the script's own is the only one.
        let names = || std::fs::read_dir(file.place().path()).unwrap().count();
        let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i ^ (i >> 9)) as u8).collect();
        for _ in 0..40 {
            spool.append(&data);
        }
        assert_eq!(names(), 1);
        let (bytes, nexts) = read(&spool, &mut spool.cursor(0));
        assert!(bytes == data.repeat(40));
        assert_eq!(nexts, [SEGMENT, 2 * SEGMENT]);
        // Right at a border the next one is not told again.
        let (bytes, nexts) = read(&spool, &mut spool.cursor(SEGMENT));
        assert_eq!(bytes.len(), 24 << 20);
        assert_eq!(nexts, [2 * SEGMENT]);

        spool.receipt(SEGMENT - 1);
        assert_eq!(spool.cursor(0).at, 0);
        spool.receipt(SEGMENT + 1);
        assert_eq!(spool.cursor(0).at, SEGMENT);
        let early = Cursor { segment: 0, at: 5 };
        assert!(matches!(spool.piece(early, 1), Piece::Missing));
        assert_eq!(spool.cursor(u64::MAX).at, 40 << 20);
    }

    #[tokio::test]
    async fn the_cap_holds_until_a_receipt() {
        let (_root, _file, spool) = spool().await;
        let data = vec![7; 8 << 20];
        for _ in 0..8 {
            assert!(matches!(spool.wish(), Wish::Copy(_)));
            spool.append(&data);
        }
        assert_eq!(spool.wish(), Wish::Wait);
        spool.receipt(1);
        assert_eq!(spool.wish(), Wish::Copy(1));
        spool.append(&data);
        assert_eq!(spool.wish(), Wish::Wait);
        // Nobody can have received what was not written.
        spool.receipt(u64::MAX);
        spool.append(&data);
        assert!(matches!(spool.wish(), Wish::Copy(_)));
        let exit = Exit {
            code: Some(3),
            kills: 0,
        };
        spool.exited(exit);
        assert_eq!(spool.wish(), Wish::Finish(exit));
        spool.end(Outcome::Ended(exit));
        spool.end(Outcome::Full);
        assert_eq!(spool.wish(), Wish::Drain);
        let end = spool.cursor(u64::MAX);
        assert!(matches!(spool.piece(end, 1), Piece::End(Outcome::Ended(_))));
    }
}
