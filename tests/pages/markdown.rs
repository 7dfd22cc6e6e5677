//! What the rules need to know of a page: its code, its headings, its links, and its prose without them.

use std::collections::BTreeMap;

/// A page as it is in the repository.
pub(super) struct Page {
    /// Its path from the top of the repository.
    pub(super) path: String,
    /// The text with all code blocks blanked out; line numbers and offsets stay.
    unblocked: Vec<char>,
    /// The text with inline code blanked out as well.
    plain: Vec<char>,
    /// Where lines end.
    ends: Vec<usize>,
    /// The code blocks.
    pub(super) blocks: Vec<Block>,
    /// The code within lines.
    pub(super) spans: Vec<Span>,
    /// The headings.
    pub(super) headings: Vec<Heading>,
}

/// A code block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The number of its first line of code.
    pub(super) line: usize,
    /// What the fence says of it; indented blocks have no fence.
    pub(super) language: String,
    pub(super) text: String,
}

/// Code within a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) line: usize,
    pub(super) text: String,
}

/// A heading.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) line: usize,
    pub(super) level: usize,
    /// As it is written, with backticks.
    pub(super) text: String,
    pub(super) anchor: String,
}

/// A link that is not to another site.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) line: usize,
    /// Without the anchor; empty for the page itself.
    pub(super) path: String,
    pub(super) anchor: Option<String>,
}

impl Page {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            unblocked: Vec::new(),
            plain: Vec::new(),
            ends: Vec::new(),
            blocks: Vec::new(),
            spans: Vec::new(),
            headings: Vec::new(),
        };
        page.take_blocks(text);
        let chars = page.unblocked.iter().enumerate();
        page.ends = chars
            .filter(|(_, c)| **c == '\n')
            .map(|(at, _)| at)
            .collect();
        page.take_spans();
        page.take_headings();
        page
    }

    fn take_blocks(&mut self, text: &str) {
        let mut fence: Option<String> = None;
        let mut indented = false;
        // Where the text of the list item begins that this line may belong to.
        let mut item = 0;
        let mut after_blank = true;
        for (number, line) in text.lines().enumerate() {
            let body = line.trim_start();
            let indent = line.len() - body.len();
            let is_code = if let Some(end) = &fence {
                if body.starts_with(end.as_str())
                    && body.trim_end_matches(['`', '~', ' ']).is_empty()
                {
                    fence = None;
                } else {
                    let block = self.blocks.last_mut().unwrap();
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                true
            } else if let Some(mark) = ["```", "~~~"].into_iter().find(|m| body.starts_with(m)) {
                let length = body.len() - body.trim_start_matches(&mark[..1]).len();
                fence = Some(mark[..1].repeat(length));
                self.blocks.push(Block {
                    line: number + 2,
                    language: body[length..].trim().to_owned(),
                    text: String::new(),
                });
                true
            } else if body.is_empty() {
                if indented {
                    self.blocks.last_mut().unwrap().text.push('\n');
                }
                false
            } else if (after_blank || indented) && indent >= item + 4 {
                if !indented {
                    self.blocks.push(Block {
                        line: number + 1,
                        language: String::new(),
                        text: String::new(),
                    });
                }
                let block = self.blocks.last_mut().unwrap();
                block.text.push_str(&line[item + 4..]);
                block.text.push('\n');
                indented = true;
                true
            } else {
                indented = false;
                match marker(body) {
                    Some(width) => item = indent + width,
                    None if indent < item && after_blank => item = 0,
                    None => {}
                }
                false
            };
            after_blank = body.is_empty();
            let blank = line.chars().map(|_| ' ');
            match is_code {
                true => self.unblocked.extend(blank),
                false => self.unblocked.extend(line.chars()),
            }
            self.unblocked.push('\n');
        }
    }

    fn take_spans(&mut self) {
        let text = &self.unblocked;
        let mut plain = text.clone();
        let mut at = 0;
        while at < text.len() {
            let run = run(text, at);
            if run == 0 {
                at += 1;
                continue;
            }
            let from = at + run;
            at = from;
            if let Some(to) = closing(text, from, run) {
                let inner: String = text[from..to].iter().collect();
                self.spans.push(Span {
                    line: self.line_at(from),
                    text: inner.split_whitespace().collect::<Vec<_>>().join(" "),
                });
                for c in &mut plain[from - run..to + run] {
                    if *c != '\n' {
                        *c = ' ';
                    }
                }
                at = to + run;
            }
        }
        self.plain = plain;
    }

    /// Returns the text without code and without the targets of links: what people read as sentences.
    pub(super) fn prose(&self) -> String {
        let mut prose = self.plain.clone();
        for (from, to) in targets(&self.plain) {
            prose[from..to].fill(' ');
        }
        prose.into_iter().collect()
    }

    /// Returns the number of the line at that offset of the [prose](Self::prose), in characters.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }

    fn take_headings(&mut self) {
        let text: String = self.unblocked.iter().collect();
        let mut seen = BTreeMap::<String, usize>::new();
        for (number, line) in text.lines().enumerate() {
            let level = line.len() - line.trim_start_matches('#').len();
            let Some(title) = line[level..].strip_prefix(' ') else {
                continue;
            };
            if !(1..=6).contains(&level) {
                continue;
            }
            let title = title.trim().trim_end_matches('#').trim_end();
            let mut anchor = anchor_of(&without_targets(title));
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            if *times > 1 {
                anchor = format!("{anchor}-{}", *times - 1);
            }
            self.headings.push(Heading {
                line: number + 1,
                level,
                text: title.to_owned(),
                anchor,
            });
        }
    }

    pub(super) fn has_anchor(&self, anchor: &str) -> bool {
        let named = [
            format!("<a id=\"{anchor}\""),
            format!("<a name=\"{anchor}\""),
        ];
        let text: String = self.plain.iter().collect();
        self.headings.iter().any(|heading| heading.anchor == anchor)
            || named.iter().any(|tag| text.contains(tag))
    }

    pub(super) fn links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for (from, to) in targets(&self.plain) {
            let target: String = self.plain[from..to].iter().collect();
            // A title may follow.
            let target = target.split_whitespace().next().unwrap_or_default();
            let target = target.trim_matches(['<', '>']);
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = match target.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor.to_owned())),
                None => (target, None),
            };
            links.push(Link {
                line: self.line_at(from),
                path: path.to_owned(),
                anchor,
            });
        }
        links
    }
}

