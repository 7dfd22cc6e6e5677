//! What russh asks of its user: which host key is right, which algorithms are offered, and what of all that a server may ask
//! for it gets: nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, Preferred, cipher, kex};

/// Keepalive: with two unanswered ones, a dead connection is noticed after about 30 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// russh's keepalive does not fire while it waits to *write*; this limit does. Answers to keepalives count as
/// activity, so a quiet job lives.
const INACTIVITY: Duration = Duration::from_secs(35);
/// How many bytes a server may send before it hears of room for more.
const WINDOW: u32 = 1 << 20;
/// How many of a channel's messages wait to be taken.
const MESSAGES: usize = 16;
/// How much output one of them may hold: twice what the server is told. russh takes 256 KiB, whatever was agreed on.
const LARGEST: usize = 64 << 10;
/// How many channels a server may try to open: no server that keeps the protocol tries even one, since none of them was asked
/// for, and each costs some KiB for a moment.
const REFUSALS: u32 = 64;

/// Accepts the expected host key, or any on first contact, and keeps what was shown.
#[derive(Debug)]
pub(super) struct Client {
    expected: Option<PublicKey>,
    seen: Arc<Mutex<Option<PublicKey>>>,
    refused: u32,
}

impl Client {
    pub(super) fn new(expected: Option<PublicKey>, seen: Arc<Mutex<Option<PublicKey>>>) -> Self {
        Self {
            expected,
            seen,
            refused: 0,
        }
    }

    /// Refuses a channel. Left to itself russh accepts all but those of a kind that it does not know, and keeps each.
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
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Some(key.clone());
        }
        // By their data: a comment is no part of a key.
        Ok(self
            .expected
            .as_ref()
            .is_none_or(|expected| expected.key_data() == key.key_data()))
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

pub(super) fn config() -> Arc<client::Config> {
    // The post-quantum exchange of OpenSSH's defaults costs 0.1 s a connection here, and AES-GCM is what every
    // CPU of this decade has instructions for.
    let preferred = Preferred {
        kex: vec![
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::ECDH_SHA2_NISTP256,
            kex::DH_G14_SHA256,
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        ]
        .into(),
        cipher: vec![
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]
        .into(),
        ..Preferred::default()
    };
    Arc::new(client::Config {
        preferred,
        window_size: WINDOW,
        channel_buffer_size: MESSAGES,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 2,
        inactivity_timeout: Some(INACTIVITY),
        nodelay: true,
        ..client::Config::default()
    })
}
