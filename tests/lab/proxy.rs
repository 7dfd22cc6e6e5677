//! A TCP proxy between driver and machine that breaks connections on demand.
//!
//! It forwards bytes without knowing what they mean (they are encrypted), and does to them what a test
//! asks for: cut, stall, delay, refuse, turn away. Its own thread runs a small event loop; a test calls
//! from outside and waits for counts.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::port::Port;

mod forward;
mod penalty;

pub(crate) use penalty::Penalty;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the driver to the machine.
    Up,
    /// From the machine to the driver.
    Down,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A reset, as from a host that no longer knows the connection.
    Reset,
    /// An orderly end, as from a server that shuts down.
    Close,
}

/// Something that goes wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The connection is cut.
    Cut(Cut),
    /// The connection stays open, but nothing goes through it any more, either way.
    Stall,
}

/// What new connections meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// They are forwarded.
    Open,
    /// They are refused, as by a host where nobody listens.
    Refuse,
    /// They are accepted and closed at once.
    Close,
    /// As OpenSSH does with an address that it penalises: the same, and it is said.
    TurnAway,
    /// They are accepted, and that is all.
    Silent,
}

/// A running proxy; ended when dropped, with all its connections.
pub(crate) struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Counts since the proxy's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that came.
    pub(crate) connections: u64,
    /// Connections that are forwarded now.
    pub(crate) open: usize,
    /// Connections that were turned away: by the door or as a penalty.
    pub(crate) turned_away: u64,
    /// Connections that the proxy cut.
    pub(crate) cut: u64,
    /// Bytes forwarded to the machine.
    pub(crate) up: u64,
    /// Bytes forwarded to the driver.
    pub(crate) down: u64,
}

impl Counts {
    /// Returns the bytes that went one way.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Up => self.up,
            Direction::Down => self.down,
        }
    }
}

/// A harm that waits for bytes to have passed.
#[derive(Clone, Copy, Debug)]
struct Fault {
    direction: Direction,
    after: u64,
    harm: Harm,
}

struct Shared {
    state: Mutex<State>,
    /// Told to tests, whenever a count changes.
    counted: Condvar,
    /// Told to the event loop, whenever a test changes something.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// The machine's address; none where it is the one that the driver has dialled.
    host: Option<Ipv4Addr>,
    upstream: u16,
    /// The machine's socket, in place of address and port.
    socket: Option<PathBuf>,
    door: Door,
    /// Every connection up to this number is to be cut.
    cut_before: u64,
    cut: Cut,
    stalled: [bool; 2],
    delay: Option<Duration>,
    /// Wait for all connections' bytes, one after the other.
    faults: VecDeque<Fault>,
    /// Each for one of the next connections, and its bytes.
    next_faults: VecDeque<Option<Fault>>,
    penalty: Option<Penalty>,
    counts: Counts,
    /// The numbers of the connections that are forwarded now.
    open: BTreeSet<u64>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    fn count(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.counts.open = state.open.len();
        drop(state);
        self.counted.notify_all();
    }
}

impl Proxy {
    /// Starts a proxy, on a port of its own, to a port of 127.0.0.1.
    pub(crate) fn start(upstream: u16) -> Self {
        Self::start_to(Some(Ipv4Addr::LOCALHOST), upstream)
    }

    /// Starts a proxy that stands before every machine of this host at once, whatever address in 127/8 it has: what
    /// is dialled at the proxy's port is forwarded to the same address at the other port.
    pub(crate) fn start_before_all(upstream: u16) -> Self {
        Self::start_to(None, upstream)
    }

