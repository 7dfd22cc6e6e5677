//! All that may interrupt a stage while it waits for something else: signals, the machine's end, the
//! Runner's end, and the clock.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::notice::Notices;
use super::output::Written;
use crate::error::{Error, Kind};
use crate::process::Process;
use crate::script::survivors::Survivors;
use crate::ui::Ui;

/// A loss that is over sooner is nobody's business.
const TELL_LOSS: Duration = Duration::from_secs(60);

/// From a cancel to the end of the stage, whatever happens: GitLab Runner may start `cleanup` beside a stage
/// that takes longer, and the far side needs 15 s of it (TERM, 10 s, KILL, 5 s).
pub(super) const CANCEL_LIMIT: Duration = Duration::from_secs(26);

/// What a cancelled stage still gives its own output once that time is over: the result may have become known at the very
/// end, and the writer is a thread that has to be woken to say that it is done.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Why a script's result is not known.
#[derive(Debug)]
pub enum Stopped {
    /// The machinery failed.
    Failed(Error),
    /// The Runner is gone: nobody will ever ask for this job again, so its machine has to end.
    RunnerGone(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What happened.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The Runner asks to stop: once, or more insistently.
    Cancel,
    /// The machine is gone.
    Machine(Error),
}

/// A script that is out of reach.
#[derive(Clone, Copy, Debug)]
struct OutOfReach {
    since: Instant,
    /// For how long it may be.
    limit: Duration,
    /// Whether the job log was told.
    told: bool,
    /// Whether it is over, as far as is known.
    over: bool,
}

/// The watchers.
pub(super) struct Interruptions {
    terminate: Signal,
    interrupt: Signal,
    /// Nothing once it has told.
    machine: Option<Pin<Box<dyn Future<Output = Error>>>>,
    owner: Pin<Box<dyn Future<Output = ()>>>,
    pub(super) written: Written,
    /// Spot's own word that it takes the machine back.
    pub(super) notices: Notices,
    /// How often the Runner asked to stop.
    pub(super) cancels: u32,
    cancel_deadline: Option<Instant>,
    out_of_reach: Option<OutOfReach>,
    /// Processes that the far side could not end.
    pub(super) left: Survivors,
    ui: Ui,
}

impl Interruptions {
    /// Begins to watch.
    pub(super) fn watch(
        machine: impl Future<Output = Error> + 'static,
        owner: Option<Process>,
        written: Written,
        ui: Ui,
    ) -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| Error::new(Kind::Cancelled, "cannot listen for signals").because(e))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            machine: Some(Box::pin(machine)),
            owner: Box::pin(async move {
                match owner {
                    Some(owner) => owner.gone().await,
                    None => std::future::pending().await,
                }
            }),
            written,
            notices: Notices::default(),
            cancels: 0,
            cancel_deadline: None,
            out_of_reach: None,
            left: Survivors::default(),
            ui,
        })
    }

    /// Has the job log told if the script is out of reach for long, which it may be for so long: once for each loss (by its
    /// beginning), however many connections come to nothing in it.
    pub(super) fn is_out_of_reach(&mut self, since: Instant, limit: Duration) {
        let known = self.out_of_reach.filter(|known| known.since == since);
        self.out_of_reach = Some(OutOfReach {
            since,
            limit,
            told: known.is_some_and(|known| known.told),
            over: false,
        });
    }

    /// The script is followed.
    pub(super) fn is_within_reach(&mut self) {
        if let Some(known) = &mut self.out_of_reach {
            known.over = true;
        }
    }

    fn tell_loss(&mut self) {
        if let Some(known) = &mut self.out_of_reach {
            known.told = true;
            self.ui.warn(&format!(
                "no connection to the machine for {} s; its script goes on, and so do attempts to reach it for {} in all",
                TELL_LOSS.as_secs(),
                humantime::format_duration(known.limit),
            ));
        }
    }

    /// Waits for the next interruption. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Interruption, Stopped> {
        let at = |when: Option<Instant>| async move {
            match when {
                Some(when) => sleep_until(when).await,
                None => std::future::pending().await,
            }
        };
        let gone = |what: &str| {
            Stopped::RunnerGone(
                Error::new(
                    Kind::Cancelled,
                    format!("{what}, so nobody waits for this job any more"),
                )
                .hint("Its machine is ended with it."),
            )
        };
        loop {
            let untold = self.out_of_reach.filter(|loss| !loss.told && !loss.over);
            let tell_at = untold.map(|loss| loss.since + TELL_LOSS);
            let machine = async {
                match &mut self.machine {
                    Some(machine) => machine.await,
                    None => std::future::pending().await,
                }
            };
            return tokio::select! {
                biased;
                _ = self.terminate.recv() => Ok(self.cancelled()),
                _ = self.interrupt.recv() => Ok(self.cancelled()),
                () = &mut self.owner => Err(gone("GitLab Runner is gone")),
                () = self.written.broken() => Err(gone("GitLab Runner does not read this job's output any more")),
                error = machine => {
                    self.machine = None;
                    Ok(Interruption::Machine(self.notices.explain(error)))
                }
                () = at(self.cancel_deadline) => Err(self.stuck().into()),
                () = at(tell_at) => {
                    self.tell_loss();
                    continue;
                }
                () = self.notices.heard() => continue,
            };
        }
    }

    /// Returns whether the machine was told to be gone.
    pub(super) fn is_machine_gone(&self) -> bool {
        self.machine.is_none()
    }

    /// Waits until all output is written; `false` where it cannot be. A Runner that is slow to read is waited for, as by
    /// any program, unless it asked for the end and does not read at all.
    pub(super) async fn all_written(&mut self) -> Result<bool, Stopped> {
        let last = Instant::now() + LAST_WRITES;
        loop {
            let deadline = self.cancel_deadline.map(|when| when.max(last));
            let late = async {
                match deadline {
                    Some(when) => sleep_until(when).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                written = self.written.finished() => return Ok(written),
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                () = late => {
                    return Err(Error::new(
                        Kind::Cancelled,
                        "the job was cancelled, and GitLab Runner did not read the rest of its output",
                    )
                    .into());
                }
            }
            self.cancelled();
        }
    }

    fn cancelled(&mut self) -> Interruption {
        self.cancels += 1;
        self.cancel_deadline
            .get_or_insert_with(|| Instant::now() + CANCEL_LIMIT);
        Interruption::Cancel
    }

    fn stuck(&self) -> Error {
        let left = match self.left.is_empty() {
            true => "the machine did not say why".to_owned(),
            false => format!("still there: {}", self.left),
        };
        Error::new(
            Kind::Cancelled,
            format!(
                "the job was cancelled, but its script did not end within {} s; {left}",
                CANCEL_LIMIT.as_secs()
            ),
        )
        .hint("It ends with the machine.")
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{sleep, timeout};

    use crate::script::interruptions::*;

    /// A interruptions in which the Runner asked to stop so long ago that the stage's time is over.
    fn late_interruptions(ended: oneshot::Receiver<bool>) -> Interruptions {
        let never = std::future::pending::<Error>();
        let mut interruptions =
            Interruptions::watch(never, None, Written::of(ended), Ui::for_job_log(true)).unwrap();
        interruptions.cancelled();
        interruptions.cancel_deadline = Some(Instant::now());
        interruptions
    }

    /// CI saw it once on a busy machine: the result was known, the writer not yet scheduled, and the job a system failure.
    #[tokio::test(start_paused = true)]
    async fn a_writer_that_is_scheduled_late_costs_no_result() {
        let (tell, ended) = oneshot::channel();
        let mut interruptions = late_interruptions(ended);
        let writer = async {
            sleep(LAST_WRITES / 2).await;
            tell.send(true).unwrap();
        };
        let (written, ()) = tokio::join!(interruptions.all_written(), writer);
        assert!(written.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_told_once_wherever_it_happens() {
        let (_tell, ended) = oneshot::channel();
        let never = std::future::pending::<Error>();
        let ui = Ui::for_job_log(true);
        let mut interruptions = Interruptions::watch(never, None, Written::of(ended), ui).unwrap();
        let told = |interruptions: &Interruptions| interruptions.out_of_reach.unwrap().told;
        let since = Instant::now();
        let second = Duration::from_secs(1);
        // One connection after the other, each of which comes to nothing in its own way.
        for waited in [TELL_LOSS - second, second * 2] {
            interruptions.is_out_of_reach(since, TELL_LOSS * 10);
            assert!(!told(&interruptions));
            drop(timeout(waited, interruptions.next()).await);
        }
        assert!(told(&interruptions));
        interruptions.is_out_of_reach(since, TELL_LOSS * 10);
        assert!(told(&interruptions));
        // Another loss is another matter; one that is over is none.
        interruptions.is_out_of_reach(Instant::now(), TELL_LOSS * 10);
        interruptions.is_within_reach();
        drop(timeout(TELL_LOSS * 2, interruptions.next()).await);
        assert!(!told(&interruptions));
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_does_not_read_is_not_waited_for() {
        let (_tell, ended) = oneshot::channel();
        assert!(late_interruptions(ended).all_written().await.is_err());
    }
}
