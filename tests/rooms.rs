//! The rooms of `src/`: the table in `docs/architecture.md` says which lies above which, and no import goes up.
//!
//! Every path in the sources is read, wherever it is written: in a `use` of any form, in the middle of an expression, with
//! `crate`, `super`, `self`, the library's own name or a module's bare name. Comments, literals and test modules are left out.

mod paths;
mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use paths::{Arrow, Module};

/// The heading below which the table is.
const HEADING: &str = "## Rooms";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A room: the path of its module, without `crate`. `compute/aws` is a room within another.
type Room = Vec<String>;

/// The rooms, floor by floor, from the top.
#[derive(Debug)]
struct Floors(Vec<Vec<Room>>);

impl Floors {
    /// Reads the table: its first column names the rooms of a floor, each as code.
    fn read(page: &str) -> Self {
        let (_, section) = page.split_once(HEADING).expect("no section on rooms");
        let rows = section
            .lines()
            .skip(1)
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .skip(2);
        let floors = rows.map(|row| {
            let first = row.split('|').nth(1).unwrap();
            let names = first.split('`').skip(1).step_by(2);
            names
                .map(|name| name.split('/').map(str::to_owned).collect())
                .collect()
        });
        Self(floors.collect())
    }

    fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.0.iter().flatten()
    }

    fn floor(&self, room: &Room) -> usize {
        self.0
            .iter()
            .position(|floor| floor.contains(room))
            .unwrap()
    }

    /// Returns the innermost room that a path lies in.
    fn room(&self, path: &[String]) -> Option<&Room> {
        let holds = |room: &&Room| path.starts_with(room);
        self.rooms().filter(holds).max_by_key(|room| room.len())
    }

    /// Says what is wrong with an arrow.
    fn problem(&self, arrow: &Arrow) -> Option<String> {
        let told = |what: &str| {
            let Arrow {
                file, line, text, ..
            } = arrow;
            Some(format!("{file}:{line}: {text}: {what}"))
        };
        let from = arrow.from.clone();
        let Some(from) = self.room(&from) else {
            return told("the file lies in no room of the table");
        };
        if arrow.to.is_empty() {
            return told("names the crate as a whole, so nobody sees which room is meant");
        }
        let Some(to) = self.room(&arrow.to) else {
            return told("leads into no room of the table");
        };
        if from == to || self.floor(from) < self.floor(to) {
            return None;
        }
        let (from, to) = (from.join("/"), to.join("/"));
        told(&format!("{from} imports from {to}, which is not below it"))
    }
}

/// Returns the modules of the sources, but for those of tests.
fn modules() -> Vec<Module> {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files.sort();
    let mut all: Vec<Module> = files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(&src).unwrap();
            let text = fs::read_to_string(file).unwrap();
            Module::read(name.to_str().unwrap(), &text)
        })
        .collect();
    let tests: Vec<Vec<String>> = all.iter().flat_map(Module::test_modules).collect();
    all.retain(|module| !tests.iter().any(|test| module.path.starts_with(test)));
    all
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn floors() -> Floors {
    let page = root().join("docs/architecture.md");
    Floors::read(&fs::read_to_string(page).unwrap())
}

#[test]
fn every_room_is_in_the_table_once_and_every_name_in_it_is_a_room() {
    let floors = floors();
    let modules = modules();
    let known: BTreeSet<&[String]> = modules.iter().map(|m| m.path.as_slice()).collect();
    let mut seen = BTreeSet::new();
    for room in floors.rooms() {
        let name = room.join("/");
        assert!(known.contains(room.as_slice()), "{name} is not in src/");
        assert!(seen.insert(room.clone()), "{name} is in the table twice");
    }
    for module in modules.iter().filter(|m| m.path.len() == 1) {
        assert!(
            seen.contains(&module.path),
            "{:?} is not in the table",
            module.path
        );
    }
    assert!(floors.0.len() > 5, "{floors:?}");
}

#[test]
fn no_import_goes_up() {
    let floors = floors();
    let modules = modules();
    let arrows: Vec<Arrow> = paths::arrows(&modules);
    let wrong: Vec<String> = arrows
        .iter()
        .filter_map(|arrow| floors.problem(arrow))
        .collect();
    assert!(wrong.is_empty(), "{}\n", wrong.join("\n"));
    // What sees nothing finds nothing.
    let crossing = arrows
        .iter()
        .filter(|a| floors.room(&a.from) != floors.room(&a.to));
    assert!(crossing.count() > 300);
}

/// A build with or without the feature has the same face, and one file alone knows which build it is.
#[test]
fn one_file_asks_for_the_feature() {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let asks = |file: &&PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        code.flat_map(|line| line.split_whitespace())
            .collect::<String>()
            .contains("feature=\"")
    };
    let asking: Vec<&Path> = files
        .iter()
        .filter(asks)
        .map(|file| file.strip_prefix(&src).unwrap())
        .collect();
    assert_eq!(asking, [Path::new("compute/ec2/mod.rs")]);
}

