//! The rung on which a job was lost to Spot. Its retry starts one rung higher.
//!
//! To GitLab a retry is another job, with the same name in the same pipeline. By these it is recognised.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Shared, key, locked_file};
use crate::files::read_own;

/// For how long a loss is remembered.
pub(super) const AGE: Duration = Duration::from_secs(24 * 3600);
/// The most that is read.
const LARGEST: u64 = 8 << 10;

/// A job that was lost to Spot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotLoss {
    /// The rung on which it ran, as the configuration names it.
    pub rung: String,
    /// Why, in AWS's words.
    pub cause: String,
}

impl Shared {
    /// Notes that a job was lost to Spot. If that fails, its retry starts on the same rung.
    pub async fn note_spot_loss(&self, job: &str, loss: SpotLoss) {
        locked_file::change(&self.path(job), |_: SpotLoss| (loss, ())).await;
    }

    /// Returns the loss of a job of that name within the last day, if there was one.
    #[must_use]
    pub fn spot_loss(&self, job: &str) -> Option<SpotLoss> {
        let path = self.path(job);
        if is_old(&path)? {
            return None;
        }
        let loss: SpotLoss = serde_json::from_slice(&read_own(&path, LARGEST).ok()?).ok()?;
        (!loss.rung.is_empty()).then_some(loss)
    }

    fn path(&self, job: &str) -> PathBuf {
        self.directory.join("climbs").join(key(job))
    }
}

fn is_old(path: &Path) -> Option<bool> {
    let at = fs::metadata(path).and_then(|m| m.modified()).ok()?;
    let age = SystemTime::now().duration_since(at).unwrap_or_default();
    Some(age > AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loss_is_known_for_a_day_and_by_its_own_job_alone() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::new(dir.path().to_owned());
        assert_eq!(shared.spot_loss("a"), None);
        let loss = SpotLoss {
            rung: "fargate-spot".into(),
            cause: "x".into(),
        };
        shared.note_spot_loss("a", loss.clone()).await;
        assert_eq!(shared.spot_loss("a"), Some(loss.clone()));
        assert_eq!(shared.spot_loss("b"), None);
        let path = shared.path("a");
        fs::write(&path, "{").unwrap();
        assert_eq!(shared.spot_loss("a"), None);
        shared.note_spot_loss("a", loss).await;
        let yesterday = SystemTime::now() - AGE - Duration::from_secs(60);
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(yesterday))
            .unwrap();
        assert_eq!(shared.spot_loss("a"), None);
    }
}
