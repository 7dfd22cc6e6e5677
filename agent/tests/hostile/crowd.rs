//! Connections by the thousand.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpSocket;

use crate::peer::Agent;
use crate::wire::{VERSION, Wire, clear, kexinit};

/// How much memory the agent may take, whatever comes from clients that have not logged in.
const MEMORY: usize = 24 << 10;

/// How long a login may take in the midst of others. It takes 20 ms; the machine may be busy.
const LOGIN: Duration = Duration::from_secs(10);

/// Lets this process, and not the agent, open as many descriptors as it likes.
fn many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn a_thousand(what: &str, connect: impl Fn(&Agent) -> std::io::Result<TcpStream>) {
    let mut agent = Agent::start();
    many_descriptors();
    agent.serves();
    let mut open = Vec::new();
    let mut slowest = Duration::ZERO;
    for number in 0..1000 {
        // One that is pushed out while it says its first words is one of the crowd all the same.
        open.extend(connect(&agent));
        if number % 100 == 99 {
            slowest = slowest.max(agent.serves());
        }
    }
    eprintln!(
        "1000 connections, {what}: slowest login {slowest:?}, {} KiB now, {} KiB at most, {} descriptors",
        agent.resident(),
        agent.peak(),
        agent.descriptors(),
    );
    assert!(open.len() > 900);
    assert!(slowest < LOGIN);
    assert!(agent.peak() < MEMORY);
    assert!(agent.descriptors() < 400);
    drop(open);
    agent.is_well();
}

#[test]
fn a_thousand_that_say_nothing() {
    a_thousand("silent", |agent| TcpStream::connect(agent.address));
}

#[test]
fn a_thousand_that_say_who_they_are() {
    a_thousand("with a version line", |agent| {
        let mut stream = TcpStream::connect(agent.address)?;
        stream.write_all(format!("{VERSION}\r\n").as_bytes())?;
        Ok(stream)
    });
}

#[test]
fn a_thousand_that_announce_the_largest_packet() {
    a_thousand("with the largest packet", |agent| {
        let mut stream = TcpStream::connect(agent.address)?;
        let mut bytes = format!("{VERSION}\r\n").into_bytes();
        bytes.extend((256_u32 << 10).to_be_bytes());
        bytes.extend([20; 64]);
        stream.write_all(&bytes)?;
        Ok(stream)
    });
}

#[test]
fn a_thousand_that_have_keys() {
    a_thousand("with keys and the largest packet", |agent| {
        let mut wire = Wire::open(agent.address)?;
        let mut bytes = (256_u32 << 10).to_be_bytes().to_vec();
        bytes.extend([0; 64]);
        wire.stream.write_all(&bytes)?;
        Ok(wire.stream)
    });
}

/// Connects from another address of the loopback network.
async fn from(source: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::from(source), 0)))?;
    let stream = socket.connect(to).await?.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Logs in again and again while one thread floods the port, from the given address.
fn in_a_flood(source: [u8; 4], tries: usize) {
    let mut agent = Agent::start();
    many_descriptors();
    let address = agent.address;
    let stop = AtomicBool::new(false);
    let flood = AtomicUsize::new(0);
    let served = std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let mut hello = format!("{VERSION}\r\n").into_bytes();
            hello.extend(clear(&kexinit()));
            let mut open = std::collections::VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                let Ok(mut stream) = runtime.block_on(from(source, address)) else {
                    continue;
                };
                if stream.write_all(&hello).is_ok() {
                    open.push_back(stream);
                    flood.fetch_add(1, Ordering::Relaxed);
                }
                if open.len() > 500 {
                    open.pop_front();
                }
            }
        });
        while flood.load(Ordering::Relaxed) < 500 {
            std::thread::yield_now();
        }
        let start = Instant::now();
        let mut served = 0;
        for _ in 0..tries {
            served += usize::from(
                agent
                    .try_run("echo yes")
                    .is_ok_and(|output| output == "yes\n"),
            );
        }
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let flood = flood.load(Ordering::Relaxed);
        eprintln!(
            "{served} of {tries} logins in {took:?}, among {flood} connections of {source:?}"
        );
        served
    });
    if source == [127, 0, 0, 1] {
        // From the flood's own address it can be hit, and tries again.
        assert!(served > 0);
    } else {
        assert_eq!(served, tries);
    }
    assert!(agent.peak() < MEMORY);
    agent.is_well();
}

#[test]
fn a_flood_from_elsewhere_hits_itself_alone() {
    in_a_flood([127, 0, 0, 2], 20);
}

#[test]
fn a_flood_from_the_same_address_does_not_shut_out() {
    in_a_flood([127, 0, 0, 1], 20);
}

#[test]
fn the_oldest_of_a_crowd_is_hung_up_on() {
    let agent = Agent::start();
    let mut first = Wire::connect(agent.address).unwrap();
    first.greet().unwrap();
    let rest: Vec<_> = (0..64)
        .map(|_| {
            let mut wire = Wire::connect(agent.address).unwrap();
            wire.greet().unwrap();
            wire
        })
        .collect();
    // Its key exchange has begun; then there is no more.
    let mut bytes = Vec::new();
    drop(first.stream.read_to_end(&mut bytes));
    agent.serves();
    drop(rest);
}
