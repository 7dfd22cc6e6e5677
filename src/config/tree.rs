//! Puts the parsed file into the one spelling that the raw structs know.
//!
//! Keys match without regard to case and by the Go driver's names; every known key keeps its
//! place in the file, so that whatever is wrong with it later can name line and column. A key
//! that nobody knows is taken out with a warning: the Go driver ignored such keys, and its users
//! have them.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::keys::{Holds, Key, RIVALS, ROOT, closest};
use super::place::{Place, clip};
use super::settings::Style;
use crate::error::{Error, Result};

/// The file, put straight.
pub(super) struct Tree<'i> {
    /// Known keys only, by their names in [`super::keys`].
    pub(super) table: DeTable<'i>,
    /// Where each of them stands, by its full path.
    pub(super) spots: Spots,
    /// What was ignored.
    pub(super) warnings: Vec<String>,
    /// The family of spellings.
    pub(super) style: Style,
}

/// Where every known key stands, and what unknown ones probably meant.
#[derive(Debug, Default)]
pub(super) struct Spots {
    known: BTreeMap<String, Spot>,
    meant: BTreeMap<String, Misspelt>,
}

/// A key that nobody knows, but whose right spelling can be guessed.
#[derive(Debug)]
pub(super) struct Misspelt {
    /// Its full path as the file spells it.
    pub(super) shown: String,
    /// What it probably meant.
    pub(super) advice: String,
    /// Where it is.
    pub(super) key: usize,
}

/// Where a key stands.
#[derive(Debug)]
pub(super) struct Spot {
    /// Its full path as the file spells it.
    shown: String,
    /// The key alone as the file spells it.
    name: String,
    /// The table that it stands in, as a header.
    header: Option<String>,
    /// What it should hold, as TOML.
    example: Option<&'static str>,
    /// Where the key is.
    pub(super) key: Range<usize>,
    /// Where its value is.
    value: Range<usize>,
}

impl Spots {
    /// Returns where a key stands, if the file has it.
    pub(super) fn get(&self, path: &str) -> Option<&Spot> {
        self.known.get(path)
    }

    /// Returns what was probably meant for a key or table that the file does not have.
    pub(super) fn meant(&self, path: &str) -> Option<&Misspelt> {
        self.meant.get(path)
    }

    /// Returns where the first key of a table stands.
    pub(super) fn first_below(&self, table: &str) -> Option<usize> {
        self.known
            .iter()
            .filter(|(path, _)| {
                path.strip_prefix(table)
                    .is_some_and(|rest| rest.starts_with('.'))
            })
            .map(|(_, spot)| spot.key.start)
            .min()
    }

    /// Returns the innermost key whose value holds the offset.
    fn around(&self, offset: usize) -> Option<&Spot> {
        self.known
            .values()
            .filter(|spot| {
                spot.value.start <= offset && offset < spot.value.end.max(spot.value.start + 1)
            })
            .min_by_key(|spot| spot.value.len())
    }

    /// Returns the error for a value that serde refused.
    pub(super) fn refused(&self, place: Place<'_>, error: &toml::de::Error) -> Error {
        let offset = error.span().map_or(0, |span| span.start);
        let Some(spot) = self.around(offset) else {
            return place.error(offset, error.message());
        };
        spot.error_at(place, offset, error.message())
    }
}

impl Spot {
    /// Returns an error about this key's value whose remedy is elsewhere.
    pub(super) fn plain_error(&self, place: Place<'_>, message: &str) -> Error {
        place.error(self.value.start, &format!("{}: {message}", self.shown))
    }

    /// Returns an error about the key itself, with another one as an example where there is one.
    pub(super) fn error_at_key(
        &self,
        place: Place<'_>,
        message: &str,
        better: Option<&str>,
    ) -> Error {
        let error = place.error(self.key.start, &format!("{}: {message}", self.shown));
        match (better, self.example, &self.header) {
            (Some(name), Some(example), Some(header)) => {
                error.hint(format!("For example, under {header}: {name} = {example}"))
            }
            _ => error,
        }
    }

    /// Returns an error about this key's value, with an example of a right one.
    pub(super) fn error(&self, place: Place<'_>, message: &str) -> Error {
        self.error_at(place, self.value.start, message)
    }

    fn error_at(&self, place: Place<'_>, offset: usize, message: &str) -> Error {
        let error = place.error(offset, &format!("{}: {message}", self.shown));
        match (self.example, &self.header) {
            (None, _) => error,
            (Some(example), None) => error.hint(format!("For example: {} = {example}", self.name)),
            (Some(example), Some(header)) => error.hint(format!(
                "For example, under {header}: {} = {example}",
                self.name
            )),
        }
    }
}

