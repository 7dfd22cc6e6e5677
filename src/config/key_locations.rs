//! Where in the file every known key is, and which key an unknown one probably meant.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::problem::Problem;
use super::source::Source;

/// Where in the file every known key is, and which key an unknown one probably meant.
#[derive(Debug, Default)]
pub(super) struct KeyLocations {
    known: BTreeMap<String, KeyLocation>,
    meant: BTreeMap<String, Misspelt>,
    broken: BTreeSet<String>,
}

/// An unknown key whose right spelling can be guessed.
#[derive(Debug)]
pub(super) struct Misspelt {
    /// Its full path as the file spells it.
    pub(super) shown: String,
    /// What it probably meant.
    pub(super) advice: String,
    /// Where it is.
    pub(super) key: usize,
    /// Whether it was refused already.
    pub(super) refused: bool,
}

/// Where a key is.
#[derive(Clone, Debug)]
pub(super) struct KeyLocation {
    /// Its full path as the file spells it.
    pub(super) shown: String,
    /// The key alone as the file spells it.
    pub(super) name: String,
    /// The table that it is in, as a header.
    pub(super) header: Option<String>,
    /// An example of a value, as TOML.
    pub(super) example: Option<&'static str>,
    /// Where the key is.
    pub(super) key: Range<usize>,
    /// Where its value is.
    pub(super) value: Range<usize>,
}

impl KeyLocations {
    /// Records where a key is.
    pub(super) fn add(&mut self, path: String, location: KeyLocation) {
        self.known.insert(path, location);
    }

    /// Removes a key that counts as absent.
    pub(super) fn take(&mut self, path: &str) -> Option<KeyLocation> {
        self.known.remove(path)
    }

    /// Records which key an unknown one probably meant.
    pub(super) fn add_misspelt(&mut self, meant: String, misspelt: Misspelt) {
        self.meant.insert(meant, misspelt);
    }

    /// Records that a key's value was refused: the key is in the file, but its value cannot be used.
    pub(super) fn add_broken(&mut self, path: &str) {
        self.broken.insert(path.to_owned());
    }

    /// Returns where a key is, if the file has it.
    pub(super) fn get(&self, path: &str) -> Option<&KeyLocation> {
        self.known.get(path)
    }

    /// Returns every key that is known and there.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Returns the unknown key that probably meant a key or table that the file does not have.
    pub(super) fn meant(&self, path: &str) -> Option<&Misspelt> {
        self.meant.get(path)
    }

    /// Returns whether a key, or a table around it, was refused.
    pub(super) fn is_broken(&self, path: &str) -> bool {
        let around = path.match_indices(['.', '[']).map(|(at, _)| &path[..at]);
        around.chain([path]).any(|path| self.broken.contains(path))
    }

    /// Returns whether a part of a table was refused, or all of it.
    pub(super) fn has_broken_below(&self, table: &str) -> bool {
        let is_below = |path: &String| {
            let rest = path.strip_prefix(table);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        self.is_broken(table) || self.broken.iter().any(is_below)
    }

    /// Returns where the first key of a table is.
    pub(super) fn first_below(&self, table: &str) -> Option<usize> {
        self.known
            .iter()
            .filter(|(path, _)| {
                path.strip_prefix(table)
                    .is_some_and(|rest| rest.starts_with('.'))
            })
            .map(|(_, location)| location.key.start)
            .min()
    }

    /// Returns the innermost key whose value contains the offset, and its path.
    pub(super) fn around(&self, offset: usize) -> Option<(&str, &KeyLocation)> {
        self.known
            .iter()
            .filter(|(_, location)| {
                location.value.start <= offset
                    && offset < location.value.end.max(location.value.start + 1)
            })
            .min_by_key(|(_, location)| location.value.len())
            .map(|(path, location)| (path.as_str(), location))
    }
}

impl KeyLocation {
    /// Returns a problem with this key's value whose remedy is elsewhere.
    pub(super) fn plain_problem(&self, source: Source<'_>, cause: &str) -> Problem {
        source.problem(self.value.start, Some(&self.shown), cause)
    }

    /// Returns a problem with the key itself, with another one as an example where there is one.
    pub(super) fn problem_at_key(
        &self,
        source: Source<'_>,
        cause: &str,
        better: Option<&str>,
    ) -> Problem {
        let problem = source.problem(self.key.start, Some(&self.shown), cause);
        match (better, self.example, &self.header) {
            (Some(name), Some(example), Some(header)) => {
                problem.hint(format!("For example, under {header}: {name} = {example}"))
            }
            _ => problem,
        }
    }

    /// Returns a problem with this key's value, with an example of a right one.
    pub(super) fn problem(&self, source: Source<'_>, cause: &str) -> Problem {
        self.problem_at(source, self.value.start, cause)
    }

    /// Returns a problem with a part of this key's value, with an example of a right one.
    pub(super) fn problem_at(&self, source: Source<'_>, offset: usize, cause: &str) -> Problem {
        let problem = source.problem(offset, Some(&self.shown), cause);
        let name = &self.name;
        match (self.example, &self.header) {
            (None, _) => problem,
            (Some(example), None) => problem.hint(format!("For example: {name} = {example}")),
            (Some(example), Some(header)) => {
                problem.hint(format!("For example, under {header}: {name} = {example}"))
            }
        }
    }
}
