//! Connecting: one attempt, and what to do about each way in which it can fail.
//!
//! A machine that is coming up refuses, times out, closes or stays silent, then asks for a key that its
//! entrypoint has not written yet. None of that is an error until the deadline. Another host key is, at once.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use russh::client::{self, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::bounded::{Bounded, Hold};
use super::ceiling::{Ceiling, Crossed};
use super::client::{Client, config};
use super::keys::{self, JobKey};
use super::prompt::Prompt;
use super::session::Session;
use crate::compute::Endpoint;
use crate::error::{Error, Kind, Result};

/// A TCP connection that is not there after this long will not come by waiting; in a VPC it takes milliseconds.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// From TCP to the login. OpenSSH itself gives a client 120 s; a server that has said nothing for this long is
/// stuck, and a fresh connection has the better chance.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Between attempts while nothing listens: short, because it is the job's start that waits.
const REFUSED_PAUSE: Duration = Duration::from_millis(150);
/// After a refused key. OpenSSH 9.8 and later lock out an address that fails often (`PerSourcePenalties`: 5 s for
/// each failed login, enforced from 15 s on).
const UNAUTHORISED_PAUSE: Duration = Duration::from_secs(6);

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing listens.
    #[error("connection refused")]
    Refused,
    /// No answer to the connection.
    #[error("no answer to the connection within {} s", TCP_TIMEOUT.as_secs())]
    TimedOut,
    /// The network said no.
    #[error("{0}")]
    Network(#[source] io::Error),
    /// It accepted and said nothing.
    #[error("it accepted the connection but no login was possible within {} s", LOGIN_TIMEOUT.as_secs())]
    Silent,
    /// It accepted and closed: not ready yet, or locking us out.
    #[error("it accepted the connection and closed it")]
    Closed(#[source] Option<russh::Error>),
    /// The key is not accepted (yet).
    #[error("it does not accept the job's key")]
    Unauthorised,
    /// Another host key.
    #[error("it shows the host key {found}, not {expected}")]
    HostKey {
        /// What it showed.
        found: String,
        /// What it is known by.
        expected: String,
    },
    /// The two sides found no common algorithm.
    #[error("the SSH versions do not agree")]
    Incompatible(#[source] russh::Error),
    /// The record's host key cannot be read.
    #[error(transparent)]
    Local(Error),
    /// What it sent took more memory than it may.
    #[error(transparent)]
    Crossed(Crossed),
}

/// Decides how long to wait after a failure; `None` means that another attempt cannot help.
#[derive(Debug)]
struct Pace {
    closed: backon::ExponentialBackoff,
}

impl Pace {
    fn new() -> Self {
        Self {
            closed: closed_pace(),
        }
    }

    fn after(&mut self, failure: &Failure) -> Option<Duration> {
        if !matches!(failure, Failure::Closed(_)) {
            self.closed = closed_pace();
        }
        match failure {
            Failure::Refused | Failure::TimedOut | Failure::Network(_) | Failure::Silent => {
                Some(REFUSED_PAUSE)
            }
            Failure::Closed(_) => Some(self.closed.next().unwrap_or(UNAUTHORISED_PAUSE)),
            Failure::Unauthorised => Some(UNAUTHORISED_PAUSE),
            Failure::HostKey { .. }
            | Failure::Incompatible(_)
            | Failure::Local(_)
            | Failure::Crossed(_) => None,
        }
    }
}

/// Accepted then closed: a forwarder whose server is not up yet wants quick tries, a server that locks us out
/// wants few.
fn closed_pace() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_factor(2.0)
        .without_max_times()
        .build()
}

/// Connects and logs in, for as long as it takes until the deadline, which may be settled only meanwhile. There is a last
/// attempt when it has come.
///
/// # Errors
/// The last attempt's failure, with what usually is its cause.
pub async fn connect(
    endpoint: &Endpoint,
    key: &JobKey,
    deadline: impl Fn() -> Instant,
) -> Result<Session> {
    connect_below(endpoint, key, &Ceiling::beside(0), deadline).await
}

/// As [`connect`]; what comes takes no more memory than that, as over all other connections with the same ceiling.
///
/// # Errors
/// As [`connect`], and at once where it took more.
pub async fn connect_below(
    endpoint: &Endpoint,
    key: &JobKey,
    ceiling: &Ceiling,
    deadline: impl Fn() -> Instant,
) -> Result<Session> {
    connect_admitted(endpoint, key, ceiling, deadline, async |_| Ok(())).await
}

/// As [`connect_below`]; as soon as something listens, and so before each login, `admit` is called, and told whether the key was
/// refused the last time.
///
/// # Errors
/// As [`connect_below`], and at once where `admit` fails.
pub async fn connect_admitted<E: From<Error>>(
    endpoint: &Endpoint,
    key: &JobKey,
    ceiling: &Ceiling,
    deadline: impl Fn() -> Instant,
    mut admit: impl AsyncFnMut(bool) -> std::result::Result<(), E>,
) -> std::result::Result<Session, E> {
    let began = Instant::now();
    let expected = endpoint.host_key.as_deref().map(keys::parse_line);
    let expected = match expected.transpose() {
        Ok(expected) => expected,
        Err(error) => {
            let failure = Failure::Local(error);
            return Err(give_up(endpoint, failure, began.elapsed()).into());
        }
    };
    let mut pace = Pace::new();
    let mut refused = false;
    loop {
        let done = match dial(endpoint).await {
            Ok(stream) => {
                admit(refused).await?;
                let (stream, hold) = Bounded::new(stream, ceiling);
                attempt(endpoint, key, expected.clone(), stream, hold).await
            }
            Err(failure) => Err(failure),
        };
        // Whatever else it looked like; a connection before this one may have done it.
        let done = match ceiling.crossed() {
            Some(crossed) => Err(Failure::Crossed(crossed)),
            None => done,
        };
        let failure = match done {
            Ok(session) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::debug!(
                    host = endpoint.host,
                    port = endpoint.port,
                    seconds,
                    "logged in"
                );
                return Ok(session);
            }
            Err(failure) => failure,
        };
        tracing::debug!(host = endpoint.host, port = endpoint.port, %failure, "no SSH session yet");
        refused = matches!(failure, Failure::Unauthorised);
        let left = deadline().saturating_duration_since(Instant::now());
        match pace.after(&failure) {
            Some(pause) if !left.is_zero() => sleep(pause.min(left)).await,
            _ => return Err(give_up(endpoint, failure, began.elapsed()).into()),
        }
    }
}

