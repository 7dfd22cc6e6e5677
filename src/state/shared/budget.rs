//! Token buckets, which limit the number of AWS calls. Pure.
//!
//! An empty bucket gives tokens in advance, one after the other, and says how long to wait for each. So a process asks only once,
//! and all get their tokens in the order in which they asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most that is given in advance, in seconds of refilling: nobody waits longer.
const LONGEST: f64 = 240.0;

/// One of AWS's limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Its name; part of a file name.
    pub name: &'static str,
    /// How many tokens it has when it is full.
    pub size: f64,
    /// How many tokens it gains in a second.
    pub rate: f64,
}

/// The level of a bucket. A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Level {
    /// How many tokens are missing; more than its size if some were given in advance.
    missing: f64,
    /// When that was measured: Unix time, seconds.
    at: f64,
}

/// Takes a token; returns the new level, and how long to wait for the token.
pub(super) fn take(level: Level, bucket: &Bucket, now: f64) -> (Level, Duration) {
    let missing = level.refilled(bucket, now) + 1.0;
    let missing = missing.min(bucket.size + bucket.rate * LONGEST);
    let wait = ((missing - bucket.size) / bucket.rate).max(0.0);
    (Level { missing, at: now }, Duration::from_secs_f64(wait))
}

/// Takes all tokens.
pub(super) fn drain(level: Level, bucket: &Bucket, now: f64) -> Level {
    let missing = level.refilled(bucket, now).max(bucket.size);
    Level { missing, at: now }
}

impl Level {
    /// Returns how many tokens are missing now. A clock that was set back adds no tokens, and removes none.
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

        /// In any window of time, no more tokens come than a full bucket has and gains in it.
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
