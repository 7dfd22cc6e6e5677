//! Ends the processes of a script: TERM, a time to follow it, KILL, and the names of those that survive even that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::session::{Leader, Members};

/// How long a cancelled script may take to end by itself.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// The same for what is left of an earlier script of the job.
pub(super) const LEFT_OVER_GRACE: Duration = Duration::from_secs(2);

/// How long KILL may take.
const KILL_TAKES: Duration = Duration::from_secs(5);

/// How soon it is first looked whether processes have ended, and how seldom later.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LOOKS: Duration = Duration::from_millis(100);

/// The processes that are left: number and name of each.
pub(super) type Survivors = Arc<[String]>;

/// The ending of one script, begun or not.
#[derive(Debug, Default)]
pub(super) struct Ending(Mutex<Option<UnderWay>>);

#[derive(Debug)]
struct UnderWay {
    kill_from: watch::Sender<Instant>,
    result: watch::Receiver<Option<Survivors>>,
}

/// The result of an ending, to be waited for.
#[derive(Debug, Clone)]
pub(super) struct Verdict(watch::Receiver<Option<Survivors>>);

impl Verdict {
    pub(super) async fn wait(&mut self) -> Survivors {
        match self.0.wait_for(Option::is_some).await {
            Ok(survivors) => survivors.clone().unwrap_or_default(),
            // The runtime ends.
            Err(_) => Survivors::default(),
        }
    }
}

impl Ending {
    /// Begins to end the script, or joins the ending under way; KILL comes after `grace` at the latest.
    ///
    /// Without grace no TERM is sent at all.
    pub(super) fn begin(&self, leader: Leader, grace: Duration) -> Verdict {
        let kill_from = Instant::now() + grace;
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = slot.as_ref().filter(|it| it.result.borrow().is_none()) {
            under_way.kill_from.send_if_modified(|from| {
                let sooner = kill_from < *from;
                *from = kill_from.min(*from);
                sooner
            });
            return Verdict(under_way.result.clone());
        }
        let (tell, result) = watch::channel(None);
        let kill_from = watch::Sender::new(kill_from);
        let told = kill_from.subscribe();
        tokio::spawn(async move {
            let survivors = end(leader, grace, told).await;
            tell.send_replace(Some(survivors));
        });
        *slot = Some(UnderWay {
            kill_from,
            result: result.clone(),
        });
        Verdict(result)
    }

    /// Returns the last ending, if there was one.
    pub(super) fn last(&self) -> Option<Verdict> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|it| Verdict(it.result.clone()))
    }
}

async fn end(
    leader: Leader,
    grace: Duration,
    mut kill_from: watch::Receiver<Instant>,
) -> Survivors {
    let mut members = Members::new(leader);
    let mut pause = FIRST_LOOK;
    members.look().await;
    if !grace.is_zero() {
        members.signal(Signal::TERM);
    }
    while !members.is_empty() {
        let from = *kill_from.borrow_and_update();
        let now = Instant::now();
        if now >= from + KILL_TAKES {
            break;
        }
        if now >= from {
            members.signal(Signal::KILL);
        }
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = kill_from.changed() => {}
        }
        pause = (pause * 2).min(LOOKS);
        members.look().await;
    }
    members.names().into()
}
