//! Images in which the agent never runs. Some end with success, so only a greeting tells that a job has run: the end of the container,
//! its entrypoint and its last words are what a driver can name.

use crate::lab::docker::Container;
use crate::lab::images;
use crate::lab::launch::AGENT;

use super::with_agent;

/// What there is to name of a container that ended without a greeting.
struct Silence {
    code: i32,
    entrypoint: String,
    logs: String,
}

fn silence(container: &Container<'_>) -> Silence {
    let code = container.wait();
    Silence {
        code,
        entrypoint: container.inspect("{{json .Config.Entrypoint}}"),
        logs: container.logs(),
    }
}

#[test]
fn an_entrypoint_that_drops_its_arguments_ends_with_success() {
    with_agent(images::dropping_entrypoint, |job| {
        let container = job.container().start();
        let silence = silence(&container);
        assert_eq!(silence.code, 0);
        assert_eq!(silence.logs.trim_end(), images::ENTRYPOINT_RAN);
        assert!(silence.entrypoint.starts_with("[\"/bin/sh\",\"-c\",\"echo"));
        assert!(job.launch.greet(&container, &[]).is_err());
    });
}

#[test]
fn an_entrypoint_that_prints_its_argument_ends_with_success() {
    with_agent(images::printing_tool, |job| {
        let container = job.container().start();
        let silence = silence(&container);
        assert_eq!(silence.code, 0);
        assert!(silence.logs.starts_with("\u{7f}ELF"));
        assert_eq!(silence.entrypoint, "[\"/bin/cat\"]");
        assert!(job.launch.greet(&container, &[]).is_err());
    });
}

#[test]
fn an_entrypoint_that_is_a_tool_does_not_know_the_agent() {
    with_agent(images::tool, |job| {
        let container = job.container().start();
        let silence = silence(&container);
        assert_eq!(silence.code, 127);
        assert!(
            silence.logs.contains("applet not found"),
            "{}",
            silence.logs
        );
        assert_eq!(silence.entrypoint, "[\"/bin/busybox\"]");
        // The remedy that a driver names, in docker's words: no entrypoint at all.
        let without = job.container().option("--entrypoint=").start();
        assert_eq!(job.launch.greeting(&without).get("process-1"), "yes");
    });
}

#[test]
fn without_the_volume_docker_names_what_is_missing() {
    with_agent(images::busybox, |job| {
        let said = job.docker.container(&job.image).command(&[AGENT]);
        let said = said.try_start().err().unwrap();
        assert!(said.contains(AGENT), "{said}");
        assert!(said.contains("no such file or directory"), "{said}");
    });
}
