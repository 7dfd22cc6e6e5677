//! Drives the real program over loopback, as an SSH client sees it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::disallowed_methods, reason = "all keys here are ed25519")]

mod harness;
#[path = "../script/mod.rs"]
mod script;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use russh::client::AuthResult;
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::ssh_key::LineEnding;
use russh::{ChannelMsg, Sig};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Agent, Ending, PROGRAM, STUCK, collect, exec, first_line, new_key, start};

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn endings_arrive_as_they_were() {
    let agent = Agent::start();
    let session = agent.login().await;
    for code in [0, 1, 42, 126, 255] {
        let outcome = exec(&session, format!("exit {code}"), Vec::new()).await;
        assert_eq!(outcome.ending, Ending::Code(code));
    }
    for (signal, name) in [
        ("KILL", "KILL"),
        ("TERM", "TERM"),
        ("USR2", "Custom(\"USR2\")"),
    ] {
        let outcome = exec(&session, format!("kill -{signal} $$"), Vec::new()).await;
        assert_eq!(outcome.ending, Ending::Signal(name.to_owned()));
    }
    // OpenSSH's name for what the RFC does not name.
    let outcome = exec(&session, "kill -BUS $$", Vec::new()).await;
    assert_eq!(
        outcome.ending,
        Ending::Signal("Custom(\"SIG@openssh.com\")".to_owned())
    );
}

#[tokio::test]
async fn bytes_pass_unchanged_both_ways_at_once() {
    let agent = Agent::start();
    let session = agent.login().await;
    let small: Vec<u8> = (0..1 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
    assert_eq!(exec(&session, "cat", small.clone()).await.stdout, small);
    // More than all windows and queues hold: who waits for whom matters here.
    let large: Vec<u8> = (0..48 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
    assert!(exec(&session, "cat", large.clone()).await.stdout == large);
    // Input that nobody reads holds up neither output nor the end.
    let outcome = exec(&session, "head -c 9000000 /dev/zero; exit 5", large).await;
    assert_eq!(outcome.stdout.len(), 9_000_000);
    assert_eq!(outcome.ending, Ending::Code(5));
    // The command itself is bytes, too.
    let outcome = exec(&session, b"printf '\xff\xfe'".to_vec(), Vec::new()).await;
    assert_eq!(outcome.stdout, b"\xff\xfe");
}

#[tokio::test]
async fn stdout_and_stderr_stay_apart_and_whole() {
    let agent = Agent::start();
    let outcome = agent
        .run("echo out; echo err >&2; echo again > /dev/stderr")
        .await;
    assert_eq!(outcome.stdout, b"out\n");
    assert_eq!(outcome.stderr, b"err\nagain\n");

    let mut expected = String::new();
    for number in 1..=9_000_000 {
        expected.push_str(&format!("{number}\n"));
    }
    assert!(expected.len() > 64 << 20);
    let outcome = agent.run("seq 1 9000000").await;
    assert!(outcome.stdout == expected.as_bytes());
}

#[tokio::test]
async fn only_the_one_key_logs_in() {
    let agent = Agent::start();
    let mut session = agent.dial().await;
    let wrong = PrivateKeyWithHashAlg::new(Arc::new(new_key()), None);
    let results = [
        session.authenticate_none("root").await.unwrap(),
        session.authenticate_publickey("root", wrong).await.unwrap(),
        session.authenticate_password("root", "").await.unwrap(),
    ];
    for result in results {
        let AuthResult::Failure {
            remaining_methods, ..
        } = result
        else {
            panic!("logged in");
        };
        assert_eq!(*remaining_methods, [russh::MethodKind::PublicKey]);
    }
    let right = PrivateKeyWithHashAlg::new(Arc::new(agent.key.clone()), None);
    let result = session.authenticate_publickey("root", right).await.unwrap();
    assert!(result.success());
}

#[tokio::test]
async fn everything_but_commands_is_refused() {
    let agent = Agent::start();
    let session = agent.login().await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    channel
        .request_pty(true, "xterm", 80, 25, 0, 0, &[])
        .await
        .unwrap();
    channel.set_env(true, "INJECTED", "yes").await.unwrap();
    channel.agent_forward(true).await.unwrap();
    channel
        .request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0)
        .await
        .unwrap();
    for _ in 0..6 {
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    }
    assert!(
        session
            .channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1)
            .await
            .is_err()
    );
    assert!(
        session
            .channel_open_direct_streamlocal("/tmp/socket")
            .await
            .is_err()
    );
    assert!(session.tcpip_forward("127.0.0.1", 0).await.is_err());
    assert!(session.streamlocal_forward("/tmp/socket").await.is_err());

    // None of that harmed the channel; a second command on it is one too many.
    channel
        .exec(true, "echo ${INJECTED-clean}; read line; exit 3")
        .await
        .unwrap();
    assert_eq!(first_line(&mut channel).await, "clean");
    channel.exec(true, "echo second").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.eof().await.unwrap();
    let (mut read, _write) = channel.split();
    assert_eq!(collect(&mut read).await.ending, Ending::Code(3));
    // A command that cannot be started is refused, not lost.
    let outcome = exec(&session, "x".repeat(200_000), Vec::new()).await;
    assert_eq!(outcome.ending, Ending::Refused);
}

