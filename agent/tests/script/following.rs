//! Output arrives whole and in order, whatever becomes of the connection.

use std::process::Command;

use crate::harness::Agent;
use crate::script::client::{Event, Line, Name, run};

#[tokio::test]
async fn codes_arrive_as_a_shell_tells_them() {
    let agent = Agent::start();
    for (script, last) in [
        ("", "end 0 0"),
        ("exit 3", "end 3 0"),
        ("exit 255", "end 255 0"),
        ("kill -9 $$", "end 137 0"),
        ("kill -TERM $$", "end 143 0"),
        ("kill 0", "end 143 0"),
        ("no-such-command-here", "end 127 0"),
    ] {
        let told = run(&agent, script).await;
        assert_eq!(told.last, last, "{script}");
    }
}

#[tokio::test]
async fn both_streams_come_in_the_order_in_which_they_were_written() {
    let agent = Agent::start();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done; printf end";
    let told = run(&agent, script).await;
    let mut expected: String = (1..=9).map(|i| format!("out {i}\nerr {i}\n")).collect();
    expected.push_str("end");
    assert_eq!(told.text(), expected);
    // All bytes there are, also those that frames begin with.
    let script = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %o $i)\"; i=$((i+1)); done";
    let told = run(&agent, script).await;
    assert_eq!(told.bytes, (0..=255).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_script_finds_what_it_needs() {
    let agent = Agent::start();
    let look = "ls /proc/self/fd | tr '\\n' ' '; grep ^Sig[BIC] /proc/self/status";
    let script = format!(
        "echo \"$HOME:$OF_THE_IMAGE:$PWD\"; readlink /proc/self/fd/0; tty; umask; \
         cut -d ' ' -f 1,5,6 /proc/$$/stat | tr ' ' '\\n' | uniq | wc -l; stat -c %a $0 ${{0%/*}}; {look}"
    );
    let session = agent.login().await;
    let name = Name::new();
    let mut line = Line::start_with(&session, &name, &script, " umask=027").await;
    // Whoever runs the tests may have left descriptors to us; a plain child shows which.
    let mut plain = Command::new("env");
    plain.args(["--default-signal", "sh", "-c", look]);
    let plain = String::from_utf8(plain.output().unwrap().stdout).unwrap();
    let home = agent.home.path().display();
    let expected =
        format!("{home}:kept  as it is:{home}\n/dev/null\nnot a tty\n0027\n1\n600\n700\n{plain}");
    let told = line.rest().await;
    assert_eq!((told.text(), &*told.last), (expected, "end 0 0"));
    line.done(&name).await;
    // Nobody asked for another.
    assert_eq!(run(&agent, "umask").await.text(), "0022\n");
}

#[tokio::test]
async fn a_connection_is_lost_at_any_byte() {
    let agent = Agent::start();
    let expected: Vec<u8> = (1..=200_000)
        .flat_map(|i| format!("{i}\n").into_bytes())
        .collect();
    let name = Name::new();
    let session = agent.login().await;
    let mut line = Line::start(&session, &name, "seq 1 200000").await;
    line.frame("open 0").await;
    drop(session);
    let mut seed: usize = 12345;
    let mut at = 0;
    while at < expected.len() {
        let session = agent.login().await;
        let mut line = Line::follow(&session, &name, at as u64).await;
        line.frame(&format!("open {at}")).await;
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7fff_ffff;
        let wanted = at + seed % 150_000 + 1;
        while at < wanted.min(expected.len()) {
            let Event::Bytes(bytes) = line.next().await else {
                panic!("no bytes at {at}");
            };
            assert!(expected[at..].starts_with(&bytes), "at {at}");
            at += bytes.len().min(wanted - at);
        }
    }
    let session = agent.login().await;
    // Any byte that is still there, also one before the last.
    let mut line = Line::follow(&session, &name, 7).await;
    let told = line.rest().await;
    assert!(told.bytes == expected[7..]);
    assert_eq!(told.last, "end 0 0");
    line.done(&name).await;
}

#[tokio::test]
async fn nobody_is_told_of_bytes_that_are_not_there() {
    let agent = Agent::start();
    let session = agent.login().await;
    let name = Name::new();
    let mut line = Line::start(&session, &name, "echo five").await;
    line.rest().await;
    let mut line = Line::follow(&session, &name, 99).await;
    line.frame("open 5").await;
    line.frame("end 0 0").await;
    line.done(&name).await;
}

#[tokio::test]
async fn a_script_waits_for_receipts_at_the_cap() {
    let agent = Agent::start();
    let session = agent.login().await;
    let name = Name::new();
    let counted = agent.home.path().join("counted");
    let script = format!(
        "i=0; while [ $i -lt 96 ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i >{}; done",
        counted.display()
    );
    let mut line = Line::start(&session, &name, &script).await.without_acks();
    line.frame("open 0").await;
    // All that comes without a receipt: 64 MiB, and the pipe has some of the next.
    let mut bytes = 0;
    let mut nexts = Vec::new();
    while bytes < 64 << 20 || nexts.len() < 4 {
        match line.next().await {
            Event::Bytes(more) => bytes += more.len() as u64,
            Event::Frame(next) => nexts.push((next, bytes)),
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<_> = (1..=4_u64)
        .map(|i| (format!("next {}", i * (16 << 20)), i * (16 << 20)))
        .collect();
    assert_eq!(nexts, expected);
    // The 65th piece does not fit into the pipe. A script that went on would have it counted while others are served.
    for _ in 0..20 {
        agent.run("true").await;
    }
    assert_eq!(std::fs::read_to_string(&counted).unwrap().trim(), "64");
    assert_eq!(bytes, 64 << 20);
    line.order("ack 16777216").await;
    let mut line = line.with_acks();
    let told = line.rest().await;
    assert_eq!(told.bytes.len(), 32 << 20);
    assert_eq!(told.last, "end 0 0");
    line.done(&name).await;
}

#[tokio::test]
async fn a_second_follower_retires_the_first() {
    let agent = Agent::start();
    let (one, two) = (agent.login().await, agent.login().await);
    let name = Name::new();
    let mut first = Line::start(&one, &name, "echo begun; read x <~/go; echo $x").await;
    let go = agent.home.path().join("go");
    crate::fifo(&go);
    // The pipe may have been missing when the script opened it.
    first.until("begun\n").await;
    let mut second = Line::follow(&two, &name, 0).await;
    second.until("begun\n").await;
    assert_eq!(first.rest().await.last, "closed");
    tokio::task::spawn_blocking(move || std::fs::write(go, "went\n").unwrap())
        .await
        .unwrap();
    let told = second.rest().await;
    assert_eq!((told.text().as_str(), &*told.last), ("went\n", "end 0 0"));
    second.done(&name).await;
}

#[tokio::test]
async fn a_client_that_stalls_holds_up_nobody() {
    let agent = Agent::start();
    let (one, two) = (agent.login().await, agent.login().await);
    let name = Name::new();
    // The client's library takes in a window's worth and no more, as long as nobody reads the channel.
    let stalled = Line::start(&one, &name, "head -c 50000000 /dev/zero").await;
    for _ in 0..3 {
        let told = run(&agent, "seq 1 300000; exit 5").await;
        assert_eq!(told.last, "end 5 0");
        assert_eq!(told.bytes.len(), 1_988_895);
    }
    let mut line = Line::follow(&two, &name, 0).await;
    let told = line.rest().await;
    assert_eq!(told.bytes.len(), 50_000_000);
    line.done(&name).await;
    drop(stalled);
}

#[tokio::test]
async fn much_output_takes_little_memory() {
    let agent = Agent::start();
    let session = agent.login().await;
    let name = Name::new();
    let mut line = Line::start(&session, &name, "head -c 268435456 /dev/zero").await;
    let mut sum = 0;
    loop {
        match line.next().await {
            Event::Bytes(bytes) => sum += bytes.len(),
            Event::Frame(frame) => match frame.split_once(' ') {
                Some(("open", _)) => {}
                Some(("next", at)) => line.order(&format!("ack {at}")).await,
                _ => {
                    assert_eq!(frame, "end 0 0");
                    break;
                }
            },
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sum, 256 << 20);
    line.done(&name).await;
    let kib = agent.peak_kib();
    assert!(kib <= 10 << 10, "{kib} KiB");
}
