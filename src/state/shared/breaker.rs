//! The recent results of each rung, so that what one job finds out serves all jobs.
//!
//! A rung that had no room `TRIPS` times within `WINDOW` is skipped for `OPEN`; then one job tries it, and its result
//! decides. While nobody knows whether there is room, one job asks and the others wait for its answer, so that many jobs at
//! once find an empty rung with one call.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Shared, key, locked_file, now};
use crate::machine::verdict::{Verdict, Why};

/// How many failures open the breaker.
const TRIPS: usize = 2;
/// The time within which they count, in seconds.
const WINDOW: f64 = 15.0 * 60.0;
/// How long it stays open, in seconds.
const OPEN: f64 = 30.0 * 60.0;
/// How long only one job tries a rung after that, in seconds. If that job dies, another one tries it then.
const PROBE: f64 = 60.0;
/// How long an answer that there is no room counts for all jobs, in seconds: shorter than any job's pause between two tries.
const FRESH: f64 = 1.0;
/// How long the others wait for the job that asks, in seconds.
const ASKING: f64 = 3.0;

/// What is known of a rung.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct RungHistory {
    /// When it had no room, in seconds of Unix time, as all times here.
    failures: Vec<f64>,
    /// What AWS said the last time.
    cause: String,
    /// What helps.
    remedy: String,
    /// Which kind of failure it was.
    why: Option<Why>,
    /// Until when it is skipped.
    open_until: Option<f64>,
    /// Until when others wait for the one that asks.
    asking_until: Option<f64>,
    /// When it last accepted a launch.
    accepted: Option<f64>,
}

/// What to do with a rung.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Try it.
    Try,
    /// Look again soon: another job is asking now.
    Wait,
    /// It has no room: AWS has just said so to another job.
    Full(Verdict),
    /// It is skipped.
    Skip {
        /// Until when.
        until: SystemTime,
        /// What AWS said the last time.
        verdict: Verdict,
    },
}

impl Shared {
    /// Says what to do with a rung. `all_skipped`: all rungs are skipped, so try this one.
    pub async fn decide(&self, rung: &str, all_skipped: bool) -> Decision {
        let decide = |known| decide(known, now(), all_skipped);
        let looked = locked_file::change(&self.rung(rung), decide).await;
        looked.unwrap_or(Decision::Try)
    }

    /// Notes that a rung accepted a launch: others need not wait any more.
    pub async fn accepted(&self, rung: &str) {
        let note = |known| (accepted(known, now()), ());
        locked_file::change(&self.rung(rung), note).await;
    }

    /// Notes that asking had no result.
    pub async fn asked(&self, rung: &str) {
        let note = |known| (asked(known), ());
        locked_file::change(&self.rung(rung), note).await;
    }

    /// Notes that there was no room.
    pub async fn full(&self, rung: &str, verdict: &Verdict) {
        let note = |known| (full(known, verdict, now()), ());
        locked_file::change(&self.rung(rung), note).await;
    }

    /// Notes that a machine came up, and forgets all earlier results.
    pub async fn has_room(&self, rung: &str) {
        let note = |_: RungHistory| (accepted(RungHistory::default(), now()), ());
        locked_file::change(&self.rung(rung), note).await;
    }

    fn rung(&self, rung: &str) -> PathBuf {
        self.directory.join("rungs").join(key(rung))
    }
}

fn decide(known: RungHistory, now: f64, all_skipped: bool) -> (RungHistory, Decision) {
    let mut known = known.sane(now);
    if let Some(until) = known.open_until {
        if now >= until {
            known.open_until = Some(now + PROBE);
            return (known, Decision::Try);
        }
        if !all_skipped {
            let until = UNIX_EPOCH + Duration::from_secs_f64(until.max(0.0));
            let verdict = known.verdict();
            return (known, Decision::Skip { until, verdict });
        }
    }
    let last = known.failures.last().copied();
    if last.is_some_and(|last| now - last < FRESH) {
        let verdict = known.verdict();
        return (known, Decision::Full(verdict));
    }
    if known
        .accepted
        .is_some_and(|at| last.is_none_or(|last| at > last))
    {
        return (known, Decision::Try);
    }
    if known.asking_until.is_some_and(|until| now < until) {
        return (known, Decision::Wait);
    }
    known.asking_until = Some(now + ASKING);
    (known, Decision::Try)
}

fn accepted(mut known: RungHistory, now: f64) -> RungHistory {
    known.accepted = Some(now);
    asked(known)
}

fn asked(mut known: RungHistory) -> RungHistory {
    known.asking_until = None;
    known
}

