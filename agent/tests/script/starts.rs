//! A script runs once, or not at all.

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::Agent;
use crate::script::client::{Event, Line, Name};

fn runs(agent: &Agent) -> usize {
    let path = agent.home.path().join("runs");
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .count()
}

const COUNTED: &str = "echo run >>~/runs; echo ran";

#[tokio::test]
async fn a_start_sent_again_only_follows() {
    let agent = Agent::start();
    let name = Name::new();
    let session = agent.login().await;
    let mut line = Line::start(&session, &name, COUNTED).await;
    line.frame("open 0").await;
    drop(session);
    let session = agent.login().await;
    let mut line = Line::start(&session, &name, COUNTED).await;
    assert_eq!(line.rest().await.text(), "ran\n");
    // Orders after the script still count, and the script is none.
    let mut line = Line::start(&session, &name, "drop\ndrop\n").await;
    assert_eq!(line.rest().await.text(), "ran\n");
    line.done(&name).await;
    assert_eq!(runs(&agent), 1);
}

#[tokio::test]
async fn of_starts_at_once_one_wins_and_all_may_follow() {
    let agent = Agent::start();
    for round in 1..=10 {
        let name = Name::new();
        let sessions = [agent.login().await, agent.login().await];
        let lines = tokio::join!(
            Line::start(&sessions[0], &name, COUNTED),
            Line::start(&sessions[1], &name, COUNTED),
        );
        let (mut one, mut two) = lines;
        let told = tokio::join!(one.rest(), two.rest());
        // The later follower has all of it; the earlier one may have been retired.
        for told in [&told.0, &told.1] {
            assert!(["end 0 0", "closed"].contains(&&*told.last), "{told:?}");
        }
        assert!(told.0.text() == "ran\n" || told.1.text() == "ran\n");
        let mut line = Line::follow(&sessions[0], &name, 0).await;
        assert_eq!(line.rest().await.text(), "ran\n");
        line.done(&name).await;
        assert_eq!(runs(&agent), round);
    }
}

#[tokio::test]
async fn a_start_that_was_cut_off_starts_nothing() {
    let agent = Agent::start();
    let name = Name::new();
    let session = agent.login().await;
    let text = format!("start {} {} 100\n{COUNTED}\n", name.key, name.nonce);
    for cut in [10, 70, text.len()] {
        let mut line = Line::open(&session, &name.nonce, text.as_bytes()[..cut].to_vec()).await;
        line.write.eof().await.unwrap();
        line.closed().await;
        assert!(!std::path::Path::new(&name.directory()).exists());
    }
    assert_eq!(runs(&agent), 0);
    let mut line = Line::follow(&session, &name, 0).await;
    line.frame("gone 0").await;
    line.closed().await;
    let mut line = Line::start(&session, &name, COUNTED).await;
    assert_eq!(line.rest().await.text(), "ran\n");
    line.done(&name).await;
    assert_eq!(runs(&agent), 1);
}

#[tokio::test]
async fn what_is_forgotten_does_not_run_again() {
    let agent = Agent::start();
    let name = Name::new();
    let session = agent.login().await;
    let mut line = Line::start(&session, &name, COUNTED).await;
    line.rest().await;
    line.done(&name).await;
    let mut line = Line::start(&session, &name, COUNTED).await;
    line.frame("gone 0").await;
    line.closed().await;
    let mut line = Line::follow(&session, &name, 0).await;
    line.frame("gone 0").await;
    line.closed().await;
    assert_eq!(runs(&agent), 1);
}

#[tokio::test]
async fn the_end_of_input_ends_only_the_follower() {
    let agent = Agent::start();
    let name = Name::new();
    let session = agent.login().await;
    let go = agent.home.path().join("go");
    crate::fifo(&go);
    let mut line = Line::start(&session, &name, "echo up; read x <~/go; echo $x").await;
    line.until("up\n").await;
    line.write.eof().await.unwrap();
    line.closed().await;
    tokio::task::spawn_blocking(move || std::fs::write(go, "went\n").unwrap())
        .await
        .unwrap();
    let mut line = Line::follow(&session, &name, 3).await;
    let told = line.rest().await;
    assert_eq!((told.text().as_str(), &*told.last), ("went\n", "end 0 0"));
    line.done(&name).await;
}

#[tokio::test]
async fn a_long_script_arrives_whole() {
    let agent = Agent::start();
    let name = Name::new();
    let session = agent.login().await;
    let mut script = String::from("cksum <$0; exit 0\n");
    while script.len() < 6 << 20 {
        script.push_str("# a comment that makes it longer, and longer, and longer\n");
    }
    let local = agent.home.path().join("local");
    std::fs::write(&local, &script).unwrap();
    let expected = agent.run("cksum <~/local").await.text();
    let mut line = Line::start(&session, &name, &script).await;
    assert_eq!(line.rest().await.text(), expected);
    line.done(&name).await;
}

#[tokio::test]
async fn an_agent_that_ends_leaves_no_files() {
    let mut agent = Agent::start();
    let name = Name::new();
    let session = agent.login().await;
    let mut line = Line::start(&session, &name, "echo up; exec sleep 1000").await;
    line.until("up\n").await;
    assert!(std::path::Path::new(&name.directory()).exists());
    line.order("kill").await;
    assert_eq!(line.rest().await.last, "end 137 0");
    kill_process(Pid::from_child(&agent.process), Signal::TERM).unwrap();
    assert!(agent.process.wait().unwrap().success());
    assert!(!std::path::Path::new(&name.directory()).exists());
    assert_eq!(line.next().await, Event::Closed);
}
