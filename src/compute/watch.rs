//! When a machine's state is looked at while a script runs on it: seldom, and at once when a connection was lost.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks. With what is waited for a reason less than the 10 s within which the job is told; short sub-stages
/// make none.
const PERIOD: Duration = Duration::from_secs(6);
/// Between two looks after a connection was lost: it breaks a little before AWS knows why.
const SOON: Duration = Duration::from_secs(2);
/// How many of those looks there are.
const SOON_LOOKS: u32 = 3;
/// At least between two looks.
pub(super) const AT_LEAST: Duration = Duration::from_millis(1500);
/// One describe call, repeated within that time.
pub(super) const DESCRIBE_LIMIT: Duration = Duration::from_secs(30);
/// That many times in a row not known: gone, and not a read that lags.
const MISSING: u32 = 3;

/// The looks in a row at which AWS did not know a machine.
#[derive(Debug, Default)]
pub(super) struct Misses(u32);

impl Misses {
    /// Notes that AWS knows it.
    pub(super) fn seen(&mut self) {
        self.0 = 0;
    }

    /// Notes that AWS does not, and says whether that is enough to believe it.
    pub(super) fn missed(&mut self) -> bool {
        self.0 = self.0.saturating_add(1);
        self.0 >= MISSING
    }
}

/// What a look shows.
#[derive(Debug)]
pub(super) enum Look<T> {
    /// It is there.
    There,
    /// AWS does not know it.
    Missing,
    /// AWS does not say. Not to know is no reason to fail a job whose connection stands; a lost one has its own limit.
    Unknown,
    /// It is gone or going.
    Gone(T),
}

/// The looks at one machine.
#[derive(Debug)]
pub(super) struct Looks<'a> {
    lost: &'a Notify,
    soon: u32,
    misses: Misses,
}

impl<'a> Looks<'a> {
    /// Waits until the first look is due: most sub-stages are over before, and need no client.
    pub(super) async fn first(lost: &'a Notify) -> Self {
        let soon = match timeout(PERIOD, lost.notified()).await {
            Ok(()) => SOON_LOOKS,
            Err(_) => 0,
        };
        Self {
            lost,
            soon,
            misses: Misses::default(),
        }
    }

    /// Looks again and again until it is gone; `None`: AWS has not known it for several looks.
    pub(super) async fn until_gone<T>(&mut self, look: impl AsyncFn() -> Look<T>) -> Option<T> {
        loop {
            let looked = Instant::now();
            match look().await {
                Look::Gone(why) => return Some(why),
                Look::There => self.misses.seen(),
                Look::Missing => {
                    if self.misses.missed() {
                        return None;
                    }
                }
                Look::Unknown => {}
            }
            let wait = match self.soon {
                0 => PERIOD,
                _ => SOON,
            };
            self.soon = match timeout(wait, self.lost.notified()).await {
                Ok(()) => SOON_LOOKS,
                Err(_) => self.soon.saturating_sub(1),
            };
            sleep(AT_LEAST.saturating_sub(looked.elapsed())).await;
        }
    }
}
