//! Runs one script on a machine, over as many connections as it takes, and returns its exit code.
//!
//! ```text
//! connect ─▶ start (or follow from the counted byte) ─▶ bytes to stdout, receipts back ─▶ end marker ─▶ done
//!    ▲                                                     │ lost
//!    └─────────────────────────────────────────────────────┘
//! ```

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::environment::ContainerEnvironment;
use super::failures;
use super::forget::{drop_script, forget, heed_left};
use super::frames::{Frame, Item, Scanner};
use super::last_words::{LastWords, put};
use super::notice::{self, Notices};
use super::output::{self, Output};
use super::world::{Interruption, Stopped, World};
use super::{Nonce, Verb};
use crate::compute::{self, Endpoint, Machine};
use crate::error::{Error, Kind, one_line};
use crate::process::Process;
use crate::ssh::connect::connect;
use crate::ssh::keys::JobKey;
use crate::ssh::session::{Event, Receiver, Sender, Session};
use crate::state::Job;
use crate::state::shared::Shared;
use crate::ui::Ui;

/// A loss that is over sooner is nobody's business.
const TELL_LOSS: Duration = Duration::from_secs(60);
/// The far side ends before it says anything: after that many times in a row it is not the connection.
const SILENT_ENDS: u32 = 3;
/// Between a connection that was lost as soon as it stood and the next.
const SHORT_LIFE_PAUSE: Duration = Duration::from_millis(200);
/// How long AWS is given to say that an instance is being ended, where a signal killed its script.
const VERDICT: Duration = Duration::from_secs(3);
/// What is kept of the far side's words for an error message.
const SAID_TAIL: usize = 1024;

type Result<T> = std::result::Result<T, Stopped>;

/// One script to run.
#[derive(Debug)]
pub struct Script<'a> {
    /// Its text, as the Runner wrote it.
    pub text: Bytes,
    /// The container's own environment, where the machine is a container whose was found.
    pub environment: Option<&'a ContainerEnvironment>,
    /// Whether others than its own user need to write to what it makes.
    pub shares_files: bool,
    /// Names this run on the far side.
    pub nonce: Nonce,
    /// The machine.
    pub machine: &'a Machine,
    /// The way in.
    pub endpoint: &'a Endpoint,
    /// The job's key.
    pub key: &'a JobKey,
    /// How long the script may be out of reach.
    pub reconnect_timeout: Duration,
    /// The Runner process.
    pub owner: Option<Process>,
    /// What this host's other jobs do.
    pub shared: &'a Shared,
    /// What is remembered for the job's next script.
    pub job: &'a Job,
    /// The try of `prepare` that made the machine.
    pub attempt: &'a str,
    /// For the rare line in the job log.
    pub ui: Ui,
}

impl Script<'_> {
    pub(super) fn command(&self, verb: Verb) -> Vec<u8> {
        self.nonce.command(verb, self.endpoint.inside.as_deref())
    }

    /// Returns what a shell reads before it becomes the script's.
    fn prelude(&self) -> Vec<u8> {
        let mut prelude = self
            .environment
            .map(ContainerEnvironment::prelude)
            .unwrap_or_default();
        if self.shares_files {
            prelude.extend(b"umask 0\n");
        }
        prelude
    }
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: u8,
    /// How often the kernel killed for want of memory in the machine's control group while it ran; 0 where the
    /// machine does not tell.
    pub memory_kills: u64,
}

/// What is known of the script so far, over all connections.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A start was sent: it may have taken effect.
    sent: bool,
    /// The far side said that it follows: the start took effect.
    opened: bool,
    /// Bytes of output received.
    pub(super) offset: u64,
    /// Connections on which the far side ended without a word.
    silent_ends: u32,
    /// The end of what came on standard output before the far side spoke: a login that refuses says why there.
    greeting: Vec<u8>,
    /// The end of what the far side wrote to standard error.
    stderr: Vec<u8>,
}

fn keep_tail(kept: &mut Vec<u8>, data: &[u8]) {
    kept.extend_from_slice(data);
    let excess = kept.len().saturating_sub(SAID_TAIL);
    kept.drain(..excess);
}

/// How one connection ended.
pub(super) enum Connection {
    /// The script ended, and the connection is still there to say so.
    Ended(Ended, Line),
    /// It was lost, after the far side followed on it or before.
    Lost {
        /// Whether the far side spoke on it.
        followed: bool,
    },
}

/// A connection with a command on it.
pub(super) struct Line {
    /// Ends the connection when dropped: the last handle to it.
    session: Rc<Session>,
    pub(super) receiver: Receiver,
    orders: mpsc::UnboundedSender<Bytes>,
    sender: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        // It may wait for ever for a window that a dead peer does not open.
        self.sender.abort();
    }
}

