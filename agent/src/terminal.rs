//! A terminal for people who look into a job: off unless the driver asks for it, with the job's key.
//!
//! A shell or a command runs as the leader of a session of its own, whose controlling terminal is a
//! pseudoterminal; the channel carries the bytes of the other end. When the channel is closed the session
//! is hung up, as when somebody pulls the plug.

mod modes;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Pty};
use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Winsize};
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::channel::{self, Ends, Gone, Output};
use crate::exec::{Group, Launcher};
use crate::signals::Ending;
use crate::valve::Valve;

/// How long a terminal may be quiet after its shell ended until it counts as empty. The kernel hands bytes
/// over in the background; where nobody else holds the terminal it says when that was all.
const QUIET: Duration = Duration::from_millis(200);

/// How much is read at most after the shell has ended: more than the kernel keeps for a terminal. What
/// comes after that is of processes that the shell left behind.
const LAST_BYTES: usize = 256 << 10;

/// The longest name of a kind of terminal.
const MAX_TERM: usize = 64;

/// The longest value of a variable that a client may set.
const MAX_VALUE: usize = 256;

/// How many variables a client may set on a channel.
const MAX_VARIABLES: usize = 16;

/// What a client wishes before it starts something.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    terminal: Option<Looks>,
    env: Vec<(String, String)>,
}

#[derive(Debug)]
struct Looks {
    term: String,
    size: Winsize,
    modes: Vec<(Pty, u32)>,
}

impl Wishes {
    /// Takes the wish for a terminal; tells whether it can be granted. There is one to a channel.
    pub(crate) fn terminal(&mut self, term: &str, size: Winsize, modes: &[(Pty, u32)]) -> bool {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
        if self.terminal.is_some() || term.len() > MAX_TERM || !term.bytes().all(good) {
            return false;
        }
        self.terminal = Some(Looks {
            term: term.to_owned(),
            size,
            modes: modes.to_vec(),
        });
        true
    }

    /// Takes the wish for another size of a terminal that is not there yet.
    pub(crate) fn resize(&mut self, size: Winsize) -> bool {
        self.terminal
            .as_mut()
            .map(|looks| looks.size = size)
            .is_some()
    }

    /// Takes the wish for a variable; tells whether it can be granted. Only what says how people read
    /// and write may be set: anything else changes what programs do.
    pub(crate) fn env(&mut self, name: &str, value: &str) -> bool {
        let known = ["TERM", "LANG"].contains(&name)
            || name.strip_prefix("LC_").is_some_and(|rest| {
                (1..=MAX_TERM).contains(&rest.len())
                    && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
            });
        if !known || value.len() > MAX_VALUE || value.bytes().any(|byte| byte.is_ascii_control()) {
            return false;
        }
        self.env.retain(|(there, _)| there != name);
        if self.env.len() >= MAX_VARIABLES {
            return false;
        }
        self.env.push((name.to_owned(), value.to_owned()));
        true
    }

    /// Tells whether a terminal was wished for.
    pub(crate) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }
}

/// Returns a window's size; sizes that no terminal has become the largest or "unknown".
pub(crate) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Winsize {
    let short = |size| u16::try_from(size).unwrap_or(u16::MAX);
    Winsize {
        ws_row: short(rows),
        ws_col: short(columns),
        ws_xpixel: short(width),
        ws_ypixel: short(height),
    }
}

/// A session on a terminal, seen from its channel.
pub(crate) struct Running {
    master: Arc<Master>,
    screen: Receiver,
    keys: Sender,
    group: Arc<Group>,
    ended: oneshot::Receiver<ExitStatus>,
}

impl Running {
    /// The other end of the terminal. Whoever keeps it keeps the terminal.
    pub(crate) fn master(&self) -> &Arc<Master> {
        &self.master
    }
}

/// Starts a login shell, or a command, on a terminal of its own; an error says why it cannot, on one line.
pub(crate) fn start(
    launcher: &Launcher,
    wishes: &Wishes,
    command: Option<&[u8]>,
) -> Result<Running, String> {
    let looks = wishes
        .terminal
        .as_ref()
        .ok_or("no terminal was asked for\n")?;
    let (lead, words) = launcher
        .leader()
        .split_first()
        .ok_or("terminals cannot be opened here\n")?;
    let shell = launcher
        .shell_for_scripts()
        .ok_or("there is no shell in this image\n")?;
    let (program, shell_words) = shell
        .split_first()
        .ok_or("there is no shell in this image\n")?;
    // Of a busybox the word that follows says what it is.
    let name = shell.last().map(Path::new).and_then(Path::file_name);
    let name = name.unwrap_or(program);
    let (master, terminal) = open(looks).map_err(|e| format!("cannot open a terminal: {e}\n"))?;
    let (screen, keys) = master
        .ways()
        .map_err(|e| format!("cannot use a terminal: {e}\n"))?;
    let mut session = Command::new(lead);
    session.args(words).arg("--terminal").arg("--as");
    match command {
        // By this name a shell knows that it is a login shell.
        None if shell_words.is_empty() => {
            let mut login = OsString::from("-");
            login.push(name);
            session.arg(login).arg(program)
        }
        // A busybox goes by the name that it is called by.
        None => session.arg("-sh").arg(program),
        Some(command) => session
            .arg(name)
            .arg(program)
            .arg("-c")
            .arg(OsStr::from_bytes(command)),
    };
    launcher.surround(&mut session);
    session
        .env("SHELL", program)
        .envs(wishes.env.iter().map(|(name, value)| (name, value)));
    if !looks.term.is_empty() {
        session.env("TERM", &looks.term);
    }
    let [stdin, stdout, stderr] = terminal;
    session
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    let (running, group) = launcher
        .spawn(session)
        .map_err(|e| format!("cannot start {}: {e}\n", program.display()))?;
    Ok(Running {
        master: Arc::new(master),
        screen,
        keys,
        group,
        ended: running.ended,
    })
}

