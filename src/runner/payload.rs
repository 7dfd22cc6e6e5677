//! The job as GitLab sent it, read leniently: the trusted copy, which job variables cannot shadow.
//!
//! Fields come and go with versions of GitLab and of GitLab Runner, which drops fields that it does not know. A field that was not
//! sent may be null, zero or empty. A missing field is absent here, and no variable replaces it: an author may set all of them
//! ([`super::trusted_variables`]). Only the fields that the driver uses are read.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::containers::{Credential, Image, Service};
use crate::error::{Error, Kind, Result};
use crate::files;

/// The most that is read of a payload; GitLab's own limits are far below.
const LIMIT: u64 = 64 << 20;

/// The parts of the payload in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The job's number.
    pub id: Option<u64>,
    /// The job's name as written in the pipeline.
    pub job_name: Option<String>,
    /// Its stage.
    pub stage: Option<String>,
    /// The pipeline's number.
    pub pipeline_id: Option<u64>,
    /// The project's number.
    pub project_id: Option<u64>,
    /// The project's full path.
    pub project_path: Option<String>,
    /// The number of the project's namespace.
    pub namespace_id: Option<u64>,
    /// The number of the user who started the job.
    pub user_id: Option<u64>,
    /// The branch or tag.
    pub reference: Option<String>,
    /// Whether it is a `branch` or a `tag`.
    pub ref_type: Option<String>,
    /// The commit.
    pub sha: Option<String>,
    /// The commit before it.
    pub before_sha: Option<String>,
    /// Whether the job's ref is protected.
    pub protected: Option<bool>,
    /// The job's time limit, in seconds: a year at most.
    pub timeout: Option<u64>,
    /// `image:`.
    pub image: Option<Image>,
    /// `services:`.
    pub services: Vec<Service>,
    /// The registries that GitLab gives the job access to.
    pub credentials: Vec<Credential>,
    variables: Vec<Variable>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    key: String,
    value: String,
    masked: bool,
    public: bool,
    file: bool,
}

impl Payload {
    /// Reads the file that JOB_RESPONSE_FILE names.
    ///
    /// # Errors
    /// If the file is missing or is not a JSON object.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(
                Kind::Contract,
                format!("cannot read the job's payload {}", path.display()),
            )
            .because(e)
        };
        let bytes = files::read(path, LIMIT).map_err(|e| fail(e.into()))?;
        Self::parse(&bytes).map_err(|e| fail(e.into()))
    }

    /// Parses the payload.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, serde_json::Error> {
        let json: Value = serde_json::from_slice(bytes)?;
        let variables = list(&json["variables"])
            .filter_map(|v| {
                Some(Variable {
                    key: text(&v["key"])?,
                    value: string(&v["value"]).unwrap_or_default(),
                    masked: v["masked"].as_bool().unwrap_or(false),
                    public: v["public"].as_bool().unwrap_or(false),
                    file: v["file"].as_bool().unwrap_or(false),
                })
            })
            .collect();
        let (info, git) = (&json["job_info"], &json["git_info"]);
        Ok(Self {
            id: any_number(&json["id"]),
            job_name: text(&info["name"]),
            stage: text(&info["stage"]),
            pipeline_id: number(&info["pipeline_id"]),
            project_id: number(&info["project_id"]),
            project_path: text(&info["project_full_path"]),
            namespace_id: number(&info["namespace_id"]),
            user_id: number(&info["user_id"]),
            reference: text(&git["ref"]),
            ref_type: text(&git["ref_type"]),
            sha: text(&git["sha"]),
            before_sha: text(&git["before_sha"]),
            protected: git["protected"].as_bool(),
            timeout: seconds(&json["runner_info"]["timeout"]),
            image: Image::read(&json["image"]),
            services: list(&json["services"]).filter_map(Service::read).collect(),
            credentials: list(&json["credentials"])
                .filter_map(Credential::read)
                .collect(),
            variables,
        })
    }

    /// Returns a name that the job shares with its retries: project, pipeline and job name. Only if all three are known.
    #[must_use]
    pub fn lineage(&self) -> Option<String> {
        let (project, job) = (self.project_id?, self.job_name.as_ref()?);
        Some(format!("{project}\n{}\n{job}", self.pipeline_id?))
    }

    /// Returns the first occurrence of a variable. GitLab puts its own before the author's; if it sends none of that name,
    /// the first one is the author's.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .find(|v| v.key == name)
            .map(|v| v.value.as_str())
    }

    /// Returns each variable as the job sees it: the last occurrence counts there.
    #[must_use]
    pub fn effective(&self) -> BTreeMap<&str, &str> {
        let all = self.variables.iter();
        all.map(|v| (v.key.as_str(), v.value.as_str())).collect()
    }

    /// Returns whether any occurrence of a variable is a secret.
    #[must_use]
    pub fn is_masked(&self, name: &str) -> bool {
        self.variables.iter().any(|v| v.key == name && v.masked)
    }

    /// Returns the content of a variable of type "file", if its last occurrence, which counts in a job, has that type.
    #[must_use]
    pub fn last_file(&self, name: &str) -> Option<&str> {
        let last = self.variables.iter().rfind(|v| v.key == name)?;
        last.file.then_some(&*last.value)
    }

    /// Returns the names of the variables no occurrence of which is a secret or a file, each once.
    pub fn public_names(&self) -> impl Iterator<Item = &str> {
        let all = &self.variables;
        let is_public = |name: &str| {
            let mut same = all.iter().filter(|v| v.key == name);
            same.all(|v| v.public && !v.masked && !v.file)
        };
        let first = |at: usize, name: &str| all[..at].iter().all(|v| v.key != name);
        all.iter()
            .enumerate()
            .filter(move |(at, v)| first(*at, &v.key) && is_public(&v.key))
            .map(|(_, v)| &*v.key)
    }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

