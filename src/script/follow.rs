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
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::failures;
use super::forget::{drop_script, forget, note_survivors};
use super::frames::{Frame, Item, Scanner};
use super::notice::{self, Notices};
use super::output::{self, Output};
use super::{Call, Nonce, Verb};
use crate::compute;
use crate::error::{Error, Kind};
use crate::machine::environment::ContainerEnvironment;
use crate::machine::{Endpoint, FarSide, Machine};
use crate::process::Process;
use crate::script::command_channel::CommandChannel;
use crate::script::final_output::{FinalOutput, put};
use crate::script::interruptions::{Interruption, Interruptions, Stopped};
use crate::script::process_limit::ProcessLimit;
use crate::script::reconnect::{Life, Loss, Reach};
use crate::script::silent_login::{QUIET, Quiet};
use crate::ssh::first_line::is_astray;
use crate::ssh::keys::JobKey;
use crate::ssh::memory_limit::MemoryLimit;
use crate::ssh::session::{Event, Session};
use crate::state::Job;
use crate::state::shared::Shared;
use crate::ui::Ui;

/// The far side ends before it says anything: after that many times in a row it is not the connection.
const SILENT_ENDS: u32 = 3;
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
    /// What all that comes back may take of this host's memory.
    pub ceiling: MemoryLimit,
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
    pub(super) fn call(&self, verb: Verb) -> Call {
        match self.endpoint.far_side {
            FarSide::Login => {
                let inside = self.endpoint.inside.as_deref();
                Call::Login(self.nonce.command(verb, inside))
            }
            FarSide::Agent => {
                let umask = self.shares_files.then_some("0");
                Call::Agent(self.nonce.request(verb, umask))
            }
        }
    }

    /// Returns what a shell reads before it becomes the script's.
    fn prelude(&self) -> Vec<u8> {
        // The agent has the container's environment itself, and is told the mask.
        if self.endpoint.far_side == FarSide::Agent {
            return Vec::new();
        }
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
    /// A command was begun: a start may have taken effect.
    sent: bool,
    /// The far side said that it follows: the start took effect.
    opened: bool,
    /// Bytes of output received.
    pub(super) offset: u64,
    /// Connections on which the far side ended without a word.
    silent_ends: u32,
    /// The machine's want of processes.
    process_limit: ProcessLimit,
    /// The end of what came on standard output before the far side spoke: a login that refuses says why there.
    greeting: Vec<u8>,
    /// The end of what the far side wrote to standard error.
    stderr: Vec<u8>,
}

impl Progress {
    /// Tells whether the command ended for want of a process. Of a script that runs it is the only reason without a word.
    fn is_crowded(&self) -> bool {
        failures::is_crowded(&self.stderr) || self.opened && self.stderr.is_empty()
    }

    /// The far side could start no process: nothing is lost by another try, unless it did not begin for long enough.
    fn crowded(&self) -> Result<Connection> {
        match self.process_limit.told().filter(|_| !self.opened) {
            Some(error) => Err(error.into()),
            None => Ok(Connection::Lost(Loss::Ended)),
        }
    }

    fn out_of_reach(&self, limit: Duration, loss: Loss) -> Error {
        failures::out_of_reach(limit, loss, &self.stderr, &self.greeting)
    }

    /// Heeds that something else than the far side was given what is its own. It would wait for that in vain.
    fn check_astray(&self, life: &Life) -> Result<()> {
        match !life.is_open() && is_astray(&self.stderr, &self.greeting) {
            true => Err(failures::astray().into()),
            false => Ok(()),
        }
    }
}

fn keep_tail(kept: &mut Vec<u8>, data: &[u8]) {
    kept.extend_from_slice(data);
    let excess = kept.len().saturating_sub(SAID_TAIL);
    kept.drain(..excess);
}

