//! The far side of `local`: three small processes that are the machine.
//!
//! The *keeper* leads a session, adopts the orphans of everything below it, collects what ends, and is the process
//! whose life is the machine's. The *guard* below it does the same, so that each of the two ends all that runs
//! there when the other is killed: sessions of an SSH server like OpenSSH's carry no mark, and once nobody adopts
//! them they cannot be told from others. Below the guard runs the SSH server: the project's own, or the program
//! that the configuration names; whoever waits for every child would take the exit codes of its children.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use gitlab_aws_agent::{HostKey, Launch};
use rustix::process::{Signal, WaitOptions, getpid, getppid, set_child_subreaper, setsid, wait};

use super::login_shell::LoginShell;
use super::{Ready, container, descendants};
use crate::error::{Error, Kind, Result};
use crate::machine::Request;
use crate::machine::local::LocalRequest;
use crate::process::Process;
use crate::runner::Environment;
use crate::state::Store;

/// How a line begins by which the machine's minder says that it ended.
pub const SERVER_ENDED: &str = "the SSH server of the machine ended:";

/// Runs the keeper until the guard ends.
///
/// # Errors
/// Where the launch it belongs to was given up, or the server ended.
pub fn run(job_directory: &Path, token: &str) -> Result<()> {
    // No group leader: `prepare` started it as a plain child.
    setsid().map_err(|e| fail("cannot start a session").because(e))?;
    let mut guard = own_program()?;
    guard.arg("local-guard").arg(job_directory).arg(token);
    mind(&mut guard, |_| hush())
}

/// Runs the guard until the server ends, or the keeper.
///
/// # Errors
/// Where the launch it belongs to was given up, or the server does not start or ended.
pub fn guard(job_directory: &Path, token: &str) -> Result<()> {
    let keeper = parent()?;
    let request = still_wanted(job_directory, token)?;
    std::thread::spawn(move || {
        keeper.wait();
        end_children();
        // All that is left of the machine is this process.
        if let Some(this) = Process::this() {
            this.signal(Signal::KILL);
        }
    });
    let own = request.command.is_empty() && request.container.is_none();
    let mut host_key = None;
    let mut server = match request.command.split_first() {
        None if let Some(container) = &request.container => {
            let key = HostKey::generate().map_err(|e| fail("cannot make a host key").because(e))?;
            let line = key.public_line();
            host_key = Some(line.map_err(|e| fail("cannot make a host key").because(e))?);
            container::prepare(&request, container, job_directory, &key)?
        }
        None => {
            let mut server = own_program()?;
            server.arg("local-server").arg(keeper.pid.to_string());
            server
        }
        Some((program, arguments)) => {
            shed_ignored_signals()?;
            let mut server = Command::new(program);
            server.args(arguments).stdout(io::stderr());
            server
        }
    };
    let variable = match own {
        // The server keeps it from its scripts.
        true => gitlab_aws_agent::VARIABLE,
        false => "SSH_PUBLIC_KEY",
    };
    // The parameters of an agent in a container are docker's already.
    if request.container.is_none() {
        server.env(variable, &request.public_key);
    }
    let mut words = None;
    let ended = mind(&mut server, |child| {
        words = child.stderr.take().map(container::keep_words);
        if !own {
            tell(&Ready {
                keeper,
                port: request.port,
                host_key,
            })?;
        }
        hush()
    });
    // What it said last comes before how it ended.
    if let Some(words) = words {
        drop(words.join());
    }
    ended
}

/// Starts a child and collects everything that ends until it does; then ends the rest.
fn mind(command: &mut Command, started: impl FnOnce(&mut Child) -> Result<()>) -> Result<()> {
    set_child_subreaper(Some(getpid())).map_err(|e| fail("cannot adopt orphans").because(e))?;
    let mut child = command
        .spawn()
        .map_err(|e| fail(&format!("cannot start {:?}", command.get_program())).because(e))?;
    started(&mut child)?;
    let minded = child.id().cast_signed();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == minded => {
                let status = ExitStatus::from_raw(status.as_raw());
                end_children();
                return Err(fail(&format!("{SERVER_ENDED} {status}")));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(fail("cannot wait for the SSH server").because(e)),
        }
    }
}

/// Makes the program start with default signal dispositions, as a service manager would, even where GitLab Runner itself
/// was started with signals ignored (`nohup`): most servers would hand that on to every script.
fn shed_ignored_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| fail("cannot start the runtime").because(e))?;
    let _context = runtime.enter();
    gitlab_aws_agent::shed_ignored_signals();
    Ok(())
}

