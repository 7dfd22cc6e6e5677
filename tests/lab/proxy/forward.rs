//! The proxy's event loop: accepting, forwarding, doing harm.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::net::tcp::ReadHalf;
use tokio::net::tcp::WriteHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Cut;
use super::Direction;
use super::Door;
use super::Fault;
use super::Harm;
use super::Penalty;
use super::Shared;

/// What a connection is to be done with.
enum Admission {
    Forward(Option<Fault>),
    Close(&'static [u8]),
    Silent,
}

/// Why a connection did not end in order.
enum Broken {
    /// The proxy was told to cut it.
    Cut(Cut),
    /// One side was reset, and so will be the other.
    Reset,
}

/// Serves until the proxy is dropped.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, at: (Ipv4Addr, u16)) {
    let mut changed = shared.changed.subscribe();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        changed.mark_unchanged();
        let (ended, refuses) = {
            let state = shared.lock();
            (state.ended, state.door == Door::Refuse)
        };
        if ended {
            return;
        }
        if refuses {
            // Only a port on which nobody listens refuses.
            listener = None;
        } else if listener.is_none() {
            let bound = TcpListener::bind(at).await;
            listener = Some(bound.expect("a port that is reserved"));
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accept => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(connection(Arc::clone(&shared), client));
                }
            }
            _ = changed.changed() => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(shared: Arc<Shared>, mut client: TcpStream) {
    let mut changed = shared.changed.subscribe();
    let (number, host, port, admission) = admit(&shared);
    shared.counted.notify_all();
    let fault = match admission {
        Admission::Forward(fault) => fault,
        Admission::Close(message) => {
            drop(client.write_all(message).await);
            return end(client, Cut::Close).await;
        }
        Admission::Silent => {
            while shared.lock().cut_before < number {
                drop(changed.changed().await);
            }
            let cut = shared.lock().cut;
            return end(client, cut).await;
        }
    };
    let dialled = client.local_addr().map(|address| address.ip());
    let Ok(dialled) = host.map_or(dialled, |host| Ok(host.into())) else {
        return end(client, Cut::Reset).await;
    };
    // Who comes from elsewhere has no business here.
    if !dialled.is_loopback() {
        return end(client, Cut::Reset).await;
    }
    let socket = shared.lock().socket.clone();
    let connected = match socket {
        Some(path) => relayed(&path).await,
        None => TcpStream::connect(SocketAddr::new(dialled, port)).await,
    };
    let Ok(mut machine) = connected else {
        // Nobody listens there: nearest to that from here is a reset.
        return end(client, Cut::Reset).await;
    };
    drop(client.set_nodelay(true));
    drop(machine.set_nodelay(true));
    let port = machine.local_addr().map_or(0, |address| address.port());
    shared.count(|state| {
        state.open.insert(number);
    });
    let ending = {
        let (client_read, client_write) = client.split();
        let (machine_read, machine_write) = machine.split();
        let stalled = watch::Sender::new(false);
        let up = Pump::new(&shared, Direction::Up, fault, &stalled);
        let down = Pump::new(&shared, Direction::Down, fault, &stalled);
        let pumps = async {
            tokio::try_join!(
                up.run(client_read, machine_write),
                down.run(machine_read, client_write)
            )
        };
        let cut = async {
            while shared.lock().cut_before < number {
                drop(changed.changed().await);
            }
            shared.lock().cut
        };
        tokio::select! {
            // A cut comes before what else has just come.
            biased;
            cut = cut => Err(Broken::Cut(cut)),
            ended = pumps => ended,
        }
    };
    if let Some(penalty) = &mut shared.lock().penalty {
        penalty.ended(port);
    }
    let cut = match ending {
        Ok(_) => Cut::Close,
        Err(Broken::Cut(cut)) => cut,
        Err(Broken::Reset) => Cut::Reset,
    };
    shared.count(|state| {
        state.open.remove(&number);
        state.counts.cut += u64::from(matches!(ending, Err(Broken::Cut(_))));
    });
    tokio::join!(end(client, cut), end(machine, cut));
}

/// Connects to a Unix socket, and returns a TCP connection that leads there.
async fn relayed(path: &Path) -> std::io::Result<TcpStream> {
    // The path may be longer than an address takes: one by the directory's descriptor is short.
    let parent = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default();
    let directory = std::fs::File::open(parent)?;
    let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut machine = UnixStream::connect(Path::new(&short).join(name)).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (near, far) = tokio::join!(
        TcpStream::connect(listener.local_addr()?),
        listener.accept()
    );
    let (near, (mut far, _)) = (near?, far?);
    drop(far.set_nodelay(true));
    drop(tokio::spawn(async move {
        drop(tokio::io::copy_bidirectional(&mut far, &mut machine).await);
    }));
    Ok(near)
}