/// How one connection ended.
pub(super) enum Connection {
    /// The script ended, and the connection is still there to say so.
    Ended(Ended, CommandChannel),
    /// It was lost, after the far side followed on it or before.
    Lost(Loss),
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
    let mut interruptions = Interruptions::watch(gone, script.owner, written, script.ui)?;
    if script.machine.place.is_spot_instance() {
        interruptions.notices = Notices::of_spot(script.ui, script.job, script.attempt);
    }
    let mut progress = Progress::default();
    let mut reach = Reach::new(script.reconnect_timeout);
    let mut quiet = Quiet::new(script.ui, &script.endpoint.user);
    let ended = loop {
        interruptions.is_out_of_reach(reach.since(), reach.limit());
        let mut life = Life::begin();
        let deadline = reach.deadline();
        let mut process_limit = std::mem::take(&mut progress.process_limit);
        let connecting = process_limit.connect(&script, deadline, progress.opened);
        let session = started(&mut interruptions, &progress, connecting)
            .await?
            .map_err(|e| interruptions.notices.explain(e))?;
        progress.process_limit = process_limit;
        let silence = reach.silence();
        let connection = Following {
            script: &script,
            interruptions: &mut interruptions,
            progress: &mut progress,
            output: &output,
            life: &mut life,
            quiet: &mut quiet,
        }
        .follow(lengths, session, silence)
        .await?;
        interruptions.notices.end();
        match connection {
            Connection::Ended(ended, channel) => {
                let known = Instant::now();
                if let Some(error) = interruptions.notices.ended(ended.code) {
                    return Err(error.into());
                }
                // An instance that is being ended kills its scripts, and not every one hears of it beforehand.
                if script.machine.place.is_spot_instance() && notice::is_a_signals(ended.code) {
                    lost.notify_one();
                    guarded(&mut interruptions, sleep(VERDICT)).await?;
                }
                if !interruptions.is_machine_gone() {
                    forget(&script, &mut interruptions, progress.offset, channel, known).await;
                }
                break ended;
            }
            Connection::Lost(loss) => {
                let (offset, followed) = (progress.offset, life.is_open());
                tracing::debug!(offset, followed, ?loss, "connection lost");
                lost.notify_one();
                if !progress.opened
                    && matches!(loss, Loss::Closed | Loss::NoCommand)
                    && let Some(error) = progress.process_limit.untold()
                {
                    return Err(interruptions.notices.explain(error).into());
                }
                let Some(pause) = reach.lost(life) else {
                    let error = progress.out_of_reach(reach.limit(), loss);
                    return Err(interruptions.notices.explain(error).into());
                };
                started(&mut interruptions, &progress, sleep(pause)).await?;
            }
        }
    };
    drop(output);
    if interruptions.all_written().await? {
        Ok(ended)
    } else {
        Err(Stopped::RunnerGone(Error::new(
            Kind::Cancelled,
            "GitLab Runner does not read this job's output any more",
        )))
    }
}

/// As [`guarded`], where the script may not have been sent yet: then a cancel ends the stage at once.
async fn started<T>(
    interruptions: &mut Interruptions,
    progress: &Progress,
    future: impl Future<Output = T>,
) -> Result<T> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            interruption = interruptions.next() => match interruption? {
                Interruption::Machine(error) => return Err(error.into()),
                Interruption::Cancel if !progress.sent => return Err(failures::cancelled_before_start().into()),
                Interruption::Cancel => {}
            },
            value = &mut future => return Ok(value),
        }
    }
}

/// Waits for something that the script's end does not depend on, heeding what must not wait.
pub(super) async fn guarded<T>(
    interruptions: &mut Interruptions,
    future: impl Future<Output = T>,
) -> Result<T> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            interruption = interruptions.next() => {
                if let Interruption::Machine(error) = interruption? {
                    return Err(error.into());
                }
            }
            value = &mut future => return Ok(value),
        }
    }
}

/// Follows a script on one connection.
struct Following<'a, 'b> {
    script: &'a Script<'b>,
    interruptions: &'a mut Interruptions,
    progress: &'a mut Progress,
    output: &'a Output,
    life: &'a mut Life,
    quiet: &'a mut Quiet<'b>,
}