impl Line {
    pub(super) async fn open(
        session: Session,
        command: Vec<u8>,
        script: Option<Bytes>,
    ) -> Option<Self> {
        let (sender, receiver) = session.exec(command).await?;
        let (orders, queue) = mpsc::unbounded_channel();
        Some(Self {
            session: Rc::new(session),
            receiver,
            orders,
            sender: tokio::spawn(send(sender, script, queue)),
        })
    }

    pub(super) fn order(&self, text: String) {
        // A sender that is gone means a lost connection, which the receiver tells.
        drop(self.orders.send(text.into()));
    }
}

async fn send(sender: Sender, script: Option<Bytes>, mut queue: mpsc::UnboundedReceiver<Bytes>) {
    if let Some(script) = script
        && !sender.send(script).await
    {
        return;
    }
    while let Some(order) = queue.recv().await {
        if !sender.send(order).await {
            return;
        }
    }
}

/// Runs a script and returns how it ended, every byte of its output being written.
///
/// # Errors
/// Whatever keeps its result from being known.
pub async fn run(mut script: Script<'_>) -> Result<Ended> {
    let prelude = script.prelude();
    let lengths = Verb::Start {
        script: script.text.len() as u64,
        prelude: prelude.len() as u64,
    };
    if !prelude.is_empty() {
        script.text = [script.text, prelude.into()].concat().into();
    }
    let (output, written) = output::start();
    let place = script.machine.place.clone();
    // A connection that is lost may be the first sign of a machine that is gone: its state is asked for at once.
    let lost = Rc::new(Notify::new());
    let (watched, shared) = (Rc::clone(&lost), script.shared.clone());
    let gone = async move { compute::gone(&place, &watched, &shared).await };
    let mut world = World::watch(gone, script.owner, written)?;
    if script.machine.place.is_spot_instance() {
        world.notices = Notices::of_spot(script.ui, script.job, script.attempt);
    }
    let mut progress = Progress::default();
    let mut lost_since = Instant::now();
    let ended = loop {
        let began = Instant::now();
        let session = reach(&script, &mut world, &progress, lost_since).await?;
        let connection = follow(
            &script,
            lengths,
            &mut world,
            &mut progress,
            &output,
            session,
        )
        .await?;
        world.notices.end();
        match connection {
            Connection::Ended(ended, line) => {
                if let Some(error) = world.notices.ended(ended.code) {
                    return Err(error.into());
                }
                // An instance that is being ended kills its scripts, and not every one hears of it beforehand.
                if script.machine.place.is_spot_instance() && notice::is_a_signals(ended.code) {
                    lost.notify_one();
                    guarded(&mut world, sleep(VERDICT)).await?;
                }
                if !world.is_machine_gone() {
                    forget(&script, &mut world, progress.offset, line).await;
                }
                break ended;
            }
            Connection::Lost { followed } => {
                tracing::debug!(offset = progress.offset, followed, "connection lost");
                lost.notify_one();
                // A machine that lets in and does no more is as far out of reach as one that does not answer.
                if followed {
                    lost_since = Instant::now();
                }
                if began.elapsed() < SHORT_LIFE_PAUSE {
                    guarded(&mut world, sleep(SHORT_LIFE_PAUSE)).await?;
                }
            }
        }
    };
    drop(output);
    if world.all_written().await? {
        Ok(ended)
    } else {
        Err(Stopped::RunnerGone(Error::new(
            Kind::Cancelled,
            "GitLab Runner does not read this job's output any more",
        )))
    }
}

/// Connects, within what is left of the time out of reach.
async fn reach(
    script: &Script<'_>,
    world: &mut World,
    progress: &Progress,
    since: Instant,
) -> Result<Session> {
    // Told once for each loss, however many connections come to nothing in it.
    let tell = since + TELL_LOSS;
    world.tell_loss_at = (world.told_loss_of != Some(since)).then_some(tell);
    let deadline = since + script.reconnect_timeout;
    let mut connecting = pin!(connect(script.endpoint, script.key, || deadline));
    let session = loop {
        tokio::select! {
            biased;
            interruption = world.next() => match interruption? {
                Interruption::Machine(error) => return Err(error.into()),
                Interruption::Cancel if !progress.sent => return Err(failures::cancelled_before_start().into()),
                Interruption::Cancel => {}
                Interruption::OutOfReach => {
                    world.told_loss_of = Some(since);
                    script.ui.warn(&format!(
                        "no connection to the machine for {} s; its script goes on, and so do attempts to reach it \
                         for {} in all",
                        TELL_LOSS.as_secs(),
                        humantime::format_duration(script.reconnect_timeout),
                    ));
                }
            },
            session = &mut connecting => break session.map_err(|e| world.notices.explain(e))?,
        }
    };
    world.tell_loss_at = None;
    Ok(session)
}

