//! The values that a key may hold: read from TOML and checked one by one.
//!
//! Each reader says in its error what it wants by an example, so that the message alone is enough
//! to put the file right. What depends on more than one value is checked later.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::arn;
use super::keys::closest;
use super::quantity::{parse_cpu, parse_size};
use super::settings::{LogFormat, LogLevel, Rung};
use super::tags;

/// The longest wait that means anything; it also keeps sums of times far from overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads a string and makes something of it.
struct Words<T> {
    wanted: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Clone for Words<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Words<T> {}

impl<T> Visitor<'_> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

impl<'de, T> DeserializeSeed<'de> for Words<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        d.deserialize_str(self)
    }
}

/// Reads a list of strings and makes something of each.
struct List<T> {
    wanted: &'static str,
    each: Words<T>,
    may_be_empty: bool,
    most: Option<Most>,
}

/// How many a list may hold, and why.
#[derive(Clone, Copy)]
struct Most {
    number: usize,
    why: &'static str,
}

impl<'de, T> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element_seed(self.each)? {
            all.push(one);
        }
        if all.is_empty() && !self.may_be_empty {
            return Err(A::Error::custom(format_args!(
                "the list is empty, expected {}",
                self.wanted
            )));
        }
        if let Some(Most { number, why }) = self.most
            && all.len() > number
        {
            return Err(A::Error::custom(format_args!(
                "the list holds {}, and {why} {number}",
                all.len()
            )));
        }
        Ok(all)
    }
}

/// Reads a value that is no string.
struct Plain<T> {
    wanted: &'static str,
    kind: PhantomData<T>,
}

impl Visitor<'_> for Plain<bool> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

impl Visitor<'_> for Plain<u16> {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u16, E> {
        match u16::try_from(value) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(E::custom(format_args!(
                "{value} is no TCP port: they go from 1 to 65535"
            ))),
        }
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident -> $type:ty = $wanted:literal, $parse:expr;)*) => {$(
        $(#[$doc])*
        pub(super) fn $name<'de, D: Deserializer<'de>>(d: D) -> Result<Option<$type>, D::Error> {
            d.deserialize_str(Words { wanted: $wanted, parse: $parse }).map(Some)
        }
    )*};
}

words! {
    /// Reads text that must say something.
    text -> String = "text in quotes", parse_text;
    /// Reads a path.
    path -> PathBuf = "a path in quotes", |s| parse_text(s).map(PathBuf::from);
    /// Reads an absolute directory for the Runner.
    directory -> String = "an absolute path such as \"/builds\"", |s| parse_absolute(s);
    /// Reads a login name.
    username -> String = "a login name such as \"root\"", parse_username;
    /// Reads a duration.
    wait -> Duration = "a duration such as \"90s\" or \"5m\"", parse_wait;
    /// Reads a size in bytes.
    size -> u64 = "a size such as \"8GiB\"", parse_size;
    /// Reads a number of vCPU, in thousandths.
    cpu -> u32 = "a number of vCPU in quotes such as \"4\" or \"0.5\"", parse_cpu;
    /// Reads a level.
    log_level -> LogLevel = "a level such as \"info\"", parse_log_level;
    /// Reads a format.
    log_format -> LogFormat = "a format such as \"text\"", parse_log_format;
    /// Reads a tag's value.
    tag_value -> String = "text in quotes", parse_tag_value;
    /// Reads a container's name.
    container -> String = "a container's name such as \"ci-coordinator\"", parse_container;
    /// Reads a role's ARN.
    role_arn -> String = "a role's ARN such as \"arn:aws:iam::111122223333:role/ci\"", parse_role_arn;
    /// Reads a profile's name.
    profile_name -> String = "a name such as \"docker\"", parse_profile_name;
}

/// Reads the rungs.
pub(super) fn rungs<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<Rung>>, D::Error> {
    let each = Words {
        wanted: "a rung such as \"fargate-spot\"",
        parse: parse_rung,
    };
    let all = d.deserialize_seq(List {
        wanted: "a list of rungs such as [\"fargate-spot\", \"fargate\"]",
        each,
        may_be_empty: false,
        most: None,
    })?;
    for (i, rung) in all.iter().enumerate() {
        if all[..i].contains(rung) {
            return Err(D::Error::custom(format_args!(
                "\"{rung}\" stands in the list twice"
            )));
        }
    }
    Ok(Some(all))
}

/// Reads a list of names that must hold one at least.
pub(super) fn names<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    list(d, false, None)
}

/// Reads the subnets of a task.
pub(super) fn task_subnets<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let why = "ECS takes at most";
    list(d, false, Some(Most { number: 16, why }))
}

/// Reads the security groups of a task.
pub(super) fn task_security_groups<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let why = "ECS takes at most";
    list(d, false, Some(Most { number: 5, why }))
}

/// Reads a list of patterns; an empty one allows nothing.
pub(super) fn patterns<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    list(d, true, None)
}

/// Reads a list of patterns of ARNs; any other could never fit.
pub(super) fn arn_patterns<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let each = Words {
        wanted: "text in quotes",
        parse: parse_arn_pattern,
    };
    d.deserialize_seq(List {
        wanted: "a list such as [\"arn:aws:iam::111122223333:role/ci-*\"]",
        each,
        may_be_empty: true,
        most: None,
    })
    .map(Some)
}

fn list<'de, D: Deserializer<'de>>(
    d: D,
    may_be_empty: bool,
    most: Option<Most>,
) -> Result<Option<Vec<String>>, D::Error> {
    let each = Words {
        wanted: "text in quotes",
        parse: parse_text,
    };
    d.deserialize_seq(List {
        wanted: "a list such as [\"one\", \"two\"]",
        each,
        may_be_empty,
        most,
    })
    .map(Some)
}