#[tokio::test]
async fn a_cut_leaves_the_command_running_and_no_zombie() {
    let agent = Agent::start();
    let (gate, word) = (
        agent.home.path().join("gate"),
        agent.home.path().join("word"),
    );
    fifo(&gate);
    fifo(&word);
    let session = agent.login().await;
    let mut channel = start(&session, "echo $$; read line < gate; echo $line > word").await;
    let pid = first_line(&mut channel).await;
    session
        .disconnect(russh::Disconnect::ByApplication, "", "")
        .await
        .unwrap();
    drop(channel);
    // Both ends of the pipes are ours: opening them waits for the command.
    let survived = tokio::task::spawn_blocking(move || {
        let mut gate = std::fs::OpenOptions::new().write(true).open(gate).unwrap();
        gate.write_all(b"survived\n").unwrap();
        std::fs::read_to_string(word).unwrap()
    });
    let survived = tokio::time::timeout(STUCK, survived)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(survived, "survived\n");
    agent.wait_gone(&pid).await;
}

#[tokio::test]
async fn a_channel_or_client_that_waits_holds_up_nobody() {
    let agent = Agent::start();
    let session = agent.login().await;
    let mut waiting = start(&session, "echo ready; cat; exit 9").await;
    assert_eq!(first_line(&mut waiting).await, "ready");
    // Another client asks for endless output and never reads it.
    let stalled = agent.login().await;
    let unread = start(&stalled, "yes").await;
    for _ in 0..3 {
        assert_eq!(
            exec(&session, "echo hello", Vec::new()).await.stdout,
            b"hello\n"
        );
        let seq = agent.run("seq 1 500000").await;
        assert_eq!(seq.ending, Ending::Code(0));
    }
    let status = format!("/proc/{}/status", agent.process.id());
    let status = std::fs::read_to_string(status).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 48 << 10, "{peak} KiB");
    drop(unread);

    waiting.eof().await.unwrap();
    let (mut read, _write) = waiting.split();
    assert_eq!(collect(&mut read).await.ending, Ending::Code(9));
}

#[tokio::test]
async fn commands_start_with_nothing_of_ours() {
    // As a shell's background job starts it: with signals ignored.
    let agent = Agent::start_under(&["sh", "-c", "trap '' INT QUIT HUP; exec \"$0\" \"$@\""]);
    let look = "umask; ls /proc/self/fd | tr '\\n' ' '; grep ^Sig[BIC] /proc/self/status";
    let outcome = agent.run(look).await.text();
    // Whoever runs the tests may have left things to us; a plain child shows what. Ignored signals (`nohup`) are shed.
    let mut plain = Command::new("env");
    plain.args(["--default-signal", "sh", "-c", look]);
    let plain = plain.output().unwrap();
    assert_eq!(outcome, String::from_utf8(plain.stdout).unwrap());
    let stat = agent.run("cut -d ' ' -f 1,5 /proc/$$/stat").await.text();
    let ids: Vec<_> = stat.split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "the leader of a process group of its own");
}

