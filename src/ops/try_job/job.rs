//! The job as GitLab would have sent it: its identity, its variables, its payload.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::config_answer::Answer;
use super::temp;
use crate::error::{Error, Kind, Result};

/// The Runner that is played.
const RUNNER_VERSION: &str = "19.4.0";
/// The commit that this version was built from: it is in the first line of every job log.
const RUNNER_REVISION: &str = "d79f3e7b";
const RUNNER_NAME: &str = "try";
const SYSTEM_ID: &str = "s_000000000000";
const RUNNER_TOKEN: &str = "trytrytry";
const SERVER: &str = "https://gitlab.invalid";
const PROJECT: &str = "try";
const PROJECT_PATH: &str = "try/try";
const SHA: &str = "0000000000000000000000000000000000000000";
const REF: &str = "main";
const SERVER_LIMIT_OF_AFTER_SCRIPT: u64 = 300;

/// One job.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) timeout: Duration,
    pub(super) script: Vec<u8>,
    pub(super) after_script: Option<Vec<u8>>,
    pub(super) pre_get_sources: Option<Vec<u8>>,
    pub(super) image: Option<String>,
    pub(super) services: Vec<String>,
    /// The user's own, in the order in which they were given.
    pub(super) variables: Vec<(String, String)>,
}

/// What changes while the job goes on.
#[derive(Clone, Debug)]
pub(super) struct JobState {
    pub(super) status: &'static str,
    /// Empty until `config` has answered for the first time.
    pub(super) builds_dir: String,
    pub(super) project_dir: String,
}

impl Default for JobState {
    fn default() -> Self {
        Self {
            status: "running",
            builds_dir: String::new(),
            project_dir: String::new(),
        }
    }
}

impl JobState {
    /// Takes over the builds directory from the driver's answer.
    pub(super) fn settle(&mut self, answer: &Answer, runners_own: &Path) {
        let builds: PathBuf = answer
            .builds_dir
            .as_deref()
            .unwrap_or(runners_own)
            .to_owned();
        let project = if answer.builds_dir_is_shared == Some(true) {
            // Jobs of one Runner must not meet in one directory there.
            builds.join(RUNNER_TOKEN).join("0").join(PROJECT_PATH)
        } else {
            builds.join(PROJECT_PATH)
        };
        self.builds_dir = builds.to_string_lossy().into_owned();
        self.project_dir = project.to_string_lossy().into_owned();
    }

    /// Returns the directory beside the project's for what must not lie inside it.
    pub(super) fn project_temp(&self) -> String {
        format!("{}.tmp", self.project_dir)
    }
}

/// A service as `CI_JOB_SERVICES` describes it.
#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    alias: &'a str,
    entrypoint: Option<&'a [String]>,
    command: Option<&'a [String]>,
}

impl Job {
    /// Returns a job of that script, with an id of its own.
    pub(super) fn new(script: Vec<u8>, timeout: Duration) -> Result<Self> {
        let random = temp::random()
            .map_err(|e| Error::new(Kind::State, "cannot draw a job id").because(e))?;
        Ok(Self {
            // As long as the ids of GitLab's own installation, and unlike those of other tries on this host.
            id: 1_000_000_000 + random % 9_000_000_000,
            timeout,
            script,
            after_script: None,
            pre_get_sources: None,
            image: None,
            services: Vec::new(),
            variables: Vec::new(),
        })
    }

    fn token(&self) -> String {
        format!("try-{}", self.id)
    }

