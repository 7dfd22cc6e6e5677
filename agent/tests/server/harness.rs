//! A server under test and a client that looks at what it sends.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_gitlab-aws-agent");

/// How long anything here may take before it counts as stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(180);

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

/// A running server with a home of its own.
pub(crate) struct Agent {
    pub(crate) process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) fingerprint: String,
    pub(crate) key: PrivateKey,
    pub(crate) home: TempDir,
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_under(&[])
    }

    /// Starts the server as the last arguments of another program.
    pub(crate) fn start_under(wrapper: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = new_key();
        let mut words = wrapper.iter().copied().chain([PROGRAM]);
        let mut process = Command::new(words.next().unwrap())
            .args(words)
            .args(["--listen", "127.0.0.1:0"])
            .env("SSH_PUBLIC_KEY", key.public_key().to_openssh().unwrap())
            .env("HOME", home.path())
            .env("OF_THE_IMAGE", "kept  as it is")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        let words: Vec<_> = line
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .collect();
        let after = |word| words.iter().skip_while(|w| **w != word).nth(1).unwrap();
        Self {
            address: after("on").parse().unwrap(),
            fingerprint: after("key").trim().to_owned(),
            process,
            key,
            home,
        }
    }

    pub(crate) async fn dial(&self) -> Handle<Pinned> {
        let config = Arc::new(client::Config::default());
        let pinned = Pinned(self.fingerprint.clone());
        client::connect(config, self.address, pinned).await.unwrap()
    }

    pub(crate) async fn login(&self) -> Handle<Pinned> {
        let mut session = self.dial().await;
        let key = PrivateKeyWithHashAlg::new(Arc::new(self.key.clone()), None);
        let result = session
            .authenticate_publickey("whoever", key)
            .await
            .unwrap();
        assert!(result.success());
        session
    }

    pub(crate) async fn run(&self, command: &str) -> Outcome {
        let session = self.login().await;
        exec(&session, command, Vec::new()).await
    }

    /// The most memory that it has had.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).unwrap();
        let mut peak = status.lines().filter_map(|l| l.strip_prefix("VmHWM:"));
        let words = peak.next().unwrap().trim().split(' ').next();
        words.unwrap().parse().unwrap()
    }

    /// Waits until a process is neither running nor a zombie, looking once per command run.
    pub(crate) async fn wait_gone(&self, pid: &str) {
        let look = format!("cat /proc/{pid}/stat");
        let gone = async { while self.run(&look).await.ending == Ending::Code(0) {} };
        tokio::time::timeout(STUCK, gone).await.unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Accepts the host key whose fingerprint the server printed.
pub(crate) struct Pinned(String);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                key.fingerprint(HashAlg::Sha256).to_string() == self.0
            }
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Code(u32),
    Signal(String),
    Refused,
    Lost,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) ending: Ending,
}

impl Outcome {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

pub(crate) async fn start(
    session: &Handle<Pinned>,
    command: impl Into<Vec<u8>>,
) -> Channel<client::Msg> {
    let channel = session.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    channel
}

pub(crate) async fn exec(
    session: &Handle<Pinned>,
    command: impl Into<Vec<u8>>,
    stdin: Vec<u8>,
) -> Outcome {
    let channel = start(session, command).await;
    let (mut read, write) = channel.split();
    let feed = tokio::spawn(async move {
        // A command that does not read ends the channel under us.
        drop(write.data_bytes(stdin).await);
        drop(write.eof().await);
    });
    let outcome = tokio::time::timeout(STUCK, collect(&mut read))
        .await
        .unwrap();
    feed.abort();
    outcome
}

pub(crate) async fn collect(read: &mut russh::ChannelReadHalf) -> Outcome {
    let mut outcome = Outcome {
        stdout: Vec::new(),
        stderr: Vec::new(),
        ending: Ending::Lost,
    };
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => outcome.stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, ext: 1 } => outcome.stderr.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => outcome.ending = Ending::Code(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                outcome.ending = Ending::Signal(format!("{signal_name:?}"));
            }
            ChannelMsg::Failure => {
                outcome.ending = Ending::Refused;
                break;
            }
            _ => {}
        }
    }
    outcome
}

/// Reads a channel's stdout up to the end of the first line.
pub(crate) async fn first_line(channel: &mut Channel<client::Msg>) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        match channel.wait().await.unwrap() {
            ChannelMsg::Data { data } => text.extend_from_slice(&data),
            ChannelMsg::Success | ChannelMsg::WindowAdjusted { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    String::from_utf8(text).unwrap().trim().to_owned()
}