/// Puts a parsed file straight.
pub(super) fn read<'i>(root: DeTable<'i>, place: Place<'_>) -> Result<Tree<'i>> {
    let mut reader = Reader {
        place,
        spots: Spots::default(),
        warnings: Vec::new(),
        style: Style::GoDriver,
    };
    let at = At {
        path: String::new(),
        shown: String::new(),
        header: None,
        in_profile: false,
    };
    let mut table = reader.table(root, ROOT, &at)?;
    reader.rivals()?;
    if reader.style == Style::GoDriver {
        drop_empty(&mut table);
    }
    // The parser hands keys over in the order of the alphabet; people read from the top.
    reader.warnings.sort_by_key(|(offset, _)| *offset);
    Ok(Tree {
        table,
        spots: reader.spots,
        warnings: reader.warnings.into_iter().map(|(_, w)| w).collect(),
        style: reader.style,
    })
}

/// The table at hand.
struct At {
    path: String,
    shown: String,
    header: Option<String>,
    in_profile: bool,
}

impl At {
    fn path_to(&self, name: &str) -> String {
        join(&self.path, name)
    }

    fn shown_to(&self, name: &str) -> String {
        join(&self.shown, name)
    }
}

fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

struct Reader<'a> {
    place: Place<'a>,
    spots: Spots,
    warnings: Vec<(usize, String)>,
    style: Style,
}

impl Reader<'_> {
    fn table<'i>(
        &mut self,
        table: DeTable<'i>,
        keys: &'static [Key],
        at: &At,
    ) -> Result<DeTable<'i>> {
        let mut out = DeTable::new();
        for (name, value) in table {
            let written = show_key(name.get_ref());
            let lower = name.get_ref().to_lowercase();
            let Some(key) = keys.iter().find(|key| key.is(&lower)) else {
                self.unknown(name.span(), &written, &lower, keys, at)?;
                continue;
            };
            if !key.is_go(&lower) {
                self.style = Style::New;
            }
            let path = at.path_to(key.name);
            let spot = Spot {
                shown: at.shown_to(&written),
                name: written,
                header: at.header.clone(),
                example: match key.holds {
                    Holds::Value(example) => Some(example),
                    _ => None,
                },
                key: name.span(),
                value: value.span(),
            };
            if let Some(other) = self.spots.get(&path) {
                return Err(self.twice(other, &spot));
            }
            let value = self.value(value, key, &spot, &path, at.in_profile)?;
            self.spots.known.insert(path, spot);
            out.insert(
                Spanned::new(name.span(), DeString::Borrowed(key.name)),
                value,
            );
        }
        Ok(out)
    }

    fn value<'i>(
        &mut self,
        value: Spanned<DeValue<'i>>,
        key: &'static Key,
        spot: &Spot,
        path: &str,
        in_profile: bool,
    ) -> Result<Spanned<DeValue<'i>>> {
        let span = value.span();
        let at = |path: String, shown: String, header: String, in_profile| At {
            path,
            shown,
            header: Some(header),
            in_profile,
        };
        let value = match (&key.holds, value.into_inner()) {
            (Holds::Value(_), value) => value,
            (Holds::Free(_, example), DeValue::Table(table)) => {
                self.free(&table, example, spot, path);
                DeValue::Table(table)
            }
            (Holds::Table(keys), DeValue::Table(table)) => {
                let header = header(&spot.shown);
                let at = at(path.to_owned(), spot.shown.clone(), header, in_profile);
                DeValue::Table(self.table(table, keys, &at)?)
            }
            (Holds::Tables(keys), DeValue::Array(array)) => {
                let mut out = DeArray::new();
                for (i, item) in array.into_iter().enumerate() {
                    let span = item.span();
                    let DeValue::Table(table) = item.into_inner() else {
                        return Err(self.not_a_table(span.start, key, spot, "something else"));
                    };
                    let header = format!("[[{}]]", spot.name);
                    let at = at(
                        format!("{path}[{i}]"),
                        format!("{}[{i}]", spot.shown),
                        header,
                        true,
                    );
                    let table = DeValue::Table(self.table(table, keys, &at)?);
                    out.push(Spanned::new(span, table));
                }
                DeValue::Array(out)
            }
            (_, other) => {
                return Err(self.not_a_table(span.start, key, spot, &article(other.type_str())));
            }
        };
        Ok(Spanned::new(span, value))
    }

    /// Keeps the places of keys that are the administrator's own; they stay as they are written.
    fn free(&mut self, table: &DeTable<'_>, example: &'static str, spot: &Spot, path: &str) {
        for (name, value) in table {
            let written = show_key(name.get_ref());
            let spot = Spot {
                shown: join(&spot.shown, &written),
                name: written,
                header: Some(header(&spot.shown)),
                example: Some(example),
                key: name.span(),
                value: value.span(),
            };
            self.spots.known.insert(join(path, name.get_ref()), spot);
        }
    }

    fn not_a_table(&self, offset: usize, key: &Key, spot: &Spot, found: &str) -> Error {
        let (wanted, header) = match key.holds {
            Holds::Tables(_) => ("a list of tables", format!("[[{}]]", spot.name)),
            _ => ("a table", format!("[{}]", spot.name)),
        };
        self.place
            .error(
                offset,
                &format!("{}: expected {wanted}, found {found}", spot.shown),
            )
            .hint(format!(
                "Write {header} on a line of its own and the keys below it."
            ))
    }

    /// Warns about a key that nobody knows, or refuses one that would open something; in a profile, a known key that holds for
    /// all jobs is an error.
    fn unknown(
        &mut self,
        span: Range<usize>,
        written: &str,
        lower: &str,
        keys: &'static [Key],
        at: &At,
    ) -> Result<()> {
        let shown = at.shown_to(written);
        let in_profile_itself = at.in_profile && at.path.ends_with(']');
        let for_all = |key: &&Key| key.is(lower) && !key.in_profile;
        if in_profile_itself && let Some(key) = ROOT.iter().find(for_all) {
            let message = format!("{shown}: no profile can set this, it holds for every job");
            let what = match key.holds {
                Holds::Value(_) => written.to_owned(),
                _ => format!("[{written}]"),
            };
            return Err(self
                .place
                .error(span.start, &message)
                .hint(format!("Put {what} above the first [[profile]].")));
        }
        let suggested = suggestion(written, lower, keys, at);
        if let Some(remedy) = opens_when_ignored(at, suggested.as_ref().map(|(_, path)| &**path)) {
            let advice = suggested.map_or_else(String::new, |(advice, _)| format!("; {advice}"));
            let message = format!("{shown}: there is no such key{advice}");
            return Err(self.place.error(span.start, &message).hint(remedy));
        }
        let line = self.place.line(span.start);
        let path = self.place.path.display();
        let mut warning = format!("{path}:{line}: unknown key {shown} is ignored");
        if let Some((advice, meant)) = suggested {
            warning = format!("{warning}; {advice}");
            let key = span.start;
            self.spots
                .meant
                .insert(meant, Misspelt { shown, advice, key });
        }
        self.warnings.push((span.start, warning));
        Ok(())
    }

    fn twice(&self, one: &Spot, other: &Spot) -> Error {
        let (first, second) = if one.key.start < other.key.start {
            (one, other)
        } else {
            (other, one)
        };
        let line = self.place.line(first.key.start);
        let message = format!(
            "{}: the same is set in line {line} as {}",
            second.shown, first.shown
        );
        self.place.error(second.key.start, &message).hint(format!(
            "Keep one of the two lines, {line} or {}.",
            self.place.line(second.key.start)
        ))
    }

    /// Refuses two keys of different names that set the same thing.
    fn rivals(&self) -> Result<()> {
        let profiles = self
            .spots
            .known
            .keys()
            .filter_map(|path| path.find("].").map(|end| &path[..end + 2]));
        for prefix in std::iter::once("").chain(profiles) {
            for (a, b) in RIVALS {
                let found = (
                    self.spots.get(&format!("{prefix}{a}")),
                    self.spots.get(&format!("{prefix}{b}")),
                );
                if let (Some(a), Some(b)) = found {
                    return Err(self.twice(a, b));
                }
            }
        }
        Ok(())
    }
}

