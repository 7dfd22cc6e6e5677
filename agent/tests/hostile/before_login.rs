//! Whatever bytes come before the login.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::peer::{Agent, new_key, session_channel};
use crate::random::Random;
use crate::wire::{VERSION, Wire, Words, clear, kexinit};

/// How long the default suite's rounds take, and the long ones'.
const SHORT: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(600);

/// How much memory the agent may take, in KiB.
const MEMORY: usize = 24 << 10;

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by it how long they may take"
)]
fn duration() -> Duration {
    std::env::var_os("GAD_LONG").map_or(SHORT, |_| LONG)
}

/// What a good client sends before it has keys.
fn handshake() -> Vec<u8> {
    let mut bytes = format!("{VERSION}\r\n").into_bytes();
    bytes.extend(clear(&kexinit()));
    bytes.extend(clear(&Words::new(30).text([9; 32]).0));
    bytes.extend(clear(&[21]));
    bytes
}

/// Sends bytes and lets the server say what it likes, for a moment.
fn send(agent: &Agent, bytes: &[u8], random: &mut Random) {
    let Ok(mut stream) = TcpStream::connect(agent.address) else {
        return;
    };
    let pieces = if random.below(4) == 0 {
        1 + random.below(8)
    } else {
        1
    };
    for piece in bytes.chunks(bytes.len().div_ceil(pieces).max(1)) {
        if stream.write_all(piece).is_err() {
            return;
        }
    }
    // With its end the server has read all that it reads.
    if random.below(2) == 0 && stream.shutdown(Shutdown::Write).is_ok() {
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
    }
}

fn garbage(agent: &Agent, random: &mut Random) {
    let length = random.below(2000);
    let bytes = match random.below(4) {
        0 => random.bytes(length),
        1 => vec![b'A'; 200 + random.below(400)],
        2 => {
            let end = *random.pick(&["", "\n", "\r\n", "\r"]);
            let mut line = b"SSH-2.0-".to_vec();
            line.extend(vec![b'x'; random.below(300)]);
            line.extend(end.as_bytes());
            line
        }
        _ => [format!("{VERSION}\r\n").into_bytes(), random.bytes(length)].concat(),
    };
    send(agent, &bytes, random);
}

fn changed_handshake(agent: &Agent, random: &mut Random) {
    let mut bytes = handshake();
    if random.below(2) == 0 {
        // The line stays good, so that the rest is looked at.
        let mut rest = bytes.split_off(VERSION.len() + 2);
        random.mutate(&mut rest);
        bytes.extend(rest);
    } else {
        random.mutate(&mut bytes);
    }
    send(agent, &bytes, random);
}

/// Payloads that make sense somewhere, in any order, changed or not.
fn payload(wire: &Wire, random: &mut Random) -> Vec<u8> {
    let key = new_key();
    let userauth = |method: &str| {
        Words::new(50)
            .text("root")
            .text("ssh-connection")
            .text(method)
    };
    let mut payload = match random.below(14) {
        0 => Words::new(5).text("ssh-userauth").0,
        1 => Words::new(5).text("ssh-connection").0,
        2 => userauth("none").0,
        3 => userauth("password").byte(0).text("secret").0,
        4 => userauth("password").byte(1).text("secret").text("new").0,
        5 => userauth("keyboard-interactive").text("").text("").0,
        6 => userauth("hostbased").text("ssh-ed25519").text("x").0,
        7 => wire.signed(&key, "root"),
        8 => Words::new(61).number(u32::MAX).text("x").0,
        9 => session_channel(0),
        10 => kexinit(),
        11 => Words::new(80).text("keepalive@openssh.com").byte(1).0,
        12 => Words::new(2).text(random.bytes(40)).0,
        _ => {
            let length = random.below(300);
            random.bytes(length)
        }
    };
    if random.below(3) == 0 {
        random.mutate(&mut payload);
    }
    payload
}

fn with_keys(agent: &Agent, random: &mut Random) {
    let Ok(mut wire) = Wire::open(agent.address) else {
        return;
    };
    let reader = wire.throw_away();
    for _ in 0..random.below(40) {
        let payload = payload(&wire, random);
        let mut packet = wire.packet(&payload);
        if random.below(20) == 0 {
            random.mutate(&mut packet);
        }
        if wire.stream.write_all(&packet).is_err() {
            break;
        }
    }
    drop(wire.stream.shutdown(Shutdown::Write));
    reader.join().unwrap();
}

#[test]
fn whatever_comes_before_the_login_does_no_harm() {
    let mut agent = Agent::start();
    let end = Instant::now() + duration();
    let mut random = Random::new(20);
    let mut rounds = 0;
    while Instant::now() < end {
        for _ in 0..50 {
            match random.below(5) {
                0 | 1 => garbage(&agent, &mut random),
                2 | 3 => changed_handshake(&agent, &mut random),
                _ => with_keys(&agent, &mut random),
            }
        }
        rounds += 50;
        agent.serves();
    }
    eprintln!("{rounds} rounds, {} KiB at most", agent.peak());
    assert!(agent.peak() < MEMORY);
    agent.is_well();
}

#[test]
fn another_key_gets_ten_tries() {
    let mut agent = Agent::start();
    let mut wire = Wire::open(agent.address).unwrap();
    wire.send(&Words::new(5).text("ssh-userauth").0).unwrap();
    let mut refused = 0;
    let mut ended = false;
    for number in 0..100 {
        let request = wire.signed(&new_key(), &format!("user{number}"));
        ended |= wire.send(&request).is_err();
        match wire.receive_kind(51) {
            Ok(_) => refused += 1,
            Err(_) => ended = true,
        }
        if ended {
            break;
        }
    }
    assert!(ended && refused == 10, "{refused}");
    agent.is_well();
}

#[test]
fn little_is_read_before_the_login() {
    let mut agent = Agent::start();
    let mut wire = Wire::open(agent.address).unwrap();
    // Packets that mean nothing, for ever.
    let nothing = Words::new(2).text([0; 1000]).0;
    let sent = (0..10_000)
        .take_while(|_| wire.send(&nothing).is_ok())
        .count();
    assert!(sent < 10_000);
    let mut rest = Vec::new();
    drop(wire.stream.read_to_end(&mut rest));
    agent.is_well();
}
