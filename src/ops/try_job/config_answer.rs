//! The driver's answer to `config`, as the Runner reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

/// What the driver may set for the job. A missing key changes nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) builds_dir: Option<PathBuf>,
    /// Taken for its type alone: the jobs of `try` have no caches.
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) builds_dir_is_shared: Option<bool>,
    pub(super) hostname: Option<String>,
    pub(super) driver: Option<Driver>,
    pub(super) job_env: Option<BTreeMap<String, String>>,
    pub(super) shell: Option<String>,
}

/// The driver's name and version.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Driver {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
}

impl Answer {
    /// Reads what `config` printed: nothing at all, or one JSON object.
    pub(super) fn read(stdout: &[u8]) -> Result<Self, String> {
        if stdout.is_empty() {
            return Ok(Self::default());
        }
        // By way of a map: an array would do for a struct as well.
        let answer: Self = serde_json::from_slice::<Map<String, Value>>(stdout)
            .and_then(|object| serde_json::from_value(object.into()))
            .map_err(|e| format!("error while parsing JSON output: {e}"))?;
        match answer.shell.as_deref() {
            None | Some("" | "bash" | "sh") => Ok(answer),
            Some(other) => Err(format!(
                "config asks for the shell {other:?}; try writes scripts for bash and sh only"
            )),
        }
    }

    /// Returns the line with which the Runner names the driver in the job log; a version without a name is not told.
    pub(super) fn introduction(&self) -> String {
        let driver = self.driver.as_ref();
        let name = driver.and_then(|driver| driver.name.as_deref());
        let version = driver.and_then(|driver| driver.version.as_deref());
        match (name, version) {
            (None, _) => "Using Custom executor...".to_owned(),
            (Some(name), None) => format!("Using Custom executor with driver {name}..."),
            (Some(name), Some(version)) => {
                format!("Using Custom executor with driver {name} {version}...")
            }
        }
    }
}
