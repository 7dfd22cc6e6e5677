//! The lab's proxy, tested without the driver: a fault that it fails to make would make every test of
//! faults pass.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Door;
use crate::lab::proxy::Harm;
use crate::lab::proxy::Proxy;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::ssh::Client;

/// Echoes what every connection sends; runs until the test process ends.
fn echo_server(greeting: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut from = stream.try_clone().unwrap();
                let mut to = stream;
                to.write_all(greeting).unwrap();
                // The end of the other side is no concern of this one.
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(std::net::Shutdown::Write));
            });
        }
    });
    port
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut back = vec![0; bytes.len()];
    stream.write_all(bytes).is_ok() && stream.read_exact(&mut back).is_ok() && back == bytes
}

/// Reads to the end; the error says how the connection ended.
fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, std::io::ErrorKind> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .map(|_| bytes)
        .map_err(|error| error.kind())
}

#[test]
fn the_proxy_cuts() {
    let proxy = Proxy::start(echo_server(b""));
    for (cut, expected) in [
        (Cut::Reset, Err(std::io::ErrorKind::ConnectionReset)),
        (Cut::Close, Ok(Vec::new())),
    ] {
        let mut one = connect(&proxy);
        let mut two = connect(&proxy);
        assert!(echoed(&mut one, b"hello") && echoed(&mut two, b"hello"));
        assert_eq!(proxy.cut(cut), 2);
        assert_eq!(rest(&mut one), expected);
        assert_eq!(rest(&mut two), expected);
    }
    assert!(echoed(&mut connect(&proxy), b"a new one"));
    let counts = proxy.wait("ends", PATIENCE, |counts| counts.open == 0);
    assert_eq!((counts.connections, counts.cut), (5, 4));
    assert_eq!((counts.up, counts.down), (29, 29));
}

#[test]
fn the_proxy_cuts_at_the_byte() {
    let proxy = Proxy::start(echo_server(b""));
    let mut stream = connect(&proxy);
    assert!(echoed(&mut stream, b"12345"));
    proxy.fault_after(Direction::Down, 7, Harm::Cut(Cut::Close));
    stream.write_all(b"abcdefghij").unwrap();
    assert_eq!(rest(&mut stream).unwrap(), b"abcdefg");
    assert_eq!(proxy.counts().down, 12);

    proxy.spare_next();
    proxy.fault_on_next(Direction::Up, 3, Harm::Cut(Cut::Reset));
    assert!(echoed(&mut connect(&proxy), b"spared"));
    let mut stream = connect(&proxy);
    stream.write_all(b"abcdef").unwrap();
    assert!(rest(&mut stream).is_err_and(|kind| kind == std::io::ErrorKind::ConnectionReset));
    assert!(echoed(&mut connect(&proxy), b"no fault any more"));
}

#[test]
fn the_proxy_stalls() {
    let proxy = Proxy::start(echo_server(b""));
    let short = Some(Duration::from_millis(100));
    let mut stream = connect(&proxy);
    assert!(echoed(&mut stream, b"hello"));
    for direction in [Direction::Up, Direction::Down] {
        let before = proxy.counts();
        proxy.stall(direction, true);
        stream.write_all(b"world").unwrap();
        stream.set_read_timeout(short).unwrap();
        let waited = stream.read(&mut [0; 1]);
        assert_eq!(waited.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(proxy.counts().down, before.down);
        proxy.stall(direction, false);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"world");
        proxy.wait_bytes(direction, before.bytes(direction) + 5, PATIENCE);
    }
    // A connection that a fault has stalled stays so, while others go through.
    proxy.fault_after(Direction::Down, 2, Harm::Stall);
    stream.write_all(b"xyz").unwrap();
    let mut back = [0; 2];
    stream.read_exact(&mut back).unwrap();
    stream.set_read_timeout(short).unwrap();
    assert!(stream.read(&mut [0; 1]).is_err());
    assert!(echoed(&mut connect(&proxy), b"another"));
    proxy.black_hole(true);
    let mut other = connect(&proxy);
    other.set_read_timeout(short).unwrap();
    assert!(!echoed(&mut other, b"nothing"));
    proxy.black_hole(false);
    // Cutting works on what is stalled.
    proxy.cut(Cut::Reset);
    assert!(rest(&mut stream).is_err());
}

#[test]
fn the_proxy_turns_away() {
    let proxy = Proxy::start(echo_server(b""));
    let mut old = connect(&proxy);
    assert!(echoed(&mut old, b"before"));
    proxy.door(Door::Refuse);
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(echoed(&mut old, b"old ones go on"));
    proxy.door(Door::Close);
    assert_eq!(rest(&mut connect(&proxy)).unwrap(), b"");
    proxy.door(Door::Silent);
    let mut silent = connect(&proxy);
    silent
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(rest(&mut silent).is_err_and(|kind| kind == std::io::ErrorKind::WouldBlock));
    proxy.wait("the silent one", PATIENCE, |counts| counts.turned_away == 2);
    proxy.door(Door::Open);
    assert!(echoed(&mut connect(&proxy), b"after"));
    assert_eq!(proxy.counts().turned_away, 2);

    proxy.delay(Some(Duration::from_millis(50)));
    let began = Instant::now();
    assert!(echoed(&mut old, b"slow"));
    assert!(began.elapsed() >= Duration::from_millis(100));
    proxy.delay(None);

    proxy.set_upstream(echo_server(b"another machine\n"));
    let mut other = connect(&proxy);
    proxy.wait_connections(5, PATIENCE);
    other.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rest(&mut other).unwrap(), b"another machine\n");
}

#[test]
fn the_proxy_penalises_failed_logins() {
    for kind in [Kind::OpenSsh, Kind::Dropbear] {
        let directory = lab::temp_dir();
        let client = Client::new(directory.path());
        let other = directory.path().join("other");
        std::fs::create_dir(&other).unwrap();
        let stranger = Client::new(&other);
        let server = ServerBuilder::new(kind, Login::Bash).build(directory.path());
        let _running = server.start(&client.public_key());
        let proxy = Proxy::start(server.port());
        let lasting = Duration::from_secs(8);
        proxy.penalise(2, lasting, server.log_file());
        let login = |client: &Client| {
            let output = client.spawn(proxy.port(), "echo in").wait(PATIENCE);
            proxy.wait("the login's end", PATIENCE, |counts| counts.open == 0);
            output
        };
        login(&client).assert_success();
        login(&stranger).assert_code(255);
        login(&client).assert_success();
        login(&stranger).assert_code(255);
        login(&stranger).assert_code(255);
        let began = Instant::now();
        login(&client).assert_code(255);
        let turned_away = proxy.counts().turned_away;
        assert_eq!(turned_away, 1, "{kind:?}: {}", server.log());
        while login(&client).code() != Some(0) {
            assert!(began.elapsed() < PATIENCE, "{}", server.log());
        }
        assert!(began.elapsed() < PATIENCE);
    }
}
