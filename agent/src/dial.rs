//! Carries stdin and stdout to a server and back, as a `ProxyCommand` of OpenSSH does.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// How much is carried at once.
const CHUNK: usize = 64 << 10;

/// Connects to `ADDRESS:PORT` or to a socket's path, and carries bytes until the server has sent its last one.
///
/// # Errors
///
/// Fails when the connection cannot be made or breaks.
pub async fn dial(target: &str) -> io::Result<()> {
    if let Ok(address) = target.parse::<SocketAddr>() {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        carry(stream).await
    } else {
        carry(UnixStream::connect(target).await?).await
    }
}

async fn carry(stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    // Threads that block, since stdin and stdout may be anything; the one that reads stdin is left behind at the end.
    let (typed, mut input) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut stdin = io::stdin().lock();
        while let Ok(taken @ 1..) = io::Read::read(&mut stdin, &mut buffer) {
            if typed.blocking_send(buffer[..taken].to_vec()).is_err() {
                return;
            }
        }
    });
    let send = async {
        while let Some(bytes) = input.recv().await {
            write.write_all(&bytes).await?;
        }
        write.shutdown().await?;
        std::future::pending::<io::Result<()>>().await
    };
    let receive = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let taken = read.read(&mut buffer).await?;
            if taken == 0 {
                return Ok(());
            }
            let mut stdout = io::stdout().lock();
            io::Write::write_all(&mut stdout, &buffer[..taken])?;
            io::Write::flush(&mut stdout)?;
        }
    };
    tokio::select! {
        ended = send => ended,
        ended = receive => ended,
    }
}
