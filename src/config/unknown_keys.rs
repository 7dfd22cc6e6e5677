//! Unknown keys: which key each probably meant, and which of them must not be ignored.
//!
//! The Go driver ignored unknown keys, and its users have some. But a key that narrows what jobs may have leaves it wide when
//! it is ignored: any key in a profile, and any key that looks like `profile` or `limits`.

use toml::de::{DeTable, DeValue};

use super::keys::{Key, KeyKind, PROFILE, ROOT, closest};

/// Keys that GitLab Runner's own file has at its top, and neither driver has. (It shares `log_level` and `log_format`.)
const OF_THE_RUNNER: [&str; 9] = [
    "check_interval",
    "concurrent",
    "connection_max_age",
    "listen_address",
    "metrics_server",
    "runners",
    "sentry_dsn",
    "session_server",
    "shutdown_timeout",
];

/// What GitLab Runner's own file has in common with this driver's.
const IN_COMMON: [&str; 2] = ["log_level", "log_format"];

/// The keys that must not be passed over, and what to do about a name that looks like one.
const GUARDS: [(&str, &str); 2] = [("limits", OF_LIMITS), ("profile", OF_PROFILE)];

const OF_LIMITS: &str =
    "Ignored, jobs might choose what it was to forbid: correct the name, or take it out.";
const OF_PROFILE: &str = "Ignored, it would hold for no job: each profile begins with [[profile]], and its tables are written \
                          [profile.limits]. Correct the name, or take it out.";
const OF_MATCH: &str = "Ignored, it would let the profile hold for more jobs than meant: correct the name, or take it out.";
const IN_PROFILE: &str =
    "Ignored, the profile's jobs might get more than meant: correct the name, or take it out.";

/// The table at hand.
#[derive(Clone, Debug)]
pub(super) struct At {
    /// Its path by the names that this driver knows.
    pub(super) path: String,
    /// The same as the file spells it.
    pub(super) shown: String,
    /// As the file heads it; none at the top.
    pub(super) header: Option<String>,
}

/// What an unknown key probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suggestion {
    /// As a clause for the reader.
    pub(super) advice: String,
    /// The key's path.
    pub(super) meant: String,
}

impl At {
    /// Returns the top of the file.
    pub(super) fn top() -> Self {
        Self {
            path: String::new(),
            shown: String::new(),
            header: None,
        }
    }

    pub(super) fn path_to(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(super) fn shown_to(&self, name: &str) -> String {
        join(&self.shown, name)
    }

    /// Returns the path of the profile that this is, or is in.
    fn profile(&self) -> Option<&str> {
        let end = self.path.find(']')?;
        Some(&self.path[..=end])
    }

    /// Returns whether this is a profile, and no table in one.
    pub(super) fn is_profile(&self) -> bool {
        self.profile() == Some(&self.path)
    }
}

/// Joins a table's path and a key.
pub(super) fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

/// Returns a key by which a file shows itself to be GitLab Runner's own.
pub(super) fn key_of_runners_config<'t>(root: &'t DeTable<'_>) -> Option<&'t str> {
    let names = || root.keys().map(|name| name.get_ref().as_ref());
    let is_ours = |name: &str| {
        let lower = name.to_lowercase();
        ROOT.iter().any(|key| key.is(&lower)) && !IN_COMMON.contains(&lower.as_str())
    };
    let ours = names().any(is_ours);
    let mut of_runner = names().filter(|name| OF_THE_RUNNER.contains(name));
    of_runner.find(|name| *name == "runners" || !ours)
}

/// Says what an unknown key probably meant, another name here or the same in another table, and where that would be.
pub(super) fn suggestion(
    written: &str,
    lower: &str,
    value: &DeValue<'_>,
    keys: &'static [Key],
    at: &At,
) -> Option<Suggestion> {
    // Who writes CamelCase has a Go-driver file and is best served with that driver's names.
    let camel = written.contains(char::is_uppercase);
    let shown = |key: &Key| match key.go {
        Some(go) if camel || key.only_go() => go,
        _ => key.name,
    };
    let say = |advice: String, meant: String| Some(Suggestion { advice, meant });
    // Nobody else means a name that is that driver's alone while one of this file's own will do.
    let own = keys.iter().filter(|key| camel || !key.only_go());
    let near = closest(lower, own.map(shown)).or_else(|| closest(lower, keys.iter().map(shown)));
    if let Some(name) = near {
        let key = keys.iter().find(|key| shown(key) == name)?;
        return say(format!("did you mean {name}?"), at.path_to(key.name));
    }
    let (around, all) = match at.profile() {
        Some(profile) => (profile, PROFILE),
        None => ("", ROOT),
    };
    // An AWS profile's name, say, is none of ours; limits in whatever shape are.
    let may_be = |key: &&Key| {
        let is_value = matches!(key.kind, KeyKind::Value(_));
        key.is(lower) && (is_value || holds_tables(value) || key.name == "limits")
    };
    if at.path != around
        && let Some(key) = all.iter().find(may_be)
    {
        let advice = match (&key.kind, around) {
            (KeyKind::Value(_), "") => {
                "it belongs at the top of the file, above the first [table]".to_owned()
            }
            (KeyKind::Value(_), _) => "it belongs right below [[profile]]".to_owned(),
            (KeyKind::Tables(_), _) => format!("did you mean [[{}]]?", key.name),
            (_, "") => format!("did you mean [{}]?", key.name),
            _ => format!("did you mean [profile.{}]?", key.name),
        };
        return say(advice, join(around, key.name));
    }
    let tables = all
        .iter()
        .filter(|table| matches!(table.kind, KeyKind::Table(_)));
    let (table, key) = tables
        .filter_map(|table| Some((table, table.children().iter().find(|key| key.is(lower))?)))
        .next()?;
    let name = table.go.filter(|_| camel).unwrap_or(table.name);
    let header = match around {
        "" => name.to_owned(),
        _ => format!("profile.{name}"),
    };
    let meant = join(around, &join(table.name, key.name));
    say(format!("did you mean {written} under [{header}]?"), meant)
}

/// Returns what to do about an unknown key that is not safely ignored.
pub(super) fn unsafe_to_ignore(
    written: &str,
    value: &DeValue<'_>,
    at: &At,
    suggested: Option<&Suggestion>,
) -> Option<UnsafeToIgnore> {
    let remedy = |remedy| {
        Some(UnsafeToIgnore {
            remedy,
            meant: None,
        })
    };
    let last = suggested.and_then(|s| s.meant.rsplit('.').next());
    if at.path.ends_with(".match") {
        return remedy(OF_MATCH);
    }
    if last == Some("limits") {
        return remedy(OF_LIMITS);
    }
    if at.profile().is_some() {
        return remedy(IN_PROFILE);
    }
    let holds_tables = holds_tables(value);
    if last == Some("profile") && (holds_tables || at.header.is_none()) {
        return remedy(OF_PROFILE);
    }
    let looks = (holds_tables && suggested.is_none()).then(|| looks_like_guard(written));
    let guard = looks.flatten().or_else(|| hidden_guard(value));
    guard.map(|(name, remedy)| UnsafeToIgnore {
        remedy,
        meant: Some(name),
    })
}

/// Why an unknown key is not ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnsafeToIgnore {
    /// What to do about it.
    pub(super) remedy: &'static str,
    /// The key that it looks like, unless the message suggests it already.
    pub(super) meant: Option<&'static str>,
}

