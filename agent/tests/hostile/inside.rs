//! A client that has the key and means harm all the same: well-formed messages in any order.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use crate::peer::{Agent, open_channel, request, session_channel};
use crate::random::Random;
use crate::wire::{Words, kexinit};

/// How much more memory, in KiB, the agent may have after the last round than after the first.
const GROWTH: usize = 4 << 10;

/// Any well-formed message of a client, for one of a few channels.
fn message(random: &mut Random) -> Vec<u8> {
    let channel = *random.pick(&[0, 1, 2, 3, 4, 5, 6, 70, u32::MAX]);
    let huge = random.below(20) == 0;
    let name = if huge {
        "x".repeat(100_000)
    } else {
        (*random.pick(&[
            "",
            "TERM",
            "gad-script",
            "gad-greeting",
            "sftp",
            "true",
            "cat",
            "LC_ALL",
        ]))
        .to_owned()
    };
    let number = *random.pick(&[0, 1, 80, 1 << 20, i32::MAX as u32, u32::MAX]);
    match random.below(24) {
        0..=2 => {
            Words::new(90)
                .text("session")
                .number(channel)
                .number(number)
                .number(number)
                .0
        }
        3 => session_channel(channel),
        4 => request(channel, "exec").text(&name).0,
        5 => request(channel, "exec").text("cat").0,
        6 => request(channel, "subsystem").text(&name).0,
        7 => request(channel, "shell").0,
        8 => {
            let modes = Words::default().byte(53).number(0).byte(0).0;
            let words = request(channel, "pty-req").text(&name);
            words
                .number(number)
                .number(number)
                .number(0)
                .number(0)
                .text(modes)
                .0
        }
        9 => request(channel, "env").text(&name).text(&name).0,
        10 => {
            let words = request(channel, "window-change").number(number);
            words.number(number).number(0).number(0).0
        }
        11 => {
            request(channel, "signal")
                .text(random.pick(&["TERM", "HUP", "NONSENSE", ""]))
                .0
        }
        12 => request(channel, &name).0,
        13 => Words::new(93).number(channel).number(number).0,
        14 | 15 => {
            let length = random.below(3000);
            Words::new(94).number(channel).text(random.bytes(length)).0
        }
        16 => Words::new(95).number(channel).number(number).text("x").0,
        17 => Words::new(96).number(channel).0,
        18 => Words::new(97).number(channel).0,
        19 => Words::new(80).text(&name).byte(1).0,
        20 => {
            let words = Words::new(90)
                .text("direct-tcpip")
                .number(channel)
                .number(number);
            let words = words.number(number).text("127.0.0.1").number(22);
            words.text("127.0.0.1").number(1).0
        }
        21 => {
            Words::new(80)
                .text("tcpip-forward")
                .byte(1)
                .text("")
                .number(0)
                .0
        }
        22 => {
            Words::new(*random.pick(&[81, 82, 99, 100, 150, 255]))
                .number(channel)
                .0
        }
        _ => {
            Words::new(90)
                .text(&name)
                .number(channel)
                .number(number)
                .number(number)
                .0
        }
    }
}

/// Sends many of them, ten connections one after the other.
fn round(agent: &Agent, random: &mut Random) {
    for _ in 0..10 {
        let mut wire = agent.login();
        let reader = wire.throw_away();
        for _ in 0..20 {
            let messages: Vec<_> = (0..50).map(|_| message(random)).collect();
            if wire.send_all(&messages).is_err() {
                break;
            }
        }
        drop(wire.stream.shutdown(Shutdown::Write));
        reader.join().unwrap();
    }
    agent.serves();
}

/// Runs the same three times and asserts that the agent has not grown.
fn three_rounds(what: &str, mut round: impl FnMut(&Agent)) {
    let mut agent = Agent::start();
    let sizes = [(); 3].map(|()| {
        round(&agent);
        agent.serves();
        agent.resident()
    });
    eprintln!("{what}: {sizes:?} KiB, {} at most", agent.peak());
    assert!(sizes[2] < sizes[0] + GROWTH, "{sizes:?}");
    assert!(agent.descriptors() < 40);
    agent.is_well();
}

#[test]
fn any_messages_in_any_order() {
    let mut random = Random::new(7);
    three_rounds("any messages", |agent| round(agent, &mut random));
    let mut random = Random::new(8);
    three_rounds("any messages, with terminals", |agent| {
        let mut wire = agent.login();
        let channel = open_channel(&mut wire).unwrap();
        wire.send(&request(channel, "subsystem").text("gad-greeting").0)
            .unwrap();
        let order = Words::new(94).number(channel);
        wire.send(&order.text("hello 0.1.0\nterminal on\n").0)
            .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"terminal on\n") {
            seen.extend(wire.receive_kind(94).unwrap());
        }
        round(agent, &mut random);
    });
}

