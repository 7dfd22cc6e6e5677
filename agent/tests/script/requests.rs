//! What the agent cannot do is named, and nonsense is hung up on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::Agent;
use crate::script::client::{Line, Name};

#[tokio::test]
async fn what_is_not_known_is_named() {
    let agent = Agent::start();
    let session = agent.login().await;
    let Name { key, nonce } = Name::new();
    for (request, word) in [
        (format!("pause {key} {nonce} 1\n"), "pause"),
        (format!("start {key} {nonce} 4 nice=19\ntrue"), "nice"),
        (format!("follow {key} {nonce} 4 backwards\n"), "backwards"),
    ] {
        let mut line = Line::open(&session, &nonce, request.into_bytes()).await;
        line.frame(&format!("unknown {word}")).await;
        line.closed().await;
    }
    let name = Name::new();
    let mut line = Line::start(&session, &name, "echo hello").await;
    line.rest().await;
    line.order("freeze 10").await;
    line.frame("unknown freeze").await;
    line.closed().await;
    // Nothing came of it.
    let line = Line::follow(&session, &name, 6).await;
    line.done(&name).await;
}

#[tokio::test]
async fn nonsense_is_hung_up_on() {
    let agent = Agent::start();
    let session = agent.login().await;
    let Name { key, nonce } = Name::new();
    for request in [
        "\n".to_owned(),
        "start\n".to_owned(),
        format!("start ../../../etc {nonce} 1\n"),
        format!("start {key} {nonce} -1\n"),
        "x".repeat(100_000),
    ] {
        let mut line = Line::open(&session, &nonce, request.into_bytes()).await;
        line.closed().await;
    }
    let name = Name::new();
    let mut line = Line::start(&session, &name, "echo hello").await;
    line.rest().await;
    line.order(&"ack 1".repeat(1000)).await;
    line.closed().await;
    let mut line = Line::follow(&session, &name, 0).await;
    assert_eq!(line.rest().await.text(), "hello\n");
    line.order("ack many").await;
    line.closed().await;
    let line = Line::follow(&session, &name, 6).await;
    line.done(&name).await;
}

#[tokio::test]
async fn data_before_a_request_is_the_requests() {
    let agent = Agent::start();
    let session = agent.login().await;
    let Name { key, nonce } = Name::new();
    let channel = session.channel_open_session().await.unwrap();
    let text = format!("follow {key} {nonce} 0\n");
    channel.data_bytes(text.into_bytes()).await.unwrap();
    let (mut read, write) = channel.split();
    write.request_subsystem(true, "gad-script").await.unwrap();
    let told = crate::collect(&mut read).await;
    assert_eq!(told.text(), format!("\u{1e}{nonce} gone 0\n"));
}

#[tokio::test]
async fn data_without_a_request_are_not_taken_without_end() {
    let agent = Agent::start();
    let session = agent.login().await;
    let channel = session.channel_open_session().await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let (_read, write) = channel.split();
    let feed = tokio::spawn(async move {
        while write.data_bytes(vec![7; 1 << 20]).await.is_ok() {
            count.fetch_add(1 << 20, Ordering::Relaxed);
        }
    });
    // The channel is ended soon; others are served meanwhile, and in that time much would come.
    for _ in 0..50 {
        agent.run("true").await;
    }
    feed.abort();
    assert!(agent.peak_kib() < 40 << 10, "{} KiB", agent.peak_kib());
    assert!(sent.load(Ordering::Relaxed) < 32 << 20);
}
