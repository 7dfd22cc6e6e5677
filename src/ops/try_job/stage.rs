//! One stage as the Runner runs it: started, watched for what may end it, judged.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::child::{Ended, Invocation, Running, Sink};
use super::log::{JobLog, LineStyle};
use super::player::{Player, PrepareAttempt, runners_name};
use super::report::StageTime;
use super::verdict::{BUILD_FAILURE, Exit, Failure, SYSTEM_FAILURE, judge};

/// What a cancel does to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelScope {
    /// All that comes before the job's script: any cancel is a hard one.
    SetUp,
    /// The job's script: a first cancel ends it, a second one the job.
    Script,
    /// What follows a cancel too: only a second one ends it.
    Last,
    /// `cleanup`: nothing but its own limit.
    Cleanup,
}

/// What stopped a stage, if anything did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Nothing: it ended.
    No,
    /// The job ends, for this reason.
    Job(Failure),
    /// Its own time was over.
    Limit,
}

/// One stage to be started.
pub(super) struct Call<'a> {
    pub(super) name: &'static str,
    pub(super) attempt: u32,
    pub(super) args: Vec<OsString>,
    pub(super) cancel_scope: CancelScope,
    pub(super) limit: Option<Duration>,
    pub(super) stdout: Sink,
    pub(super) stderr: Sink,
    pub(super) prepared: &'a PrepareAttempt,
}

