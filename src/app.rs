//! From a parsed command line to an exit code: logging, dispatch, outcome.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use tokio::runtime::Runtime;

use crate::cli::{self, Cli, Command, Internal, Stage, UserCommand, VisibleCli};
use crate::compute::aws::metadata::Metadata;
use crate::compute::local::machine_process;
use crate::config;
use crate::config::overrides::Overrides;
use crate::error::{Error, Kind, Result};
use crate::hash;
use crate::logging;
use crate::ops::{self, FAILURE, check, manual, reap, try_job};
use crate::plan::overwrites::Overwrites;
use crate::plan::profile;
use crate::runner::exit::{ExitCodes, Outcome};
use crate::runner::{Call, Environment};
use crate::stage::{self, Context};
use crate::ui::Ui;

/// Runs a command and returns the code to end with.
#[must_use]
pub fn run(cli: Cli, env: &Environment) -> ExitCode {
    let config = cli.config.as_deref();
    let mut overrides = cli.overrides;
    let ui = Ui::for_people(env.no_color());
    let mut failure = FAILURE;
    let command = match cli.command {
        Command::UserCommand(command) => command,
        Command::Internal(command) => return internal(command, env, ui),
    };
    let done = match command {
        UserCommand::Custom { stage } => return custom(config, overrides, env, &stage),
        UserCommand::Try(args) => {
            failure = try_job::EXIT_SYSTEM;
            // Its stages have another working directory.
            let file = overrides.log_file.take();
            overrides.log_file = file.map(|f| std::path::absolute(&f).unwrap_or(f));
            // Never a file in the default places: it may start machines, and a user of `try` has not asked for any.
            try_job::run(&args, config, overrides.words(), env.no_color())
        }
        UserCommand::Check(args) => check::run(&args, config, &overrides, ui),
        UserCommand::Reap(args) => reap::run(&args, config, &overrides, metadata(env), ui),
        UserCommand::Completions { shell } => {
            manual::completions(VisibleCli::command(), shell).map(|()| 0)
        }
        UserCommand::Man { name } => {
            manual::page(VisibleCli::command(), name.as_deref()).map(|()| 0)
        }
    };
    match done {
        Ok(code) => code.into(),
        Err(error) => {
            ui.error(&error);
            failure.into()
        }
    }
}

/// Runs as one of the processes that the program starts itself.
fn internal(command: Internal, env: &Environment, ui: Ui) -> ExitCode {
    let done = match command {
        Internal::LocalMachine { directory, token } => machine_process::run(&directory, &token),
        Internal::LocalGuard { directory, token } => machine_process::guard(&directory, &token),
        Internal::LocalLead { words } => machine_process::lead(&words),
        Internal::LocalServer { keeper } => machine_process::serve(keeper, env),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            FAILURE.into()
        }
    }
}

/// Prints what is wrong with the command line, or the help, and returns the code to end with: the Runner's code for a system
/// failure, if it set one. With `--json` the error is JSON.
#[must_use]
pub fn refuse(error: &clap::Error, words: &[OsString], env: &Environment) -> ExitCode {
    // If nobody reads it, the exit code stays the same.
    error.print().ok();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let code = match ExitCodes::read(env) {
        Ok(codes) => codes.system(),
        Err((code, _)) => code,
    };
    if cli::asks_for_json(words) {
        let error = usage(error);
        let command = cli::command_name(words).and_then(OsStr::to_str);
        let document = match command {
            Some("check") => check::cannot(&error),
            Some("reap") => reap::cannot(&error),
            Some("try") => try_job::cannot(&error, code),
            _ => serde_json::json!({ "error": ops::error_json(&error) }),
        };
        // Its message is on standard error already.
        ops::print(format!("{document:#}\n").as_bytes()).ok();
    }
    code.into()
}

/// Returns what is wrong with the command line as an error of this program: clap's own text without the usage.
fn usage(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    Error::new(Kind::Contract, crate::error::one_line(what))
        .hint("`gitlab-aws-driver COMMAND --help` says what the command takes.")
}

/// Returns whether the driver may ask this host's metadata service.
fn metadata(env: &Environment) -> Metadata {
    let disabled = env.get(Metadata::DISABLED).and_then(|value| value.to_str());
    Metadata::read(disabled)
}

