//! `try`: plays GitLab Runner, so that one command runs a whole job and shows what GitLab would show.
//!
//! This binary is started as the Runner starts it: each stage a process of its own in a group of its
//! own, with the contract's environment, payload, scripts and retries. Nothing of the driver is called
//! directly; what works here works under a Runner.
//!
//! - `args`: what was typed, checked.
//! - `job`: the job as GitLab would have sent it.
//! - `script`: the scripts of the sub-stages.
//! - `child`: one stage's process, from its start to its last byte.
//! - `stage`: one stage as the Runner runs it, cancels and time-outs included.
//! - `player`: the order of the stages, and the retries.
//! - `verdict`: what an exit code means, and how the job ended.
//! - `report`: the table of times, and the JSON object.

mod args;
mod child;
mod config_answer;
mod job;
mod log;
mod player;
mod report;
mod script;
mod stage;
mod temp;
mod verdict;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use args::Args;

use crate::config::find_default;
use crate::error::{Error, Kind, Result};
use crate::ops;
use crate::ui::Ui;
use log::JobLog;
use player::{Limits, Plan, Player};
use temp::TempDir;

/// The exit code of a system failure, as with `docker run`.
pub const EXIT_SYSTEM: u8 = 125;
/// The exit code when the job's time was over, as with timeout(1).
pub const EXIT_TIMEOUT: u8 = 124;
/// The exit code when the job was cancelled.
pub const EXIT_CANCELLED: u8 = 130;

/// Runs one job through all stages of this same binary and returns the exit code to end with.
///
/// `config` is the settings file that the stages get; without one they get a temporary file that allows
/// the job on this host, and an installed one, which may start machines, is left alone. `flags` go before each stage's
/// command.
///
/// # Errors
/// Where no stage could be started; with `--json` that was printed as well.
pub fn run(args: &Args, config: Option<&Path>, flags: Vec<OsString>, no_color: bool) -> Result<u8> {
    let done = play(args, config, flags, no_color);
    super::told(args.json, done, |error| cannot(error, EXIT_SYSTEM))
}

/// Returns what `--json` prints where no stage could be started: the object of a job of which nothing was done.
#[must_use]
pub fn cannot(error: &Error, code: u8) -> serde_json::Value {
    serde_json::json!({
        "job_id": null,
        "configuration": null,
        "status": "failed",
        "exit_code": code,
        "failure_reason": verdict::Failure::System(String::new()).reason(),
        "stages": [],
        "error": super::error_json(error),
    })
}

fn play(args: &Args, config: Option<&Path>, flags: Vec<OsString>, no_color: bool) -> Result<u8> {
    let program = std::env::current_exe()
        .map_err(|e| Error::new(Kind::Launch, "cannot find this program's own file").because(e))?;
    let job = args.job()?;
    // The Runner's own, whatever this shell's is: files that a stage makes must not depend on it.
    let _old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let temp = TempDir::create(&std::env::temp_dir(), "gitlab-aws-driver-try-")?;
    let mut plan = Plan {
        program: vec![program.into()],
        configuration: None,
        forget: inherited_job_variables(),
        job,
        attempts: args.stage_attempts,
        timeout: args.timeout,
        builds_dir: args.builds_dir.clone(),
        temp: temp.path().to_owned(),
        limits: Limits::default(),
    };
    let ui = Ui::for_people(no_color);
    let config = match config {
        // Stages have another working directory than this process.
        Some(file) => {
            let file = std::path::absolute(file).map_err(|e| {
                Error::new(Kind::Config, "cannot tell the settings file's full path").because(e)
            })?;
            plan.configuration = Some(file.display().to_string());
            file
        }
        None => built_in_config(&mut plan, args)?,
    };
    let which = plan.configuration.clone();
    let which = which.unwrap_or_else(|| no_config(find_default(), args.image.is_some()));
    // Beside the job log, which has a Runner's lines alone; and before it, since it says where the job will run.
    ui.progress(&crate::error::one_line(&format!(
        "gitlab-aws-driver {} plays GitLab Runner for job {}. Configuration: {which}",
        env!("CARGO_PKG_VERSION"),
        plan.job.id,
    )));
    plan.program.extend(["--config".into(), config.into()]);
    plan.program.extend(flags);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Launch, "cannot start the event loop").because(e))?;
    let report = runtime.block_on(async {
        let cancel = signals()?;
        let colour = |terminal: bool| terminal && !no_color;
        // What the Runner keeps in a log of its own is printed beside the job's log, not in it.
        let (console, notes) = JobLog::start(io::stderr(), colour(io::stderr().is_terminal()));
        let (log, writer) = if args.json {
            (console.clone(), None)
        } else {
            let (log, writer) = JobLog::start(io::stdout(), colour(io::stdout().is_terminal()));
            (log, Some(writer))
        };
        let report = Player::new(plan, log, console, cancel).play().await;
        // The writers end once the player, who held the logs, is gone.
        drop(notes.await);
        if let Some(writer) = writer {
            drop(writer.await);
        }
        Ok(report)
    })?;
    for line in report.table() {
        ui.progress(&line);
    }
    if args.json {
        // If it cannot be written, the exit code is still the job's.
        if let Err(error) = ops::print(format!("{}\n", report.json()).as_bytes()) {
            ui.error(&error);
        }
    }
    if let Err(error) = temp.remove() {
        ui.warn(&format!("some temporary files stay: {error}"));
    }
    Ok(report.exit_code())
}

