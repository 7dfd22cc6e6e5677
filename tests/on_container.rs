//! What holds of scripts, cancels, cuts, endings and output, shown in containers of a real docker engine too, by the agent: the
//! same tests once more.

#![expect(clippy::duplicate_mod, reason = "the same tests for another place")]

/// Where the jobs of these tests run.
const PLACE: crate::lab::place::Place = crate::lab::place::Place::Container;

/// Were the jobs of these tests elsewhere, they would show nothing.
#[test]
fn these_jobs_run_in_containers() {
    let runner = PLACE.job().build();
    runner.start();
    let script = "readlink /proc/self/ns/pid; cat /proc/1/cmdline";
    let seen = runner.run("build_script", script).assert_success();
    let namespace = runner.container_process().join("ns/pid");
    let namespace = std::fs::read_link(namespace).unwrap();
    let first = seen.stdout_text();
    assert_eq!(first.lines().next(), namespace.to_str(), "{seen}");
    assert!(first.contains("gitlab-aws-agent"), "{seen}");
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
