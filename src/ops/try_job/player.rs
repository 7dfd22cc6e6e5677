//! The order of play: which stage follows which, what is tried again, what a cancel or a time-out skips.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::Answer;
use super::child::{Grace, Running, Sink};
use super::job::{Job, RUNNER_VERSION, Stand};
use super::log::{JobLog, Look};
use super::report::{Report, StageTime};
use super::script::Writer;
use super::stage::{Reach, Stopped};
use super::temp::{self, TempDir};
use super::verdict::Failure;

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

/// What is played, and with which means.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The driver's program and the arguments that stand before `custom`.
    pub(super) program: Vec<OsString>,
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
pub(super) struct Scene {
    pub(super) number: u32,
    pub(super) temp: TempDir,
    pub(super) answer: Answer,
}

impl Scene {
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
    /// The Runner's own log, which the job's does not hold.
    console: JobLog,
    pub(super) cancel: watch::Receiver<u32>,
    began: Instant,
    pub(super) deadline: Instant,
    pub(super) stand: Stand,
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
            stand: Stand::default(),
            stages: Vec::new(),
            left_over: None,
        }
    }

    /// Plays the whole job and tells how it went.
    pub(super) async fn play(mut self) -> Report {
        let opening = format!(
            "Running job {} with gitlab-aws-driver {} (try), as gitlab-runner {RUNNER_VERSION} would",
            self.plan.job.id,
            env!("CARGO_PKG_VERSION"),
        );
        self.log.line(Look::Plain, &opening).await;
        let failure = match self.set_up().await {
            Err(failure) => Some(failure),
            Ok(scene) => {
                let failure = self.scripts(&scene).await;
                self.clean_up(scene).await;
                failure
            }
        };
        self.closing(failure.as_ref()).await;
        Report {
            job_id: self.plan.job.id,
            failure,
            stages: self.stages,
            total: self.began.elapsed(),
        }
    }

    async fn closing(&self, failure: Option<&Failure>) {
        let (look, text) = match failure {
            None => (Look::Good, "Job succeeded".to_owned()),
            Some(Failure::Script(code)) => {
                (Look::Error, format!("ERROR: Job failed: exit code {code}"))
            }
            Some(Failure::System(why)) => (
                Look::Error,
                format!("ERROR: Job failed (system failure): {why}"),
            ),
            Some(Failure::Timeout) => {
                let limit = humantime::format_duration(self.plan.timeout);
                (
                    Look::Error,
                    format!("ERROR: Job failed: execution took longer than {limit}"),
                )
            }
            Some(Failure::Cancelled { .. }) => {
                (Look::Error, "ERROR: Job failed: canceled".to_owned())
            }
        };
        self.log.line(look, &text).await;
    }

    /// Tries `config` and `prepare` until they succeed; each try that does not is cleaned up at once.
    async fn set_up(&mut self) -> Result<Scene, Failure> {
        self.log
            .line(Look::Heading, "Preparing the \"custom\" executor")
            .await;
        let mut number = 1;
        loop {
            let mut scene = self.new_scene(number)?;
            let Err(failure) = self.prepare(&mut scene).await else {
                return Ok(scene);
            };
            self.clean_up(scene).await;
            let Failure::System(why) = &failure else {
                return Err(failure);
            };
            self.log
                .line(Look::Error, &format!("ERROR: Preparation failed: {why}"))
                .await;
            if number == PREPARE_TRIES {
                return Err(failure);
            }
            let pause = self.plan.limits.prepare_pause;
            self.log
                .line(
                    Look::Plain,
                    &format!("Trying again in {}...", humantime::format_duration(pause)),
                )
                .await;
            self.pause(pause, Reach::SetUp).await?;
            number += 1;
        }
    }

    fn new_scene(&self, number: u32) -> Result<Scene, Failure> {
        let machinery = |e: &dyn std::fmt::Display| Failure::System(e.to_string());
        let temp =
            TempDir::create(&self.plan.temp, "custom-executor").map_err(|e| machinery(&e))?;
        let scene = Scene {
            number,
            temp,
            answer: Answer::default(),
        };
        let payload = self.plan.job.payload().to_string();
        write_new(&scene.response_file(), payload.as_bytes(), 0o600).map_err(|e| machinery(&e))?;
        Ok(scene)
    }

    /// One try of `config` and `prepare`.
    async fn prepare(&mut self, scene: &mut Scene) -> Result<(), Failure> {
        let mut call = self.call("config", scene.number, Reach::SetUp, scene);
        call.stdout = Sink::Keep;
        call.limit = Some(self.plan.limits.stage);
        let stdout = self.passed(call).await?;
        scene.answer = Answer::read(&stdout).map_err(Failure::System)?;
        self.stand.settle(&scene.answer, &self.plan.builds_dir);
        self.log
            .line(Look::Plain, &scene.answer.introduction())
            .await;
        let mut call = self.call("prepare", scene.number, Reach::SetUp, scene);
        call.limit = Some(self.plan.limits.stage);
        self.passed(call).await.map(drop)
    }

    /// Plays the sub-stages and returns what the job failed of.
    async fn scripts(&mut self, scene: &Scene) -> Option<Failure> {
        self.log
            .line(Look::Heading, "Preparing the environment")
            .await;
        let script = self.writer(scene).prepare_script();
        if let Err(failure) = self
            .sub_stage("prepare_script", 1, Reach::Script, None, &script, scene)
            .await
        {
            // Nothing of the job's own has run, so its script cannot be what failed.
            let failure = match failure {
                Failure::Script(code) => {
                    Failure::System(format!("prepare environment: exit status {code}"))
                }
                other => other,
            };
            self.set_status_if_stopped(&failure);
            return Some(failure);
        }
        self.log.line(Look::Heading, "Getting the sources").await;
        let mut failure = match self.sources(scene).await {
            Err(failure) => {
                self.set_status_if_stopped(&failure);
                Some(failure)
            }
            Ok(()) => self.user_scripts(scene).await,
        };
        if !failure.as_ref().is_some_and(Failure::skips_to_cleanup) {
            self.log
                .line(Look::Heading, "Cleaning up the file based variables")
                .await;
            let script = self.writer(scene).cleanup_file_variables();
            let last = self
                .sub_stage(
                    "cleanup_file_variables",
                    1,
                    Reach::Last,
                    None,
                    &script,
                    scene,
                )
                .await;
            failure = self.worse(failure, last.err());
        }
        failure
    }

    /// Plays the job's own script and what follows it whatever its end.
    async fn user_scripts(&mut self, scene: &Scene) -> Option<Failure> {
        self.log
            .line(
                Look::Heading,
                "Running the \"step_script\" stage of the job script",
            )
            .await;
        let script = self.writer(scene).build_script();
        let failure = self
            .sub_stage("build_script", 1, Reach::Script, None, &script, scene)
            .await
            .err();
        self.stand.status = failure.as_ref().map_or("success", Failure::job_status);
        if failure.as_ref().is_some_and(Failure::skips_to_cleanup) {
            return failure;
        }
        let Some(script) = self.writer(scene).after_script() else {
            return failure;
        };
        self.log.line(Look::Heading, "Running after_script").await;
        let limit = Some(self.plan.limits.after_script);
        match self
            .sub_stage("after_script", 1, Reach::Last, limit, &script, scene)
            .await
        {
            Err(after) if after.skips_to_cleanup() => self.worse(failure, Some(after)),
            Err(after) => {
                let why = match after {
                    Failure::Script(code) => format!("exit code {code}"),
                    Failure::System(why) => why,
                    Failure::Timeout | Failure::Cancelled { .. } => "stopped".to_owned(),
                };
                self.log
                    .line(
                        Look::Warning,
                        &format!("WARNING: after_script failed, but the job goes on: {why}"),
                    )
                    .await;
                failure
            }
            Ok(()) => failure,
        }
    }

    /// Lets a stop of the whole job outweigh an earlier failure, and any failure outweigh none.
    fn worse(&mut self, earlier: Option<Failure>, later: Option<Failure>) -> Option<Failure> {
        match later {
            Some(later) if later.skips_to_cleanup() => {
                self.stand.status = later.job_status();
                Some(later)
            }
            later => earlier.or(later),
        }
    }

    /// Before the script has begun, only a stop changes `CI_JOB_STATUS`: a failure leaves it as it is.
    fn set_status_if_stopped(&mut self, failure: &Failure) {
        if matches!(failure, Failure::Timeout | Failure::Cancelled { .. }) {
            self.stand.status = failure.job_status();
        }
    }

    /// Tries `get_sources` as often as the job says, the working tree cleared once in between.
    async fn sources(&mut self, scene: &Scene) -> Result<(), Failure> {
        let script = self.writer(scene).get_sources();
        let mut pause = self.plan.limits.sources_pause;
        let mut attempt = 1;
        loop {
            let failure = match self
                .sub_stage("get_sources", attempt, Reach::Script, None, &script, scene)
                .await
            {
                Ok(()) => return Ok(()),
                Err(stop @ (Failure::Timeout | Failure::Cancelled { .. })) => return Err(stop),
                Err(failure) => failure,
            };
            if attempt >= self.plan.attempts {
                return Err(failure);
            }
            let again = format!(
                "WARNING: trying get_sources again in {}",
                humantime::format_duration(pause)
            );
            self.log.line(Look::Warning, &again).await;
            self.pause(pause, Reach::Script).await?;
            pause *= 2;
            attempt += 1;
            if attempt == 2 {
                let script = self.writer(scene).clear_worktree();
                let cleared = self
                    .sub_stage("clear_worktree", 1, Reach::Script, None, &script, scene)
                    .await;
                if let Err(stop @ (Failure::Timeout | Failure::Cancelled { .. })) = cleared {
                    return Err(stop);
                }
            }
        }
    }

    /// Calls `cleanup`, whose end changes nothing about the job, and removes the try's directory.
    async fn clean_up(&mut self, scene: Scene) {
        let mut call = self.call("cleanup", scene.number, Reach::Cleanup, &scene);
        call.limit = Some(self.plan.limits.stage);
        call.stdout = Sink::Log(self.console.clone());
        call.stderr = Sink::Log(self.console.clone());
        let (ended, stopped) = self.stage(call).await;
        let why = match ended.map(|ended| ended.code) {
            _ if stopped == Stopped::Limit => Some("it took too long".to_owned()),
            Ok(Some(0)) => None,
            Ok(Some(code)) => Some(format!("exit status {code}")),
            Ok(None) => Some("ended by a signal".to_owned()),
            Err(e) => Some(e.to_string()),
        };
        if let Some(why) = why {
            self.log
                .line(Look::Warning, &format!("WARNING: Cleanup failed: {why}"))
                .await;
        }
        if let Err(e) = scene.temp.remove() {
            self.console
                .line(
                    Look::Warning,
                    &format!("WARNING: some temporary files stay: {e}"),
                )
                .await;
        }
        if let Some(mut left_over) = self.left_over.take() {
            left_over.ended().await;
        }
    }

    fn writer<'a>(&'a self, scene: &'a Scene) -> Writer<'a> {
        Writer {
            job: &self.plan.job,
            stand: &self.stand,
            hostname: scene
                .answer
                .hostname
                .as_deref()
                .filter(|name| !name.is_empty()),
            shell: scene
                .answer
                .shell
                .as_deref()
                .filter(|name| !name.is_empty())
                .unwrap_or("bash"),
            colour: self.log.colour(),
        }
    }

    /// Writes the script into a directory of its own, as the Runner does, and runs it.
    async fn sub_stage(
        &mut self,
        name: &'static str,
        attempt: u32,
        reach: Reach,
        limit: Option<Duration>,
        script: &[u8],
        scene: &Scene,
    ) -> Result<(), Failure> {
        let file = script_file(scene.temp.path(), script)
            .map_err(|e| Failure::System(format!("cannot write the script of {name}: {e}")))?;
        let mut call = self.call(name, attempt, reach, scene);
        call.args = vec!["run".into(), file.into(), name.into()];
        call.limit = limit;
        self.passed(call).await.map(drop)
    }
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
