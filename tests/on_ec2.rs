//! What holds of scripts, cuts, cancels, endings and output, shown on EC2 instances too: the same tests once more.

#![expect(clippy::duplicate_mod, reason = "the same tests for another place")]

/// Where the jobs of these tests run.
const PLACE: crate::lab::place::Place = crate::lab::place::Place::Instance;

/// Were the jobs of these tests elsewhere, they would show nothing.
#[test]
fn these_jobs_run_on_instances() {
    let runner = PLACE.job().build();
    runner.start();
    let instances = runner.account().instances_alive();
    assert_eq!(instances.len(), 1, "{instances:#?}");
    assert_eq!(instances[0].job(), Some(runner.job().to_string().as_str()));
    assert!(runner.account().alive().is_empty());
    let script = "readlink /proc/self/ns/pid; tr '\\0' ' ' < /proc/1/cmdline";
    let seen = runner.run("build_script", script).assert_success();
    let process = instances[0].process.unwrap();
    let namespace = std::fs::read_link(format!("/proc/{process}/ns/pid")).unwrap();
    let first = seen.stdout_text();
    assert_eq!(first.lines().next(), namespace.to_str(), "{seen}");
    assert!(first.contains("sshd"), "{seen}");
}

#[path = "cancels/mod.rs"]
mod cancels;
#[path = "cuts/mod.rs"]
mod cuts;
#[path = "endings.rs"]
mod endings;
#[path = "output.rs"]
mod output;
#[path = "scripts.rs"]
mod scripts;