impl Player {
    /// Returns a call whose only argument is its name and whose output is the job's.
    pub(super) fn call<'a>(
        &self,
        name: &'static str,
        attempt: u32,
        cancel_scope: CancelScope,
        prepared: &'a PrepareAttempt,
    ) -> Call<'a> {
        Call {
            name,
            attempt,
            args: vec![name.into()],
            cancel_scope,
            limit: None,
            stdout: Sink::Log(self.log.clone()),
            stderr: Sink::Log(self.log.clone()),
            prepared,
        }
    }

    /// Runs a stage and returns what it printed if it was kept, or what the Runner makes of its end.
    pub(super) async fn passed(&mut self, call: Call<'_>) -> Result<Vec<u8>, Failure> {
        if let Some(failure) = self.stop_before(call.cancel_scope) {
            return Err(failure);
        }
        let (name, exit_code_file) = (call.name, call.prepared.build_exit_code_file());
        let sub_stage = call.args.first().is_some_and(|arg| arg == "run");
        let (ended, stopped) = self.stage(call).await;
        if sub_stage && matches!(stopped, Stopped::Limit | Stopped::Job(Failure::Timeout)) {
            self.log.line(LineStyle::Warning, &out_of_time(name)).await;
        }
        if let Stopped::Job(failure) = stopped {
            return Err(failure);
        }
        let ended = ended.map_err(|e| Failure::System(format!("failed to start command: {e}")))?;
        // A stage that was stopped by its own limit is judged by its exit, as any other.
        match judge(&ended.exit, &exit_code_file) {
            None => Ok(ended.stdout),
            Some(failure) => Err(failure),
        }
    }

    /// Starts a stage and waits for its end, or for whatever ends it.
    pub(super) async fn stage(&mut self, call: Call<'_>) -> (io::Result<Ended>, Stopped) {
        let mut words = self.plan.program.clone();
        words.push("custom".into());
        words.extend(call.args);
        let env = self.environment(call.prepared, call.name == "config");
        let invocation = Invocation {
            words: &words,
            env: &env,
            forget: &self.plan.forget,
            directory: call.prepared.temp.path(),
        };
        let own_code_file = (call.cancel_scope != CancelScope::Cleanup)
            .then(|| call.prepared.build_exit_code_file());
        let began = Instant::now();
        let started = Running::start(invocation, call.stdout, call.stderr, self.plan.limits.grace);
        let (ended, stopped) = match started {
            Err(e) => (Err(e), Stopped::No),
            Ok(running) => self.attend(running, call.cancel_scope, call.limit).await,
        };
        let exit = ended.as_ref().ok().map(|ended| &ended.exit);
        let failure = exit
            .zip(own_code_file)
            .and_then(|(exit, file)| judge(exit, &file));
        self.stages.push(StageTime {
            name: call.name,
            attempt: call.attempt,
            took: began.elapsed(),
            exit_code: exit.and_then(Exit::code),
            script_exit_code: match failure {
                Some(Failure::Script { code, .. }) => Some(code),
                _ => None,
            },
        });
        (ended, stopped)
    }

    async fn attend(
        &mut self,
        mut running: Running,
        cancel_scope: CancelScope,
        limit: Option<Duration>,
    ) -> (io::Result<Ended>, Stopped) {
        let mut stopped = Stopped::No;
        let mut heard = heard_before(cancel_scope);
        let mut limit = limit.map(|limit| Instant::now() + limit);
        let mut deadline = Some(self.deadline).filter(|_| cancel_scope != CancelScope::Cleanup);
        let mut patience = None;
        loop {
            tokio::select! {
                ended = running.ended() => return (Ok(ended), stopped),
                count = more_than(&mut self.cancel, heard) => {
                    heard = Some(count);
                    let hard = cancel_scope == CancelScope::SetUp || count > 1;
                    stopped = Stopped::Job(Failure::Cancelled { hard });
                    running.stop();
                    if hard {
                        // The job is over for good: no other limit matters any more.
                        (limit, deadline) = (None, None);
                        patience = patience.or(Some(Instant::now() + self.plan.limits.cleanup_wait));
                    }
                    say_cancelled(&self.console, hard).await;
                }
                () = reached(deadline) => {
                    (limit, deadline) = (None, None);
                    stopped = Stopped::Job(Failure::Timeout);
                    running.stop();
                    patience = Some(Instant::now() + self.plan.limits.cleanup_wait);
                }
                () = reached(limit) => {
                    limit = None;
                    if stopped == Stopped::No {
                        stopped = Stopped::Limit;
                    }
                    running.stop();
                }
                () = reached(patience) => {
                    self.left_over = Some(running);
                    let why = "Timed out waiting for the build to finish";
                    self.log.line(LineStyle::Warning, &format!("WARNING: {why}")).await;
                    let exit = Exit::Unknown(why.to_owned());
                    return (Ok(Ended { exit, stdout: Vec::new() }), stopped);
                }
            }
        }
    }

    /// Returns why a stage must not even be started.
    pub(super) fn stop_before(&self, cancel_scope: CancelScope) -> Option<Failure> {
        let count = *self.cancel.borrow();
        match cancel_scope {
            CancelScope::Cleanup => None,
            _ if Instant::now() >= self.deadline => Some(Failure::Timeout),
            CancelScope::SetUp if count > 0 => Some(Failure::Cancelled { hard: true }),
            CancelScope::Script if count > 0 => Some(Failure::Cancelled { hard: count > 1 }),
            CancelScope::Last if count > 1 => Some(Failure::Cancelled { hard: true }),
            CancelScope::SetUp | CancelScope::Script | CancelScope::Last => None,
        }
    }

    /// Waits, unless something ends the job meanwhile.
    pub(super) async fn pause(
        &mut self,
        time: Duration,
        cancel_scope: CancelScope,
    ) -> Result<(), Failure> {
        let until = Instant::now() + time;
        let cut_short = tokio::select! {
            () = sleep_until(until) => false,
            () = sleep_until(self.deadline) => true,
            _ = more_than(&mut self.cancel, heard_before(cancel_scope)) => true,
        };
        match self.stop_before(cancel_scope) {
            Some(failure) if cut_short => Err(failure),
            _ => Ok(()),
        }
    }

    /// Returns what the contract puts on top of this process's environment: the Runner's own variables,
    /// then the driver's `job_env`, then the job's with their prefix.
    fn environment(&self, prepared: &PrepareAttempt, config: bool) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = vec![
            ("TMPDIR".into(), prepared.temp.path().into()),
            (
                "BUILD_FAILURE_EXIT_CODE".into(),
                BUILD_FAILURE.to_string().into(),
            ),
            (
                "SYSTEM_FAILURE_EXIT_CODE".into(),
                SYSTEM_FAILURE.to_string().into(),
            ),
            (
                "BUILD_EXIT_CODE_FILE".into(),
                prepared.build_exit_code_file().into(),
            ),
            ("JOB_RESPONSE_FILE".into(), prepared.response_file().into()),
        ];
        if !config {
            let job_env = prepared.answer.job_env.iter().flatten();
            env.extend(job_env.map(|(name, value)| (name.into(), value.into())));
        }
        let job = self.plan.job.environment(&self.state);
        env.extend(
            job.into_iter()
                .map(|(name, value)| (format!("CUSTOM_ENV_{name}").into(), value.into())),
        );
        env
    }
}

/// Tells the user what the cancel does; a Runner writes nothing about it to the job log.
async fn say_cancelled(console: &JobLog, hard: bool) {
    let text = if hard {
        "Cancelled: going straight to the cleanup"
    } else {
        "Cancelled: the script is asked to end; a second cancel skips what follows it"
    };
    console.line(LineStyle::Warning, text).await;
}

/// Returns the Runner's line about a sub-stage whose time was over.
fn out_of_time(name: &str) -> String {
    format!(
        "WARNING: {} could not run to completion because the timeout was exceeded. For more control over job and script \
         timeouts see: https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after_script-timeouts",
        runners_name(name)
    )
}

/// Returns how many cancels a stage of that scope ignores; `None`: any number.
fn heard_before(cancel_scope: CancelScope) -> Option<u32> {
    match cancel_scope {
        CancelScope::SetUp | CancelScope::Script => Some(0),
        CancelScope::Last => Some(1),
        CancelScope::Cleanup => None,
    }
}

/// Waits until more cancels were asked for than were heard.
async fn more_than(cancel: &mut watch::Receiver<u32>, heard: Option<u32>) -> u32 {
    if let Some(heard) = heard
        && let Ok(count) = cancel.wait_for(|count| *count > heard).await
    {
        return *count;
    }
    // Nobody can cancel any more.
    std::future::pending().await
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
