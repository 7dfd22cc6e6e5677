//! Where links lead.

use super::Pages;
use super::markdown::Page;

/// Where the packages put what they document, as it lies in the repository.
const DOC: &str = "usr/share/doc/gitlab-aws-driver/";

/// What pages that are shipped may link to and packages leave out: it is for those who work on the driver.
const NOT_SHIPPED: [&str; 4] = ["CONTRIBUTING.md", "packaging/", "src/", "tests/"];

/// Returns the path that a link of a page means, from the top of the repository; `None` where it leaves it.
pub(super) fn resolve(page: &str, link: &str) -> Option<String> {
    if link.is_empty() {
        return Some(page.to_owned());
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Returns links to files or anchors that are not there.
pub(super) fn broken(pages: &Pages, there: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut finds = Vec::new();
    for page in pages.values() {
        for link in page.links() {
            let at = format!("{}:{}", page.path, link.line);
            let Some(path) = resolve(&page.path, &link.path)
                .filter(|path| pages.contains_key(path) || there(path))
            else {
                finds.push(format!("{at}: there is no {}", link.path));
                continue;
            };
            let Some(anchor) = link.anchor else { continue };
            if !pages
                .get(&path)
                .is_some_and(|page| page.has_anchor(&anchor))
            {
                finds.push(format!("{at}: {path} has no anchor #{anchor}"));
            }
        }
    }
    finds
}

/// What the packages ship of the repository's pages and files, read from the Debian package's list.
pub(super) struct Shipped(Vec<String>);

impl Shipped {
    pub(super) fn read(manifest: &str) -> Self {
        let manifest: toml::Table = manifest.parse().unwrap();
        let assets = manifest["package"]["metadata"]["deb"]["assets"]
            .as_array()
            .unwrap();
        let pairs = assets
            .iter()
            .map(|asset| (asset[0].as_str().unwrap(), asset[1].as_str().unwrap()));
        let documents = pairs.filter(|(_, to)| to.starts_with(DOC));
        Self(documents.map(|(from, _)| from.to_owned()).collect())
    }

    /// Whether the package has that file, or something in that directory.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.split_once('*') {
            None => pattern == path,
            Some((before, after)) => {
                let deep = after.starts_with("*/");
                let end = after.trim_start_matches(['*', '/']);
                let folder = before.trim_end_matches('/');
                let rest = path.strip_prefix(before);
                path == folder
                    || rest.is_some_and(|rest| rest.ends_with(end) && (deep || !rest.contains('/')))
            }
        })
    }
}

/// Returns links of shipped pages to what is not shipped.
pub(super) fn unshipped(pages: &Pages, shipped: &Shipped) -> Vec<String> {
    let mut finds = Vec::new();
    for page in pages.values().filter(|page| shipped.has(&page.path)) {
        for link in page.links() {
            // A link out of the repository is broken, which another rule says.
            let Some(path) = resolve(&page.path, &link.path) else {
                continue;
            };
            let known = NOT_SHIPPED
                .iter()
                .any(|left_out| path.starts_with(left_out));
            if !known && !shipped.has(&path) {
                finds.push(format!("{}:{}: {path}", page.path, link.line));
            }
        }
    }
    finds
}

/// Returns pages of `docs/` that the index does not link to.
pub(super) fn unlisted(pages: &Pages) -> Vec<String> {
    const INDEX: &str = "docs/README.md";
    let Some(index) = pages.get(INDEX) else {
        return vec![format!("there is no {INDEX}")];
    };
    let listed: Vec<String> = index
        .links()
        .iter()
        .filter_map(|link| resolve(INDEX, &link.path))
        .collect();
    let all = pages
        .keys()
        .filter(|path| path.starts_with("docs/") && *path != INDEX);
    all.filter(|path| !listed.contains(path)).cloned().collect()
}

/// Returns headings that a page's own contents do not link to.
pub(super) fn uncontained(page: &Page) -> Vec<String> {
    let links = page.links();
    let mut headings = page.headings.iter();
    let contents = headings
        .by_ref()
        .find(|heading| heading.anchor == "contents");
    assert!(contents.is_some(), "{} has no contents", page.path);
    let linked = |anchor: &str| {
        links
            .iter()
            .any(|link| link.path.is_empty() && link.anchor.as_deref() == Some(anchor))
    };
    headings
        .filter(|heading| !linked(&heading.anchor))
        .map(|heading| format!("{}:{}: {}", page.path, heading.line, heading.text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::seeded;
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let pages = seeded(&[
            (
                "README.md",
                "# A\n\n[a](docs/b.md#c) [a](docs/b.md#no)\n[a](no.md) [a](#a) [a](../x) [a](src)\n",
            ),
            (
                "docs/b.md",
                "## C\n\n[up](../README.md#a)\n[no](../README.md#b) [a](../src#a)\n",
            ),
        ]);
        let finds = broken(&pages, &|path| path == "src");
        assert_eq!(
            finds,
            [
                "README.md:3: docs/b.md has no anchor #no",
                "README.md:4: there is no no.md",
                "README.md:4: there is no ../x",
                "docs/b.md:4: README.md has no anchor #b",
                "docs/b.md:4: src has no anchor #a",
            ]
        );
    }

    #[test]
    fn a_link_out_of_the_packages_is_found() {
        let manifest = "[package.metadata.deb]\nassets = [[\"README.md\", \"usr/share/doc/gitlab-aws-driver/\", \"644\"],\
                        [\"docs/*.md\", \"usr/share/doc/gitlab-aws-driver/docs/\", \"644\"],\
                        [\"e/**/*\", \"usr/share/doc/gitlab-aws-driver/e/\", \"644\"], [\"bin\", \"usr/bin/\", \"755\"]]\n";
        let shipped = Shipped::read(manifest);
        let pages = seeded(&[
            (
                "README.md",
                "[a](docs/b.md) [a](e) [a](e/f/g.json) [a](bin)\n[a](SECURITY.md) [a](CONTRIBUTING.md)\n",
            ),
            (
                "docs/b.md",
                "[a](../README.md) [a](../src/x.rs) [a](../packaging/y) [a](../fuzz/x) [a](d/e.md) [a](x.svg)\n",
            ),
            ("packaging/README.md", "[a](build)\n"),
        ]);
        assert_eq!(
            unshipped(&pages, &shipped),
            [
                "README.md:1: bin",
                "README.md:2: SECURITY.md",
                "docs/b.md:1: fuzz/x",
                "docs/b.md:1: docs/d/e.md",
                "docs/b.md:1: docs/x.svg",
            ]
        );
    }

    #[test]
    fn a_page_that_the_index_lacks_is_found() {
        let index = ("docs/README.md", "[a](a.md) [r](../README.md)\n");
        let pages = seeded(&[
            index,
            ("docs/a.md", ""),
            ("docs/b.md", ""),
            ("README.md", ""),
        ]);
        assert_eq!(unlisted(&pages), ["docs/b.md"]);
        assert_eq!(unlisted(&seeded(&[("docs/a.md", "")])).len(), 1);
    }

    #[test]
    fn a_heading_that_the_contents_lack_is_found() {
        let text = "# A\n\n## Contents\n\n- [B](#b)\n\n## B\n\n### C d\n";
        assert_eq!(uncontained(&Page::new("x.md", text)), ["x.md:9: C d"]);
    }
}
