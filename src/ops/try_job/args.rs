//! What was typed: options and the job's script.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueHint;

use super::job::Job;
use super::script;
use crate::config::parse_duration;
use crate::error::{Error, Kind, Result};

const EXAMPLES: &str = "\
Examples:
  gitlab-aws-driver try -- make test
  gitlab-aws-driver try -- sh -c 'echo hello; exit 3'
  gitlab-aws-driver try --script build.sh --env MODE=release --timeout 10m
  gitlab-aws-driver try --image alpine:3.22 -- cat /etc/os-release
  gitlab-aws-driver --config driver.toml try --image alpine:3.22 --json -- id

Without --config the job runs on this host, which needs no AWS, and with --image in a container
of this host's docker. An installed configuration, which may start machines, is used only where
--config names it. The first line says which.

Exit code: the script's own; 124 when the time was over, 125 when the machinery failed,
130 when cancelled. Ctrl-C cancels as GitLab does; a second one skips to the cleanup.";

/// Run one job as GitLab Runner would: all stages, real output, real exit code
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = EXAMPLES,
    group = clap::ArgGroup::new("job").required(true).args(["script", "command"]),
)]
pub struct Args {
    /// The job's `image:`
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::Other)]
    pub image: Option<String>,

    /// The agent's static binary for the job's container, instead of the packages' own
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "image")]
    pub agent: Option<PathBuf>,

    /// One of the job's `services:`; may be given several times
    #[arg(long = "service", value_name = "IMAGE", value_hint = ValueHint::Other)]
    pub services: Vec<String>,

    /// A file with the job's script, taken as one block of lines
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub script: Option<PathBuf>,

    /// Shell text for the job's `after_script:`
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    pub after_script: Option<String>,

    /// Shell text for the job's `hooks:pre_get_sources_script:`
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    pub pre_get_sources_script: Option<String>,

    /// How often `get_sources` may be tried, 1 to 10 (GET_SOURCES_ATTEMPTS)
    #[arg(long, value_name = "N", value_hint = ValueHint::Other, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub stage_attempts: u32,

    /// The job's time limit, such as 90s or 1h30m
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other, default_value = "1h", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// A CI/CD variable of the job; may be given several times
    #[arg(long = "env", value_name = "NAME=VALUE", value_hint = ValueHint::Other, value_parser = parse_variable)]
    pub env: Vec<(String, String)>,

    /// Where builds go unless the driver says otherwise (builds_dir in the Runner's own settings)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "/builds")]
    pub builds_dir: PathBuf,

    /// Print one JSON object about the job on standard output; the job log goes to standard error
    #[arg(long)]
    pub json: bool,

    /// The job's script as one command; its words are quoted, so use `sh -c` for shell syntax
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl Args {
    /// Returns the job that was asked for.
    pub(super) fn job(&self) -> Result<Job> {
        let script = match &self.script {
            Some(file) => read_script(file)?,
            None => command_line(&self.command),
        };
        let mut job = Job::new(script, self.timeout)?;
        job.image.clone_from(&self.image);
        job.services.clone_from(&self.services);
        job.after_script = self
            .after_script
            .as_ref()
            .map(|text| text.clone().into_bytes());
        job.pre_get_sources = self
            .pre_get_sources_script
            .as_ref()
            .map(|text| text.clone().into_bytes());
        if self.stage_attempts > 1 {
            job.variables.push((
                "GET_SOURCES_ATTEMPTS".into(),
                self.stage_attempts.to_string(),
            ));
        }
        job.variables.extend(self.env.iter().cloned());
        Ok(job)
    }
}

fn read_script(file: &Path) -> Result<Vec<u8>> {
    let script = fs::read(file).map_err(|e| {
        Error::new(
            Kind::Contract,
            format!("cannot read the script {}", file.display()),
        )
        .because(e)
    })?;
    match script.iter().position(|byte| *byte == 0) {
        None => Ok(script),
        Some(at) => Err(Error::new(
            Kind::Contract,
            format!(
                "the script {} has a NUL byte at offset {at}",
                file.display()
            ),
        )
        .hint("A job's script is shell text, and no shell can hold that byte; is it a program?")),
    }
}

/// Returns the words as one line that the shell takes apart into the same words.
pub(super) fn command_line<W: AsRef<OsStr>>(words: &[W]) -> Vec<u8> {
    let words: Vec<_> = words
        .iter()
        .map(|word| script::shell_word(word.as_ref().as_bytes()))
        .collect();
    words.join(&b' ')
}

fn parse_timeout(text: &str) -> std::result::Result<Duration, String> {
    let time = parse_duration(text)?;
    // The payload and CI_JOB_TIMEOUT know whole seconds only.
    if time.as_secs() == 0 {
        return Err("a job needs a second at least".into());
    }
    Ok(time)
}

fn parse_variable(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let fit = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !fit || name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return Err(format!(
            "{name:?} is no name of a variable: letters, digits and _ only"
        ));
    }
    Ok((name.into(), value.into()))
}
