//! A stand-in for the penalties of OpenSSH 9.8 and later: an address from which logins fail, or break
//! off, is turned away for a while.

use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use super::super::servers;

/// Who is turned away, and for how long. The proxy cannot see whether a login succeeded, so it looks into
/// the server's log: a connection that ends without a line about it there was a failure.
#[derive(Debug)]
pub(crate) struct Penalty {
    failures: usize,
    lasting: Duration,
    log: PathBuf,
    failed: usize,
    until: Option<Instant>,
}

impl Penalty {
    /// What OpenSSH says to a client that it turns away.
    pub(super) const MESSAGE: &'static [u8] = b"Not allowed at this time\r\n";

    /// Turns clients away for a while after so many failures in a row.
    pub(super) fn new(failures: usize, lasting: Duration, log: PathBuf) -> Self {
        Self {
            failures,
            lasting,
            log,
            failed: 0,
            until: None,
        }
    }

    /// Tells whether a connection that comes now is turned away.
    pub(super) fn applies(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes note of the end of a connection that the server knew by this port of the proxy's.
    pub(super) fn ended(&mut self, port: u16) {
        let log = std::fs::read(&self.log).unwrap_or_default();
        // OpenSSH writes "from 127.0.0.1 port N", dropbear "from 127.0.0.1:N".
        let names = [format!("port {port} "), format!(":{port}")];
        let succeeded = String::from_utf8_lossy(&log).lines().any(|line| {
            servers::is_login(line)
                && (line.contains(&names[0]) || line.trim_end().ends_with(&names[1]))
        });
        if succeeded {
            self.failed = 0;
            return;
        }
        self.failed += 1;
        if self.failed >= self.failures {
            self.failed = 0;
            self.until = Some(Instant::now() + self.lasting);
        }
    }
}
