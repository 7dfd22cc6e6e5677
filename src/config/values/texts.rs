//! Values that are texts whatever the key: names, paths, times, levels.

use std::str::FromStr;

use super::super::keys::closest;
use super::super::settings::{LogFormat, LogLevel};
use super::names::{is_unseen, slip};

pub(super) fn parse_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("the text is empty; leave the key out for its default".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("the text holds a control character".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a pattern for names without blanks around them: with blanks it would fit nothing, and a profile that restricts jobs would
/// apply to none.
fn parse_fit(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if text.trim() != text {
        return Err(format!("{text:?} fits nothing: there are blanks around it"));
    }
    Ok(text)
}

/// Reads a pattern of what is named in plain characters alone.
pub(super) fn parse_plain_fit(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    match slip(&text) {
        Some(slip) => Err(format!("{text:?} fits nothing: {slip}")),
        None => Ok(text),
    }
}

/// Reads a pattern of a project's path.
pub(super) fn parse_project_fit(text: &str) -> Result<String, String> {
    let text = parse_plain_fit(text)?;
    if text.starts_with('/') || text.ends_with('/') || text.contains("://") {
        return Err(format!(
            "{text:?} fits no project: their paths read group/project, without a slash before or after and without a host"
        ));
    }
    Ok(text)
}

/// Reads a pattern of a branch or tag.
pub(super) fn parse_ref_fit(text: &str) -> Result<String, String> {
    let text = parse_fit(text)?;
    for prefix in ["refs/heads/", "refs/tags/"] {
        if let Some(name) = text.strip_prefix(prefix) {
            return Err(format!(
                "{text:?} fits no branch or tag: GitLab names it {name:?}"
            ));
        }
    }
    Ok(text)
}

pub(super) fn no_nul(text: &str) -> Result<&str, String> {
    if text.contains('\0') {
        return Err("the text holds a NUL, which no program can be given".to_owned());
    }
    Ok(text)
}

pub(super) fn parse_absolute(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if !text.starts_with('/') {
        return Err(format!(
            "{text:?} is no absolute path: it must begin with /"
        ));
    }
    if text.contains(is_unseen) || text.trim() != text {
        return Err(format!(
            "{text:?} holds a character that nobody sees, or blanks around the path"
        ));
    }
    Ok(text)
}

pub(super) fn parse_username(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if text.contains(char::is_whitespace) {
        return Err(format!("{text:?} is no login name: it holds white space"));
    }
    if let Some(slip) = slip(&text) {
        return Err(format!("{text:?} is no login name: {slip}"));
    }
    Ok(text)
}

pub(super) fn parse_profile_name(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > 64 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is no name for a profile: up to 64 letters, digits, '-', '_' and '.'"
        ));
    }
    Ok(text)
}

/// Reads a manager's name: with what the driver puts before it, it has to fit where RunTask takes who starts a task.
pub(super) fn parse_manager(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.len() > 32 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is no name for a manager: up to 32 letters, digits, '-' and '_'"
        ));
    }
    Ok(text)
}

/// The levels, by the Go driver's names.
const LEVELS: [(&str, LogLevel); 8] = [
    ("panic", LogLevel::Error),
    ("fatal", LogLevel::Error),
    ("error", LogLevel::Error),
    ("warning", LogLevel::Warn),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

pub(super) fn parse_log_level(text: &str) -> Result<LogLevel, String> {
    one_of(text, "level", &LEVELS, "error, warn, info, debug, trace")
}

/// The formats, by the Go driver's names.
const FORMATS: [(&str, LogFormat); 3] = [
    ("text", LogFormat::Text),
    ("text-simple", LogFormat::TextSimple),
    ("json", LogFormat::Json),
];

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    one_of(text, "log format", &FORMATS, "text, text-simple, json")
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_log_level(text)
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_log_format(text)
    }
}

pub(super) fn one_of<T: Copy>(
    text: &str,
    what: &str,
    all: &[(&str, T)],
    list: &str,
) -> Result<T, String> {
    if let Some((_, value)) = all.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*value);
    }
    Err(match closest(text, all.iter().map(|(name, _)| *name)) {
        Some(name) => format!("{text:?} is no {what}; did you mean \"{name}\"?"),
        None => format!("{text:?} is no {what}: there are {list}"),
    })
}
