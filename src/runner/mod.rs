//! All that GitLab Runner hands over to a stage: environment, payload, identity, exit codes.
//!
//! The environment is read once, here; nothing else in the program reads a variable.

pub mod ancestors;
pub mod containers;
pub mod exit;
pub mod identity;
pub mod note;
pub mod payload;
pub mod substage;
pub mod trusted_variables;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

use containers::Containers;
use exit::ExitCodes;
use identity::Identity;
use note::Note;
use payload::Payload;

/// The environment of one stage, unchanged.
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

/// What the Runner hands over to a stage, read and checked.
#[derive(Clone, Debug)]
pub struct Call {
    /// The codes to end with.
    pub codes: ExitCodes,
    /// The job's identity.
    pub identity: Identity,
    /// The job as GitLab sent it.
    pub payload: Payload,
    /// What the job asks for about containers.
    pub containers: Containers,
    /// The Runner's own directory for this attempt: TMPDIR.
    pub directory: PathBuf,
    /// Whether that is certainly the Runner's own, and not one that a wrapper script set instead: the payload is in it.
    pub holds_payload: bool,
    /// Identifies the attempt of `prepare`.
    pub attempt: String,
    /// The note of an earlier stage of this attempt.
    pub note: Option<Note>,
    /// A message for the job log about something that was lost.
    pub lost: Vec<String>,
}

impl Call {
    /// Reads the contract's variables and the payload.
    ///
    /// # Errors
    /// If the job cannot be identified.
    pub fn read(env: &Environment, codes: ExitCodes) -> Result<Self> {
        let mut lost = Vec::new();
        if env.get("BUILD_EXIT_CODE_FILE").is_none() {
            lost.push(
                "this GitLab Runner takes no exit codes of scripts (it is older than 17.9): `allow_failure:exit_codes` \
                 does not work"
                    .to_owned(),
            );
        }
        let payload = payload(env)?;
        let directory = directory(env)?;
        let note = Note::read(&directory);
        let identity = Identity::of(&payload, env, note.as_ref().map(|n| &*n.key))?;
        // If many jobs have one directory, a wrapper script set it: another job's note says nothing about this one.
        let note = note.filter(|note| note.key == identity.key);
        let payload_file = env.get("JOB_RESPONSE_FILE").map(Path::new);
        let containers = Containers::read(env, &payload);
        Ok(Self {
            codes,
            identity,
            payload,
            containers,
            attempt: attempt(&directory),
            holds_payload: payload_file
                .and_then(Path::parent)
                .is_some_and(|parent| is_same(parent, &directory)),
            directory,
            note,
            lost,
        })
    }
}

/// Reads the payload. Nothing else says which job this is, since a job can set its variables.
///
/// # Errors
/// Where it is not there or cannot be read.
pub fn payload(env: &Environment) -> Result<Payload> {
    let unknown = |why: Option<Error>| {
        let error = match why {
            Some(why) => Error::new(Kind::Contract, identity::UNKNOWN).because(why),
            None => Error::new(
                Kind::Contract,
                format!("{}: no JOB_RESPONSE_FILE", identity::UNKNOWN),
            ),
        };
        error.hint(identity::REMEDY)
    };
    let path = env.get("JOB_RESPONSE_FILE").ok_or_else(|| unknown(None))?;
    Payload::read(Path::new(path)).map_err(|error| unknown(Some(error)))
}

/// Returns the Runner's own directory for this attempt.
///
/// # Errors
/// Where it is not named.
pub fn directory(env: &Environment) -> Result<PathBuf> {
    env.get("TMPDIR").map(PathBuf::from).ok_or_else(|| {
        Error::new(
            Kind::Contract,
            "TMPDIR is not set, so tries of prepare cannot be told apart",
        )
        .hint("GitLab Runner sets it for every stage; to run a job by hand use `gitlab-aws-driver try`.")
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    inode(one).is_some_and(|inode_of_one| inode(other) == Some(inode_of_one))
}

/// Returns a text that identifies the attempt: each attempt has a directory of its own.
#[must_use]
pub fn attempt(directory: &Path) -> String {
    crate::hash::sha256_hex(directory.as_os_str().as_encoded_bytes())
}
