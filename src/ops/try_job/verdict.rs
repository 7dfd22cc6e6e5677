//! What a stage's exit code means to the Runner, and how a job can end.

use std::fs;
use std::path::Path;

use super::{EXIT_CANCELLED, EXIT_SYSTEM, EXIT_TIMEOUT};

/// Given to the stages as `BUILD_FAILURE_EXIT_CODE`.
pub(super) const BUILD_FAILURE: i32 = 1;
/// Given to the stages as `SYSTEM_FAILURE_EXIT_CODE`.
pub(super) const SYSTEM_FAILURE: i32 = 2;

/// Why a job did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The script ended with this code.
    Script(i64),
    /// The machinery failed, for this reason.
    System(String),
    /// The job's time was over.
    Timeout,
    /// Somebody cancelled the job; a hard cancel skips all but the cleanup.
    Cancelled {
        /// Whether it was insisted on.
        hard: bool,
    },
}

impl Failure {
    /// Returns whether nothing but the cleanup may follow.
    pub(super) fn skips_to_cleanup(&self) -> bool {
        matches!(self, Self::Timeout | Self::Cancelled { hard: true })
    }

    /// Returns what `CI_JOB_STATUS` says from then on.
    pub(super) fn job_status(&self) -> &'static str {
        match self {
            Self::Cancelled { hard: false } => "canceled",
            Self::Script(_) | Self::System(_) | Self::Timeout | Self::Cancelled { hard: true } => {
                "failed"
            }
        }
    }

    /// Returns GitLab's name of the reason.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Script(_) => "script_failure",
            Self::System(_) => "runner_system_failure",
            Self::Timeout => "job_execution_timeout",
            Self::Cancelled { .. } => "job_canceled",
        }
    }

    /// Returns the exit code to end with: the script's own wherever it is one that a process can have.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            // A failure must not read as success, whatever the driver wrote.
            Self::Script(code) => u8::try_from(*code).ok().filter(|c| *c != 0).unwrap_or(1),
            Self::System(_) => EXIT_SYSTEM,
            Self::Timeout => EXIT_TIMEOUT,
            Self::Cancelled { .. } => EXIT_CANCELLED,
        }
    }
}

/// Judges a stage by its exit code (`None`: ended by a signal) as the Runner does.
pub(super) fn judge(code: Option<i32>, build_exit_code_file: &Path) -> Option<Failure> {
    match code {
        Some(0) => None,
        Some(BUILD_FAILURE) => Some(script_failure(build_exit_code_file)),
        Some(SYSTEM_FAILURE) => Some(Failure::System(format!("exit status {SYSTEM_FAILURE}"))),
        other => Some(unknown(other.unwrap_or(-1))),
    }
}

fn unknown(code: i32) -> Failure {
    Failure::System(format!(
        "unknown Custom executor executable exit code {code}"
    ))
}

/// Reads the script's own code: the first line must be a bare integer, what follows is not looked at.
/// Without a file the build code itself stands for it.
fn script_failure(file: &Path) -> Failure {
    let Ok(content) = fs::read(file) else {
        return Failure::Script(BUILD_FAILURE.into());
    };
    let line = content
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok())
    {
        Some(code) => Failure::Script(code),
        // The Runner names its own system code here, though the stage ended with the build code.
        None => unknown(SYSTEM_FAILURE),
    }
}