/// Returns the width of a list item's marker with the blanks behind it.
fn marker(body: &str) -> Option<usize> {
    let digits = body.len() - body.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let rest = &body[digits..];
    let mark = match digits {
        0 => rest.starts_with(['-', '*', '+']),
        _ => rest.starts_with(['.', ')']),
    };
    let blanks = rest.get(1..)?;
    let width = blanks.len() - blanks.trim_start().len();
    (mark && width > 0).then_some(digits + 1 + width)
}

/// Returns how many backticks stand here.
fn run(text: &[char], at: usize) -> usize {
    text[at..].iter().take_while(|c| **c == '`').count()
}

/// Returns where the run of as many backticks begins that closes the code, in the same paragraph.
fn closing(text: &[char], from: usize, length: usize) -> Option<usize> {
    let mut at = from;
    while at < text.len() {
        if text[at] == '\n' && text.get(at + 1) == Some(&'\n') {
            return None;
        }
        match run(text, at) {
            0 => at += 1,
            found if found == length => return Some(at),
            found => at += found,
        }
    }
    None
}

/// Returns where the targets of links and images lie: `](…)`, `[…]: …`, `href="…"` and `src="…"`.
fn targets(text: &[char]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let starts = |at: usize, what: &str| {
        let mut rest = text[at..].iter();
        what.chars().all(|c| rest.next() == Some(&c))
    };
    for at in 0..text.len() {
        let (from, end) = if starts(at, "](") {
            (at + 2, ')')
        } else if starts(at, "]: ")
            && text[..at].iter().rev().find(|c| "[\n".contains(**c)) == Some(&'[')
        {
            let line: Vec<&char> = text[..at]
                .iter()
                .rev()
                .take_while(|c| **c != '\n')
                .collect();
            if line.last() != Some(&&'[') {
                continue;
            }
            (at + 3, '\n')
        } else if starts(at, "href=\"") || starts(at, " src=\"") {
            (at + 6, '"')
        } else {
            continue;
        };
        if let Some(length) = text[from..].iter().position(|c| *c == end) {
            found.push((from, from + length));
        }
    }
    found
}

