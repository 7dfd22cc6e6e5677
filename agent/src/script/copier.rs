//! The thread that takes a script's output out of the pipe.
//!
//! It has a thread so that a slow disk holds up this script and nothing else.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

use super::spool::{Outcome, Spool, Wish};

/// How much is read at once: as much as a pipe takes.
const CHUNK: usize = 64 << 10;

/// What the thread needs besides its buffer.
const STACK: usize = 64 << 10;

/// Starts copying. The thread ends when nobody holds the pipe's other end any more.
pub(super) fn start(pipe: OwnedFd, spool: Arc<Spool>) -> io::Result<()> {
    // A script can open the pipe for itself and take bytes out of it: a read that was promised bytes must not wait.
    rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
    let copier = Copier {
        pipe: File::from(pipe),
        spool,
        buffer: vec![0; CHUNK],
        at_end: false,
    };
    std::thread::Builder::new()
        .name("copier".to_owned())
        .stack_size(STACK)
        .spawn(move || copier.run())
        .map(drop)
}

struct Copier {
    pipe: File,
    spool: Arc<Spool>,
    buffer: Vec<u8>,
    /// Nobody can write into the pipe any more.
    at_end: bool,
}

impl Copier {
    fn run(mut self) {
        loop {
            match self.spool.wish() {
                Wish::Copy(room) => {
                    let room = usize::try_from(room).unwrap_or(CHUNK);
                    let count = self.read(room.min(CHUNK));
                    if count > 0 {
                        self.spool.append(&self.buffer[..count]);
                    } else {
                        self.wait(!self.at_end);
                    }
                }
                Wish::Wait => self.wait(false),
                Wish::Finish(exit) => {
                    self.finish();
                    let outcome = match exit.code {
                        Some(_) => Outcome::Ended(exit),
                        None => Outcome::Gone,
                    };
                    self.spool.end(outcome);
                }
                Wish::Drain if self.at_end => return,
                Wish::Drain => {
                    if self.read(CHUNK) == 0 && !self.at_end {
                        self.wait(true);
                    }
                }
            }
        }
    }

    /// Takes what the script has left in the pipe. Others may go on writing: what comes later is not the script's.
    fn finish(&mut self) {
        let waiting = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0);
        let mut left = usize::try_from(waiting).unwrap_or(0);
        while left > 0 {
            let count = self.read(left.min(CHUNK));
            if count == 0 {
                // Somebody else has taken them.
                return;
            }
            self.spool.append(&self.buffer[..count]);
            left -= count;
        }
    }

    /// Reads what is there; 0 if nothing is for now or ever.
    fn read(&mut self, limit: usize) -> usize {
        loop {
            match self.pipe.read(&mut self.buffer[..limit]) {
                Ok(0) => self.at_end = true,
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.at_end = true,
            }
            return 0;
        }
    }

    /// Waits until the wish may have changed, or the pipe has something.
    fn wait(&self, for_pipe: bool) {
        let wake = self.spool.wake();
        let mut fds = [
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
            PollFd::new(&self.pipe, PollFlags::IN),
        ];
        let watched = if for_pipe {
            &mut fds[..]
        } else {
            &mut fds[..1]
        };
        // A signal's interruption is a reason to look, too.
        let _ = poll(watched, None);
        let mut count = [0; 8];
        let _ = rustix::io::read(wake, &mut count);
    }
}
