//! What two files say and must say alike: pages, `Cargo.toml` and the program itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Returns what is between the first two of these texts.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let after = text.split_once(from).unwrap_or_else(|| panic!("{from}")).1;
    after.split_once(to).unwrap_or_else(|| panic!("{to}")).0
}

/// The maintainer sets the address in `Cargo.toml`, and here is told where else.
#[test]
fn the_address_for_weaknesses_is_the_maintainers() {
    let manifest = read("Cargo.toml");
    let maintainer = between(&manifest, "\nmaintainer = \"", "\"\n");
    let address = between(maintainer, "<", ">");
    assert!(address.contains('@'), "{maintainer}");
    let page = read("SECURITY.md");
    assert_eq!(between(&page, "Write to <", ">"), address, "in SECURITY.md");
    // A real address must not be called a placeholder, nor the other way round.
    let placeholder = address.ends_with(".invalid");
    assert_eq!(page.contains("is a placeholder"), placeholder, "{address}");
}

#[test]
fn every_dependency_has_a_line_that_says_what_it_is_for() {
    let manifest = read("Cargo.toml");
    let page = read("CONTRIBUTING.md");
    let page = between(&page, "\n## Dependencies\n", "\n## ");
    let dependencies = between(&manifest, "\n[dependencies]\n", "\n[");
    let names = dependencies
        .lines()
        .filter_map(|line| line.split_once(" = "));
    let mut count = 0;
    for (name, _) in
        names.filter(|(name, value)| !name.starts_with('#') && !value.contains("path ="))
    {
        let words = page.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
        assert!(
            words.clone().any(|word| word == name),
            "{name} has no line in CONTRIBUTING.md"
        );
        count += 1;
    }
    assert!(count > 20, "{count}");
}

/// Numbers and the job's hash differ from run to run, and the table's columns with them; a page has no colours.
fn without_numbers(log: &str) -> Vec<String> {
    let line = |line: &str| {
        let line = line.replace("\x1b[0;33m", "").replace("\x1b[0;m", "");
        let line = line.split("trytrytry-").next().unwrap_or(&line);
        let mut out = String::new();
        for c in line
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
        {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if c != '0' || !out.ends_with('0') {
                out.push(c);
            }
        }
        out
    };
    log.lines().map(line).collect()
}

#[test]
fn the_job_log_in_the_readme_is_what_try_prints() {
    let directory = lab::temp_dir();
    let output = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
        .args(["try", "--", "echo", "hello"])
        .env("TMPDIR", directory.path())
        .env("HOME", directory.path())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let (first, table) = errors.split_once('\n').unwrap();
    let log = String::from_utf8(output.stdout).unwrap();
    let printed = format!("{first}\n{log}{table}");

    let readme = read("README.md");
    let shown = readme
        .split("\n\n")
        .find(|part| part.contains("plays GitLab Runner for job"));
    let shown = shown.expect("the README has a job log");
    assert_eq!(without_numbers(shown), without_numbers(&printed));
}
