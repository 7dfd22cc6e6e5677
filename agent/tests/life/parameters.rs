//! What the launch hands over, and who gets to see it.

use std::process::Command;
use std::time::Instant;

use crate::harness::PROGRAM;
use crate::launch::{Keys, Launch, NAMESPACE};

#[tokio::test]
async fn a_file_holds_parameters_until_it_was_read() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("words");
    std::fs::write(&file, "listen=127.0.0.1:0\nidle=900\n").unwrap();
    let agent = Launch::with("until=4000000000")
        .env("GITLAB_AWS_AGENT_FILE", file.to_str())
        .start();
    assert!(!file.exists());
    let (_greeter, facts) = agent.greet().await;
    assert_eq!(facts["until"], "4000000000");
    assert_eq!(facts["idle"], "900");
    let (names, _, _) = agent.run("env | cut -d= -f1").await;
    assert!(names.contains("PATH"), "{names}");
    assert!(!names.contains("GITLAB_AWS_AGENT"), "{names}");
}

#[test]
fn what_is_wrong_is_named() {
    let words = Keys::new().words();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let long = format!("/tmp/{}", "s".repeat(120));
    for (more, expected) in [
        (" colour=red", "unknown word \"colour\""),
        (" role=cook", "role is not build or helper"),
        (" login=AAAA", "login is given twice"),
        (&format!(" listen={taken}"), &taken),
        (&format!(" listen=- socket={long}"), "at most 107 bytes"),
        (" listen=- socket=/nowhere/s", "/nowhere/s"),
    ] {
        let output = Command::new(PROGRAM)
            .env("GITLAB_AWS_AGENT", format!("{words}{more}"))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(expected), "{more}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!stderr.contains(&words), "{stderr}");
    }
}

/// Looks at all that the kernel tells of the agent, which is process 1.
const LOOK: &str = "is=open; for name in environ mem auxv maps syscall stack; do \
    cat /proc/1/$name 2>&1 >/dev/null | grep -q 'denied\\|not permitted' || echo \"$is: $name\"; done; \
    readlink /proc/1/fd/0 /proc/1/fd/2 >/dev/null 2>&1 && echo \"$is: fd\"; \
    (: </proc/1/fd/0) 2>/dev/null && echo \"$is: fd/0\"; \
    echo \"cmdline: $(tr '\\0' ' ' </proc/1/cmdline)\"; \
    env; tr '\\0' '\\n' </proc/self/environ; ls -l /proc/self/fd; for pid in /proc/[0-9]*; do \
    tr '\\0' '\\n' <$pid/environ; tr '\\0' ' ' <$pid/cmdline; done 2>/dev/null";

/// What containers of root's may do where nobody has said otherwise. Besides `sys_ptrace`, newer kernels let `perfmon` and
/// `sys_admin` read environments.
const USUAL: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
    +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

async fn nothing_is_seen(user: &[&str]) {
    let agent = Launch::new().under(&NAMESPACE).under(user).start();
    let (seen, _, code) = agent.run(LOOK).await;
    assert_eq!(code, Some(0), "{seen}");
    assert!(!seen.contains("open: "), "{seen}");
    assert!(seen.contains(&format!("cmdline: {PROGRAM} \n")), "{seen}");
    assert!(!seen.contains("GITLAB_AWS_AGENT"), "{seen}");
    for word in Keys::words(&agent.keys).split(' ') {
        let (_, value) = word.split_once('=').unwrap();
        assert!(!seen.contains(value), "{seen}");
    }
    // Nothing of the agent's own: its sockets, its wake-ups.
    let descriptors: Vec<_> = seen.lines().filter(|line| line.contains(" -> ")).collect();
    assert!(descriptors.len() >= 3, "{seen}");
    for descriptor in descriptors {
        let is_agents = descriptor.contains("socket:") || descriptor.contains("anon_inode:");
        assert!(!is_agents, "{descriptor}");
    }
    // One that has become another user is not killed with `unshare`.
    let (mut greeter, _) = agent.greet().await;
    assert_eq!(greeter.order("end").await, "ending");
    assert_eq!(agent.end().0, Some(0));
}

#[tokio::test]
async fn a_script_of_the_same_user_sees_no_parameter() {
    nothing_is_seen(&[
        "setpriv",
        "--reuid=12345",
        "--regid=12345",
        "--clear-groups",
    ])
    .await;
}

#[tokio::test]
async fn a_script_of_root_sees_no_parameter_where_it_may_not_trace() {
    nothing_is_seen(&[
        "setpriv",
        &format!("--bounding-set={USUAL}"),
        "--inh-caps=-all",
    ])
    .await;
}

#[test]
fn the_start_is_quick() {
    let began = Instant::now();
    let agent = Launch::new().start();
    let took = began.elapsed();
    eprintln!("from exec to accepting: {took:?}");
    let (code, _) = {
        let pid = rustix::process::Pid::from_raw(agent.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        agent.end()
    };
    assert_eq!(code, Some(0));
}
