//! A client of the script protocol that looks at every frame.

use russh::client::{self, Handle};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};

use crate::harness::{Agent, Pinned, STUCK};

/// What the agent sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Bytes(Vec<u8>),
    Frame(String),
    Left(String),
    Closed,
}

/// The names of one script.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) key: String,
    pub(crate) nonce: String,
}

impl Name {
    pub(crate) fn new() -> Self {
        Self {
            key: hex(),
            nonce: hex(),
        }
    }

    /// Another run of the same job.
    pub(crate) fn again(&self) -> Self {
        Self {
            key: self.key.clone(),
            nonce: hex(),
        }
    }

    pub(crate) fn directory(&self) -> String {
        format!("/var/tmp/.gad-{}", self.key)
    }
}

fn hex() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    uuid.trim().replace('-', "")
}

/// One channel of the protocol.
pub(crate) struct Line {
    read: ChannelReadHalf,
    pub(crate) write: ChannelWriteHalf<client::Msg>,
    marker: Vec<u8>,
    buffer: Vec<u8>,
    acks: bool,
    closed: bool,
}

/// All that came on a channel up to its last frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) bytes: Vec<u8>,
    /// The last frame that is not `open` or `next`.
    pub(crate) last: String,
}

impl Told {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }
}

impl Line {
    /// Opens a channel and sends these bytes.
    pub(crate) async fn open(session: &Handle<Pinned>, nonce: &str, first: Vec<u8>) -> Self {
        let channel = session.channel_open_session().await.unwrap();
        channel.request_subsystem(true, "gad-script").await.unwrap();
        let (read, write) = channel.split();
        write.data_bytes(first).await.unwrap();
        Self {
            read,
            write,
            marker: format!("\x1e{nonce} ").into_bytes(),
            buffer: Vec::new(),
            acks: true,
            closed: false,
        }
    }

    pub(crate) async fn start(session: &Handle<Pinned>, name: &Name, script: &str) -> Self {
        Self::start_with(session, name, script, "").await
    }

    pub(crate) async fn start_with(
        session: &Handle<Pinned>,
        name: &Name,
        script: &str,
        options: &str,
    ) -> Self {
        let Name { key, nonce } = name;
        let length = script.len();
        let first = format!("start {key} {nonce} {length}{options}\n{script}");
        Self::open(session, nonce, first.into_bytes()).await
    }

    pub(crate) async fn follow(session: &Handle<Pinned>, name: &Name, offset: u64) -> Self {
        let Name { key, nonce } = name;
        let first = format!("follow {key} {nonce} {offset}\n");
        Self::open(session, nonce, first.into_bytes()).await
    }

    /// Leaves `next` without a receipt.
    pub(crate) fn without_acks(mut self) -> Self {
        self.acks = false;
        self
    }

    /// Sends receipts from now on.
    pub(crate) fn with_acks(mut self) -> Self {
        self.acks = true;
        self
    }

    pub(crate) async fn order(&self, order: &str) {
        let line = format!("{order}\n").into_bytes();
        self.write.data_bytes(line).await.unwrap();
    }

    /// Returns the next thing that the agent sends.
    pub(crate) async fn next(&mut self) -> Event {
        tokio::time::timeout(STUCK, self.wait()).await.unwrap()
    }

    async fn wait(&mut self) -> Event {
        loop {
            if let Some(event) = self.scan() {
                return event;
            }
            if self.closed {
                return Event::Closed;
            }
            match self.read.wait().await {
                Some(ChannelMsg::Data { data }) => self.buffer.extend_from_slice(&data),
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                    let text = String::from_utf8(data.to_vec()).unwrap();
                    let marker = String::from_utf8(self.marker.clone()).unwrap();
                    return Event::Left(text.trim_end().strip_prefix(&marker).unwrap().to_owned());
                }
                Some(ChannelMsg::Failure) => panic!("the subsystem is refused"),
                Some(ChannelMsg::Close) | None => self.closed = true,
                Some(_) => {}
            }
        }
    }

    fn scan(&mut self) -> Option<Event> {
        let marker = &self.marker;
        // Most output has no such byte at all.
        let first = self.buffer.iter().position(|byte| *byte == 0x1e);
        let at = first.and_then(|from| {
            let rest = &self.buffer[from..];
            let at = rest.windows(marker.len()).position(|w| w == marker);
            at.map(|at| from + at)
        });
        let bytes = match at {
            Some(0) => {
                let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
                let frame: Vec<u8> = self.buffer.drain(..=end).collect();
                let text = &frame[marker.len()..end];
                return Some(Event::Frame(String::from_utf8(text.to_vec()).unwrap()));
            }
            Some(at) => at,
            None => {
                // What may be the beginning of a frame waits for the rest.
                let tail = self.buffer.iter().rposition(|byte| *byte == 0x1e);
                match tail {
                    Some(at) if self.buffer.len() - at < marker.len() => at,
                    _ => self.buffer.len(),
                }
            }
        };
        (bytes > 0).then(|| Event::Bytes(self.buffer.drain(..bytes).collect()))
    }

    /// Expects a frame before anything else.
    pub(crate) async fn frame(&mut self, expected: &str) {
        assert_eq!(self.next().await, Event::Frame(expected.to_owned()));
    }

    /// Expects the channel's end before anything else.
    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.next().await, Event::Closed);
    }

    /// Reads output up to a text.
    pub(crate) async fn until(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
            match self.next().await {
                Event::Bytes(more) => bytes.extend_from_slice(&more),
                Event::Frame(frame) if frame.starts_with("open ") => {}
                other => panic!("{other:?} instead of {text:?}"),
            }
        }
        bytes
    }

    /// Reads all up to the frame that stands at the end of the output, sending receipts.
    pub(crate) async fn rest(&mut self) -> Told {
        let mut bytes = Vec::new();
        loop {
            match self.next().await {
                Event::Bytes(more) => bytes.extend_from_slice(&more),
                Event::Frame(frame) => {
                    if let Some(at) = frame.strip_prefix("next ") {
                        if self.acks {
                            self.order(&format!("ack {at}")).await;
                        }
                    } else if !frame.starts_with("open ") {
                        return Told { bytes, last: frame };
                    }
                }
                Event::Left(left) => panic!("left {left}"),
                Event::Closed => {
                    return Told {
                        bytes,
                        last: "closed".to_owned(),
                    };
                }
            }
        }
    }

    /// Has the script forgotten and looks for its traces.
    pub(crate) async fn done(mut self, name: &Name) {
        self.order("done").await;
        loop {
            match self.next().await {
                Event::Frame(frame) if frame == "forgotten" => break,
                Event::Frame(_) | Event::Bytes(_) => {}
                other => panic!("{other:?} instead of forgotten"),
            }
        }
        self.closed().await;
        assert!(!std::path::Path::new(&name.directory()).exists());
    }
}

/// Runs a script to its end and has it forgotten.
pub(crate) async fn run(agent: &Agent, script: &str) -> Told {
    let session = agent.login().await;
    let name = Name::new();
    let mut line = Line::start(&session, &name, script).await;
    line.frame("open 0").await;
    let told = line.rest().await;
    line.done(&name).await;
    told
}