/// Runs a stage for GitLab Runner.
fn custom(
    config: Option<&Path>,
    overrides: Overrides,
    env: &Environment,
    stage: &Stage,
) -> ExitCode {
    let ui = Ui::for_job_log(env.no_color());
    let (codes, broken) = match ExitCodes::read(env) {
        Ok(codes) => (codes, None),
        // If the contract is broken, no script may run, but the job's machine must still be ended.
        Err((code, error)) => (ExitCodes::only_system(code), Some(error)),
    };
    report_panics(codes.system(), ui);
    if matches!(stage, Stage::Run { .. }) {
        codes.forget_script_code();
    }
    let outcome = match broken {
        None => run_stage(config, overrides, env, stage, &codes, ui),
        Some(error) if matches!(stage, Stage::Cleanup) => {
            run_stage(config, overrides, env, stage, &codes, ui).and(Err(error))
        }
        Some(error) => Err(error),
    };
    let outcome = outcome.unwrap_or_else(Outcome::Failed);
    if let Outcome::Failed(error) = &outcome {
        ui.error(error);
    }
    let (code, problem) = codes.settle(&outcome);
    if let Some(problem) = problem {
        ui.error(&problem);
    }
    code.into()
}

/// Makes a panic end the stage like any other system failure: GitLab Runner does not know the exit code of a process that
/// aborts.
fn report_panics(code: u8, ui: Ui) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map_or_else(String::new, |l| format!(" at {l}"));
        let said = panic.payload_as_str().unwrap_or("it said nothing");
        let error = Error::new(
            Kind::Bug,
            format!("gitlab-aws-driver failed{place}: {said}"),
        );
        ui.error(&error.hint(
            "Where it speaks of threads or memory, raise the limits of GitLab Runner's unit (TasksMax, LimitNPROC); \
             else please report it.",
        ));
        #[expect(clippy::exit, reason = "there is nothing to go back to")]
        std::process::exit(code.into());
    }));
}

fn run_stage(
    config: Option<&Path>,
    overrides: Overrides,
    env: &Environment,
    stage: &Stage,
    codes: &ExitCodes,
    ui: Ui,
) -> Result<Outcome> {
    let context = match begin(config, overrides, env, stage, codes, ui) {
        // The job's machine is ended even if the configuration is wrong.
        Err(error) if matches!(stage, Stage::Cleanup) => {
            let ended = runtime()?.block_on(stage::recover::run(config, env, error, ui));
            return ended.map(|()| Outcome::Success);
        }
        begun => begun?,
    };
    if matches!(stage, Stage::Config) {
        return stage::config::run(&context).map(|()| Outcome::Success);
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let done = async {
            match stage {
                Stage::Config => stage::config::run(&context).map(|()| Outcome::Success),
                Stage::Prepare => stage::prepare::run(&context)
                    .await
                    .map(|()| Outcome::Success),
                Stage::Run { script, name } => stage::run::run(&context, script, name).await,
                Stage::Cleanup => stage::cleanup::run(&context)
                    .await
                    .map(|()| Outcome::Success),
            }
        };
        tokio::select! {
            biased;
            outcome = done => outcome,
            never = context.keep_lease() => match never {},
        }
    });
    // A name look-up or a dead connection may still block a thread; nothing waits for it.
    runtime.shutdown_background();
    outcome
}

/// Reads everything that a stage needs at its start.
fn begin(
    config: Option<&Path>,
    overrides: Overrides,
    env: &Environment,
    stage: &Stage,
    codes: &ExitCodes,
    ui: Ui,
) -> Result<Context> {
    let mut loaded = config::load(config)?;
    overrides.apply_to_log(&mut loaded.settings.log);
    logging::start(&loaded.settings.log, ui)?;
    let mut call = Call::read(env, codes.clone())?;
    let applied = profile::applied(loaded.settings, &call.payload);
    call.lost.extend(applied.untold);
    let overwrites = Overwrites::read(env, &call.payload);
    let mut context = Context {
        settings: applied.settings,
        profile: applied.profile,
        configuration: configuration(&loaded.digest, &overrides),
        overrides,
        overwrites,
        call,
        metadata: metadata(env),
        ui,
    };
    if let Err(open) = context.trust() {
        match stage {
            Stage::Prepare | Stage::Run { .. } => return Err(open),
            // A machine that nobody ends keeps being paid for. The file that names it must still belong to this user.
            Stage::Cleanup => ui.warn(&open.to_string()),
            Stage::Config => {}
        }
    }
    match stage {
        // The administrator, who can correct the file, does not read job logs; `check` prints the warning each time.
        Stage::Prepare => {
            let store = context.store();
            for warning in &loaded.warnings {
                let name = format!("warned-{}", hash::sha256_hex(warning.as_bytes()));
                if !store.is_noted(&name) {
                    ui.warn(warning);
                    store.note(&name);
                }
            }
        }
        Stage::Run { .. } | Stage::Cleanup => context.follow_note(),
        Stage::Config => {}
    }
    Ok(context)
}

/// Returns a digest of all that the administrator set: the file's text, and the flags, which override it.
fn configuration(file: &str, overrides: &Overrides) -> String {
    let mut all = file.as_bytes().to_vec();
    for word in overrides.words() {
        all.push(0);
        all.extend(word.as_encoded_bytes());
    }
    hash::sha256_hex(&all)
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Launch, "cannot start the runtime").because(e))
}
