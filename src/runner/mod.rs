//! All that GitLab Runner hands over to a stage: environment, payload, identity, exit codes.
//!
//! The environment is read once, here; nothing else in the program asks for a variable.

pub mod containers;
pub mod exit;
pub mod facts;
pub mod identity;
pub mod owner;
pub mod payload;
pub mod profile;
pub mod substage;
pub mod wishes;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

use containers::Containers;
use exit::ExitCodes;
use identity::Identity;
use payload::Payload;
use wishes::Wishes;

/// The environment of one stage, as it came.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
}

impl Environment {
    /// Collects variables; tests pass a list, the program its own environment.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            variables: pairs.into_iter().collect(),
        }
    }

    /// Returns a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|v| !v.is_empty())
    }

    /// Returns a CI/CD variable as the job may have shadowed it: fit for texts, never for decisions.
    #[must_use]
    pub fn job_variable(&self, name: &str) -> Option<String> {
        self.get(&format!("CUSTOM_ENV_{name}"))
            .map(|v| v.to_string_lossy().into_owned())
    }

    /// Returns all variables.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(k, v)| (&**k, &**v))
    }

    /// Returns whether colours are unwanted (<https://no-color.org>).
    #[must_use]
    pub fn no_color(&self) -> bool {
        self.get("NO_COLOR").is_some()
    }
}

/// What a stage knows of its job once the contract is read.
#[derive(Clone, Debug)]
pub struct Call {
    /// The codes to end with.
    pub codes: ExitCodes,
    /// Who the job is.
    pub identity: Identity,
    /// The job as GitLab sent it; empty where the Runner is too old to hand it over.
    pub payload: Payload,
    /// What the job asks for by variable.
    pub wishes: Wishes,
    /// What the job says of containers.
    pub containers: Containers,
    /// Tells one try of `prepare` from another.
    pub attempt: String,
    /// Something that was lost, in words for the job log.
    pub lost: Vec<String>,
}

impl Call {
    /// Reads the contract's variables and the payload.
    ///
    /// # Errors
    /// Where the job cannot be told from others.
    pub fn read(env: &Environment, codes: ExitCodes) -> Result<Self> {
        let mut lost = Vec::new();
        let mut unread = None;
        let payload = match env.get("JOB_RESPONSE_FILE") {
            None => {
                lost.push(
                    "this GitLab Runner hands over no JOB_RESPONSE_FILE (it is older than 14.1): the job is \
                     identified by its variables"
                        .to_owned(),
                );
                Payload::default()
            }
            Some(path) => match Payload::read(&PathBuf::from(path)) {
                Ok(payload) => payload,
                Err(error) => {
                    lost.push(format!("{error}: the job is identified by its variables"));
                    unread = Some(error.to_string());
                    Payload::default()
                }
            },
        };
        if env.get("BUILD_EXIT_CODE_FILE").is_none() {
            lost.push(
                "this GitLab Runner takes no exit codes of scripts (it is older than 17.9): `allow_failure:exit_codes` \
                 does not work"
                    .to_owned(),
            );
        }
        let identity = Identity::of(&payload, env).map_err(|error| match unread {
            Some(why) => error.because(why),
            None => error,
        })?;
        let attempt = match env.get("TMPDIR") {
            Some(dir) => crate::hash::sha256_hex(dir.as_encoded_bytes()),
            None => {
                return Err(Error::new(
                    Kind::Contract,
                    "TMPDIR is not set, so tries of prepare cannot be told apart",
                )
                .hint("GitLab Runner sets it for every stage; to run a job by hand use `gitlab-aws-driver try`."));
            }
        };
        let wishes = Wishes::read(env, &payload);
        let containers = Containers::read(env, &payload);
        Ok(Self {
            codes,
            identity,
            payload,
            wishes,
            containers,
            attempt,
            lost,
        })
    }
}
