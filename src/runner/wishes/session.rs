//! What the session of a job's role is told of the job, by `SESSION_VARS`.

use super::clip;
use crate::config::tags as config_tags;
use crate::error::{Error, Kind, Result};
use crate::runner::Environment;
use crate::runner::payload::Payload;

/// Which of the job's variables that role's session is told, separated by commas.
pub(super) const SESSION: &str = "SESSION_VARS";

/// How many tags a session may have (STS).
const MOST_SESSION_TAGS: usize = 50;

/// A variable that a job wants its role's session to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionVariable {
    name: String,
    value: Value,
}

/// What such a variable says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// This.
    Is(String),
    /// Nothing: the job has no such variable.
    Unset,
    /// A secret.
    Masked,
    /// It is GitLab's own, and there is no copy of it that the job cannot have changed.
    Untrusted,
    /// It could be mistaken for GitLab's own variable of this name.
    Mimics(String),
    /// That is no variable's name.
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
pub(super) fn tags(session: &[SessionVariable]) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    for SessionVariable { name, value } in session {
        let refuse = |what: String, hint: &str| {
            let shown = clip(name);
            let message =
                format!("the job asks by {SESSION} that the role be told {shown:?}, {what}");
            Err(Error::new(Kind::Limit, message).hint(hint))
        };
        let value = match value {
            Value::Unset => continue,
            Value::Is(value) => value,
            Value::Masked => {
                return refuse(
                    "which is masked".into(),
                    "CloudTrail keeps such values in the clear. Take it out of SESSION_VARS.",
                );
            }
            Value::Untrusted => {
                return refuse(
                    "and this GitLab Runner hands over no copy of it that the job cannot change"
                        .into(),
                    "Update GitLab Runner (14.1 or later), or take it out of SESSION_VARS.",
                );
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

/// Returns what a variable says; of GitLab's own only what GitLab itself said counts.
fn value_of(name: &str, env: &Environment, payload: &Payload) -> Value {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > config_tags::LONGEST_KEY || !name.chars().all(fits) {
        return Value::NoName;
    }
    // The names of session tags, and of the conditions that policies make of them, ignore case: a job's own
    // `ci_project_path` would pass for CI_PROJECT_PATH.
    let capitals = name.to_ascii_uppercase();
    if is_predefined(&capitals) {
        if name != capitals {
            return Value::Mimics(capitals);
        }
        if !payload.has_variables() {
            return Value::Untrusted;
        }
        if payload.is_masked(name) {
            return Value::Masked;
        }
        return match payload.first(name).filter(|v| !v.is_empty()) {
            Some(value) => Value::Is(value.to_owned()),
            None => Value::Unset,
        };
    }
    if payload.is_masked(name) {
        return Value::Masked;
    }
    env.job_variable(name).map_or(Value::Unset, Value::Is)
}

/// Returns whether the name is one of those that GitLab gives its own variables.
fn is_predefined(name: &str) -> bool {
    name == "CI" || name.starts_with("CI_") || name.starts_with("GITLAB_")
}
