//! How long a script may be out of reach, and how soon the next connection to it is made.
//!
//! A connection is no progress by itself: a machine may let in and hang up, say `open` and end, or take the command and say
//! nothing. Only output is, or a far side that has followed for a while: a script may well be quiet.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// A far side that followed for so long had the script in hand.
const STANDS: Duration = Duration::from_secs(10);
/// Between a connection that was lost as soon as it stood and the next; doubled as long as there is no progress.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a command may say nothing, if there is time for another connection.
const SILENCE: Duration = Duration::from_secs(60);
/// And how long at least: a busy machine takes seconds to start it.
const LEAST_SILENCE: Duration = Duration::from_secs(15);

/// How a connection came to nothing, or was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It was closed, or died.
    Closed,
    /// No command could be begun on it.
    NoCommand,
    /// The command said nothing.
    Silent,
    /// The command ended.
    Ended,
}

impl Loss {
    /// Says it of a machine.
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::Closed => "it closed the connection",
            Self::NoCommand => "it began no command",
            Self::Silent => "its far side said nothing",
            Self::Ended => "its far side ended at once",
        }
    }
}

/// A connection's life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    began: Instant,
    opened: Option<Instant>,
    output: bool,
}

impl Life {
    /// Begins with the login.
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            opened: None,
            output: false,
        }
    }

    /// The far side follows.
    pub(super) fn opened(&mut self) {
        self.opened = Some(Instant::now());
    }

    /// Output came.
    pub(super) fn heard(&mut self) {
        self.output = true;
    }

    /// Tells whether the far side follows.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    fn is_progress(&self) -> bool {
        self.output || self.opened.is_some_and(|at| at.elapsed() >= STANDS)
    }
}

/// How far a script is out of reach.
#[derive(Debug)]
pub(super) struct Reach {
    limit: Duration,
    /// The end of the last connection with progress, or the beginning of all.
    since: Instant,
    pauses: ExponentialBackoff,
}

impl Reach {
    /// Begins; it may be out of reach for so long.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            pauses: pauses(),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Since when it is out of reach, unless a connection stands.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Until when it may be.
    pub(super) fn deadline(&self) -> Instant {
        self.since + self.limit
    }

    /// How long the command of the next connection may say nothing.
    pub(super) fn silence(&self) -> Duration {
        let left = self.deadline().saturating_duration_since(Instant::now());
        left.clamp(LEAST_SILENCE, SILENCE)
    }

    /// Heeds the loss of a connection; returns for how long the next one has to wait, or nothing where there is no time for
    /// another.
    pub(super) fn lost(&mut self, life: Life) -> Option<Duration> {
        let now = Instant::now();
        if life.is_progress() {
            self.since = now;
            self.pauses = pauses();
            let short = life.began.elapsed() < FIRST_PAUSE;
            return Some(if short { FIRST_PAUSE } else { Duration::ZERO });
        }
        let left = self.deadline().saturating_duration_since(now);
        let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE);
        (!left.is_zero()).then(|| pause.min(left))
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use crate::script::reconnect::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Lives through connections until there is no time for another; returns how many there were.
    async fn live(reach: &mut Reach, one: impl AsyncFn(&mut Life)) -> u32 {
        for number in 1..1000 {
            let mut life = Life::begin();
            one(&mut life).await;
            match reach.lost(life) {
                Some(pause) => sleep(pause).await,
                None => return number,
            }
        }
        panic!("there is no end to it");
    }

    #[tokio::test(start_paused = true)]
    async fn machines_that_let_in_and_no_more_are_given_up_in_time_with_few_logins() {
        let ends_at_once = async |life: &mut Life| life.opened();
        let hangs_up = async |_: &mut Life| {};
        let is_silent = async |_: &mut Life| sleep(LEAST_SILENCE).await;
        let (mut first, mut second, mut third) =
            (Reach::new(LIMIT), Reach::new(LIMIT), Reach::new(LIMIT));
        let began = Instant::now();
        let logins = live(&mut first, ends_at_once).await;
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
        assert!((8..14).contains(&logins), "{logins}");
        second.since = Instant::now();
        assert_eq!(live(&mut second, hangs_up).await, logins);
        third.since = Instant::now();
        let began = Instant::now();
        live(&mut third, is_silent).await;
        assert!(began.elapsed() < LIMIT + LEAST_SILENCE + LONGEST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn output_or_a_far_side_that_follows_for_a_while_is_progress() {
        for output in [true, false] {
            let mut reach = Reach::new(LIMIT);
            for _ in 0..100 {
                let mut life = Life::begin();
                life.opened();
                sleep(STANDS).await;
                if output {
                    life = Life::begin();
                    life.opened();
                    life.heard();
                    sleep(FIRST_PAUSE).await;
                }
                assert_eq!(reach.lost(life), Some(Duration::ZERO));
                assert_eq!(reach.since(), Instant::now());
            }
            let mut life = Life::begin();
            life.opened();
            sleep(STANDS - Duration::from_millis(1)).await;
            assert_eq!(reach.lost(life), Some(FIRST_PAUSE));
            assert_eq!(
                reach.since(),
                Instant::now() - STANDS + Duration::from_millis(1)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_there_is_progress() {
        let mut reach = Reach::new(10 * LIMIT);
        let mut paused = |life| reach.lost(life).unwrap().as_millis();
        let pauses: Vec<_> = (0..8).map(|_| paused(Life::begin())).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        let mut life = Life::begin();
        life.heard();
        assert_eq!(paused(life), 200);
        assert_eq!(paused(Life::begin()), 200);
        assert_eq!(paused(Life::begin()), 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_command_has_the_time_that_is_left_within_bounds() {
        let mut reach = Reach::new(2 * LIMIT);
        assert_eq!(reach.silence(), SILENCE);
        sleep(Duration::from_secs(80)).await;
        assert_eq!(reach.silence(), Duration::from_secs(40));
        sleep(LIMIT).await;
        assert_eq!(reach.silence(), LEAST_SILENCE);
        assert_eq!(reach.lost(Life::begin()), None);
    }
}
