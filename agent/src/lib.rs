//! A small SSH server for job machines that have none.
//!
//! One ed25519 key may log in, under any user name, and may run commands, or speak one of two protocols of this project.
//! Passwords, other subsystems and forwarding of any kind are refused. A command sees what it would
//! see under a plain SSH daemon without a terminal: `SHELL -c COMMAND`, three pipes, default signal
//! dispositions and no other descriptors, except that the environment is the server's own, which is
//! what a container image has set up.
//!
//! This module has the settings and their checks; [`serve`] does the work.

mod agent;
mod channel;
mod client;
mod container;
mod dial;
mod ending;
mod error;
mod exec;
mod greeting;
mod hand_on;
mod install;
mod keys;
mod lead;
mod life;
mod listeners;
mod logins;
mod parameters;
mod processes;
mod say;
mod script;
mod server;
mod signals;
mod terminal;
mod users;
mod valve;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use dial::dial;
pub use ending::{COMMAND as END_CONTAINER, see_to_it as end_container};
pub use error::Error;
pub use install::{InstallError, install, own_program};
pub use keys::{AuthorizedKey, HostKey};
pub use lead::lead;
pub use listeners::Listeners;
pub use parameters::{Listen, PORT, ParameterError, Parameters, VARIABLE, is_own};
pub use say::say;
pub use server::serve;
pub use signals::shed_ignored_signals;

/// What a server offers and to whom.
#[derive(Debug)]
pub struct Settings {
    /// The one key that may log in, as a line of `authorized_keys` without options.
    pub authorized_key: String,
    /// The key by which clients know this server.
    pub host_key: HostKey,
    /// The program that runs every command, given `-c` and the command; `/bin/sh` otherwise, or whatever shell is found.
    pub shell: Option<PathBuf>,
    /// The directory in which commands start, and their `HOME`. Where there is none they start in the server's own one.
    pub home: Option<PathBuf>,
    /// Program and arguments that make a process the leader of a session of its own, and then run the command line that
    /// follows them: `gitlab-aws-agent lead`, or a hidden command of the driver's. Both call [`lead`].
    pub leader: Vec<OsString>,
    /// Variables on top of the server's own environment; they win over it.
    pub env: Vec<(OsString, OsString)>,
    /// What is different for an agent that was launched as a container's process.
    pub launch: Launch,
}

/// What is different for an agent that was launched as a container's process. The default is a plain server.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The host key is for the first contact alone: see [`Settings::host_key`].
    pub one_use_host_key: bool,
    /// A script that runs, or whose result was not fetched, holds back the end at a signal.
    pub waits_for_scripts: bool,
    /// At the end all that was started is killed, and the container ends, too.
    pub ends_container: bool,
    /// When all ends, in Unix time.
    pub until: Option<u64>,
    /// After how long without a client and a script all ends.
    pub idle: Option<Duration>,
    /// What this agent is to its task.
    pub role: Option<String>,
    /// Roles whose clients are handed on, and the sockets of their agents.
    pub hand_on: Vec<(String, PathBuf)>,
}

impl Settings {
    /// Checks what can be checked before there is a listener; [`serve`] checks the same.
    ///
    /// # Errors
    ///
    /// Fails when the key, the shell or the home directory cannot be used.
    pub fn check(&self) -> Result<(), Error> {
        AuthorizedKey::parse(&self.authorized_key)?;
        exec::Launcher::new(self, signals::Commands::default())?;
        Ok(())
    }
}

/// Chooses the directory in which commands start: the one named, or the user's own, if it can be entered.
#[must_use]
pub fn choose_home(named: Option<&Path>) -> Option<PathBuf> {
    let listed = users::own_entry().and_then(|entry| entry.home);
    named
        .map(Path::to_owned)
        .into_iter()
        .chain(listed)
        .find(|home| {
            let enter = rustix::fs::Access::EXEC_OK;
            home.is_dir() && rustix::fs::access(home, enter).is_ok()
        })
}
