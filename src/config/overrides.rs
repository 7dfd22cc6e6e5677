//! Flags that override the configuration file: those of the Go driver.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{ArgAction, ValueHint};

use super::settings::{Log, LogFormat, LogLevel, Settings};

/// The Go driver's flags, which stand before the command and above the file. One that is empty is as good as
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(
    next_help_heading = "Flags of the Go driver, before the command; they stand above the file"
)]
pub struct Overrides {
    /// Write all diagnostics up to level debug, whatever --log-level says
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool)]
    pub debug: bool,
    /// The most detailed diagnostics that are written: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// A file to append diagnostics to
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    /// The format of diagnostics: text, text-simple, json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The task definition of every job: family, family:revision or ARN
    #[arg(long = "task-def", value_name = "NAME", value_hint = ValueHint::Other)]
    pub task_definition: Option<String>,
    /// The Fargate platform version of every job
    #[arg(long, value_name = "VERSION", value_hint = ValueHint::Other)]
    pub platform_version: Option<String>,
}

impl Overrides {
    /// Replaces the file's settings of diagnostics by the flags'.
    pub fn apply_to_log(&self, log: &mut Log) {
        if let Some(level) = self.log_level {
            log.level = level;
        }
        if self.debug {
            log.level = LogLevel::Debug;
        }
        if let Some(format) = self.log_format {
            log.format = format;
        }
        if let Some(file) = &self.log_file {
            log.file = Some(file.clone());
        }
    }

    /// Replaces the file's settings by the flags', to show the result. Stages need to know which of
    /// the two set it, because a job's variable overrides the file and not the flag.
    pub fn apply(&self, settings: &mut Settings) {
        self.apply_to_log(&mut settings.log);
        if self.task_definition.is_some() || self.platform_version.is_some() {
            let fargate = settings.fargate.get_or_insert_default();
            if let Some(name) = &self.task_definition {
                fargate.task_definition = Some(name.clone());
            }
            if let Some(version) = &self.platform_version {
                fargate.platform_version = Some(version.clone());
            }
        }
    }

    /// Returns the flags as words, for child processes of this program.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if self.debug {
            words.push("--debug".into());
        }
        let mut add = |name: &str, value: Option<&OsStr>| {
            if let Some(value) = value {
                let mut word = OsString::from(format!("--{name}="));
                word.push(value);
                words.push(word);
            }
        };
        add("log-level", self.log_level.map(|l| l.name().as_ref()));
        add("log-file", self.log_file.as_deref().map(AsRef::as_ref));
        add("log-format", self.log_format.map(|f| f.name().as_ref()));
        add(
            "task-def",
            self.task_definition.as_deref().map(AsRef::as_ref),
        );
        add(
            "platform-version",
            self.platform_version.as_deref().map(AsRef::as_ref),
        );
        words
    }
}

/// Reads yes or no as Go writes it.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}
