//! The machine `local`: a process on this host, the *keeper*, which serves SSH on loopback (or starts a
//! program that does) and is the parent of last resort of all that jobs start there. It isolates nothing.
//!
//! Nothing of it may outlive `cleanup`, whatever died before: everything that the keeper starts inherits a
//! mark in its environment, orphans fall to the keeper (it is a subreaper), and a keeper that finds its
//! intent gone ends itself before it starts anything.

mod agent_file;
mod coming;
pub mod container;
mod login_shell;
pub mod machine_process;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Notify;

use super::kind::{Launched, MachineKind, Refused, Settled};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::machine::local::{LocalPlace, LocalRequest};
use crate::machine::{Endpoint, FarSide, Login, Machine, Place};
use crate::process::{self, Process};
use crate::runner::substage::Role;
use crate::state::shared::Shared;
use crate::state::{Job, Store};
use crate::ui::Ui;
use coming::Coming;

/// Marks everything that a machine started.
pub const MARK: &str = "GITLAB_AWS_DRIVER_MACHINE";

/// How long processes may take to die of SIGKILL before `cleanup` says that they do not.
const DEATH: Duration = Duration::from_secs(10);
/// The most that is read of a machine's log.
const LOG_LIMIT: u64 = 1 << 20;
/// When what stands still meanwhile is let go on.
const COLLECTING: Duration = Duration::from_secs(2);

/// Machines on this host.
#[derive(Debug)]
pub enum ThisHost {}

impl MachineKind for ThisHost {
    type Request = LocalRequest;
    type Place = LocalPlace;
    type Coming = Coming;

    async fn settle(
        _request: &mut LocalRequest,
        _store: &Store,
        _ui: Ui,
    ) -> std::result::Result<Settled, Refused> {
        Ok(Settled::Ready)
    }

    async fn launch(
        request: &LocalRequest,
        job: &Job,
        _login: &Login,
        _rung_wait: Duration,
        _store: &Store,
        _ui: Ui,
    ) -> std::result::Result<Launched<Coming>, Refused> {
        if let Some(container) = &request.container
            && let Err(error) = agent_file::find(container.agent.as_deref())
        {
            return Err(Refused {
                error,
                unanswered: false,
                hopeless: true,
            });
        }
        match launch(request, job).await {
            Ok(ready) => Ok(Launched::Coming(coming(request, &ready, job))),
            Err(error) => Err(Refused {
                error,
                unanswered: true,
                hopeless: false,
            }),
        }
    }

    /// Nothing is made for one.
    async fn withdraw(_request: &LocalRequest, _store: &Store, _ui: Ui) {}

    async fn end_launch(
        request: &LocalRequest,
        _name: Option<&str>,
        _reason: &str,
        _shared: &Shared,
        _ui: Ui,
    ) -> Result<()> {
        end(&request.token, request.container.is_some()).await
    }

    async fn end_machine(
        place: &LocalPlace,
        _reason: &str,
        _shared: &Shared,
        _ui: Ui,
    ) -> Result<()> {
        end(&place.token, place.container).await
    }

    async fn gone(place: &LocalPlace, _lost: &Notify, _shared: &Shared) -> Error {
        gone(place).await
    }
}

/// Resolves when the keeper ends.
async fn gone(place: &LocalPlace) -> Error {
    let keeper = place.keeper;
    keeper.gone().await;
    Error::new(
        Kind::MachineGone,
        format!(
            "the machine is gone: its process {} on this host ended",
            keeper.pid
        ),
    )
    .hint("Something killed it (out of memory, an admin, a script that kills by name?); retry the job.")
}

/// What a keeper tells once it listens (built-in server) or has started its program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The keeper.
    pub keeper: Process,
    /// Where SSH will answer.
    pub port: u16,
    /// The host key, where it is known.
    pub host_key: Option<String>,
}

/// Starts the keeper, detached, and waits until it tells where it serves.
async fn launch(request: &LocalRequest, job: &Job) -> Result<Ready> {
    let fail = |what: &str| {
        Error::new(
            Kind::Launch,
            format!("the machine on this host did not start: {what}"),
        )
    };
    let exe = std::env::current_exe().map_err(|e| fail("cannot find this program").because(e))?;
    let stderr =
        std::fs::File::create(log(job)).map_err(|e| fail("cannot write its log").because(e))?;
    let mut command = std::process::Command::new(exe);
    command
        .arg("local-machine")
        .arg(job.directory())
        .arg(&request.token)
        .env_clear()
        .envs(login_environment())
        .env(MARK, &request.token)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr);
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(|e| fail("cannot start this program again").because(e))?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| fail("it has no standard output"))?;
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line).await;
    match read
        .ok()
        .and_then(|_| serde_json::from_str::<Ready>(&line).ok())
    {
        Some(ready) => Ok(ready),
        None => {
            let said = said(job);
            // Of an error the cause, not the remedy below it.
            let told = said.lines().find_map(|l| l.strip_prefix("ERROR: "));
            let last = told
                .or_else(|| said.lines().rfind(|l| !l.trim().is_empty()))
                .unwrap_or("it said nothing");
            Err(fail(last))
        }
    }
}

fn log(job: &Job) -> PathBuf {
    job.directory().join("machine.log")
}

