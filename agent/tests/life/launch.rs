//! Agents that are launched as containers' processes, and clients that greet them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use gitlab_aws_agent::HostKey;
use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, SshId};
use tokio::time::timeout;

use crate::harness::{PROGRAM, STUCK, new_key};

/// A process namespace of its own, and a `/proc` that shows it. What follows becomes its process 1.
pub(crate) const NAMESPACE: [&str; 5] =
    ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// Whoever logs in, and the seed of the host key that the launch hands over.
pub(crate) struct Keys {
    pub(crate) login: PrivateKey,
    pub(crate) seed: [u8; 32],
}

impl Keys {
    pub(crate) fn new() -> Self {
        let login = new_key();
        let seed = login.fingerprint(russh::keys::HashAlg::Sha256);
        Self {
            seed: seed.as_bytes().try_into().unwrap(),
            login,
        }
    }

    /// The words that every launch has.
    pub(crate) fn words(&self) -> String {
        let line = self.login.public_key().to_openssh().unwrap();
        let blob = line.split(' ').nth(1).unwrap().trim();
        format!("host-key={} login={blob}", base64(&self.seed))
    }

    pub(crate) fn first_line(&self) -> String {
        HostKey::from_seed(&self.seed).public_line().unwrap()
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64ct::Encoding as _;
    base64ct::Base64::encode_string(bytes)
}

/// A launch before it happens.
pub(crate) struct Launch {
    pub(crate) keys: Keys,
    pub(crate) words: String,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    env: Vec<(String, Option<String>)>,
}

impl Launch {
    /// On a free port of loopback.
    pub(crate) fn new() -> Self {
        Self::with("listen=127.0.0.1:0")
    }

    pub(crate) fn with(words: &str) -> Self {
        let keys = Keys::new();
        Self {
            words: format!("{} {words}", keys.words()),
            keys,
            wrapper: Vec::new(),
            arguments: Vec::new(),
            env: Vec::new(),
        }
    }

    pub(crate) fn word(mut self, word: &str) -> Self {
        let _ = write!(self.words, " {word}");
        self
    }

    /// Adds words before the program.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.wrapper
            .extend(words.iter().copied().map(str::to_owned));
        self
    }

    /// Has a shell as process 1, whose `$0` is the program.
    pub(crate) fn entrypoint(self, script: &str) -> Self {
        self.under(&NAMESPACE).under(&["sh", "-c", script])
    }

    pub(crate) fn arguments(mut self, words: &[&str]) -> Self {
        self.arguments
            .extend(words.iter().copied().map(str::to_owned));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: Option<&str>) -> Self {
        self.env.push((name.to_owned(), value.map(str::to_owned)));
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut words = self
            .wrapper
            .iter()
            .map(String::as_str)
            .chain([PROGRAM])
            .chain(self.arguments.iter().map(String::as_str));
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .env("GITLAB_AWS_AGENT", &self.words)
            .env_remove("SSH_PUBLIC_KEY")
            .stdin(Stdio::null());
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Starts the process and waits for nothing.
    pub(crate) fn spawn(self) -> Launched {
        let mut process = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let stderr = process.stderr.take().unwrap();
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                if tell.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Launched {
            process,
            lines,
            keys: self.keys,
            address: None,
        }
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn start(self) -> Launched {
        let mut launched = self.spawn();
        let line = launched.line("listening on ");
        let (_, place) = line.split_once("listening on ").unwrap();
        let (place, _) = place.split_once(',').unwrap();
        launched.address = place.parse().ok();
        launched
    }
}

/// A launched agent.
pub(crate) struct Launched {
    process: Child,
    lines: Receiver<String>,
    pub(crate) keys: Keys,
    pub(crate) address: Option<SocketAddr>,
}

impl Launched {
    /// Waits for a line on stderr that holds a text.
    pub(crate) fn line(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(STUCK) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {text:?} on stderr, but {seen:?}"),
            }
        }
    }

