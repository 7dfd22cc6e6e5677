//! The callbacks and settings of russh: which host key is right, which algorithms are offered, and the refusal of everything that a
//! server may ask for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, GexParams, Msg, Session};
use russh::keys::ssh_key::public::RsaPublicKey;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, Names, Preferred, SshId, cipher, kex};

use crate::machine::{Endpoint, FarSide};
use crate::runner::substage::Role;

/// Keepalive: with two unanswered ones, a dead connection is noticed after about 30 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// russh's keepalive does not fire while it waits to *write*; this limit does. Answers to keepalives count as
/// activity, so a quiet job lives.
const INACTIVITY: Duration = Duration::from_secs(35);
/// How many bytes a server may send before the driver grants more.
const WINDOW: u32 = 1 << 20;
/// How many of a channel's messages are queued.
const MESSAGES: usize = 16;
/// The largest message: twice what the server is told. russh takes 256 KiB, whatever was agreed on.
const LARGEST: usize = 64 << 10;
/// How many channels a server may try to open: no server that keeps the protocol tries even one, since none of them was asked
/// for, and each takes some KiB for a moment.
const REFUSALS: u32 = 64;

/// The smallest RSA host key that counts: OpenSSH's own limit. A server that is trusted on first contact may have a short key, but
/// anybody can compute the private half of one with fewer bits.
const LEAST_RSA_BITS: u32 = 1024;
/// How much is kept of a server's words when it refuses the connection.
const WORDS: usize = 512;
/// Moduli that a server chooses itself: from 2048 bits on, as OpenSSH has it. Larger ones take seconds.
const GROUP_BITS: (usize, usize, usize) = (2048, 3072, 4096);

/// What a server has shown and said on one connection, up to the login.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Its host key.
    pub(super) host_key: Option<PublicKey>,
    /// Its number of bits, if that is too small.
    pub(super) weak: Option<u32>,
    /// It has no curve25519, which comes first.
    pub(super) no_curve25519: bool,
    /// Its banners, and why it hung up.
    pub(super) words: String,
}

impl Observed {
    pub(super) fn hear(&mut self, words: &str) {
        let room = WORDS.saturating_sub(self.words.chars().count());
        if !self.words.is_empty() {
            self.words.push(' ');
        }
        self.words.extend(words.chars().take(room));
    }
}

/// Accepts the expected host key, or any on first contact, and records what the server has shown.
#[derive(Debug)]
pub(super) struct Client {
    expected: Option<PublicKey>,
    observed: Arc<Mutex<Observed>>,
    refused: u32,
}

impl Client {
    pub(super) fn new(expected: Option<PublicKey>, observed: Arc<Mutex<Observed>>) -> Self {
        Self {
            expected,
            observed,
            refused: 0,
        }
    }

    fn note(&self, note: impl FnOnce(&mut Observed)) {
        if let Ok(mut observed) = self.observed.lock() {
            note(&mut observed);
        }
    }

    /// Refuses a channel. By default russh accepts all channels of the kinds that it knows, and keeps each.
    async fn refuse(&mut self, reply: ChannelOpenHandle) -> Result<(), Error> {
        self.refused += 1;
        if self.refused > REFUSALS {
            tracing::debug!("the machine opens channels without end");
            return Err(Error::Inconsistent);
        }
        let why = ChannelOpenFailure::AdministrativelyProhibited;
        reply.reject(why).await;
        Ok(())
    }
}

fn within_bounds(data: &[u8]) -> Result<(), Error> {
    if data.len() > LARGEST {
        tracing::debug!(length = data.len(), "the machine sends too large messages");
        return Err(Error::Inconsistent);
    }
    Ok(())
}

