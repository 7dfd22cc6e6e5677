//! Starts a command line as the leader of a session of its own.
//!
//! The standard library starts no process as a leader without unsafe code, hence this detour by a program of our own: it
//! becomes the leader, and then the command line.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// A word of [`lead`]'s own, up to its digits.
const UMASK: &str = "--umask=";

/// A word of [`lead`]'s own, up to the nonce of a script.
pub(crate) const NONCE: &str = "--nonce=";

/// The longest reason in a frame.
const REASON_MAX: usize = 300;

/// Becomes the leader of a new session, and then the command line. Returns only if that fails.
///
/// Words of its own may come first: `--terminal` makes the terminal at stdin the session's, `--as NAME` gives the
/// program another name than its path, as login shells have it. `--umask=OCTAL` sets what only a process itself can.
/// `--nonce=NONCE` says that it is a script's shell: a failure is then told by a frame among the output, since the exit
/// code alone would be taken for the script's own.
#[must_use]
pub fn lead(words: &[OsString]) -> io::Error {
    let mut nonce = None;
    let error = become_leader(words, &mut nonce);
    if let Some(nonce) = nonce {
        let program = words
            .iter()
            .find(|word| !word.as_encoded_bytes().starts_with(b"--"));
        let program = program.cloned().unwrap_or_default();
        let reason = format!("{}: {error}", program.display());
        let reason: String = reason
            .chars()
            .take(REASON_MAX)
            .map(|it| if it.is_control() { '?' } else { it })
            .collect();
        // If nobody reads it, nobody reads the exit code either.
        let mut out = io::stdout().lock();
        drop(writeln!(out, "\x1e{nonce} unable {reason}"));
        drop(out.flush());
    }
    error
}

fn become_leader(mut words: &[OsString], nonce: &mut Option<String>) -> io::Error {
    let mut name = None;
    let mut terminal = false;
    let own = |word: &OsString, prefix: &str| {
        let text = word.to_str()?.strip_prefix(prefix)?;
        Some(text.to_owned())
    };
    loop {
        match words {
            [word, rest @ ..] if word == "--terminal" => {
                terminal = true;
                words = rest;
            }
            [word, given, rest @ ..] if word == "--as" => {
                name = Some(given);
                words = rest;
            }
            [word, rest @ ..] if let Some(text) = own(word, NONCE) => {
                *nonce = Some(text);
                words = rest;
            }
            [word, rest @ ..] if let Some(digits) = own(word, UMASK) => {
                let Ok(mask) = u32::from_str_radix(&digits, 8) else {
                    return io::ErrorKind::InvalidInput.into();
                };
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
                words = rest;
            }
            [program, args @ ..] => {
                if let Err(error) = rustix::process::setsid() {
                    return error.into();
                }
                if terminal && let Err(error) = rustix::process::ioctl_tiocsctty(io::stdin()) {
                    return error.into();
                }
                let mut command = Command::new(program);
                if let Some(name) = name {
                    command.arg0(name);
                }
                return command.args(args).exec();
            }
            [] => return io::ErrorKind::InvalidInput.into(),
        }
    }
}
