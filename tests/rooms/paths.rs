//! The paths in a module's tokens, and where they lead.

use std::collections::BTreeSet;

use super::tokens::{Token, tokens};

/// The library as its own binary names it.
const LIBRARY: &str = "gitlab_aws_driver";

/// One file: where its module is, and what is in it.
#[derive(Debug)]
pub(super) struct Module {
    file: String,
    /// Without `crate`; of `main.rs` its own name.
    pub(super) path: Vec<String>,
    tokens: Vec<Token>,
}

/// From a module to where a path in it leads.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) from: Vec<String>,
    /// Empty: the crate as a whole.
    pub(super) to: Vec<String>,
}

impl Module {
    /// Reads the file of that name below `src/`.
    pub(super) fn read(file: &str, text: &str) -> Self {
        let name = file.strip_suffix(".rs").unwrap();
        let name = name.strip_suffix("/mod").unwrap_or(name);
        let path = match name {
            "lib" => Vec::new(),
            name => name.split('/').map(str::to_owned).collect(),
        };
        Self {
            file: format!("src/{file}"),
            path,
            tokens: tokens(text),
        }
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text == text)
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// Returns the modules whose files hold tests alone.
    pub(super) fn test_modules(&self) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for at in (0..self.tokens.len()).filter(|at| self.is_test_attribute(*at)) {
            let start = self.after_group(at + 1);
            let module = (start..self.after_item(start)).find(|i| self.is(*i, "mod"));
            if let Some(module) = module
                && self.is(module + 2, ";")
            {
                let mut path = self.path.clone();
                path.push(self.text(module + 1).to_owned());
                all.push(path);
            }
        }
        all
    }

    /// Whether an attribute begins here that leaves its item to tests.
    fn is_test_attribute(&self, at: usize) -> bool {
        if !(self.is(at, "#") && self.is(at + 1, "[") && self.is(at + 2, "cfg")) {
            return false;
        }
        let inside = at + 3..self.after_group(at + 1);
        let has = |word: &str| inside.clone().any(|i| self.is(i, word));
        has("test") && !has("not") && !has("any")
    }

    /// Returns what follows a group in brackets that begins at `at`.
    fn after_group(&self, mut at: usize) -> usize {
        let mut depth = 0;
        while at < self.tokens.len() {
            match self.text(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
        at
    }

    /// Returns what follows an item that begins at `at`: its semicolon, or its braces where it is no `use`.
    fn after_item(&self, mut at: usize) -> usize {
        let mut is_use = false;
        while at < self.tokens.len() {
            match self.text(at) {
                ";" => return at + 1,
                "{" => {
                    at = self.after_group(at);
                    if !is_use {
                        return at;
                    }
                    continue;
                }
                "(" | "[" => {
                    at = self.after_group(at);
                    continue;
                }
                "use" => is_use = true,
                _ => {}
            }
            at += 1;
        }
        at
    }
}

/// Returns where all the paths of all modules lead.
pub(super) fn arrows(modules: &[Module]) -> Vec<Arrow> {
    let known: BTreeSet<Vec<String>> = modules.iter().map(|m| m.path.clone()).collect();
    let mut all = Vec::new();
    for module in modules {
        let mut reader = Reader {
            module,
            known: &known,
            within: module.path.clone(),
            arrows: &mut all,
        };
        reader.read(0, module.tokens.len());
    }
    all
}

struct Reader<'a> {
    module: &'a Module,
    known: &'a BTreeSet<Vec<String>>,
    /// The module that is being read, one in the file's own among them.
    within: Vec<String>,
    arrows: &'a mut Vec<Arrow>,
}

impl Reader<'_> {
    fn read(&mut self, mut at: usize, end: usize) {
        let module = self.module;
        while at < end {
            if module.is_test_attribute(at) {
                let mut item = module.after_group(at + 1);
                while module.is(item, "#") {
                    item = module.after_group(item + 1);
                }
                at = module.after_item(item);
            } else if module.is(at, "mod") && module.is(at + 2, "{") {
                let close = module.after_group(at + 2);
                self.within.push(module.text(at + 1).to_owned());
                self.read(at + 3, close - 1);
                self.within.pop();
                at = close;
            } else if module.is(at, "in")
                && at > 1
                && module.is(at - 1, "(")
                && module.is(at - 2, "pub")
            {
                // A visibility: it names no more than who may look in.
                at = module.after_group(at - 1);
            } else if module.is(at, "extern")
                && module.is(at + 1, "crate")
                && module.is(at + 2, "self")
            {
                self.leads(at, Vec::new());
                at += 3;
            } else {
                at = self.path(at);
            }
        }
    }

    /// Reads the path that begins here, if one does, and returns where to go on.
    fn path(&mut self, at: usize) -> usize {
        let module = self.module;
        let follows = at > 0 && module.is(at - 1, "::") && at > 1 && is_word(module.text(at - 2));
        let is_path = module.is(at + 1, "::") || module.is(at + 1, "as");
        if follows || !is_path {
            return at + 1;
        }
        let base = match module.text(at) {
            "crate" | LIBRARY => Vec::new(),
            "self" => self.within.clone(),
            "super" => self.within[..self.within.len().saturating_sub(1)].to_vec(),
            name => {
                let mut child = self.within.clone();
                child.push(name.to_owned());
                if !self.known.contains(&child) {
                    return at + 1;
                }
                child
            }
        };
        if !module.is(at + 1, "::") {
            // `use … as …`; a cast has no module before it.
            self.leads(at, base);
            return at + 1;
        }
        self.tree(at, at + 2, base)
    }

    /// Reads what comes behind `::` of a path that began at `start`.
    fn tree(&mut self, start: usize, mut at: usize, mut path: Vec<String>) -> usize {
        let module = self.module;
        loop {
            match module.text(at) {
                "{" => {
                    let close = module.after_group(at);
                    let mut inner = at + 1;
                    while inner < close - 1 {
                        inner = self.tree(start, inner, path.clone());
                        // To the next one of the list.
                        while inner < close - 1 && !module.is(inner, ",") {
                            inner += 1;
                        }
                        inner += 1;
                    }
                    return close;
                }
                "super" => {
                    path.pop();
                }
                "self" | "*" => {}
                word if is_word(word) => path.push(word.to_owned()),
                // A type's parameters.
                _ => break,
            }
            at += 1;
            if !module.is(at, "::") {
                break;
            }
            at += 1;
        }
        self.leads(start, path);
        at
    }

    fn leads(&mut self, start: usize, to: Vec<String>) {
        let line = self.module.tokens[start].line;
        let shown = self.module.tokens[start..].iter().take(7);
        self.arrows.push(Arrow {
            file: self.module.file.clone(),
            line,
            text: shown.map(|token| token.text.as_str()).collect(),
            from: self.within.clone(),
            to,
        });
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !matches!(
            text,
            "use" | "return" | "in" | "pub" | "as" | "match" | "let" | "if"
        )
}
