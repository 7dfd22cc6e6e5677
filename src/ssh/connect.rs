//! Connects to a machine: tries until it works, and decides after each kind of failure whether to try again.
//!
//! A machine that is coming up refuses, times out, closes or stays silent, then asks for a key that its
//! entrypoint has not written yet. None of that is an error until the deadline. Another host key is, at once.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::keys::{self, JobKey};
use super::login::{Refusal, log_in};
use super::memory_limit::MemoryLimit;
use super::session::Session;
use super::stream::dial;
use crate::error::{Error, Result};
use crate::machine::Endpoint;

/// The pause between attempts while nothing listens: short, because the job's start waits.
const REFUSED_PAUSE: Duration = Duration::from_millis(150);
/// After a refused key. OpenSSH 9.8 and later lock out an address that fails often (`PerSourcePenalties`: 5 s for
/// each failed login, enforced from 15 s on).
const UNAUTHORISED_PAUSE: Duration = Duration::from_secs(6);

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
            Failure::Unauthorised(_) | Failure::NoKeys(_) => Some(UNAUTHORISED_PAUSE),
            Failure::MoreSteps(_)
            | Failure::HostKey { .. }
            | Failure::WeakKey(_)
            | Failure::Unproven
            | Failure::Incompatible { .. }
            | Failure::Version
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

/// Connects and logs in, and tries until the deadline, which may be set only meanwhile. Makes a last attempt at the deadline.
///
/// # Errors
/// The last attempt's failure, with what usually is its cause.
pub async fn connect(
    endpoint: &Endpoint,
    key: &JobKey,
    deadline: impl Fn() -> Instant,
) -> Result<Session> {
    connect_within(endpoint, key, &MemoryLimit::beside(0), deadline).await
}

/// As [`connect`], within a memory limit that all connections with the same limit share.
///
/// # Errors
/// As [`connect`], and at once if the limit is exceeded.
pub async fn connect_within(
    endpoint: &Endpoint,
    key: &JobKey,
    memory_limit: &MemoryLimit,
    deadline: impl Fn() -> Instant,
) -> Result<Session> {
    connect_with_admission(endpoint, key, memory_limit, deadline, async |_| Ok(())).await
}

/// As [`connect_within`], and calls `admit` before each login, as soon as something listens. Its argument is whether the key was
/// refused the last time.
///
/// # Errors
/// As [`connect_within`], and at once if `admit` fails.
pub async fn connect_with_admission<E: From<Error>>(
    endpoint: &Endpoint,
    key: &JobKey,
    memory_limit: &MemoryLimit,
    deadline: impl Fn() -> Instant,
    mut admit: impl AsyncFnMut(bool) -> std::result::Result<(), E>,
) -> std::result::Result<Session, E> {
    let began = Instant::now();
    let expected = endpoint.host_key.as_deref().map(keys::parse_line);
    let expected = match expected.transpose() {
        Ok(expected) => expected,
        Err(error) => {
            let failure = Failure::Local(error);
            return Err(failure.give_up(endpoint, "", began.elapsed()).into());
        }
    };
    let mut pace = Pace::new();
    let mut refused = false;
    loop {
        let done = match dial(endpoint).await {
            Ok(stream) => {
                admit(refused).await?;
                log_in(endpoint, key, expected.as_ref(), stream, memory_limit).await
            }
            Err(failure) => Err(failure.into()),
        };
        // This error counts more than any other; an earlier connection may have exceeded the limit.
        let done = match memory_limit.crossed() {
            Some(crossed) => Err(Failure::Crossed(crossed).into()),
            None => done,
        };
        let Refusal {
            why: failure,
            words,
        } = match done {
            Ok(session) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::debug!(address = endpoint.address(), seconds, "logged in");
                return Ok(session);
            }
            Err(refusal) => refusal,
        };
        tracing::debug!(address = endpoint.address(), %failure, words, "no SSH session yet");
        refused = matches!(failure, Failure::Unauthorised(_));
        let left = deadline().saturating_duration_since(Instant::now());
        match pace.after(&failure) {
            Some(pause) if !left.is_zero() => sleep(pause.min(left)).await,
            _ => return Err(failure.give_up(endpoint, &words, began.elapsed()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::Unauthorised;
    use super::*;
    use crate::machine::FarSide;

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
            far_side: FarSide::Login,
            socket: None,
        };
        let key = JobKey::generate().unwrap();
        let began = Instant::now();
        let settled = Duration::from_secs(5);
        let deadline = || {
            let known = began.elapsed() >= settled;
            began + if known { 2 * settled } else { 100 * settled }
        };
        let memory_limit = MemoryLimit::of(u64::MAX);
        let failed = connect_within(&endpoint, &key, &memory_limit, deadline).await;
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
        let refused = Failure::Unauthorised(Unauthorised::Ed25519);
        assert_eq!(pace.after(&refused), Some(UNAUTHORISED_PAUSE));
        assert_eq!(pace.after(&Failure::MoreSteps("password".into())), None);
    }
}
