//! Starts commands as a plain SSH session would.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Access;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::signals::Commands;
use crate::{Error, Settings};

/// What all commands of a server have in common.
#[derive(Debug)]
pub(crate) struct Launcher {
    shell: PathBuf,
    home: PathBuf,
    env: Vec<(OsString, OsString)>,
    user: OsString,
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
        usable(
            &settings.home,
            std::fs::Metadata::is_dir,
            io::ErrorKind::NotADirectory,
        )
        .map_err(|source| Error::Home {
            path: settings.home.clone(),
            source,
        })?;
        usable(
            &settings.shell,
            |found| !found.is_dir(),
            io::ErrorKind::IsADirectory,
        )
        .map_err(|source| Error::Shell {
            path: settings.shell.clone(),
            source,
        })?;
        Ok(Self {
            shell: settings.shell.clone(),
            home: settings.home.clone(),
            env: settings.env.clone(),
            user: user_name(),
            commands,
        })
    }

    /// The home directory, if there is one that can be entered.
    pub(crate) fn home(&self) -> Option<&Path> {
        rustix::fs::access(&self.home, Access::EXEC_OK)
            .is_ok()
            .then_some(&*self.home)
    }

    /// Gives a command the environment that all of them have.
    pub(crate) fn dress(&self, command: &mut Command) {
        command
            .env("HOME", &self.home)
            .env("USER", &self.user)
            .env("LOGNAME", &self.user)
            .env("SHELL", &self.shell)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    /// Starts `SHELL -c COMMAND` in a process group of its own; an error says why it cannot, on one line.
    pub(crate) fn start(&self, command: &[u8]) -> Result<(Running, Arc<Group>), String> {
        let mut shell = Command::new(&self.shell);
        shell
            .arg0(self.shell.file_name().unwrap_or(self.shell.as_os_str()))
            .arg("-c")
            .arg(OsStr::from_bytes(command))
            .current_dir(&self.home);
        self.dress(&mut shell);
        shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(false);

        let mut commands = self.commands.lock();
        let mut child = shell.spawn().map_err(|e| {
            let (shell, home) = (self.shell.display(), self.home.display());
            format!("cannot start {shell} in {home}: {e}\n")
        })?;
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

/// Returns the name of the user that this process runs as, as the system's own list has it.
fn user_name() -> OsString {
    let id = rustix::process::getuid().as_raw();
    let list = std::fs::read("/etc/passwd").unwrap_or_default();
    named(&list, id).unwrap_or_else(|| match id {
        0 => OsString::from("root"),
        id => OsString::from(id.to_string()),
    })
}

fn named(list: &[u8], id: u32) -> Option<OsString> {
    let id = id.to_string();
    list.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        (fields.nth(1)? == id.as_bytes()).then(|| OsStr::from_bytes(name).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_list() {
        let list =
            b"root:x:0:0:root:/root:/bin/sh\nnonsense\nbuild:x:1000:1000::/home/build:/bin/sh\n";
        assert_eq!(named(list, 0), Some(OsString::from("root")));
        assert_eq!(named(list, 1000), Some(OsString::from("build")));
        assert_eq!(named(list, 100), None);
    }
}
