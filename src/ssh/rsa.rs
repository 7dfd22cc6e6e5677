//! RSA keys of jobs that the Go driver prepared. They sign through aws-lc-rs.
//!
//! The crate `rsa` has a weakness without a fix (RUSTSEC-2023-0071): an attacker who can time its private operations may learn
//! the key. So no private key ever reaches it, and none becomes russh's `PrivateKey`, which would sign through it. `clippy.toml` keeps
//! that so.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use base64ct::{Base64, Encoding};
use russh::Signer;
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::{Mpint, public};
use russh::keys::{Algorithm, HashAlg, PublicKey};

/// The lines around a key (PKCS#1).
const LINES: (&str, &str) = (
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----END RSA PRIVATE KEY-----",
);
/// How DER marks a sequence and an integer.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// Why a text is not a usable key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// It is not PEM.
    #[error("its text is no PEM without a passphrase")]
    NoPem,
    /// aws-lc-rs refuses it: it is not a key, or has fewer than 2048 or more than 8192 bits.
    #[error("it is no RSA key of 2048 to 8192 bits")]
    Rejected(#[source] aws_lc_rs::error::KeyRejected),
    /// Its public half cannot be encoded.
    #[error("its public half cannot be read")]
    Public,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSigned {
    /// The connection is gone.
    #[error("the connection is lost")]
    Lost,
    /// aws-lc-rs does not sign.
    #[error("the job's RSA key does not sign")]
    Refused,
}

impl From<russh::SendError> for NotSigned {
    fn from(_: russh::SendError) -> Self {
        Self::Lost
    }
}

/// A key pair. Its debug form shows the public half alone.
#[derive(Clone)]
pub(super) struct RsaKey {
    pair: Arc<RsaKeyPair>,
    public: PublicKey,
    pem: String,
}

impl RsaKey {
    /// Whether a text begins as such a key does.
    pub(super) fn is_one(pem: &str) -> bool {
        pem.trim_start().starts_with(LINES.0)
    }

    pub(super) fn from_pem(pem: &str) -> Result<Self, Unusable> {
        let inner = pem
            .trim()
            .strip_prefix(LINES.0)
            .and_then(|rest| rest.strip_suffix(LINES.1))
            .ok_or(Unusable::NoPem)?;
        let base64: String = inner.split_whitespace().collect();
        let der = Base64::decode_vec(&base64).map_err(|_| Unusable::NoPem)?;
        let pair = RsaKeyPair::from_der(&der).map_err(Unusable::Rejected)?;
        let public = public_key(pair.public_key().as_ref()).ok_or(Unusable::Public)?;
        Ok(Self {
            pair: Arc::new(pair),
            public,
            pem: pem.to_owned(),
        })
    }

    pub(super) fn to_pem(&self) -> String {
        self.pem.clone()
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs as RFC 8332 has it.
    fn sign(&self, hash: Hash, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                hash.encoding(),
                &SystemRandom::new(),
                message,
                &mut signature,
            )
            .ok()?;
        Some(signature)
    }
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// The hash of a signature. SHA-1 is missing: aws-lc-rs does not sign with it, and servers do not take it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    /// Returns what to try, one after the other: first the best that a server says that it knows (RFC 8308), or that RFC 8332
    /// asks of everybody. OpenSSH before 9.6 says all that it knows, and not what its configuration leaves of that.
    pub(super) fn to_try(said: Option<Option<HashAlg>>) -> [Self; 2] {
        match said {
            Some(Some(HashAlg::Sha512)) => [Self::Sha512, Self::Sha256],
            _ => [Self::Sha256, Self::Sha512],
        }
    }

    pub(super) fn alg(self) -> HashAlg {
        match self {
            Self::Sha256 => HashAlg::Sha256,
            Self::Sha512 => HashAlg::Sha512,
        }
    }

    fn encoding(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Sha256 => &RSA_PKCS1_SHA256,
            Self::Sha512 => &RSA_PKCS1_SHA512,
        }
    }
}