fn without_targets(title: &str) -> String {
    let chars: Vec<char> = title.chars().collect();
    let mut kept = chars.clone();
    for (from, to) in targets(&chars).into_iter().rev() {
        kept.drain(from..to);
    }
    kept.into_iter().collect()
}

/// Returns the anchor that GitLab gives a heading: it keeps letters, digits, `_` and hyphens, and one hyphen of several.
fn anchor_of(title: &str) -> String {
    let mut anchor = String::new();
    for c in title.trim().to_lowercase().chars() {
        match c {
            ' ' | '-' if anchor.ends_with('-') => {}
            ' ' | '-' => anchor.push('-'),
            c if c.is_alphanumeric() || c == '_' => anchor.push(c),
            _ => {}
        }
    }
    match !anchor.is_empty() && anchor.chars().all(|c| c.is_ascii_digit()) {
        true => format!("anchor-{anchor}"),
        false => anchor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors(text: &str) -> Vec<String> {
        let page = Page::new("docs/x.md", text);
        page.headings.into_iter().map(|h| h.anchor).collect()
    }

    #[test]
    fn anchors_are_gitlabs() {
        let text = "# `check --iam`\n\n## A, B (and C)\n\n## A, B (and C)\n\n### [Jobs](a.md#b) on `[fargate]`\n\n## 2026\n\n    # code\n\n```\n# code\n```\n";
        assert_eq!(
            anchors(text),
            [
                "check-iam",
                "a-b-and-c",
                "a-b-and-c-1",
                "jobs-on-fargate",
                "anchor-2026"
            ]
        );
        assert_eq!(
            anchors("## `[[profile]]`\n## AWS's own_key…\n"),
            ["profile", "awss-own_key"]
        );
    }

    #[test]
    fn code_is_told_from_prose() {
        let text = "Say `a`, `` b `c` `` and\n`d\ne`.\n\n    block one\n\n    more\n\n- item\n  goes on\n\n      in the item\n\n```toml\nx = 1\n```\n\nOne ` alone.\n";
        let page = Page::new("x.md", text);
        let spans: Vec<(usize, &str)> = page
            .spans
            .iter()
            .map(|s| (s.line, s.text.as_str()))
            .collect();
        assert_eq!(spans, [(1, "a"), (1, "b `c`"), (2, "d e")]);
        let blocks: Vec<(usize, &str, &str)> = page
            .blocks
            .iter()
            .map(|b| (b.line, b.language.as_str(), b.text.trim_end()))
            .collect();
        assert_eq!(
            blocks,
            [
                (5, "", "block one\n\nmore"),
                (12, "", "in the item"),
                (15, "toml", "x = 1")
            ]
        );
        let prose = page.prose();
        assert!(prose.contains("goes on") && prose.contains("One ` alone."));
        assert!(
            !prose.contains("block")
                && !prose.contains("x = 1")
                && !prose.contains("item\n\n      in")
        );
    }

    #[test]
    fn links_are_found_with_their_lines() {
        let text = "[a](b.md#c) and [`d`](#e)\n\n[x](https://example.com/)\n![f](g.svg \"h\")\n[r]: h.md\n`[no](no.md)`\n<a href=\"i.md\">i</a>\n";
        let found: Vec<(usize, String, Option<String>)> = Page::new("x.md", text)
            .links()
            .into_iter()
            .map(|link| (link.line, link.path, link.anchor))
            .collect();
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                (1, "b.md".to_owned(), own("c")),
                (1, String::new(), own("e")),
                (4, "g.svg".to_owned(), None),
                (5, "h.md".to_owned(), None),
                (7, "i.md".to_owned(), None),
            ]
        );
    }
}
