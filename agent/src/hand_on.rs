//! One port for all agents of a task: whoever listens on it hands connections for another role to that role's socket.
//!
//! A client of this project names the role in its version line, `SSH-2.0-gitlab-aws-driver_0.1.0 build`. The line is looked at
//! and left where it is, so that the other agent sees a connection like any other. Other clients' lines may have words in the
//! same place, such as a distribution's name, which mean nothing here.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{Interest, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::Launch;
use crate::say::say;

/// A version line has at most this many bytes, with its end.
const LINE_MAX: usize = 255;

/// How long to wait for more of the line before looking again, where the wake-up was missed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How the version line of a client that names a role starts.
const OURS: &[u8] = b"SSH-2.0-gitlab-aws-driver";

/// Which connections go where.
#[derive(Debug, Default)]
pub(crate) struct HandOn {
    own: Option<String>,
    others: Vec<(String, PathBuf)>,
}

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// It is served here.
    Here,
    /// It goes to the agent of another role.
    To(&'a str, &'a Path),
    /// It is closed.
    Nowhere,
}

impl HandOn {
    pub(crate) fn new(launch: &Launch) -> Self {
        Self {
            own: launch.role.clone(),
            others: launch.hand_on.clone(),
        }
    }

    /// Waits for the version line of a connection, and says where it goes. Takes no byte of it.
    pub(crate) async fn route(&self, stream: &TcpStream) -> Route<'_> {
        if self.others.is_empty() {
            return Route::Here;
        }
        match peek_line(stream).await {
            Ok(line) => self.choose(&line),
            Err(_) => Route::Nowhere,
        }
    }

    fn choose(&self, line: &[u8]) -> Route<'_> {
        let Some(role) = role(line) else {
            return Route::Here;
        };
        if self.own.as_ref().is_some_and(|own| own.as_bytes() == role) {
            return Route::Here;
        }
        self.others
            .iter()
            .find(|(other, _)| other.as_bytes() == role)
            .map_or(Route::Nowhere, |(role, socket)| Route::To(role, socket))
    }
}

/// Returns the role that a version line names.
fn role(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(OURS)?;
    let space = rest.iter().position(|byte| *byte == b' ')?;
    // Another program whose name only starts like ours.
    if !matches!(rest.first(), Some(b'_' | b' ')) {
        return None;
    }
    rest[space + 1..]
        .split(|byte| *byte == b' ')
        .next()
        .filter(|role| !role.is_empty())
}

/// Returns the first line without its end, once it is there.
async fn peek_line(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; LINE_MAX];
    loop {
        let there = stream.peek(&mut buffer).await?;
        let there = &buffer[..there];
        if let Some(end) = there.iter().position(|byte| *byte == b'\n') {
            let line = &there[..end];
            return Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
        }
        if there.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if there.len() == LINE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // The bytes that stay keep the socket readable; only what comes next is news.
        let again: io::Result<()> =
            stream.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
        drop(again);
        let seen = there.len();
        let ready = timeout(LOOK_AGAIN, stream.ready(Interest::READABLE)).await;
        // An end of the stream does not change what is to be seen.
        if let Ok(ready) = ready
            && ready?.is_read_closed()
        {
            let mut more = [0; LINE_MAX];
            if stream.peek(&mut more).await? == seen {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Connects to the agent of another role.
pub(crate) async fn connect(role: &str, socket: &Path) -> Option<UnixStream> {
    match UnixStream::connect(socket).await {
        Ok(there) => Some(there),
        Err(error) => {
            let socket = socket.display();
            say(&format!(
                "a client asked for role {role}, whose agent is not at {socket}: {error}"
            ));
            None
        }
    }
}

/// Carries all bytes both ways; when one side has sent its last, the other one still may.
pub(crate) async fn carry(mut here: TcpStream, mut there: UnixStream) {
    // How it ends concerns nobody here.
    drop(copy_bidirectional(&mut here, &mut there).await);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn roles() -> HandOn {
        HandOn {
            own: Some("build".to_owned()),
            others: vec![("helper".to_owned(), PathBuf::from("/s"))],
        }
    }

    #[test]
    fn only_our_clients_name_roles() {
        let roles = roles();
        let helper = Route::To("helper", Path::new("/s"));
        for (line, expected) in [
            ("SSH-2.0-gitlab-aws-driver_0.1.0 helper", &helper),
            ("SSH-2.0-gitlab-aws-driver_0.1.0 helper x", &helper),
            ("SSH-2.0-gitlab-aws-driver_0.1.0 build", &Route::Here),
            ("SSH-2.0-gitlab-aws-driver_0.1.0", &Route::Here),
            ("SSH-2.0-gitlab-aws-driver_0.1.0 ", &Route::Here),
            ("SSH-2.0-gitlab-aws-driver_0.1.0 else", &Route::Nowhere),
            ("SSH-2.0-gitlab-aws-drivers_1 helper", &Route::Here),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", &Route::Here),
            ("", &Route::Here),
        ] {
            assert_eq!(roles.choose(line.as_bytes()), *expected, "{line}");
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn a_line_in_pieces_is_seen_and_not_taken() {
        let (mut client, server) = pair().await;
        let (sent, seen) = tokio::join!(
            async {
                for piece in ["SSH-2.0-gitlab", "-aws-driver_0 he", "lper\r\nmore"] {
                    client.write_all(piece.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client
            },
            peek_line(&server)
        );
        assert_eq!(seen.unwrap(), b"SSH-2.0-gitlab-aws-driver_0 helper");
        let mut all = [0; 64];
        let there = server.peek(&mut all).await.unwrap();
        assert!(all[..there].starts_with(b"SSH-2.0-gitlab-aws-driver_0 helper\r\n"));
        drop(sent);
    }

    #[tokio::test]
    async fn no_line_is_an_error() {
        let (mut client, server) = pair().await;
        client.write_all(&[b'x'; 300]).await.unwrap();
        assert!(peek_line(&server).await.is_err());
        let (mut client, server) = pair().await;
        client.write_all(b"SSH-2.0").await.unwrap();
        drop(client);
        assert!(peek_line(&server).await.is_err());
        let (client, server) = pair().await;
        drop(client);
        assert!(peek_line(&server).await.is_err());
    }
}