/// Signs one login.
pub(super) struct Login<'a> {
    pub(super) key: &'a RsaKey,
    pub(super) hash: Hash,
}

impl Signer for Login<'_> {
    type Error = NotSigned;

    /// Returns the data to sign, and the signature after it: a text with the algorithm's name and the bytes.
    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        let signature = self
            .key
            .sign(self.hash, &to_sign)
            .ok_or(NotSigned::Refused)?;
        let name = Algorithm::Rsa {
            hash: Some(self.hash.alg()),
        };
        let mut blob = Vec::new();
        for part in [name.as_str().as_bytes(), &signature] {
            add_text(&mut blob, part).ok_or(NotSigned::Refused)?;
        }
        add_text(&mut to_sign, &blob).ok_or(NotSigned::Refused)?;
        Ok(to_sign)
    }
}

/// Adds a text with its length before it (RFC 4251, section 5).
fn add_text(to: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    to.extend(u32::try_from(text.len()).ok()?.to_be_bytes());
    to.extend_from_slice(text);
    Some(())
}

/// Reads the public half as aws-lc-rs writes it (RFC 8017: a sequence of modulus and exponent).
fn public_key(der: &[u8]) -> Option<PublicKey> {
    let mut rest = der;
    let mut numbers = element(&mut rest, SEQUENCE)?;
    let modulus = Mpint::from_positive_bytes(element(&mut numbers, INTEGER)?);
    let exponent = Mpint::from_positive_bytes(element(&mut numbers, INTEGER)?);
    let key = public::RsaPublicKey::new(exponent, modulus).ok()?;
    Some(PublicKey::from(public::KeyData::Rsa(key)))
}

/// Takes one element of that kind off the front.
fn element<'a>(der: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    let (head, rest) = der.split_first_chunk::<2>()?;
    let [found, short] = *head;
    let (length, rest) = match short {
        0..0x80 => (usize::from(short), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            let length = bytes.iter().try_fold(0_usize, |sum, byte| {
                sum.checked_mul(256)?.checked_add(usize::from(*byte))
            });
            (length?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    (found == kind).then_some(content)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn made(bits: &str) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let done = Command::new("ssh-keygen")
            .args([
                "-q", "-t", "rsa", "-b", bits, "-m", "PEM", "-N", "", "-C", "", "-f",
            ])
            .arg(&file)
            .status()
            .unwrap();
        assert!(done.success());
        let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
        (std::fs::read_to_string(file).unwrap(), public)
    }

    #[test]
    fn a_key_is_read_and_keeps_its_public_half_to_itself() {
        let (pem, public) = made("2048");
        assert!(RsaKey::is_one(&pem));
        let key = RsaKey::from_pem(&pem).unwrap();
        assert_eq!(key.public().to_openssh().unwrap(), public.trim());
        assert_eq!(RsaKey::from_pem(&key.to_pem()).unwrap().to_pem(), pem);
        let shown = format!("{key:?}");
        assert!(!shown.contains("PRIVATE") && !shown.contains(&pem[40..80]));
    }

    #[test]
    fn what_is_no_key_is_told() {
        let (small, _) = made("1024");
        let told = |pem: &str| RsaKey::from_pem(pem).unwrap_err().to_string();
        assert!(told(&small).contains("2048"), "{}", told(&small));
        let body = |body: &str| format!("{}\n{body}\n{}\n", LINES.0, LINES.1);
        for pem in ["", LINES.0, &body("Proc-Type: 4,ENCRYPTED"), &body("!")] {
            assert!(
                told(pem).contains("PEM") || told(pem).contains("RSA"),
                "{pem}"
            );
        }
        assert!(told(&body("MIIJ")).contains("no RSA key"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_public_half_or_none(bytes: Vec<u8>) {
            drop(public_key(&bytes));
            drop(public_key(&[&[SEQUENCE, 0x82, 0xff, 0xff], &bytes[..]].concat()));
            drop(RsaKey::from_pem(&format!("{}{}{}", LINES.0, Base64::encode_string(&bytes), LINES.1)));
        }
    }
}
