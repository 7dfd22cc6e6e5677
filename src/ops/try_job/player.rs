//! Runs the stages in order: which stage follows which, what is tried again, what a cancel or a time-out skips.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::child::{Grace, Running, Sink};
use super::config_answer::Answer;
use super::job::{self, Job, JobState};
use super::log::{JobLog, LineStyle};
use super::report::{Report, StageTime};
use super::script::Writer;
use super::stage::CancelScope;
use super::temp::{self, TempDir};
use super::verdict::{Failure, go_duration, judge};

/// What the Runner says of that older name, in each job of a custom executor.
const RENAMED: &str = "WARNING: Starting with version 17.0 the 'build_script' stage will be replaced with 'step_script': \
                       https://gitlab.com/groups/gitlab-org/-/epics/6112";

/// How often `config` and `prepare` are tried.
const PREPARE_TRIES: u32 = 3;

/// The Runner's pauses and patience; tests have shorter ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Between two tries of `prepare`.
    pub(super) prepare_pause: Duration,
    /// Before the second attempt at `get_sources`; doubles with each further one.
    pub(super) sources_pause: Duration,
    /// How long `config`, `prepare` and `cleanup` may take each.
    pub(super) stage: Duration,
    /// How long `after_script` may take.
    pub(super) after_script: Duration,
    /// How long `cleanup` waits for a stage that had to end for good.
    pub(super) cleanup_wait: Duration,
    /// How long a stage that was asked to end may take.
    pub(super) grace: Grace,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prepare_pause: Duration::from_secs(3),
            sources_pause: Duration::from_secs(5),
            stage: Duration::from_secs(3600),
            after_script: Duration::from_secs(300),
            cleanup_wait: Duration::from_secs(300),
            grace: Grace {
                term: Duration::from_secs(600),
                kill: Duration::from_secs(10),
            },
        }
    }
}

/// The job to play, and the settings for it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The driver's program and the arguments before `custom`.
    pub(super) program: Vec<OsString>,
    /// The configuration that was named, in full; the program's arguments have it as well.
    pub(super) configuration: Option<String>,
    /// Variables of this process that the stages must not see.
    pub(super) forget: Vec<OsString>,
    pub(super) job: Job,
    /// How often `get_sources` may be tried.
    pub(super) attempts: u32,
    /// The job's own time limit, from the first stage on.
    pub(super) timeout: Duration,
    /// The Runner's own setting, for a driver that leaves it alone.
    pub(super) builds_dir: PathBuf,
    /// Where each try of `prepare` gets its directory.
    pub(super) temp: PathBuf,
    pub(super) limits: Limits,
}

/// One try of `prepare`, and with it the directory that all its stages share.
#[derive(Debug)]
pub(super) struct PrepareAttempt {
    pub(super) number: u32,
    pub(super) temp: TempDir,
    pub(super) answer: Answer,
}

impl PrepareAttempt {
    pub(super) fn build_exit_code_file(&self) -> PathBuf {
        self.temp.path().join("build_exit_code")
    }

    pub(super) fn response_file(&self) -> PathBuf {
        self.temp.path().join("response.json")
    }
}

/// Plays one job.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) plan: Plan,
    pub(super) log: JobLog,
    /// Messages that a Runner keeps out of the job's log, for the user of `try`.
    pub(super) console: JobLog,
    pub(super) cancel: watch::Receiver<u32>,
    began: Instant,
    pub(super) deadline: Instant,
    pub(super) state: JobState,
    pub(super) stages: Vec<StageTime>,
    /// A stage that did not end when told to, beside which `cleanup` had to begin.
    pub(super) left_over: Option<Running>,
}

impl Player {
    /// Returns a player; `cancel` counts how often somebody asked for the end.
    pub(super) fn new(
        plan: Plan,
        log: JobLog,
        console: JobLog,
        cancel: watch::Receiver<u32>,
    ) -> Self {
        let began = Instant::now();
        let deadline = began + plan.timeout;
        Self {
            plan,
            log,
            console,
            cancel,
            began,
            deadline,
            state: JobState::default(),
            stages: Vec::new(),
            left_over: None,
        }
    }

