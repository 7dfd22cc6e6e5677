//! The keys of jobs, and the text form of host keys.
//!
//! `ssh-key` is still a pre-release in russh; its types stay in this folder.

use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey, decode_secret_key, key::safe_rng};

use super::rsa::RsaKey;
use crate::error::{Error, Kind, Result};

/// How a key in OpenSSH's format begins.
const OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

/// A job's key pair.
#[derive(Clone)]
pub struct JobKey(pub(super) Pair);

/// The key itself.
#[derive(Clone)]
pub(super) enum Pair {
    /// The key that this driver makes for each job.
    Ed25519(Arc<PrivateKey>),
    /// The key that older Go drivers made.
    Rsa(RsaKey),
}

impl std::fmt::Debug for JobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobKey(..)")
    }
}

impl JobKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn generate() -> Result<Self> {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
            .map(|k| Self(Pair::Ed25519(Arc::new(k))))
            .map_err(|e| Error::new(Kind::Launch, "cannot make the job's key").because(e))
    }

    /// Reads one back from a record.
    ///
    /// # Errors
    /// If it is not a key, or of a kind that is not supported here.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let unusable = || {
            Error::new(
                Kind::State,
                "the job's private key in the record cannot be used",
            )
        };
        if RsaKey::is_one(pem) {
            return match RsaKey::from_pem(pem) {
                Ok(key) => Ok(Self(Pair::Rsa(key))),
                Err(e) => Err(unusable().because(e)),
            };
        }
        if !pem.trim_start().starts_with(OPENSSH) {
            return Err(unusable().because("it is not in OpenSSH's format"));
        }
        // More patient than `PrivateKey::from_openssh` with how the lines are broken: Go breaks them elsewhere.
        #[expect(
            clippy::disallowed_methods,
            reason = "one of another kind is refused below, before anything is signed"
        )]
        let key = decode_secret_key(pem, None).map_err(|e| unusable().because(e))?;
        match key.algorithm() {
            Algorithm::Ed25519 => Ok(Self(Pair::Ed25519(Arc::new(key)))),
            other => Err(unusable().because(format!("it is of the kind {other}"))),
        }
    }

    /// Returns it in its original form, or in OpenSSH's format.
    ///
    /// # Errors
    /// Never in practice: only encoding can fail.
    pub fn to_pem(&self) -> Result<String> {
        match &self.0 {
            Pair::Rsa(key) => Ok(key.to_pem()),
            Pair::Ed25519(key) => key
                .to_openssh(LineEnding::LF)
                .map(|pem| pem.to_string())
                .map_err(|e| Error::new(Kind::State, "cannot encode the job's key").because(e)),
        }
    }

    /// Returns the line for `authorized_keys`.
    ///
    /// # Errors
    /// Never in practice: only encoding can fail.
    pub fn public_line(&self) -> Result<String> {
        match &self.0 {
            Pair::Rsa(key) => line(key.public()),
            Pair::Ed25519(key) => line(key.public_key()),
        }
    }

    /// Whether it is one of the Go driver's RSA keys.
    pub(super) fn is_rsa(&self) -> bool {
        matches!(self.0, Pair::Rsa(_))
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

    #[test]
    fn a_key_is_read_however_its_lines_are_broken_and_others_are_refused() {
        let key = JobKey::generate().unwrap();
        let pem = key.to_pem().unwrap();
        let lines: Vec<_> = pem.trim().lines().collect();
        let body = lines[1..lines.len() - 1].concat();
        let broken = body
            .as_bytes()
            .chunks(64)
            .map(|line| str::from_utf8(line).unwrap());
        let broken: Vec<_> = broken.collect();
        let end = lines[lines.len() - 1];
        let go = format!("{}\n{}\n{end}\n\n", lines[0], broken.join("\n"));
        let again = JobKey::from_pem(&go).unwrap();
        assert_eq!(key.public_line().unwrap(), again.public_line().unwrap());
        let told = |pem: &str| JobKey::from_pem(pem).unwrap_err().to_string();
        assert!(told("-----BEGIN PRIVATE KEY-----\n").contains("OpenSSH's format"));
        assert!(told("-----BEGIN RSA PRIVATE KEY-----\n").contains("no PEM"));
    }
}