/// Says that no configuration is used, though one may be installed.
fn no_config(installed: Option<PathBuf>, in_container: bool) -> String {
    let none = match in_container {
        true => "none, so the job runs in a container of this host's docker (`local`)",
        false => "none, so the job runs on this host (`local`)",
    };
    match installed {
        None => none.to_owned(),
        Some(file) => {
            let file = file.display();
            format!("{none}; {file} is used where --config {file} says so")
        }
    }
}

/// Writes the settings of a job on this very host, and makes its directories temporary.
fn built_in_config(plan: &mut Plan, args: &Args) -> Result<PathBuf> {
    let state = plan.temp.join("state");
    let mut text = "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n".to_owned();
    // A container has directories of its own.
    if args.image.is_none() {
        plan.builds_dir = plan.temp.join("builds");
        let (builds, cache) = (&plan.builds_dir, plan.temp.join("cache"));
        let (builds, cache) = (toml_string(builds)?, toml_string(&cache)?);
        text += &format!("builds_dir = {builds}\ncache_dir = {cache}\n");
    }
    text += &format!("\n[state]\ndirectory = {}\n", toml_string(&state)?);
    if args.image.is_some() {
        text += "\n[local]\ncontainer = true\n";
        if let Some(agent) = &args.agent {
            let agent = std::path::absolute(agent).map_err(|e| {
                Error::new(Kind::Config, "cannot tell the agent's full path").because(e)
            })?;
            text += &format!("agent = {}\n", toml_string(&agent)?);
        }
        text += "\n[limits]\nimages = [\"**\"]\n";
    }
    let file = plan.temp.join("config.toml");
    temp::private_directory(&state)
        .and_then(|()| fs::write(&file, text))
        .map_err(|e| Error::new(Kind::State, "cannot write the temporary settings").because(e))?;
    Ok(file)
}

/// Returns the path as a TOML string; JSON's escapes are TOML's too.
fn toml_string(path: &Path) -> Result<String> {
    let unfit = || {
        Error::new(
            Kind::State,
            format!("the temporary directory {} is not UTF-8", path.display()),
        )
        .hint("Set TMPDIR to a directory with a plain name.")
    };
    let text = path.to_str().ok_or_else(unfit)?;
    serde_json::to_string(text).map_err(|_| unfit())
}

/// Returns the names of job variables that this process has itself, as under another `try`.
#[expect(
    clippy::disallowed_methods,
    reason = "names only, to leave them out; what they say is not read"
)]
fn inherited_job_variables() -> Vec<OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(b"CUSTOM_ENV_"))
        .collect()
}

/// Counts the signals that ask for an end: the first asks, the second insists, a lost terminal does both.
fn signals() -> Result<watch::Receiver<u32>> {
    let listen = |kind| {
        signal(kind).map_err(|e| Error::new(Kind::Launch, "cannot listen for signals").because(e))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(0);
    drop(tokio::spawn(async move {
        loop {
            let weight = tokio::select! {
                _ = interrupt.recv() => 1,
                _ = terminate.recv() => 1,
                _ = hangup.recv() => 2,
            };
            sender.send_modify(|count| *count += weight);
        }
    }));
    Ok(receiver)
}
