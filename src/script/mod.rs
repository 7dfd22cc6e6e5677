//! The far side of a script, and the protocol that starts it once, follows it by offset and ends it.
//!
//! `remote.sh` is the far side; `shorten.rs` makes it fit into a command. [`frames`] reads what it sends, [`follow`] drives it
//! over as many connections as it takes. On a container machine [`first_command`] comes before the first script: it brings back
//! the container's own [`environment`](crate::machine::environment) and sets the watchdog.

mod command_channel;
pub(crate) mod failures;
mod final_output;
pub mod first_command;
pub mod follow;
mod forget;
pub mod frames;
pub mod greeting;
mod interruptions;
pub mod keep_key;
pub mod notice;
mod output;
mod process_limit;
mod reconnect;
mod shorten;
pub(crate) mod silent_login;
mod survivors;

pub use crate::script::interruptions::Stopped;

use crate::error::{Error, Kind, Result};
use crate::shell::quote;
use crate::ssh::first_line::TAKE;

/// The far side, as written.
pub const REMOTE: &str = include_str!("remote.sh");

/// How long a command may be. Dropbear ends the connection on one of more than 9,000 bytes (its `MAX_CMD_LEN`); 1,000 of them
/// are left free.
pub const COMMAND_LIMIT: usize = 8_000;

/// What one connection asks of the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Receive that many bytes of script, then that many of a prelude, start them unless that was done, follow
    /// from the beginning.
    Start {
        /// The script's length.
        script: u64,
        /// The prelude's; 0 where there is none.
        prelude: u64,
    },
    /// Follow from that byte on.
    Follow(u64),
}

/// Names one `run` of one job on the far side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce {
    spool: String,
    nonce: String,
}

impl Nonce {
    /// Draws a new one for the job whose far directories are named by `spool`.
    ///
    /// # Errors
    /// Where there is no randomness.
    pub fn draw(spool: &str) -> Result<Self> {
        Ok(Self {
            spool: spool.to_owned(),
            nonce: crate::hash::random_hex()
                .map_err(|e| Error::new(Kind::Launch, "no randomness to be had").because(e))?,
        })
    }

    /// Returns the nonce itself, which every frame carries.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.nonce
    }

    /// Returns the request for one connection to an agent, which is the far side itself; `umask` is the mask of what the script
    /// makes, in octal digits, where it is not the agent's own.
    #[must_use]
    pub fn request(&self, verb: Verb, umask: Option<&str>) -> String {
        let Self { spool, nonce } = self;
        match (verb, umask) {
            (Verb::Start { script, .. }, None) => format!("start {spool} {nonce} {script}\n"),
            (Verb::Start { script, .. }, Some(umask)) => {
                format!("start {spool} {nonce} {script} umask={umask}\n")
            }
            (Verb::Follow(offset), _) => format!("follow {spool} {nonce} {offset}\n"),
        }
    }

    /// Returns the command for one connection; where the script runs inside a container of the machine, the name of it.
    #[must_use]
    pub fn command(&self, verb: Verb, inside: Option<&str>) -> Vec<u8> {
        let (word, numbers) = match verb {
            Verb::Start { script, prelude: 0 } => ("start", script.to_string()),
            Verb::Start { script, prelude } => ("start", format!("{script} {prelude}")),
            Verb::Follow(offset) => ("follow", offset.to_string()),
        };
        let (half, other) = self.nonce.split_at(self.nonce.len() / 2);
        let text = quote(&shorten::shortened(REMOTE));
        let docker = match inside {
            Some(name) => format!("docker exec -i {} ", quote(name)),
            None => String::new(),
        };
        // The text reaches the supervisor too, which starts another shell with it: hence a parameter. It also spares
        // quoting it once more for the container's shell.
        format!(
            "{TAKE}set -- {text}; exec {docker}sh -c \"$1\" gad \"$1\" {word} {} {half} {other} {numbers}",
            self.spool
        )
        .into_bytes()
    }
}

/// The agent's subsystem for scripts.
const SUBSYSTEM: &str = "gad-script";

/// What is sent to begin with on one connection.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// A command of the login's shell, which takes the first line of its input.
    Login(Vec<u8>),
    /// The first line for the agent.
    Agent(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_fits_every_server() {
        let nonce = Nonce::draw(&"f".repeat(32)).unwrap();
        let verb = Verb::Start {
            script: u64::MAX,
            prelude: u64::MAX,
        };
        let command = nonce.command(verb, Some(&format!("job-{}-build", u64::MAX)));
        assert!(command.len() < COMMAND_LIMIT, "{} bytes", command.len());
    }

    #[test]
    fn the_nonce_does_not_stand_in_the_command() {
        let nonce = Nonce::draw("spool").unwrap();
        let command = String::from_utf8(nonce.command(Verb::Follow(5), None)).unwrap();
        assert!(!command.contains(nonce.as_str()));
    }
}