pub(super) fn text(value: &Value) -> Option<String> {
    string(value).filter(|v| !v.is_empty())
}

/// A number, also where a server wrote it as a string.
fn any_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A number of which 0 means "not known". A job's own may be 0: GitLab's tests send such.
fn number(value: &Value) -> Option<u64> {
    any_number(value).filter(|n| *n != 0)
}

/// GitLab's own limit is a month. Deadlines are computed from this value, and must not overflow.
const LONGEST_TIMEOUT: u64 = 366 * 24 * 3600;

/// A time limit, whatever number a server writes: one that is too large for an integer counts as missing.
fn seconds(value: &Value) -> Option<u64> {
    let huge = || {
        let text = value.as_str();
        let number = value.as_f64().or_else(|| text?.parse().ok())?;
        (number >= 1.0).then_some(LONGEST_TIMEOUT)
    };
    let seconds = number(value).or_else(huge)?;
    Some(seconds.min(LONGEST_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn null_and_missing_fields_are_absent() {
        for text in [
            "{}",
            "null",
            "[]",
            r#"{"id":null,"job_info":null,"variables":null,"services":null,"image":null}"#,
            r#"{"variables":[null,1,{"key":null},{"value":"x"}],"services":[null,{}],"image":"x"}"#,
        ] {
            assert_eq!(Payload::parse(text.as_bytes()).unwrap(), Payload::default());
        }
    }

    #[test]
    fn no_variable_stands_in_for_a_field() {
        let names = [
            "CI_PROJECT_PATH",
            "CI_PROJECT_ID",
            "CI_PIPELINE_ID",
            "CI_JOB_ID",
            "CI_JOB_NAME",
            "CI_JOB_STAGE",
            "CI_JOB_TIMEOUT",
            "CI_COMMIT_REF_NAME",
            "CI_COMMIT_REF_PROTECTED",
            "CI_COMMIT_SHA",
            "GITLAB_USER_ID",
        ];
        let variables = names.map(|key| serde_json::json!({ "key": key, "value": "9" }));
        let payload = serde_json::json!({ "variables": variables });
        let payload = Payload::parse(payload.to_string().as_bytes()).unwrap();
        assert_eq!(payload.effective().len(), names.len());
        let bare = Payload {
            variables: payload.variables.clone(),
            ..Payload::default()
        };
        assert_eq!(payload, bare);
        assert_eq!(payload.lineage(), None);
    }

    #[test]
    fn what_the_runner_writes_for_nothing_is_nothing() {
        let payload = Payload::parse(
            br#"{"job_info":{"name":"","project_id":0,"project_full_path":"","user_id":0,"namespace_id":0},
                 "git_info":{"ref":"","sha":"","protected":null},"runner_info":{"timeout":0}}"#,
        );
        assert_eq!(payload.unwrap(), Payload::default());
    }

    #[test]
    fn a_job_may_have_the_number_0_and_must_have_one() {
        let id = |text: &str| Payload::parse(text.as_bytes()).map(|payload| payload.id);
        for (text, wanted) in [
            (r#"{"id":0}"#, Some(0)),
            (r#"{"id":"7"}"#, Some(7)),
            (
                r#"{"id":9223372036854710273}"#,
                Some(9_223_372_036_854_710_273),
            ),
            (r#"{"id":-1}"#, None),
            (r#"{"id":null}"#, None),
        ] {
            assert_eq!(id(text).unwrap(), wanted, "{text}");
        }
        let deep = format!(r#"{{"id":7,"x":{}{}}}"#, "[".repeat(128), "]".repeat(128));
        assert!(id(&deep).is_err());
    }

    #[test]
    fn a_time_limit_is_a_year_at_most_whatever_number_it_is() {
        for (text, want) in [
            ("3600", Some(3600)),
            ("\"90\"", Some(90)),
            ("0", None),
            ("-1", None),
            ("null", None),
            ("\"soon\"", None),
            ("18446744073709551615", Some(LONGEST_TIMEOUT)),
            ("\"18446744073709551616\"", Some(LONGEST_TIMEOUT)),
            ("1e300", Some(LONGEST_TIMEOUT)),
        ] {
            let payload = format!("{{\"runner_info\":{{\"timeout\":{text}}}}}");
            let payload = Payload::parse(payload.as_bytes()).unwrap();
            assert_eq!(payload.timeout, want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
            drop(Payload::parse(&bytes));
        }
    }
}
