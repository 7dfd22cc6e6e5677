//! The session tags of a job's role, chosen by `SESSION_VARS`.
//!
//! A role's trust policy decides by these tags, so they come from values that no job can forge or have expanded
//! ([`crate::config::trusted_variables`]), and others are refused. The Go driver sent whatever the job named. With its file,
//! variables under the job's own names are still sent, since nobody could ever trust them. Variables under names of GitLab's
//! that the author can set are left out.

use super::clip;
use crate::config::tags as config_tags;
use crate::config::trusted_variables::{self, is_gitlabs};
use crate::error::{Error, Kind, Result};
use crate::runner::Environment;
use crate::runner::payload::Payload;
use crate::runner::trusted_variables::{TrustedValue, missing_field};

/// The variable that lists which variables become session tags, separated by commas.
pub(super) const SESSION: &str = "SESSION_VARS";

/// How many tags a session may have (STS).
const MOST_SESSION_TAGS: usize = 50;

/// Which driver's file it is: it decides about names that are not on the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// The Go driver's: the job's own variables are sent, and those with names of GitLab's left out.
    GoDriver,
    /// This driver's: they are refused.
    Own,
}

/// A variable that a job wants as a session tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionVariable {
    name: String,
    value: Value,
}

/// The value of such a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// A value from GitLab.
    Is(String),
    /// None: GitLab says that the job has no such value.
    Unset,
    /// None that can be trusted: this field of the payload is missing.
    Missing(&'static str),
    /// It has a name of GitLab's, and the author can set it.
    Untrusted,
    /// It is the job's own, with this value or none.
    Own(Option<String>),
    /// It is the job's own, and masked.
    Masked,
    /// It looks like GitLab's own variable of this name.
    Mimics(String),
    /// It is not the name of a variable.
    NoName,
}

/// Reads which variables a job names.
pub(super) fn read(env: &Environment, payload: &Payload) -> Vec<SessionVariable> {
    let mut session: Vec<SessionVariable> = Vec::new();
    let names = env.job_variable(SESSION).unwrap_or_default();
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        if session.iter().all(|s| s.name != name) {
            session.push(SessionVariable {
                name: name.to_owned(),
                value: value_of(name, env, payload),
            });
        }
    }
    session
}

/// Returns the session's tags.
pub(super) fn tags(session: &[SessionVariable], file: File) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    for SessionVariable { name, value } in session {
        let refuse = |what: String, hint: &str| {
            let shown = clip(name);
            let message =
                format!("the job asks by {SESSION} that the role be told {shown:?}, {what}");
            Err(Error::new(Kind::Limit, message).hint(hint))
        };
        let of_go_driver = file == File::GoDriver;
        let value = match value {
            Value::Unset => continue,
            Value::Is(value) => value,
            Value::Missing(_) | Value::Untrusted | Value::Own(None) if of_go_driver => continue,
            Value::Own(Some(value)) if of_go_driver => value,
            Value::Missing(field) => {
                return refuse(
                    format!("and {}", missing_field(field)),
                    "Update GitLab and GitLab Runner, or take it out of SESSION_VARS.",
                );
            }
            Value::Masked if of_go_driver => {
                return refuse(
                    "which is masked".into(),
                    "CloudTrail keeps such values in the clear. Take it out of SESSION_VARS.",
                );
            }
            Value::Untrusted | Value::Own(_) | Value::Masked => {
                let hint = match trusted_variables::trusted_alternative(name) {
                    Some(other) => format!("Name {other} in SESSION_VARS, which no job can set."),
                    None => "Take it out of SESSION_VARS; docs/job-variables.md lists what a role may be told."
                        .to_owned(),
                };
                let why = trusted_variables::why_not_trusted(name);
                return refuse(format!("and no policy can go by it: {why}"), &hint);
            }
            Value::Mimics(own) => {
                return refuse(
                    format!("which AWS would take for GitLab's {own}"),
                    "AWS ignores the case of tags. Name GitLab's own variables in capitals, and others differently.",
                );
            }
            Value::NoName => {
                return refuse(
                    "which is no variable's name".into(),
                    "Names have letters, digits and _ only, and commas between them.",
                );
            }
        };
        if let Some((other, _)) = all.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)) {
            return refuse(
                format!("which AWS cannot tell from {other:?}"),
                "AWS ignores the case of tags. Rename one of the two.",
            );
        }
        if let Some(problem) = config_tags::value_problem(value) {
            return refuse(
                format!("whose value {:?} AWS does not take: {problem}", clip(value)),
                "Take it out of SESSION_VARS, or send another variable that says it in AWS's characters.",
            );
        }
        all.push((name.clone(), value.clone()));
    }
    if all.len() > MOST_SESSION_TAGS {
        return Err(Error::new(
            Kind::Limit,
            format!(
                "the job asks by {SESSION} that the role be told {} variables, and AWS takes {MOST_SESSION_TAGS}",
                all.len()
            ),
        )
        .hint("Name fewer."));
    }
    Ok(all)
}

/// Returns the tags that can be sent, even if others are wrong: to end what such a session once started.
pub(super) fn fitting_tags(session: &[SessionVariable]) -> Vec<(String, String)> {
    let mut fitting: Vec<SessionVariable> = Vec::new();
    for variable in session {
        fitting.push(variable.clone());
        if tags(&fitting, File::GoDriver).is_err() {
            fitting.pop();
        }
    }
    tags(&fitting, File::GoDriver).unwrap_or_default()
}

/// Returns which variables are left out with a file of the Go driver, if any.
pub(super) fn left_out(session: &[SessionVariable]) -> Option<String> {
    let why = |variable: &SessionVariable| match variable.value {
        Value::Missing(field) => Some(missing_field(field)),
        Value::Untrusted => Some(trusted_variables::why_not_trusted(&variable.name).to_owned()),
        _ => None,
    };
    let told = session
        .iter()
        .filter_map(|variable| Some(format!("{} ({})", variable.name, why(variable)?)));
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then(|| {
        let all = told.join(", ");
        format!("the role's session is not told all that {SESSION} names; left out: {all}")
    })
}

/// Returns the value of a variable. Of GitLab's own, only a value that no job can change counts.
fn value_of(name: &str, env: &Environment, payload: &Payload) -> Value {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > config_tags::LONGEST_KEY || !name.chars().all(fits) {
        return Value::NoName;
    }
    if let Some(fact) = trusted_variables::named(name) {
        return match payload.trusted(fact) {
            TrustedValue::Value(value) if !value.is_empty() => Value::Is(value),
            TrustedValue::Value(_) | TrustedValue::Absent => Value::Unset,
            TrustedValue::Missing(field) => Value::Missing(field),
        };
    }
    // The names of session tags, and of the conditions that policies make of them, ignore case: a job's own
    // `ci_project_path` would pass for CI_PROJECT_PATH.
    let capitals = name.to_ascii_uppercase();
    match is_gitlabs(&capitals) {
        true if name != capitals => Value::Mimics(capitals),
        true => Value::Untrusted,
        false if payload.is_masked(name) => Value::Masked,
        false => Value::Own(env.job_variable(name)),
    }
}
