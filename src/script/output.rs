//! The driver's standard output, written beside everything else: GitLab Runner may stop reading for a while,
//! and meanwhile connections, signals and the machine have to be looked after.

use std::fs::File;
use std::io::{self, Write};

use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{mpsc, oneshot};

/// How many pieces wait for the Runner; then the connection has to wait.
const PIECES: usize = 32;
/// How long each of them is at most: SSH's packets.
const PIECE: usize = 32 << 10;

/// The queue into standard output; dropping it lets the writer finish.
#[derive(Debug)]
pub(super) struct Output(mpsc::Sender<Bytes>);

/// How the writer ended.
#[derive(Debug)]
pub(super) struct Written {
    ended: oneshot::Receiver<bool>,
    /// Standard output once more, to hear of a reader that left while nothing is written.
    pipe: Option<Sender>,
}

/// Starts the writer; to be called inside the runtime.
pub(super) fn start() -> (Output, Written) {
    let (queue, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let (tell, ended) = oneshot::channel();
    // Unbuffered and not by std's line-wise handle: job output is bytes, and each piece goes out as it came.
    let out = || rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map(File::from);
    std::thread::spawn(move || {
        let written = out().is_ok_and(|mut file| {
            while let Some(piece) = pieces.blocking_recv() {
                if write(&mut file, &piece).is_err() {
                    return false;
                }
            }
            true
        });
        // Nobody listens once the stage has ended otherwise.
        tell.send(written).ok();
    });
    // Unchecked, because the check would make it non-blocking for all who share it; it is never written here.
    // A regular file cannot be watched, and has no reader that leaves.
    let pipe = out().ok().and_then(|f| Sender::from_file_unchecked(f).ok());
    (Output(queue), Written { ended, pipe })
}

impl Output {
    /// Puts bytes into the queue, waiting for room; what is in it is taken off them, also where this is dropped before its end.
    pub(super) async fn put(&self, bytes: &mut Bytes) {
        while !bytes.is_empty() {
            // A broken output is heard of by `Written::broken`.
            let Ok(room) = self.0.reserve().await else {
                return;
            };
            let length = bytes.len().min(PIECE);
            // Copied, so that a piece holds no more memory than its own: it may be one byte between a thousand frames.
            room.send(Bytes::copy_from_slice(&bytes[..length]));
            bytes.advance(length);
        }
    }
}

impl Written {
    /// Returns what waits for a writer that the test plays.
    #[cfg(test)]
    pub(super) fn of(ended: oneshot::Receiver<bool>) -> Self {
        Self { ended, pipe: None }
    }

    /// Resolves when standard output is broken: the Runner is gone, or does not want to know any more.
    pub(super) async fn broken(&mut self) {
        let reader_left = async {
            match &self.pipe {
                Some(pipe) => drop(pipe.ready(Interest::ERROR).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut self.ended => {}
            () = reader_left => {}
        }
    }

    /// Waits until everything is written, the queue being dropped; `false` where it cannot be.
    pub(super) async fn finished(&mut self) -> bool {
        matches!((&mut self.ended).await, Ok(true))
    }
}

fn write(out: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Whoever gave us this pipe may have set it non-blocking.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(out, PollFlags::OUT)], None)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
