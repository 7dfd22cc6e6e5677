//! A terminal, as a person's SSH client sees it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "all keys here are ed25519")]

#[path = "../server/harness.rs"]
#[expect(dead_code, reason = "the other tests of the agent use more of it")]
mod harness;

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, Pty, Sig};

use crate::harness::{Agent, Ending, Pinned, STUCK, collect, exec};

/// Without echo, line editing and translation: bytes come as they are.
const RAW: [(Pty, u32); 7] = [
    (Pty::ISIG, 0),
    (Pty::IEXTEN, 0),
    (Pty::ECHO, 0),
    (Pty::ICANON, 0),
    (Pty::OPOST, 0),
    (Pty::ICRNL, 0),
    (Pty::IXON, 0),
];

/// Says by the greeting whether terminals may be opened.
async fn allow(session: &Handle<Pinned>, word: &str) {
    let mut channel = session.channel_open_session().await.unwrap();
    channel
        .request_subsystem(true, "gad-greeting")
        .await
        .unwrap();
    let orders = format!("hello 0.1.0\nterminal {word}\n");
    channel.data_bytes(orders.into_bytes()).await.unwrap();
    until(&mut channel, &format!("\nterminal {word}\n")).await;
}

/// Reads until a text has come; returns all that came.
async fn until(channel: &mut Channel<Msg>, text: &str) -> String {
    let mut seen = String::new();
    let look = async {
        while !seen.contains(text) {
            match channel.wait().await {
                Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                    seen.push_str(&String::from_utf8_lossy(&data));
                }
                Some(_) => {}
                None => panic!("the channel ended after {seen:?}"),
            }
        }
    };
    if tokio::time::timeout(STUCK, look).await.is_err() {
        panic!("waited for {text:?}, saw {seen:?}");
    }
    seen
}

/// Reads the answer to a request.
async fn granted(channel: &mut Channel<Msg>) -> bool {
    loop {
        match channel.wait().await.unwrap() {
            ChannelMsg::Success => return true,
            ChannelMsg::Failure => return false,
            _ => {}
        }
    }
}

/// Opens a channel with a terminal of 80 columns and 25 rows.
async fn terminal(session: &Handle<Pinned>, modes: &[(Pty, u32)]) -> Channel<Msg> {
    let mut channel = session.channel_open_session().await.unwrap();
    let pty = channel.request_pty(true, "xterm-256color", 80, 25, 0, 0, modes);
    pty.await.unwrap();
    assert!(granted(&mut channel).await);
    channel
}

async fn agent() -> (Agent, Handle<Pinned>) {
    let agent = Agent::start();
    let session = agent.login().await;
    allow(&session, "on").await;
    (agent, session)
}

#[tokio::test]
async fn there_is_none_until_it_is_allowed() {
    let agent = Agent::start();
    let session = agent.login().await;
    for allowed in [false, true, false] {
        if allowed {
            allow(&session, "on").await;
        }
        let mut channel = session.channel_open_session().await.unwrap();
        let pty = channel.request_pty(true, "xterm", 80, 25, 0, 0, &[]);
        pty.await.unwrap();
        assert_eq!(granted(&mut channel).await, allowed);
        channel.set_env(true, "LC_ALL", "C").await.unwrap();
        assert_eq!(granted(&mut channel).await, allowed);
        if allowed {
            // Those that are open stay when it is forbidden; no others come.
            channel.request_shell(true).await.unwrap();
            assert!(granted(&mut channel).await);
            allow(&session, "off").await;
            channel.data_bytes(&b"echo $((40+2))\n"[..]).await.unwrap();
            until(&mut channel, "42").await;
        } else {
            channel.request_shell(true).await.unwrap();
            assert!(!granted(&mut channel).await);
        }
    }
}

