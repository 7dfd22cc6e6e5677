//! Just enough of SSH's transport to say anything in it: one key exchange, one cipher, no choice.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

use aws_lc_rs::aead;
use aws_lc_rs::agreement;
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;

/// What the server calls itself.
const VERSION: &str = "SSH-2.0-hostile";
const TAG: usize = 16;

/// SSH's messages by their numbers.
pub(crate) mod message {
    pub(crate) const DISCONNECT: u8 = 1;
    pub(crate) const IGNORE: u8 = 2;
    pub(crate) const SERVICE_REQUEST: u8 = 5;
    pub(crate) const SERVICE_ACCEPT: u8 = 6;
    pub(crate) const KEXINIT: u8 = 20;
    pub(crate) const NEWKEYS: u8 = 21;
    pub(crate) const KEX_ECDH_INIT: u8 = 30;
    pub(crate) const KEX_ECDH_REPLY: u8 = 31;
    pub(crate) const USERAUTH_REQUEST: u8 = 50;
    pub(crate) const USERAUTH_SUCCESS: u8 = 52;
    pub(crate) const USERAUTH_PK_OK: u8 = 60;
    pub(crate) const GLOBAL_REQUEST: u8 = 80;
    pub(crate) const REQUEST_SUCCESS: u8 = 81;
    pub(crate) const CHANNEL_OPEN: u8 = 90;
    pub(crate) const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub(crate) const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub(crate) const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub(crate) const CHANNEL_DATA: u8 = 94;
    pub(crate) const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub(crate) const CHANNEL_CLOSE: u8 = 97;
    pub(crate) const CHANNEL_REQUEST: u8 = 98;
    pub(crate) const CHANNEL_SUCCESS: u8 = 99;
}

/// A message that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new(number: u8) -> Self {
        Self(vec![number])
    }

    pub(crate) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn number(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn text(mut self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let length = u32::try_from(text.len()).expect("a short text");
        self.0.extend(length.to_be_bytes());
        self.0.extend(text);
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a message that came.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("a byte");
        self.0 = rest;
        *first
    }

    pub(crate) fn number(&mut self) -> u32 {
        let (number, rest) = self.0.split_first_chunk().expect("a number");
        self.0 = rest;
        u32::from_be_bytes(*number)
    }

    pub(crate) fn text(&mut self) -> &'a [u8] {
        let length = self.number() as usize;
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        text
    }
}

/// One direction's cipher.
struct Cipher {
    key: aead::LessSafeKey,
    nonce: [u8; 12],
}

impl Cipher {
    fn new(key: &[u8], nonce: &[u8]) -> Self {
        let key = aead::UnboundKey::new(&aead::AES_128_GCM, &key[..16]).expect("16 bytes");
        Self {
            key: aead::LessSafeKey::new(key),
            nonce: nonce[..12].try_into().expect("12 bytes"),
        }
    }

    fn next_nonce(&mut self) -> aead::Nonce {
        let nonce = aead::Nonce::assume_unique_for_key(self.nonce);
        let counter = self.nonce[4..].try_into().map(u64::from_be_bytes);
        let next = counter.expect("8 bytes").wrapping_add(1);
        self.nonce[4..].copy_from_slice(&next.to_be_bytes());
        nonce
    }
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    up: Option<Cipher>,
    down: Option<Cipher>,
    session: Vec<u8>,
}

