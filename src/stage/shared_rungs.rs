//! What the jobs of this host share about rungs: whether to try one now, and the result of the last try.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::Context;
use crate::compute::ladder::{Ladder, Told};
use crate::error::{Error, Kind};
use crate::machine::verdict::Verdict;
use crate::state::shared::Shared;
use crate::state::shared::breaker::Decision;
use crate::ui::Ui;

/// The pause between two looks while another job asks AWS.
const PAUSE: Duration = Duration::from_millis(50);
/// How long another job's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// What to do with a rung.
pub(super) enum Advice {
    /// Try it.
    Try,
    /// It has no room: AWS has just said so to another job.
    Full(Verdict),
    /// Skip it, for that reason.
    Skip(Told),
}

/// The result of trying a rung.
pub(super) enum Found<'a> {
    /// A machine came up.
    Room,
    /// There is no room.
    Full(&'a Verdict),
    /// Neither is known.
    Nothing,
}

/// The rungs, as one `prepare` sees them.
pub(super) struct SharedRungs {
    shared: Shared,
    ui: Ui,
    /// Rungs that the job log already names as skipped.
    told: Vec<String>,
    /// Whether the job log already says that all of them are.
    told_all: bool,
}

impl SharedRungs {
    pub(super) fn new(shared: &Shared, ui: Ui) -> Self {
        Self {
            shared: shared.clone(),
            ui,
            told: Vec::new(),
            told_all: false,
        }
    }

    /// Says what to do with a rung, and tells the job log if it is skipped. `all_skipped`: all rungs are skipped, so try this one.
    pub(super) async fn advice(
        &mut self,
        name: &str,
        capacity: Option<&str>,
        all_skipped: bool,
    ) -> Advice {
        let Some(capacity) = capacity else {
            return Advice::Try;
        };
        if all_skipped && !self.told_all {
            self.told_all = true;
            self.ui
                .progress("All rungs are skipped, so all are tried all the same.");
        }
        let began = Instant::now();
        loop {
            match self.shared.decide(capacity, all_skipped).await {
                Decision::Wait if began.elapsed() < PATIENCE => sleep(PAUSE).await,
                Decision::Try | Decision::Wait => return Advice::Try,
                Decision::Full(verdict) => {
                    let cause = verdict.cause.trim_end_matches('.');
                    let cause = format!("{cause} (told to another job just now)");
                    return Advice::Full(Verdict { cause, ..verdict });
                }
                Decision::Skip { until, verdict } => {
                    let why = format!(
                        "skipped until {}, since it had no room lately: {}",
                        clock(until),
                        verdict.cause
                    );
                    if !self.told.iter().any(|told| told == name) {
                        self.told.push(name.to_owned());
                        self.ui.progress(&format!("{name} is {why}"));
                    }
                    let skipped = Verdict {
                        cause: why,
                        ..verdict
                    };
                    return Advice::Skip(skipped.into());
                }
            }
        }
    }

    /// Tells the other jobs the result of a rung.
    pub(super) async fn found(&self, capacity: Option<&str>, found: Found<'_>) {
        let Some(capacity) = capacity else { return };
        match found {
            Found::Room => self.shared.has_room(capacity).await,
            Found::Full(verdict) => self.shared.full(capacity, verdict).await,
            Found::Nothing => self.shared.asked(capacity).await,
        }
    }
}

/// Makes a job that was lost to Spot start one rung higher than before.
pub(super) fn start_above_spot_loss(context: &Context, ladder: &mut Ladder) {
    let job = context.call.payload.lineage();
    let loss = job.and_then(|job| context.shared().spot_loss(&job));
    if let Some(loss) = loss
        && let Some(first) = ladder.start_above(&loss.rung)
    {
        context.ui.progress(&format!(
            "Starting on {first}, since this job was lost on {} before: {}",
            loss.rung, loss.cause
        ));
    }
}

/// The reason to skip the cluster's default strategy, after another job found that the cluster has none.
pub(super) fn no_default_strategy() -> Told {
    Told {
        cause: "it has none, as another job was told".to_owned(),
        remedy:
            "Name rungs by `capacity`, or give the cluster a default capacity provider strategy."
                .to_owned(),
        passes: false,
    }
}

/// Returns the error that no rung gave a machine, with each rung's cause and remedy.
pub(super) fn no_rung_left(ladder: &Ladder, wait: Duration) -> Error {
    let causes = ladder.causes();
    let remedies = ladder.remedies();
    if ladder.is_only_full() {
        let wait = humantime::format_duration(wait);
        Error::new(
            Kind::Capacity,
            format!("there was no room for the job's machine on any rung within {wait}: {causes}"),
        )
        .hint(match remedies.to_lowercase().contains("retry the job") {
            true => format!("{remedies} Or raise `capacity_wait`."),
            false => format!("{remedies} Otherwise retry the job later, or raise `capacity_wait`."),
        })
    } else if ladder.is_spent() {
        Error::new(
            Kind::Capacity,
            format!("no rung ever has room for the job's machine, so none is waited for: {causes}"),
        )
        .hint(remedies)
    } else {
        Error::new(
            Kind::Config,
            format!("none of the rungs can be used in this cluster: {causes}"),
        )
        .hint(remedies)
    }
}

/// Formats a time of the next hours.
fn clock(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    match text.get(11..16) {
        Some(time) => format!("{time} UTC"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_time_is_told_by_its_hour_and_minute() {
        let at = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        assert_eq!(clock(at), "14:13 UTC");
    }
}