/// Returns the header that a table stands under: a profile's tables are named without its number.
fn header(shown: &str) -> String {
    match shown.split_once('[').zip(shown.split_once(']')) {
        Some(((before, _), (_, after))) => format!("[{before}{after}]"),
        None => format!("[{shown}]"),
    }
}

/// Returns what to do about an unknown key that is not safely ignored: it narrows something, which would be wider without.
fn opens_when_ignored(at: &At, meant: Option<&str>) -> Option<&'static str> {
    if at.path.ends_with(".match") {
        return Some(
            "Ignored, it would let the profile hold for more jobs than meant: correct the name, or take it out.",
        );
    }
    let meant = meant?.rsplit('.').next()?;
    (meant == "limits").then_some(
        "Ignored, jobs might choose what it was to forbid: correct the name, or take it out.",
    )
}

/// Says what an unknown key probably meant, another name here or the same in another table, and where that would stand.
fn suggestion(
    written: &str,
    lower: &str,
    keys: &'static [Key],
    at: &At,
) -> Option<(String, String)> {
    // Who writes CamelCase has a Go-driver file and is best served with that driver's names.
    let camel = written.contains(char::is_uppercase);
    let shown = |key: &Key| match key.go {
        Some(go) if camel || key.only_go() => go,
        _ => key.name,
    };
    if let Some(name) = closest(lower, keys.iter().map(shown)) {
        let key = keys.iter().find(|key| shown(key) == name)?;
        return Some((format!("did you mean {name}?"), at.path_to(key.name)));
    }
    if at.in_profile {
        return None;
    }
    if at.header.is_some()
        && let Some(key) = ROOT.iter().find(|key| key.is(lower))
    {
        let advice = "it belongs at the top of the file, above the first [table]";
        return Some((advice.to_owned(), key.name.to_owned()));
    }
    let tables = ROOT
        .iter()
        .filter(|table| matches!(table.holds, Holds::Table(_)));
    let (table, key) = tables
        .filter_map(|table| Some((table, table.children().iter().find(|key| key.is(lower))?)))
        .next()?;
    let name = table.go.filter(|_| camel).unwrap_or(table.name);
    Some((
        format!("did you mean {written} under [{name}]?"),
        join(table.name, key.name),
    ))
}

/// Takes out empty strings: to the Go driver, empty is as good as absent.
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

/// Returns a key as it can be shown on a line, quoted where TOML would want quotes.
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