    /// Plays the whole job and returns its report.
    pub(super) async fn play(mut self) -> Report {
        self.log.bytes(job::opening().into_bytes()).await;
        let failure = match self.set_up().await {
            Err(failure) => Some(failure),
            Ok(prepared) => {
                let failure = self.scripts(&prepared).await;
                self.clean_up(prepared).await;
                failure
            }
        };
        self.closing(failure.as_ref()).await;
        Report {
            job_id: self.plan.job.id,
            configuration: self.plan.configuration,
            failure,
            stages: self.stages,
            total: self.began.elapsed(),
        }
    }

    async fn closing(&self, failure: Option<&Failure>) {
        let (look, text) = match failure {
            None => (LineStyle::Good, "Job succeeded".to_owned()),
            Some(failure) => (LineStyle::Error, failure.last_line(self.plan.timeout)),
        };
        self.log.line(look, &text).await;
    }

    /// Tries `config` and `prepare` until they succeed; each try that does not is cleaned up at once.
    async fn set_up(&mut self) -> Result<PrepareAttempt, Failure> {
        self.log
            .line(LineStyle::Heading, "Preparing the \"custom\" executor")
            .await;
        let mut number = 1;
        loop {
            let mut prepared = self.new_prepare_attempt(number)?;
            let Err(failure) = self.prepare(&mut prepared).await else {
                return Ok(prepared);
            };
            self.clean_up(prepared).await;
            let Failure::System(why) = &failure else {
                return Err(failure);
            };
            let pause = self.plan.limits.prepare_pause;
            self.log
                .line(
                    LineStyle::Error,
                    &format!("ERROR: Preparation failed: {why}"),
                )
                .await;
            // After the last one too, as the Runner does; nothing is waited for then.
            let again = format!("Will be retried in {} ...", go_duration(pause));
            self.log.line(LineStyle::Good, &again).await;
            if number == PREPARE_TRIES {
                return Err(failure);
            }
            self.pause(pause, CancelScope::SetUp).await?;
            number += 1;
        }
    }

    fn new_prepare_attempt(&self, number: u32) -> Result<PrepareAttempt, Failure> {
        let machinery = |e: &dyn std::fmt::Display| Failure::System(e.to_string());
        let temp =
            TempDir::create(&self.plan.temp, "custom-executor").map_err(|e| machinery(&e))?;
        let prepared = PrepareAttempt {
            number,
            temp,
            answer: Answer::default(),
        };
        let payload = self.plan.job.payload().to_string();
        write_new(&prepared.response_file(), payload.as_bytes(), 0o600)
            .map_err(|e| machinery(&e))?;
        Ok(prepared)
    }

    /// One try of `config` and `prepare`.
    async fn prepare(&mut self, prepared: &mut PrepareAttempt) -> Result<(), Failure> {
        let mut call = self.call("config", prepared.number, CancelScope::SetUp, prepared);
        call.stdout = Sink::Keep;
        call.limit = Some(self.plan.limits.stage);
        let stdout = self.passed(call).await?;
        prepared.answer = Answer::read(&stdout).map_err(Failure::System)?;
        self.state.settle(&prepared.answer, &self.plan.builds_dir);
        self.log
            .line(LineStyle::Plain, &prepared.answer.introduction())
            .await;
        let mut call = self.call("prepare", prepared.number, CancelScope::SetUp, prepared);
        call.limit = Some(self.plan.limits.stage);
        self.passed(call).await.map(drop)
    }

