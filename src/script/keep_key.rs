//! Has the login's account keep the job's key, on a machine that was told of it for its first login alone: later
//! connections, hours on, need nobody who vouches for it.
//!
//! `keep_key.sh` is the far side.

use std::time::Duration;

use tokio::time::timeout;

use super::failures;
use super::shorten::stripped;
use crate::error::{Error, Kind, Result};
use crate::shell::quote;
use crate::ssh::first_line::is_astray;
use crate::ssh::session::Session;

pub(super) const REMOTE: &str = include_str!("keep_key.sh");

/// A connection on which this takes longer is lost.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(30);
/// What is kept of its outputs for a message.
const KEPT: usize = 1024;

/// Sends the command; `false` where the connection is lost meanwhile: it may be sent again.
///
/// # Errors
/// Where the account cannot keep the key.
pub async fn keep(session: &Session, public_line: &str) -> Result<bool> {
    let Ok(Some(said)) = timeout(TIME_LIMIT, session.run(&text(public_line), KEPT)).await else {
        return Ok(false);
    };
    if said.code == Some(0) {
        return Ok(true);
    }
    if is_astray(&said.err, &said.out) {
        return Err(failures::astray());
    }
    let why = failures::said(&said.err, &said.out).unwrap_or_else(|| match said.code {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
    });
    Err(Error::new(
        Kind::Launch,
        format!("the login's account cannot keep the job's key: {why}"),
    )
    .hint(
        "EC2 Instance Connect lets the key in for a minute only: ~/.ssh/authorized_keys of `username` under [ec2] or [ssh] has to be writable (is its \
         disk full?), or take `instance_connect` out under [ec2].",
    ))
}

fn text(public_line: &str) -> String {
    format!(
        "key={}\n{}",
        quote(public_line.trim_end()),
        stripped(REMOTE)
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use super::*;

    fn keep_in(home: &Path, line: &str) -> Output {
        let mut shell = Command::new("sh")
            .arg("-s")
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = shell.stdin.take().unwrap();
        input.write_all(text(line).as_bytes()).unwrap();
        drop(input);
        shell.wait_with_output().unwrap()
    }

    #[test]
    fn a_key_is_kept_once_beside_those_that_are_there() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".ssh/authorized_keys");
        for _ in 0..2 {
            let done = keep_in(home.path(), "ssh-ed25519 AAAA it's\n");
            assert!(done.status.success(), "{done:?}");
            assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(&home.path().join(".ssh")), 0o700);
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "ssh-ed25519 AAAA it's\n"
        );

        // The last line of somebody's file may not end; a line that only holds the key is another one.
        std::fs::write(&file, "command=\"no\" ssh-ed25519 BBBB").unwrap();
        keep_in(home.path(), "ssh-ed25519 BBBB");
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "command=\"no\" ssh-ed25519 BBBB\nssh-ed25519 BBBB\n"
        );
    }

    #[test]
    fn a_home_that_is_not_there_is_named() {
        let done = keep_in(Path::new("/nonexistent"), "ssh-ed25519 AAAA");
        assert!(!done.status.success());
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.contains("/nonexistent"), "{said}");
    }
}
