//! What the administrator said: the file as written, then checked settings.
//!
//! A file is parsed as TOML ([`load`], [`parse`]), put into one spelling with every key's place
//! kept, read value by value, and at last checked as a whole. Whatever is wrong is one error that
//! names file, line, column and key, with an example of what would be right; what is merely odd is
//! a warning, since files of GitLab's Go driver hold odd things and must go on working.

pub mod arn;
mod checked;
pub mod facts;
pub mod file;
pub mod keys;
pub mod pattern;
mod place;
mod quantity;
pub mod settings;
pub mod shown;
pub mod tags;
mod tree;
mod values;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use self::file::Keys;
use self::place::Place;
pub(crate) use self::quantity::{parse_cpu, parse_size};
use self::settings::Settings;
pub(crate) use self::values::{
    parse_architecture, parse_instance_type, parse_machine_image, parse_rung,
};
use crate::error::{Error, Kind, Result, one_line};

/// Where the file is looked for when nobody named one.
pub const DEFAULT_PATHS: [&str; 2] = [
    "/etc/gitlab-runner/aws-driver.toml",
    "/etc/gitlab-runner/fargate.toml",
];

/// The largest file that is read; a real one has a few kilobytes.
const LARGEST_FILE: u64 = 1 << 20;

/// A file that was read and is right.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What is odd about it, one line each.
    pub warnings: Vec<String>,
    /// Where it was found.
    pub path: PathBuf,
}

/// Reads the named file, or else the first of [`DEFAULT_PATHS`] that is there.
///
/// # Errors
///
/// Fails when there is no file, when it cannot be read, and when what it says is wrong.
pub fn load(explicit: Option<&Path>) -> Result<Loaded> {
    load_from(explicit, &DEFAULT_PATHS.map(Path::new))
}

/// Returns the first of [`DEFAULT_PATHS`] that is there.
#[must_use]
pub fn find_default() -> Option<PathBuf> {
    DEFAULT_PATHS.iter().map(PathBuf::from).find(|p| p.exists())
}

fn load_from(explicit: Option<&Path>, defaults: &[&Path]) -> Result<Loaded> {
    if let Some(path) = explicit {
        return match read(path)? {
            Some(text) => parse(&text, path),
            None => Err(
                Error::new(Kind::Config, format!("there is no file {}", path.display()))
                    .hint("Give the path of the configuration with --config FILE."),
            ),
        };
    }
    for path in defaults {
        if let Some(text) = read(path)? {
            return parse(&text, path);
        }
    }
    let names: Vec<_> = defaults.iter().map(|p| p.display().to_string()).collect();
    Err(Error::new(
        Kind::Config,
        format!("there is no configuration: no {}", names.join(" and no ")),
    )
    .hint(format!(
        "Write {}, or name another file with --config FILE before the command.",
        names.first().map_or("one", String::as_str)
    )))
}

/// Returns the file's text, or nothing where there is no file.
fn read(path: &Path) -> Result<Option<String>> {
    let failed = |e: io::Error| {
        let hint = match e.kind() {
            io::ErrorKind::IsADirectory => {
                "It is a directory; name the file in it with --config FILE."
            }
            io::ErrorKind::PermissionDenied => {
                "Make it readable for the user that GitLab Runner runs as."
            }
            _ => "Give the path of the configuration with --config FILE.",
        };
        Error::new(Kind::Config, format!("cannot read {}", path.display()))
            .because(e)
            .hint(hint)
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LARGEST_FILE {
        let message = format!("{} is larger than 1 MiB", path.display());
        return Err(Error::new(Kind::Config, message)
            .hint("That is no configuration; name the right file with --config FILE."));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(e) => {
            let valid = e.utf8_error().valid_up_to();
            let head = String::from_utf8_lossy(&e.as_bytes()[..valid]);
            let place = Place { text: &head, path };
            let byte = e.as_bytes().get(valid).copied().unwrap_or_default();
            let message = format!("the file is not UTF-8: byte 0x{byte:02x}");
            Err(place
                .error(valid, &message)
                .hint("Save the file as UTF-8, without a special character in that place."))
        }
    }
}

/// Reads a configuration from its text; the path only serves to name it.
///
/// # Errors
///
/// Fails when what the text says is wrong.
pub fn parse(text: &str, path: &Path) -> Result<Loaded> {
    let place = Place { text, path };
    let (root, errors) = DeTable::parse_recoverable(text);
    // The parser reports in an order of its own; what stands first in the file is what broke it.
    if let Some(first) = errors
        .iter()
        .min_by_key(|e| e.span().map(|span| span.start))
    {
        return Err(not_toml(place, first));
    }
    let tree = tree::read(root.into_inner(), place)?;
    let keys = Keys::deserialize(Deserializer::from(Spanned::new(0..0, tree.table)))
        .map_err(|e| tree.spots.refused(place, &e))?;
    let mut warnings = tree.warnings;
    let settings = checked::settings(&keys, tree.style, &tree.spots, place, &mut warnings)?;
    Ok(Loaded {
        settings,
        warnings,
        path: path.to_owned(),
    })
}

fn not_toml(place: Place<'_>, error: &toml::de::Error) -> Error {
    let span = error.span().unwrap_or(0..0);
    if error.message().starts_with("duplicate key") {
        let name = place.written(&span);
        if let Some(first) = first_of(place, name, span.start) {
            let message = format!("{name}: the same is set in line {first}");
            return place.error(span.start, &message).hint(format!(
                "Keep one of the two lines, {first} or {}.",
                place.line(span.start)
            ));
        }
        return place.error(span.start, &format!("{name}: the key stands here twice"));
    }
    let message = format!("not TOML: {}", error.message());
    let line = place::clip(place.whole_line(span.start).trim(), 100);
    let error = place.error(span.start, &message);
    if line.is_empty() {
        error
    } else {
        error.hint(one_line(&format!("The line reads: {line}")))
    }
}

/// Returns the line where a key that is doubled at `offset` stood first.
///
/// The parser tells only the second place. All above the second one's line is right in itself, so
/// parsing that shows the first; of several tables with such a key, the last one is meant.
fn first_of(place: Place<'_>, name: &str, offset: usize) -> Option<usize> {
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
    let above = place.before(offset);
    let above = &above[..above.rfind('\n').map_or(0, |at| at + 1)];
    let table = DeTable::parse(above).ok()?;
    let mut found = None;
    last(table.get_ref(), name, &mut found);
    found.map(|at| place.line(at))
}

#[cfg(test)]
mod tests;
