//! What a job asks for by CI/CD variable, and what comes of it beside the flags, the file and its limits.
//!
//! A flag stands above the job's choice, which stands above the file; an empty value chooses nothing. What a
//! job may choose is bounded by `[limits]`; a file of the Go driver has none and is open, as that driver was.
//!
//! How a pattern of `[limits]` fits what a job asks for:
//!
//! - `ci-*`, `ci-job`: the family alone, whatever the revision; never an ARN, which may name another account.
//! - `ci-*:*`, `ci-job:7`: a family *with* a revision.
//! - `arn:…`: an ARN, of a task definition or a role; without a revision it fits every revision.
//!
//! `*` stops at `:` and `/`, `**` does not.

use super::Environment;
use super::payload::Payload;
use crate::cli::Overrides;
use crate::config::settings::{Limits, Settings, Style};
use crate::config::{arn, pattern, tags};
use crate::error::{Error, Kind, Result};

/// The job's task definition.
const TASK_DEFINITION: &str = "FARGATE_TASK_DEFINITION";
/// The job's platform version.
const PLATFORM_VERSION: &str = "FARGATE_PLATFORM_VERSION";
/// The role that the job's task is launched with.
const ROLE: &str = "ROLE_ARN";
/// Which of the job's variables that role's session is told, separated by commas.
const SESSION: &str = "SESSION_VARS";

/// How many tags a session may have (STS).
const MOST_SESSION_TAGS: usize = 50;

/// The most of a value that is repeated in a message.
const SHOWN: usize = 200;

/// What a job asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    task_definition: Option<String>,
    platform_version: Option<String>,
    role: Option<String>,
    session: Vec<SessionVariable>,
}

/// A variable that a job wants its role's session to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SessionVariable {
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

/// What holds for a job's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Family, family:revision or ARN.
    pub task_definition: String,
    /// Fargate platform version; `None`: AWS's latest.
    pub platform_version: Option<String>,
    /// The role to take on for all calls about the task; `None`: the host's own credentials.
    pub role: Option<SettledRole>,
}

/// A role to take on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRole {
    /// Its ARN.
    pub arn: String,
    /// What its session is told, legal for STS.
    pub tags: Vec<(String, String)>,
}

impl Wishes {
    /// Reads what the job asks for.
    ///
    /// What it chooses comes from its effective variables: they are its to set. What tells *who* it is (the
    /// values of GitLab's own variables) comes from the trusted payload's first occurrences.
    #[must_use]
    pub fn read(env: &Environment, payload: &Payload) -> Self {
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
        Self {
            task_definition: env.job_variable(TASK_DEFINITION),
            platform_version: env.job_variable(PLATFORM_VERSION),
            role: env.job_variable(ROLE),
            session,
        }
    }