/// The one place where an endpoint becomes a byte stream.
async fn dial(endpoint: &Endpoint) -> std::result::Result<Prompt, Failure> {
    let stream = match timeout(
        TCP_TIMEOUT,
        TcpStream::connect((endpoint.host.as_str(), endpoint.port)),
    )
    .await
    {
        Err(_) => return Err(Failure::TimedOut),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return Err(Failure::Refused),
        Ok(Err(e)) => return Err(Failure::Network(e)),
        Ok(Ok(stream)) => stream,
    };
    stream.set_nodelay(true).map_err(Failure::Network)?;
    Ok(Prompt(stream))
}

async fn attempt(
    endpoint: &Endpoint,
    key: &JobKey,
    expected: Option<PublicKey>,
    stream: Bounded<Prompt>,
    hold: Hold,
) -> std::result::Result<Session, Failure> {
    let seen = Arc::new(Mutex::new(None));
    let handler = Client::new(expected.clone(), Arc::clone(&seen));
    match timeout(LOGIN_TIMEOUT, login(endpoint, key, stream, handler)).await {
        Err(_) => Err(Failure::Silent),
        Ok(Err(failure)) => {
            let found: Option<PublicKey> = seen.lock().ok().and_then(|mut s| s.take());
            match (failure, found, expected) {
                (LoginFailure::UnknownKey, Some(found), Some(expected)) => Err(Failure::HostKey {
                    found: keys::fingerprint(&found),
                    expected: keys::fingerprint(&expected),
                }),
                (LoginFailure::UnknownKey, ..) => Err(Failure::Closed(None)),
                (LoginFailure::Other(failure), ..) => Err(failure),
            }
        }
        Ok(Ok(handle)) => {
            let found = seen.lock().ok().and_then(|mut s| s.take());
            let host_key = found
                .map(|k| keys::line(&k))
                .transpose()
                .map_err(Failure::Local)?;
            Ok(Session::new(handle, host_key, hold))
        }
    }
}

enum LoginFailure {
    UnknownKey,
    Other(Failure),
}

