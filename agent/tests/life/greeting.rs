//! Orders on the greeting's channel.

use crate::launch::{Greeter, Launch};

#[tokio::test]
async fn each_order_has_one_answer() {
    let agent = Launch::with("listen=127.0.0.1:0 until=4000000000 idle=1000").start();
    let (mut greeter, facts) = agent.greet().await;
    assert_eq!(facts["until"], "4000000000");
    assert_eq!(facts["idle"], "1000");
    for (order, answer) in [
        ("until 4000000001", "until 4000000001"),
        ("until soon", "unknown until"),
        ("until", "unknown until"),
        ("terminal on", "terminal on"),
        ("terminal off", "terminal off"),
        ("terminal", "unknown terminal"),
        ("dance", "unknown dance"),
        ("dance\u{1b}[1m now", "unknown dance?[1m"),
        ("", "unknown "),
        ("end now", "unknown end"),
        ("pin", "pinned"),
    ] {
        assert_eq!(greeter.order(order).await, answer);
    }
    assert_eq!(greeter.hello().await["until"], "4000000001");
    // In pieces, and several at once; what was asked is answered after the last byte, too.
    greeter.send("pi").await;
    greeter.send("n\nuntil 4000000002\npin\n").await;
    greeter.eof().await;
    for answer in ["pinned", "until 4000000002", "pinned"] {
        assert_eq!(greeter.line().await.as_deref(), Some(answer));
    }
    assert_eq!(greeter.line().await, None);
}

#[tokio::test]
async fn a_line_without_end_is_hung_up_on() {
    let agent = Launch::new().start();
    let (mut greeter, _) = agent.greet().await;
    greeter.send(&"x".repeat(10_000)).await;
    assert_eq!(greeter.line().await, None);
    // So is whoever asks on and on without taking in the answers.
    let (session, _) = agent.login().await;
    let mut greeter = Greeter::open(session).await;
    greeter.send(&"hello 1\n".repeat(100_000)).await;
    while greeter.line().await.is_some() {}
    // Others are served.
    agent.greet().await;
}