/// A table and sources in which one thing is wrong.
fn problems(file: &str, text: &str) -> Vec<String> {
    let floors = Floors::read(
        "## Rooms\n\n| room | for |\n|---|---|\n| `main`, `top` | |\n| `middle` | |\n| `middle/inner` | |\n| `low`, `beside` | |\n",
    );
    let mut modules = vec![
        Module::read(
            "lib.rs",
            "pub mod top; pub mod middle; pub mod low; pub mod beside;",
        ),
        Module::read("top.rs", ""),
        Module::read("middle/mod.rs", "pub mod inner; mod other;"),
        Module::read("middle/inner.rs", ""),
        Module::read("middle/other.rs", ""),
        Module::read("low/mod.rs", "mod deep;"),
        Module::read("beside.rs", ""),
    ];
    let name = Module::read(file, text);
    modules.retain(|module| module.path != name.path);
    modules.push(name);
    let arrows = paths::arrows(&modules);
    arrows
        .iter()
        .filter_map(|arrow| floors.problem(arrow))
        .collect()
}

#[test]
fn each_form_of_a_wrong_import_is_seen() {
    for (file, text) in [
        ("low/mod.rs", "use crate::middle::Thing;"),
        ("low/mod.rs", "use crate::{beside_not::X, middle};"),
        (
            "low/mod.rs",
            "use crate::{error::{self}, top::{deep::{A, B}, C}};",
        ),
        ("low/mod.rs", "use crate::middle as renamed;"),
        ("low/mod.rs", "pub use crate::top::*;"),
        ("low/mod.rs", "pub(crate) use super::top;"),
        ("low/mod.rs", "use super::*;"),
        ("low/mod.rs", "use crate as everything;"),
        ("low/mod.rs", "extern crate self as everything;"),
        ("low/mod.rs", "use ::gitlab_aws_driver::top::X;"),
        ("low/mod.rs", "use self::super::middle::X;"),
        ("low/mod.rs", "use {crate::top::X, std::fs};"),
        ("low/deep.rs", "use super::super::middle::X;"),
        ("low/deep.rs", "fn f() { super::super::middle::f() }"),
        ("low/mod.rs", "fn f() { let x = crate::middle::f(); }"),
        (
            "low/mod.rs",
            "fn f() -> crate :: middle :: Thing { loop {} }",
        ),
        (
            "low/mod.rs",
            "macro_rules! m { () => { $crate::middle::f() } }",
        ),
        ("low/mod.rs", "mod within { use super::super::top::X; }"),
        (
            "low/mod.rs",
            "mod within { fn f() { super::super::top::f() } }",
        ),
        ("low/mod.rs", "#[derive(crate::top::Derive)] struct S;"),
        ("low/mod.rs", "impl From<crate::middle::A> for B {}"),
        (
            "low/mod.rs",
            "const Q: char = '\"'; use crate::top::X; const R: &str = \"\";",
        ),
        ("low/mod.rs", "#[cfg(not(test))] use crate::top::X;"),
        ("low/mod.rs", "use crate::beside::X;"),
        ("middle/inner.rs", "use super::Thing;"),
        ("middle/inner.rs", "use crate::middle::other::Thing;"),
        ("nowhere.rs", "use crate::low::X;"),
    ] {
        assert!(!problems(file, text).is_empty(), "{file}: {text}");
    }
}

#[test]
fn what_goes_down_or_is_no_import_is_let_be() {
    for (file, text) in [
        ("top.rs", "use crate::{low, middle::{self, inner::X}};"),
        ("main.rs", "use gitlab_aws_driver::{low, middle};"),
        (
            "middle/mod.rs",
            "mod inner; use inner::X; fn f() { inner::f(); crate::low::f() }",
        ),
        (
            "middle/other.rs",
            "use super::X; use crate::middle::Y; pub(in crate::middle) fn f() {}",
        ),
        (
            "low/mod.rs",
            "// use crate::top::X;\n/* crate::top /* nested */ crate::top */ /// [`crate::top`]\nfn f() {}",
        ),
        (
            "low/mod.rs",
            "const A: &str = \"crate::top::X\"; const B: &[u8] = br#\"crate::top \"x\" \"#;",
        ),
        (
            "low/mod.rs",
            "#[cfg(test)] mod tests { use crate::top::X; mod more { fn f() { crate::top::f() } } }",
        ),
        (
            "low/mod.rs",
            "#[cfg(test)] use crate::top::X; #[cfg(all(test, feature = \"x\"))] fn f() { crate::top::f() }",
        ),
        ("low/mod.rs", "fn f<'a>(x: &'a str) -> char { 'c' }"),
        (
            "low/mod.rs",
            "use self::deep::X; use std::fmt; use serde::Serialize;",
        ),
    ] {
        assert_eq!(problems(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn files_of_test_modules_are_left_out() {
    let parent = Module::read(
        "low/mod.rs",
        "#[cfg(test)]\nmod tests;\n#[cfg(test)] pub(super) mod more;\nmod deep;",
    );
    let tests: Vec<String> = parent
        .test_modules()
        .iter()
        .map(|path| path.join("/"))
        .collect();
    assert_eq!(tests, ["low/tests", "low/more"]);
}
