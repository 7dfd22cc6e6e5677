//! Rewrites the parsed file to the one spelling that the raw structs know.
//!
//! Keys match without regard to case and by the Go driver's names; every known key keeps its
//! place in the file, so that whatever is wrong with it later can name line and column. A key
//! that is unknown is removed with a warning: the Go driver ignored such keys, and its users
//! have them. If ignoring it would allow more than was meant ([`super::unknown_keys`]), it is an error.
//!
//! Keys with errors are removed too, so that the rest can be read and all errors be reported at once.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue, Deserializer};

use super::file::Keys;
use super::key_locations::{KeyLocation, KeyLocations, Misspelt};
use super::keys::{Key, KeyKind, MUTUALLY_EXCLUSIVE, ROOT};
use super::problem::Problem;
use super::settings::Style;
use super::source::{Source, clip};
use super::unknown_keys::{At, join, key_of_runners_config, suggestion, unsafe_to_ignore};

/// How many wrong values are reported. Each is found by reading all others again, and a file with more is not a
/// configuration.
const MOST_VALUES: usize = 200;

/// The file in the one spelling.
pub(super) struct Tree<'i> {
    /// Known keys only, by their names in [`super::keys`].
    table: DeTable<'i>,
    /// Where each of them is, by its full path.
    pub(super) locations: KeyLocations,
    /// Warnings about ignored keys.
    pub(super) warnings: Vec<String>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// The family of spellings.
    pub(super) style: Style,
}

/// Rewrites a parsed file to the one spelling.
///
/// # Errors
/// If the file is not a configuration of the driver at all.
pub(super) fn read<'i>(root: DeTable<'i>, source: Source<'_>) -> Result<Tree<'i>, Problem> {
    if let Some(name) = key_of_runners_config(&root) {
        return Err(not_this_drivers_file(&root, name, source));
    }
    let mut reader = Reader {
        source,
        locations: KeyLocations::default(),
        warnings: Vec::new(),
        problems: Vec::new(),
        style: Style::GoDriver,
    };
    let mut table = reader.table(root, ROOT, &At::top());
    reader.refuse_mutually_exclusive();
    if reader.style == Style::GoDriver {
        reader.ignore_what_go_ignored(&mut table);
        drop_empty(&mut table);
    }
    // The parser returns keys in alphabetical order; people read from the top.
    reader.warnings.sort_by_key(|(offset, _)| *offset);
    Ok(Tree {
        table,
        locations: reader.locations,
        warnings: reader.warnings.into_iter().map(|(_, w)| w).collect(),
        problems: reader.problems,
        style: reader.style,
    })
}

fn not_this_drivers_file(root: &DeTable<'_>, name: &str, source: Source<'_>) -> Problem {
    let key = root.keys().find(|key| key.get_ref() == name);
    let offset = key.map_or(0, |key| key.span().start);
    source
        .problem(offset, Some(name), "this is GitLab Runner's own configuration, not the driver's")
        .hint(
            "The driver has a file of its own: write /etc/gitlab-runner/aws-driver.toml, or name one by --config FILE before `custom` in each \
             of the four *_args.",
        )
}

impl Tree<'_> {
    /// Reads all values. Each wrong value is reported and removed. Returns `None` if even that fails.
    pub(super) fn values(&mut self, source: Source<'_>) -> Option<Keys> {
        for _ in 0..MOST_VALUES {
            let table = Spanned::new(0..0, self.table.clone());
            let error = match Keys::deserialize(Deserializer::from(table)) {
                Ok(keys) => return Some(keys),
                Err(error) => error,
            };
            let offset = error.span().map_or(0, |span| span.start);
            let Some((path, location)) = self.locations.around(offset) else {
                let problem = source.problem(offset, None, error.message());
                self.problems.push(problem);
                return None;
            };
            let problem = location.problem_at(source, offset, error.message());
            let (path, key) = (path.to_owned(), location.key.clone());
            self.problems.push(problem);
            self.locations.add_broken(&path);
            if !take_out(&mut self.table, &key) {
                return None;
            }
        }
        None
    }
}

/// Removes the key at that place.
fn take_out(table: &mut DeTable<'_>, key: &Range<usize>) -> bool {
    let mut found = false;
    *table = std::mem::take(table)
        .into_iter()
        .filter_map(|(name, mut value)| {
            if name.span() == *key {
                found = true;
                return None;
            }
            match value.get_mut() {
                DeValue::Table(inner) => found |= take_out(inner, key),
                DeValue::Array(items) => {
                    for item in items.iter_mut() {
                        if let DeValue::Table(inner) = item.get_mut() {
                            found |= take_out(inner, key);
                        }
                    }
                }
                _ => {}
            }
            Some((name, value))
        })
        .collect();
    found
}

struct Reader<'a> {
    source: Source<'a>,
    locations: KeyLocations,
    warnings: Vec<(usize, String)>,
    problems: Vec<Problem>,
    style: Style,
}

