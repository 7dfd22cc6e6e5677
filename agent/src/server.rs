//! Accepts connections and keeps each within its limits.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::Algorithm;
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::agent::Agent;
use crate::client::Client;
use crate::hand_on::{self, Route};
use crate::keys::AuthorizedKey;
use crate::listeners::{Listeners, Stream};
use crate::logins::{self, MAX_INSIDE, MAX_SILENT, MAX_TALKING, Place, Places};
use crate::say::say;
use crate::signals::{self, Commands, Orphans};
use crate::valve::{Valve, Valved};
use crate::{Error, HostKey, Settings, ending};

/// How long a client may take to log in.
const LOGIN_GRACE: Duration = Duration::from_secs(30);

/// How long a silent client is left alone before it is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How many such questions may stay unanswered.
const KEEPALIVE_MAX: usize = 3;

/// How long nothing at all may move. It ends connections whose client vanished while we were sending,
/// when no question can be asked; the answers to questions count as movement.
const INACTIVITY: Duration = Duration::from_secs(300);

/// What a client may send on a channel before it must wait for us.
const WINDOW: u32 = 4 << 20;

/// How long to wait before accepting again when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long open connections may take to close when the server ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves clients on `listeners` until `shutdown` completes or the launch's end has come, then hangs up on all of them.
///
/// Commands are not killed when their client is lost, and at the end only where the launch says so. They inherit the umask and
/// the signal mask of this process, and such descriptors as it was itself given without close-on-exec.
/// Signals that this process was started to ignore get a handler that does nothing, since commands would
/// inherit their being ignored; this process becomes a child subreaper, and reaps all orphans below it.
///
/// # Errors
///
/// Fails when the settings cannot be used, or the listener breaks for good.
pub async fn serve(
    listeners: impl Into<Listeners>,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    signals::shed_ignored_signals();
    let key = AuthorizedKey::parse(&settings.authorized_key)?;
    let commands = Commands::default();
    let mut orphans = Orphans::new(commands.clone()).map_err(Error::Signals)?;
    let agent = Arc::new(Agent::new(&settings, commands, config)?);
    let listeners = listeners.into();
    let silent = Places::new(MAX_SILENT);
    let talking = Places::new(MAX_TALKING);
    let inside = Places::new(MAX_INSIDE);
    let (end, ending) = watch::channel(false);

    let mut shutdown = pin!(shutdown);
    let mut is_asked = false;
    let mut over = pin!(agent.life.over());
    let mut connections = JoinSet::new();
    let mut reaping = pin!(orphans.reap());
    let why = loop {
        tokio::select! {
            () = &mut shutdown, if !is_asked => {
                is_asked = true;
                agent.life.ask();
            }
            why = &mut over => break why,
            () = &mut reaping => {}
            Some(_) = connections.join_next() => {}
            accepted = listeners.accept() => match accepted {
                Ok(stream) => {
                    let connection = Connection {
                        key: key.clone(),
                        agent: Arc::clone(&agent),
                        silent: silent.take(stream.source()),
                        talking: talking.clone(),
                        inside: inside.clone(),
                    };
                    connections.spawn(connection.serve(stream, ending.clone()));
                    // In a flood there is always one more, and those that were pushed out must get to end.
                    yield_now().await;
                }
                Err(error) if is_fatal(&error) => return Err(Error::Accept(error)),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    };
    drop(listeners);
    agent.scripts.forget_all();
    // Nobody listens when there are no connections.
    let _ = end.send(true);
    let farewell = async { while connections.join_next().await.is_some() {} };
    // Those that do not manage in time are dropped with their set.
    drop(timeout(FAREWELL, farewell).await);
    if settings.launch.ends_container {
        say(why.reason());
        let ended = async {
            ending::descendants().await;
            ending::container().await;
        };
        tokio::select! {
            () = ended => {}
            () = &mut reaping => {}
        }
    }
    Ok(())
}

/// Tells whether accepting can never work again, as opposed to a client that went away or a shortage.
fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

struct Connection {
    key: AuthorizedKey,
    agent: Arc<Agent>,
    /// The place of a client that has not said a word.
    silent: Place,
    /// The places of those that are logging in.
    talking: Places,
    /// The places of those that are logged in.
    inside: Places,
}

impl Connection {
    /// Serves one connection until it ends or the server does.
    async fn serve(mut self, stream: Stream, mut ending: watch::Receiver<bool>) {
        let deadline = Instant::now() + LOGIN_GRACE;
        let stream = match stream {
            Stream::Unix(stream) => return self.serve_here(stream, deadline, ending).await,
            Stream::Tcp(stream) => stream,
        };
        // Only speed depends on it.
        drop(stream.set_nodelay(true));
        let agent = Arc::clone(&self.agent);
        let spoken = async {
            logins::first_words(&stream).await?;
            Ok::<_, io::Error>(agent.hand_on.route(&stream).await)
        };
        let route = tokio::select! {
            route = timeout_at(deadline, spoken) => route,
            () = self.silent.lost() => return,
            () = told(&mut ending) => return,
        };
        match route {
            Ok(Ok(Route::Here)) => self.serve_here(stream, deadline, ending).await,
            Ok(Ok(Route::To(role, socket))) => {
                tokio::select! {
                    () = self.hand_on(stream, role, socket) => {}
                    () = told(&mut ending) => {}
                }
            }
            Ok(Ok(Route::Nowhere) | Err(_)) | Err(_) => {}
        }
    }

    /// Has a connection served by the agent of another role.
    async fn hand_on(self, stream: TcpStream, role: &str, socket: &Path) {
        let Some(there) = hand_on::connect(role, socket).await else {
            return;
        };
        // The other agent admits it, or does not.
        drop(self.silent);
        let mut carried = pin!(hand_on::carry(stream, there));
        // It hangs up on whoever has not logged in by then.
        if timeout(LOGIN_GRACE, &mut carried).await.is_err() {
            let _visit = self.agent.life.visit();
            carried.await;
        }
    }

    /// Serves a connection here until it ends or the server does.
    async fn serve_here<S>(self, stream: S, deadline: Instant, mut ending: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let valve = Arc::new(Valve::before_login());
        let mut session = pin!(self.run(stream, deadline, Arc::clone(&valve)));
        tokio::select! {
            () = &mut session => {}
            () = told(&mut ending) => {
                valve.cut();
                session.await;
            }
        }
    }

    async fn run<S>(self, stream: S, deadline: Instant, valve: Arc<Valve>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let source = self.silent.source();
        drop(self.silent);
        let mut talking = self.talking.take(source);
        let (tell, mut logged_in) = oneshot::channel();
        let life = self.agent.life.clone();
        let config = self.agent.host_keys.shown();
        let client = Client::new(self.key, self.agent, Arc::clone(&valve), tell);
        let stream = Valved::new(stream, Arc::clone(&valve));
        let greeting = russh::server::run_stream(config, stream, client);
        let mut session = tokio::select! {
            session = timeout_at(deadline, greeting) => match session {
                Ok(Ok(session)) => session,
                _ => return,
            },
            () = talking.lost() => return,
        };
        let inside = tokio::select! {
            _ = &mut session => return,
            _ = &mut logged_in => true,
            () = sleep_until(deadline) => false,
            () = talking.lost() => false,
        };
        drop(talking);
        if !inside {
            valve.cut();
            drop(session.await);
            return;
        }
        let mut inside = self.inside.take(source);
        let _visit = life.visit();
        // How a connection ends concerns nobody here.
        tokio::select! {
            _ = &mut session => return,
            () = inside.lost() => valve.cut(),
        }
        drop(session.await);
    }
}

/// Waits for the server's end.
async fn told(ending: &mut watch::Receiver<bool>) {
    // An error means that the server has ended without a message.
    drop(ending.wait_for(|ending| *ending).await);
}

/// Returns what connections are served with that are shown this key.
fn config(host_key: &HostKey) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-",
            env!("CARGO_PKG_NAME"),
            "_",
            env!("CARGO_PKG_VERSION")
        ))),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // No password can be guessed by timing the answers, so none of them is delayed.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key.private()],
        window_size: WINDOW,
        inactivity_timeout: Some(INACTIVITY),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MAX,
        nodelay: true,
        preferred: Preferred {
            // The post-quantum exchange takes OpenSSH clients a tenth of a second, which every step of a
            // job would pay; it comes second for clients that insist.
            kex: Cow::Borrowed(&[
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::MLKEM768X25519_SHA256,
                kex::EXTENSION_SUPPORT_AS_SERVER,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ]),
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(&[
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
            ]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA256]),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        ..Config::default()
    }
}
