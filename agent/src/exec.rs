//! Starts commands as a plain SSH session would.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::script::shells;
use crate::signals::Commands;
use crate::{Error, Settings, parameters, users};

/// What all commands of a server have in common.
#[derive(Debug)]
pub(crate) struct Launcher {
    shell: Option<Vec<OsString>>,
    script_shell: Option<Vec<OsString>>,
    home: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    user: OsString,
    leader: Vec<OsString>,
    commands: Commands,
}

/// A started command, seen from the channel that it belongs to.
pub(crate) struct Running {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
    pub(crate) ended: oneshot::Receiver<ExitStatus>,
}

/// The process group of a command, for signals.
#[derive(Debug)]
pub(crate) struct Group(Mutex<Option<Pid>>);

impl Group {
    /// Sends a signal to the group; nothing happens once the command has ended, as its number may then
    /// belong to somebody else.
    pub(crate) fn kill(&self, signal: Signal) {
        let leader = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = leader {
            // It may have gone this moment; the client will hear of its end in any case.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Launcher {
    pub(crate) fn new(settings: &Settings, commands: Commands) -> Result<Self, Error> {
        let usable = |path: &Path, is: fn(&std::fs::Metadata) -> bool, wrong: io::ErrorKind| {
            std::fs::metadata(path).and_then(|found| {
                if is(&found) {
                    Ok(())
                } else {
                    Err(wrong.into())
                }
            })
        };
        if let Some(home) = &settings.home {
            let is_directory = std::fs::Metadata::is_dir;
            usable(home, is_directory, io::ErrorKind::NotADirectory).map_err(|source| {
                Error::Home {
                    path: home.clone(),
                    source,
                }
            })?;
        }
        if let Some(shell) = &settings.shell {
            let is_file = |found: &std::fs::Metadata| !found.is_dir();
            usable(shell, is_file, io::ErrorKind::IsADirectory).map_err(|source| Error::Shell {
                path: shell.clone(),
                source,
            })?;
        }
        let script_shell = shells::find();
        let given = settings.shell.clone();
        // The shell of all systems is as good for a command as the one that scripts get, and starts sooner.
        let usual = || Some(PathBuf::from("/bin/sh")).filter(|shell| shell.is_file());
        Ok(Self {
            shell: given
                .or_else(usual)
                .map(|shell| vec![shell.into_os_string()])
                .or_else(|| script_shell.clone()),
            script_shell,
            home: settings.home.clone(),
            env: settings.env.clone(),
            user: users::own_name(),
            leader: settings.leader.clone(),
            commands,
        })
    }

    /// Returns the directory in which commands start, where there is one.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Returns the words that start the image's shell, where it has one.
    pub(crate) fn shell_for_scripts(&self) -> Option<&[OsString]> {
        self.script_shell.as_deref()
    }

    /// Gives a process the surroundings of all commands: the container's own environment without what is the agent's, the
    /// user's name and home where they are known, and the directory.
    pub(crate) fn surround(&self, command: &mut Command) {
        for name in [parameters::VARIABLE, parameters::FILE_VARIABLE] {
            command.env_remove(name);
        }
        if let Some(home) = &self.home {
            command.current_dir(home).env("HOME", home);
        }
        command.env("USER", &self.user).env("LOGNAME", &self.user);
        if let Some(shell) = self.shell.as_deref().and_then(<[_]>::first) {
            command.env("SHELL", shell);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    /// Starts `SHELL -c COMMAND` in a process group of its own; an error says why it cannot, on one line.
    pub(crate) fn start(&self, command: &[u8]) -> Result<(Running, Arc<Group>), String> {
        let Some((program, words)) = self.shell.as_deref().and_then(<[_]>::split_first) else {
            return Err("this image has no shell: no command can be run in it\n".to_owned());
        };
        let program = Path::new(program);
        let mut shell = Command::new(program);
        self.surround(&mut shell);
        shell
            .arg0(program.file_name().unwrap_or(program.as_os_str()))
            .args(words)
            .arg("-c")
            .arg(OsStr::from_bytes(command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        self.spawn(shell).map_err(|e| {
            let directory = self.home.as_deref().unwrap_or(Path::new("."));
            let (shell, directory) = (program.display(), directory.display());
            format!("cannot start {shell} in {directory}: {e}\n")
        })
    }

    /// Program and words of a detour that makes a session's leader; see [`crate::lead`].
    pub(crate) fn leader(&self) -> &[OsString] {
        &self.leader
    }

    /// Starts a command that leads a process group, and watches over it.
    pub(crate) fn spawn(&self, mut command: Command) -> io::Result<(Running, Arc<Group>)> {
        let mut commands = self.commands.lock();
        let mut child = command.kill_on_drop(false).spawn()?;
        let number = child.id().and_then(|id| i32::try_from(id).ok());
        commands.extend(number);
        drop(commands);

        let group = Arc::new(Group(Mutex::new(number.and_then(Pid::from_raw))));
        let (tell, ended) = oneshot::channel();
        let running = Running {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            ended,
        };
        tokio::spawn(watch(
            child,
            number,
            Arc::clone(&group),
            self.commands.clone(),
            tell,
        ));
        Ok((running, group))
    }
}

/// Waits for a command, whether or not its connection still lives, so that none is left a zombie.
async fn watch(
    mut child: Child,
    number: Option<i32>,
    group: Arc<Group>,
    commands: Commands,
    tell: oneshot::Sender<ExitStatus>,
) {
    let status = child.wait().await;
    group.forget();
    if let Some(number) = number {
        commands.lock().remove(&number);
    }
    if let Ok(status) = status {
        // The channel may be gone; then nobody asks.
        let _ = tell.send(status);
    }
}
