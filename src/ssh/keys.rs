//! One-use ed25519 keys, and host keys as they are written down and compared.
//!
//! `ssh-key` is still a pre-release in russh; its types stay in this folder.

use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey, decode_secret_key, key::safe_rng};

use crate::error::{Error, Kind, Result};

/// A job's key pair.
#[derive(Clone)]
pub struct JobKey(pub(super) Arc<PrivateKey>);

impl std::fmt::Debug for JobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobKey(..)")
    }
}

impl JobKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// Where there is no randomness.
    pub fn generate() -> Result<Self> {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
            .map(|k| Self(Arc::new(k)))
            .map_err(|e| Error::new(Kind::Launch, "cannot make the job's key").because(e))
    }

    /// Reads one back from a record.
    ///
    /// # Errors
    /// Where it is no key, or of a kind that is not spoken here.
    pub fn from_pem(pem: &str) -> Result<Self> {
        decode_secret_key(pem, None)
            .map(|k| Self(Arc::new(k)))
            .map_err(|e| {
                Error::new(
                    Kind::State,
                    "the job's private key in the record cannot be used",
                )
                .because(e)
            })
    }

    /// Writes it in OpenSSH's format.
    ///
    /// # Errors
    /// Never in practice: only encoding can fail.
    pub fn to_pem(&self) -> Result<String> {
        self.0
            .to_openssh(LineEnding::LF)
            .map(|pem| pem.to_string())
            .map_err(|e| Error::new(Kind::State, "cannot encode the job's key").because(e))
    }

    /// Returns the line for `authorized_keys`.
    ///
    /// # Errors
    /// Never in practice: only encoding can fail.
    pub fn public_line(&self) -> Result<String> {
        line(self.0.public_key())
    }
}

/// Writes a public key as an OpenSSH line.
pub(super) fn line(key: &PublicKey) -> Result<String> {
    key.to_openssh()
        .map_err(|e| Error::new(Kind::State, "cannot encode a public key").because(e))
}

/// Reads a public key from an OpenSSH line.
pub(super) fn parse_line(line: &str) -> Result<PublicKey> {
    PublicKey::from_openssh(line.trim()).map_err(|e| {
        Error::new(Kind::State, "the host key in the record cannot be read").because(e)
    })
}

/// Returns the fingerprint that people compare.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_record() {
        let key = JobKey::generate().unwrap();
        let again = JobKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(key.public_line().unwrap(), again.public_line().unwrap());
        assert!(key.public_line().unwrap().starts_with("ssh-ed25519 "));
    }
}
