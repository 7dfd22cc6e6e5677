//! The agent starts and greets wherever it is put.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::PROGRAM;
use crate::launch::{Launch, NAMESPACE};

const MOUNTS: [&str; 2] = ["unshare", "--mount"];

/// A user that no list has.
const NOBODYS: [&str; 4] = ["setpriv", "--reuid=12345", "--regid=23456", "--groups=7,8"];

#[tokio::test]
async fn the_greeting_tells_what_is_there() {
    let home = tempfile::tempdir().unwrap();
    let agent = Launch::new().env("HOME", home.path().to_str()).start();
    let (mut greeter, facts) = agent.greet().await;
    let told = |name: &str| facts.get(name).map_or("", String::as_str);
    assert_eq!(told("agent"), env!("CARGO_PKG_VERSION"));
    assert_eq!(told("protocol"), "1");
    assert!(told("can").split(' ').any(|word| word == "script"));
    assert_eq!(told("uid"), "0");
    assert_eq!(told("gid"), "0");
    assert_eq!(told("user"), "root");
    assert_eq!(Path::new(told("home")), home.path());
    assert_eq!(
        Path::new(told("directory")),
        std::env::current_dir().unwrap()
    );
    assert_eq!(told("arch"), std::env::consts::ARCH);
    let first = std::fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(told("process-1"), first.trim());
    assert!(!told("below").is_empty());
    assert_eq!(told("holds-term"), "no");
    assert!(told("shell").ends_with("/bash"), "{}", told("shell"));
    assert_eq!(told("until"), "-");
    assert_eq!(told("idle"), "-");
    // As often as anybody asks, with the same key.
    assert_eq!(greeter.hello().await, facts);
    let (_other, again) = agent.greet().await;
    assert_eq!(again, facts);
}

#[tokio::test]
async fn it_starts_without_a_home() {
    for home in [None, Some("/nowhere"), Some("/dev/null")] {
        let agent = Launch::new().env("HOME", home).under(&NOBODYS).start();
        let (_greeter, facts) = agent.greet().await;
        assert_eq!(facts["home"], "-");
        assert_eq!(facts["user"], "-");
        assert_eq!(facts["uid"], "12345");
        assert_eq!(facts["gid"], "23456");
        assert_eq!(facts["groups"], "7 8");
        let (said, _, code) = agent.run("pwd; id -u; id -g; echo \"${HOME-none}\"").await;
        let directory = std::env::current_dir().unwrap();
        let expected = format!(
            "{}\n12345\n23456\n{}\n",
            directory.display(),
            home.unwrap_or("none")
        );
        assert_eq!((said, code), (expected, Some(0)));
    }
}

#[tokio::test]
async fn a_home_that_cannot_be_entered_is_none() {
    let root = tempfile::tempdir().unwrap();
    // The directory is root's alone.
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    std::fs::set_permissions(root.path(), mode).unwrap();
    let agent = Launch::new()
        .env("HOME", root.path().to_str())
        .under(&NOBODYS)
        .start();
    assert_eq!(agent.greet().await.1["home"], "-");
}

#[tokio::test]
async fn the_users_own_home_stands_in() {
    let agent = Launch::new().env("HOME", Some("/nowhere")).start();
    assert_eq!(agent.greet().await.1["home"], "/root");
    assert_eq!(agent.run("pwd; echo $HOME").await.0, "/root\n/root\n");
}

#[tokio::test]
async fn it_starts_without_a_list_of_users() {
    let hide =
        "mount --bind /dev/null /etc/passwd && mount --bind /dev/null /etc/group && exec \"$0\"";
    let agent = Launch::new()
        .env("HOME", None)
        .under(&MOUNTS)
        .under(&["sh", "-c", hide])
        .start();
    let (_greeter, facts) = agent.greet().await;
    assert_eq!(facts["user"], "-");
    assert_eq!(facts["home"], "-");
    assert_eq!(agent.run("echo $USER").await.0, "root\n");
}

#[tokio::test]
async fn it_starts_on_a_read_only_root() {
    let agent = Launch::new()
        .under(&MOUNTS)
        .under(&["sh", "-c", "mount -o remount,bind,ro / && exec \"$0\""])
        .start();
    let (_greeter, facts) = agent.greet().await;
    assert!(facts["shell"].ends_with("/bash"));
    let (_, _, code) = agent.run("touch /etc/it-is-read-only 2>/dev/null").await;
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn it_starts_without_proc() {
    let agent = Launch::new()
        .under(&MOUNTS)
        .under(&["sh", "-c", "mount -t tmpfs none /proc && exec \"$0\""])
        .start();
    let (mut greeter, facts) = agent.greet().await;
    assert_eq!(facts["process-1"], "-");
    assert_eq!(facts["below"], "-");
    assert_eq!(facts["holds-term"], "no");
    assert_eq!(agent.run("exit 3").await.2, Some(3));
    assert_eq!(greeter.order("end").await, "ending");
    assert_eq!(agent.end().0, Some(0));
}

#[tokio::test]
async fn it_greets_where_there_is_no_shell() {
    let root = tempfile::tempdir().unwrap();
    let inside = |path: &str| root.path().join(path);
    std::fs::create_dir_all(inside("usr/lib")).unwrap();
    std::fs::create_dir_all(inside("usr/lib64")).unwrap();
    symlink("usr/lib", inside("lib")).unwrap();
    symlink("usr/lib64", inside("lib64")).unwrap();
    std::fs::copy(PROGRAM, inside("agent")).unwrap();
    // The libraries of this system, since the program under test is not static, and nothing else.
    let enter = "mount --bind /usr/lib \"$1/usr/lib\" && mount --bind /usr/lib64 \"$1/usr/lib64\" && \
        exec chroot \"$1\" /agent";
    let agent = Launch::new()
        .under(&MOUNTS)
        .under(&["sh", "-c", enter, "sh", root.path().to_str().unwrap()])
        .start();
    let (_greeter, facts) = agent.greet().await;
    assert_eq!(facts["shell"], "-");
    assert_eq!(facts["user"], "-");
    assert_eq!(facts["process-1"], "-");
    assert_eq!(facts["directory"], "/");
    let (said, why, code) = agent.run("true").await;
    assert_eq!((said.as_str(), code), ("", None));
    assert_eq!(
        why,
        "this image has no shell: no command can be run in it\n"
    );
}

#[tokio::test]
async fn orphans_are_collected_as_process_1_and_elsewhere() {
    for namespace in [&NAMESPACE[..], &[]] {
        // One that the shell has left to the program that it became.
        let leave = "sleep 0 & exec \"$0\"";
        let agent = Launch::new()
            .under(namespace)
            .under(&["sh", "-c", leave])
            .start();
        // The inner shell ends before its child, which falls to the agent and ends with its input.
        let (session, _) = agent.login().await;
        let orphan = crate::launch::run(&session, "sh -c 'true & :'; echo").await;
        assert_eq!(orphan.2, Some(0));
        let zombies = "cat /proc/$PPID/task/*/children | tr ' ' '\\n' | while read pid; do \
            grep -s '^State:.Z' /proc/$pid/status; done";
        let collected =
            async { while !crate::launch::run(&session, zombies).await.0.is_empty() {} };
        let stuck = crate::harness::STUCK;
        tokio::time::timeout(stuck, collected).await.unwrap();
        // A command's own end is still its own.
        assert_eq!(crate::launch::run(&session, "exit 6").await.2, Some(6));
    }
}
