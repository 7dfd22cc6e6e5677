//! What the pages tell people to type, and the files that they show whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Command;

use super::Pages;
use super::markdown::Page;
use crate::check_command::check_text;

const NAME: &str = "gitlab-aws-driver";

/// The help of the program's commands, asked for once each.
pub(super) struct Program(RefCell<BTreeMap<Vec<String>, Help>>);

#[derive(Clone, Debug, Default)]
struct Help {
    commands: Vec<String>,
    /// With whether a value follows.
    flags: BTreeMap<String, bool>,
}

impl Program {
    pub(super) fn new() -> Self {
        Self(RefCell::new(BTreeMap::new()))
    }

    fn help(&self, path: &[String]) -> Help {
        let mut known = self.0.borrow_mut();
        known
            .entry(path.to_vec())
            .or_insert_with(|| ask(path))
            .clone()
    }
}

fn ask(path: &[String]) -> Help {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"));
    let output = command
        .args(path)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{path:?}: {output:?}");
    read(&String::from_utf8(output.stdout).unwrap())
}

/// Reads clap's help.
fn read(text: &str) -> Help {
    let mut help = Help::default();
    let mut in_commands = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            in_commands = line == "Commands:";
            continue;
        }
        let body = line.trim_start();
        if in_commands && line.len() - body.len() == 2 {
            help.commands
                .extend(body.split_whitespace().next().map(str::to_owned));
        }
        if !body.starts_with('-') {
            continue;
        }
        // Two blanks before the words on it.
        let spelt = body.split("  ").next().unwrap_or_default();
        let takes = spelt.contains(" <");
        let names = spelt
            .split([' ', ','])
            .map(|name| name.split(['=', '[']).next().unwrap_or_default());
        for name in names.filter(|name| name.starts_with('-')) {
            help.flags.insert(name.to_owned(), takes);
        }
    }
    help
}

/// Returns commands that the program would not take, and how many there are.
pub(super) fn unknown(pages: &Pages, program: &Program) -> (Vec<String>, usize) {
    let mut finds = Vec::new();
    let mut all = 0;
    for page in pages.values() {
        for (line, words) in commands(page) {
            all += 1;
            if let Some(why) = wrong(&words, &|path| program.help(path)) {
                finds.push(format!("{}:{line}: {}: {why}", page.path, words.join(" ")));
            }
        }
    }
    (finds, all)
}

/// Returns the words behind the program's name, of blocks and of code within lines.
fn commands(page: &Page) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for block in &page.blocks {
        let joined = block.text.replace("\\\n", "\u{0}");
        let mut line = block.line;
        for text in joined.lines() {
            let typed = text
                .trim_start()
                .trim_start_matches("$ ")
                .trim_start_matches("sudo ");
            found.extend(words_of(&typed.replace('\u{0}', " ")).map(|words| (line, words)));
            line += 1 + text.matches('\u{0}').count();
        }
    }
    for span in &page.spans {
        // Messages begin with the name too.
        let is_message = |words: &Vec<String>| {
            let is_command = |c: char| c == '-' || c.is_ascii_lowercase();
            !words[0].starts_with(is_command) || words[0].starts_with("failed")
        };
        let words = words_of(&span.text).filter(|words| !is_message(words));
        found.extend(words.map(|words| (span.line, words)));
    }
    found
}

fn words_of(text: &str) -> Option<Vec<String>> {
    let rest = text.strip_prefix(NAME)?.strip_prefix(' ')?;
    // A comment, a description in a column of its own, or the end of the command.
    let ends = [" #", "   ", " >", " |", " &", ";", " <"]
        .into_iter()
        .filter_map(|end| rest.find(end));
    let rest = &rest[..ends.min().unwrap_or(rest.len())];
    let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    // What the program prints begins with its name and version.
    let is_output = words
        .first()?
        .starts_with(|c: char| c.is_ascii_digit() || c == '…');
    (!is_output).then_some(words)
}

