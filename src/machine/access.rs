//! Where calls go, and as whom.

use serde::{Deserialize, Serialize};

/// Which account and region a call goes to, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access {
    /// The region; without it the SDK's own chain (environment, profile, instance metadata) decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The role to assume; without it the driver's own credentials are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl Access {
    /// Names whose limits calls count against: the account and region, as far as they are known. `chosen` is the region that
    /// the SDK's chain has come to.
    #[must_use]
    pub fn account(&self, chosen: Option<&str>) -> String {
        let role = self.role.as_ref();
        let account = role.and_then(|role| role.arn.split(':').nth(4));
        format!(
            "{} {}",
            account.unwrap_or_default(),
            self.region.as_deref().or(chosen).unwrap_or_default()
        )
    }

    /// Names the account and region as far as this host knows them, for what is kept about them.
    #[must_use]
    pub fn key(&self) -> String {
        let region = self.region.as_deref().unwrap_or_default();
        let role = self.role.as_ref().map_or("", |role| role.arn.as_str());
        format!("{region} {role}")
    }
}

/// A role that is assumed for a job's calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// The session's name, as CloudTrail shows it: legal, see [`crate::machine::tags::session_name`].
    pub session_name: String,
    /// Session tags, sent as they are: a policy may decide by them, so nothing is made legal silently.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
}