async fn login(
    endpoint: &Endpoint,
    key: &JobKey,
    stream: Bounded<Prompt>,
    handler: Client,
) -> std::result::Result<Handle<Client>, LoginFailure> {
    let mut handle = client::connect_stream(config(), stream, handler)
        .await
        .map_err(classify)?;
    let auth = PrivateKeyWithHashAlg::new(Arc::clone(&key.0), None);
    let result = handle
        .authenticate_publickey(&endpoint.user, auth)
        .await
        .map_err(classify)?;
    if result.success() {
        Ok(handle)
    } else {
        // Said goodbye to, the server does not count an unfinished login on top of the refused key.
        drop(
            handle
                .disconnect(russh::Disconnect::ByApplication, "", "en")
                .await,
        );
        Err(LoginFailure::Other(Failure::Unauthorised))
    }
}

fn classify(error: russh::Error) -> LoginFailure {
    LoginFailure::Other(match error {
        russh::Error::UnknownKey => return LoginFailure::UnknownKey,
        russh::Error::NoCommonAlgo { .. } | russh::Error::Version => Failure::Incompatible(error),
        other => Failure::Closed(Some(other)),
    })
}

fn give_up(endpoint: &Endpoint, failure: Failure, after: Duration) -> Error {
    if let Failure::Crossed(crossed) = failure {
        return crossed.error();
    }
    let Endpoint {
        host, port, user, ..
    } = endpoint;
    let seconds = after.as_secs();
    let (kind, hint) = match &failure {
        Failure::Local(_) | Failure::Crossed(_) => (Kind::State, "End the job's machine with `cleanup` and retry the job.".to_owned()),
        Failure::HostKey { .. } => (
            Kind::HostKey,
            "Another machine answers at this address: a replaced task, a reused address, or somebody in between. \
             Retry the job; if it happens again, find out who answers there."
                .to_owned(),
        ),
        Failure::Refused => (
            Kind::Unreachable,
            format!("Nothing listens there. Does the image start an SSH server on port {port}, and is `port` under [fargate], [ec2] or [ssh] right?"),
        ),
        Failure::TimedOut | Failure::Network(_) => (
            Kind::Unreachable,
            "Check that the machine's security group and the route between let this host in.".to_owned(),
        ),
        Failure::Silent | Failure::Closed(_) => (
            Kind::Unreachable,
            "The SSH server there is stuck, not ready, or locks this address out (OpenSSH's PerSourcePenalties or \
             MaxStartups): see its log."
                .to_owned(),
        ),
        Failure::Unauthorised => (
            Kind::Unreachable,
            format!(
                "The image's entrypoint has to write SSH_PUBLIC_KEY to the authorized_keys of {user} (an instance's cloud-init has \
                 to run, or with `instance_connect` its package ec2-instance-connect has to be there), and `username` under [fargate], [ec2] or [ssh] has to be \
                 that user."
            ),
        ),
        Failure::Incompatible(_) => (
            Kind::Unreachable,
            "The server must offer curve25519-sha256, an ed25519, ECDSA or RSA host key and an AES or ChaCha20 cipher."
                .to_owned(),
        ),
    };
    Error::new(
        kind,
        format!("no SSH session with {user}@{host}:{port} after {seconds} s"),
    )
    .because(failure)
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lockout_is_met_with_longer_and_longer_pauses() {
        let mut pace = Pace::new();
        let pauses: Vec<u128> = (0..8)
            .filter_map(|_| pace.after(&Failure::Closed(None)))
            .map(|d| d.as_millis())
            .collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        pace.after(&Failure::Refused);
        assert_eq!(
            pace.after(&Failure::Closed(None)),
            Some(Duration::from_millis(200))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_used_to_its_end_also_where_it_is_settled_late() {
        // A port that was free a moment ago, and refuses.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let endpoint = Endpoint {
            roles: Vec::new(),
            host: "127.0.0.1".to_owned(),
            port,
            user: "root".to_owned(),
            host_key: None,
            inside: None,
        };
        let key = JobKey::generate().unwrap();
        let began = Instant::now();
        let settled = Duration::from_secs(5);
        let deadline = || {
            let known = began.elapsed() >= settled;
            began + if known { 2 * settled } else { 100 * settled }
        };
        let ceiling = Ceiling::of(u64::MAX);
        let failed = connect_below(&endpoint, &key, &ceiling, deadline).await;
        assert!(failed.unwrap_err().to_string().contains("refused"));
        assert_eq!(began.elapsed().as_millis(), (2 * settled).as_millis());
    }

    #[test]
    fn only_what_time_can_mend_is_tried_again() {
        let mut pace = Pace::new();
        let host_key = Failure::HostKey {
            found: "a".into(),
            expected: "b".into(),
        };
        assert_eq!(pace.after(&host_key), None);
        assert_eq!(pace.after(&Failure::Unauthorised), Some(UNAUTHORISED_PAUSE));
    }
}