fn holds_tables(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items
            .iter()
            .any(|item| matches!(item.get_ref(), DeValue::Table(_))),
        _ => false,
    }
}

/// Returns the guarded key that a table's name looks like: by one of its words, in the singular or plural, a letter or two
/// amiss.
fn looks_like_guard(written: &str) -> Option<(&'static str, &'static str)> {
    let words = words(written);
    GUARDS.into_iter().find(|(guard, _)| {
        let singular = guard.trim_end_matches('s');
        let plural = format!("{singular}s");
        words
            .iter()
            .any(|word| closest(word, [singular, &plural]).is_some())
    })
}

/// Returns the guarded key that is somewhere below an unknown table.
fn hidden_guard(value: &DeValue<'_>) -> Option<(&'static str, &'static str)> {
    let below = |table: &DeTable<'_>| {
        table.iter().find_map(|(name, value)| {
            let value = value.get_ref();
            let own = holds_tables(value).then(|| looks_like_guard(name.get_ref()));
            own.flatten().or_else(|| hidden_guard(value))
        })
    };
    match value {
        DeValue::Table(table) => below(table),
        DeValue::Array(items) => items.iter().find_map(|item| hidden_guard(item.get_ref())),
        _ => None,
    }
}

/// Splits a name at each character that is not a letter, and before capitals.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_a_guarded_key_are_known() {
        for (name, want) in [
            ("profiles", Some("profile")),
            ("Profile", Some("profile")),
            ("job_profile", Some("profile")),
            ("profile-docker", Some("profile")),
            ("profil", Some("profile")),
            ("prolife", Some("profile")),
            ("JobProfiles", Some("profile")),
            ("limit", Some("limits")),
            ("LIMITS", Some("limits")),
            ("lmits", Some("limits")),
            ("job.limits", Some("limits")),
            ("taskLimits", Some("limits")),
            ("limits2", Some("limits")),
            ("metrics", None),
            ("files", None),
            ("lists", None),
            ("links", None),
            ("runners", None),
            ("fleet", None),
            ("", None),
        ] {
            let got = looks_like_guard(name).map(|(guard, _)| guard);
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn gitlab_runners_own_file_is_known_by_its_keys() {
        for (text, want) in [
            ("[[runners]]\nname = \"a\"", Some("runners")),
            ("concurrent = 4\ncheck_interval = 0", Some("check_interval")),
            ("log_level = \"info\"\nconcurrent = 4", Some("concurrent")),
            (
                "[session_server]\nsession_timeout = 1800",
                Some("session_server"),
            ),
            ("concurrent = 4\n[Fargate]\nCluster = \"a\"", None),
            ("[Fargate]\nCluster = \"a\"\n[[runners]]", Some("runners")),
            ("Concurrency = 4", None),
            ("", None),
        ] {
            let root = DeTable::parse(text).unwrap();
            assert_eq!(key_of_runners_config(root.get_ref()), want, "{text}");
        }
    }
}
