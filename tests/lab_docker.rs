//! The docker engine of the tests, and its images, without the driver.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use crate::lab::PATIENCE;
use crate::lab::docker;
use crate::lab::docker::Docker;
use crate::lab::images;
use crate::lab::processes;
use crate::lab::tools;

const LIMIT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

fn text(command: &mut Command) -> String {
    let done = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(done.status.success(), "{command:?}");
    String::from_utf8(done.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

#[test]
fn ports_below_1024_are_roots_in_every_network() {
    let docker = Docker::shared();
    let image = images::busybox(docker);
    for network in ["none", "host"] {
        let cat = docker.container(&image).command(&["cat", LIMIT]);
        let container = cat.network(network).start();
        assert_eq!(container.wait(), 0, "{}", container.logs());
        let expected = match network {
            "host" => std::fs::read_to_string(LIMIT).unwrap(),
            _ => "1024\n".to_owned(),
        };
        assert_eq!(container.logs(), expected, "{network}");
    }
    // As the containers of a task have one between them.
    let first = docker.container(&image).command(&["sleep", "1000000"]);
    let first = first.start();
    let second = docker.container(&image).command(&["cat", LIMIT]);
    let second = second.network(&format!("container:{}", first.name()));
    let second = second.start();
    assert_eq!(second.wait(), 0, "{}", second.logs());
    assert_eq!(second.logs(), "1024\n");
}

#[test]
fn a_volume_is_shared_and_mounted() {
    let docker = Docker::shared();
    let image = images::busybox(docker);
    let volume = docker.volume();
    let first = docker.container(&image).mount(volume.name(), "/shared");
    let first = first.command(&["sh", "-c", "echo written >/shared/file"]);
    assert_eq!(first.start().wait(), 0);
    let second = docker
        .container(&image)
        .mount(volume.name(), "/elsewhere:ro");
    let second = second.command(&["cat", "/elsewhere/file"]).start();
    assert_eq!(second.wait(), 0);
    assert_eq!(second.logs(), "written\n");
    let here = std::fs::read_to_string(volume.path().join("file")).unwrap();
    assert_eq!(here, "written\n");
}

#[test]
fn images_are_of_the_kinds_that_they_say() {
    let docker = Docker::shared();
    let said = |image: &str, command: &[&str]| {
        let container = docker.container(image).command(command).start();
        let code = container.wait();
        (code, container.logs())
    };
    let shell = |image: &str, line: &str| said(image, &["/bin/sh", "-c", line]);
    let ran = images::ENTRYPOINT_RAN;

    let known = shell(&images::busybox(docker), "busybox | head -n 1");
    assert!(known.1.starts_with("BusyBox"), "{known:?}");
    let shells = "readlink /bin/sh; [ ! -e /bin/busybox ]; exec bash -c 'echo ${BASH_VERSION%%.*}'";
    let (code, answer) = shell(&images::debian(docker), shells);
    assert!(code == 0 && answer.starts_with("dash\n"), "{code} {answer}");
    let who = "id -u; grep -c 12345 /etc/passwd; echo $HOME";
    assert_eq!(
        shell(&images::nameless(docker), who),
        (0, format!("{}\n0\n/\n", images::NAMELESS))
    );
    let missing = docker.container(&images::shell_less(docker));
    let refused = missing
        .clone()
        .command(&["/bin/sh"])
        .try_start()
        .err()
        .unwrap();
    assert!(refused.contains("/bin/sh"), "{refused}");
    let waits = missing.command(&["/bin/sleep", "1000000"]).start();
    assert_ne!(waits.pid(), 0);
    let mounted = format!("grep -c ' {} ' /proc/mounts", images::VOLUME);
    let volume = shell(&images::with_volume(docker), &mounted);
    assert_eq!(volume, (0, "1\n".to_owned()));

    let first = "cat /proc/1/comm";
    assert_eq!(
        shell(&images::becoming_entrypoint(docker), first),
        (0, format!("{ran}\ncat\n"))
    );
    let (name, value) = images::EXPORTED;
    assert_eq!(
        shell(
            &images::exporting_entrypoint(docker),
            &format!("pwd; echo ${name}")
        ),
        (0, format!("{ran}\n/var/tmp\n{value}\n"))
    );
    assert_eq!(
        shell(&images::staying_entrypoint(docker), "exit 3"),
        (3, format!("{ran}\n{}\n", images::STAYED))
    );
    assert_eq!(
        shell(&images::dropping_entrypoint(docker), "echo not me"),
        (0, format!("{ran}\n"))
    );
    assert_eq!(
        said(&images::shell_entrypoint(docker), &["echo me", "not me"]),
        (0, "me\n".to_owned())
    );
    let (code, answer) = said(&images::tool(docker), &["/agent/gitlab-aws-agent"]);
    assert!(
        code == 127 && answer.contains("applet not found"),
        "{code} {answer}"
    );
    let (code, answer) = said(&images::printing_tool(docker), &["/etc/passwd"]);
    assert!(code == 0 && answer.starts_with("root:"), "{code} {answer}");

    let read_only = images::READ_ONLY.iter().fold(
        docker.container(&images::busybox(docker)),
        |container, option| container.option(option),
    );
    let writes =
        "touch /tmp/file && ! touch /file 2>/dev/null && ! touch /var/tmp/file 2>/dev/null";
    let read_only = read_only.command(&["sh", "-c", writes]).start();
    assert_eq!(read_only.wait(), 0, "{}", read_only.logs());
}

#[test]
fn an_entrypoint_that_traps_term_ends_before_its_command() {
    let docker = Docker::shared();
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 1000000; done";
    let trapping = docker.container(&images::trapping_entrypoint(docker));
    let container = trapping.command(&["sh", "-c", stubborn]).start();
    assert_eq!(container.wait_logs("ready"), Ok(()));
    container.signal("TERM");
    assert_eq!(container.wait(), 0);
}

#[test]
fn nothing_is_left_of_an_engine_whose_process_was_killed_even_with_its_guard() {
    let engine = Docker::start();
    let image = images::busybox(&engine);
    let container = engine.container(&image).command(&["sleep", "1000000"]);
    let container = container.start();
    let pid = container.pid();
    std::mem::forget(container);
    let folder = engine.abandon();
    assert!(Path::new(&format!("/proc/{pid}/exe")).exists());

    docker::clear_ownerless();

    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists());
    assert!(!folder.exists());
    let name = folder.file_name().unwrap().to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    let groups = text(Command::new("find").args(["/sys/fs/cgroup", "-name", name]));
    assert_eq!(groups, "");
}

#[test]
fn an_engine_ends_with_the_process_that_started_it() {
    let engine = Docker::start();
    let image = images::busybox(&engine);
    let container = engine.container(&image).command(&["sleep", "1000000"]);
    let container = container.start();
    let folder = engine.folder().to_owned();
    std::mem::forget(container);
    // As the end of this process does.
    drop(engine);
    let left: Vec<String> = processes::wait_none(&folder, PATIENCE)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!folder.exists());
}

#[test]
fn the_static_agent_needs_nothing_of_the_image() {
    let docker = Docker::shared();
    let agent = tools::static_agent();
    let container = docker
        .container(&images::shell_less(docker))
        .mount(agent, "/agent:ro")
        .command(&["/agent", "--version"])
        .start();
    assert_eq!(container.wait(), 0, "{}", container.logs());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(container.logs(), format!("gitlab-aws-agent {version}\n"));
}