#[tokio::test]
async fn a_login_shell_on_a_terminal_of_its_own() {
    let (agent, session) = agent().await;
    let mut channel = terminal(&session, &[(Pty::ECHO, 0)]).await;
    channel.set_env(true, "LC_ALL", "C.UTF-8").await.unwrap();
    channel.set_env(true, "LD_PRELOAD", "x").await.unwrap();
    channel.set_env(true, "PATH", "/evil").await.unwrap();
    for expected in [true, false, false] {
        assert_eq!(granted(&mut channel).await, expected);
    }
    channel.request_shell(true).await.unwrap();
    assert!(granted(&mut channel).await);
    let ask = "echo B\"\"EG\"<$0 $TERM $LC_ALL $(tty) $(stty size) $(pwd) $OF_THE_IMAGE $(ps -o sid= -p $$)=$$>\"E\"\"ND\n";
    channel.data_bytes(ask.as_bytes()).await.unwrap();
    let seen = until(&mut channel, ">END").await;
    // The shell may have shown the line itself, too.
    let told = seen.rsplit_once("BEG<").unwrap().1;
    let told = told.split_once(">END").unwrap().0;
    let words: Vec<_> = told.split_whitespace().collect();
    let home = agent.home.path().to_str().unwrap();
    assert_eq!(words[..3], ["-bash", "xterm-256color", "C.UTF-8"]);
    assert!(words[3].starts_with("/dev/pts/"));
    assert_eq!(words[4..7], ["25", "80", home]);
    let (sid, pid) = words.last().unwrap().split_once('=').unwrap();
    assert_eq!(sid, pid, "{told}");
    channel.window_change(132, 50, 0, 0).await.unwrap();
    channel
        .data_bytes(&b"stty size; exit 7\n"[..])
        .await
        .unwrap();
    let (mut read, _write) = channel.split();
    let outcome = tokio::time::timeout(STUCK, collect(&mut read))
        .await
        .unwrap();
    assert!(outcome.text().contains("50 132\r\n"), "{outcome:?}");
    assert_eq!(outcome.ending, Ending::Code(7));
}