impl Following<'_, '_> {
    /// Starts it, or goes on where the last connection ended; a far side that says nothing for so long counts as lost.
    async fn follow(self, start: Verb, session: Session, silence: Duration) -> Result<Connection> {
        let Self {
            script,
            interruptions,
            progress,
            output,
            life,
            quiet,
        } = self;
        // A start that is sent again is a no-op where the first took effect; a cancelled one must not begin now.
        let (verb, text) = match progress.opened || interruptions.cancels > 0 {
            true => (Verb::Follow(progress.offset), None),
            false => (start, Some(script.text.clone())),
        };
        // What an earlier connection's far side said would only be said again.
        progress.greeting.clear();
        progress.stderr.clear();
        let opening = CommandChannel::open(session, script.call(verb), text);
        let Some(mut channel) = started(interruptions, progress, opening).await? else {
            return Ok(Connection::Lost(Loss::NoCommand));
        };
        progress.sent = true;
        let (mut told, mut looked) = (0, false);
        let mut stdout = Scanner::new(script.nonce.as_str());
        let mut stderr = Scanner::new(script.nonce.as_str());
        loop {
            if life.is_open() {
                told = tell_cancel(interruptions, &channel, told);
            }
            let silent_at = channel.last_sent() + silence;
            let quiet_at = channel.last_sent() + QUIET;
            let event = tokio::select! {
                biased;
                interruption = interruptions.next() => match interruption? {
                    Interruption::Machine(error) => {
                        let last = FinalOutput::new(channel, stdout, Bytes::new());
                        return last.read_on(error, interruptions, progress, output).await;
                    }
                    Interruption::Cancel => continue,
                },
                // Before what comes: noise is no word.
                () = sleep_until(silent_at), if !life.is_open() => {
                    if Instant::now() < channel.last_sent() + silence {
                        continue;
                    }
                    return Ok(Connection::Lost(Loss::Silent));
                }
                () = sleep_until(quiet_at), if !life.is_open() && !looked && !quiet.is_told() => {
                    if Instant::now() >= channel.last_sent() + QUIET {
                        looked = true;
                        // Else it is the connection, which is noticed elsewhere and soon.
                        if started(interruptions, progress, channel.session.answers()).await? {
                            quiet.tell();
                        }
                    }
                    continue;
                }
                event = channel.receiver.next() => event,
            };
            match event {
                Event::Out(data) => {
                    if !life.is_open() {
                        keep_tail(&mut progress.greeting, &data);
                    }
                    stdout.push(&data);
                }
                Event::Err(data) => {
                    keep_tail(&mut progress.stderr, &data);
                    progress.check_astray(life)?;
                    note_survivors(&mut stderr, &data, script, &mut interruptions.left);
                    continue;
                }
                Event::Lost => return Ok(Connection::Lost(Loss::Closed)),
                Event::Ended if life.is_open() => return Ok(Connection::Lost(Loss::Ended)),
                Event::Ended if progress.is_crowded() => return progress.crowded(),
                Event::Ended => {
                    progress.silent_ends += 1;
                    if progress.silent_ends >= SILENT_ENDS {
                        let error = failures::not_started(&progress.stderr, &progress.greeting);
                        return Err(error.into());
                    }
                    return Ok(Connection::Lost(Loss::Ended));
                }
            }
            while let Some(item) = stdout.take().map_err(failures::malformed)? {
                match item {
                    Item::Bytes(mut bytes) => {
                        progress.offset += bytes.len() as u64;
                        life.heard();
                        if let Some(error) = put(interruptions, output, &mut bytes).await? {
                            let last = FinalOutput::new(channel, stdout, bytes);
                            return last.read_on(error, interruptions, progress, output).await;
                        }
                    }
                    Item::Frame(Frame::Open(at)) if at == progress.offset => {
                        if !life.is_open() {
                            life.opened();
                            interruptions.is_within_reach();
                            interruptions.notices.begin(&channel.session);
                        }
                        progress.opened = true;
                        progress.silent_ends = 0;
                    }
                    Item::Frame(Frame::Next(at)) if at == progress.offset => channel.ack(at),
                    Item::Frame(Frame::Open(at) | Frame::Next(at)) => {
                        return Err(failures::out_of_step(at, progress.offset).into());
                    }
                    Item::Frame(Frame::End(code, memory_kills)) => {
                        return Ok(Connection::Ended(Ended { code, memory_kills }, channel));
                    }
                    Item::Frame(Frame::Gone(_)) if !progress.opened => {
                        return Err(failures::cancelled_before_start().into());
                    }
                    Item::Frame(Frame::Gone(memory_kills)) => {
                        drop_script(script, interruptions, &mut channel).await;
                        return Err(failures::supervisor_gone(memory_kills).into());
                    }
                    Item::Frame(Frame::Full(directory)) => {
                        drop_script(script, interruptions, &mut channel).await;
                        let what = "has no room for the script's output";
                        return Err(failures::no_space(what, &directory).into());
                    }
                    Item::Frame(Frame::Crowded) if life.is_open() => {
                        drop_script(script, interruptions, &mut channel).await;
                        let what = "cannot go on with the script";
                        return Err(failures::crowded(what).into());
                    }
                    Item::Frame(Frame::Crowded) => return progress.crowded(),
                    Item::Frame(Frame::Lacks(what)) => return Err(failures::lacks(&what).into()),
                    Item::Frame(Frame::Unknown(what)) => {
                        return Err(failures::unknown(&what).into());
                    }
                    Item::Frame(Frame::Unable(reason)) => {
                        drop_script(script, interruptions, &mut channel).await;
                        return Err(failures::unable(&reason).into());
                    }
                    Item::Frame(Frame::Fail(reason)) => {
                        let what = "could not take the script";
                        return Err(failures::no_space(what, &reason).into());
                    }
                    Item::Frame(Frame::Left(name)) => interruptions.left.note(&name),
                    // Nobody has asked for it yet.
                    Item::Frame(Frame::Forgotten) => return Ok(Connection::Lost(Loss::Ended)),
                }
            }
            // Only now: what came may have gone on with what the script printed.
            progress.check_astray(life)?;
        }
    }
}

/// Hands a cancel on: the first asks, the second insists. Returns how many were handed on on this connection.
fn tell_cancel(interruptions: &Interruptions, channel: &CommandChannel, told: u32) -> u32 {
    if told == 0 && interruptions.cancels > 0 {
        channel.cancel();
    }
    if told < 2 && interruptions.cancels > 1 {
        channel.kill();
    }
    interruptions.cancels
}