impl client::Handler for Client {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        let weak = key
            .key_data()
            .rsa()
            .map(public_bits)
            .filter(|bits| *bits < LEAST_RSA_BITS);
        self.note(|observed| {
            observed.host_key = Some(key.clone());
            observed.weak = weak;
        });
        // Compares their data: a comment is not part of a key.
        let expected = self
            .expected
            .as_ref()
            .is_none_or(|expected| expected.key_data() == key.key_data());
        Ok(expected && weak.is_none())
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut Session,
    ) -> Result<(), Error> {
        let curve25519 = [kex::CURVE25519, kex::CURVE25519_PRE_RFC_8731].contains(&names.kex);
        self.note(|observed| observed.no_curve25519 = !curve25519);
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Error> {
        self.note(|observed| observed.hear(banner));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.note(|observed| observed.hear(&info.message));
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        within_bounds(data)
    }

    async fn extended_data(
        &mut self,
        _: ChannelId,
        _: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Error> {
        within_bounds(data)
    }

    async fn should_accept_unknown_server_channel(&mut self, _: ChannelId, _: &str) -> bool {
        false
    }

    async fn server_channel_open_unknown(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(reply).await
    }
}

/// Returns how many bits a modulus has.
fn public_bits(key: &RsaPublicKey) -> u32 {
    let modulus = key.n().as_positive_bytes().unwrap_or_default();
    let unused = modulus.first().map_or(0, |first| first.leading_zeros());
    key.key_size().saturating_sub(unused)
}

/// Returns the algorithms to offer to a server with this host key, or with any if it is not known yet.
pub(super) fn config(expected: Option<&PublicKey>, endpoint: &Endpoint) -> Arc<client::Config> {
    let (least, preferred, most) = GROUP_BITS;
    let defaults = client::Config::default();
    Arc::new(client::Config {
        client_id: version(endpoint).unwrap_or(defaults.client_id),
        preferred: offered(expected),
        gex: GexParams::new(least, preferred, most).unwrap_or_default(),
        window_size: WINDOW,
        channel_buffer_size: MESSAGES,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 2,
        inactivity_timeout: Some(INACTIVITY),
        nodelay: true,
        ..defaults
    })
}

/// Returns the version line for an agent. Its comment (RFC 4253, 4.2) names the role whose agent is meant: of several in a task
/// one listens, and hands connections on by that word.
fn version(endpoint: &Endpoint) -> Option<SshId> {
    let role = match (endpoint.far_side, &endpoint.roles[..]) {
        (FarSide::Login, _) => return None,
        (FarSide::Agent, [Role::Build]) => " build",
        (FarSide::Agent, [Role::Helper]) => " helper",
        (FarSide::Agent, _) => "",
    };
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("SSH-2.0-gitlab-aws-driver_{version}{role}");
    Some(SshId::Standard(line.into()))
}

/// No host key is proven with SHA-1 (`ssh-rsa`), and RSA comes last. Of a server that is known by one of its keys that one is
/// asked for first: it may have made others since.
fn offered(expected: Option<&PublicKey>) -> Preferred {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    let mut host_keys = vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        rsa(HashAlg::Sha512),
        rsa(HashAlg::Sha256),
    ];
    if let Some(known) = expected.map(PublicKey::algorithm) {
        let is_rsa = |other: &Algorithm| matches!(other, Algorithm::Rsa { .. });
        // Stable: among those of RSA the order stays.
        host_keys.sort_by_key(|other| *other != known && !(is_rsa(other) && is_rsa(&known)));
    }
    // The post-quantum exchange of OpenSSH's defaults takes 0.1 s for each connection here, and AES-GCM is what every
    // CPU of this decade has instructions for. Those of NIST are for servers in FIPS mode, the last ones for servers that
    // somebody has hardened.
    Preferred {
        kex: vec![
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::ECDH_SHA2_NISTP256,
            kex::ECDH_SHA2_NISTP384,
            kex::ECDH_SHA2_NISTP521,
            kex::MLKEM768X25519_SHA256,
            kex::DH_G14_SHA256,
            kex::DH_GEX_SHA256,
            kex::DH_G16_SHA512,
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        ]
        .into(),
        key: host_keys.into(),
        cipher: vec![
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_192_CTR,
            cipher::AES_128_CTR,
        ]
        .into(),
        ..Preferred::default()
    }
}

#[cfg(test)]
mod tests {
    use russh::client::Handler as _;
    use russh::keys::ssh_key::Mpint;
    use russh::keys::ssh_key::public::KeyData;

    use super::*;

    fn names(expected: Option<&str>) -> Vec<String> {
        let expected = expected.map(|line| PublicKey::from_openssh(line).unwrap());
        let offered = offered(expected.as_ref());
        offered.key.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_known_host_key_is_asked_for_first_and_sha_1_never() {
        let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCzSTWTfSqeV1niAaq2gS1cwMR8Fu6ajxVaSxElUeG00ZTRkXm8GNo+8p2kkXCO6mmN8M1/UOAlQx6H9hAWF9c/FDAcqGyRWnfU8EfSTm8moE6R9Mhx1JprA5CeVqh5uiMnPz0z/rmvc9d6Gc3vD6exZQu1ijQRxJj7jplJ+feyRw==";
        let p384 = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBA58jrKbP/EWLlagI6NnQkiSntF6SEr7uc0xKp1680Qie3isMlFRpxAvnUrguVE0nAgPA+ejvlG4AMPDf+DR2oysBOE6RBByZPtdAAKz8O/gW3BVeOAPFUB2WDyoHwUB5g==";
        let plain = names(None);
        assert_eq!(plain[0], "ssh-ed25519");
        assert_eq!(plain[4..], ["rsa-sha2-512", "rsa-sha2-256"]);
        let known = names(Some(rsa));
        assert_eq!(known[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert_eq!(
            names(Some(p384))[..2],
            ["ecdsa-sha2-nistp384", "ssh-ed25519"]
        );
        assert!(!plain.iter().chain(&known).any(|name| name == "ssh-rsa"));
        assert_eq!((plain.len(), known.len()), (6, 6));
    }

    #[tokio::test]
    async fn rsa_host_keys_that_anybody_can_break_are_refused() {
        for (bits, first, believed) in [(1024, 0x80, true), (1023, 0x7f, false), (768, 0xff, false)]
        {
            let mut modulus = vec![0xff; usize::div_ceil(bits, 8)];
            modulus[0] = first;
            let exponent = Mpint::from_positive_bytes(&[1, 0, 1]);
            let key = RsaPublicKey::new(exponent, Mpint::from_positive_bytes(&modulus)).unwrap();
            let key = PublicKey::from(KeyData::Rsa(key));
            let observed = Arc::new(Mutex::new(Observed::default()));
            let mut client = Client::new(None, Arc::clone(&observed));
            let key = PublicKeyOrCertificate::PublicKey {
                key,
                hash_alg: None,
            };
            assert_eq!(
                client.check_server_key(&key).await.unwrap(),
                believed,
                "{bits}"
            );
            let weak = observed.lock().unwrap().weak;
            assert_eq!(weak, (!believed).then_some(bits as u32));
        }
    }

    #[test]
    fn what_a_server_says_is_kept_within_bounds() {
        let mut observed = Observed::default();
        for _ in 0..10 {
            observed.hear(&"ä".repeat(300));
        }
        assert!(observed.words.chars().count() <= WORDS + 10);
    }
}
