//! Whether the job log already has Spot's notice. Each script is a process of its own, and one line in the log is enough. Nothing
//! here is needed: if the file cannot be read or written, the line is printed again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::Job;
use super::files::{self, VERSION, Versioned};

/// The file's name in the job's directory.
const NAME: &str = "notice.json";

/// Written by the script that printed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SpotNotice {
    version: u32,
    /// The attempt of `prepare` whose machine it is about.
    attempt: String,
    /// When Spot takes that machine back: Unix time, seconds.
    at: u64,
}

impl Versioned for SpotNotice {
    const WHAT: &'static str = "notice";
}

impl Job {
    /// Returns when Spot takes back the machine of that attempt, if the job log has that already.
    #[must_use]
    pub fn spot_notice(&self, attempt: &str) -> Option<SystemTime> {
        let spot_notice: SpotNotice = files::read(&self.dir.join(NAME)).ok().flatten()?;
        (spot_notice.attempt == attempt)
            .then(|| UNIX_EPOCH.checked_add(Duration::from_secs(spot_notice.at)))?
    }

    /// Notes that the job log has it. Does not wait if another stage has the lock: that is a `cleanup`, after which no script
    /// comes.
    pub fn note_spot_notice(&self, attempt: &str, at: SystemTime) {
        let spot_notice = SpotNotice {
            version: VERSION,
            attempt: attempt.to_owned(),
            at: at
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        let noted = self.open_lock().and_then(|lock| {
            let free = match lock {
                Some(lock) if self.take(&lock, FlockOperation::NonBlockingLockExclusive)? => {
                    self.confirm(lock)
                }
                _ => None,
            };
            match free {
                Some(_locked) => files::write(&self.dir.join(NAME), &spot_notice),
                None => Ok(()),
            }
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "that the notice was told is not remembered");
        }
    }
}