    /// Returns the session's tags.
    fn session_tags(&self) -> Result<Vec<(String, String)>> {
        let mut all: Vec<(String, String)> = Vec::new();
        for SessionVariable { name, value } in &self.session {
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
                        "and this GitLab Runner hands over no copy of it that the job cannot change".into(),
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
            if let Some(problem) = tags::value_problem(value) {
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
}

/// Returns what a variable says; of GitLab's own only what GitLab itself said counts.
fn value_of(name: &str, env: &Environment, payload: &Payload) -> Value {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > tags::LONGEST_KEY || !name.chars().all(fits) {
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

/// Settles what holds for a job's task: a flag, else the job's own choice as far as `[limits]` lets it, else
/// the file.
///
/// # Errors
/// Where the job asks for what it may not have ([`Kind::Limit`]), and where nobody names a task definition
/// ([`Kind::Config`]).
pub fn settle(settings: &Settings, overrides: &Overrides, wishes: &Wishes) -> Result<Settled> {
    let file = settings.fargate.as_ref();
    let of_file = file.and_then(|f| f.task_definition.as_ref());
    let task_definition = match (&overrides.task_definition, &wishes.task_definition) {
        (Some(flag), _) => Some(flag),
        (None, Some(wish)) => {
            if let Some(limits) = &settings.limits
                && of_file != Some(wish)
            {
                allow_task_definition(wish, limits)?;
            }
            Some(wish)
        }
        (None, None) => of_file,
    };
    let Some(task_definition) = task_definition.cloned() else {
        return Err(no_task_definition(settings.style));
    };

    let of_file = file.and_then(|f| f.platform_version.as_ref());
    let platform_version = match (&overrides.platform_version, &wishes.platform_version) {
        (Some(flag), _) => Some(flag),
        (None, Some(wish)) => {
            if settings.limits.is_some() && of_file != Some(wish) {
                allow_platform_version(wish)?;
            }
            Some(wish)
        }
        (None, None) => of_file,
    };

    Ok(Settled {
        task_definition,
        platform_version: platform_version.cloned(),
        role: settle_role(settings, wishes)?,
    })
}

/// Settles the role alone: all that it takes to look at a task that is there, and to end it.
///
/// # Errors
/// Where the job asks for a role that it may not have ([`Kind::Limit`]).
pub fn settle_role(settings: &Settings, wishes: &Wishes) -> Result<Option<SettledRole>> {
    let file = settings.fargate.as_ref();
    let of_file = file.and_then(|f| f.role_arn.as_ref());
    if let (Some(wish), Some(limits)) = (&wishes.role, &settings.limits)
        && of_file != Some(wish)
    {
        allow_role(wish, limits)?;
    }
    match wishes.role.as_ref().or(of_file) {
        Some(arn) => Ok(Some(SettledRole {
            arn: arn.clone(),
            tags: wishes.session_tags()?,
        })),
        None => Ok(None),
    }
}

fn no_task_definition(style: Style) -> Error {
    let (table, key) = match style {
        Style::GoDriver => ("[Fargate]", "TaskDefinition"),
        Style::New => ("[fargate]", "task_definition"),
    };
    Error::new(
        Kind::Config,
        format!("nobody names a task definition: neither the configuration nor --task-def nor the job's {TASK_DEFINITION}"),
    )
    .hint(format!("For example, under {table}: {key} = \"ci-job\""))
}

fn allow_task_definition(wish: &str, limits: &Limits) -> Result<()> {
    let of_arn = arn::task_definition(wish);
    let Some((_, revision)) = of_arn.or_else(|| arn::family(wish)) else {
        return Err(unfit(
            wish,
            TASK_DEFINITION,
            "no task definition's name: those are FAMILY, FAMILY:REVISION or an ARN",
        ));
    };
    // What a pattern that says nothing of revisions is held against.
    let bare = match revision {
        Some(revision) => &wish[..wish.len() - revision.len() - 1],
        None => wish,
    };
    let fits = |p: &String| {
        p.starts_with("arn:") == of_arn.is_some()
            && (pattern::fits(p, wish, pattern::OF_ARNS)
                || pattern::fits(p, bare, pattern::OF_ARNS))
    };
    if limits.task_definitions.iter().any(fits) {
        return Ok(());
    }
    Err(refused(
        wish,
        TASK_DEFINITION,
        "task_definitions",
        &limits.task_definitions,
    ))
}

/// `[limits]` knows no bound for it, as none of AWS's versions gives a job more than another; it only has to be one.
fn allow_platform_version(wish: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.';
    if wish.len() <= 32 && wish.chars().all(fits) {
        return Ok(());
    }
    let what = "no platform version: those are LATEST or three numbers such as 1.4.0";
    Err(unfit(wish, PLATFORM_VERSION, what))
}

fn allow_role(wish: &str, limits: &Limits) -> Result<()> {
    if !arn::is_role(wish) {
        let what = "no role's ARN: those read arn:aws:iam::ACCOUNT:role/NAME";
        return Err(unfit(wish, ROLE, what));
    }
    let fits = |p: &String| p.starts_with("arn:") && pattern::fits(p, wish, pattern::OF_ARNS);
    if limits.roles.iter().any(fits) {
        return Ok(());
    }
    Err(refused(wish, ROLE, "roles", &limits.roles))
}

fn unfit(wish: &str, variable: &str, what: &str) -> Error {
    Error::new(
        Kind::Limit,
        format!(
            "the job asks for {:?} by {variable}, which is {what}",
            clip(wish)
        ),
    )
    .hint(format!("Correct {variable} in the job, or remove it."))
}

fn refused(wish: &str, variable: &str, key: &str, allowed: &[String]) -> Error {
    let bound = if allowed.is_empty() {
        "allows none".to_owned()
    } else {
        format!("allows only {}", clip(&allowed.join(", ")))
    };
    Error::new(
        Kind::Limit,
        format!(
            "the job asks for {:?} by {variable}, and [limits] {key} {bound}",
            clip(wish)
        ),
    )
    .hint(format!(
        "Remove {variable} from the job, or have an administrator add a pattern to {key} under [limits]."
    ))
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
