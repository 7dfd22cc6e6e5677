//! One script: its start, what is known of it, and its traces.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::ending::{Ending, Verdict};
use super::place::{NoPlace, ScriptFile};
use super::request::Name;
use super::session::Leader;
use super::spool::{Exit, Outcome, Spool};
use super::{copier, memory};
use crate::agent::Agent;
use crate::lead::NONCE;
use crate::life::Hold;
use crate::signals::Commands;

/// How many processes must be free for a script: it would fail of fewer, and what earlier ones left may have taken all.
const FREE_PROCESSES: usize = 16;

/// What one of the threads needs that take a process's place for a moment.
const STACK: usize = 64 << 10;

/// A script that was started and is not forgotten.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: Name,
    pub(super) spool: Arc<Spool>,
    leader: Leader,
    kills_before: u64,
    ending: Ending,
    /// The number of the follower whose turn it is.
    turn: watch::Sender<u64>,
    traces: Mutex<Option<Traces>>,
}

/// What goes when the script is forgotten.
#[derive(Debug)]
struct Traces {
    _file: ScriptFile,
    _hold: Hold,
}

/// How a script is to be started.
pub(super) struct Plan {
    pub(super) name: Name,
    pub(super) file: ScriptFile,
    /// Tells the files of several starts apart.
    pub(super) tag: u64,
    /// The program that reads the file, with its first arguments.
    pub(super) shell: Vec<OsString>,
    pub(super) umask: Option<u32>,
}

impl Script {
    /// Starts a script. If that fails, nothing of it is left.
    pub(super) fn start(
        agent: &Agent,
        commands: &Commands,
        plan: Plan,
    ) -> Result<Arc<Self>, NoPlace> {
        let Plan {
            name,
            file,
            tag,
            shell,
            umask,
        } = plan;
        let (program, first) = agent.scripts.leader().split_first().ok_or_else(|| {
            let why = "no program makes a script the leader of a session";
            NoPlace::Full(why.to_owned())
        })?;
        file.complete()?;
        if !can_run(FREE_PROCESSES) {
            return Err(NoPlace::Crowded);
        }
        let refuse = |error: io::Error| file.refusal(&error);
        let spool = Spool::new(file.place(), format!("{}.{tag}", name.nonce)).map_err(refuse)?;
        let spool = Arc::new(spool);
        let (pipe, out) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| refuse(error.into()))?;
        let err = out.try_clone().map_err(refuse)?;
        copier::start(pipe, Arc::clone(&spool)).map_err(refuse)?;

        let mut command = Command::new(program);
        command
            .args(first)
            .arg(format!("{NONCE}{}", name.nonce))
            .args(umask.map(|mask| format!("--umask={mask:o}")))
            .args(shell)
            .arg(file.path());
        agent.launcher.surround(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(false);
        let kills_before = memory::kills();
        let mut reserved = commands.lock();
        let child = command.spawn().map_err(|error| {
            spool.forget();
            refuse(error)
        })?;
        let number = child.id().and_then(|id| i32::try_from(id).ok());
        reserved.extend(number);
        drop(reserved);
        // It holds the pipe's other end.
        drop(command);

        let script = Arc::new(Self {
            name,
            spool,
            leader: Leader::new(number.unwrap_or(0)),
            kills_before,
            ending: Ending::default(),
            turn: watch::Sender::new(0),
            traces: Mutex::new(Some(Traces {
                _file: file,
                _hold: agent.life.hold(),
            })),
        });
        tokio::spawn(Arc::clone(&script).watch(child, number, commands.clone()));
        Ok(script)
    }

    /// Waits for the script's process, and ends its session if its output can no longer be kept.
    async fn watch(self: Arc<Self>, mut child: Child, number: Option<i32>, commands: Commands) {
        let mut progress = self.spool.progress();
        let full = async {
            let is_full = |it: &super::spool::Progress| it.outcome == Some(Outcome::Full);
            if progress.wait_for(is_full).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let status = tokio::select! {
            status = child.wait() => status,
            () = full => {
                drop(self.end(Duration::ZERO));
                child.wait().await
            }
        };
        if let Some(number) = number {
            commands.lock().remove(&number);
        }
        self.spool.exited(Exit {
            code: status.ok().and_then(code),
            kills: self.kills(),
        });
    }

    /// How often the kernel has killed for want of memory since the script's start.
    pub(super) fn kills(&self) -> u64 {
        memory::kills().saturating_sub(self.kills_before)
    }

    /// Ends the script's processes, with TERM and that much grace if there is any.
    pub(super) fn end(&self, grace: Duration) -> Verdict {
        self.ending.begin(self.leader, grace)
    }

    /// Returns the last ending, if there was one.
    pub(super) fn last_ending(&self) -> Option<Verdict> {
        self.ending.last()
    }

    /// Takes the turn to follow; whoever had it has it no more.
    pub(super) fn take_turn(&self) -> Turn {
        let mut number = 0;
        self.turn.send_modify(|turn| {
            *turn += 1;
            number = *turn;
        });
        Turn {
            number,
            current: self.turn.subscribe(),
        }
    }

    /// Removes all traces; processes that still write go on, and what they write is dropped.
    pub(super) fn forget(&self) {
        self.spool.forget();
        let traces = self
            .traces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(traces);
    }
}

/// The turn to follow a script.
pub(super) struct Turn {
    number: u64,
    current: watch::Receiver<u64>,
}

impl Turn {
    /// Waits until another follower has the turn.
    pub(super) async fn is_over(&mut self) {
        let number = self.number;
        // An error means that the script is forgotten and gone; the channel ends by itself then.
        if self.current.wait_for(|turn| *turn != number).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns an exit code as a shell would tell it.
fn code(status: ExitStatus) -> Option<u8> {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => return None,
    };
    u8::try_from(code).ok()
}

/// Tells whether that many processes can run at once: threads take their places, which count as they do.
fn can_run(processes: usize) -> bool {
    let mut gates = Vec::new();
    let mut threads = Vec::new();
    let mut all = true;
    for _ in 0..processes {
        let (gate, wait) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                let _ = wait.recv();
            });
        match thread {
            Ok(thread) => {
                threads.push(thread);
                gates.push(gate);
            }
            Err(_) => {
                all = false;
                break;
            }
        }
    }
    drop(gates);
    for thread in threads {
        // They cannot fail, and if one did it would have run all the same.
        drop(thread.join());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_a_shells() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), Some(3));
        assert_eq!(code(ExitStatus::from_raw(255 << 8)), Some(255));
        assert_eq!(code(ExitStatus::from_raw(9)), Some(137));
        assert_eq!(code(ExitStatus::from_raw(15 | 0x80)), Some(143));
    }

    #[test]
    fn a_few_processes_can_run() {
        assert!(can_run(FREE_PROCESSES));
    }
}
