//! `tests/lab/README.md`, what the lab does not show: each line has a name of its own and says all that it has to, and what
//! it names of the code is there, so that a rename changes the page too.

use std::collections::BTreeSet;
use std::path::Path;

use crate::lab;

const PAGE: &str = "tests/lab/README.md";
/// The name, what the lab does, what AWS does, what depends on it, how to check.
const CELLS: usize = 5;
/// The places in the repository that the page names.
const PLACES: [&str; 3] = ["src/", "tests/", "config-examples/"];

#[test]
fn every_line_is_whole_and_names_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join(PAGE)).unwrap();
    assert!(rows(&page).len() > 100, "the tables are not read");
    let finds = [odd_rows(&page), absent(root, &page)].concat();
    assert!(finds.is_empty(), "{PAGE}:\n  {}", finds.join("\n  "));
}

/// Returns the lines of the tables by service, which have no word above their names, with their numbers and cells.
fn rows(page: &str) -> Vec<(usize, Vec<&str>)> {
    let mut in_table = false;
    let mut found = Vec::new();
    for (number, line) in page.lines().enumerate() {
        if !line.starts_with('|') {
            in_table = false;
        } else if line.starts_with("| | ") {
            in_table = true;
        } else if in_table && !line.starts_with("|---") {
            let inner = line.trim_start_matches('|').trim_end_matches('|');
            let cells = inner.split(" | ").map(str::trim).collect();
            found.push((number + 1, cells));
        }
    }
    found
}

/// Returns lines without a name of their own, or with an empty cell.
fn odd_rows(page: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut finds = Vec::new();
    for (number, cells) in rows(page) {
        let name = cells[0].trim_end_matches("*first*").trim();
        let is_name = name.split_once('-').is_some_and(|(service, count)| {
            !service.is_empty()
                && service.bytes().all(|b| b.is_ascii_alphanumeric())
                && count.parse::<u16>().is_ok()
        });
        if !is_name {
            finds.push(format!("{number}: {name:?} is not a name like ecs-1"));
        } else if !names.insert(name) {
            finds.push(format!("{number}: there is another {name}"));
        }
        if cells.len() != CELLS || cells.iter().any(|cell| cell.is_empty()) {
            finds.push(format!("{number}: {name} has not {CELLS} cells with words"));
        }
    }
    finds
}

/// Returns what the page names of the code and is not there: files, and names in brackets behind a file.
fn absent(root: &Path, page: &str) -> Vec<String> {
    let mut finds = Vec::new();
    for (number, line) in page.lines().enumerate() {
        // Code and what is between it, in turn.
        let parts: Vec<&str> = line.split('`').collect();
        let mut at = 1;
        while at < parts.len() {
            let place = parts[at];
            at += 2;
            if !PLACES.iter().any(|begin| place.starts_with(begin)) {
                continue;
            }
            let path = root.join(place);
            if !path.exists() {
                finds.push(format!("{}: there is no {place}", number + 1));
                continue;
            }
            let mut between = parts[at - 1].strip_prefix(" (");
            while let Some(text) = between
                && !text.contains(')')
                && let Some(name) = parts.get(at)
            {
                if is_name(name) && !has_word(&path, name) {
                    finds.push(format!("{}: {place} has no {name}", number + 1));
                }
                between = parts.get(at + 1).copied();
                at += 2;
            }
        }
    }
    finds
}

fn is_name(text: &str) -> bool {
    text.len() > 2 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Tells whether a file, or any below a directory, has the word.
fn has_word(path: &Path, word: &str) -> bool {
    if path.is_dir() {
        let mut entries = std::fs::read_dir(path).unwrap();
        return entries.any(|entry| has_word(&entry.unwrap().path(), word));
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|part| part == word)
}

#[test]
fn lines_that_are_not_whole_are_found() {
    let page = "# A\n\n| a | b |\n|---|---|\n| other | table |\n\n| | lab | AWS | x | y |\n|---|---|---|---|---|\n\
                | ecs-1 *first* | a | b | c | d |\n| ecs-2 | a | b | c | d |\n| ecs-1 | a | b | c | d |\n\
                | ecs | a | b | c | d |\n| ecs-3 | a | b | c |\n| ecs-4 | a |  | c | d |\n";
    let lines: Vec<String> = odd_rows(page)
        .iter()
        .map(|find| find.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["11", "12", "13", "14"]);
}

#[test]
fn names_that_the_code_does_not_have_are_found() {
    let folder = lab::temp_dir();
    let root = folder.path();
    std::fs::create_dir_all(root.join("src/a")).unwrap();
    std::fs::write(root.join("src/a/b.rs"), "const LIMIT: u8 = 1; // lag_of\n").unwrap();
    let page = "`src/a/b.rs` (`LIMIT`, `lag_of` and more), `src/a/b.rs` (words), `src/a/` (`LIMIT`), `ON_ITS_OWN`\n\
                `src/a/b.rs` (`LIMITS`), `src/a/c.rs` (`LIMIT`)\n\
                `src/a/b.rs` (`LIMIT`, `lag`), `src/a/` (`nothing`) `tests/x`\n";
    assert_eq!(
        absent(root, page),
        [
            "2: src/a/b.rs has no LIMITS",
            "2: there is no src/a/c.rs",
            "3: src/a/b.rs has no lag",
            "3: src/a/ has no nothing",
            "3: there is no tests/x",
        ]
    );
}
