//! The messages that stand in the sources: literals that reach an error, a warning or a line of progress.

use std::path::Path;

/// A file of the program, without its tests.
pub(super) struct Source {
    pub(super) path: String,
    /// The code with comments and what is within quotes blanked out; one byte for each character.
    code: Vec<u8>,
    literals: Vec<Literal>,
}

/// Text within quotes.
struct Literal {
    at: usize,
    text: String,
}

/// A literal that people may read in a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// `file:line`.
    pub(super) place: String,
    pub(super) text: String,
}

/// What makes messages of the literals among its arguments.
const CALLS: [&str; 21] = [
    "Error::new(",
    ".warn(",
    ".progress(",
    ".error(",
    "#[error(",
    "Err(",
    "Error::custom(",
    "custom(",
    "damaged(",
    "fail(",
    "failed(",
    "notes.push(",
    "plain_problem(",
    "problem(",
    "problem_at(",
    "problem_at_key(",
    "refused(",
    "unusable(",
    "warnings.push(",
    "warnings.extend(",
    "found.warn(",
];

/// What does so of the first of them alone; a remedy follows it.
const FIRST_ONLY: [&str; 1] = ["wrong("];

/// Names of variables that become messages.
const NAMES: [&str; 6] = ["cause", "doubt", "line", "message", "problem", "what"];

/// Calls among whose arguments are remedies, diagnostics and reasons for the compiler.
const OTHERS: [&str; 8] = [
    ".hint(",
    ".expect(",
    "debug!(",
    "trace!(",
    "info!(",
    "#[expect(",
    "#![expect(",
    "assert!(",
];

