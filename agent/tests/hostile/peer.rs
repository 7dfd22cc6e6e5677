//! The agent under attack, and the good client that must be served all along.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use russh::keys::PublicKey;
use russh::keys::ssh_key::public::Ed25519PublicKey;
use tempfile::TempDir;

use crate::wire::{Wire, Words};

/// How long anything here may take before it counts as stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(30);

pub(crate) fn new_key() -> Ed25519KeyPair {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).unwrap();
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

/// A running agent, whose stderr is looked through at the end.
pub(crate) struct Agent {
    process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) key: Ed25519KeyPair,
    home: TempDir,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = new_key();
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        let public = PublicKey::from(Ed25519PublicKey(public));
        let log = home.path().join("stderr");
        let process = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-agent"))
            .args(["--listen", "127.0.0.1:0"])
            .env("SSH_PUBLIC_KEY", public.to_openssh().unwrap())
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let until = Instant::now() + STUCK;
        let address = loop {
            assert!(Instant::now() < until);
            let text = fs::read_to_string(&log).unwrap();
            let words = text.split_once("listening on ");
            if let Some((address, _)) = words.and_then(|(_, rest)| rest.split_once(',')) {
                break address.parse().unwrap();
            }
            std::thread::yield_now();
        };
        Self {
            process,
            address,
            key,
            home,
        }
    }

    pub(crate) fn login(&self) -> Wire {
        Wire::login(self.address, &self.key).unwrap()
    }

    /// Logs in, runs a command and returns its output; an error where anything of it fails.
    pub(crate) fn try_run(&self, command: &str) -> std::io::Result<String> {
        let mut wire = Wire::login(self.address, &self.key)?;
        let channel = open_channel(&mut wire)?;
        wire.send(&request(channel, "exec").text(command).0)?;
        let mut output = Vec::new();
        loop {
            let payload = wire.receive()?;
            match payload.first() {
                Some(94) => output.extend(&payload[9..]),
                Some(97) => return Ok(String::from_utf8(output).unwrap()),
                _ => {}
            }
        }
    }

    /// Is served as a good client, and tells how long that took.
    pub(crate) fn serves(&self) -> Duration {
        let start = Instant::now();
        assert_eq!(self.try_run("echo $((40 + 2))").unwrap(), "42\n");
        start.elapsed()
    }

    fn memory(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap().split_whitespace().nth(1);
        words.unwrap().parse().unwrap()
    }

    /// KiB in memory now.
    pub(crate) fn resident(&self) -> usize {
        self.memory("VmRSS")
    }

    /// KiB in memory at most so far.
    pub(crate) fn peak(&self) -> usize {
        self.memory("VmHWM")
    }

    /// Descriptors open now.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id()))
            .unwrap()
            .count()
    }

    /// Asserts that it lives, serves and has not panicked.
    pub(crate) fn is_well(&mut self) {
        assert!(self.process.try_wait().unwrap().is_none(), "it has ended");
        self.serves();
        let log = fs::read_to_string(self.home.path().join("stderr")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Opens a session's channel with a window of 1 MiB.
pub(crate) fn session_channel(number: u32) -> Vec<u8> {
    Words::new(90)
        .text("session")
        .number(number)
        .number(1 << 20)
        .number(32 << 10)
        .0
}

/// Opens a session's channel and returns the server's number of it.
pub(crate) fn open_channel(wire: &mut Wire) -> std::io::Result<u32> {
    wire.send(&session_channel(0))?;
    let confirmed = wire.receive_kind(91)?;
    Ok(u32::from_be_bytes(confirmed[5..9].try_into().unwrap()))
}

/// Begins a request on a channel, which is answered.
pub(crate) fn request(channel: u32, name: &str) -> Words {
    Words::new(98).number(channel).text(name).byte(1)
}
