//! Which rung is tried next: one after the other, round after round, until there is room or the time is over.
//!
//! Only decides; `prepare` launches, waits and tells.

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
    at: usize,
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
        Self {
            rungs: rungs.into_iter().map(rung).collect(),
            at: 0,
            pause: FIRST_PAUSE,
            until,
        }
    }

    /// Decides what to do next.
    #[must_use]
    pub fn next(&mut self, now: Instant) -> Next {
        while self.at < self.rungs.len() {
            let at = self.at;
            self.at += 1;
            if self.is_open(at) {
                return Next::Try(at);
            }
        }
        if now >= self.until || !(0..self.rungs.len()).any(|at| self.is_open(at)) {
            return Next::GiveUp;
        }
        self.at = 0;
        let pause = self.pause.min(self.until - now);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Next::Pause(pause)
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
        let next = (self.at..self.rungs.len()).find(|at| self.is_open(*at))?;
        Some(&self.rungs[next].name)
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
    fn nothing_is_waited_for_where_no_rung_can_be_used() {
        let (mut ladder, now) = ladder(&[("a", false)], 600);
        assert_eq!(ladder.next(now), Next::Try(0));
        ladder.unusable(0, "no such provider".into());
        assert_eq!(ladder.next(now), Next::GiveUp);
        assert!(!ladder.is_only_full());
    }
}
