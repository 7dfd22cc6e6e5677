//! The end of a stage: the two exit codes that the Runner asks for, and the file for the script's own code.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::runner::Environment;

/// The system failure's code if the Runner does not say it (its value today).
pub const SYSTEM_FAILURE: u8 = 2;

/// How a stage ended.
#[derive(Debug)]
pub enum Outcome {
    /// All went well.
    Success,
    /// The user's script ended with this code, which is not 0.
    ScriptFailed(u8),
    /// A system failure.
    Failed(Error),
}

/// The codes to end with, and the file for the script's own code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitCodes {
    build: u8,
    system: u8,
    file: Option<PathBuf>,
}

impl ExitCodes {
    /// Reads the contract's variables.
    ///
    /// # Errors
    /// The code to end with (never 0) and what is wrong with the variables.
    pub fn read(env: &Environment) -> std::result::Result<Self, (u8, Error)> {
        let system = number(env, "SYSTEM_FAILURE_EXIT_CODE");
        let build = number(env, "BUILD_FAILURE_EXIT_CODE");
        let code = *system.as_ref().unwrap_or(&SYSTEM_FAILURE);
        match (build, system) {
            (Ok(build), Ok(system)) => Ok(Self {
                build,
                system,
                file: env.get("BUILD_EXIT_CODE_FILE").map(PathBuf::from),
            }),
            (Err(error), _) | (_, Err(error)) => Err((code, error)),
        }
    }

    /// Returns codes that can only report a system failure.
    #[must_use]
    pub fn only_system(code: u8) -> Self {
        Self {
            build: code,
            system: code,
            file: None,
        }
    }

    /// Returns the code of a system failure.
    #[must_use]
    pub fn system(&self) -> u8 {
        self.system
    }

    /// Removes the code of an earlier sub-stage: one file serves all sub-stages of an attempt, and the Runner never clears it.
    pub fn forget_script_code(&self) {
        if let Some(file) = &self.file {
            drop(fs::remove_file(file));
        }
    }

    /// Returns the code to end with, and writes the script's own code.
    ///
    /// # Errors
    /// Where the script's code cannot be written; the stage still ends with the returned code.
    pub fn settle(&self, outcome: &Outcome) -> (u8, Option<Error>) {
        match outcome {
            Outcome::Success => (0, None),
            Outcome::ScriptFailed(code) => {
                let problem = self
                    .file
                    .as_deref()
                    .and_then(|file| write_code(file, *code).err());
                (self.build, problem)
            }
            Outcome::Failed(error) => (self.code_of(error.kind()), None),
        }
    }

    /// The one place where a kind becomes a code. All kinds are system failures: a build failure is final and means that the user's
    /// script failed, and none of these means that.
    fn code_of(&self, kind: Kind) -> u8 {
        match kind {
            Kind::Config
            | Kind::Contract
            | Kind::Limit
            | Kind::NotYet
            | Kind::State
            | Kind::Capacity
            | Kind::Throttled
            | Kind::Denied
            | Kind::Credentials
            | Kind::Launch
            | Kind::Unreachable
            | Kind::HostKey
            | Kind::MachineGone
            | Kind::TakenBack
            | Kind::SupervisorGone
            | Kind::NoSpace
            | Kind::Protocol
            | Kind::Bug
            | Kind::Cancelled => self.system,
        }
    }
}

fn number(env: &Environment, name: &str) -> Result<u8> {
    let problem = |what: String| {
        Error::new(Kind::Contract, what).hint(
            "GitLab Runner sets it for every stage; to run a job by hand use `gitlab-aws-driver try`.",
        )
    };
    let Some(value) = env.get(name) else {
        return Err(problem(format!("{name} is not set")));
    };
    match value.to_str().and_then(|v| v.trim().parse::<u8>().ok()) {
        Some(code) if code != 0 => Ok(code),
        _ => Err(problem(format!(
            "{name} is {value:?}, which is no exit code from 1 to 255"
        ))),
    }
}

/// Writes the bare number, nothing else: a stray space makes the Runner call it a system failure.
fn write_code(file: &Path, code: u8) -> Result<()> {
    let fail = |e: std::io::Error| {
        Error::new(
            Kind::Contract,
            format!(
                "cannot write the script's exit code {code} to {}",
                file.display()
            ),
        )
        .because(e)
    };
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut f = fs::File::create(&temporary).map_err(fail)?;
    f.write_all(code.to_string().as_bytes()).map_err(fail)?;
    fs::rename(&temporary, file).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())))
    }

    #[test]
    fn missing_or_wordy_codes_never_end_with_zero() {
        type Case = (&'static [(&'static str, &'static str)], u8, &'static str);
        let cases: &[Case] = &[
            (&[], 2, "BUILD_FAILURE_EXIT_CODE is not set"),
            (
                &[("BUILD_FAILURE_EXIT_CODE", "1")],
                2,
                "SYSTEM_FAILURE_EXIT_CODE is not set",
            ),
            (
                &[
                    ("BUILD_FAILURE_EXIT_CODE", "one"),
                    ("SYSTEM_FAILURE_EXIT_CODE", "7"),
                ],
                7,
                "BUILD_FAILURE_EXIT_CODE is \"one\", which is no exit code from 1 to 255",
            ),
            (
                &[
                    ("BUILD_FAILURE_EXIT_CODE", "1"),
                    ("SYSTEM_FAILURE_EXIT_CODE", "0"),
                ],
                2,
                "SYSTEM_FAILURE_EXIT_CODE is \"0\", which is no exit code from 1 to 255",
            ),
        ];
        for (pairs, code, text) in cases {
            let (got, error) = ExitCodes::read(&env(pairs)).unwrap_err();
            assert_eq!((got, error.to_string().as_str()), (*code, *text));
        }
    }

    #[test]
    fn codes_other_than_one_and_two_are_honoured_and_the_file_holds_a_bare_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("code");
        let codes = ExitCodes::read(&env(&[
            ("BUILD_FAILURE_EXIT_CODE", "17"),
            ("SYSTEM_FAILURE_EXIT_CODE", "18"),
            ("BUILD_EXIT_CODE_FILE", file.to_str().unwrap()),
        ]))
        .unwrap();
        assert_eq!(codes.settle(&Outcome::ScriptFailed(42)).0, 17);
        assert_eq!(fs::read(&file).unwrap(), b"42");
        codes.forget_script_code();
        assert!(!file.exists());
        let failed = Outcome::Failed(Error::new(Kind::State, "x"));
        assert_eq!(codes.settle(&failed).0, 18);
        assert!(!file.exists());
    }
}