/// Returns what the machine's processes said last.
pub(crate) fn said(job: &Job) -> String {
    let bytes = files::read(&log(job), LOG_LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn coming(request: &LocalRequest, ready: &Ready, job: &Job) -> Coming {
    let user = match request.command.is_empty() {
        // The built-in server takes any name: there is only one user.
        true => "local".to_owned(),
        false => request.user.clone(),
    };
    let place = LocalPlace {
        keeper: ready.keeper,
        token: request.token.clone(),
        container: request.container.is_some(),
    };
    let far_side = match request.command.is_empty() {
        true => FarSide::Agent,
        false => FarSide::Login,
    };
    let socket = request
        .container
        .as_ref()
        .map(|_| container::socket(job.directory()));
    let machine = Machine {
        place: Place::Local(place.clone()),
        endpoints: vec![Endpoint {
            roles: vec![Role::Build, Role::Helper],
            host: "127.0.0.1".into(),
            port: ready.port,
            user,
            host_key: ready.host_key.clone(),
            inside: None,
            far_side,
            socket,
        }],
    };
    Coming::new(machine, place)
}

/// The environment of a login on this host: the Runner's own, without what it told this stage, and without
/// signs of the SSH session that the Runner may have been started from (bash reads start-up files by them).
fn login_environment() -> impl Iterator<Item = (OsString, OsString)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is handed on as a whole, not read"
    )]
    std::env::vars_os().filter(|(name, _)| {
        let name = name.as_encoded_bytes();
        let told: [&[u8]; 5] = [
            b"BUILD_FAILURE_EXIT_CODE",
            b"SYSTEM_FAILURE_EXIT_CODE",
            b"BUILD_EXIT_CODE_FILE",
            b"JOB_RESPONSE_FILE",
            b"TMPDIR",
        ];
        !name.starts_with(b"CUSTOM_ENV_") && !name.starts_with(b"SSH_") && !told.contains(&name)
    })
}

/// Ends a machine, and its container if it is one.
async fn end(token: &str, container: bool) -> Result<()> {
    end_processes(token).await?;
    // Docker's own client may be killed without its container. Only now does nobody start one any more.
    match container {
        true => container::end(token).await,
        false => Ok(()),
    }
}

/// Ends a machine's processes of this host: the keeper is stopped first, so that it starts nothing while its children are killed and
/// still collects their orphans; it goes last.
async fn end_processes(token: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + DEATH;
    loop {
        let marked = marked(token);
        if marked.is_empty() {
            return Ok(());
        }
        let keepers: Vec<Process> = marked
            .iter()
            .filter(|p| is_keeper(**p, token))
            .copied()
            .collect();
        for keeper in &keepers {
            keeper.signal(Signal::STOP);
        }
        // Of the marked ones too: sessions of another SSH server than our own have lost the mark.
        let below = descendants(&marked);
        let others: Vec<Process> = marked
            .into_iter()
            .chain(below)
            .filter(|p| !keepers.contains(p) && p.pid != std::process::id().cast_signed())
            .collect();
        let last = others.is_empty();
        for process in if last { &keepers } else { &others } {
            process.signal(Signal::KILL);
        }
        let waited = async {
            for process in if last { &keepers } else { &others } {
                process.gone().await;
            }
        };
        tokio::pin!(waited);
        if tokio::time::timeout(COLLECTING, &mut waited).await.is_ok() {
            continue;
        }
        // The first process of a process namespace (a container's) ends only when all in it are collected, and some may be
        // orphans of a keeper that stands still. It has nothing else to do any more.
        for keeper in &keepers {
            keeper.signal(Signal::CONT);
        }
        if tokio::time::timeout_at(deadline, waited).await.is_err() {
            let names: Vec<String> = others.iter().map(|p| p.pid.to_string()).collect();
            return Err(Error::new(
                Kind::State,
                format!(
                    "processes of the machine on this host do not die: {}",
                    names.join(", ")
                ),
            )
            .hint(
                "They hang in the kernel (a dead network mount?); the next cleanup tries again.",
            ));
        }
    }
}

fn is_keeper(process: Process, token: &str) -> bool {
    std::fs::read(format!("/proc/{}/cmdline", process.pid)).is_ok_and(|line| {
        let mut words = line.split(|b| *b == 0);
        words.any(|w| w == b"local-machine" || w == b"local-guard")
            && words.any(|w| w == token.as_bytes())
    })
}

/// Returns the live processes that carry the mark.
fn marked(token: &str) -> Vec<Process> {
    let mark = format!("{MARK}={token}");
    process::all()
        .into_iter()
        .filter(process::Stat::lives)
        .map(|s| s.process)
        .filter(|p| {
            std::fs::read(format!("/proc/{}/environ", p.pid))
                .is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == mark.as_bytes()))
        })
        .collect()
}

/// Returns the live descendants of some processes: also those that cleared their environment.
fn descendants(roots: &[Process]) -> Vec<Process> {
    let all = process::all();
    let mut known: Vec<i32> = roots.iter().map(|p| p.pid).collect();
    let mut found = Vec::new();
    loop {
        let before = known.len();
        for stat in &all {
            if known.contains(&stat.parent) && !known.contains(&stat.process.pid) {
                known.push(stat.process.pid);
                if stat.lives() {
                    found.push(stat.process);
                }
            }
        }
        if known.len() == before {
            return found;
        }
    }
}

/// Removes what scripts left of the driver's own in the far side's directories, which are this host's too. (The
/// third place, a login's home, is used only where neither of these can be written.)
pub fn remove_spools(spool: &str) {
    for base in ["/var/tmp", "/tmp"] {
        drop(std::fs::remove_dir_all(format!("{base}/.gad-{spool}")));
    }
}
