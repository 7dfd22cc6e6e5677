//! Token buckets: how many calls AWS takes. Pure.
//!
//! A bucket that is empty gives its tokens beforehand, one after the other: who takes one is told when it will be
//! there. So nobody has to come again and ask, and all get theirs in the order in which they came.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most that is given beforehand, in seconds of refilling: whoever comes then does not wait for longer.
const LONGEST: f64 = 240.0;

/// One of AWS's limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// What it is for; part of a file name.
    pub name: &'static str,
    /// How many tokens it holds.
    pub size: f64,
    /// How many come in each second.
    pub rate: f64,
}

/// What is in a bucket. A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Level {
    /// How many tokens are not in it; more than its size where some were given beforehand.
    missing: f64,
    /// When that was so: Unix time, seconds.
    at: f64,
}

/// Takes a token; returns the level after it, and how long it takes until the token is there.
pub(super) fn take(level: Level, bucket: &Bucket, now: f64) -> (Level, Duration) {
    let missing = level.refilled(bucket, now) + 1.0;
    let missing = missing.min(bucket.size + bucket.rate * LONGEST);
    let wait = ((missing - bucket.size) / bucket.rate).max(0.0);
    (Level { missing, at: now }, Duration::from_secs_f64(wait))
}

/// Takes all that there is.
pub(super) fn drain(level: Level, bucket: &Bucket, now: f64) -> Level {
    let missing = level.refilled(bucket, now).max(bucket.size);
    Level { missing, at: now }
}

impl Level {
    /// Returns how many tokens are missing now. A clock that was set back gives no tokens, and takes none.
    fn refilled(self, bucket: &Bucket, now: f64) -> f64 {
        let passed = (now - self.at).max(0.0);
        (self.missing - passed * bucket.rate).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUCKET: Bucket = Bucket {
        name: "x",
        size: 3.0,
        rate: 2.0,
    };

    #[test]
    fn a_full_bucket_gives_at_once_and_an_empty_one_in_turn() {
        let mut level = Level::default();
        let mut waits = Vec::new();
        for _ in 0..6 {
            let (left, wait) = take(level, &BUCKET, 1000.0);
            level = left;
            waits.push(wait.as_secs_f64());
        }
        assert_eq!(waits, [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]);
        // Half a second refills one.
        assert_eq!(take(level, &BUCKET, 1000.5).1.as_secs_f64(), 1.5);
        assert_eq!(take(level, &BUCKET, 2000.0).1, Duration::ZERO);
    }

    #[test]
    fn a_drained_bucket_makes_everybody_wait() {
        let level = drain(Level::default(), &BUCKET, 5.0);
        assert_eq!(take(level, &BUCKET, 5.0).1.as_secs_f64(), 0.5);
        // What was given beforehand stays given.
        let (owing, _) = take(take(level, &BUCKET, 5.0).0, &BUCKET, 5.0);
        assert_eq!(drain(owing, &BUCKET, 5.0), owing);
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nobody_for_long() {
        let (level, _) = take(Level::default(), &BUCKET, 1e9);
        let (level, wait) = take(level, &BUCKET, 10.0);
        assert_eq!(wait, Duration::ZERO);
        assert_eq!(level.at, 10.0);
    }

    proptest! {
        #[test]
        fn whatever_stood_in_the_file_the_wait_is_bounded(missing: f64, at: f64, now in 0f64..4e9) {
            let (level, wait) = take(Level { missing, at }, &BUCKET, now);
            prop_assert!(wait.as_secs_f64() <= LONGEST);
            prop_assert!(level.missing >= 1.0);
        }

        /// No window of time sees more tokens come than the bucket holds and gets in it.
        #[test]
        fn no_more_is_given_than_comes_in(gaps in prop::collection::vec(0f64..1.5, 1..80)) {
            let (mut level, mut now) = (Level::default(), 1e6);
            let mut given = Vec::new();
            for gap in gaps {
                now += gap;
                let (left, wait) = take(level, &BUCKET, now);
                level = left;
                given.push(now + wait.as_secs_f64());
            }
            given.sort_by(f64::total_cmp);
            for (first, from) in given.iter().enumerate() {
                for (last, to) in given.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as f64;
                    prop_assert!(count <= BUCKET.size + BUCKET.rate * (to - from) + 1e-3);
                }
            }
        }
    }
}
