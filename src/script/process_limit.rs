//! A machine that has no process left for the far side: how long is waited for one, and when a machine that says nothing of it
//! is taken for such a one.
//!
//! What an earlier script left running may have used up all that the machine's limit of processes allows. Then even the
//! SSH server may not be able to say so: it closes each connection that it accepts, or each login.

use std::error::Error as _;
use std::time::Duration;

use tokio::time::Instant;

use super::failures;
use super::follow::Script;
use crate::error::{Error, Kind, Result};
use crate::ssh::connect::connect_within;
use crate::ssh::failure::Failure;
use crate::ssh::session::Session;

/// How long a machine that says that it has no process left is asked again: what an earlier script left may be about to end.
/// A far side in bash takes 15 s to say it.
const TOLD: Duration = Duration::from_secs(5);
/// The same where it says nothing, and closes each connection or login at once, which a network may do as well for a moment.
const UNTOLD: Duration = Duration::from_secs(12);
/// A login that lasted so long did not end for want of a process.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What came of the logins for a script that has not begun.
#[derive(Debug, Default)]
pub(super) struct ProcessLimit {
    first: Option<Instant>,
    last: Option<Instant>,
    /// The first of those that came to nothing at once, one after the other.
    barren: Option<Instant>,
}

impl ProcessLimit {
    /// Logs in; before the script has begun not for as long as its limit allows where the machine closes each connection.
    pub(super) async fn connect(
        &mut self,
        script: &Script<'_>,
        deadline: Instant,
        begun: bool,
    ) -> Result<Session> {
        let until = async |until: Instant| {
            connect_within(script.endpoint, script.key, &script.ceiling, || until).await
        };
        let early = Instant::now() + UNTOLD;
        let session = match begun || deadline <= early {
            true => until(deadline).await?,
            false => match until(early).await {
                Err(error) if is_closed(&error) => {
                    return Err(failures::began_nothing().because(error));
                }
                Err(error) if error.kind() == Kind::Unreachable => until(deadline).await?,
                done => done?,
            },
        };
        self.last = Some(Instant::now());
        self.first = self.first.or(self.last);
        Ok(session)
    }

    /// The machine said that it has no process left; an error where it has been asked for long enough.
    pub(super) fn told(&self) -> Option<Error> {
        let first = self.first?;
        (first.elapsed() >= TOLD).then(|| failures::crowded("cannot run the script"))
    }

    /// A login came to nothing without a word; an error where all have, for long enough.
    pub(super) fn untold(&mut self) -> Option<Error> {
        let last = self.last?;
        if last.elapsed() >= AT_ONCE {
            self.barren = None;
            return None;
        }
        let barren = *self.barren.get_or_insert(last);
        (barren.elapsed() >= UNTOLD).then(failures::began_nothing)
    }
}

/// Tells whether the last of several attempts was accepted and closed without a word: who says why not has a process for it.
fn is_closed(error: &Error) -> bool {
    let failure = error.source().and_then(|source| source.downcast_ref());
    matches!(failure, Some(Failure::Closed(_)))
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use crate::script::process_limit::*;

    #[tokio::test(start_paused = true)]
    async fn logins_that_end_at_once_are_given_up_and_others_are_not() {
        let mut process_limit = ProcessLimit::default();
        let mut asked = 0;
        let began = Instant::now();
        let error = loop {
            asked += 1;
            process_limit.last = Some(Instant::now());
            sleep(AT_ONCE / 2).await;
            match process_limit.untold() {
                Some(error) => break error,
                None => sleep(AT_ONCE).await,
            }
        };
        assert!(error.to_string().contains("limit of processes"), "{error}");
        assert!(began.elapsed() >= UNTOLD && asked > 3);
        // A connection that was lost after a while is a loss.
        process_limit.last = Some(Instant::now());
        advance(AT_ONCE).await;
        assert!(process_limit.untold().is_none());
        assert_eq!(process_limit.barren, None);
    }
}
