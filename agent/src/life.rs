//! When the agent ends: when it is told, at its "until", or when nobody has logged in for the idle limit.
//!
//! A signal may have to wait: where a container is told to end, the script that still runs in it has the time that the
//! container has, and its result can still be fetched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::Launch;
use crate::say::say;

/// No end is further away than this, whatever a client says: sums of times must not overflow.
const FAR: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// When the agent ends. Copies speak of the same agent.
#[derive(Debug, Clone)]
pub(crate) struct Life(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// A signal waits for the scripts that are held.
    is_patient: bool,
    /// Scripts that are not forgotten.
    holds: usize,
    /// Clients that are logged in.
    visits: usize,
    quiet_since: Instant,
    idle: Option<Duration>,
    until: Option<Until>,
    /// A signal came.
    asked: bool,
    /// A client ordered the end.
    told: bool,
}

/// The moment at which all ends.
#[derive(Debug, Clone, Copy)]
struct Until {
    /// As it was said, in seconds of Unix time.
    said: u64,
    /// By a clock that does not jump, as it was when the time was said.
    at: Instant,
}

impl Until {
    fn new(said: u64, wall: SystemTime, now: Instant) -> Self {
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(said));
        let left = end.map_or(FAR, |end| end.duration_since(wall).unwrap_or_default());
        Self {
            said,
            at: now + left.min(FAR),
        }
    }
}

/// Why the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A client ordered it.
    Told,
    /// A signal, or whatever else the library's user waits for.
    Asked,
    /// The time is over.
    Until,
    /// Nobody came.
    Idle,
}

impl End {
    /// Returns a line for the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Told => "ends: a client ordered it",
            Self::Asked => "ends: told by a signal",
            Self::Until => "ends: its time is over",
            Self::Idle => "ends: nobody has logged in for too long",
        }
    }
}

/// Holds back the agent's end at TERM for as long as it lives: a script runs, or its result was not fetched yet.
#[derive(Debug)]
pub(crate) struct Hold(Life);

/// A client is logged in.
#[derive(Debug)]
pub(crate) struct Visit(Life);

impl Life {
    pub(crate) fn new(launch: &Launch) -> Self {
        let now = Instant::now();
        let until = launch.until;
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                is_patient: launch.waits_for_scripts,
                holds: 0,
                visits: 0,
                quiet_since: now,
                idle: launch.idle,
                until: until.map(|said| Until::new(said, SystemTime::now(), now)),
                asked: false,
                told: false,
            }),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and has [`Life::over`] look at it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.notify_one();
    }

    /// Says that a script was started; it is over when the answer is dropped.
    pub(crate) fn hold(&self) -> Hold {
        self.change(|state| state.holds += 1);
        Hold(self.clone())
    }

    /// Says that a client has logged in; it is gone when the answer is dropped.
    pub(crate) fn visit(&self) -> Visit {
        self.change(|state| state.visits += 1);
        Visit(self.clone())
    }

    /// A signal came: ends as soon as no script is held any more.
    pub(crate) fn ask(&self) {
        let state = self.state();
        let (waits, holds) = (state.is_patient && !state.asked, state.holds);
        drop(state);
        if waits && holds > 0 {
            say(&format!(
                "told to end; waits until the results of {holds} script(s) were fetched"
            ));
        }
        self.change(|state| state.asked = true);
    }

    /// Ends, whatever runs.
    pub(crate) fn end(&self) {
        self.change(|state| state.told = true);
    }

    /// Moves the end to a moment in Unix time.
    pub(crate) fn set_until(&self, said: u64) {
        let until = Until::new(said, SystemTime::now(), Instant::now());
        self.change(|state| state.until = Some(until));
    }

    /// Returns the moment at which all ends, in Unix time.
    pub(crate) fn until(&self) -> Option<u64> {
        self.state().until.map(|until| until.said)
    }

    /// Returns how long nobody needs to have logged in for the end.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.state().idle
    }

    /// Waits for the end. There is one who waits.
    pub(crate) async fn over(&self) -> End {
        loop {
            let next = match self.state().verdict(Instant::now()) {
                Ok(end) => return end,
                Err(next) => next,
            };
            let next = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = next => {}
            }
        }
    }
}

