//! Integration tests: they drive the real binary, as GitLab Runner would.
//!
//! One binary for all of them, so that the dependencies are linked once; a module per concern. What
//! they need of the world (machines, faults, a git server, GitLab Runner itself) is in [`lab`].

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that cannot go on panics, tells people what it skipped, and is no async code"
)]

mod agent_containers;
mod aws_words;
mod bad_input;
mod bad_state;
mod begin;
mod believed;
mod calls;
mod cancels;
mod cancels_of_config;
mod check_command;
mod completions;
mod connecting;
mod containers;
mod contract;
mod copies;
mod crowd;
mod cuts;
mod disk;
mod drop_in;
mod ec2_capacity;
mod ec2_connect;
mod ec2_cost;
mod ec2_failures;
mod ec2_instances;
mod ec2_leaks;
mod ec2_templates;
mod endings;
mod environment;
mod examples;
mod fargate_capacity;
mod fargate_crowd;
mod fargate_drop_in;
mod fargate_failures;
mod fargate_jobs;
mod fargate_leaks;
mod fargate_login;
mod fuzz_short;
mod hostile;
mod image_jobs;
mod interruption;
mod job_directory;
mod jobs;
mod kept;
mod kept_in_step;
mod kills;
mod lab;
mod lab_aws;
mod lab_docker;
mod lab_ec2;
mod lab_itself;
mod lab_page;
mod lab_proxy;
mod limits;
mod manual;
mod on_container;
mod on_ec2;
mod on_fargate;
mod output;
mod packages;
mod pages;
mod process_limit;
mod profiles;
mod programs;
mod pruning;
mod quick_start;
mod reap;
mod reap_lost;
mod recorded;
mod rooms;
mod scripts;
mod servers_found;
mod sharing;
mod state_0_1_0;
mod stops;
mod trust;
mod try_command;
mod user_data;
mod watchers;
mod welcome;
mod wrapped;

use std::path::Path;

/// Where the jobs of the tests run that are run everywhere; see [`on_fargate`].
const PLACE: lab::place::Place = lab::place::Place::Here;

/// A test file that no `mod` line names would silently never run.
#[test]
fn no_test_file_is_forgotten() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    assert_named(&tests, &tests.join("main.rs"));
}

/// Checks that the module in the file names all modules in the directory, and so on further down.
fn assert_named(directory: &Path, module: &Path) {
    let text = std::fs::read_to_string(module).unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // The test command has no extension, and the lab's AWS is written in Python.
        if path == *module || !holds_rust(&path) {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let named = text
            .lines()
            .any(|line| line.ends_with(&format!("mod {name};")));
        if path.is_dir() {
            let candidates = [path.join("mod.rs"), path.with_extension("rs")];
            let inner = candidates.iter().find(|candidate| candidate.is_file());
            assert_named(&path, inner.unwrap());
        }
        let shown = path.display();
        assert!(named, "{shown} is in no `mod` line of {}", module.display());
    }
}

fn holds_rust(path: &Path) -> bool {
    if path.is_dir() {
        let mut entries = std::fs::read_dir(path).unwrap();
        return entries.any(|entry| holds_rust(&entry.unwrap().path()));
    }
    path.extension().is_some_and(|end| end == "rs")
}