fn fail(what: &str) -> Error {
    Error::new(Kind::Launch, what.to_owned())
}

fn own_program() -> Result<Command> {
    std::env::current_exe()
        .map(Command::new)
        .map_err(|e| fail("cannot find this program").because(e))
}

fn parent() -> Result<Process> {
    Process::of(getppid().map_or(0, rustix::process::Pid::as_raw_pid))
        .ok_or_else(|| fail("who started this is gone"))
}

/// Ends all that is below this process.
fn end_children() {
    let Some(this) = Process::this() else { return };
    loop {
        let left = descendants(&[this]);
        for process in &left {
            process.signal(Signal::KILL);
        }
        if left.is_empty() {
            return;
        }
        // Whatever ends falls to this process at last.
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Serves SSH on a free loopback port for as long as the keeper lives.
///
/// # Errors
/// Where no port can be had or the settings are wrong.
pub fn serve(keeper: i32, env: &Environment) -> Result<()> {
    let keeper = Process::of(keeper).ok_or_else(|| fail("the keeper is gone"))?;
    let key = env.get(gitlab_aws_agent::VARIABLE).and_then(|k| k.to_str());
    let authorized_key = key
        .ok_or_else(|| fail("nobody said which key may log in"))?
        .to_owned();
    let home = env
        .get("HOME")
        .map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| fail("cannot start the runtime").because(e))?;
    runtime.block_on(async {
        let host_key =
            HostKey::generate().map_err(|e| fail("cannot make a host key").because(e))?;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(|e| fail("cannot listen on 127.0.0.1").because(e))?;
        let port = listener
            .local_addr()
            .map_err(|e| fail("cannot listen on 127.0.0.1").because(e))?
            .port();
        let host_line = host_key
            .public_line()
            .map_err(|e| fail("cannot make a host key").because(e))?;
        tell(&Ready {
            keeper,
            port,
            host_key: Some(host_line),
        })?;
        hush()?;
        let leader = vec![own_program()?.get_program().to_owned(), "local-lead".into()];
        let LoginShell { program, named } = LoginShell::of_this_user();
        let settings = gitlab_aws_agent::Settings {
            authorized_key,
            host_key,
            shell: Some(program),
            home: Some(home),
            leader,
            env: vec![("SHELL".into(), named.into())],
            launch: Launch {
                one_use_host_key: true,
                ..Launch::default()
            },
        };
        gitlab_aws_agent::serve(listener, settings, keeper.gone())
            .await
            .map_err(|e| fail("the SSH server failed").because(e))
    })
}

/// Becomes the leader of a session, and then the command.
///
/// # Errors
/// Where it cannot; else it does not return.
pub fn lead(words: &[OsString]) -> Result<()> {
    let error = gitlab_aws_agent::lead(words);
    let program = words.first().cloned().unwrap_or_default();
    Err(fail(&format!("cannot start {}", program.display())).because(error))
}

/// Reads the request from the intent. A `cleanup` that came before this process was up has removed it, and
/// nobody would ever end what started now.
fn still_wanted(job_directory: &Path, token: &str) -> Result<LocalRequest> {
    let gone = || Error::new(Kind::Cancelled, "the launch of this machine was given up");
    let key = job_directory
        .file_name()
        .ok_or_else(gone)?
        .to_string_lossy();
    let root = job_directory
        .parent()
        .and_then(Path::parent)
        .ok_or_else(gone)?;
    let job = Store::new(root.to_owned()).job(&key);
    let locked = job.lock_existing()?.ok_or_else(gone)?;
    let intent = locked.intent()?.ok_or_else(gone)?;
    let asked = intent
        .launches
        .into_iter()
        .find_map(|launch| match launch.request {
            Request::Local(request) if request.token == token => Some(request),
            _ => None,
        });
    asked.ok_or_else(gone)
}

fn tell(ready: &Ready) -> Result<()> {
    let fail = || Error::new(Kind::Launch, "nobody waits for this machine any more");
    let mut line = serde_json::to_vec(ready).map_err(|e| fail().because(e))?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)
        .and_then(|()| out.flush())
        .map_err(|e| fail().because(e))
}

/// Lets go of standard output: `prepare` reads it to its end, and so would whatever started us by hand.
fn hush() -> Result<()> {
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(|e| Error::new(Kind::Launch, "cannot open /dev/null").because(e))?;
    rustix::stdio::dup2_stdout(&null)
        .map_err(|e| Error::new(Kind::Launch, "cannot let go of standard output").because(e))
}
