//! `check`: explains the configuration, with its warnings, or reports all its errors.
//!
//! Reads the file, and the payload of a job if one is named; checks who owns the state directory, and whether the log file can be
//! written. It needs no network and no AWS account.

mod iam;
mod job;
mod json;
mod page;
mod verdict;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::verdict::Verdict;
use super::error_json;
use super::print;
use super::told;
use crate::config::overrides::Overrides;
use crate::config::settings::Settings;
use crate::config::{self, Loaded, Refusal};
use crate::error::{Error, Result};
use crate::logging;
use crate::state::Store;
use crate::state::trust::Lenience;
use crate::ui::Ui;

const EXAMPLES: &str = "\
Examples:
  gitlab-aws-driver check                             the file in the usual place
  gitlab-aws-driver --config new.toml check --strict  in a pipeline, before it is rolled out
  gitlab-aws-driver check --job response.json         what one job would get, and by which profile
  gitlab-aws-driver check --iam >policy.json          what the bastion's role must be allowed

It ends with 0 where the file can be used, and with 1 where it cannot; with --strict also where there is a warning.";

/// The code for a file that does not pass.
const FAILURE: u8 = 1;

/// Explain the configuration and say all that is wrong with it
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print one JSON object for programs, warnings included
    #[arg(long)]
    pub json: bool,
    /// Let a warning count as an error, for the code that it ends with
    #[arg(long)]
    pub strict: bool,
    /// Explain what one job would get, which profile holds for it and why: its payload, as JOB_RESPONSE_FILE names it
    #[arg(long, value_name = "PAYLOAD.json", value_hint = clap::ValueHint::FilePath)]
    pub job: Option<PathBuf>,
    /// Print the IAM policy that the bastion's role needs for this file, and no more; with =ROLE that of a role which the file has it
    /// take on. What is left to fill in goes to standard error
    #[arg(
        long,
        value_name = "ROLE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        conflicts_with = "job"
    )]
    pub iam: Option<String>,
    /// With --iam: a role that tasks are given, their execution role or task role; once for each
    #[arg(long, value_name = "ARN", requires = "iam")]
    pub pass_role: Vec<String>,
}

/// Prints what the configuration means, with the flags that override it. All that is wrong with it, and then its warnings,
/// go to standard error; the verdict comes last. Returns the code to end with.
///
/// # Errors
///
/// Fails when nothing can be printed, and when the payload cannot be read or the job would be refused.
pub fn run(args: &Args, config: Option<&Path>, overrides: &Overrides, ui: Ui) -> Result<u8> {
    let mut loaded = match config::examine(config) {
        Ok(loaded) => loaded,
        Err(refusal) => return refuse(refusal, args, ui),
    };
    if let Some(payload) = &args.job {
        job::explain(&loaded, payload, overrides, args.json, ui)?;
        let verdict = Verdict::right(&loaded.warnings, Vec::new(), args.strict);
        return Ok(end(&verdict, ui));
    }
    overrides.apply(&mut loaded.settings);
    if let Some(role) = &args.iam {
        let role = Some(role.as_str()).filter(|role| !role.is_empty());
        return tell_policy(&loaded, role, args, ui);
    }
    loaded
        .warnings
        .extend(logging::trouble(&loaded.settings.log));
    let beside = untrusted(&loaded.settings);
    let verdict = Verdict::right(&loaded.warnings, beside, args.strict);
    if args.json {
        print(format!("{:#}\n", json::object(&loaded, &verdict)).as_bytes())?;
        if !verdict.is_good() {
            verdict.tell(ui);
        }
        return Ok(end(&verdict, ui));
    }
    verdict.tell(ui);
    let mut text = page::as_text(&loaded);
    if verdict.is_good() {
        let _ = writeln!(text, "\n{}", verdict.line());
    }
    print(text.as_bytes())?;
    Ok(end(&verdict, ui))
}

/// Prints the policy that the file needs, and on standard error what is left to fill in.
fn tell_policy(loaded: &Loaded, role: Option<&str>, args: &Args, ui: Ui) -> Result<u8> {
    let policy = told(
        args.json,
        iam::policy(&loaded.settings, role, &args.pass_role),
        |error| json!({ "error": error_json(error) }),
    )?;
    print(format!("{:#}\n", policy.document).as_bytes())?;
    for note in &policy.notes {
        ui.progress(note);
    }
    let verdict = Verdict::right(&loaded.warnings, Vec::new(), args.strict);
    Ok(end(&verdict, ui))
}

/// Prints all errors of a file that cannot be used.
fn refuse(refusal: Refusal, args: &Args, ui: Ui) -> Result<u8> {
    let path = match &refusal {
        Refusal::Wrong(wrong) => Some(wrong.path.clone()),
        Refusal::Unread(_) => None,
    };
    let verdict = Verdict::refused(refusal, args.strict);
    if args.json {
        print(format!("{:#}\n", verdict.as_json(path.as_deref())).as_bytes())?;
    }
    verdict.tell(ui);
    Ok(end(&verdict, ui))
}

/// Prints the verdict if it is bad, and returns its exit code.
fn end(verdict: &Verdict, ui: Ui) -> u8 {
    if verdict.is_good() {
        return 0;
    }
    ui.progress(&verdict.line());
    FAILURE
}

/// Returns the parts of the state directory that other users may change.
fn untrusted(settings: &Settings) -> Vec<Error> {
    let store = Store::new(settings.state_directory.clone());
    store.distrusted(Lenience::of(settings.style), store.user())
}

/// Returns what `--json` prints where nothing could be checked.
#[must_use]
pub fn cannot(error: &Error) -> Value {
    let mut told = error_json(error);
    // As all errors of `check` have them: this one has no place in a file.
    told["cause"] = told["message"].clone();
    for place in ["file", "line", "column", "key"] {
        told[place] = Value::Null;
    }
    json!({
        "path": null,
        "error": told,
        "errors": [told],
        "warnings": [],
        "verdict": { "good": false, "errors": 1, "warnings": 0, "text": "1 error: nothing was checked." },
    })
}
