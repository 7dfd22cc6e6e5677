//! Which rung is tried next: one after the other, round after round, until there is room or the time is over.
//!
//! Only decides; `prepare` launches, waits and tells. A rung may be skipped in a round; where all would be, all are tried.

use std::time::Duration;

use tokio::time::Instant;

/// After the first round without room anywhere.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Between two later rounds, at most: what comes free is taken by others meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try the rung of that number.
    Try(usize),
    /// Wait, then ask again: all rungs are full.
    Pause(Duration),
    /// There is no rung left to try, or no time.
    GiveUp,
}

/// The rungs of one job and what came of them.
#[derive(Debug)]
pub struct Ladder {
    rungs: Vec<Rung>,
    /// The rungs in the order in which a round goes through them.
    order: Vec<usize>,
    /// How far in it this round is.
    at: usize,
    /// How many rungs were tried in this round, and not skipped.
    tried: usize,
    /// Whether none may be skipped in what is left of this round.
    anyway: bool,
    pause: Duration,
    until: Instant,
}

#[derive(Debug)]
struct Rung {
    name: String,
    fallback: bool,
    usable: bool,
    cause: Option<String>,
}

impl Ladder {
    /// Returns a ladder of rungs, each with its name and whether it is only there for the case that the one before it
    /// cannot be used at all. Rounds go on until the given moment; the first is always gone to its end.
    #[must_use]
    pub fn new(rungs: impl IntoIterator<Item = (String, bool)>, until: Instant) -> Self {
        let rung = |(name, fallback)| Rung {
            name,
            fallback,
            usable: true,
            cause: None,
        };
        let rungs: Vec<Rung> = rungs.into_iter().map(rung).collect();
        Self {
            order: (0..rungs.len()).collect(),
            rungs,
            at: 0,
            tried: 0,
            anyway: false,
            pause: FIRST_PAUSE,
            until,
        }
    }

    /// Has rounds begin above the rung of that name, and go on with it and those below it. Returns the name of the rung
    /// that they begin at; none where there is none above.
    pub fn start_above(&mut self, name: &str) -> Option<&str> {
        let lost = self.rungs.iter().position(|rung| rung.name == name)?;
        let above = lost + 1;
        let first = self.rungs.get(above).filter(|rung| !rung.fallback)?;
        self.order = (above..self.rungs.len()).chain(0..above).collect();
        Some(&first.name)
    }

