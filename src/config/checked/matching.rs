//! What a profile may go by: names of variables that are on the closed list, and no others.

use super::super::facts;
use super::super::settings::Match;
use super::Check;
use crate::error::{Error, Result};

impl Check<'_> {
    /// Refuses variables by which an author could bring about a profile, or escape one.
    pub(super) fn variables(self, profile: &str, matches: &Match) -> Result<()> {
        let refused = |(name, _): &&(String, String)| facts::named(name).is_none();
        match matches.variables.iter().find(refused) {
            None => Ok(()),
            Some((name, _)) => Err(self.no_fact(profile, name)),
        }
    }

    fn no_fact(self, profile: &str, name: &str) -> Error {
        let message = format!("no profile can go by it: {}", facts::why_not(name));
        let path = format!("{profile}.match.variables.{name}");
        let error = match self.spot(&path) {
            Some(spot) => spot.error_at_key(self.place, &message, None),
            None => self.place.error(0, &message),
        };
        error.hint(match facts::instead_of(name) {
            Some(other) => format!(
                "Go by {other}, which no job can set; docs/job-variables.md lists all such names."
            ),
            None => "Go by job_name, project, ref, protected or image. What a job may choose by variables of its own is \
                     bounded by [limits]."
                .to_owned(),
        })
    }
}
