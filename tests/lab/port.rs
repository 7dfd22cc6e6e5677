//! TCP ports that no other test, in this process or another, is using.
//!
//! Binding to port 0 and letting go of the port again would not do: before the server is up, the system
//! may give the same port to anybody's outgoing connection. So ports come from below the range that the
//! system hands out, each behind a lock that lives as long as its [`Port`].

use std::fs::File;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::FlockOperation;

/// Below the default `net.ipv4.ip_local_port_range`.
pub(crate) const RANGE: Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 that belongs to one test.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port that nobody uses.
    pub(crate) fn reserve() -> Self {
        let folder = std::env::temp_dir().join("gitlab-aws-driver-test-ports");
        std::fs::create_dir_all(&folder).expect("a writable temporary directory");
        let count = RANGE.end - RANGE.start;
        let random = std::collections::hash_map::RandomState::new().hash_one(0);
        let first = u16::try_from(random % u64::from(count)).expect("less than a u16");
        for step in 0..count {
            let number = RANGE.start + (first + step) % count;
            let lock = File::create(folder.join(number.to_string())).expect("a lock file");
            let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
            // Asked of the table, not by binding: a child that another thread is just starting would hold that socket
            // open for a moment longer, and whoever reserved the port would find it in use.
            if locked.is_ok() && !is_listening(number) {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port between {} and {}", RANGE.start, RANGE.end);
    }

    /// Returns the port's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// Tells whether anybody listens on a port, at whatever address, without connecting: a connection would show
/// in the server's own count of failed logins.
pub(crate) fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = |name: &str| std::fs::read_to_string(format!("/proc/net/{name}"));
    // Without IPv6 there is no table of it.
    let mut tables = table("tcp").expect("Linux's table of connections");
    tables += &table("tcp6").unwrap_or_default();
    tables.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        let state = fields.nth(1).unwrap_or_default();
        state == LISTEN && local.ends_with(&format!(":{port:04X}"))
    })
}

/// Waits until somebody listens on a port, or nobody does any more.
///
/// # Panics
///
/// When the deadline passes.
pub(crate) fn wait_listening(port: u16, expected: bool, within: Duration) {
    let deadline = Instant::now() + within;
    while is_listening(port) != expected {
        assert!(
            Instant::now() < deadline,
            "after {within:?}, {} on port {port}",
            if expected {
                "nobody listens"
            } else {
                "somebody still listens"
            }
        );
        // Another process' listening is no event that could be waited for.
        std::thread::sleep(Duration::from_millis(10));
    }
}