    fn start_to(host: Option<Ipv4Addr>, upstream: u16) -> Self {
        let port = Port::reserve();
        let listener = std::net::TcpListener::bind((listening(host), port.number()))
            .expect("a port that is reserved");
        listener.set_nonblocking(true).expect("a socket");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                host,
                upstream,
                socket: None,
                door: Door::Open,
                cut_before: 0,
                cut: Cut::Reset,
                stalled: [false; 2],
                delay: None,
                faults: VecDeque::new(),
                next_faults: VecDeque::new(),
                penalty: None,
                counts: Counts::default(),
                open: BTreeSet::new(),
                ended: false,
            }),
            counted: Condvar::new(),
            changed: watch::Sender::new(0),
        });
        let number = port.number();
        let loop_shared = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("an event loop");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listening socket");
                forward::serve(loop_shared, listener, (listening(host), number)).await;
            });
        });
        Self {
            port,
            shared,
            thread: Some(thread),
        }
    }

    /// Returns the port that the proxy listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Returns the counts.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// Cuts all connections now and waits until they are; returns how many there were.
    pub(crate) fn cut(&self, cut: Cut) -> usize {
        let (last, open) = self.change(|state| {
            state.cut_before = state.counts.connections;
            state.cut = cut;
            (state.cut_before, state.open.len())
        });
        self.wait_state("the cut", super::PATIENCE, |state| {
            state.open.first().is_none_or(|oldest| *oldest > last)
        });
        open
    }

    /// Stops forwarding, or starts again, in one direction, for old and new connections alike.
    pub(crate) fn stall(&self, direction: Direction, stalled: bool) {
        self.change(|state| state.stalled[direction as usize] = stalled);
    }

    /// Stops forwarding, or starts again, in both directions.
    pub(crate) fn black_hole(&self, stalled: bool) {
        self.change(|state| state.stalled = [stalled; 2]);
    }

    /// Waits before each chunk is forwarded.
    pub(crate) fn delay(&self, delay: Option<Duration>) {
        self.change(|state| state.delay = delay);
    }

    /// Changes what new connections meet.
    pub(crate) fn door(&self, door: Door) {
        self.change(|state| state.door = door);
        super::port::wait_listening(self.port(), door != Door::Refuse, super::PATIENCE);
    }

    /// Turns clients away that fail to log in too often, as OpenSSH does from 9.8 on; see [`Penalty`].
    pub(crate) fn penalise(&self, failures: usize, lasting: Duration, log: PathBuf) {
        self.change(|state| state.penalty = Some(Penalty::new(failures, lasting, log)));
    }

    /// Sends new connections to another machine.
    pub(crate) fn set_upstream(&self, port: u16) {
        self.change(|state| state.upstream = port);
    }

    /// Sends new connections to a Unix socket.
    pub(crate) fn set_upstream_socket(&self, path: PathBuf) {
        self.change(|state| state.socket = Some(path));
    }

    /// Does harm once so many more bytes have gone one way, over all connections together, and not
    /// one byte later: to the connection that carries the last of them (a stall lasts for that one alone).
    pub(crate) fn fault_after(&self, direction: Direction, bytes: u64, harm: Harm) {
        self.faults_after(direction, [(bytes, harm)]);
    }

    /// As [`Proxy::fault_after`], again and again: each counts its bytes from where the one before it does its harm.
    pub(crate) fn faults_after(
        &self,
        direction: Direction,
        faults: impl IntoIterator<Item = (u64, Harm)>,
    ) {
        self.change(|state| {
            let mut after = state.counts.bytes(direction);
            let faults = faults.into_iter().map(|(bytes, harm)| {
                after += bytes;
                Fault {
                    direction,
                    after,
                    harm,
                }
            });
            state.faults = faults.collect();
        });
    }

    /// Does harm to one of the next connections once so many of its bytes have gone one way. Each call
    /// is for one connection, in the order of the calls.
    pub(crate) fn fault_on_next(&self, direction: Direction, bytes: u64, harm: Harm) {
        self.change(|state| {
            state.next_faults.push_back(Some(Fault {
                direction,
                after: bytes,
                harm,
            }));
        });
    }

    /// Leaves one of the next connections alone, before a later one meets with a fault.
    pub(crate) fn spare_next(&self) {
        self.change(|state| state.next_faults.push_back(None));
    }

    /// Waits until the counts are as wanted, and returns them.
    ///
    /// # Panics
    ///
    /// With the counts when the deadline passes.
    pub(crate) fn wait(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Counts) -> bool,
    ) -> Counts {
        self.wait_state(what, within, |state| wanted(&state.counts))
    }

    fn wait_state(&self, what: &str, within: Duration, wanted: impl Fn(&State) -> bool) -> Counts {
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        while !wanted(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let counts = state.counts;
                // A panic with the lock would poison it for the proxy's own end.
                drop(state);
                panic!("the proxy saw nothing of {what} within {within:?}: {counts:?}");
            }
            (state, _) = self
                .shared
                .counted
                .wait_timeout(state, left)
                .expect("as in lock");
        }
        state.counts
    }

    /// Waits until so many connections have come since the start.
    pub(crate) fn wait_connections(&self, count: u64, within: Duration) -> Counts {
        self.wait(&format!("{count} connections"), within, |counts| {
            counts.connections >= count
        })
    }

    /// Waits until so many bytes have gone one way since the start.
    pub(crate) fn wait_bytes(&self, direction: Direction, bytes: u64, within: Duration) -> Counts {
        self.wait(&format!("{bytes} bytes {direction:?}"), within, |counts| {
            counts.bytes(direction) >= bytes
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.lock());
        self.shared.changed.send_modify(|version| *version += 1);
        result
    }
}

/// Returns the address to listen on.
fn listening(host: Option<Ipv4Addr>) -> Ipv4Addr {
    host.unwrap_or(Ipv4Addr::UNSPECIFIED)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("port", &self.port())
            .field("state", &self.shared.lock())
            .finish()
    }
}
