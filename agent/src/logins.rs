//! How many clients there may be at once, and which one must go when one more comes.
//!
//! Whoever reaches the port can open connections, so a plain bound would let anybody shut the job's own
//! client out. Here the newcomer is always let in; one of those that are there makes room, and it is one
//! of the address that has most of them, so that a flood pushes out itself.
//!
//! There are two such bounds before the login. A client that has not said a word costs a socket, so many
//! of those may wait; one that has costs a session with its buffers and keys.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// How many clients may be connected that have not said a word. Each costs a descriptor, of which a
/// container has 1,024 at the least; commands need some too.
pub(crate) const MAX_SILENT: usize = 256;

/// How many may be logging in. A session takes up to 300 KiB then: it makes room for the largest packet
/// as soon as its length is known, and no byte of the packet needs to follow.
pub(crate) const MAX_TALKING: usize = 48;

/// How many may be logged in: they hold the job's key, so they are the driver's.
pub(crate) const MAX_INSIDE: usize = 256;

/// How long a client may keep silent before it is taken for one that waits for our version line.
/// `ssh-keyscan` does; the driver and OpenSSH speak at once.
const SILENCE: Duration = Duration::from_secs(2);

/// How often a line that has only begun is looked at again: there is no event for its next byte.
const GLANCE: Duration = Duration::from_millis(20);

/// The longest version line that there may be, its end included.
const MAX_LINE: usize = 255;

/// Where connections come from, for comparing who has most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An IPv4 address, also where it came over an IPv6 socket.
    V4(Ipv4Addr),
    /// The network of an IPv6 address: whoever has one of its addresses has them all.
    V6(u64),
    /// A socket of the task, or a client that has gone already.
    Near,
}

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let network = [a, b, c, d]
                    .into_iter()
                    .fold(0, |network, part| network << 16 | u64::from(part));
                Self::V6(network)
            }
        }
    }
}

/// The places for one kind of client. Copies speak of the same places.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By age.
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    source: Source,
    /// Tells the holder to go; dropping it does.
    _stay: oneshot::Sender<()>,
}

impl Places {
    /// Makes places for at most `most` clients.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            state: Arc::default(),
        }
    }

    /// Gives a place to a client; another one loses its own if there is none left.
    pub(crate) fn take(&self, source: Source) -> Place {
        let (stay, go) = oneshot::channel();
        let mut state = self.state();
        while state.taken.len() >= self.most.max(1) {
            let Some(number) = state.crowded_out() else {
                break;
            };
            state.taken.remove(&number);
        }
        let number = state.next;
        state.next += 1;
        state.taken.insert(
            number,
            Taken {
                source,
                _stay: stay,
            },
        );
        drop(state);
        Place {
            places: self.clone(),
            number,
            source,
            go,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the oldest place of the source that has most; among equals the oldest of all.
    fn crowded_out(&self) -> Option<u64> {
        let mut counts: HashMap<Source, usize> = HashMap::new();
        for taken in self.taken.values() {
            *counts.entry(taken.source).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        self.taken
            .iter()
            .find(|(_, taken)| counts.get(&taken.source) == Some(&most))
            .map(|(number, _)| *number)
    }
}

/// A client's place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    number: u64,
    source: Source,
    go: oneshot::Receiver<()>,
}

impl Place {
    /// Where the client comes from.
    pub(crate) fn source(&self) -> Source {
        self.source
    }

    /// Waits until the place is taken away.
    pub(crate) async fn lost(&mut self) {
        // Nothing is ever sent: the other end is dropped.
        let _ = (&mut self.go).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state().taken.remove(&self.number);
    }
}

/// Waits until a client has sent its version line or enough to be none, or was silent for long; takes
/// nothing of it. An error means that the client has gone.
pub(crate) async fn first_words(stream: &TcpStream) -> io::Result<()> {
    let mut line = [0; MAX_LINE];
    let silence = Instant::now() + SILENCE;
    let Ok(first) = timeout_at(silence, stream.peek(&mut line)).await else {
        return Ok(());
    };
    let mut length = first?;
    let mut closed = length == 0;
    loop {
        let seen = line.get(..length).unwrap_or_default();
        if length == MAX_LINE || seen.contains(&b'\n') {
            return Ok(());
        }
        if closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sleep(GLANCE).await;
        // Asked for before the look, so that the look shows all there was.
        closed = stream.ready(Interest::READABLE).await?.is_read_closed();
        length = stream.peek(&mut line).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    fn source(number: u8) -> Source {
        Source::V4(Ipv4Addr::new(10, 0, 0, number))
    }

    fn is_lost(place: &mut Place) -> bool {
        !matches!(
            place.go.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }

    #[test]
    fn a_flood_pushes_out_itself() {
        let places = Places::new(8);
        let mut job = places.take(source(1));
        let mut flood: Vec<_> = (0..100).map(|_| places.take(source(2))).collect();
        assert!(!is_lost(&mut job));
        let mut late = places.take(source(3));
        assert!(!is_lost(&mut job) && !is_lost(&mut late));
        let lost = flood.iter_mut().map(is_lost).collect::<Vec<_>>();
        assert_eq!(lost.iter().filter(|lost| !**lost).count(), 6);
        // The oldest went.
        assert!(lost[..94].iter().all(|lost| *lost));
    }

    #[test]
    fn among_equals_the_oldest_goes() {
        let places = Places::new(3);
        let mut taken: Vec<_> = (0..4).map(|number| places.take(source(number))).collect();
        let lost: Vec<_> = taken.iter_mut().map(is_lost).collect();
        assert_eq!(lost, [true, false, false, false]);
    }

    #[test]
    fn a_place_is_free_again() {
        let places = Places::new(2);
        let mut first = places.take(source(1));
        for _ in 0..10 {
            drop(places.take(source(1)));
        }
        assert!(!is_lost(&mut first));
        drop(first);
        assert!(places.state().taken.is_empty());
    }

    #[test]
    fn sources_are_those_of_people() {
        let source = |text: &str| Source::from(text.parse::<SocketAddr>().unwrap());
        assert_eq!(source("10.1.2.3:5"), source("[::ffff:10.1.2.3]:9"));
        assert_eq!(
            source("[2001:db8:1:2::3]:5"),
            source("[2001:db8:1:2:4::]:5")
        );
        assert_ne!(source("[2001:db8:1:2::3]:5"), source("[2001:db8:1:3::3]:5"));
        assert_ne!(source("10.1.2.3:5"), source("10.1.2.4:5"));
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn words_are_waited_for_and_left_there() {
        for words in [&b"SSH-2.0-x\r\n"[..], &[b'x'; 300]] {
            let (mut client, server) = pair().await;
            client.write_all(words).await.unwrap();
            first_words(&server).await.unwrap();
            let mut seen = [0; 4];
            assert_eq!(server.peek(&mut seen).await.unwrap(), 4);
            assert_eq!(seen, words[..4]);
        }
        let (client, server) = pair().await;
        drop(client);
        first_words(&server).await.unwrap_err();
        let (mut client, server) = pair().await;
        client.write_all(b"SSH-").await.unwrap();
        drop(client);
        first_words(&server).await.unwrap_err();
    }
}
