//! The two keys of a server: the one that it has and the one that it lets in.

use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use russh::server::Config;

use crate::Error;

/// The key by which clients know a server.
///
/// Its debug form shows the fingerprint, never the key.
#[derive(Clone)]
pub struct HostKey(PrivateKey);

impl HostKey {
    /// Makes a new ed25519 key.
    ///
    /// # Errors
    ///
    /// Fails when the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
            .map(Self)
            .map_err(Error::NewHostKey)
    }

    /// Returns the key that has this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519Keypair::from_seed(seed).into())
    }

    /// Reads a key from the text of an OpenSSH private key file.
    ///
    /// # Errors
    ///
    /// Fails when the text is not such a key, is encrypted, or the key is not ed25519.
    pub fn from_openssh(pem: &str) -> Result<Self, Error> {
        #[expect(
            clippy::disallowed_methods,
            reason = "one of another kind is refused below, before anything is signed"
        )]
        let key = russh::keys::decode_secret_key(pem, None).map_err(Error::HostKey)?;
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(Error::HostKeyType(key.algorithm().to_string()));
        }
        Ok(Self(key))
    }

    /// Returns the text of an OpenSSH private key file that holds the key.
    ///
    /// # Errors
    ///
    /// Fails when the key cannot be encoded, which no ed25519 key does.
    pub fn to_openssh(&self) -> Result<String, Error> {
        self.0
            .to_openssh(LineEnding::LF)
            .map(|text| text.to_string())
            .map_err(Error::NewHostKey)
    }

    /// Returns the 32 bytes that the key is made from (RFC 8032, 5.1.5), as a launch hands them over.
    #[must_use]
    pub fn seed(&self) -> Option<[u8; 32]> {
        let pair = self.0.key_data().ed25519()?;
        Some(pair.private.to_bytes())
    }

    /// Returns the public half as one line, `ssh-ed25519 AAAA…`.
    ///
    /// # Errors
    ///
    /// Fails when the key cannot be encoded, which no ed25519 key does.
    pub fn public_line(&self) -> Result<String, Error> {
        self.0
            .public_key()
            .to_openssh()
            .map(|line| line.trim_end().to_owned())
            .map_err(Error::NewHostKey)
    }

    /// Returns the fingerprint as `ssh-keygen -l` shows it, `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    pub(crate) fn private(&self) -> PrivateKey {
        self.0.clone()
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprint()).finish()
    }
}

/// The keys that a server shows, one at a time.
///
/// The key of a launch has passed through other hands: AWS's API, the container's environment. It is good for the first
/// contact alone. There the client is told of a second one, which was drawn in this process and never leaves it, and pins
/// that. From then on whoever holds the first one can pass for nobody.
pub(crate) struct HostKeys {
    /// What new connections are served with.
    shown: Mutex<Arc<Config>>,
    /// What they are served with once the last key is pinned.
    pinned: Arc<Config>,
    /// The key to be pinned, as one line.
    line: String,
}

impl HostKeys {
    /// Makes the second key where the first is `one_use`; `config` makes what a key is shown with.
    pub(crate) fn new(
        first: &HostKey,
        one_use: bool,
        config: impl Fn(&HostKey) -> Config,
    ) -> Result<Self, Error> {
        let shown = Arc::new(config(first));
        let (pinned, line) = if one_use {
            let second = HostKey::generate()?;
            (Arc::new(config(&second)), second.public_line()?)
        } else {
            (Arc::clone(&shown), first.public_line()?)
        };
        Ok(Self {
            shown: Mutex::new(shown),
            pinned,
            line,
        })
    }

    /// Returns what a new connection is served with.
    pub(crate) fn shown(&self) -> Arc<Config> {
        Arc::clone(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows the last key alone from now on. Connections that are open go on with theirs.
    pub(crate) fn pin(&self) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.pinned);
    }

    /// Returns the public half of the key to be pinned as one line, `ssh-ed25519 AAAA…`.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }
}

impl std::fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKeys").field(&self.line).finish()
    }
}

/// The one key that may log in.
#[derive(Debug, Clone)]
pub struct AuthorizedKey(KeyData);

impl AuthorizedKey {
    /// Reads a public key line; a comment and surrounding white space do no harm.
    ///
    /// # Errors
    ///
    /// Fails when the line is not a public key, or the key is not ed25519.
    pub fn parse(line: &str) -> Result<Self, Error> {
        let key = PublicKey::from_openssh(line.trim()).map_err(Error::AuthorizedKey)?;
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(Error::AuthorizedKeyType(key.algorithm().to_string()));
        }
        Ok(Self(key.key_data().clone()))
    }

    /// Tells whether `key` is this key, whatever its comment.
    pub(crate) fn is(&self, key: &PublicKey) -> bool {
        *key.key_data() == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_key_survives_being_written_down() {
        let key = HostKey::generate().unwrap();
        let again = HostKey::from_openssh(&key.to_openssh().unwrap()).unwrap();
        assert_eq!(key.fingerprint(), again.fingerprint());
        assert!(key.public_line().unwrap().starts_with("ssh-ed25519 AAAA"));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_seed_is_a_key() {
        // The first test of RFC 8032.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = [0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7];
        let key = HostKey::from_seed(&seed);
        let KeyData::Ed25519(found) = key.0.public_key().key_data() else {
            panic!("another kind");
        };
        assert!(found.0.starts_with(&public));
    }

    #[test]
    fn pinning_leaves_the_second_key_alone() {
        let config = |key: &HostKey| Config {
            keys: vec![key.private()],
            ..Config::default()
        };
        let first = HostKey::generate().unwrap();
        let shown = |keys: &HostKeys| {
            let config = keys.shown();
            assert_eq!(config.keys.len(), 1);
            HostKey(config.keys[0].clone()).public_line().unwrap()
        };
        let keys = HostKeys::new(&first, true, config).unwrap();
        assert_eq!(shown(&keys), first.public_line().unwrap());
        assert_ne!(shown(&keys), keys.line());
        keys.pin();
        keys.pin();
        assert_eq!(shown(&keys), keys.line());
        let keys = HostKeys::new(&first, false, config).unwrap();
        keys.pin();
        assert_eq!(keys.line(), first.public_line().unwrap());
        assert_eq!(shown(&keys), keys.line());
    }

    #[test]
    fn only_ed25519_lines_are_authorized() {
        let line = HostKey::generate().unwrap().public_line().unwrap();
        assert!(AuthorizedKey::parse(&format!("  {line} someone@somewhere\n")).is_ok());
        for bad in ["", "ssh-ed25519", "no-pty ssh-ed25519 AAAA", "hello world"] {
            assert!(AuthorizedKey::parse(bad).is_err(), "{bad:?}");
        }
        let p256 = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
        assert!(matches!(
            AuthorizedKey::parse(p256),
            Err(Error::AuthorizedKeyType(_))
        ));
    }
}
