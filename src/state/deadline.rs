//! The time after which nothing of a job may live: one value, made once by `prepare`, for the intent, the record, the tags and
//! the machine's own timer. Pure, apart from the two functions that read the clocks.
//!
//! A wall clock may be wrong, and be corrected meanwhile. So the time is also noted by the clock of this host's boot, which
//! nobody sets. A deadline of this boot is compared with that clock alone. All others are compared with the wall clock, and with
//! a margin, since another clock wrote them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::record::now;
use crate::process;

/// How far two correct wall clocks may differ.
pub const CLOCK_MARGIN: Duration = Duration::from_secs(60);
/// Longer than any job. With this limit a deadline fits any timer, and no sum overflows.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The time after which nothing of a job may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Unix time, seconds. Earlier versions know only this.
    deadline: u64,
    /// When it was made. From then on the clock of the boot counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_in_boot: Option<Made>,
}

/// One moment by both clocks of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    /// Unix time, seconds.
    unix: u64,
    /// Which boot (see [`process::boot`]).
    boot: u64,
    /// Seconds since the boot, including sleep.
    seconds: u64,
}

/// The time by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    unix: u64,
    boot: u64,
    since_boot: u64,
}

impl Clock {
    /// Reads this host's clocks.
    #[must_use]
    pub fn look() -> Self {
        let since_boot = clock_gettime(ClockId::Boottime).tv_sec;
        Self {
            unix: now(),
            boot: process::boot(),
            since_boot: u64::try_from(since_boot).unwrap_or_default(),
        }
    }

    /// Returns the same with the wall clock set back by so many seconds: another clock says that it is ahead.
    #[must_use]
    pub fn set_back(self, seconds: u64) -> Self {
        let unix = self.unix.saturating_sub(seconds);
        Self { unix, ..self }
    }

    /// Returns the same so many seconds later.
    #[cfg(test)]
    pub(super) fn advanced(self, seconds: u64) -> Self {
        Self {
            unix: self.unix + seconds,
            since_boot: self.since_boot + seconds,
            ..self
        }
    }

    /// Returns the same after a boot.
    #[cfg(test)]
    pub(super) fn in_another_boot(self) -> Self {
        let boot = self.boot ^ 1;
        Self { boot, ..self }
    }

    /// Returns the wall clock's time: Unix time, seconds.
    #[must_use]
    pub fn unix(self) -> u64 {
        self.unix
    }

    /// Returns the wall clock's time.
    #[must_use]
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.unix)
    }

    /// Returns the boot and the seconds since then; `None` if the boot is unknown.
    #[must_use]
    pub fn in_boot(self) -> Option<(u64, u64)> {
        (self.boot != process::UNKNOWN).then_some((self.boot, self.since_boot))
    }
}

impl Deadline {
    /// Returns the deadline that is so long from now.
    #[must_use]
    pub fn after(lifetime: Duration) -> Self {
        Self::after_by(lifetime, Clock::look())
    }

    fn after_by(lifetime: Duration, clock: Clock) -> Self {
        let seconds = lifetime.min(LONGEST).as_secs();
        Self {
            deadline: clock.unix.saturating_add(seconds),
            made_in_boot: clock.in_boot().map(|(boot, seconds)| Made {
                unix: clock.unix,
                boot,
                seconds,
            }),
        }
    }

    /// Returns it as Unix time in seconds, as in the tags.
    #[must_use]
    pub fn unix(self) -> u64 {
        self.deadline
    }

    /// Returns the time that is left; zero if it is past.
    #[must_use]
    pub fn left(self) -> Duration {
        self.left_by(Clock::look())
    }

    fn left_by(self, clock: Clock) -> Duration {
        let now = self.in_boot_of(clock).unwrap_or(clock.unix);
        Duration::from_secs(self.deadline.saturating_sub(now)).min(LONGEST)
    }

    /// Returns for how long it has certainly been past; `None` if it is not.
    #[must_use]
    pub fn past(self, clock: Clock) -> Option<Duration> {
        let (now, margin) = match self.in_boot_of(clock) {
            Some(now) => (now, 0),
            None => (clock.unix, CLOCK_MARGIN.as_secs()),
        };
        now.checked_sub(self.deadline.saturating_add(margin))
            .filter(|past| *past > 0)
            .map(Duration::from_secs)
    }

    /// Returns the time by the clock of the boot in which this was made, as Unix time; `None` in another boot.
    fn in_boot_of(self, clock: Clock) -> Option<u64> {
        let (boot, seconds) = clock.in_boot()?;
        let made = self.made_in_boot.filter(|made| made.boot == boot)?;
        Some(
            made.unix
                .saturating_add(seconds.saturating_sub(made.seconds)),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLOCK: Clock = Clock {
        unix: 1_000_000,
        boot: 7,
        since_boot: 500,
    };
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_is_of_this_boot_is_judged_by_its_clock_alone() {
        let until = Deadline::after_by(HOUR, CLOCK);
        assert_eq!(until.unix(), 1_003_600);
        let wrong = Clock {
            unix: 9_000_000,
            ..CLOCK
        };
        assert_eq!((until.past(wrong), until.left_by(wrong)), (None, HOUR));
        let late = Clock {
            unix: 0,
            since_boot: 4_110,
            ..CLOCK
        };
        assert_eq!(until.past(late), Some(Duration::from_secs(10)));
        assert_eq!(until.left_by(late), Duration::ZERO);
    }

    #[test]
    fn what_is_of_another_boot_is_judged_by_the_wall_clock_with_a_margin() {
        let until = Deadline::after_by(HOUR, CLOCK);
        for boot in [8, process::UNKNOWN] {
            let at = |unix| Clock {
                unix,
                boot,
                since_boot: 1_000_000,
            };
            assert_eq!(until.past(at(1_003_660)), None);
            assert_eq!(until.past(at(1_003_661)), Some(Duration::from_secs(1)));
            assert_eq!(
                until.past(at(1_003_661).set_back(1)),
                None,
                "another clock says that it is less late"
            );
        }
    }

    #[test]
    fn the_version_before_this_one_reads_it_and_is_read() {
        let until = Deadline::after_by(HOUR, CLOCK);
        let json = serde_json::to_value(until).unwrap();
        assert_eq!(json["deadline"], 1_003_600);
        assert_eq!(serde_json::from_value::<Deadline>(json).unwrap(), until);
        let old: Deadline = serde_json::from_str(r#"{"deadline":5}"#).unwrap();
        assert_eq!(
            old.past(Clock { unix: 66, ..CLOCK }),
            Some(Duration::from_secs(1))
        );
    }

    proptest! {
        #[test]
        fn no_time_is_too_long(seconds: u64, unix: u64, since_boot: u64, now: u64) {
            let clock = Clock { unix, since_boot, boot: 7 };
            let until = Deadline::after_by(Duration::from_secs(seconds), clock);
            prop_assert!(until.left_by(clock) <= LONGEST);
            prop_assert_eq!(until.past(clock), None);
            for boot in [7, 8] {
                let at = Clock { unix: now, since_boot: now, boot };
                prop_assert!(until.past(at).is_none() || until.left_by(at).is_zero());
            }
        }
    }
}