#[tokio::test]
async fn the_environment_is_the_servers_own() {
    let agent = Agent::start();
    let home = agent.home.path().to_str().unwrap().to_owned();
    let outcome = agent
        .run("echo \"$OF_THE_IMAGE|$HOME|$PWD|$SHELL|$0|${USER:?}|${SSH_TTY-none}\"; id -un")
        .await
        .text();
    let mut lines = outcome.lines();
    let fields: Vec<_> = lines.next().unwrap().split('|').collect();
    let user = lines.next().unwrap();
    assert_eq!(
        fields,
        [
            "kept  as it is",
            &home,
            &home,
            "/bin/sh",
            "sh",
            user,
            "none"
        ]
    );
}

#[tokio::test]
async fn signals_reach_the_whole_process_group() {
    let agent = Agent::start();
    let session = agent.login().await;
    // The child speaks once it is past the fork, where it would still have the trap.
    let script = "trap 'echo got it; exit 7' TERM; sh -c 'echo ready; exec sleep 1000' & wait";
    let mut channel = start(&session, script).await;
    assert_eq!(first_line(&mut channel).await, "ready");
    channel.signal(Sig::TERM).await.unwrap();
    let (mut read, _write) = channel.split();
    // The channel closes only because the sleep, which holds stdout, is gone as well.
    let outcome = tokio::time::timeout(STUCK, collect(&mut read))
        .await
        .unwrap();
    assert_eq!(
        (outcome.text().as_str(), outcome.ending),
        ("got it\n", Ending::Code(7))
    );
}

#[tokio::test]
async fn the_channel_stays_open_while_output_may_still_come() {
    let agent = Agent::start();
    fifo(&agent.home.path().join("gate"));
    let session = agent.login().await;
    let mut channel = start(&session, "{ read line < gate; echo late; } & exit 4").await;
    loop {
        match channel.wait().await.unwrap() {
            ChannelMsg::ExitStatus { exit_status } => break assert_eq!(exit_status, 4),
            ChannelMsg::Success => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    agent.run("echo go > gate").await;
    assert_eq!(first_line(&mut channel).await, "late");
    let (mut read, _write) = channel.split();
    tokio::time::timeout(STUCK, collect(&mut read))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_termination_signal_ends_the_server_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Agent::start();
        let session = agent.login().await;
        kill_process(Pid::from_child(&agent.process), signal).unwrap();
        // The session ends, however it says so.
        drop(tokio::time::timeout(STUCK, session).await.unwrap());
        assert_eq!(agent.process.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn bad_settings_are_told_in_one_line() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let line = new_key().public_key().to_openssh().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&[], "SSH_PUBLIC_KEY"),
        (&["--public-key", "nonsense"], "authorized key"),
        (&["--authorized-key", "/nowhere/key"], "/nowhere/key"),
        (
            &["--public-key", &line, "--host-key", "/dev/null"],
            "/dev/null",
        ),
        (
            &["--public-key", &line, "--shell", "/nowhere/sh"],
            "/nowhere/sh",
        ),
        (&["--public-key", &line, "--listen", &taken], &taken),
    ];
    for (arguments, expected) in cases {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .env_remove("SSH_PUBLIC_KEY")
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[tokio::test]
async fn openssh_gets_along_with_it() {
    let agent = Agent::start();
    let key = agent.home.path().join("key");
    let mut file = std::fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&key)
        .unwrap();
    let pem = agent.key.to_openssh(LineEnding::LF).unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    let port = agent.address.port().to_string();
    let options = [
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "LogLevel=ERROR",
    ];
    let mut ssh = Command::new("ssh");
    ssh.args(options)
        .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]);
    ssh.arg("-i").arg(key).args(["-p", &port, "root@127.0.0.1"]);
    let spawned = ssh
        .arg("cat; echo err >&2; exit 42")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut ssh) = spawned else {
        eprintln!("skipped: there is no ssh client here");
        return;
    };
    ssh.stdin.take().unwrap().write_all(b"in and out").unwrap();
    let output = ssh.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"in and out");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status.code(), Some(42));
}

#[tokio::test]
async fn the_first_process_of_a_container_reaps_orphans() {
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let probe = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: no process namespaces can be made here");
        return;
    }
    let agent = Agent::start_under(&unshare);
    // The subshell ends before its child, which is then the server's.
    let outcome = agent
        .run("sh -c 'sh -c \"read line\" <&0 & echo $!' <&0")
        .await;
    let orphan = outcome.text().trim().to_owned();
    assert!(!orphan.is_empty());
    agent.wait_gone(&orphan).await;
    assert_eq!(agent.run("exit 6").await.ending, Ending::Code(6));
}
