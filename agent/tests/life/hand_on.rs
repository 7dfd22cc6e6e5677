//! One port for both roles of a task.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;

use crate::harness::STUCK;
use crate::launch::{Greeter, Launch, Launched, log_in, run};

const HELPER: &str = "SSH-2.0-gitlab-aws-driver_0.1.0 helper";

fn build(socket: &Path) -> Launched {
    let socket = socket.display();
    Launch::new()
        .word("role=build")
        .word(&format!("hand-on=helper:{socket}"))
        .start()
}

fn helper(socket: &Path) -> Launched {
    let words = format!("role=helper listen=- socket={}", socket.display());
    Launch::with(&words).start()
}

#[tokio::test]
async fn each_role_is_reached_at_one_port() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("helper");
    let (build, helper) = (build(&socket), helper(&socket));
    let (mut session, seen) = build.dial_as(HELPER).await.unwrap();
    assert_eq!(seen.line(), helper.keys.first_line());
    log_in(&mut session, &helper.keys.login).await;
    // Both ways, more than all buffers hold.
    let (said, _, code) = run(&session, "head -c 9000000 /dev/zero | tr '\\0' x; exit 4").await;
    assert_eq!((said.len(), code), (9_000_000, Some(4)));
    let (mut greeter, facts) = Greeter::new(session).await;
    assert_ne!(facts["host-key"], helper.keys.first_line());
    assert_eq!(greeter.order("pin").await, "pinned");
    let (_, seen) = build.dial_as(HELPER).await.unwrap();
    assert_eq!(seen.line(), facts["host-key"]);

    // Its own role, none, and another program whose line has a word in the same place.
    for version in [
        "SSH-2.0-gitlab-aws-driver_0.1.0 build",
        "SSH-2.0-gitlab-aws-driver_0.1.0",
        "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3",
    ] {
        let (mut session, seen) = build.dial_as(version).await.unwrap();
        assert_eq!(seen.line(), build.keys.first_line());
        log_in(&mut session, &build.keys.login).await;
    }
    let unknown = build.dial_as("SSH-2.0-gitlab-aws-driver_0.1.0 cook").await;
    assert!(unknown.is_err());
    // The socket goes with its agent.
    assert_eq!(greeter.order("end").await, "ending");
    assert_eq!(helper.end().0, Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_role_that_is_not_there_is_told() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("helper");
    let build = build(&socket);
    assert!(build.dial_as(HELPER).await.is_err());
    let line = build.line("helper");
    assert!(line.contains(socket.to_str().unwrap()), "{line}");
    // One that has ended without a word leaves its file.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(build.dial_as(HELPER).await.is_err());
    build.line("refused");
    let helper = helper(&socket);
    let (_, seen) = build.dial_as(HELPER).await.unwrap();
    assert_eq!(seen.line(), helper.keys.first_line());
}

#[tokio::test]
async fn bytes_pass_unchanged_and_each_side_may_end_first() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("helper");
    let listener = UnixListener::bind(&socket).unwrap();
    let build = build(&socket);
    let mut client = TcpStream::connect(build.address.unwrap()).await.unwrap();
    let sent = format!("{HELPER}\r\nand\0more");
    // The line comes in pieces.
    let (first, rest) = sent.split_at(12);
    client.write_all(first.as_bytes()).await.unwrap();
    client.write_all(rest.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let carried = async {
        let (mut there, _) = listener.accept().await.unwrap();
        let mut came = String::new();
        there.read_to_string(&mut came).await.unwrap();
        there.write_all(b"after its end").await.unwrap();
        drop(there);
        let mut back = String::new();
        client.read_to_string(&mut back).await.unwrap();
        (came, back)
    };
    let (came, back) = timeout(STUCK, carried).await.unwrap();
    assert_eq!(came, sent);
    assert_eq!(back, "after its end");
}
