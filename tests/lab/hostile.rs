//! A job machine that says whatever a test wants it to, below the level at which any real server could be made to.
//!
//! It lives in the test's own process. The machine of `local` is a program that does nothing; the driver is told the port of
//! this server.

use std::io;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;

use super::PATIENCE;
use super::port::Port;
use super::runner::Runner;
use super::runner::RunnerBuilder;

mod wire;

pub(crate) use wire::Fields;
pub(crate) use wire::Message;
use wire::Wire;
pub(crate) use wire::message;

/// What the server grants of its own window; a test that reads nothing grants less.
const WINDOW: u32 = 1 << 24;

type Behaviour = dyn Fn(&mut Talk) -> io::Result<()> + Send + Sync;

/// What was seen of the driver.
#[derive(Debug, Default)]
struct Seen {
    logins: Vec<Instant>,
    sent: u64,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().expect("no panics"));
        self.changed.notify_all();
    }

    fn wait(&self, what: &str, within: Duration, holds: impl Fn(&Seen) -> bool) {
        let seen = self.seen.lock().expect("no panics");
        let (seen, waited) = self
            .changed
            .wait_timeout_while(seen, within, |seen| !holds(seen))
            .expect("no panics");
        assert!(!waited.timed_out(), "no {what} within {within:?}: {seen:?}");
    }
}

/// The server.
pub(crate) struct Hostile {
    port: Port,
    shared: Arc<Shared>,
}

impl Hostile {
    /// Starts one that does this after each login, the one of `prepare` included, and hangs up then.
    pub(crate) fn start(
        behaviour: impl Fn(&mut Talk) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_after(b"", behaviour)
    }

    /// As [`Self::start`], with something to say before its version.
    pub(crate) fn start_after(
        before: &[u8],
        behaviour: impl Fn(&mut Talk) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let port = Port::reserve();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).expect("a reserved port");
        let shared = Arc::new(Shared::default());
        let random = SystemRandom::new();
        let key = Ed25519KeyPair::generate_pkcs8(&random).expect("randomness");
        let key = Arc::new(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("own key"));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let before: Arc<[u8]> = before.into();
        let server = Arc::clone(&shared);
        // It goes with the test's process: nothing of it outlives that, and no port is used twice in it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (key, before) = (Arc::clone(&key), Arc::clone(&before));
                let (behaviour, shared) = (Arc::clone(&behaviour), Arc::clone(&server));
                std::thread::spawn(move || serve(stream, &key, &before, &*behaviour, &shared));
            }
        });
        Self { port, shared }
    }

    /// Returns an ordinary job on it.
    pub(crate) fn job(&self) -> Runner {
        self.job_with(Runner::builder())
    }

    /// Returns a job on it.
    pub(crate) fn job_with(&self, builder: RunnerBuilder) -> Runner {
        let idle = "[local]\ncommand = [\"sh\", \"-c\", \"exec sleep 3600\"]\n";
        let runner = builder.config_tables(idle).build();
        let port = format!("[ssh]\nport = {}\n", self.port.number());
        runner.write_config(&runner.default_config().replace("[ssh]\n", &port));
        runner
    }

    /// Waits for a number of logins, the one of `prepare` included.
    pub(crate) fn wait_logins(&self, count: usize) {
        let enough = |seen: &Seen| seen.logins.len() >= count;
        self.shared.wait("logins", PATIENCE, enough);
    }

    /// Waits until so many bytes were sent by [`Talk::flood`].
    pub(crate) fn wait_sent(&self, bytes: u64) {
        let enough = |seen: &Seen| seen.sent >= bytes;
        self.shared.wait("such flood", PATIENCE, enough);
    }

    /// Returns when there was a login.
    pub(crate) fn logins(&self) -> Vec<Instant> {
        self.shared.seen.lock().expect("no panics").logins.clone()
    }
}

fn serve(
    stream: TcpStream,
    key: &Ed25519KeyPair,
    before: &[u8],
    behaviour: &Behaviour,
    shared: &Arc<Shared>,
) {
    // Whoever hangs up ends what is done here with an error, as it should.
    let Ok(wire) = Wire::open(stream, key, before) else {
        return;
    };
    let mut talk = Talk {
        wire,
        shared: Arc::clone(shared),
        channel: 0,
        exec: None,
    };
    if talk.log_in().is_ok() {
        shared.note(|seen| seen.logins.push(Instant::now()));
        drop(behaviour(&mut talk));
    }
    drop(talk.wire.stream().shutdown(Shutdown::Both));
}

/// What the driver asked for.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    /// `start` or `follow`.
    pub(crate) verb: String,
    /// The nonce of frames.
    pub(crate) nonce: String,
    /// How long the script is, or where to go on.
    pub(crate) number: u64,
}

impl Exec {
    fn of(command: &[u8]) -> Self {
        let text = String::from_utf8_lossy(command);
        let words: Vec<_> = text
            .rsplit("gad \"$1\" ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        let [verb, _, half, other, number, ..] = words[..] else {
            panic!("not the driver's command: {text}");
        };
        Self {
            verb: verb.to_owned(),
            nonce: format!("{half}{other}"),
            number: number.parse().expect("a number"),
        }
    }
}

/// A connection after its login.
pub(crate) struct Talk {
    wire: Wire,
    shared: Arc<Shared>,
    /// The driver's number of its channel.
    channel: u32,
    exec: Option<Exec>,
}