impl Reader<'_> {
    fn table<'i>(&mut self, table: DeTable<'i>, keys: &'static [Key], at: &At) -> DeTable<'i> {
        let mut out = DeTable::new();
        for (name, value) in table {
            let written = show_key(name.get_ref());
            let lower = name.get_ref().to_lowercase();
            let Some(key) = keys.iter().find(|key| key.is(&lower)) else {
                self.unknown(name.span(), &written, &lower, value.get_ref(), keys, at);
                continue;
            };
            if key.is_new_style && !key.is_go(&lower) {
                self.style = Style::New;
            }
            let path = at.path_to(key.name);
            let location = KeyLocation {
                shown: at.shown_to(&written),
                name: written,
                header: at.header.clone(),
                example: match key.kind {
                    KeyKind::Value(example) => Some(example),
                    _ => None,
                },
                key: name.span(),
                value: value.span(),
            };
            if let Some(other) = self.locations.get(&path) {
                self.problems.push(twice(self.source, other, &location));
                continue;
            }
            match self.value(value, key, &location, &path) {
                Ok(value) => {
                    let name = Spanned::new(name.span(), DeString::Borrowed(key.name));
                    out.insert(name, value);
                }
                Err(problem) => {
                    self.problems.push(problem);
                    self.locations.add_broken(&path);
                }
            }
            self.locations.add(path, location);
        }
        out
    }

    fn value<'i>(
        &mut self,
        value: Spanned<DeValue<'i>>,
        key: &'static Key,
        location: &KeyLocation,
        path: &str,
    ) -> Result<Spanned<DeValue<'i>>, Problem> {
        let span = value.span();
        let at = |path: String, shown: String, header: String| At {
            path,
            shown,
            header: Some(header),
        };
        let value = match (&key.kind, value.into_inner()) {
            (KeyKind::Value(_), value) => value,
            (KeyKind::Free(_, example), DeValue::Table(table)) => {
                self.free(&table, example, location, path);
                DeValue::Table(table)
            }
            (KeyKind::Table(keys), DeValue::Table(table)) => {
                let at = at(
                    path.to_owned(),
                    location.shown.clone(),
                    header(&location.shown),
                );
                DeValue::Table(self.table(table, keys, &at))
            }
            (KeyKind::Tables(keys), DeValue::Array(array)) => {
                let mut out = DeArray::new();
                for (i, item) in array.into_iter().enumerate() {
                    let (item_span, path) = (item.span(), format!("{path}[{i}]"));
                    let table = match item.into_inner() {
                        DeValue::Table(table) => {
                            let shown = format!("{}[{i}]", location.shown);
                            let item = KeyLocation {
                                shown: shown.clone(),
                                key: item_span.clone(),
                                value: item_span.clone(),
                                ..location.clone()
                            };
                            self.locations.add(path.clone(), item);
                            let at = at(path, shown, format!("[[{}]]", location.name));
                            self.table(table, keys, &at)
                        }
                        other => {
                            let found = article(other.type_str());
                            let problem = self.not_a_table(item_span.start, key, location, &found);
                            self.problems.push(problem);
                            self.locations.add_broken(&path);
                            DeTable::new()
                        }
                    };
                    out.push(Spanned::new(item_span, DeValue::Table(table)));
                }
                DeValue::Array(out)
            }
            (_, other) => {
                return Err(self.not_a_table(
                    span.start,
                    key,
                    location,
                    &article(other.type_str()),
                ));
            }
        };
        Ok(Spanned::new(span, value))
    }

    /// Records the locations of keys that the administrator chose, such as tags; they stay as they are written.
    fn free(
        &mut self,
        table: &DeTable<'_>,
        example: &'static str,
        location: &KeyLocation,
        path: &str,
    ) {
        for (name, value) in table {
            let written = show_key(name.get_ref());
            let location = KeyLocation {
                shown: join(&location.shown, &written),
                name: written,
                header: Some(header(&location.shown)),
                example: Some(example),
                key: name.span(),
                value: value.span(),
            };
            self.locations.add(join(path, name.get_ref()), location);
        }
    }

    fn not_a_table(
        &self,
        offset: usize,
        key: &Key,
        location: &KeyLocation,
        found: &str,
    ) -> Problem {
        let (wanted, header) = match key.kind {
            KeyKind::Tables(_) => ("a list of tables", format!("[[{}]]", location.name)),
            _ => ("a table", format!("[{}]", location.name)),
        };
        self.source
            .problem(
                offset,
                Some(&location.shown),
                &format!("expected {wanted}, found {found}"),
            )
            .hint(format!(
                "Write {header} on a line of its own and the keys below it."
            ))
    }

    /// Warns about an unknown key, or refuses it if ignoring it would allow more than was meant. In a profile, a known key that
    /// applies to all jobs is refused with another message.
    fn unknown(
        &mut self,
        span: Range<usize>,
        written: &str,
        lower: &str,
        value: &DeValue<'_>,
        keys: &'static [Key],
        at: &At,
    ) {
        let (shown, offset) = (at.shown_to(written), span.start);
        let problem = |cause: &str| self.source.problem(offset, Some(&shown), cause);
        let for_all = |key: &&Key| key.is(lower) && !key.in_profile;
        if at.is_profile()
            && let Some(key) = ROOT.iter().find(for_all)
        {
            let what = match key.kind {
                KeyKind::Value(_) => written.to_owned(),
                _ => format!("[{written}]"),
            };
            let problem = problem("no profile can set this, it holds for every job")
                .hint(format!("Put {what} above the first [[profile]]."));
            self.problems.push(problem);
            return;
        }
        let suggested = suggestion(written, lower, value, keys, at);
        let opening = unsafe_to_ignore(written, value, at, suggested.as_ref());
        let advice = suggested.as_ref().map(|s| s.advice.clone());
        if let Some(opening) = opening {
            let looks = |name| format!("did you mean {name}?");
            let advice = advice.or(opening.meant.map(looks));
            let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
            let problem = problem(&format!("there is no such key{advice}")).hint(opening.remedy);
            self.problems.push(problem);
            self.locations.add_broken(&at.path_to(lower));
        } else {
            let warning = ignored(self.source, offset, &shown, advice.as_deref());
            self.warnings.push((offset, warning));
        }
        if let Some(suggested) = suggested {
            let misspelt = Misspelt {
                shown,
                advice: suggested.advice,
                key: offset,
                refused: opening.is_some(),
            };
            self.locations.add_misspelt(suggested.meant, misspelt);
        }
    }

    /// Removes from a Go driver's file the keys that only this driver would use: the Go driver knew them in another table.
    fn ignore_what_go_ignored(&mut self, table: &mut DeTable<'_>) {
        for around in ROOT {
            for key in around.children().iter().filter(|key| !key.is_new_style) {
                let path = join(around.name, key.name);
                let Some(location) = self.locations.take(&path) else {
                    continue;
                };
                take_out(table, &location.key);
                let line = self.source.line(location.key.start);
                let file = self.source.path.display();
                let warning = format!(
                    "{file}:{line}: {} is ignored, as by the Go driver; did you mean {} under [SSH]?",
                    location.shown, location.name
                );
                self.warnings.push((location.key.start, warning));
            }
        }
    }

    /// Refuses two keys of different names that set the same thing.
    fn refuse_mutually_exclusive(&mut self) {
        let ends = |path: &str| path.find("].").map(|end| path[..end + 2].to_owned());
        let mut prefixes: Vec<String> = self.locations.paths().filter_map(ends).collect();
        prefixes.push(String::new());
        prefixes.sort();
        prefixes.dedup();
        for prefix in prefixes {
            for (a, b) in MUTUALLY_EXCLUSIVE {
                let found = (
                    self.locations.get(&format!("{prefix}{a}")),
                    self.locations.get(&format!("{prefix}{b}")),
                );
                if let (Some(a), Some(b)) = found {
                    self.problems.push(twice(self.source, a, b));
                }
            }
        }
    }
}