fn admit(shared: &Shared) -> (u64, Option<Ipv4Addr>, u16, Admission) {
    let mut state = shared.lock();
    state.counts.connections += 1;
    let penalised = state.penalty.as_ref().is_some_and(Penalty::applies);
    let admission = match state.door {
        Door::TurnAway => Admission::Close(Penalty::MESSAGE),
        Door::Open if penalised => Admission::Close(Penalty::MESSAGE),
        Door::Open => Admission::Forward(state.next_faults.pop_front().flatten()),
        Door::Silent => Admission::Silent,
        Door::Close | Door::Refuse => Admission::Close(b""),
    };
    if !matches!(admission, Admission::Forward(_)) {
        state.counts.turned_away += 1;
    }
    (
        state.counts.connections,
        state.host,
        state.upstream,
        admission,
    )
}

/// Ends one side of a connection.
async fn end(mut stream: TcpStream, cut: Cut) {
    match cut {
        Cut::Reset => drop(stream.set_zero_linger()),
        Cut::Close => {
            drop(stream.shutdown().await);
            // Closing with unread bytes would be a reset.
            let mut rest = vec![0; 16 * 1024];
            while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        }
    }
}

/// Forwards one direction of one connection.
struct Pump<'a> {
    shared: &'a Shared,
    direction: Direction,
    fault: Option<Fault>,
    /// Set by a fault of this connection alone, for both its directions.
    stalled: &'a watch::Sender<bool>,
}

impl<'a> Pump<'a> {
    fn new(
        shared: &'a Shared,
        direction: Direction,
        fault: Option<Fault>,
        stalled: &'a watch::Sender<bool>,
    ) -> Self {
        let fault = fault.filter(|fault| fault.direction == direction);
        Self {
            shared,
            direction,
            fault,
            stalled,
        }
    }

    /// Forwards until the end of the bytes; the error is a cut that a fault asks for.
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Broken> {
        let mut buffer = vec![0; 32 * 1024];
        let mut passed = 0;
        let mut changed = self.shared.changed.subscribe();
        loop {
            self.wait_unstalled().await;
            changed.mark_unchanged();
            let Some(room) = self.room(passed)? else {
                continue;
            };
            let room = buffer
                .len()
                .min(usize::try_from(room).unwrap_or(usize::MAX));
            let read = tokio::select! {
                read = from.read(&mut buffer[..room]) => read,
                // There may be less room now.
                _ = changed.changed() => continue,
            };
            let read = match read {
                Ok(0) => {
                    drop(to.shutdown().await);
                    return Ok(());
                }
                Ok(read) => read,
                Err(_) => return Err(Broken::Reset),
            };
            // A stall that came meanwhile holds these bytes back.
            self.wait_unstalled().await;
            let delay = self.shared.lock().delay;
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            // Counted first: who has received a byte finds it counted.
            passed += read as u64;
            self.shared.count(|state| match self.direction {
                Direction::Up => state.counts.up += read as u64,
                Direction::Down => state.counts.down += read as u64,
            });
            if to.write_all(&buffer[..read]).await.is_err() {
                return Err(Broken::Reset);
            }
        }
    }

    /// Returns how many bytes may pass before the next fault; nothing when one has just come that is no
    /// cut.
    fn room(&mut self, passed: u64) -> Result<Option<u64>, Broken> {
        let mut state = self.shared.lock();
        let forwarded = state.counts.bytes(self.direction);
        let direction = self.direction;
        let common = state.faults.front();
        let common = common.filter(|fault| fault.direction == direction);
        let own_room = self.fault.map(|fault| fault.after.saturating_sub(passed));
        let common_room = common.map(|fault| fault.after.saturating_sub(forwarded));
        let harm = if own_room == Some(0) {
            self.fault.take().map(|fault| fault.harm)
        } else if common_room == Some(0) {
            state.faults.pop_front().map(|fault| fault.harm)
        } else {
            None
        };
        drop(state);
        match harm {
            Some(Harm::Cut(cut)) => Err(Broken::Cut(cut)),
            Some(Harm::Stall) => {
                self.stalled.send_replace(true);
                Ok(None)
            }
            None => Ok(Some(
                own_room
                    .unwrap_or(u64::MAX)
                    .min(common_room.unwrap_or(u64::MAX)),
            )),
        }
    }

    async fn wait_unstalled(&self) {
        let mut changed = self.shared.changed.subscribe();
        let mut own = self.stalled.subscribe();
        loop {
            changed.mark_unchanged();
            own.mark_unchanged();
            let stalled = self.shared.lock().stalled[self.direction as usize];
            if !stalled && !*own.borrow() {
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                _ = own.changed() => {}
            }
        }
    }
}