/// Reads all files of the program below that directory.
pub(super) fn read(directory: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let is_test = stem == "tests" || stem.starts_with("tests_");
        if is_test {
            continue;
        }
        if path.is_dir() {
            found.extend(read(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.push(Source::new(name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        let mut source = Self {
            path: path.to_owned(),
            code: text
                .iter()
                .map(|c| u8::try_from(*c).unwrap_or(b'x').min(b'~'))
                .collect(),
            literals: Vec::new(),
        };
        let mut at = 0;
        while at < text.len() {
            at = source.step(&text, at);
        }
        source.drop_tests();
        source
    }

    /// Takes a literal, a comment, or one character.
    fn step(&mut self, text: &[char], at: usize) -> usize {
        let starts = |what: &str| {
            what.chars()
                .enumerate()
                .all(|(i, c)| text.get(at + i) == Some(&c))
        };
        if starts("//") {
            let end = text[at..]
                .iter()
                .position(|c| *c == '\n')
                .map_or(text.len(), |n| at + n);
            self.code[at..end].fill(b' ');
            return end;
        }
        if text[at] == '\'' {
            return match (text.get(at + 1), text.get(at + 2)) {
                (Some('\\'), _) => {
                    let end = text[at + 3..].iter().position(|c| *c == '\'').unwrap();
                    self.code[at..at + 4 + end].fill(b' ');
                    at + 4 + end
                }
                (_, Some('\'')) => {
                    self.code[at..at + 3].fill(b' ');
                    at + 3
                }
                // A lifetime.
                _ => at + 1,
            };
        }
        let is_word = at > 0
            && (text[at - 1].is_alphanumeric() || text[at - 1] == '_')
            && text[at - 1] != 'b';
        if text[at] == 'r' && !is_word {
            let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
            if text.get(at + 1 + hashes) == Some(&'"') {
                let from = at + 2 + hashes;
                let close: Vec<char> = format!("\"{}", "#".repeat(hashes)).chars().collect();
                let length = text[from..]
                    .windows(close.len())
                    .position(|part| part == close.as_slice())
                    .unwrap();
                return self.literal(
                    from,
                    from + length,
                    text[from..from + length].iter().collect(),
                    close.len(),
                );
            }
        }
        if text[at] != '"' {
            return at + 1;
        }
        let mut inner = String::new();
        let mut end = at + 1;
        while text[end] != '"' {
            if text[end] != '\\' {
                inner.push(text[end]);
                end += 1;
                continue;
            }
            match text[end + 1] {
                '\n' => {
                    let blanks = text[end + 1..]
                        .iter()
                        .take_while(|c| c.is_whitespace())
                        .count();
                    end += 1 + blanks;
                    continue;
                }
                'n' => inner.push('\n'),
                other => inner.push(other),
            }
            end += 2;
        }
        self.literal(at + 1, end, inner, 1)
    }

    fn literal(&mut self, from: usize, to: usize, text: String, close: usize) -> usize {
        for c in &mut self.code[from..to] {
            if *c != b'\n' {
                *c = b' ';
            }
        }
        self.literals.push(Literal { at: from, text });
        to + close
    }

    /// Drops a module of tests within the file.
    fn drop_tests(&mut self) {
        let code = String::from_utf8(self.code.clone()).unwrap();
        let lines = code.split_inclusive('\n');
        let (mut at, mut is_test) = (0, false);
        for line in lines {
            let bare = line.trim();
            if is_test && bare.contains("mod ") && bare.ends_with('{') {
                self.code.truncate(at);
                self.literals.retain(|literal| literal.at < at);
                return;
            }
            is_test = bare.starts_with("#[cfg(test)]")
                || bare.starts_with("#[cfg(all(test")
                || (is_test && bare.starts_with("#["));
            at += line.len();
        }
    }

    /// Returns the literals that are messages, or parts of some.
    pub(super) fn messages(&self) -> Vec<Message> {
        let others: Vec<(usize, usize)> = OTHERS
            .iter()
            .flat_map(|call| self.arguments(call))
            .collect();
        let mut wanted: Vec<(usize, usize)> =
            CALLS.iter().flat_map(|call| self.arguments(call)).collect();
        wanted.extend(NAMES.iter().flat_map(|name| self.values(name)));
        for (from, to) in FIRST_ONLY.iter().flat_map(|call| self.arguments(call)) {
            let first = self
                .literals
                .iter()
                .find(|literal| (from..to).contains(&literal.at));
            wanted.extend(first.map(|literal| (from, literal.at + 1)));
        }
        let within = |at: usize, ranges: &[(usize, usize)]| {
            ranges.iter().any(|(from, to)| (*from..*to).contains(&at))
        };
        let literals = self.literals.iter();
        let read =
            literals.filter(|literal| within(literal.at, &wanted) && !within(literal.at, &others));
        read.map(|literal| Message {
            place: format!("{}:{}", self.path, self.line(literal.at)),
            text: literal.text.clone(),
        })
        .collect()
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].iter().filter(|c| **c == b'\n').count() + 1
    }

    /// Returns where that text is in the code, as words of its own.
    fn places(&self, what: &str) -> Vec<usize> {
        let code = std::str::from_utf8(&self.code).unwrap();
        let is_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let alone =
            |at: usize| at == 0 || !is_word(what.as_bytes()[0]) || !is_word(self.code[at - 1]);
        let found = code.match_indices(what).map(|(at, _)| at);
        found.filter(|at| alone(*at)).collect()
    }

    /// Returns what lies between the parentheses of such calls.
    fn arguments(&self, call: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for at in self.places(call) {
            let from = at + call.len();
            let mut depth = 1;
            let length = self.code[from..].iter().position(|c| {
                match c {
                    b'(' => depth += 1,
                    b')' => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            found.push((from, from + length.unwrap()));
        }
        found
    }

    /// Returns what is assigned to variables of that name.
    fn values(&self, name: &str) -> Vec<(usize, usize)> {
        let places = self.places(&format!("let {name} =")).into_iter();
        let length = |from: usize| self.code[from..].iter().position(|c| *c == b';');
        places
            .filter_map(|from| Some((from, from + length(from)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(code: &str) -> Vec<String> {
        let messages = Source::new("src/x.rs", code).messages();
        messages
            .into_iter()
            .map(|message| format!("{}: {}", message.place, message.text))
            .collect()
    }

    #[test]
    fn messages_are_read_and_nothing_else() {
        let code = r##"
// Error::new(Kind::Bug, "in a comment")
fn f<'a>(c: char) -> Result<()> {
    if c == '"' || c == '\'' { return wrong("the first", "a remedy"); }
    debug!("not this");
    let what = format!("of {c} a variable");
    let other = "not this either";
    ui.warn(&format!("a warning \"so\" \
                      goes on"));
    Err(Error::new(Kind::Bug, r#"raw "text" here"#).hint("a remedy"))
}
#[cfg(test)]
mod tests {
    fn g() { Error::new(Kind::Bug, "of a test"); }
}
"##;
        assert_eq!(
            texts(code),
            [
                "src/x.rs:4: the first",
                "src/x.rs:6: of {c} a variable",
                "src/x.rs:8: a warning \"so\" goes on",
                "src/x.rs:10: raw \"text\" here",
            ]
        );
    }
}