#[test]
fn ten_thousand_channels() {
    three_rounds("10,000 channels", |agent| {
        let mut wire = agent.login();
        let reader = wire.throw_away();
        let open: Vec<_> = (0..100).map(session_channel).collect();
        let sent = (0..100)
            .take_while(|_| wire.send_all(&open).is_ok())
            .count();
        drop(wire.stream.shutdown(Shutdown::Write));
        reader.join().unwrap();
        // It is ended long before, or at least before the last are answered.
        assert!(sent > 0);
    });
}

#[test]
fn channels_opened_and_closed_for_ever() {
    three_rounds("channels closed again", |agent| {
        let mut wire = agent.login();
        for _ in 0..1000 {
            let channel = open_channel(&mut wire).unwrap();
            wire.send(&Words::new(97).number(channel).0).unwrap();
            wire.receive_kind(97).unwrap();
        }
    });
}

#[test]
fn a_connection_that_opens_too_many_is_ended() {
    let mut agent = Agent::start();
    let mut wire = agent.login();
    let mut opened = 0;
    while let Ok(channel) = open_channel(&mut wire) {
        opened += 1;
        assert!(opened <= 2048);
        if wire.send(&Words::new(97).number(channel).0).is_err() {
            break;
        }
    }
    assert_eq!(opened, 2048);
    agent.is_well();
}

#[test]
fn requests_by_the_thousand() {
    three_rounds("global requests", |agent| {
        let mut wire = agent.login();
        let reader = wire.throw_away();
        let requests: Vec<_> = (0..1000)
            .map(|number| {
                Words::new(80)
                    .text(format!("{number}@example.com"))
                    .byte(1)
                    .0
            })
            .collect();
        for _ in 0..10 {
            wire.send_all(&requests).unwrap();
        }
        drop(wire.stream.shutdown(Shutdown::Write));
        reader.join().unwrap();
    });
}

#[test]
fn data_before_there_is_work_are_not_kept() {
    let mut agent = Agent::start();
    let mut wire = agent.login();
    let channel = open_channel(&mut wire).unwrap();
    let reader = wire.throw_away();
    let large = Words::new(94).number(channel).text(vec![7; 30_000]).0;
    let small = Words::new(94).number(channel).text([7]).0;
    let before = agent.resident();
    for _ in 0..2000 {
        wire.send(&large).unwrap();
    }
    for _ in 0..100 {
        wire.send_all(std::iter::repeat_n(&small, 500)).unwrap();
    }
    agent.serves();
    let after = agent.resident();
    eprintln!("60 MB of early data: {before} KiB before, {after} after");
    assert!(after < before + GROWTH);
    drop(wire.stream.shutdown(Shutdown::Write));
    reader.join().unwrap();
    agent.is_well();
}

#[test]
fn forwarding_is_refused_in_all_its_forms() {
    let mut agent = Agent::start();
    let mut wire = agent.login();
    let open = |kind: &str| {
        Words::new(90)
            .text(kind)
            .number(9)
            .number(1 << 20)
            .number(1 << 15)
    };
    let opens = [
        open("direct-tcpip")
            .text("127.0.0.1")
            .number(22)
            .text("127.0.0.1")
            .number(1),
        open("direct-streamlocal@openssh.com")
            .text("/tmp/socket")
            .text("")
            .number(0),
        open("forwarded-tcpip")
            .text("127.0.0.1")
            .number(22)
            .text("127.0.0.1")
            .number(1),
        open("forwarded-streamlocal@openssh.com")
            .text("/tmp/socket")
            .text(""),
        open("x11").text("127.0.0.1").number(1),
        open("auth-agent@openssh.com"),
        open("tun@openssh.com").number(1).number(0),
    ];
    for open in opens {
        wire.send(&open.0).unwrap();
        wire.receive_kind(92).unwrap();
    }
    let ask = |kind: &str| Words::new(80).text(kind).byte(1);
    let asks = [
        ask("tcpip-forward").text("127.0.0.1").number(0),
        ask("cancel-tcpip-forward").text("127.0.0.1").number(1),
        ask("streamlocal-forward@openssh.com").text("/tmp/socket"),
        ask("cancel-streamlocal-forward@openssh.com").text("/tmp/socket"),
    ];
    for ask in asks {
        wire.send(&ask.0).unwrap();
        wire.receive_kind(82).unwrap();
    }
    let channel = open_channel(&mut wire).unwrap();
    let requests = [
        request(channel, "auth-agent-req@openssh.com"),
        request(channel, "x11-req")
            .byte(0)
            .text("MIT-MAGIC-COOKIE-1")
            .text("00")
            .number(0),
        request(channel, "subsystem").text("sftp"),
    ];
    for request in requests {
        wire.send(&request.0).unwrap();
        wire.receive_kind(100).unwrap();
    }
    agent.is_well();
}

