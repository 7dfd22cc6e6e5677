//! What can keep a server from serving.

use std::io;
use std::path::PathBuf;

/// A reason why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The authorized key is not a public key line.
    #[error(
        "the authorized key is not an OpenSSH public key line such as \"ssh-ed25519 AAAA… comment\""
    )]
    AuthorizedKey(#[source] russh::keys::ssh_key::Error),
    /// The authorized key is of another kind than this server speaks.
    #[error("the authorized key is of type {0}, but only ssh-ed25519 keys can log in")]
    AuthorizedKeyType(String),
    /// The host key could not be read.
    #[error("the host key is not an unencrypted OpenSSH private key")]
    HostKey(#[source] russh::keys::Error),
    /// The host key is of another kind than this server speaks.
    #[error("the host key is of type {0}, but only ssh-ed25519 host keys are used")]
    HostKeyType(String),
    /// A key could not be made or written down.
    #[error("failed to make a host key")]
    NewHostKey(#[source] russh::keys::ssh_key::Error),
    /// The home directory is not there.
    #[error("the home directory {} cannot be used", path.display())]
    Home {
        /// The directory named in the settings.
        path: PathBuf,
        /// Why it cannot be used.
        #[source]
        source: io::Error,
    },
    /// The shell is not there.
    #[error("the shell {} cannot be used", path.display())]
    Shell {
        /// The program named in the settings.
        path: PathBuf,
        /// Why it cannot be used.
        #[source]
        source: io::Error,
    },
    /// Signal handlers could not be installed.
    #[error("failed to watch for signals")]
    Signals(#[source] io::Error),
    /// There is nothing to listen on.
    #[error("failed to listen on {place}")]
    Listen {
        /// The address or the socket's path.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The listening socket no longer works.
    #[error("failed to accept connections")]
    Accept(#[source] io::Error),
}