/// Returns the warning about an unknown key.
pub(super) fn ignored(
    source: Source<'_>,
    offset: usize,
    shown: &str,
    advice: Option<&str>,
) -> String {
    let (line, path) = (source.line(offset), source.path.display());
    let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
    format!("{path}:{line}: unknown key {shown} is ignored{advice}")
}

fn twice(source: Source<'_>, one: &KeyLocation, other: &KeyLocation) -> Problem {
    let (first, second) = if one.key.start < other.key.start {
        (one, other)
    } else {
        (other, one)
    };
    let line = source.line(first.key.start);
    let cause = format!("the same is set in line {line} as {}", first.shown);
    let again = source.line(second.key.start);
    source
        .problem(second.key.start, Some(&second.shown), &cause)
        .hint(format!("Keep one of the two lines, {line} or {again}."))
}

/// Returns a table's header: a profile's tables are named without its number.
fn header(shown: &str) -> String {
    match shown.split_once('[').zip(shown.split_once(']')) {
        Some(((before, _), (_, after))) => format!("[{before}{after}]"),
        None => format!("[{shown}]"),
    }
}

/// Removes empty strings: for the Go driver, empty is the same as absent.
fn drop_empty(table: &mut DeTable<'_>) {
    *table = std::mem::take(table)
        .into_iter()
        .filter_map(|(key, mut value)| {
            if let DeValue::Table(inner) = value.get_mut() {
                drop_empty(inner);
            }
            (value.get_ref().as_str() != Some("")).then_some((key, value))
        })
        .collect();
}

/// Returns a key for a message, quoted if TOML needs quotes.
fn show_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) {
        clip(name, 60)
    } else {
        format!("{:?}", clip(name, 60))
    }
}

fn article(kind: &str) -> String {
    match kind {
        "integer" | "array" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}