#[test]
fn one_piece_of_work_to_a_channel() {
    let mut agent = Agent::start();
    let mut wire = agent.login();
    let channel = open_channel(&mut wire).unwrap();
    wire.send(&request(channel, "signal").text("TERM").0)
        .unwrap();
    wire.receive_kind(100).unwrap();
    wire.send(&request(channel, "exec").text("cat").0).unwrap();
    wire.receive_kind(99).unwrap();
    for again in [
        request(channel, "exec").text("true"),
        request(channel, "subsystem").text("gad-script"),
        request(channel, "subsystem").text("gad-greeting"),
        request(channel, "shell"),
        request(channel, "pty-req")
            .text("x")
            .number(1)
            .number(1)
            .number(0)
            .number(0)
            .text(""),
    ] {
        wire.send(&again.0).unwrap();
        wire.receive_kind(100).unwrap();
    }
    for end in [96, 96, 97, 97] {
        wire.send(&Words::new(end).number(channel).0).unwrap();
    }
    wire.receive_kind(97).unwrap();
    // The connection is as good as before.
    let channel = open_channel(&mut wire).unwrap();
    wire.send(&request(channel, "exec").text("echo still").0)
        .unwrap();
    assert!(wire.receive_kind(94).unwrap().ends_with(b"still\n"));
    agent.is_well();
}

#[test]
fn new_keys_over_and_over() {
    three_rounds("new keys", |agent| {
        let mut wire = agent.login();
        for _ in 0..100 {
            wire.agree().unwrap();
        }
        open_channel(&mut wire).unwrap();
        // One that is begun and not gone on with; other messages are then forbidden.
        wire.send(&kexinit()).unwrap();
        let reader = wire.throw_away();
        while wire.send(&session_channel(0)).is_ok() {}
        reader.join().unwrap();
    });
}

#[test]
fn clients_that_stall_hold_up_nobody() {
    let mut agent = Agent::start();
    let mut stalled = Vec::new();
    for kind in 0..30 {
        let mut wire = agent.login();
        let channel = open_channel(&mut wire).unwrap();
        wire.send(&request(channel, "exec").text("cat /dev/zero").0)
            .unwrap();
        match kind % 3 {
            // It does not read, though it says that there is room.
            0 => wire
                .send(&Words::new(93).number(channel).number(u32::MAX).0)
                .unwrap(),
            // Its window stays as it is.
            1 => drop(wire.throw_away()),
            // It stops in the midst of a packet.
            _ => {
                let packet = wire.packet(&Words::new(94).number(channel).text([0; 30_000]).0);
                wire.stream.write_all(&packet[..1000]).unwrap();
            }
        }
        stalled.push(wire);
    }
    let slowest = (0..10).map(|_| agent.serves()).max().unwrap();
    eprintln!(
        "30 that stall: login and command {slowest:?}, {} KiB",
        agent.resident()
    );
    assert!(slowest.as_secs() < 10);
    assert!(agent.peak() < 64 << 10);
    drop(stalled);
    agent.is_well();
}

#[test]
fn input_that_nobody_reads_is_bounded() {
    let mut agent = Agent::start();
    let mut wire = agent.login();
    let channel = open_channel(&mut wire).unwrap();
    wire.send(&request(channel, "exec").text("sleep 1000").0)
        .unwrap();
    wire.receive_kind(99).unwrap();
    let reader = wire.throw_away();
    let small = Words::new(94).number(channel).text([7]).0;
    // Single bytes: what they cost is the keeping. At some time the server reads no more.
    wire.stream
        .set_write_timeout(Some(std::time::Duration::from_secs(2)))
        .unwrap();
    let sent = (0..1000)
        .take_while(|_| wire.send_all(std::iter::repeat_n(&small, 1000)).is_ok())
        .count();
    eprintln!("{sent}000 single bytes, {} KiB at most", agent.peak());
    assert!(sent < 1000);
    assert!(agent.peak() < 64 << 10);
    drop(wire.stream.shutdown(Shutdown::Both));
    drop(wire.stream.read(&mut [0]));
    reader.join().unwrap();
    agent.is_well();
}
