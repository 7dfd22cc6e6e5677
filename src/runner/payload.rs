//! The job as GitLab sent it, read leniently: the trusted copy, which job variables cannot shadow.
//!
//! Fields come and go with server versions, and any of them may be null; what is missing is simply absent
//! here. Only what the driver uses is read.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::containers::{Credential, Image, Service};
use crate::error::{Error, Kind, Result};

/// The parts of the payload in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The job's number.
    pub id: Option<u64>,
    /// The job's name as written in the pipeline.
    pub job_name: Option<String>,
    /// The pipeline's number.
    pub pipeline_id: Option<u64>,
    /// The project's full path.
    pub project_path: Option<String>,
    /// The branch or tag.
    pub reference: Option<String>,
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
    /// Where there is no such file or it holds no JSON object.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(
                Kind::Contract,
                format!("cannot read the job's payload {}", path.display()),
            )
            .because(e)
        };
        let bytes = std::fs::read(path).map_err(|e| fail(e.into()))?;
        Self::parse(&bytes).map_err(|e| fail(e.into()))
    }

    /// Parses the payload.
    ///
    /// # Errors
    /// Where it is no JSON.
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
        let info = &json["job_info"];
        let mut payload = Self {
            id: number(&json["id"]),
            job_name: text(&info["name"]),
            pipeline_id: number(&info["pipeline_id"]),
            project_path: text(&info["project_full_path"]),
            reference: text(&json["git_info"]["ref"]),
            protected: json["git_info"]["protected"].as_bool(),
            timeout: seconds(&json["runner_info"]["timeout"]),
            image: Image::read(&json["image"]),
            services: list(&json["services"]).filter_map(Service::read).collect(),
            credentials: list(&json["credentials"])
                .filter_map(Credential::read)
                .collect(),
            variables,
        };
        // Recent fields: older servers say the same in the first occurrence of a predefined variable.
        let first = |name: &str| {
            payload
                .first(name)
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
        };
        let (path, pipeline) = (first("CI_PROJECT_PATH"), first("CI_PIPELINE_ID"));
        let reference = first("CI_COMMIT_REF_NAME");
        let protected = first("CI_COMMIT_REF_PROTECTED").map(|text| text == "true");
        let timeout = first("CI_JOB_TIMEOUT").and_then(|text| seconds(&text.into()));
        payload.reference = payload.reference.or(reference);
        payload.protected = payload.protected.or(protected);
        payload.timeout = payload.timeout.or(timeout);
        payload.project_path = payload.project_path.or(path);
        payload.pipeline_id = payload.pipeline_id.or_else(|| pipeline?.parse().ok());
        Ok(payload)
    }

    /// Names the job as all its retries are named: by project, pipeline and its own name. Only where all three are known.
    #[must_use]
    pub fn lineage(&self) -> Option<String> {
        let (project, job) = (self.project_path.as_ref()?, self.job_name.as_ref()?);
        Some(format!("{project}\n{}\n{job}", self.pipeline_id?))
    }

    /// Returns the first occurrence of a variable: GitLab puts its own before the user's.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .find(|v| v.key == name)
            .map(|v| v.value.as_str())
    }

    /// Returns whether there is any variable: where there is none, nobody says what GitLab's own are.
    #[must_use]
    pub fn has_variables(&self) -> bool {
        !self.variables.is_empty()
    }

    /// Returns whether it says nothing at all: the Runner did not hand it over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns each variable as the job sees it: what came last counts there.
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

    /// Returns the content of a variable that is a file, where its last occurrence, which is the one that counts in a
    /// job, is one.
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

/// A number, also where a server wrote it as a string; 0 means "not known" in every field read here.
fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .filter(|n| *n != 0)
}

/// GitLab's own limit is a month; deadlines are counted from what is said here, and must not overflow.
const LONGEST_TIMEOUT: u64 = 366 * 24 * 3600;

/// A time limit, whatever number a server writes: one that fits no integer is as good as none.
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
    fn a_shadowed_variable_does_not_count() {
        let p = Payload::parse(
            br#"{"id":7,"variables":[{"key":"CI_PROJECT_PATH","value":"g/p"},{"key":"CI_PROJECT_PATH","value":"evil"},
                 {"key":"CI_PIPELINE_ID","value":"9"},{"key":"CI_JOB_TIMEOUT","value":"90"},
                 {"key":"CI_COMMIT_REF_NAME","value":"main"},{"key":"CI_COMMIT_REF_NAME","value":"evil"},
                 {"key":"CI_COMMIT_REF_PROTECTED","value":"true"},{"key":"CI_COMMIT_REF_PROTECTED","value":"false"}]}"#,
        )
        .unwrap();
        assert_eq!(p.project_path.as_deref(), Some("g/p"));
        assert_eq!((p.id, p.pipeline_id), (Some(7), Some(9)));
        assert_eq!((p.timeout, p.protected), (Some(90), Some(true)));
        assert_eq!(p.reference.as_deref(), Some("main"));
        assert_eq!(p.effective().get("CI_COMMIT_REF_NAME"), Some(&"evil"));
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