impl Wire {
    /// Says something before the version, then exchanges keys.
    pub(crate) fn open(stream: TcpStream, key: &Ed25519KeyPair, before: &[u8]) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut wire = Self {
            stream,
            up: None,
            down: None,
            session: Vec::new(),
        };
        wire.stream.write_all(before)?;
        wire.stream.write_all(format!("{VERSION}\r\n").as_bytes())?;
        let theirs = wire.line()?;
        wire.exchange(key, &theirs)?;
        Ok(wire)
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.stream.read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => return Ok(line),
                b'\r' => {}
                other => line.push(other),
            }
        }
    }

    fn exchange(&mut self, key: &Ed25519KeyPair, their_version: &[u8]) -> io::Result<()> {
        let ours = key_init();
        self.send(&ours)?;
        let theirs = self.expect(message::KEXINIT)?;
        let init = self.expect(message::KEX_ECDH_INIT)?;
        let their_point = Fields(&init[1..]).text();
        let random = SystemRandom::new();
        let private = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random)
            .map_err(crypto)?;
        let point = private.compute_public_key().map_err(crypto)?;
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, their_point);
        let secret = agreement::agree_ephemeral(private, peer, crypto(()), |secret| {
            Ok::<_, io::Error>(secret.to_vec())
        })?;
        let secret = whole_number(&secret);
        let host_key = Message(Vec::new())
            .text("ssh-ed25519")
            .text(key.public_key());
        let hashed = Message(Vec::new())
            .text(their_version)
            .text(VERSION)
            .text(&theirs)
            .text(ours.bytes())
            .text(host_key.bytes())
            .text(their_point)
            .text(&point);
        let all = [hashed.bytes(), &secret].concat();
        let hash = digest::digest(&digest::SHA256, &all).as_ref().to_vec();
        let signature = Message(Vec::new())
            .text("ssh-ed25519")
            .text(key.sign(&hash).as_ref());
        let reply = Message::new(message::KEX_ECDH_REPLY)
            .text(host_key.bytes())
            .text(&point)
            .text(signature.bytes());
        self.send(&reply)?;
        self.send(&Message::new(message::NEWKEYS))?;
        self.expect(message::NEWKEYS)?;
        self.session.clone_from(&hash);
        let derived = |letter: u8| {
            let all = [&secret, &hash[..], &[letter], &hash[..]].concat();
            digest::digest(&digest::SHA256, &all).as_ref().to_vec()
        };
        self.up = Some(Cipher::new(&derived(b'C'), &derived(b'A')));
        self.down = Some(Cipher::new(&derived(b'D'), &derived(b'B')));
        Ok(())
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        let packet = self.packet(message);
        self.stream.write_all(&packet)
    }

    /// Sends many messages in one go.
    pub(crate) fn send_all(&mut self, messages: &[Message]) -> io::Result<usize> {
        let mut all = Vec::new();
        for message in messages {
            all.extend(self.packet(message));
        }
        self.stream.write_all(&all)?;
        Ok(all.len())
    }

    fn packet(&mut self, message: &Message) -> Vec<u8> {
        let payload = message.bytes();
        let (block, counted) = match &self.down {
            Some(_) => (16, 1 + payload.len()),
            None => (8, 5 + payload.len()),
        };
        let mut padding = block - counted % block;
        if padding < 4 {
            padding += block;
        }
        let length = u32::try_from(1 + payload.len() + padding).expect("a short message");
        let mut packet = length.to_be_bytes().to_vec();
        packet.push(u8::try_from(padding).expect("less than two blocks"));
        packet.extend(payload);
        packet.resize(packet.len() + padding, 0);
        if let Some(cipher) = &mut self.down {
            let nonce = cipher.next_nonce();
            let (head, body) = packet.split_at_mut(4);
            let tag = cipher
                .key
                .seal_in_place_separate_tag(nonce, aead::Aad::from(&*head), body)
                .expect("a short message");
            packet.extend(tag.as_ref());
        }
        packet
    }

    /// Returns the next message.
    pub(crate) fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head) as usize;
        let tag = self.up.as_ref().map_or(0, |_| TAG);
        let mut body = vec![0; length + tag];
        self.stream.read_exact(&mut body)?;
        if let Some(cipher) = &mut self.up {
            let nonce = cipher.next_nonce();
            cipher
                .key
                .open_in_place(nonce, aead::Aad::from(head), &mut body)
                .map_err(crypto)?;
        }
        let padding = usize::from(body[0]);
        Ok(body[1..length - padding].to_vec())
    }

    fn expect(&mut self, number: u8) -> io::Result<Vec<u8>> {
        let message = self.next()?;
        match message.first() {
            Some(first) if *first == number => Ok(message),
            other => Err(io::Error::other(format!("{other:?} in place of {number}"))),
        }
    }

    /// Returns the underlying connection.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

fn key_init() -> Message {
    let mut message = Message::new(message::KEXINIT);
    message.0.extend([7; 16]);
    for names in [
        "curve25519-sha256",
        "ssh-ed25519",
        "aes128-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ] {
        message = message.text(names);
    }
    message.byte(0).number(0)
}

/// Writes a number as SSH does: with its length, without zeros before it, and never negative.
fn whole_number(bytes: &[u8]) -> Vec<u8> {
    let from = bytes.iter().position(|byte| *byte != 0);
    let digits = &bytes[from.unwrap_or(bytes.len())..];
    let sign: &[u8] = match digits.first() {
        Some(128..) => &[0],
        _ => &[],
    };
    Message(Vec::new()).text([sign, digits].concat()).0
}

fn crypto<E>(_: E) -> io::Error {
    io::Error::other("the cryptography failed")
}