    /// Plays the sub-stages and returns what the job failed of.
    async fn scripts(&mut self, prepared: &PrepareAttempt) -> Option<Failure> {
        let script = self.writer(prepared).prepare_script();
        if let Err(failure) = self
            .sub_stage(
                "prepare_script",
                1,
                CancelScope::SetUp,
                None,
                &script,
                prepared,
            )
            .await
        {
            self.set_status_if_stopped(&failure);
            return Some(failure.of_environment());
        }
        let failure = match self.sources(prepared).await {
            Err(failure) => {
                self.set_status_if_stopped(&failure);
                Some(failure)
            }
            Ok(()) => self.user_scripts(prepared).await,
        };
        if failure.as_ref().is_some_and(Failure::skips_to_cleanup) {
            return failure;
        }
        let script = self.writer(prepared).cleanup_file_variables();
        match self
            .sub_stage(
                "cleanup_file_variables",
                1,
                CancelScope::Last,
                None,
                &script,
                prepared,
            )
            .await
        {
            Err(stop) if stop.skips_to_cleanup() => self.stopped(stop),
            // The Runner notes it in its own log, and the job ends as it would have.
            Err(_) | Ok(()) => failure,
        }
    }

    /// Plays the job's own script and what follows it whatever its end.
    async fn user_scripts(&mut self, prepared: &PrepareAttempt) -> Option<Failure> {
        let script = self.writer(prepared).build_script();
        let failure = self
            .sub_stage(
                "build_script",
                1,
                CancelScope::Script,
                None,
                &script,
                prepared,
            )
            .await
            .err();
        self.state.status = failure.as_ref().map_or("success", Failure::job_status);
        if failure.as_ref().is_some_and(Failure::skips_to_cleanup) {
            return failure;
        }
        if matches!(failure, Some(Failure::Cancelled { .. })) {
            let text = "WARNING: script canceled externally (UI, API)";
            self.log.line(LineStyle::Warning, text).await;
        }
        let Some(script) = self.writer(prepared).after_script() else {
            return failure;
        };
        let limit = Some(self.plan.limits.after_script);
        match self
            .sub_stage(
                "after_script",
                1,
                CancelScope::Last,
                limit,
                &script,
                prepared,
            )
            .await
        {
            Err(stop) if stop.skips_to_cleanup() => self.stopped(stop),
            Err(Failure::Script { said, .. } | Failure::System(said)) => {
                let text = format!(
                    "WARNING: after_script failed, but job will continue unaffected: {said}"
                );
                self.log.line(LineStyle::Warning, &text).await;
                failure
            }
            Err(_) | Ok(()) => failure,
        }
    }

    /// Lets a stop of the whole job outweigh an earlier failure.
    fn stopped(&mut self, stop: Failure) -> Option<Failure> {
        self.state.status = stop.job_status();
        Some(stop)
    }

    /// Before the script has begun, only a stop changes `CI_JOB_STATUS`: a failure leaves it as it is.
    fn set_status_if_stopped(&mut self, failure: &Failure) {
        if matches!(failure, Failure::Timeout | Failure::Cancelled { .. }) {
            self.state.status = failure.job_status();
        }
    }

    /// Tries `get_sources` as often as the job says. The second attempt begins with clearing the working tree; where that
    /// fails, it was the attempt.
    async fn sources(&mut self, prepared: &PrepareAttempt) -> Result<(), Failure> {
        let script = self.writer(prepared).get_sources();
        let mut pause = self.plan.limits.sources_pause;
        let mut attempt = 1;
        loop {
            let cleared = match attempt {
                2 => self.clear_worktree(prepared).await,
                _ => Ok(()),
            };
            let pauses = cleared.is_ok();
            let done = match cleared {
                Ok(()) => {
                    self.sub_stage(
                        "get_sources",
                        attempt,
                        CancelScope::SetUp,
                        None,
                        &script,
                        prepared,
                    )
                    .await
                }
                failed => failed,
            };
            let failure = match done {
                Ok(()) => return Ok(()),
                Err(stop @ (Failure::Timeout | Failure::Cancelled { .. })) => return Err(stop),
                Err(failure) => failure,
            };
            if attempt >= self.plan.attempts {
                return Err(failure);
            }
            if pauses {
                let again = format!("Retrying in {}", go_duration(pause));
                self.log.line(LineStyle::Good, &again).await;
                self.pause(pause, CancelScope::SetUp).await?;
                pause *= 2;
            }
            attempt += 1;
        }
    }

