//! What a stage's end means to the Runner, how a job can end, and the Runner's words for it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use super::{EXIT_CANCELLED, EXIT_SYSTEM, EXIT_TIMEOUT};

/// Given to the stages as `BUILD_FAILURE_EXIT_CODE`.
pub(super) const BUILD_FAILURE: i32 = 1;
/// Given to the stages as `SYSTEM_FAILURE_EXIT_CODE`.
pub(super) const SYSTEM_FAILURE: i32 = 2;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal; whether a core was dumped.
    Signal(i32, bool),
    /// That cannot be told, for this reason.
    Unknown(String),
}

impl Exit {
    /// Reads what the kernel says.
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal, status.core_dumped()),
            (None, None) => Self::Unknown(status.to_string()),
        }
    }

    /// Returns the end of a process that outlived SIGKILL.
    pub(super) fn dormant(pid: Option<u32>) -> Self {
        let pid = pid.unwrap_or_default();
        Self::Unknown(format!(
            "failed to kill process PID={pid}, likely process is dormant"
        ))
    }

    /// Returns the code, where there is one.
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Signal(..) | Self::Unknown(_) => None,
        }
    }

    /// Returns the Runner's words for it.
    fn words(&self) -> String {
        match self {
            Self::Code(code) => format!("exit status {code}"),
            Self::Signal(signal, false) => format!("signal: {}", signal_name(*signal)),
            Self::Signal(signal, true) => {
                format!("signal: {} (core dumped)", signal_name(*signal))
            }
            Self::Unknown(why) => why.clone(),
        }
    }
}

/// Returns the name of a signal as Go writes it.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Why a job did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The script failed.
    Script {
        /// With this code.
        code: i64,
        /// In the Runner's words.
        said: String,
    },
    /// A system failure, for this reason.
    System(String),
    /// The job's time was over.
    Timeout,
    /// Somebody cancelled the job; a hard cancel skips all but the cleanup.
    Cancelled {
        /// Whether it was a hard cancel.
        hard: bool,
    },
}

impl Failure {
    /// Returns whether nothing but the cleanup may follow.
    pub(super) fn skips_to_cleanup(&self) -> bool {
        matches!(self, Self::Timeout | Self::Cancelled { hard: true })
    }

    /// Returns the failure of a `prepare_script` that failed like this.
    pub(super) fn of_environment(self) -> Self {
        let about = |said: String| {
            format!(
                "prepare environment: {said}. Check https://docs.gitlab.com/runner/shells/#shell-profile-loading \
                 for more information"
            )
        };
        match self {
            Self::Script { code, said } => Self::Script {
                code,
                said: about(said),
            },
            Self::System(said) => Self::System(about(said)),
            stop @ (Self::Timeout | Self::Cancelled { .. }) => stop,
        }
    }

    /// Returns what `CI_JOB_STATUS` says from then on.
    pub(super) fn job_status(&self) -> &'static str {
        match self {
            Self::Cancelled { hard: false } => "canceled",
            Self::Script { .. }
            | Self::System(_)
            | Self::Timeout
            | Self::Cancelled { hard: true } => "failed",
        }
    }

    /// Returns GitLab's name of the reason.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Script { .. } => "script_failure",
            Self::System(_) => "runner_system_failure",
            Self::Timeout => "job_execution_timeout",
            Self::Cancelled { .. } => "job_canceled",
        }
    }

    /// Returns the last line of the job log; `timeout` is the job's own limit.
    pub(super) fn last_line(&self, timeout: Duration) -> String {
        match self {
            Self::Script { said, .. } => format!("ERROR: Job failed: {said}"),
            Self::System(why) => format!("ERROR: Job failed (system failure): {why}"),
            // The Runner's own doubling: a duration has its units already.
            Self::Timeout => format!(
                "ERROR: Job failed: execution took longer than {} seconds",
                go_duration(timeout)
            ),
            Self::Cancelled { .. } => "ERROR: Job failed: canceled".to_owned(),
        }
    }

    /// Returns the exit code to end with: the script's own wherever it is one that a process can have.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            // A failure must not read as success, whatever the driver wrote.
            Self::Script { code, .. } => u8::try_from(*code).ok().filter(|c| *c != 0).unwrap_or(1),
            Self::System(_) => EXIT_SYSTEM,
            Self::Timeout => EXIT_TIMEOUT,
            Self::Cancelled { .. } => EXIT_CANCELLED,
        }
    }
}

/// Judges a stage by its end as the Runner does.
pub(super) fn judge(exit: &Exit, build_exit_code_file: &Path) -> Option<Failure> {
    match exit {
        Exit::Code(0) => None,
        Exit::Code(BUILD_FAILURE) => Some(script_failure(exit, build_exit_code_file)),
        Exit::Code(SYSTEM_FAILURE) | Exit::Unknown(_) => Some(Failure::System(exit.words())),
        Exit::Code(code) => Some(unknown(*code, exit)),
        Exit::Signal(..) => Some(unknown(-1, exit)),
    }
}

fn unknown(code: i32, exit: &Exit) -> Failure {
    Failure::System(format!(
        "unknown Custom executor executable exit code {code}; executable execution terminated with: {}",
        exit.words()
    ))
}

/// Reads the script's own code: the first line must be a bare integer, what follows is not looked at.
/// Without a file the build code itself counts as the script's.
fn script_failure(exit: &Exit, file: &Path) -> Failure {
    let Ok(content) = fs::read(file) else {
        return Failure::Script {
            code: BUILD_FAILURE.into(),
            said: exit.words(),
        };
    };
    let line = content
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).unwrap_or_default();
    match line.parse() {
        Ok(code) => Failure::Script {
            code,
            said: format!("exit status {line}"),
        },
        // The Runner names its own system code here, though the stage ended with the build code.
        Err(_) => unknown(SYSTEM_FAILURE, exit),
    }
}

/// Returns a duration as Go writes it: `1h0m0s`, `3s`, `20ms`.
pub(super) fn go_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{rest}s"),
        60..3600 => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}