#[tokio::test]
async fn bytes_and_endings_of_a_command_are_exact() {
    let (_agent, session) = agent().await;
    for (command, ending) in [
        ("exit 3", Ending::Code(3)),
        ("kill -KILL $$", Ending::Signal("KILL".to_owned())),
    ] {
        let channel = terminal(&session, &[]).await;
        channel.exec(true, command).await.unwrap();
        let (mut read, _write) = channel.split();
        let outcome = tokio::time::timeout(STUCK, collect(&mut read))
            .await
            .unwrap();
        assert_eq!(outcome.ending, ending);
    }
    // All bytes both ways, and more than the kernel, the window and the queues hold.
    let bytes: Vec<u8> = (0..4 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
    let channel = terminal(&session, &RAW).await;
    let command = format!("head -c {} | cat; printf end", bytes.len());
    channel.exec(true, command).await.unwrap();
    let (mut read, write) = channel.split();
    let sent = bytes.clone();
    let feed = tokio::spawn(async move {
        let raw = write.data_bytes(sent).await;
        raw.unwrap();
        write
    });
    let outcome = tokio::time::timeout(STUCK, collect(&mut read))
        .await
        .unwrap();
    drop(feed.await.unwrap());
    assert_eq!(
        outcome.stdout.len(),
        bytes.len() + 3,
        "{:?}",
        outcome.ending
    );
    assert!(outcome.stdout.starts_with(&bytes) && outcome.stdout.ends_with(b"end"));
    assert_eq!(outcome.ending, Ending::Code(0));
}

#[tokio::test]
async fn keys_and_signals_reach_the_foreground() {
    let (_agent, session) = agent().await;
    let mut channel = terminal(&session, &[]).await;
    channel
        .exec(
            true,
            "trap 'echo caught' INT; sh -c 'echo ready; exec cat'; echo went on; read x; echo last",
        )
        .await
        .unwrap();
    until(&mut channel, "ready\r\n").await;
    channel.data_bytes(&b"\x03"[..]).await.unwrap();
    until(&mut channel, "went on\r\n").await;
    channel.signal(Sig::INT).await.unwrap();
    until(&mut channel, "caught\r\n").await;
    let mut channel = terminal(&session, &[]).await;
    channel
        .exec(true, "echo ready; cat; echo at the end")
        .await
        .unwrap();
    until(&mut channel, "ready\r\n").await;
    // The client has no more input.
    channel.eof().await.unwrap();
    until(&mut channel, "at the end\r\n").await;
}

#[tokio::test]
async fn modes_are_the_clients() {
    let (_agent, session) = agent().await;
    let modes = [
        (Pty::ECHO, 0),
        (Pty::ISIG, 0),
        (Pty::ICANON, 0),
        (Pty::VINTR, 255),
        (Pty::TTY_OP_ISPEED, 9600),
    ];
    for (modes, expected) in [
        (&modes[..], ["-isig", "-icanon", "-echo"]),
        (&[][..], ["isig", "icanon", "echo"]),
    ] {
        let channel = terminal(&session, modes).await;
        channel.exec(true, "stty -a").await.unwrap();
        let (mut read, _write) = channel.split();
        let text = collect(&mut read).await.text();
        for word in expected {
            assert!(
                text.split([' ', ';', '\r', '\n']).any(|w| w == word),
                "{word}: {text}"
            );
        }
        assert_eq!(text.contains("intr = <undef>"), !modes.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn a_closed_channel_hangs_up() {
    let (agent, session) = agent().await;
    // Process groups of their own, as those that job control makes: the leader and what it waits for.
    let command = "echo $$; sleep 1000 & echo $!; cat";
    for cut in [false, true] {
        let own;
        let used = if cut {
            own = agent.login().await;
            &own
        } else {
            &session
        };
        let mut channel = terminal(used, &[]).await;
        channel.exec(true, command).await.unwrap();
        let mut seen = String::new();
        while seen.lines().count() < 2 || !seen.ends_with('\n') {
            seen.push_str(&until(&mut channel, "\n").await);
        }
        if cut {
            used.disconnect(russh::Disconnect::ByApplication, "", "")
                .await
                .unwrap();
        } else {
            channel.close().await.unwrap();
        }
        for pid in seen.split_whitespace() {
            agent.wait_gone(pid).await;
        }
    }
    // What ignores it goes on, as under any terminal.
    let mut channel = terminal(&session, &[]).await;
    channel
        .exec(true, "trap '' HUP; echo $$; sleep 1000")
        .await
        .unwrap();
    let pid = until(&mut channel, "\n").await;
    channel.close().await.unwrap();
    let command = format!("kill -0 {0} && kill -KILL -{0}", pid.trim());
    assert_eq!(
        exec(&session, command, Vec::new()).await.ending,
        Ending::Code(0)
    );
}

#[tokio::test]
async fn the_end_of_the_shell_is_the_end() {
    let (_agent, session) = agent().await;
    // Somebody else holds the terminal and writes to it for ever.
    let channel = terminal(&session, &[]).await;
    let command = "(trap '' HUP; while echo more; do :; done) & printf 'all of it'; exit 5";
    channel.exec(true, command).await.unwrap();
    let (mut read, _write) = channel.split();
    let outcome = tokio::time::timeout(STUCK, collect(&mut read))
        .await
        .unwrap();
    assert!(outcome.text().contains("all of it"));
    assert_eq!(outcome.ending, Ending::Code(5));
}

#[tokio::test]
async fn wishes_that_make_no_sense_are_refused() {
    let (agent, session) = agent().await;
    for term in ["x".repeat(1000), "a\nb".to_owned(), "$(id)".to_owned()] {
        let mut channel = session.channel_open_session().await.unwrap();
        channel
            .request_pty(true, &term, 80, 25, 0, 0, &[])
            .await
            .unwrap();
        assert!(!granted(&mut channel).await);
        channel.request_shell(true).await.unwrap();
        assert!(!granted(&mut channel).await);
    }
    // A second one on the same channel, and sizes that nothing has.
    let mut channel = terminal(&session, &[]).await;
    channel
        .request_pty(true, "xterm", 1, 1, 0, 0, &[])
        .await
        .unwrap();
    assert!(!granted(&mut channel).await);
    channel
        .window_change(u32::MAX, 0, u32::MAX, u32::MAX)
        .await
        .unwrap();
    channel.exec(true, "stty size").await.unwrap();
    let text = until(&mut channel, "\n").await;
    assert_eq!(text, "0 65535\r\n");
    assert_eq!(agent.run("echo well").await.text(), "well\n");
}
