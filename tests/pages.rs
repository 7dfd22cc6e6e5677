//! The pages: where their links lead, what they tell people to type, how they are written, and that the page of messages has
//! every message.
//!
//! Each rule takes pages and returns what is wrong with them, as `file:line: what`. Its own tests seed it with what it has to find.

mod anchors;
mod commands;
mod links;
mod markdown;
mod messages;
mod sources;
mod style;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use markdown::Page;

/// The page of messages.
const MESSAGES: &str = "docs/troubleshooting.md";

/// All pages that people read, by their path.
type Pages = BTreeMap<String, Page>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Reads the pages of the repository.
fn pages() -> Pages {
    let root = root();
    let mut paths = Vec::new();
    for folder in [
        "",
        "docs",
        "packaging",
        "config-examples",
        "config-examples/image",
        "tests/lab",
    ] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_page = Path::new(&name).extension().is_some_and(|end| end == "md");
            // A program writes that one.
            if is_page && name != "THIRD-PARTY.md" {
                paths.push(Path::new(folder).join(name).to_str().unwrap().to_owned());
            }
        }
    }
    let read = |path: String| {
        let text = std::fs::read_to_string(root.join(&path)).unwrap();
        (path.clone(), Page::new(&path, &text))
    };
    paths.into_iter().map(read).collect()
}

/// Returns pages of these paths and texts, for the rules' own tests.
#[cfg(test)]
fn seeded(texts: &[(&str, &str)]) -> Pages {
    let page = |(path, text): &(&str, &str)| ((*path).to_owned(), Page::new(path, text));
    texts.iter().map(page).collect()
}

#[track_caller]
fn assert_none(rule: &str, finds: &[String]) {
    assert!(finds.is_empty(), "{rule}:\n  {}", finds.join("\n  "));
}

#[test]
fn every_page_is_looked_at() {
    let pages = pages();
    for path in [
        "README.md",
        "CONTRIBUTING.md",
        "packaging/README.md",
        "config-examples/README.md",
        MESSAGES,
    ] {
        assert!(pages.contains_key(path), "{path}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let there = |path: &str| root().join(path).exists();
    assert_none("a link leads nowhere", &links::broken(&pages(), &there));
}

#[test]
fn what_the_packages_ship_links_to_what_they_ship() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let shipped = links::Shipped::read(&manifest);
    assert!(shipped.has("README.md") && shipped.has(MESSAGES));
    assert_none(
        "a package lacks what its pages link to",
        &links::unshipped(&pages(), &shipped),
    );
}

#[test]
fn every_page_of_docs_is_in_the_index() {
    assert_none("docs/README.md lacks a page", &links::unlisted(&pages()));
}

#[test]
fn every_anchor_of_0_1_0_resolves_or_is_listed_as_moved() {
    let moved = std::fs::read_to_string(root().join(anchors::MOVED)).unwrap();
    let finds = anchors::lost(&pages(), anchors::OF_0_1_0, &moved);
    assert_none("an anchor is lost", &finds);
}

#[test]
fn the_contents_of_the_page_of_messages_are_whole() {
    assert_none(
        "the contents lack a heading",
        &links::uncontained(&pages()[MESSAGES]),
    );
}

#[test]
fn every_message_is_on_the_page_of_messages() {
    let (finds, all) =
        messages::unexplained(&sources::read(&root().join("src")), &pages()[MESSAGES]);
    // Fewer would mean that the sources are not read as they are written any more.
    assert!(all > 400, "{all} messages");
    assert_none("a message is not on the page", &finds);
}

#[test]
fn the_pages_are_written_plainly() {
    assert_none("a pattern to lose", &style::finds(&pages()));
}

#[test]
fn every_command_of_the_pages_is_one() {
    let program = commands::Program::new();
    let (finds, all) = commands::unknown(&pages(), &program);
    assert!(all > 10, "{all} commands");
    assert_none("a command that the driver does not know", &finds);
}

#[test]
fn every_whole_file_of_the_pages_is_right() {
    let (finds, all) = commands::refused_files(&pages());
    assert!(all > 2, "{all} files");
    assert_none("a file that `check` refuses", &finds);
}