impl State {
    /// Tells why it is over, or else when to look again at the latest.
    fn verdict(&self, now: Instant) -> Result<End, Option<Instant>> {
        let idle_at = match self.idle {
            Some(idle) if self.holds == 0 && self.visits == 0 => {
                Some(self.quiet_since + idle.min(FAR))
            }
            _ => None,
        };
        let until = self.until.map(|until| until.at);
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.told {
            Ok(End::Told)
        } else if self.asked && (self.holds == 0 || !self.is_patient) {
            Ok(End::Asked)
        } else if passed(until) {
            Ok(End::Until)
        } else if passed(idle_at) {
            Ok(End::Idle)
        } else {
            Err(until.into_iter().chain(idle_at).min())
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.holds -= 1;
            state.quiet_since = Instant::now();
        });
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.visits -= 1;
            state.quiet_since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            waits_for_scripts: true,
            ..Launch::default()
        }
    }

    fn verdict(life: &Life, after: u64) -> Result<End, ()> {
        let now = Instant::now() + Duration::from_secs(after);
        life.state().verdict(now).map_err(|_| ())
    }

    #[tokio::test]
    async fn a_signal_waits_for_the_last_held_script() {
        let life = Life::new(&launch());
        let first = life.hold();
        let second = life.hold();
        let visit = life.visit();
        life.ask();
        assert_eq!(verdict(&life, 0), Err(()));
        // Another one changes nothing.
        life.ask();
        drop(first);
        assert_eq!(verdict(&life, 0), Err(()));
        let waits = tokio::spawn({
            let life = life.clone();
            async move { life.over().await }
        });
        tokio::task::yield_now().await;
        drop(second);
        assert_eq!(waits.await.unwrap(), End::Asked);
        drop(visit);
    }

    #[test]
    fn a_signal_ends_at_once_where_nothing_is_held() {
        let life = Life::new(&launch());
        let _visit = life.visit();
        assert_eq!(verdict(&life, 0), Err(()));
        life.ask();
        assert_eq!(verdict(&life, 0), Ok(End::Asked));
    }

    #[test]
    fn a_library_does_not_wait() {
        let life = Life::new(&Launch::default());
        let _hold = life.hold();
        life.ask();
        assert_eq!(verdict(&life, 0), Ok(End::Asked));
    }

    #[test]
    fn an_order_does_not_wait() {
        let life = Life::new(&launch());
        let _hold = life.hold();
        life.end();
        assert_eq!(verdict(&life, 0), Ok(End::Told));
    }

    #[test]
    fn idle_counts_from_the_last_that_left() {
        let idle = Some(Duration::from_secs(100));
        let life = Life::new(&Launch { idle, ..launch() });
        assert_eq!(verdict(&life, 90), Err(()));
        assert_eq!(verdict(&life, 101), Ok(End::Idle));
        let visit = life.visit();
        let hold = life.hold();
        assert_eq!(verdict(&life, 1000), Err(()));
        drop(visit);
        assert_eq!(verdict(&life, 1000), Err(()));
        life.state().quiet_since = Instant::now() + Duration::from_secs(500);
        drop(hold);
        assert_eq!(verdict(&life, 90), Err(()));
        assert_eq!(verdict(&life, 101), Ok(End::Idle));
    }

    #[tokio::test]
    async fn until_ends_all_and_can_be_moved() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let until = Some(now().as_secs() + 1000);
        let life = Life::new(&Launch { until, ..launch() });
        let _hold = life.hold();
        assert_eq!(verdict(&life, 990), Err(()));
        assert_eq!(verdict(&life, 1001), Ok(End::Until));
        life.set_until(now().as_secs() + 5000);
        assert_eq!(verdict(&life, 1001), Err(()));
        assert_eq!(life.until(), Some(now().as_secs() + 5000));
        life.set_until(u64::MAX);
        assert_eq!(verdict(&life, 5001), Err(()));
        let waits = tokio::spawn({
            let life = life.clone();
            async move { life.over().await }
        });
        tokio::task::yield_now().await;
        life.set_until(1);
        assert_eq!(waits.await.unwrap(), End::Until);
    }

    #[test]
    fn until_is_kept_by_a_clock_that_does_not_jump() {
        let now = Instant::now();
        let wall = UNIX_EPOCH + Duration::from_secs(5000);
        let at = |said| Until::new(said, wall, now).at - now;
        assert_eq!(at(5600), Duration::from_secs(600));
        assert_eq!(at(10), Duration::ZERO);
        assert_eq!(at(u64::MAX), FAR);
    }
}
