//! An SSH client of our own, which sends whatever it is told: packets in any order, of any length and kind.
//!
//! It checks nothing of what the server says, and it knows one algorithm of each sort.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use crate::peer::STUCK;

pub(crate) const VERSION: &str = "SSH-2.0-hostile_1";

/// A payload in the making.
#[derive(Clone, Default)]
pub(crate) struct Words(pub(crate) Vec<u8>);

impl Words {
    pub(crate) fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    pub(crate) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(crate) fn number(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn text(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let mut words = self.number(u32::try_from(text.len()).unwrap());
        words.0.extend(text);
        words
    }

    /// A number that is positive however its first bit is.
    fn mpint(self, number: &[u8]) -> Self {
        let start = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[start..];
        if number.first().is_some_and(|byte| *byte >= 0x80) {
            return self.text([&[0], number].concat());
        }
        self.text(number)
    }
}

/// One direction's cipher.
struct Cipher {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Cipher {
    fn new(key: &[u8], iv: &[u8]) -> Self {
        let key = UnboundKey::new(&AES_128_GCM, &key[..16]).unwrap();
        Self {
            key: LessSafeKey::new(key),
            nonce: iv[..12].try_into().unwrap(),
        }
    }

    fn next(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let counter = u64::from_be_bytes(self.nonce[4..].try_into().unwrap());
        self.nonce[4..].copy_from_slice(&counter.wrapping_add(1).to_be_bytes());
        nonce
    }
}

/// A connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    server_version: Vec<u8>,
    session: Vec<u8>,
    ours: Option<Cipher>,
    theirs: Option<Cipher>,
}

pub(crate) fn kexinit() -> Vec<u8> {
    let mut words = Words::new(20);
    words.0.extend([7; 16]);
    let names = [
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
    ];
    names
        .into_iter()
        .fold(words, Words::text)
        .byte(0)
        .number(0)
        .0
}

/// Returns a packet as it goes over the wire before there are keys.
pub(crate) fn clear(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let mut packet = Words::default()
        .number(u32::try_from(1 + payload.len() + padding).unwrap())
        .byte(u8::try_from(padding).unwrap())
        .0;
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

impl Wire {
    /// Connects and sends nothing.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STUCK))?;
        stream.set_write_timeout(Some(STUCK))?;
        Ok(Self {
            stream,
            server_version: Vec::new(),
            session: Vec::new(),
            ours: None,
            theirs: None,
        })
    }

    /// Exchanges version lines.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        self.stream.write_all(format!("{VERSION}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        self.server_version = line;
        Ok(())
    }

    /// Exchanges keys; `greet` went before.
    pub(crate) fn agree(&mut self) -> io::Result<()> {
        let ours = kexinit();
        self.send(&ours)?;
        let theirs = self.receive()?;
        let random = SystemRandom::new();
        let secret = EphemeralPrivateKey::generate(&X25519, &random).unwrap();
        let public = secret.compute_public_key().unwrap();
        self.send(&Words::new(30).text(public.as_ref()).0)?;
        let reply = self.receive()?;
        let mut fields = Fields(&reply[1..]);
        let (host_key, their_public) = (fields.text(), fields.text());
        let peer = UnparsedPublicKey::new(&X25519, their_public);
        let shared =
            agreement::agree_ephemeral(secret, peer, (), |shared| Ok(shared.to_vec())).unwrap();
        let hash = Words::default()
            .text(VERSION)
            .text(&self.server_version)
            .text(&ours)
            .text(&theirs)
            .text(host_key)
            .text(public.as_ref())
            .text(their_public)
            .mpint(&shared);
        let hash = digest(&SHA256, &hash.0).as_ref().to_vec();
        if self.session.is_empty() {
            self.session.clone_from(&hash);
        }
        self.send(&[21])?;
        let newkeys = self.receive()?;
        assert_eq!(newkeys, [21]);
        let key = |letter: u8| {
            let mut text = Words::default().mpint(&shared).0;
            text.extend(&hash);
            text.push(letter);
            text.extend(&self.session);
            digest(&SHA256, &text).as_ref().to_vec()
        };
        let ciphers = [(b'C', b'A'), (b'D', b'B')].map(|(k, iv)| Cipher::new(&key(k), &key(iv)));
        let [ours, theirs] = ciphers;
        (self.ours, self.theirs) = (Some(ours), Some(theirs));
        Ok(())
    }

