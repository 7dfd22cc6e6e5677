//! A small SSH server for job machines that have none.
//!
//! One ed25519 key may log in, under any user name, and may do one thing: run commands. Passwords,
//! shells, terminals, subsystems and forwarding of any kind are refused. A command sees what it would
//! see under a plain SSH daemon without a terminal: `SHELL -c COMMAND`, three pipes, default signal
//! dispositions and no other descriptors, except that the environment is the server's own, which is
//! what a container image has set up.
//!
//! This module has the settings and their checks; [`serve`] does the work.

mod agent;
mod channel;
mod client;
mod error;
mod exec;
mod greeting;
mod keys;
mod life;
mod script;
mod server;
mod signals;
mod terminal;
mod valve;

use std::ffi::OsString;
use std::path::PathBuf;

pub use error::Error;
pub use keys::{AuthorizedKey, HostKey};
pub use server::serve;
pub use signals::shed_ignored_signals;

/// What a server offers and to whom.
#[derive(Debug)]
pub struct Settings {
    /// The one key that may log in, as a line of `authorized_keys` without options.
    pub authorized_key: String,
    /// The key by which clients know this server.
    pub host_key: HostKey,
    /// The program that runs every command, given `-c` and the command.
    pub shell: PathBuf,
    /// The directory in which commands start, and their `HOME`.
    pub home: PathBuf,
    /// Program and arguments that make a process the leader of a session of its own, and then run the command line that
    /// follows them: `gitlab-aws-agent lead`, or a hidden command of the driver's. Both call [`lead`].
    pub leader: Vec<OsString>,
    /// Variables on top of the server's own environment; they win over it.
    pub env: Vec<(OsString, OsString)>,
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

/// Becomes the leader of a new session, and then the command line. Returns only if that fails.
///
/// The command line may begin with `--umask=OCTAL`, for what only a process itself can change.
///
/// The standard library starts no process as a leader without unsafe code, hence this detour by a program of our own.
#[must_use]
pub fn lead(words: &[OsString]) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    if let Err(error) = rustix::process::setsid() {
        return error.into();
    }
    let mut words = words;
    while let Some((option, rest)) = words.split_first()
        && let Some(option) = option.to_str().filter(|word| word.starts_with("--"))
    {
        let mask = option
            .strip_prefix("--umask=")
            .and_then(|mask| u32::from_str_radix(mask, 8).ok());
        let Some(mask) = mask else {
            return std::io::ErrorKind::InvalidInput.into();
        };
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        words = rest;
    }
    let Some((program, args)) = words.split_first() else {
        return std::io::ErrorKind::InvalidInput.into();
    };
    std::process::Command::new(program).args(args).exec()
}