/// Opens a pseudoterminal; returns the end for the channel and three descriptors of the one for the session.
fn open(looks: &Looks) -> io::Result<(Master, [OwnedFd; 3])> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    // By the descriptor and not by its name: the image may have mounted another /dev/pts.
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::termios::tcsetwinsize(&terminal, looks.size)?;
    let mut modes = rustix::termios::tcgetattr(&terminal)?;
    modes::apply(&mut modes, &looks.modes);
    rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    let old = rustix::fs::fcntl_getfl(&master)?;
    rustix::fs::fcntl_setfl(&master, old | OFlags::NONBLOCK)?;
    let stdout = terminal.try_clone()?;
    let stderr = terminal.try_clone()?;
    Ok((Master(master), [terminal, stdout, stderr]))
}

/// The channel's end of a terminal. The terminal is hung up when the last copy is dropped.
#[derive(Debug)]
pub(crate) struct Master(OwnedFd);

impl Master {
    /// Returns what the session writes and where its input goes.
    fn ways(&self) -> io::Result<(Receiver, Sender)> {
        // To the runtime a terminal is like a pipe: it waits until there is something to read or room to write.
        let screen = Receiver::from_file_unchecked(File::from(self.0.try_clone()?))?;
        let keys = Sender::from_file_unchecked(File::from(self.0.try_clone()?))?;
        Ok((screen, keys))
    }

    /// Changes the window's size, which tells the programs on the terminal.
    pub(crate) fn resize(&self, size: Winsize) -> bool {
        rustix::termios::tcsetwinsize(&self.0, size).is_ok()
    }

    /// Sends a signal to what is in the foreground of the terminal, as its keys do.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        rustix::termios::tcgetpgrp(&self.0)
            .and_then(|group| rustix::process::kill_process_group(group, signal))
            .is_ok()
    }

    /// Returns the character that ends the input, where the terminal has one now.
    fn end_of_file(&self) -> Option<u8> {
        let modes = rustix::termios::tcgetattr(&self.0).ok()?;
        let code = modes.special_codes[SpecialCodeIndex::VEOF];
        (modes.local_modes.contains(LocalModes::ICANON) && code != 0).then_some(code)
    }
}

/// Where the input of a terminal goes.
struct Keys {
    sender: Sender,
    master: Arc<Master>,
}

impl AsyncWrite for Keys {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.sender).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sender).poll_flush(cx)
    }

    /// A terminal is not closed for writing; what reads from it is told that there is no more.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(code) = self.master.end_of_file() {
            // A terminal that takes no more input cannot be told either.
            drop(self.sender.try_write(&[code]));
        }
        Poll::Ready(Ok(()))
    }
}

/// Serves one channel until its session has ended or nobody looks any more.
pub(crate) async fn serve(ends: Ends, handle: Handle, running: Running) {
    let Running {
        master,
        screen,
        keys,
        group,
        mut ended,
    } = running;
    let Ends {
        read,
        write,
        early,
        at_end,
        valve,
    } = ends;
    let keys = Keys {
        sender: keys,
        master: Arc::clone(&master),
    };
    tokio::select! {
        () = channel::pump_input(read, early, at_end, Some(keys)) => {}
        // An error means that the connection is gone.
        done = show(&write, &handle, screen, &mut ended, &valve) => drop(done),
    }
    // The kernel tells the session's leader when the terminal goes; what runs in the foreground may not
    // be of the leader's group.
    master.signal(Signal::HUP);
    group.kill(Signal::HUP);
}

/// Sends what the session writes and how its leader ended, then closes the channel.
async fn show(
    write: &ChannelWriteHalf<Msg>,
    handle: &Handle,
    screen: Receiver,
    ended: &mut oneshot::Receiver<ExitStatus>,
    valve: &Valve,
) -> Result<(), Gone> {
    let mut output = Output::new(Some(screen));
    let status = loop {
        tokio::select! {
            data = output.read(), if output.pipe.is_some() => {
                channel::send(write, None, data, valve).await?;
            }
            status = &mut *ended => break status,
        }
    };
    let mut left = LAST_BYTES;
    while output.pipe.is_some() && left > 0 {
        let Ok(data) = timeout(QUIET, output.read()).await else {
            break;
        };
        left = left.saturating_sub(data.len());
        channel::send(write, None, data, valve).await?;
    }
    if let Ok(status) = status {
        channel::report(write, handle, Ending::from(status)).await?;
    }
    write.eof().await.map_err(|_| Gone)?;
    write.close().await.map_err(|_| Gone)
}