impl Talk {
    fn log_in(&mut self) -> io::Result<()> {
        loop {
            let message = self.wire.next()?;
            let mut fields = Fields(&message[1..]);
            match message[0] {
                message::SERVICE_REQUEST => {
                    let accept = Message::new(message::SERVICE_ACCEPT).text(fields.text());
                    self.wire.send(&accept)?;
                }
                message::USERAUTH_REQUEST => {
                    let (_user, _service, method) = (fields.text(), fields.text(), fields.text());
                    assert_eq!(method, b"publickey");
                    if fields.byte() == 1 {
                        return self.wire.send(&Message::new(message::USERAUTH_SUCCESS));
                    }
                    let (kind, key) = (fields.text(), fields.text());
                    let fine = Message::new(message::USERAUTH_PK_OK).text(kind).text(key);
                    self.wire.send(&fine)?;
                }
                _ => {}
            }
        }
    }

    /// Waits for a channel to be asked for; grants nothing yet.
    pub(crate) fn channel_asked_for(&mut self) -> io::Result<()> {
        loop {
            let message = self.wire.next()?;
            match message[0] {
                message::CHANNEL_OPEN => {
                    let mut fields = Fields(&message[1..]);
                    let _kind = fields.text();
                    self.channel = fields.number();
                    return Ok(());
                }
                message::DISCONNECT => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
        }
    }

    /// Opens the channel and takes its command.
    pub(crate) fn exec(&mut self) -> io::Result<Exec> {
        self.exec_with(WINDOW)
    }

    /// As [`Self::exec`], with so large a window for the driver.
    pub(crate) fn exec_with(&mut self, window: u32) -> io::Result<Exec> {
        self.channel_asked_for()?;
        let confirmation = Message::new(message::CHANNEL_OPEN_CONFIRMATION)
            .number(self.channel)
            .number(0)
            .number(window)
            .number(32 << 10);
        self.wire.send(&confirmation)?;
        loop {
            let message = self.wire.next()?;
            if message[0] != message::CHANNEL_REQUEST {
                continue;
            }
            let mut fields = Fields(&message[1..]);
            let (_channel, _kind, _reply) = (fields.number(), fields.text(), fields.byte());
            let exec = Exec::of(fields.text());
            self.exec = Some(exec.clone());
            self.send(&Message::new(message::CHANNEL_SUCCESS).number(self.channel))?;
            return Ok(exec);
        }
    }

    /// Sends a message of any kind.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.wire.send(message)
    }

    /// Sends bytes of standard output.
    pub(crate) fn out(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.send(&self.output(bytes))
    }

    /// Returns bytes of standard output as a message.
    pub(crate) fn output(&self, bytes: impl AsRef<[u8]>) -> Message {
        Message::new(message::CHANNEL_DATA)
            .number(self.channel)
            .text(bytes)
    }

    /// Returns bytes of standard error as a message.
    pub(crate) fn error(&self, bytes: impl AsRef<[u8]>) -> Message {
        Message::new(message::CHANNEL_EXTENDED_DATA)
            .number(self.channel)
            .number(1)
            .text(bytes)
    }

    /// Returns a message about the channel.
    pub(crate) fn about_channel(&self, number: u8) -> Message {
        Message::new(number).number(self.channel)
    }

    /// Returns a frame of this run.
    pub(crate) fn frame(&self, text: &str) -> String {
        let exec = self.exec.as_ref().expect("a command");
        format!("\x1e{} {text}\n", exec.nonce)
    }

    /// Sends a frame on standard output.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        let frame = self.frame(text);
        self.out(frame)
    }

    /// Says that it follows, from where it was asked to.
    pub(crate) fn say_open(&mut self, exec: &Exec) -> io::Result<()> {
        let from = if exec.verb == "start" { 0 } else { exec.number };
        self.say(&format!("open {from}"))
    }

    /// Sends these messages again and again, until so many bytes went out; without end where the number is the greatest.
    pub(crate) fn flood(&mut self, messages: &[Message], bytes: u64) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes {
            let length = self.wire.send_all(messages)? as u64;
            sent += length;
            self.shared.note(|seen| seen.sent += length);
        }
        Ok(())
    }

    /// Waits for an order of the driver's on standard input.
    pub(crate) fn wait_order(&mut self, order: &str) -> io::Result<()> {
        let mut input = Vec::new();
        while !String::from_utf8_lossy(&input).contains(order) {
            let message = self.wire.next()?;
            if message[0] == message::CHANNEL_DATA {
                let mut fields = Fields(&message[1..]);
                let _channel = fields.number();
                input.extend(fields.text());
            }
        }
        Ok(())
    }

    /// Waits until the driver has refused so many channels.
    pub(crate) fn refusals(&mut self, count: usize) -> io::Result<()> {
        let mut refused = 0;
        while refused < count {
            match self.wire.next()?[0] {
                message::CHANNEL_OPEN_FAILURE => refused += 1,
                message::CHANNEL_OPEN_CONFIRMATION => panic!("a channel was opened"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes what comes until the driver hangs up; answers what keeps a connection alive.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        loop {
            if self.wire.next()?[0] == message::GLOBAL_REQUEST {
                self.send(&Message::new(message::REQUEST_SUCCESS))?;
            }
        }
    }

    /// Has what comes taken by somebody else from now on, and lost.
    pub(crate) fn read_nothing_of_what_comes(&mut self) {
        let mut stream = self.wire.stream().try_clone().expect("a descriptor");
        std::thread::spawn(move || drop(io::copy(&mut stream, &mut io::sink())));
    }

    /// Closes the channel.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.send(&Message::new(message::CHANNEL_CLOSE).number(self.channel))
    }
}
