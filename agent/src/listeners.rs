//! Where clients come from: TCP, and a Unix socket in a directory that the containers of a task share.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::Error;
use crate::logins::Source;

/// The longest path that the kernel takes for a socket.
const PATH_MAX: usize = 107;

/// What is listened on.
#[derive(Debug, Default)]
pub struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// From anywhere.
    Tcp(TcpStream),
    /// From a container of the same task.
    Unix(UnixStream),
}

impl Stream {
    /// Says where it comes from.
    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or(Source::Near, Source::from),
            Self::Unix(_) => Source::Near,
        }
    }
}

impl From<TcpListener> for Listeners {
    fn from(tcp: TcpListener) -> Self {
        Self {
            tcp: Some(tcp),
            unix: None,
        }
    }
}

impl Listeners {
    /// Listens at the first of these addresses that can be had, and on a socket.
    ///
    /// # Errors
    ///
    /// Fails where one of the two cannot be had, with the address or the path.
    pub async fn open(addresses: &[SocketAddr], socket: Option<&Path>) -> Result<Self, Error> {
        let mut tcp = None;
        for (at, address) in addresses.iter().enumerate() {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    tcp = Some(listener);
                    break;
                }
                Err(_) if at + 1 < addresses.len() => {}
                Err(source) => {
                    return Err(Error::Listen {
                        place: address.to_string(),
                        source,
                    });
                }
            }
        }
        let unix = match socket {
            Some(path) => {
                let fail = |source| Error::Listen {
                    place: path.display().to_string(),
                    source,
                };
                let listener = bind(path).await.map_err(fail)?;
                Some((listener, path.to_owned()))
            }
            None => None,
        };
        Ok(Self { tcp, unix })
    }

    /// Returns where is listened, for the log.
    ///
    /// # Errors
    ///
    /// Fails where the system does not say.
    pub fn places(&self) -> io::Result<Vec<String>> {
        let tcp = match &self.tcp {
            Some(tcp) => Some(tcp.local_addr()?.to_string()),
            None => None,
        };
        let unix = self
            .unix
            .as_ref()
            .map(|(_, path)| path.display().to_string());
        Ok(tcp.into_iter().chain(unix).collect())
    }

    /// Waits for a connection. Nothing is lost when dropped early.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        let tcp = async {
            match &self.tcp {
                Some(tcp) => tcp.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                None => std::future::pending().await,
            }
        };
        let unix = async {
            match &self.unix {
                Some((unix, _)) => unix.accept().await.map(|(stream, _)| Stream::Unix(stream)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = tcp => accepted,
            accepted = unix => accepted,
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.unix {
            // The directory may have gone, or be read-only by now.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Listens on a path. What a server that has ended left there makes room.
async fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().as_bytes().len() > PATH_MAX {
        let long = format!("the path of a socket has at most {PATH_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, long));
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path).await => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    // Agents of a task run as different users. Who may log in is for the key to say.
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Tells whether a path is a socket that nobody listens on.
async fn is_stale(path: &Path) -> bool {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.err().is_some_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(path: &Path) -> Result<Listeners, String> {
        Listeners::open(&[], Some(path)).await.map_err(|error| {
            let source = std::error::Error::source(&error).unwrap();
            format!("{error}: {source}")
        })
    }

    #[tokio::test]
    async fn a_socket_replaces_a_dead_one_only() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        // The standard library leaves the file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = open(&path).await.unwrap();
        assert_eq!(first.places().unwrap(), [path.to_str().unwrap()]);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        let refusal = open(&path).await.unwrap_err();
        assert!(refusal.contains(path.to_str().unwrap()), "{refusal}");
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert!(open(&path).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }

    #[tokio::test]
    async fn a_path_has_as_many_bytes_as_the_kernel_takes() {
        let root = tempfile::tempdir().unwrap();
        let room = PATH_MAX - root.path().as_os_str().len() - 1;
        let longest = root.path().join("s".repeat(room));
        assert!(open(&longest).await.is_ok());
        let longer = root.path().join("s".repeat(room + 1));
        let refusal = open(&longer).await.unwrap_err();
        assert!(refusal.contains("at most 107 bytes"), "{refusal}");
    }

    #[tokio::test]
    async fn the_next_address_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = listener.local_addr().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        let found = Listeners::open(&[taken, free], None).await.unwrap();
        assert_ne!(found.places().unwrap(), [taken.to_string()]);
        assert!(Listeners::open(&[taken], None).await.is_err());
        drop(listener);
    }
}
