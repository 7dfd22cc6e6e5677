//! When the agent ends, and what ends with it.

use std::io::Write as _;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::STUCK;
use crate::launch::{Launch, Launched, NAMESPACE};

fn send(agent: &Launched, signal: Signal) {
    kill_process(Pid::from_raw(agent.pid()).unwrap(), signal).unwrap();
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn a_signal_ends_it_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let agent = Launch::new().start();
        send(&agent, signal);
        let (code, said) = agent.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("told by a signal"), "{said}");
    }
}

#[test]
fn a_signal_ends_process_1() {
    let agent = Launch::new().under(&NAMESPACE).start();
    let first = Pid::from_raw(agent.first_pid()).unwrap();
    kill_process(first, Signal::TERM).unwrap();
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn a_signal_that_comes_before_the_parameters_is_not_lost() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("words");
    assert!(
        Command::new("mkfifo")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    let agent = Launch::new()
        .env("GITLAB_AWS_AGENT_FILE", file.to_str())
        .spawn();
    // Opens once the agent reads.
    let mut writer = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    send(&agent, Signal::TERM);
    send(&agent, Signal::TERM);
    writer.write_all(b"idle=1000\n").unwrap();
    drop(writer);
    assert_eq!(agent.end().0, Some(0));
}

#[tokio::test]
async fn nobody_comes() {
    let agent = Launch::with("listen=127.0.0.1:0 idle=1")
        .under(&NAMESPACE)
        .start();
    let (code, said) = agent.end();
    assert_eq!(code, Some(0));
    assert!(said.contains("nobody has logged in"), "{said}");

    // Whoever is logged in keeps it, though a connection alone does not.
    let agent = Launch::with("listen=127.0.0.1:0 idle=2").start();
    let (session, _) = agent.login().await;
    let (said, _, _) = crate::launch::run(&session, "sleep 4; echo still there").await;
    assert_eq!(said, "still there\n");
    let (_half_open, _) = agent.dial().await;
    crate::launch::leave(session).await;
    assert_eq!(agent.end().0, Some(0));
}

#[tokio::test]
async fn the_end_is_moved_and_comes() {
    let agent = Launch::with(&format!("listen=127.0.0.1:0 until={}", now() + 1000))
        .under(&NAMESPACE)
        .start();
    let (mut greeter, _) = agent.greet().await;
    let soon = format!("until {}", now() + 1);
    assert_eq!(greeter.order(&soon).await, soon);
    let (code, said) = agent.end();
    assert_eq!(code, Some(0));
    assert!(said.contains("its time is over"), "{said}");
}

#[tokio::test]
async fn what_was_started_ends_with_it() {
    let agent = Launch::new().start();
    // One that has left its session, below a shell that has ended.
    let (pid, _, _) = agent
        .run("setsid sh -c 'trap \"\" TERM; sleep 1000 & wait' >/dev/null 2>&1 & echo $!")
        .await;
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    assert!(rustix::process::test_kill_process(pid).is_ok());
    let (mut greeter, _) = agent.greet().await;
    assert_eq!(greeter.order("end").await, "ending");
    let (code, said) = agent.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("a client ordered it"), "{said}");
    let gone = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_pid()));
    assert_eq!(gone.unwrap_or_default(), "");
}

#[tokio::test]
async fn an_order_ends_it_though_the_client_leaves_at_once() {
    let agent = Launch::new().start();
    let (session, _) = agent.login().await;
    let greeter = crate::launch::Greeter::open(session).await;
    greeter.send("end\n").await;
    greeter.leave().await;
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn until_ends_a_container_whose_entrypoint_goes_on() {
    // It does not become the agent, catches nothing, and has more to do.
    let script = "bash -c '\"$0\"; sleep 1000' \"$0\"; sleep 1000; exit 5";
    let began = std::time::Instant::now();
    let agent = Launch::with(&format!("listen=127.0.0.1:0 until={}", now() + 1))
        .entrypoint(script)
        .start();
    agent.line("its time is over");
    assert_eq!(agent.end().0, Some(5));
    assert!(began.elapsed() < STUCK);
}

#[test]
fn a_container_that_was_not_launched_for_it_goes_on() {
    // The parameters are the agent's alone, as where somebody tries it out by hand.
    let script = "unset GITLAB_AWS_AGENT; exec sh -c 'GITLAB_AWS_AGENT=\"$1\" \"$0\"; sleep 8; exit 6' \"$0\" \"$WORDS\"";
    let launch = Launch::with(&format!("listen=127.0.0.1:0 until={}", now() + 1));
    let words = launch.words.clone();
    let agent = launch.env("WORDS", Some(&words)).entrypoint(script).start();
    // All that is killed elsewhere would be within that time.
    assert_eq!(agent.end().0, Some(6));
}
