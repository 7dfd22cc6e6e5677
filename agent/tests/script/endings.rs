//! Scripts end when they are told to, with all that they started.

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::Agent;
use crate::script::client::{Event, Line, Name};

/// The number on the last line of a script's first words.
fn pid(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("pid "));
    line.unwrap().to_owned()
}

fn kill(pid: &str) {
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn exists(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid).exists()
}

#[tokio::test]
async fn a_cancel_reaches_every_process() {
    let agent = Agent::start();
    let session = agent.login().await;
    for script in [
        "sleep 1000 & echo pid $!; echo up; wait",
        // A group of its own.
        "timeout 1000 sh -c 'echo pid $$; echo up; exec sleep 1000'",
        "set -m; sleep 1000 & echo pid $!; echo up; wait",
        // A session of its own.
        "setsid sh -c 'echo pid $$; echo up; exec sleep 1000' & wait",
        "(setsid sh -c '(echo pid $$; echo up; exec sleep 1000)') & wait",
    ] {
        let name = Name::new();
        let mut line = Line::start(&session, &name, script).await;
        let child = pid(&line.until("up\n").await);
        assert!(exists(&child), "{script}");
        line.order("cancel").await;
        // The shell may have its say before its end.
        let last = line.rest().await.last;
        assert!(
            last == "end 143 0" || last == "end 124 0",
            "{script}: {last}"
        );
        line.done(&name).await;
        agent.wait_gone(&child).await;
    }
}

#[tokio::test]
async fn a_script_that_ignores_a_cancel_is_killed_after_its_grace() {
    let agent = Agent::start();
    let session = agent.login().await;
    let name = Name::new();
    let script =
        "trap '' TERM; sh -c 'trap \"\" TERM; echo pid $$; echo up; while :; do sleep 1000; done'";
    let mut line = Line::start(&session, &name, script).await;
    let child = pid(&line.until("up\n").await);
    let begun = std::time::Instant::now();
    line.order("cancel").await;
    assert_eq!(line.rest().await.last, "end 137 0");
    assert!(begun.elapsed().as_secs() >= 9);
    line.done(&name).await;
    agent.wait_gone(&child).await;
}

#[tokio::test]
async fn a_kill_insists_and_a_trap_has_its_time_before() {
    let agent = Agent::start();
    let session = agent.login().await;
    let name = Name::new();
    let script = "trap 'echo trapped' TERM; echo up; while :; do sleep .01; done";
    let mut line = Line::start(&session, &name, script).await;
    line.until("up\n").await;
    line.order("cancel").await;
    line.until("trapped\n").await;
    line.order("kill").await;
    assert_eq!(line.rest().await.last, "end 137 0");
    line.done(&name).await;
}

#[tokio::test]
async fn a_script_is_dropped_with_all_it_runs() {
    let agent = Agent::start();
    let session = agent.login().await;
    let name = Name::new();
    let script =
        "trap '' TERM; setsid sleep 1000 & echo pid $!; echo up; while :; do sleep 1000; done";
    let mut line = Line::start(&session, &name, script).await;
    let child = pid(&line.until("up\n").await);
    line.order("drop").await;
    loop {
        match line.next().await {
            Event::Frame(frame) if frame == "forgotten" => break,
            Event::Frame(_) | Event::Bytes(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Its parent, which is not ours, may not have reaped it yet.
    agent.wait_gone(&child).await;
    assert!(!std::path::Path::new(&name.directory()).exists());
}

#[tokio::test]
async fn a_cancel_and_a_drop_count_though_the_client_goes() {
    let agent = Agent::start();
    let name = Name::new();
    let session = agent.login().await;
    let script = "trap 'echo trapped; exit 9' TERM; echo up; while :; do sleep .01; done";
    let mut line = Line::start(&session, &name, script).await;
    line.until("up\n").await;
    line.order("cancel").await;
    line.write.close().await.unwrap();
    let mut line = Line::follow(&session, &name, 0).await;
    let told = line.rest().await;
    // A shell may say that the command was terminated that it waited for.
    let text = told.text();
    assert!(
        text.starts_with("up\n") && text.ends_with("trapped\n"),
        "{text}"
    );
    assert_eq!(told.last, "end 9 0");
    line.order("drop").await;
    line.write.close().await.unwrap();
    let directory = name.directory();
    while std::path::Path::new(&directory).exists() {
        agent.run("true").await;
    }
    let mut line = Line::follow(&session, &name, 0).await;
    line.frame("gone 0").await;
}

#[tokio::test]
async fn background_children_delay_nobody_and_do_not_die_of_it() {
    let agent = Agent::start();
    let session = agent.login().await;
    let name = Name::new();
    let go = agent.home.path().join("go");
    crate::fifo(&go);
    let script = "(read x <~/go; seq 1 100000; echo late >&2; echo alive >~/alive) & echo pid $!; echo begun; exit 4";
    let mut line = Line::start(&session, &name, script).await;
    line.until("begun\n").await;
    assert_eq!(line.rest().await.last, "end 4 0");
    // Both while the output is known and after it was forgotten.
    line.done(&name).await;
    let alive = agent.home.path().join("alive");
    tokio::task::spawn_blocking(move || std::fs::write(go, "went\n").unwrap())
        .await
        .unwrap();
    while std::fs::read_to_string(&alive).unwrap_or_default() != "alive\n" {
        agent.run("true").await;
    }
}

#[tokio::test]
async fn what_ran_under_the_same_key_is_ended_first() {
    let agent = Agent::start();
    let (one, two) = (agent.login().await, agent.login().await);
    let first = Name::new();
    let script = "trap '' TERM; echo pid $$; echo up; while :; do sleep 1000; done";
    let mut line = Line::start(&one, &first, script).await;
    let left_over = pid(&line.until("up\n").await);
    let second = first.again();
    let script = format!("test -e /proc/{left_over} || echo alone");
    let mut next = Line::start(&two, &second, &script).await;
    assert_eq!(next.rest().await.text(), "alone\n");
    assert!(["closed", "end 137 0"].contains(&&*line.rest().await.last));
    let mut line = Line::follow(&two, &first, 0).await;
    line.frame("gone 0").await;
    line.closed().await;
    next.done(&second).await;
}

#[tokio::test]
async fn a_process_that_survives_is_named() {
    // Without this capability the agent cannot end another user's process.
    let agent = Agent::start_under(&["setpriv", "--inh-caps=-kill", "--bounding-set=-kill"]);
    let session = agent.login().await;
    let name = Name::new();
    let script = "setpriv --reuid 64124 --clear-groups sleep 1000 & echo pid $!; \
        while ! grep -q sleep /proc/$!/comm; do :; done; echo up; wait";
    let mut line = Line::start(&session, &name, script).await;
    let survivor = pid(&line.until("up\n").await);
    line.order("kill").await;
    line.frame("end 137 0").await;
    assert_eq!(
        line.next().await,
        Event::Left(format!("left {survivor} sleep"))
    );
    kill(&survivor);
    line.done(&name).await;
}