fn wrong(words: &[String], help_of: &dyn Fn(&[String]) -> Help) -> Option<String> {
    let mut path = Vec::new();
    let mut help = help_of(&path);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let word = word.trim_matches(['[', ']']);
        if word == "--" {
            return None;
        }
        if word.starts_with('-') {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            match help.flags.get(name) {
                None => return Some(format!("there is no flag {name}")),
                Some(true) if value.is_none() => {
                    words.next();
                }
                Some(_) => {}
            }
        } else if help.commands.iter().any(|command| command == word) {
            path.push(word.to_owned());
            help = help_of(&path);
        } else if !help.commands.is_empty() && !is_placeholder(word) {
            return Some(format!("there is no command {word}"));
        }
    }
    None
}

fn is_placeholder(word: &str) -> bool {
    word.chars()
        .all(|c| c.is_ascii_uppercase() || "…_-".contains(c))
}

/// Returns blocks that are whole configurations, and that `check` refuses; with how many there are.
pub(super) fn refused_files(pages: &Pages) -> (Vec<String>, usize) {
    let mut finds = Vec::new();
    let mut all = 0;
    for page in pages.values() {
        for block in page
            .blocks
            .iter()
            .filter(|block| is_whole_file(&block.text))
        {
            all += 1;
            let output = check_text(&block.text, &[]);
            let said = output.stderr_text();
            if said.lines().any(|line| line.contains("ERROR")) {
                finds.push(format!("{}:{}: {said}", page.path, block.line));
            }
        }
    }
    (finds, all)
}

/// Whether a block is a file of this driver: it begins with its rungs and has what they need.
fn is_whole_file(text: &str) -> bool {
    let mut lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next().unwrap_or_default();
    first.starts_with("capacity = [")
        && !text.contains('…')
        && lines.any(|line| line.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::super::seeded;
    use super::*;

    const HELP: &str = "Usage: x [OPTIONS] <COMMAND>\n\nCommands:\n  try    run\n         more\n  check  look\n\nOptions:\n      --config <FILE>  which  one\n  -h, --help           help\n      --iam[=<ROLE>]   policy\n";

    fn told(text: &str) -> Vec<Option<String>> {
        let help = |path: &[String]| match path {
            [] => read(HELP),
            _ => read(
                "Usage: x\n\nOptions:\n      --json\n      --iam[=<ROLE>]  a\n      --job <FILE>\n",
            ),
        };
        let page = Page::new("a.md", text);
        commands(&page)
            .iter()
            .map(|(_, words)| wrong(words, &help))
            .collect()
    }

    #[test]
    fn what_the_program_would_not_take_is_found() {
        let good = "    gitlab-aws-driver --config FILE check --json    # x\n    $ sudo gitlab-aws-driver try --job a \\\n      --json -- --no >f\n    gitlab-aws-driver check --iam=ROLE   looks at it\n    gitlab-aws-driver 0.1.0 plays\n\n`gitlab-aws-driver COMMAND --help` and `gitlab-aws-driver check --iam`\n";
        assert_eq!(told(good), [None, None, None, None]);
        let bad = "```\ngitlab-aws-driver chekc\ngitlab-aws-driver --confg a check\ngitlab-aws-driver try --json --nosuch\n```\n`gitlab-aws-driver check --no`\n";
        assert_eq!(
            told(bad).iter().filter(|told| told.is_some()).count(),
            4,
            "{:?}",
            told(bad)
        );
    }

    #[test]
    fn a_file_that_is_wrong_is_found() {
        let text = "```toml\ncapacity = [\"fargate\"]\n\n[fargate]\nclutser = \"ci\"\ncluster = 3\n```\n\n    capacity = [\"fargate\"]\n";
        let (finds, all) = refused_files(&seeded(&[("a.md", text)]));
        assert_eq!((finds.len(), all), (1, 1), "{finds:?}");
        assert!(finds[0].starts_with("a.md:2: "), "{finds:?}");
    }
}