    /// Decides what to do next.
    #[must_use]
    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(step) = self.step() {
            return Next::Try(step);
        }
        let any = self.is_only_full();
        if any && self.tried == 0 && !self.anyway {
            self.at = 0;
            self.anyway = true;
            if let Some(step) = self.step() {
                return Next::Try(step);
            }
        }
        if now >= self.until || !any {
            return Next::GiveUp;
        }
        (self.at, self.tried, self.anyway) = (0, 0, false);
        let pause = self.pause.min(self.until - now);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Next::Pause(pause)
    }

    /// Returns the next rung of this round.
    fn step(&mut self) -> Option<usize> {
        while let Some(step) = self.order.get(self.at).copied() {
            self.at += 1;
            if self.is_open(step) {
                self.tried += 1;
                return Some(step);
            }
        }
        None
    }

    /// Whether the rung that was given last is to be tried although it would be skipped: all are.
    #[must_use]
    pub fn is_anyway(&self) -> bool {
        self.anyway
    }

    /// Notes that the rung that was given last was skipped.
    pub fn skip(&mut self, at: usize, cause: String) {
        self.tried = self.tried.saturating_sub(1);
        self.full(at, cause);
    }

    fn is_open(&self, at: usize) -> bool {
        let needed = !self.rungs[at].fallback || (at > 0 && !self.rungs[at - 1].usable);
        self.rungs[at].usable && needed
    }

    /// Notes that a rung has no room now.
    pub fn full(&mut self, at: usize, cause: String) {
        self.rungs[at].cause = Some(cause);
    }

    /// Notes that a rung cannot be used, now or later.
    pub fn unusable(&mut self, at: usize, cause: String) {
        self.full(at, cause);
        self.rungs[at].usable = false;
    }

    /// Returns whether any rung could have been used, had there been room.
    #[must_use]
    pub fn is_only_full(&self) -> bool {
        (0..self.rungs.len()).any(|at| self.is_open(at))
    }

    /// Returns the name of the rung that would be tried next in this round, if there is one.
    #[must_use]
    pub fn following(&self) -> Option<&str> {
        let rest = self.order.get(self.at..)?;
        let next = rest.iter().find(|at| self.is_open(**at))?;
        Some(&self.rungs[*next].name)
    }

    /// Returns what came of each rung, in AWS's words.
    #[must_use]
    pub fn causes(&self) -> String {
        let told = |rung: &Rung| Some(format!("{}: {}", rung.name, rung.cause.as_ref()?));
        let all: Vec<String> = self.rungs.iter().filter_map(told).collect();
        all.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(rungs: &[(&str, bool)], seconds: u64) -> (Ladder, Instant) {
        let now = Instant::now();
        let rungs = rungs.iter().map(|(name, f)| ((*name).to_owned(), *f));
        (Ladder::new(rungs, now + Duration::from_secs(seconds)), now)
    }

    #[test]
    fn rungs_are_tried_in_order_and_round_until_the_time_is_over() {
        let (mut ladder, now) = ladder(&[("a", false), ("b", false)], 12);
        for pause in [5, 7] {
            assert_eq!(ladder.next(now), Next::Try(0));
            assert_eq!(ladder.following(), Some("b"));
            assert_eq!(ladder.next(now), Next::Try(1));
            assert_eq!(ladder.following(), None);
            let at = now + Duration::from_secs(if pause == 5 { 0 } else { 5 });
            assert_eq!(ladder.next(at), Next::Pause(Duration::from_secs(pause)));
        }
        let end = now + Duration::from_secs(12);
        assert_eq!(ladder.next(end), Next::Try(0));
        assert_eq!(ladder.next(end), Next::Try(1));
        ladder.full(0, "x".into());
        ladder.full(1, "y".into());
        assert_eq!(ladder.next(end), Next::GiveUp);
        assert_eq!(ladder.causes(), "a: x; b: y");
        assert!(ladder.is_only_full());
    }

    #[test]
    fn a_fallback_is_there_only_for_what_cannot_be_used_at_all() {
        let (mut full, now) = ladder(&[("default", false), ("fargate", true)], 0);
        assert_eq!(full.next(now), Next::Try(0));
        full.full(0, "no room".into());
        assert_eq!(full.next(now), Next::GiveUp);
        let (mut none, now) = ladder(&[("default", false), ("fargate", true)], 0);
        assert_eq!(none.next(now), Next::Try(0));
        none.unusable(0, "the cluster has none".into());
        assert_eq!(none.following(), Some("fargate"));
        assert_eq!(none.next(now), Next::Try(1));
    }

    #[test]
    fn a_skipped_rung_is_passed_over_unless_all_are_skipped() {
        let (mut ladder, now) = ladder(&[("a", false), ("b", false)], 0);
        assert_eq!(ladder.next(now), Next::Try(0));
        ladder.skip(0, "open".into());
        assert_eq!(ladder.next(now), Next::Try(1));
        assert!(!ladder.is_anyway());
        ladder.full(1, "full".into());
        // One was tried: that is a round.
        assert_eq!(ladder.next(now), Next::GiveUp);
        assert_eq!(ladder.causes(), "a: open; b: full");

        let (mut ladder, now) = self::ladder(&[("a", false), ("b", false)], 9);
        for round in 0..2 {
            for step in 0..2 {
                assert_eq!(ladder.next(now), Next::Try(step), "{round}");
                assert!(!ladder.is_anyway());
                ladder.skip(step, "open".into());
            }
            for step in 0..2 {
                assert_eq!(ladder.next(now), Next::Try(step), "{round}");
                assert!(ladder.is_anyway());
            }
            assert!(matches!(ladder.next(now), Next::Pause(_)));
        }
    }

    #[test]
    fn a_lost_job_starts_above_and_falls_back_on_what_is_below() {
        let rungs = [("a", false), ("b", false), ("c", false)];
        let (mut above, now) = ladder(&rungs, 0);
        assert_eq!(above.start_above("a"), Some("b"));
        let steps: Vec<_> = (0..4).map(|_| above.next(now)).collect();
        assert_eq!(
            steps,
            [Next::Try(1), Next::Try(2), Next::Try(0), Next::GiveUp]
        );
        for (name, rungs) in [
            ("c", &rungs[..]),
            ("x", &rungs),
            ("a", &[("a", false), ("b", true)]),
        ] {
            let (mut same, now) = ladder(rungs, 0);
            assert_eq!(same.start_above(name), None);
            assert_eq!(same.next(now), Next::Try(0));
        }
    }

    proptest::proptest! {
        /// Whatever becomes of the rungs, each that can be used is really tried in each round or another one is.
        #[test]
        fn no_round_goes_by_without_a_try(
            count in 1usize..5,
            lost in 0usize..6,
            skips in proptest::collection::vec(proptest::prelude::any::<bool>(), 40),
        ) {
            let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            let rungs: Vec<_> = names.iter().map(|n| (n.as_str(), false)).collect();
            let (mut ladder, now) = ladder(&rungs, 600);
            let _above = ladder.start_above(&lost.to_string());
            let (mut tries, mut rounds, mut steps) = (0, 0, 0);
            for skip in skips {
                match ladder.next(now) {
                    Next::Try(step) if skip && !ladder.is_anyway() => ladder.skip(step, "x".into()),
                    Next::Try(step) => {
                        tries += 1;
                        ladder.full(step, "x".into());
                    }
                    Next::Pause(_) => {
                        rounds += 1;
                        proptest::prop_assert!(tries > 0 && steps >= count);
                        (tries, steps) = (0, 0);
                        continue;
                    }
                    Next::GiveUp => proptest::prop_assert!(false, "there is time"),
                }
                steps += 1;
            }
            proptest::prop_assert!(rounds > 0 || steps == 40);
        }
    }

    #[test]
    fn nothing_is_waited_for_where_no_rung_can_be_used() {
        let (mut ladder, now) = ladder(&[("a", false)], 600);
        assert_eq!(ladder.next(now), Next::Try(0));
        ladder.unusable(0, "no such provider".into());
        assert_eq!(ladder.next(now), Next::GiveUp);
        assert!(!ladder.is_only_full());
    }
}
