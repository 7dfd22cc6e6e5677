//! Tries rung after rung, round after round, until the driver can log in to a machine.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bring_up::Preparation;
use super::shared_rungs::{self, Advice, Found, SharedRungs, start_above_spot_loss};
use crate::compute::ladder::{Ladder, Next, Told};
use crate::compute::{self, Coming};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::machine::launch::LaunchState;
use crate::machine::verdict::Verdict;
use crate::ssh::session::Session;
use crate::state::record::now;

/// The result of trying one rung.
pub(super) enum RungResult {
    Ready(Box<Ready>),
    NoRoom {
        verdict: Verdict,
        /// Whether nothing of it is left to be ended.
        over: bool,
    },
    Unusable(Told),
    /// Its machine does not get any further.
    Stuck(Error),
}

/// A machine to which the driver has logged in.
pub(super) struct Ready {
    pub(super) machine: Machine,
    pub(super) session: Session,
    /// Its further state.
    pub(super) coming: Coming,
    /// The rung that it is on.
    pub(super) step: usize,
}

impl Preparation<'_> {
    /// Tries rung after rung until the driver can log in to a machine.
    pub(super) async fn try_rungs(&mut self) -> Result<Ready> {
        let ui = self.context.ui;
        let wait = self.context.settings.capacity_wait;
        let waited = Duration::from_secs(now().saturating_sub(self.intent.first_seen));
        let until = Instant::now() + wait.saturating_sub(waited);
        let rungs = self.plan.steps.iter().map(|s| (s.name.clone(), s.fallback));
        let mut ladder = Ladder::new(rungs, until);
        start_above_spot_loss(self.context, &mut ladder);
        let mut rungs = SharedRungs::new(&self.shared, ui);
        // Printed only if another round follows: the last error names all causes again.
        let mut unsaid: Option<String> = None;
        loop {
            let step = match ladder.next(Instant::now()) {
                Next::Try(step) => step,
                Next::Pause(pause) => {
                    if let Some(cause) = unsaid.take() {
                        ui.progress(&cause);
                    }
                    self.announced = false;
                    let left = until.saturating_duration_since(Instant::now());
                    let seconds =
                        |span: Duration| Duration::from_secs_f64(span.as_secs_f64().ceil());
                    ui.progress(&format!(
                        "No room on any rung; trying again in {} s, for {} more at most.",
                        seconds(pause).as_secs(),
                        humantime::format_duration(seconds(left)),
                    ));
                    sleep(pause).await;
                    continue;
                }
                Next::GiveUp => {
                    let error =
                        shared_rungs::no_rung_left(&ladder, self.context.settings.capacity_wait);
                    // A temporary fault may have passed when the Runner tries again.
                    return Err(match ladder.passes() {
                        true => error,
                        false => self.final_failure(error),
                    });
                }
            };
            let known_unusable = self.plan.if_default_is_missing(step);
            let store = self.context.store();
            if known_unusable.as_ref().is_some_and(|n| store.is_noted(n)) {
                ladder.unusable(step, shared_rungs::no_default_strategy());
                continue;
            }
            let name = &self.plan.steps[step].name;
            let capacity = self.plan.steps[step].capacity();
            let advice = rungs.advice(name, capacity.as_deref(), ladder.is_anyway());
            let tried = match advice.await {
                Advice::Skip(why) => {
                    ladder.skip(step, why);
                    continue;
                }
                Advice::Full(verdict) => RungResult::NoRoom {
                    verdict,
                    over: true,
                },
                Advice::Try => {
                    let tried = self.try_rung(step).await;
                    let found = match &tried {
                        Ok(RungResult::Ready(_)) => Found::Room,
                        Ok(RungResult::NoRoom { verdict, .. }) if verdict.why.is_want_of_room() => {
                            Found::Full(verdict)
                        }
                        Ok(
                            RungResult::NoRoom { .. }
                            | RungResult::Unusable(_)
                            | RungResult::Stuck(_),
                        )
                        | Err(_) => Found::Nothing,
                    };
                    rungs.found(capacity.as_deref(), found).await;
                    tried?
                }
            };
            let (cause, over) = match tried {
                RungResult::Ready(ready) => return Ok(*ready),
                RungResult::NoRoom { verdict, over } => {
                    let line = format!("No room on {name}: {}", verdict.cause);
                    ladder.full(step, verdict);
                    (line, over)
                }
                RungResult::Unusable(told) => {
                    let line = format!("{name} cannot be used: {}", told.cause);
                    ladder.unusable(step, told);
                    if let Some(note) = known_unusable {
                        store.note(&note);
                    }
                    (line, true)
                }
                RungResult::Stuck(error) => {
                    ladder.unusable(step, Told::from(&error));
                    if !ladder.is_only_full() {
                        return Err(error);
                    }
                    let remedy = error.remedy().map(|remedy| format!(" ({remedy})"));
                    let remedy = remedy.unwrap_or_default();
                    (format!("{name} cannot be used: {error}{remedy}"), false)
                }
            };
            // Some of AWS's sentences end with a full stop and some do not.
            let cause = cause.trim_end_matches('.');
            match ladder.following() {
                Some(next) => ui.progress(&format!("{cause}. Trying {next}...")),
                None => unsaid = Some(format!("{cause}.")),
            }
            self.end_last(step, over).await;
        }
    }

    /// Ends what a rung without room left waiting, unless it is over. If that fails, the intent still names it for `cleanup`.
    async fn end_last(&mut self, step: usize, over: bool) {
        let Some(last) = self.intent.launches.last_mut() else {
            return;
        };
        if last.state == LaunchState::Over {
            return;
        }
        let name = &self.plan.steps[step].name;
        let reason = format!("no room on {name}: another rung's turn");
        let ended = match over {
            true => Ok(()),
            false => compute::end(last, &reason, &self.shared, self.context.ui).await,
        };
        match ended {
            Ok(()) => {
                last.settle(LaunchState::Over);
                if let Err(error) = self.write_intent().await {
                    tracing::debug!(%error, "the intent was not written");
                }
            }
            Err(error) => self
                .context
                .ui
                .warn(&format!("{error}; `cleanup` will try again")),
        }
    }
}
