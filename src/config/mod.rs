//! The administrator's configuration: the file as written, then checked settings.
//!
//! A file is parsed as TOML ([`load`], [`parse`]), put into one spelling with every key's place
//! kept, read value by value, and at last checked as a whole. Each error is a [`Problem`] that
//! names line, column and key, with an example of what would be right, and all of them are found in one
//! reading; what is merely odd is a warning, since files of GitLab's Go driver contain odd things and must
//! go on working.

pub mod arn;
pub mod broken_file;
mod checked;
pub mod display;
pub mod file;
mod key_locations;
pub mod keys;
mod normalise;
pub mod overrides;
mod problem;
mod quantity;
pub mod settings;
mod source;
pub mod tags;
pub mod trusted_variables;
mod unknown_keys;
mod values;
pub mod zone;

use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use self::checked::Findings;
pub(crate) use self::checked::STATE_DIRECTORY;
pub use self::problem::{Problem, Refusal, Wrong};
pub(crate) use self::quantity::{parse_cpu, parse_duration, parse_size};
use self::settings::Settings;
use self::source::Source;
pub(crate) use self::values::{
    parse_architecture, parse_instance_type, parse_machine_image, parse_rung,
};
use crate::error::{Error, Kind, Result, one_line};
use crate::files;

/// Where the file is looked for when nobody named one.
pub const DEFAULT_PATHS: [&str; 2] = [
    "/etc/gitlab-runner/aws-driver.toml",
    "/etc/gitlab-runner/fargate.toml",
];

/// The largest file that is read; a real one has a few kilobytes.
const LARGEST_FILE: u64 = 1 << 20;

/// So many duplicate keys are reported; the line of each one's first is looked for from the top.
const MOST_DOUBLES: usize = 50;

/// A file that was read and is right.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its settings.
    pub settings: Settings,
    /// Warnings about it, one line each.
    pub warnings: Vec<String>,
    /// Where it was found.
    pub path: PathBuf,
    /// A digest of its text.
    pub digest: String,
}

/// Reads the named file, or else the first of [`DEFAULT_PATHS`] that is there.
///
/// # Errors
///
/// Fails when there is no file, when it cannot be read, and when its content is wrong: with the first error of all.
pub fn load(explicit: Option<&Path>) -> Result<Loaded> {
    examine(explicit).map_err(Refusal::first)
}

/// Reads the same file, and returns all errors.
///
/// # Errors
///
/// As [`load`].
pub fn examine(explicit: Option<&Path>) -> std::result::Result<Loaded, Refusal> {
    examine_from(explicit, &DEFAULT_PATHS.map(Path::new))
}

/// Returns the first of [`DEFAULT_PATHS`] that is there.
#[must_use]
pub fn find_default() -> Option<PathBuf> {
    DEFAULT_PATHS.iter().map(PathBuf::from).find(|p| p.exists())
}

fn examine_from(
    explicit: Option<&Path>,
    defaults: &[&Path],
) -> std::result::Result<Loaded, Refusal> {
    let look = |path| read(path).map_err(Refusal::Unread);
    if let Some(path) = explicit {
        let Some(bytes) = look(path)? else {
            let error = Error::new(Kind::Config, format!("there is no file {}", path.display()));
            let hint = "Give the path of the configuration with --config FILE.";
            return Err(Refusal::Unread(error.hint(hint)));
        };
        return understand(&bytes, path).map_err(Refusal::Wrong);
    }
    for path in defaults {
        if let Some(bytes) = look(path)? {
            return understand(&bytes, path).map_err(Refusal::Wrong);
        }
    }
    let names: Vec<_> = defaults.iter().map(|p| p.display().to_string()).collect();
    let error = Error::new(
        Kind::Config,
        format!("there is no configuration: no {}", names.join(" and no ")),
    );
    Err(Refusal::Unread(error.hint(format!(
        "Write {}, or name another file with --config FILE before the command.",
        names.first().map_or("one", String::as_str)
    ))))
}

/// Returns the file's content, or `None` if there is no file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let hint = match files::read(path, LARGEST_FILE) {
        Ok(bytes) => return Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => (e.kind(), e),
    };
    let (hint, cause) = match hint {
        (io::ErrorKind::FileTooLarge, _) => {
            let message = format!("{} is larger than 1 MiB", path.display());
            return Err(Error::new(Kind::Config, message)
                .hint("That is no configuration; name the right file with --config FILE."));
        }
        (io::ErrorKind::IsADirectory, e) => (
            "It is a directory; name the file in it with --config FILE.",
            e,
        ),
        (io::ErrorKind::PermissionDenied, e) => (
            "Make it readable for the user that GitLab Runner runs as.",
            e,
        ),
        (_, e) => ("Give the path of the configuration with --config FILE.", e),
    };
    let message = format!("cannot read {}", path.display());
    Err(Error::new(Kind::Config, message).because(cause).hint(hint))
}

