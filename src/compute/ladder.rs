//! Which rung is tried next: one after the other, round after round, until there is room or the time is over.
//!
//! Only decides; `prepare` launches, waits and tells. A rung may be skipped in a round; where all would be, all are tried.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::machine::verdict::Verdict;

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
    state: Use,
    told: Option<Told>,
}

/// What a rung is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It may have room, now or later.
    Open,
    /// It is there, and never has room for this job.
    Spent,
    /// It cannot be used at all.
    Unusable,
}

/// What came of a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// In AWS's words.
    pub cause: String,
    /// What helps, as full sentences; may be empty.
    pub remedy: String,
    /// Whether it was a fault of the moment.
    pub passes: bool,
}

impl From<Verdict> for Told {
    fn from(verdict: Verdict) -> Self {
        Self {
            passes: verdict.why.passes(),
            cause: verdict.cause,
            remedy: verdict.remedy,
        }
    }
}

impl From<String> for Told {
    fn from(cause: String) -> Self {
        Self {
            cause,
            remedy: String::new(),
            passes: false,
        }
    }
}

impl From<&Error> for Told {
    fn from(error: &Error) -> Self {
        Self {
            cause: error.to_string(),
            remedy: error.remedy().unwrap_or_default().to_owned(),
            passes: false,
        }
    }
}