/// Waits for something that the script's end does not depend on, heeding what must not wait.
pub(super) async fn guarded<T>(world: &mut World, future: impl Future<Output = T>) -> Result<T> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            interruption = world.next() => {
                if let Interruption::Machine(error) = interruption? {
                    return Err(error.into());
                }
            }
            value = &mut future => return Ok(value),
        }
    }
}

/// Follows the script on one connection.
async fn follow(
    script: &Script<'_>,
    start: Verb,
    world: &mut World,
    progress: &mut Progress,
    output: &Output,
    session: Session,
) -> Result<Connection> {
    // A start that is sent again is a no-op where the first took effect; a cancelled one must not begin now.
    let (verb, text) = match progress.opened || world.cancels > 0 {
        true => (Verb::Follow(progress.offset), None),
        false => (start, Some(script.text.clone())),
    };
    progress.sent = true;
    // What an earlier connection's far side said would only be said again.
    progress.greeting.clear();
    progress.stderr.clear();
    let opening = Line::open(session, script.command(verb), text);
    let Some(mut line) = guarded(world, opening).await? else {
        return Ok(Connection::Lost { followed: false });
    };
    let mut told = 0;
    let mut open = false;
    let mut stdout = Scanner::new(script.nonce.as_str());
    let mut stderr = Scanner::new(script.nonce.as_str());
    loop {
        if open {
            told = tell_cancel(world, &line, told);
        }
        let event = tokio::select! {
            biased;
            interruption = world.next() => match interruption? {
                Interruption::Machine(error) => {
                    let last = LastWords { line, stdout, put: Vec::new() };
                    return last.heed(error, world, progress, output).await;
                }
                Interruption::Cancel | Interruption::OutOfReach => continue,
            },
            event = line.receiver.next() => event,
        };
        match event {
            Event::Out(data) => {
                if !progress.opened {
                    keep_tail(&mut progress.greeting, &data);
                }
                stdout.push(&data);
            }
            Event::Err(data) => {
                keep_tail(&mut progress.stderr, &data);
                heed_left(&mut stderr, &data, script, &mut world.left);
                continue;
            }
            Event::Lost => return Ok(Connection::Lost { followed: open }),
            Event::Ended => {
                progress.silent_ends += 1;
                if progress.silent_ends >= SILENT_ENDS && !open {
                    return Err(failures::not_started(&progress.stderr, &progress.greeting).into());
                }
                return Ok(Connection::Lost { followed: open });
            }
        }
        while let Some(item) = stdout.take().map_err(failures::malformed)? {
            match item {
                Item::Bytes(bytes) => {
                    progress.offset += bytes.len() as u64;
                    if let Some(error) = put(world, output, &bytes).await? {
                        let last = LastWords {
                            line,
                            stdout,
                            put: vec![bytes],
                        };
                        return last.heed(error, world, progress, output).await;
                    }
                }
                Item::Frame(Frame::Open(at)) if at == progress.offset => {
                    open = true;
                    progress.opened = true;
                    progress.silent_ends = 0;
                    world.notices.begin(&line.session);
                }
                Item::Frame(Frame::Next(at)) if at == progress.offset => {
                    line.order(format!("ack {at}\n"));
                }
                Item::Frame(Frame::Open(at) | Frame::Next(at)) => {
                    return Err(failures::out_of_step(at, progress.offset).into());
                }
                Item::Frame(Frame::End(code, memory_kills)) => {
                    return Ok(Connection::Ended(Ended { code, memory_kills }, line));
                }
                Item::Frame(Frame::Gone(_)) if !progress.opened => {
                    return Err(failures::cancelled_before_start().into());
                }
                Item::Frame(Frame::Gone(memory_kills)) => {
                    drop_script(script, world, &mut line).await;
                    return Err(failures::supervisor_gone(memory_kills).into());
                }
                Item::Frame(Frame::Full(directory)) => {
                    drop_script(script, world, &mut line).await;
                    return Err(failures::no_space(
                        "has no room for the script's output",
                        &directory,
                    )
                    .into());
                }
                Item::Frame(Frame::Fail(reason)) => {
                    return Err(failures::no_space("could not take the script", &reason).into());
                }
                Item::Frame(Frame::Left(name)) => world.left.push(one_line(&name)),
                // Nobody has asked for it yet.
                Item::Frame(Frame::Forgotten) => return Ok(Connection::Lost { followed: open }),
            }
        }
    }
}

/// Hands a cancel on: the first asks, the second insists. Returns how many were handed on on this connection.
fn tell_cancel(world: &World, line: &Line, told: u32) -> u32 {
    if told == 0 && world.cancels > 0 {
        line.order("cancel\n".to_owned());
    }
    if told < 2 && world.cancels > 1 {
        line.order("kill\n".to_owned());
    }
    world.cancels
}
