//! The byte stream below a session: a TCP connection, or a Unix socket of this host.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::failure::{Failure, TCP_TIMEOUT};
use super::quick_ack::QuickAck;
use crate::machine::Endpoint;

/// The longest path that a socket's address takes, without the byte that ends it (unix(7)).
const LONGEST_PATH: usize = 107;

/// What SSH runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The one place where an endpoint becomes a byte stream.
pub(super) async fn dial(endpoint: &Endpoint) -> Result<Box<dyn Stream>, Failure> {
    match &endpoint.socket {
        Some(socket) => dial_socket(socket).await,
        None => dial_tcp(&endpoint.host, endpoint.port).await,
    }
}

async fn dial_tcp(host: &str, port: u16) -> Result<Box<dyn Stream>, Failure> {
    let stream = match timeout(TCP_TIMEOUT, TcpStream::connect((host, port))).await {
        Err(_) => return Err(Failure::TimedOut),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return Err(Failure::Refused),
        Ok(Err(e)) => return Err(Failure::Network(e)),
        Ok(Ok(stream)) => stream,
    };
    stream.set_nodelay(true).map_err(Failure::Network)?;
    Ok(Box::new(QuickAck(stream)))
}

async fn dial_socket(path: &Path) -> Result<Box<dyn Stream>, Failure> {
    let refused = |e: io::Error| match e.kind() {
        // The server makes it when it is up.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Refused,
        _ => Failure::Network(e),
    };
    // Open until the connection stands: the short path goes through it.
    let (_directory, path) = short(path).map_err(refused)?;
    match timeout(TCP_TIMEOUT, UnixStream::connect(&path)).await {
        Err(_) => Err(Failure::TimedOut),
        Ok(done) => Ok(Box::new(done.map_err(refused)?)),
    }
}

/// Returns a path to the same socket that fits into an address.
fn short(path: &Path) -> io::Result<(Option<rustix::fd::OwnedFd>, PathBuf)> {
    if path.as_os_str().len() <= LONGEST_PATH {
        return Ok((None, path.to_owned()));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let by_number = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok((Some(directory), Path::new(&by_number).join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_socket_is_reached_however_long_its_path_is() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("agent.sock");
        assert!(matches!(dial_socket(&path).await, Err(Failure::Refused)));
        let (_open, fits) = short(&path).unwrap();
        let listener = tokio::net::UnixListener::bind(fits).unwrap();
        let (near, far) = tokio::join!(dial_socket(&path), listener.accept());
        let (Ok(mut near), Ok((mut far, _))) = (near, far) else {
            panic!("no connection");
        };
        far.write_all(b"x").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        drop(listener);
        assert!(matches!(dial_socket(&path).await, Err(Failure::Refused)));
    }
}
