//! The pages against the program's own source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::OF_AWS;
use super::OF_THE_RUNNER;
use super::PAGES_ON_DISK;
use super::Sections;
use crate::ops::manual::PAGES;

/// Returns all of the program's source but its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                left.push(path);
            } else if name.ends_with(".rs") && !name.starts_with("tests") {
                let text = fs::read_to_string(&path).unwrap();
                let own = text.split("#[cfg(test)]\nmod").next().unwrap();
                found.push((path, own.to_owned()));
            }
        }
    }
    found
}

/// Returns the names that a table lists.
fn names(table: &[(&'static str, &str)]) -> BTreeSet<&'static str> {
    table
        .iter()
        .flat_map(|(names, _)| names.split(", ").map(str::trim))
        .collect()
}

fn listed() -> BTreeSet<&'static str> {
    let all = PAGES.iter().map(|page| Some(*page)).chain([None]);
    all.flat_map(|page| names(&Sections::of(page).environment))
        .collect()
}

/// Returns what is given to a function wherever it is called, up to the end of the argument.
fn arguments<'a>(text: &'a str, call: &'a str) -> impl Iterator<Item = &'a str> {
    let found = text.match_indices(call);
    found.map(move |(at, _)| {
        let rest = &text[at + call.len()..];
        rest.split([')', ',']).next().unwrap_or_default()
    })
}

#[test]
fn every_variable_that_the_program_reads_is_on_a_page() {
    let listed = listed();
    let constants = sources();
    let constants: Vec<&str> = constants
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter(|line| line.contains("const ") && line.contains(": &str = \""))
        .collect();
    // What stands behind the name of a constant.
    let value = |name: &str| {
        let last = name.rsplit("::").next().unwrap();
        let is = |line: &&&str| line.contains(&format!("const {last}: &str"));
        let line = constants.iter().find(is);
        line.and_then(|line| line.split('"').nth(1))
            .map(str::to_owned)
    };
    // Words that a caller of these functions gives; the calls themselves are found as well, or stand in `CUSTOM_ENV_*`.
    let handed_on = ["name", "by"];
    let mut read = BTreeSet::new();
    for (path, text) in sources() {
        // Told by the program itself to a process that it starts.
        if path.ends_with("compute/local/machine_process.rs") {
            continue;
        }
        let text: String = text.split_whitespace().collect();
        for (call, prefix) in [
            ("env.get(", ""),
            ("self.get(", ""),
            ("sdk_setting(", ""),
            ("number(env,", ""),
            ("job_variable(", "CUSTOM_ENV_"),
            ("variable(", "CUSTOM_ENV_"),
            ("overwrite(", "CUSTOM_ENV_"),
        ] {
            for argument in arguments(&text, call) {
                let argument = argument.trim_start_matches('&');
                let name = match argument.strip_prefix('"') {
                    Some(literal) => Some(literal.trim_end_matches('"').to_owned()),
                    None if argument.chars().any(char::is_uppercase) => value(argument),
                    None => None,
                };
                match name {
                    Some(name) if is_variable(&name) => {
                        read.insert(format!("{prefix}{name}"));
                    }
                    _ if call == "env.get(" => {
                        let known = handed_on.contains(&argument) || argument.starts_with("OsStr");
                        assert!(known, "{}: env.get({argument})", path.display());
                    }
                    _ => {}
                }
            }
        }
    }
    // Else nothing was looked at.
    for name in [
        "JOB_RESPONSE_FILE",
        "NO_COLOR",
        "AWS_CA_BUNDLE",
        "CUSTOM_ENV_AWS_DRIVER_CPU",
    ] {
        assert!(read.contains(name), "{name}: {read:?}");
    }
    let missing: Vec<_> = read
        .iter()
        .filter(|name| !listed.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "on no page: {missing:?}");
    // And nothing is on a page that is not read.
    let own = names(OF_THE_RUNNER);
    let idle: Vec<_> = own
        .iter()
        .filter(|name| !name.ends_with('*') && !read.contains(**name))
        .collect();
    assert!(idle.is_empty(), "nobody reads: {idle:?}");
    let of_aws =
        |name: &&str| name.starts_with("AWS_") || name.ends_with("_PROXY") || *name == "HOME";
    assert!(names(OF_AWS).iter().all(of_aws));
}

fn is_variable(name: &str) -> bool {
    name.len() > 2
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn what_a_page_refers_to_is_in_the_packages() {
    let manifest = include_str!("../../../../Cargo.toml");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    assert!(manifest.contains(&format!("\"{}/\"", PAGES_ON_DISK.trim_start_matches('/'))));
    for page in PAGES.iter().map(|page| Some(*page)).chain([None]) {
        for name in Sections::of(page).further {
            if let Some(file) = name.strip_prefix(PAGES_ON_DISK) {
                assert!(docs.join(file.trim_start_matches('/')).is_file(), "{name}");
            } else if name.ends_with(".timer") {
                let unit = docs.with_file_name("packaging/systemd").join(&name);
                assert!(unit.is_file(), "{name}");
            } else {
                assert_eq!(name, "gitlab-runner");
            }
        }
    }
}
