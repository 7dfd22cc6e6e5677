//! One stage's process: started as the Runner does, read to its last byte, stopped by its group.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::log::JobLog;
use super::verdict::Exit;

const CHUNK: usize = 64 * 1024;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Invocation<'a> {
    /// The program, the arguments that all stages share, and the stage's own.
    pub(super) words: &'a [OsString],
    /// Set on top of this process's own environment, later ones over earlier ones.
    pub(super) env: &'a [(OsString, OsString)],
    /// Taken out of this process's own environment first.
    pub(super) forget: &'a [OsString],
    /// The working directory.
    pub(super) directory: &'a Path,
}

/// How long a stage that was asked to end may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grace {
    /// From SIGTERM to SIGKILL.
    pub(super) term: Duration,
    /// From SIGKILL to giving up.
    pub(super) kill: Duration,
}

/// Where one of the two streams goes.
#[derive(Clone, Debug)]
pub(super) enum Sink {
    /// To the job log.
    Log(JobLog),
    /// To be kept whole.
    Keep,
}

/// How a stage ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// With which code or by which signal, as far as it is known.
    pub(super) exit: Exit,
    /// What was kept of its standard output.
    pub(super) stdout: Vec<u8>,
}

/// A stage under way.
#[derive(Debug)]
pub(super) struct Running {
    stop: mpsc::UnboundedSender<()>,
    task: JoinHandle<Ended>,
}

impl Running {
    /// Starts the process in a group of its own.
    pub(super) fn start(
        invocation: Invocation<'_>,
        stdout: Sink,
        stderr: Sink,
        grace: Grace,
    ) -> io::Result<Self> {
        let (program, args) = invocation
            .words
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(invocation.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for name in invocation.forget {
            command.env_remove(name);
        }
        command.envs(invocation.env.iter().map(|(name, value)| (name, value)));
        let child = command.spawn()?;
        let (stop, stops) = mpsc::unbounded_channel();
        let task = tokio::spawn(tend(child, stdout, stderr, stops, grace));
        Ok(Self { stop, task })
    }

    /// Asks the whole group to end. If that has no effect, SIGKILL follows.
    pub(super) fn stop(&self) {
        // Nobody listens any more once it has ended.
        let _ = self.stop.send(());
    }

    /// Waits for the end; may be dropped and called again.
    pub(super) async fn ended(&mut self) -> Ended {
        (&mut self.task).await.unwrap_or_else(|e| Ended {
            exit: Exit::Unknown(e.to_string()),
            stdout: Vec::new(),
        })
    }
}

/// Sees a process to its end: both streams closed and its exit code known.
async fn tend(
    mut child: Child,
    stdout: Sink,
    stderr: Sink,
    mut stops: mpsc::UnboundedReceiver<()>,
    grace: Grace,
) -> Ended {
    let pid = child.id();
    let group = pid
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let signal = |signal| {
        if let Some(group) = group {
            // It has ended already: there is nothing to stop.
            let _ = kill_process_group(group, signal);
        }
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (kept, _) = tokio::join!(drain(out, stdout), drain(err, stderr));
        // Reaped only now: until then the group's number cannot become anybody else's.
        (kept, child.wait().await)
    };
    tokio::pin!(work);
    let mut next: Option<(Instant, bool)> = None;
    loop {
        tokio::select! {
            (stdout, status) = &mut work => {
                let exit = status.map_or_else(|e| Exit::Unknown(e.to_string()), Exit::of);
                return Ended { exit, stdout };
            }
            Some(()) = stops.recv() => {
                signal(Signal::TERM);
                next = next.or(Some((Instant::now() + grace.term, false)));
            }
            killed = reached(next) => {
                if killed {
                    return Ended { exit: Exit::dormant(pid), stdout: Vec::new() };
                }
                signal(Signal::KILL);
                next = Some((Instant::now() + grace.kill, true));
            }
        }
    }
}

async fn reached(next: Option<(Instant, bool)>) -> bool {
    match next {
        Some((at, killed)) => {
            sleep_until(at).await;
            killed
        }
        None => std::future::pending().await,
    }
}

/// Reads a stream to its end, passing on every piece as it comes.
async fn drain(from: Option<impl AsyncRead + Unpin>, to: Sink) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else {
        return kept;
    };
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            Ok(n) if n > 0 => match &to {
                Sink::Log(log) => log.bytes(buffer[..n].to_vec()).await,
                Sink::Keep => kept.extend_from_slice(&buffer[..n]),
            },
            Ok(_) | Err(_) => return kept,
        }
    }
}
