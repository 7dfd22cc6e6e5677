//! What the contract hands to a stage: its environment, the job's variables, the payload.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::json;

use super::Runner;

impl Runner {
    /// Returns the whole environment of a stage.
    pub(crate) fn stage_environment(&self) -> BTreeMap<OsString, OsString> {
        let attempt = self.attempt();
        let root = self.root();
        let attempt = |name: &str| attempt.join(name).display().to_string();
        let (build, system) = &self.builder.exit_codes;
        let mut path: String = self
            .builder
            .path_first
            .iter()
            .map(|folder| format!("{}:", folder.display()))
            .collect();
        path += "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut pairs = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), root.join("home").display().to_string()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TMPDIR".to_owned(), self.attempt().display().to_string()),
            ("BUILD_FAILURE_EXIT_CODE".to_owned(), build.clone()),
            ("SYSTEM_FAILURE_EXIT_CODE".to_owned(), system.clone()),
        ]);
        if self.builder.exit_code_file {
            let file = attempt("build_exit_code");
            pairs.insert("BUILD_EXIT_CODE_FILE".to_owned(), file);
        }
        if self.builder.payload {
            let file = attempt("response.json");
            pairs.insert("JOB_RESPONSE_FILE".to_owned(), file);
        }
        for (name, value) in self.variables() {
            pairs.insert(format!("CUSTOM_ENV_{name}"), value);
        }
        if let Some(account) = &self.builder.account {
            let variables = account.environment();
            pairs.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        }
        for (name, value) in &self.builder.environment {
            match value {
                Some(value) => drop(pairs.insert(name.clone(), value.clone())),
                None => drop(pairs.remove(name)),
            }
        }
        pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let job = self.job.to_string();
        let status = self.status.lock().expect("no panics").clone();
        let mut all: BTreeMap<String, String> = [
            ("CI", "true"),
            ("GITLAB_CI", "true"),
            ("CI_SERVER", "yes"),
            ("CI_SERVER_URL", "http://127.0.0.1:1"),
            ("CI_JOB_ID", &job),
            ("CI_JOB_NAME", "lab"),
            ("CI_JOB_STAGE", "test"),
            ("CI_JOB_STATUS", &status),
            ("CI_JOB_TIMEOUT", "3600"),
            ("CI_JOB_TOKEN", "lab-job-token"),
            ("CI_JOB_SERVICES", ""),
            ("CI_PIPELINE_ID", "77"),
            ("CI_PROJECT_ID", "5"),
            ("CI_PROJECT_NAME", "project"),
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_COMMIT_REF_NAME", "main"),
            ("CI_CONCURRENT_ID", &job),
            ("CI_CONCURRENT_PROJECT_ID", &job),
            ("CI_RUNNER_SHORT_TOKEN", "labrunner"),
            ("CI_RUNNER_VERSION", "19.4.0"),
            ("CI_SHARED_ENVIRONMENT", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        all.extend(self.builder.variables.clone());
        all
    }

    pub(super) fn payload(&self) -> serde_json::Value {
        let variables: Vec<_> = self
            .variables()
            .into_iter()
            .map(|(key, value)| json!({ "key": key, "value": value, "public": true }))
            .collect();
        let mut payload = json!({
            "id": self.job,
            "token": "lab-job-token",
            "job_info": {
                "name": "lab", "stage": "test", "pipeline_id": 77, "project_id": 5,
                "project_name": "project", "project_full_path": "group/project",
            },
            "git_info": { "ref": "main", "ref_type": "branch", "protected": null },
            "runner_info": { "timeout": self.builder.job_timeout },
            "variables": variables,
            "image": { "name": "" },
            "services": [],
        });
        for (name, value) in &self.builder.payload_fields {
            payload[name] = value.clone();
        }
        payload
    }
}
