//! Checks which variables a profile may match: only those on the closed list.

use super::super::problem::Problem;
use super::super::settings::Match;
use super::{Check, Findings};
use crate::config::trusted_variables;

impl Check<'_> {
    /// Refuses variables with which an author could get a profile, or avoid one.
    pub(super) fn variables(self, profile: &str, matches: &Match, found: &mut Findings) {
        for (name, _) in &matches.variables {
            if trusted_variables::named(name).is_none() {
                found.wrong(self.no_fact(profile, name));
            }
        }
    }

    fn no_fact(self, profile: &str, name: &str) -> Problem {
        let cause = format!(
            "no profile can go by it: {}",
            trusted_variables::why_not_trusted(name)
        );
        let path = format!("{profile}.match.variables.{name}");
        let problem = match self.location(&path) {
            Some(location) => location.problem_at_key(self.source, &cause, None),
            None => self.source.problem(0, None, &cause),
        };
        problem.hint(match trusted_variables::trusted_alternative(name) {
            Some(other) => format!(
                "Go by {other}, which no job can set; docs/job-variables.md lists all such names."
            ),
            None => "Go by job_name, project, ref, protected or image. What a job may choose by variables of its own is \
                     bounded by [limits]."
                .to_owned(),
        })
    }
}