/// Reads a program and its arguments; the arguments may be empty.
pub(super) fn command<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    let each = Words {
        wanted: "text in quotes",
        parse: |s| no_nul(s).map(str::to_owned),
    };
    let all = d.deserialize_seq(List {
        wanted: "a program and its arguments such as [\"/usr/sbin/sshd\", \"-D\"]",
        each,
        may_be_empty: false,
        most: None,
    })?;
    if all.first().is_some_and(|program| program.trim().is_empty()) {
        return Err(D::Error::custom("the program's name is empty"));
    }
    Ok(Some(all))
}

/// Reads a table of the administrator's own keys; they are checked where their places are known.
pub(super) fn tags<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<(String, String)>>, D::Error> {
    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let value = Words {
                wanted: "text in quotes",
                parse: parse_tag_value,
            };
            let mut all = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                all.push((key, map.next_value_seed(value)?));
            }
            Ok(all)
        }
    }

    d.deserialize_map(Pairs).map(Some)
}

/// Reads a port.
pub(super) fn port<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    d.deserialize_i64(Plain::<u16> {
        wanted: "a TCP port without quotes such as 22",
        kind: PhantomData,
    })
    .map(Some)
}

/// Reads true or false.
pub(super) fn flag<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    d.deserialize_bool(Plain::<bool> {
        wanted: "true or false, without quotes",
        kind: PhantomData,
    })
    .map(Some)
}

fn parse_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("the text is empty; leave the key out for its default".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("the text holds a control character".to_owned());
    }
    Ok(text.to_owned())
}

fn no_nul(text: &str) -> Result<&str, String> {
    if text.contains('\0') {
        return Err("the text holds a NUL, which no program can be given".to_owned());
    }
    Ok(text)
}

fn parse_absolute(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if !text.starts_with('/') {
        return Err(format!(
            "{text:?} is no absolute path: it must begin with /"
        ));
    }
    Ok(text)
}

fn parse_username(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if text.contains(char::is_whitespace) {
        return Err(format!("{text:?} is no login name: it holds white space"));
    }
    Ok(text)
}

fn parse_tag_value(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    match tags::value_problem(&text) {
        Some(problem) => Err(problem),
        None => Ok(text),
    }
}

fn parse_container(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.len() > 255 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is no container's name: up to 255 letters, digits, '-' and '_'"
        ));
    }
    Ok(text)
}

fn parse_role_arn(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if !arn::is_role(&text) {
        return Err(format!(
            "{text:?} is no role's ARN: they read arn:aws:iam::ACCOUNT:role/NAME"
        ));
    }
    Ok(text)
}

fn parse_arn_pattern(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if !text.starts_with("arn:") {
        return Err(format!(
            "{text:?} fits no role: a role is named by its ARN, so a pattern begins with \"arn:\""
        ));
    }
    Ok(text)
}

fn parse_profile_name(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > 64 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is no name for a profile: up to 64 letters, digits, '-', '_' and '.'"
        ));
    }
    Ok(text)
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let wanted = "write a number and its unit (s, m, h), such as \"90s\"";
    let wait = humantime::parse_duration(text.trim())
        .map_err(|e| format!("{text:?} is no duration ({e}); {wanted}"))?;
    if wait.is_zero() {
        return Err(format!("{text:?} is no time at all; {wanted}"));
    }
    if wait > LONGEST_WAIT {
        return Err(format!("{text:?} is longer than 30 days; {wanted}"));
    }
    Ok(wait)
}

/// The rungs that have a fixed name.
const RUNGS: [(&str, Rung); 5] = [
    ("fargate-spot", Rung::FargateSpot),
    ("fargate", Rung::Fargate),
    ("ec2-spot", Rung::Ec2Spot),
    ("ec2", Rung::Ec2),
    ("local", Rung::Local),
];

fn parse_rung(text: &str) -> Result<Rung, String> {
    if let Some((_, rung)) = RUNGS.iter().find(|(name, _)| *name == text) {
        return Ok(rung.clone());
    }
    if let Some(name) = text.strip_prefix("ecs:") {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 255 || !name.chars().all(fits) {
            return Err(format!(
                "{text:?} names no capacity provider: write its name after the colon, such as \"ecs:my-provider\""
            ));
        }
        return match name.to_ascii_uppercase().as_str() {
            "FARGATE" => Err(format!("{text:?} is the rung \"fargate\"")),
            "FARGATE_SPOT" => Err(format!("{text:?} is the rung \"fargate-spot\"")),
            _ => Ok(Rung::Ecs(name.to_owned())),
        };
    }
    Err(match closest(text, RUNGS.iter().map(|(name, _)| *name)) {
        Some(name) => format!("{text:?} is no rung; did you mean \"{name}\"?"),
        None => {
            format!("{text:?} is no rung: there are fargate-spot, fargate, ecs:NAME, ec2-spot, ec2")
        }
    })
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

fn parse_log_level(text: &str) -> Result<LogLevel, String> {
    one_of(text, "level", &LEVELS, "error, warn, info, debug, trace")
}

/// The formats, by the Go driver's names.
const FORMATS: [(&str, LogFormat); 3] = [
    ("text", LogFormat::Text),
    ("text-simple", LogFormat::TextSimple),
    ("json", LogFormat::Json),
];

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
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

fn one_of<T: Copy>(text: &str, what: &str, all: &[(&str, T)], list: &str) -> Result<T, String> {
    if let Some((_, value)) = all.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*value);
    }
    Err(match closest(text, all.iter().map(|(name, _)| *name)) {
        Some(name) => format!("{text:?} is no {what}; did you mean \"{name}\"?"),
        None => format!("{text:?} is no {what}: there are {list}"),
    })
}

#[cfg(test)]
mod tests;