    /// Connects up to the keys.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let mut wire = Self::connect(address)?;
        wire.greet()?;
        wire.agree()?;
        Ok(wire)
    }

    /// Connects and logs in.
    pub(crate) fn login(address: SocketAddr, key: &Ed25519KeyPair) -> io::Result<Self> {
        let mut wire = Self::open(address)?;
        wire.send(&Words::new(5).text("ssh-userauth").0)?;
        let request = wire.signed(key, "job");
        wire.send(&request)?;
        while wire.receive()?.first() != Some(&52) {}
        Ok(wire)
    }

    /// Returns a request to log in with a key.
    pub(crate) fn signed(&self, key: &Ed25519KeyPair, user: &str) -> Vec<u8> {
        let public = Words::default().text("ssh-ed25519").text(key.public_key());
        let request = Words::new(50)
            .text(user)
            .text("ssh-connection")
            .text("publickey")
            .byte(1)
            .text("ssh-ed25519")
            .text(public.0);
        let mut signed = Words::default().text(&self.session).0;
        signed.extend(&request.0);
        let signature = key.sign(&signed);
        request
            .text(Words::default().text("ssh-ed25519").text(signature).0)
            .0
    }

    /// Returns a payload as it goes over the wire now.
    pub(crate) fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let Some(cipher) = &mut self.ours else {
            return clear(payload);
        };
        let padding = 4 + (16 - (payload.len() + 5) % 16) % 16;
        let mut packet = vec![u8::try_from(padding).unwrap()];
        packet.extend(payload);
        packet.resize(packet.len() + padding, 0);
        let length = u32::try_from(packet.len()).unwrap().to_be_bytes();
        let nonce = cipher.next();
        let sealed = cipher
            .key
            .seal_in_place_append_tag(nonce, Aad::from(length), &mut packet);
        sealed.unwrap();
        [&length[..], &packet].concat()
    }

    pub(crate) fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let packet = self.packet(payload);
        self.stream.write_all(&packet)
    }

    /// Sends many payloads at once.
    pub(crate) fn send_all<'a>(
        &mut self,
        payloads: impl IntoIterator<Item = &'a Vec<u8>>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend(self.packet(payload));
        }
        self.stream.write_all(&bytes)
    }

    /// Receives a payload.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let size = usize::try_from(u32::from_be_bytes(length)).unwrap();
        let tag = if self.theirs.is_some() { 16 } else { 0 };
        let mut packet = vec![0; size + tag];
        self.stream.read_exact(&mut packet)?;
        if let Some(cipher) = &mut self.theirs {
            let nonce = cipher.next();
            let opened = cipher
                .key
                .open_in_place(nonce, Aad::from(length), &mut packet);
            opened.unwrap();
        }
        let padding = usize::from(packet[0]);
        Ok(packet[1..size - padding].to_vec())
    }

    /// Receives until a payload of this kind comes.
    pub(crate) fn receive_kind(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        loop {
            let payload = self.receive()?;
            if payload.first() == Some(&kind) {
                return Ok(payload);
            }
        }
    }

    /// Throws away from now on what the server sends; the thread ends with the connection.
    pub(crate) fn throw_away(&self) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while !matches!(stream.read(&mut bytes), Ok(0) | Err(_)) {}
        })
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn text(&mut self) -> &'a [u8] {
        let (length, rest) = self.0.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap());
        let (text, rest) = rest.split_at(usize::try_from(length).unwrap());
        self.0 = rest;
        text
    }
}