impl Ladder {
    /// Returns a ladder of rungs, each with its name and whether it is only there for the case that the one before it
    /// cannot be used at all. Rounds go on until the given moment; the first is always gone to its end.
    #[must_use]
    pub fn new(rungs: impl IntoIterator<Item = (String, bool)>, until: Instant) -> Self {
        let rung = |(name, fallback)| Rung {
            name,
            fallback,
            state: Use::Open,
            told: None,
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
    pub fn skip(&mut self, at: usize, told: Told) {
        self.tried = self.tried.saturating_sub(1);
        self.rungs[at].told = Some(told);
    }

    fn is_open(&self, at: usize) -> bool {
        let rung = &self.rungs[at];
        let stands_in = at > 0 && self.rungs[at - 1].state == Use::Unusable;
        rung.state == Use::Open && (!rung.fallback || stands_in)
    }

    /// Notes that a rung has no room: now, or, where no waiting helps, ever.
    pub fn full(&mut self, at: usize, verdict: Verdict) {
        if !verdict.why.is_worth_waiting() {
            self.rungs[at].state = Use::Spent;
        }
        self.rungs[at].told = Some(verdict.into());
    }

    /// Notes that a rung cannot be used, now or later.
    pub fn unusable(&mut self, at: usize, told: Told) {
        self.rungs[at].state = Use::Unusable;
        self.rungs[at].told = Some(told);
    }

    /// Returns whether any rung is there that never has room for this job.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.rungs.iter().any(|rung| rung.state == Use::Spent)
    }

    /// Returns whether what came of any rung was a fault of the moment.
    #[must_use]
    pub fn passes(&self) -> bool {
        let told = self.rungs.iter().filter_map(|rung| rung.told.as_ref());
        told.into_iter().any(|told| told.passes)
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
        let told = |rung: &Rung| Some(format!("{}: {}", rung.name, rung.told.as_ref()?.cause));
        let all: Vec<String> = self.rungs.iter().filter_map(told).collect();
        all.join("; ")
    }

    /// Returns what helps, once for all rungs that it helps; which those are is named where not all are.
    #[must_use]
    pub fn remedies(&self) -> String {
        let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
        for rung in &self.rungs {
            let Some(told) = &rung.told else { continue };
            match all.iter_mut().find(|(remedy, _)| *remedy == told.remedy) {
                Some((_, names)) => names.push(&rung.name),
                None if told.remedy.is_empty() => {}
                None => all.push((&told.remedy, vec![&rung.name])),
            }
        }
        if let [(remedy, _)] = all[..] {
            return remedy.to_owned();
        }
        let each = all
            .iter()
            .map(|(remedy, names)| format!("{}: {remedy}", names.join(", ")));
        each.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::verdict::Why;

    fn verdict(why: Why, cause: &str) -> Verdict {
        Verdict {
            why,
            cause: cause.into(),
            remedy: format!("Help {cause}."),
        }
    }

    fn full(cause: &str) -> Verdict {
        verdict(Why::NoRoom, cause)
    }

    fn told(cause: &str) -> Told {
        cause.to_owned().into()
    }

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
        ladder.full(0, full("x"));
        ladder.full(1, full("y"));
        assert_eq!(ladder.next(end), Next::GiveUp);
        assert_eq!(ladder.causes(), "a: x; b: y");
        assert!(ladder.is_only_full());
    }

    #[test]
    fn a_fallback_is_there_only_for_what_cannot_be_used_at_all() {
        let (mut full, now) = ladder(&[("default", false), ("fargate", true)], 0);
        assert_eq!(full.next(now), Next::Try(0));
        full.full(0, self::full("no room"));
        assert_eq!(full.next(now), Next::GiveUp);
        let (mut none, now) = ladder(&[("default", false), ("fargate", true)], 0);
        assert_eq!(none.next(now), Next::Try(0));
        none.unusable(0, told("the cluster has none"));
        assert_eq!(none.following(), Some("fargate"));
        assert_eq!(none.next(now), Next::Try(1));
    }

    #[test]
    fn a_skipped_rung_is_passed_over_unless_all_are_skipped() {
        let (mut ladder, now) = ladder(&[("a", false), ("b", false)], 0);
        assert_eq!(ladder.next(now), Next::Try(0));
        ladder.skip(0, told("open"));
        assert_eq!(ladder.next(now), Next::Try(1));
        assert!(!ladder.is_anyway());
        ladder.full(1, full("full"));
        // One was tried: that is a round.
        assert_eq!(ladder.next(now), Next::GiveUp);
        assert_eq!(ladder.causes(), "a: open; b: full");

        let (mut ladder, now) = self::ladder(&[("a", false), ("b", false)], 9);
        for round in 0..2 {
            for step in 0..2 {
                assert_eq!(ladder.next(now), Next::Try(step), "{round}");
                assert!(!ladder.is_anyway());
                ladder.skip(step, told("open"));
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
                    Next::Try(step) if skip && !ladder.is_anyway() => ladder.skip(step, told("x")),
                    Next::Try(step) => {
                        tries += 1;
                        ladder.full(step, full("x"));
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
    fn what_never_has_room_is_not_waited_for_and_brings_no_fallback() {
        let (mut ladder, now) = ladder(&[("a", false), ("b", false)], 600);
        assert_eq!(ladder.next(now), Next::Try(0));
        ladder.full(0, verdict(Why::Never, "a quota of 0"));
        assert_eq!(ladder.next(now), Next::Try(1));
        ladder.full(1, full("empty"));
        // The other one is waited for, alone.
        assert!(matches!(ladder.next(now), Next::Pause(_)));
        assert_eq!(ladder.next(now), Next::Try(1));
        ladder.full(1, verdict(Why::Never, "too large"));
        assert_eq!(ladder.next(now), Next::GiveUp);
        assert!(ladder.is_spent() && !ladder.is_only_full());
        assert_eq!(ladder.causes(), "a: a quota of 0; b: too large");
        assert_eq!(
            ladder.remedies(),
            "a: Help a quota of 0. b: Help too large."
        );
        let (mut default, now) = self::ladder(&[("default", false), ("fargate", true)], 600);
        assert_eq!(default.next(now), Next::Try(0));
        default.full(0, verdict(Why::Never, "a quota of 0"));
        assert_eq!(default.next(now), Next::GiveUp);
        assert_eq!(default.remedies(), "Help a quota of 0.");
    }

    #[test]
    fn what_helps_is_told_once_for_the_rungs_that_it_helps() {
        let (mut ladder, _) = ladder(&[("a", false), ("b", false), ("c", false)], 600);
        ladder.full(0, full("x"));
        ladder.full(1, verdict(Why::Busy, "y"));
        assert!(ladder.passes());
        ladder.full(2, full("x"));
        assert_eq!(ladder.remedies(), "a, c: Help x. b: Help y.");
        ladder.full(1, full("x"));
        assert_eq!(ladder.remedies(), "Help x.");
        assert!(!ladder.passes());
        ladder.skip(1, told("z"));
        assert_eq!(ladder.remedies(), "Help x.");
    }

    #[test]
    fn nothing_is_waited_for_where_no_rung_can_be_used() {
        let (mut ladder, now) = ladder(&[("a", false)], 600);
        assert_eq!(ladder.next(now), Next::Try(0));
        ladder.unusable(0, told("no such provider"));
        assert_eq!(ladder.next(now), Next::GiveUp);
        assert!(!ladder.is_only_full());
    }
}
