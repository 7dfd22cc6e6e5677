//! The two keys of a server: the one that it has and the one that it lets in.

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};

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
