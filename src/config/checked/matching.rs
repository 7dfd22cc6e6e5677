//! What a profile may go by: names of variables that are on the closed list, and no others.

use super::super::facts;
use super::super::problem::Problem;
use super::super::settings::Match;
use super::{Check, Found};

impl Check<'_> {
    /// Refuses variables by which an author could bring about a profile, or escape one.
    pub(super) fn variables(self, profile: &str, matches: &Match, found: &mut Found) {
        for (name, _) in &matches.variables {
            if facts::named(name).is_none() {
                found.wrong(self.no_fact(profile, name));
            }
        }
    }

    fn no_fact(self, profile: &str, name: &str) -> Problem {
        let cause = format!("no profile can go by it: {}", facts::why_not(name));
        let path = format!("{profile}.match.variables.{name}");
        let problem = match self.spot(&path) {
            Some(spot) => spot.problem_at_key(self.place, &cause, None),
            None => self.place.problem(0, None, &cause),
        };
        problem.hint(match facts::instead_of(name) {
            Some(other) => format!(
                "Go by {other}, which no job can set; docs/job-variables.md lists all such names."
            ),
            None => "Go by job_name, project, ref, protected or image. What a job may choose by variables of its own is \
                     bounded by [limits]."
                .to_owned(),
        })
    }
}
