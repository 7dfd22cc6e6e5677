//! Anchors that people may have linked to: those of a release resolve, or are listed as moved.

use std::collections::{BTreeMap, BTreeSet};

use super::Pages;

/// The pages of release 0.1.0, and their anchors.
pub(super) const OF_0_1_0: &str = include_str!("anchors-0.1.0.txt");

/// Where to look for what has moved: lines of `old -> new`.
pub(super) const MOVED: &str = "docs/moved-anchors.txt";

/// Returns anchors that resolve no more and are not listed as moved to one that does, and lines of the list that are wrong.
pub(super) fn lost(pages: &Pages, old: &str, moved: &str) -> Vec<String> {
    let resolves = |place: &str| match place.split_once('#') {
        Some((page, anchor)) => pages.get(page).is_some_and(|page| page.has_anchor(anchor)),
        None => pages.contains_key(place),
    };
    let old: BTreeSet<&str> = lines(old).collect();
    let mut finds = Vec::new();
    let mut to = BTreeMap::new();
    for line in lines(moved) {
        let Some((from, target)) = line.split_once(" -> ") else {
            finds.push(format!("{MOVED}: not a line of OLD -> NEW: {line}"));
            continue;
        };
        if !old.contains(from) {
            finds.push(format!("{MOVED}: release 0.1.0 has no {from}"));
        } else if resolves(from) {
            finds.push(format!("{MOVED}: {from} is still there"));
        }
        if !resolves(target) {
            finds.push(format!("{MOVED}: there is no {target}"));
        }
        to.insert(from, target);
    }
    let lost = old
        .into_iter()
        .filter(|place| !resolves(place) && !to.contains_key(place));
    finds.extend(lost.map(|place| format!("{MOVED}: {place} is gone, and not listed")));
    finds
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
}

#[cfg(test)]
mod tests {
    use super::super::seeded;
    use super::*;

    #[test]
    fn an_anchor_that_is_lost_is_found() {
        let pages = seeded(&[("docs/a.md", "# A\n\n## New\n")]);
        let old = "docs/a.md\ndocs/a.md#a\ndocs/a.md#old\ndocs/a.md#gone\ndocs/b.md\ndocs/b.md#b\n";
        let moved = "# Comment.\n\ndocs/a.md#old -> docs/a.md#new\ndocs/b.md -> docs/a.md\ndocs/b.md#b -> docs/a.md#b\n";
        assert_eq!(
            lost(&pages, old, moved),
            [
                "docs/moved-anchors.txt: there is no docs/a.md#b",
                "docs/moved-anchors.txt: docs/a.md#gone is gone, and not listed",
            ]
        );
        let wrong = "docs/a.md#a -> docs/a.md#new\ndocs/c.md -> docs/a.md\nwords\n";
        assert_eq!(lost(&pages, "docs/a.md#a\n", wrong).len(), 3);
    }
}