/// Reads a configuration from a file's content.
fn understand(bytes: &[u8], path: &Path) -> std::result::Result<Loaded, Wrong> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_all(text, path),
        Err(e) => {
            let valid = e.valid_up_to();
            let head = String::from_utf8_lossy(&bytes[..valid]);
            let source = Source { text: &head, path };
            let byte = bytes.get(valid).copied().unwrap_or_default();
            let cause = format!("the file is not UTF-8: byte 0x{byte:02x}");
            let problem = source.problem(valid, None, &cause);
            Err(wrong(
                source,
                vec![
                    problem
                        .hint("Save the file as UTF-8, without a special character in that place."),
                ],
            ))
        }
    }
}

/// Reads a configuration from its text; the path only serves to name it.
///
/// # Errors
///
/// Fails with the first error, if there is one.
pub fn parse(text: &str, path: &Path) -> Result<Loaded> {
    parse_all(text, path).map_err(|wrong| wrong.first())
}

/// Reads a configuration from its text, and returns all errors.
fn parse_all(text: &str, path: &Path) -> std::result::Result<Loaded, Wrong> {
    let source = Source { text, path };
    let (root, mut errors) = DeTable::parse_recoverable(text);
    // The parser reports in an order of its own.
    errors.sort_by_key(|e| e.span().map(|span| span.start));
    // A syntax error makes nonsense of all below it; a duplicate key does not.
    let broken = errors.iter().position(|e| !is_duplicate_key(e));
    errors.truncate(broken.map_or(MOST_DOUBLES, |at| at + 1));
    let problems: Vec<Problem> = errors.iter().map(|e| not_toml(source, e)).collect();
    if broken.is_some() {
        return Err(wrong(source, problems));
    }
    let mut tree = match normalise::read(root.into_inner(), source) {
        Ok(tree) => tree,
        Err(problem) => return Err(wrong(source, vec![problem])),
    };
    let keys = tree.values(source);
    let mut found = Findings {
        problems: [problems, tree.problems].concat(),
        warnings: tree.warnings,
    };
    let settings =
        keys.map(|keys| checked::settings(&keys, tree.style, &tree.locations, source, &mut found));
    match settings {
        Some(settings) if found.problems.is_empty() => Ok(Loaded {
            settings,
            warnings: found.warnings,
            path: path.to_owned(),
            digest: crate::hash::sha256_hex(text.as_bytes()),
        }),
        _ => Err(Wrong {
            warnings: found.warnings,
            ..wrong(source, found.problems)
        }),
    }
}

/// Sorts errors by their place in the file.
fn wrong(source: Source<'_>, mut problems: Vec<Problem>) -> Wrong {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    Wrong {
        path: source.path.to_owned(),
        problems,
        warnings: Vec::new(),
    }
}

/// Returns whether the error is only that a key is there twice.
fn is_duplicate_key(error: &toml::de::Error) -> bool {
    error.message().starts_with("duplicate key")
}

fn not_toml(source: Source<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    if is_duplicate_key(error) {
        let name = source.written(&span);
        if let Some(first) = line_of_first(source, name, span.start) {
            let cause = format!("the same is set in line {first}");
            return source.problem(span.start, Some(name), &cause).hint(format!(
                "Keep one of the two lines, {first} or {}.",
                source.line(span.start)
            ));
        }
        return source.problem(span.start, Some(name), "the key stands here twice");
    }
    let cause = format!("not TOML: {}", error.message());
    let line = source::clip(source.whole_line(span.start).trim(), 100);
    let problem = source.problem(span.start, None, &cause);
    if line.is_empty() {
        problem
    } else {
        problem.hint(one_line(&format!("The line reads: {line}")))
    }
}

/// Returns the line of the first of two equal keys, of which the second is at `offset`.
///
/// The parser reports only the second place. Parsing what is above the second one's line shows the first; of several tables
/// with such a key, the last one is meant.
fn line_of_first(source: Source<'_>, name: &str, offset: usize) -> Option<usize> {
    fn last(table: &DeTable<'_>, name: &str, found: &mut Option<usize>) {
        for (key, value) in table {
            if key.get_ref() == name {
                *found = (*found).max(Some(key.span().start));
            }
            match value.get_ref() {
                DeValue::Table(inner) => last(inner, name, found),
                DeValue::Array(items) => {
                    for item in items {
                        if let DeValue::Table(inner) = item.get_ref() {
                            last(inner, name, found);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    let above = source.before(offset);
    let above = &above[..above.rfind('\n').map_or(0, |at| at + 1)];
    let (table, _) = DeTable::parse_recoverable(above);
    let mut found = None;
    last(table.get_ref(), name, &mut found);
    found.map(|at| source.line(at))
}

#[cfg(test)]
mod tests;
