//! Reads the state directory from a configuration file with errors. A `cleanup` needs nothing else from the file, since a job's
//! intent and record have their own region and role.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::checked::STATE_DIRECTORY;
use super::{LARGEST_FILE, find_default};
use crate::files;

/// The tables and keys that name the state directory: this driver's, and the Go driver's.
const KEYS: [(&str, &str); 2] = [("state", "directory"), ("taskmetadata", "directory")];

/// Returns the state directory that a file names, whatever errors the file has, or the default one.
#[must_use]
pub fn state_directory(explicit: Option<&Path>) -> PathBuf {
    let path = explicit.map(Path::to_owned).or_else(find_default);
    let bytes = path.and_then(|path| files::read(&path, LARGEST_FILE).ok());
    bytes
        .and_then(|bytes| named(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_else(|| STATE_DIRECTORY.into())
}

/// Searches line by line: an error in one line does not affect another.
fn named(text: &str) -> Option<PathBuf> {
    let mut found = [None, None];
    let mut table = String::new();
    for line in text.lines() {
        let header = line.trim_start().strip_prefix('[');
        if let Some(name) = header.and_then(|rest| rest.split(']').next()) {
            table = name.trim().to_lowercase();
            continue;
        }
        let Ok(line) = DeTable::parse(line) else {
            continue;
        };
        for (key, value) in line.get_ref() {
            let key = key.get_ref().to_lowercase();
            for ((of, wanted), found) in KEYS.iter().zip(&mut found) {
                let path = match (&*table, value.get_ref()) {
                    (table, DeValue::String(path)) if table == *of && key == *wanted => Some(path),
                    // `state.directory = ".."` and `state = { directory = ".." }`.
                    ("", DeValue::Table(inner)) if key == *of => inner
                        .iter()
                        .filter(|(key, _)| key.get_ref().eq_ignore_ascii_case(wanted))
                        .find_map(|(_, value)| match value.get_ref() {
                            DeValue::String(path) => Some(path),
                            _ => None,
                        }),
                    _ => None,
                };
                let path = path.map(|path| PathBuf::from(&**path));
                if let Some(path) = path.filter(|path| path.is_absolute()) {
                    found.get_or_insert(path);
                }
            }
        }
    }
    let [own, go] = found;
    own.or(go)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_whatever_is_wrong_around_it() {
        for text in [
            "capacity = [\"local\"\n[state]\ndirectory = \"/s\"\n",
            "[ssh\n= 1\n[State]  # mine\nDirectory = '/s' # there\n[ssh]\nport = 99999\n",
            "state.directory = \"/s\"\nx =\n",
            "state = { directory = \"/s\" }\nx = 1\nx = 2\n",
            "[TaskMetadata]\n  Directory = \"/s\"\n[SSH]\n  Port = \"no\"\n",
            "[TaskMetadata]\nDirectory = \"/go\"\n[state]\ndirectory = \"/s\"\n",
        ] {
            assert_eq!(named(text), Some("/s".into()), "{text}");
        }
        for text in [
            "",
            "directory = \"/s\"\n",
            "[ssh]\ndirectory = \"/s\"\n",
            "[state]\ndirectory = \"s\"\n",
            "[state]\ndirectory = 7\n",
            "[state]\ndirectory = \"/s\n",
        ] {
            assert_eq!(named(text), None, "{text}");
        }
    }
}