    /// Returns the variables that GitLab sends.
    fn sent(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = [
            ("CI", "true".to_owned()),
            ("GITLAB_CI", "true".to_owned()),
            ("CI_JOB_ID", self.id.to_string()),
            ("CI_PIPELINE_ID", "1".to_owned()),
            ("CI_JOB_NAME", "try".to_owned()),
            ("CI_JOB_STAGE", "test".to_owned()),
            ("CI_PROJECT_ID", "1".to_owned()),
            ("CI_PROJECT_NAME", PROJECT.to_owned()),
            ("CI_PROJECT_PATH", PROJECT_PATH.to_owned()),
            ("CI_PROJECT_PATH_SLUG", PROJECT_PATH.replace('/', "-")),
            ("CI_PROJECT_URL", format!("{SERVER}/{PROJECT_PATH}")),
            ("CI_SERVER_URL", SERVER.to_owned()),
            ("CI_API_V4_URL", format!("{SERVER}/api/v4")),
            ("CI_COMMIT_REF_NAME", REF.to_owned()),
            ("CI_COMMIT_REF_PROTECTED", "false".to_owned()),
            ("CI_COMMIT_SHA", SHA.to_owned()),
            ("CI_JOB_TOKEN", self.token()),
            ("GIT_STRATEGY", "none".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        all.extend(self.variables.iter().cloned());
        all
    }

    /// Returns all variables of the job at this moment, in the Runner's order; a later one of the same
    /// name wins, in a script and in the environment alike.
    pub(super) fn variables(&self, state: &JobState) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = [
            ("CI_RUNNER_SHORT_TOKEN", RUNNER_TOKEN.to_owned()),
            ("CI_BUILDS_DIR", state.builds_dir.clone()),
            ("CI_PROJECT_DIR", state.project_dir.clone()),
            ("CI_CONCURRENT_ID", "0".to_owned()),
            ("CI_CONCURRENT_PROJECT_ID", "0".to_owned()),
            ("CI_SERVER", "yes".to_owned()),
            ("CI_JOB_STATUS", state.status.to_owned()),
            ("CI_JOB_TIMEOUT", self.timeout.as_secs().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        all.extend(self.sent());
        all.extend(
            [
                ("CI_SHARED_ENVIRONMENT", "true".to_owned()),
                ("CI_RUNNER_VERSION", RUNNER_VERSION.to_owned()),
                ("CI_RUNNER_REVISION", RUNNER_REVISION.to_owned()),
                ("CI_RUNNER_EXECUTABLE_ARCH", platform()),
                ("RUNNER_TEMP_PROJECT_DIR", state.project_temp()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        all
    }

    /// Returns what a driver sees of the job in its environment, names without their prefix.
    pub(super) fn environment(&self, state: &JobState) -> Vec<(String, String)> {
        let mut all = self.variables(state);
        if let Some(image) = &self.image {
            all.push(("CI_JOB_IMAGE".to_owned(), image.clone()));
        }
        let services: Vec<_> = self
            .services
            .iter()
            .map(|name| Service {
                name,
                alias: "",
                entrypoint: None,
                command: None,
            })
            .collect();
        let described = if services.is_empty() {
            String::new()
        } else {
            // Strings alone: it cannot fail.
            serde_json::to_string(&services).unwrap_or_default()
        };
        all.push(("CI_JOB_SERVICES".to_owned(), described));
        all
    }

    /// Returns the payload, the job as GitLab sent it.
    pub(super) fn payload(&self) -> Value {
        let variables: Vec<_> = self
            .sent()
            .iter()
            .map(|(key, value)| {
                let masked = key == "CI_JOB_TOKEN";
                // Raw: what was typed is taken literally, a dollar sign included.
                json!({"key": key, "value": value, "public": !masked, "file": false, "masked": masked, "raw": true})
            })
            .collect();
        let mut steps = vec![self.step("script", &self.script)];
        if let Some(text) = &self.after_script {
            steps.push(self.step("after_script", text));
        }
        let hooks: Vec<_> = self
            .pre_get_sources
            .iter()
            .map(|text| json!({"name": "pre_get_sources_script", "script": [String::from_utf8_lossy(text)]}))
            .collect();
        let services: Vec<_> = self
            .services
            .iter()
            .map(|name| json!({"name": name, "alias": "", "command": null, "entrypoint": null, "ports": [], "executor_opts": no_executor_opts()}))
            .collect();
        json!({
            "id": self.id,
            "token": self.token(),
            "allow_git_fetch": true,
            "job_info": {
                "name": "try",
                "stage": "test",
                "pipeline_id": 1,
                "project_id": 1,
                "project_name": PROJECT,
                "project_full_path": PROJECT_PATH,
                "namespace_id": 1,
                "root_namespace_id": 1,
                "organization_id": 1,
                "instance_id": "",
                "instance_uuid": "",
                "user_id": 1,
                "time_in_queue_seconds": 0,
                "project_jobs_running_on_instance_runners_count": "0",
                "queue_size": 0,
                "queue_depth": 0,
            },
            "git_info": {
                "repo_url": format!("{SERVER}/{PROJECT_PATH}.git"),
                "repo_object_format": "sha1",
                "ref": REF,
                "sha": SHA,
                "before_sha": SHA,
                "ref_type": "branch",
                "refspecs": [format!("+refs/heads/{REF}:refs/remotes/origin/{REF}")],
                "depth": 0,
                "protected": false,
            },
            "runner_info": {"uuid": "", "timeout": self.timeout.as_secs()},
            "inputs": {},
            "variables": variables,
            "steps": steps,
            "hooks": hooks,
            "image": {
                "name": self.image.as_deref().unwrap_or_default(),
                "entrypoint": null,
                "executor_opts": no_executor_opts(),
            },
            "services": services,
            "artifacts": [],
            "cache": [],
            "credentials": [],
            "dependencies": [],
            "features": {
                "trace_sections": true,
                "token_mask_prefixes": null,
                "failure_reasons": [
                    "unknown_failure",
                    "script_failure",
                    "runner_system_failure",
                    "job_execution_timeout",
                ],
                "tracing": null,
            },
            "policy_options": {"execution_policy_job": false, "policy_name": ""},
            "suspend_options": {},
        })
    }

    fn step(&self, name: &str, text: &[u8]) -> Value {
        let after = name == "after_script";
        json!({
            "name": name,
            // JSON knows no other bytes; the script itself has them as they are.
            "script": [String::from_utf8_lossy(text)],
            "timeout": if after { SERVER_LIMIT_OF_AFTER_SCRIPT } else { self.timeout.as_secs() },
            "when": if after { "always" } else { "on_success" },
            "allow_failure": after,
        })
    }
}

/// Returns the lines with which the Runner opens a job log.
pub(super) fn opening() -> String {
    format!(
        "Running with gitlab-runner {RUNNER_VERSION} ({RUNNER_REVISION})\n  on {RUNNER_NAME} {RUNNER_TOKEN}, system ID: {SYSTEM_ID}\n"
    )
}

fn no_executor_opts() -> Value {
    json!({"docker": {"platform": "", "user": ""}, "kubernetes": {"user": ""}})
}

/// Returns this machine's platform in the Runner's words.
fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}