    async fn clear_worktree(&mut self, prepared: &PrepareAttempt) -> Result<(), Failure> {
        let script = self.writer(prepared).clear_worktree();
        self.sub_stage(
            "clear_worktree",
            1,
            CancelScope::SetUp,
            None,
            &script,
            prepared,
        )
        .await
    }

    /// Calls `cleanup`, whose end changes nothing about the job, and removes the try's directory.
    async fn clean_up(&mut self, prepared: PrepareAttempt) {
        let mut call = self.call("cleanup", prepared.number, CancelScope::Cleanup, &prepared);
        call.limit = Some(self.plan.limits.stage);
        call.stdout = Sink::Log(self.console.clone());
        call.stderr = Sink::Log(self.console.clone());
        let (ended, _) = self.stage(call).await;
        let file = prepared.build_exit_code_file();
        let why = match ended {
            Err(e) => Some(format!("failed to start command: {e}")),
            Ok(ended) => match judge(&ended.exit, &file) {
                Some(Failure::Script { said, .. } | Failure::System(said)) => Some(said),
                _ => None,
            },
        };
        if let Some(why) = why {
            self.log
                .line(
                    LineStyle::Warning,
                    &format!("WARNING: Cleanup script failed: {why}"),
                )
                .await;
        }
        if let Err(e) = prepared.temp.remove() {
            self.console
                .line(
                    LineStyle::Warning,
                    &format!("WARNING: some temporary files stay: {e}"),
                )
                .await;
        }
        if let Some(mut left_over) = self.left_over.take() {
            left_over.ended().await;
        }
    }

    fn writer<'a>(&'a self, prepared: &'a PrepareAttempt) -> Writer<'a> {
        Writer {
            job: &self.plan.job,
            state: &self.state,
            hostname: prepared
                .answer
                .hostname
                .as_deref()
                .filter(|name| !name.is_empty()),
            shell: prepared
                .answer
                .shell
                .as_deref()
                .filter(|name| !name.is_empty())
                .unwrap_or("bash"),
            colour: self.log.colour(),
        }
    }

    /// Opens the sub-stage in the job log, writes its script into a directory of its own, as the Runner does, and runs it.
    async fn sub_stage(
        &mut self,
        name: &'static str,
        attempt: u32,
        cancel_scope: CancelScope,
        limit: Option<Duration>,
        script: &[u8],
        prepared: &PrepareAttempt,
    ) -> Result<(), Failure> {
        if let Some(stop) = self.stop_before(cancel_scope) {
            return Err(stop);
        }
        self.log.line(LineStyle::Heading, &heading(name)).await;
        if runners_name(name) != name {
            self.log.line(LineStyle::Warning, RENAMED).await;
        }
        let file = script_file(prepared.temp.path(), script)
            .map_err(|e| Failure::System(format!("cannot write the script of {name}: {e}")))?;
        let mut call = self.call(name, attempt, cancel_scope, prepared);
        call.args = vec!["run".into(), file.into(), name.into()];
        call.limit = limit;
        self.passed(call).await.map(drop)
    }
}

/// Returns the Runner's own name for a sub-stage: one comes to custom executors by an older name.
pub(super) fn runners_name(name: &str) -> &str {
    match name {
        "build_script" => "step_script",
        name => name,
    }
}

/// Returns the line with which the Runner opens a sub-stage.
fn heading(name: &str) -> String {
    let known = match name {
        "prepare_script" => "Preparing environment",
        "get_sources" => "Getting source from Git repository",
        "clear_worktree" => "Deleting all tracked and untracked files due to source fetch failure",
        "after_script" => "Running after_script",
        "cleanup_file_variables" => "Cleaning up project directory and file based variables",
        step => {
            return format!(
                "Executing \"{}\" stage of the job script",
                runners_name(step)
            );
        }
    };
    known.to_owned()
}

fn write_new(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)?
        .write_all(content)
}

fn script_file(directory: &Path, script: &[u8]) -> io::Result<PathBuf> {
    let own = directory.join(format!("script{}", temp::random()? % 10_000_000_000));
    temp::private_directory(&own)?;
    let file = own.join("script");
    write_new(&file, script, 0o700)?;
    Ok(file)
}
