//! Images in which the agent runs, whatever they are.

use std::os::unix::fs::MetadataExt as _;

use crate::lab::docker::Docker;
use crate::lab::images;
use crate::lab::launch::AGENT;
use crate::lab::launch::VARIABLE;
use crate::lab::launch::installed;

use super::Job;
use super::with_agent;

/// Checks values of the greeting.
#[track_caller]
fn assert_greeting(job: &Job<'_>, options: &[&str], expected: &[(&str, &str)]) {
    let container = options.iter().fold(job.container(), |container, option| {
        container.option(option)
    });
    let container = container.start();
    let greeting = job.launch.greeting(&container);
    let version = ("agent", env!("CARGO_PKG_VERSION"));
    let arch = ("arch", std::env::consts::ARCH);
    for (name, value) in expected.iter().chain([&version, &arch]) {
        assert_eq!(greeting.get(name), *value, "{name} in {}", job.image);
    }
}

/// Its own process 1.
const FIRST: [(&str, &str); 3] = [("process-1", "yes"), ("below", "-"), ("holds-term", "yes")];

/// root, by its line in `/etc/passwd`.
const ROOT: [(&str, &str); 4] = [
    ("uid", "0"),
    ("gid", "0"),
    ("user", "root"),
    ("home", "/root"),
];

#[test]
fn the_copy_is_for_all_users() {
    let volume = installed(Docker::shared());
    for (name, mode) in [("", 0o755), ("gitlab-aws-agent", 0o755)] {
        let found = volume.path().join(name).metadata().unwrap();
        assert_eq!(found.mode() & 0o7777, mode, "{name:?}");
    }
}

#[test]
fn where_there_is_busybox_only() {
    with_agent(images::busybox, |job| {
        let shell = [("shell", "/bin/sh"), ("directory", "/")];
        assert_greeting(job, &[], &[&FIRST[..], &ROOT, &shell].concat());
    });
}

#[test]
fn where_there_is_bash() {
    with_agent(images::debian, |job| {
        let shell = [("shell", "/bin/bash")];
        assert_greeting(job, &[], &[&FIRST[..], &ROOT, &shell].concat());
    });
}

#[test]
fn where_the_user_has_neither_name_nor_home() {
    with_agent(images::nameless, |job| {
        let user = images::NAMELESS.to_string();
        let expected = [("uid", user.as_str()), ("gid", "0"), ("user", "-")];
        // What docker makes of it; an entrypoint may unset it.
        let expected = [&FIRST[..], &expected, &[("home", "/")]].concat();
        assert_greeting(job, &[], &expected);
    });
}

#[test]
fn where_there_is_no_shell() {
    with_agent(images::shell_less, |job| {
        let none = [("shell", "-")];
        assert_greeting(job, &[], &[&FIRST[..], &ROOT, &none].concat());
    });
}

#[test]
fn where_the_root_cannot_be_written() {
    with_agent(images::busybox, |job| {
        assert_greeting(job, &images::READ_ONLY, &[&FIRST[..], &ROOT].concat());
    });
}

#[test]
fn where_the_image_has_a_volume() {
    with_agent(images::with_volume, |job| {
        assert_greeting(job, &[], &FIRST);
    });
}

#[test]
fn below_an_entrypoint_that_becomes_it() {
    with_agent(images::becoming_entrypoint, |job| {
        assert_greeting(job, &[], &FIRST);
    });
}

#[test]
fn with_what_an_entrypoint_has_set_up_and_without_what_the_launch_handed_over() {
    with_agent(images::exporting_entrypoint, |job| {
        assert_greeting(
            job,
            &[],
            &[&FIRST[..], &[("directory", "/var/tmp")]].concat(),
        );
        let container = job.container().start();
        job.launch.greeting(&container);
        let done = job.launch.output(&container, "env");
        let variables = String::from_utf8(done.stdout).unwrap();
        let (name, value) = images::EXPORTED;
        let exported = format!("{name}={value}");
        assert!(variables.lines().any(|it| it == exported), "{variables}");
        assert!(!variables.contains(VARIABLE), "{variables}");
    });
}

#[test]
fn below_entrypoints_that_stay() {
    for image in [images::trapping_entrypoint, images::staying_entrypoint] {
        with_agent(image, |job| {
            let above = [
                ("process-1", "entrypoint"),
                ("below", "entrypoint"),
                ("holds-term", "no"),
            ];
            assert_greeting(job, &[], &above);
        });
    }
}

#[test]
fn below_a_shell_that_takes_the_bare_path_for_a_script() {
    with_agent(images::shell_entrypoint, |job| {
        // busybox becomes the only command of a script.
        assert_greeting(job, &[], &FIRST);
    });
}

#[test]
fn at_a_socket_that_a_bind_mount_shares() {
    with_agent(images::busybox, |job| {
        let shared = crate::lab::temp_dir();
        let socket = "/shared/socket";
        let words = job.launch.words(&format!("listen=- socket={socket}"));
        let container = job
            .container()
            .mount(shared.path(), "/shared")
            .env(VARIABLE, &words)
            .start();
        assert!(container.wait_logs("listening on").is_ok());
        let client = job.launch.ssh_to_socket(&shared.path().join("socket"));
        let greeting = crate::lab::launch::greet(client, &["shrug"]).unwrap();
        assert_eq!(greeting.get("uid"), "0");
        assert_eq!(greeting.answers, ["unknown shrug"]);
    });
}

#[test]
fn by_the_key_of_the_launch_only_until_another_is_pinned() {
    with_agent(images::busybox, |job| {
        let container = job.container().start();
        let first = job.launch.greeting(&container);
        let new = first.get("host-key").to_owned();
        assert_ne!(new, job.launch.host_key());
        let pinned = job.launch.greet(&container, &["pin"]).unwrap();
        assert_eq!(pinned.answers, ["pinned"]);
        assert_eq!(pinned.get("host-key"), new);

        let refused = job.launch.greet(&container, &[]).unwrap_err();
        assert!(
            refused.contains("Host key verification failed"),
            "{refused}"
        );
        job.launch.trust(&new);
        let again = job.launch.greet(&container, &["end"]).unwrap();
        assert_eq!(again.get("host-key"), new);
        assert_eq!(again.answers, ["ending"]);
        assert_eq!(container.wait(), 0, "{}", container.logs());
    });
}

#[test]
fn a_term_ends_it_as_process_1() {
    with_agent(images::shell_less, |job| {
        let container = job.container().start();
        job.launch.greeting(&container);
        assert_eq!(container.inspect("{{.Path}}"), AGENT);
        container.signal("TERM");
        assert_eq!(container.wait(), 0, "{}", container.logs());
    });
}