fn full(known: RungHistory, verdict: &Verdict, now: f64) -> RungHistory {
    let mut known = asked(known.sane(now));
    known.failures.push(now);
    let excess = known.failures.len().saturating_sub(TRIPS);
    known.failures.drain(..excess);
    known.cause.clone_from(&verdict.cause);
    known.remedy.clone_from(&verdict.remedy);
    known.why = Some(verdict.why);
    // If it is open already, this was the one try that decides.
    if known.open_until.is_some() || known.failures.len() >= TRIPS {
        known.open_until = Some(now + OPEN);
    }
    known
}

impl RungHistory {
    /// Returns what AWS said the last time.
    fn verdict(&self) -> Verdict {
        Verdict {
            why: self.why.unwrap_or(Why::NoRoom),
            cause: self.cause.clone(),
            remedy: self.remedy.clone(),
        }
    }

    /// Drops what is too old, and what is in the future: the clock was set back, or the file is damaged.
    fn sane(mut self, now: f64) -> Self {
        self.failures
            .retain(|at| (0.0..WINDOW).contains(&(now - at)));
        self.accepted = self
            .accepted
            .filter(|at| (0.0..WINDOW).contains(&(now - at)));
        self.open_until = self.open_until.filter(|until| *until <= now + OPEN);
        self.asking_until = self.asking_until.filter(|until| *until <= now + ASKING);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: f64 = 1e9;

    fn no_room(cause: &str) -> Verdict {
        Verdict {
            why: Why::Quota,
            cause: cause.to_owned(),
            remedy: "Ask for more.".to_owned(),
        }
    }

    fn full(known: RungHistory, cause: &str, now: f64) -> RungHistory {
        super::full(known, &no_room(cause), now)
    }

    fn tripped() -> RungHistory {
        full(full(RungHistory::default(), "a", T), "b", T + 60.0)
    }

    fn looked(known: &RungHistory, now: f64) -> Decision {
        decide(known.clone(), now, false).1
    }

    #[test]
    fn two_failures_within_the_window_open_it_and_one_try_decides_after_that() {
        let once = full(RungHistory::default(), "a", T);
        assert_eq!(looked(&once, T + 5.0), Decision::Try);
        let late = full(once, "b", T + WINDOW + 1.0);
        assert_eq!(looked(&late, T + WINDOW + 5.0), Decision::Try);
        let open = tripped();
        let Decision::Skip { until, verdict } = looked(&open, T + 61.0) else {
            panic!("{open:?}");
        };
        assert_eq!(verdict, no_room("b"));
        let until = until.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert_eq!(until, T + 60.0 + OPEN);
        // One tries, the others do not.
        let (probing, first) = decide(open, until, false);
        assert_eq!(first, Decision::Try);
        assert!(matches!(
            looked(&probing, until + 1.0),
            Decision::Skip { .. }
        ));
        // It dies: another's turn.
        assert_eq!(looked(&probing, until + PROBE), Decision::Try);
        // It fails: open again, by this one failure.
        let again = full(probing, "c", until + 2.0);
        assert!(matches!(
            looked(&again, until + OPEN),
            Decision::Skip { .. }
        ));
    }

    #[test]
    fn where_all_are_skipped_it_is_tried_all_the_same_but_by_one_at_a_time() {
        let open = tripped();
        let (asking, first) = decide(open, T + 70.0, true);
        assert_eq!(first, Decision::Try);
        assert_eq!(decide(asking.clone(), T + 70.1, true).1, Decision::Wait);
        let told = full(asking.clone(), "c", T + 70.5);
        assert_eq!(decide(told, T + 71.0, true).1, Decision::Full(no_room("c")));
        assert_eq!(decide(asking, T + 70.0 + ASKING, true).1, Decision::Try);
    }

    #[test]
    fn one_asks_for_all_until_something_is_accepted() {
        let (asking, first) = decide(RungHistory::default(), T, false);
        assert_eq!(first, Decision::Try);
        assert_eq!(looked(&asking, T + 0.1), Decision::Wait);
        assert_eq!(looked(&asked(asking.clone()), T + 0.1), Decision::Try);
        let open = accepted(asking, T + 0.2);
        for _ in 0..3 {
            let (same, go) = decide(open.clone(), T + 0.3, false);
            assert_eq!((same, go), (open.clone(), Decision::Try));
        }
    }

    proptest! {
        #[test]
        fn nothing_that_stands_in_the_file_bars_a_rung_for_long(
            failures in prop::collection::vec(any::<f64>(), 0..5),
            open_until: Option<f64>,
            asking_until: Option<f64>,
            accepted: Option<f64>,
            now in 0f64..4e9,
        ) {
            let known = RungHistory { failures, open_until, asking_until, accepted, ..RungHistory::default() };
            let (known, first) = decide(known, now, false);
            if let Decision::Skip { until, .. } = first {
                prop_assert!(until <= UNIX_EPOCH + Duration::from_secs_f64(now + OPEN));
            }
            let later = now + OPEN + WINDOW;
            prop_assert_eq!(decide(known, later, false).1, Decision::Try);
        }
    }
}