    /// Waits for the end, and returns its code or signal and what was still said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        // Whoever holds stderr has ended, too, once there are no more lines.
        let mut said = String::new();
        loop {
            match self.lines.recv_timeout(STUCK) {
                Ok(line) => said.push_str(&(line + "\n")),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(_) => panic!("still there, after {said}"),
            }
        }
        let status = self.process.wait().unwrap();
        let code = status.code().or(status.signal().map(|signal| -signal));
        (code, said)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.id().try_into().unwrap()
    }

    /// The number that the namespace's process 1 has outside.
    pub(crate) fn first_pid(&self) -> i32 {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) async fn dial(&self) -> (Handle<Seen>, Seen) {
        self.dial_as("SSH-2.0-gitlab-aws-driver_0.1.0")
            .await
            .unwrap()
    }

    pub(crate) async fn dial_as(
        &self,
        version: &'static str,
    ) -> Result<(Handle<Seen>, Seen), russh::Error> {
        let config = Arc::new(client::Config {
            client_id: SshId::Standard(version.into()),
            ..client::Config::default()
        });
        let seen = Seen::default();
        let address = self.address.unwrap();
        let session = timeout(STUCK, client::connect(config, address, seen.clone()));
        Ok((session.await.unwrap()?, seen))
    }

    pub(crate) async fn login(&self) -> (Handle<Seen>, Seen) {
        let (mut session, seen) = self.dial().await;
        log_in(&mut session, &self.keys.login).await;
        (session, seen)
    }

    pub(crate) async fn greet(&self) -> (Greeter, HashMap<String, String>) {
        let (session, _) = self.login().await;
        Greeter::new(session).await
    }

    /// Runs a command; returns its stdout, stderr and code.
    pub(crate) async fn run(&self, command: &str) -> (String, String, Option<u32>) {
        let (session, _) = self.login().await;
        run(&session, command).await
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) async fn log_in(session: &mut Handle<Seen>, key: &PrivateKey) {
    let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
    let result = session.authenticate_publickey("job", key).await.unwrap();
    assert!(result.success());
}

/// Hangs up behind all that was sent, and waits until that has happened.
pub(crate) async fn leave(session: Handle<Seen>) {
    let reason = russh::Disconnect::ByApplication;
    session.disconnect(reason, "", "").await.unwrap();
    drop(timeout(STUCK, session).await.unwrap());
}

pub(crate) async fn run(session: &Handle<Seen>, command: &str) -> (String, String, Option<u32>) {
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    let (mut out, mut err, mut code) = (Vec::new(), Vec::new(), None);
    let collect = async {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => out.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => err.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                ChannelMsg::Failure => break,
                _ => {}
            }
        }
    };
    timeout(STUCK, collect).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err), code)
}

/// Takes any host key and remembers it.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<String>>);

impl Seen {
    pub(crate) fn line(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl client::Handler for Seen {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = key {
            key.to_openssh()
                .unwrap()
                .trim()
                .clone_into(&mut self.0.lock().unwrap());
        }
        Ok(true)
    }
}

/// A channel on which orders are given.
pub(crate) struct Greeter {
    channel: Channel<client::Msg>,
    taken: String,
    session: Handle<Seen>,
}

impl Greeter {
    pub(crate) async fn open(session: Handle<Seen>) -> Self {
        let channel = session.channel_open_session().await.unwrap();
        channel
            .request_subsystem(true, "gad-greeting")
            .await
            .unwrap();
        Self {
            channel,
            taken: String::new(),
            session,
        }
    }

    /// Opens a channel and greets.
    pub(crate) async fn new(session: Handle<Seen>) -> (Self, HashMap<String, String>) {
        let mut greeter = Self::open(session).await;
        let facts = greeter.hello().await;
        (greeter, facts)
    }

    pub(crate) async fn hello(&mut self) -> HashMap<String, String> {
        self.send("hello 0.1.0\n").await;
        let mut facts = HashMap::new();
        loop {
            let line = self.line().await.unwrap();
            if line.is_empty() {
                return facts;
            }
            let (name, value) = line.split_once(' ').unwrap();
            assert!(facts.insert(name.to_owned(), value.to_owned()).is_none());
        }
    }

    pub(crate) async fn send(&self, text: &str) {
        self.channel.data_bytes(text.to_owned()).await.unwrap();
    }

    /// Gives an order and returns the answer.
    pub(crate) async fn order(&mut self, order: &str) -> String {
        self.send(&format!("{order}\n")).await;
        self.line().await.unwrap()
    }

    /// The next line; none when the channel has ended.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.taken.split_once('\n') {
                let line = line.to_owned();
                self.taken = rest.to_owned();
                return Some(line);
            }
            match timeout(STUCK, self.channel.wait()).await.unwrap()? {
                ChannelMsg::Data { data } => {
                    self.taken.push_str(std::str::from_utf8(&data).unwrap());
                }
                ChannelMsg::Close => return None,
                _ => {}
            }
        }
    }

    /// Hangs up behind all that was sent.
    pub(crate) async fn leave(self) {
        leave(self.session).await;
    }

    pub(crate) async fn eof(&self) {
        self.channel.eof().await.unwrap();
    }
}
