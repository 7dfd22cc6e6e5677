//! Values of GitLab's variables that no job can forge: from the part of the payload that no variable of the job can change.

use super::payload::Payload;
use crate::config::trusted_variables::TrustedVariable;

/// GitLab's value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedValue {
    /// The value.
    Value(String),
    /// GitLab says that there is none.
    Absent,
    /// Unknown: the payload lacks this field, since GitLab or GitLab Runner is too old.
    Missing(&'static str),
}

impl TrustedValue {
    fn of<T: ToString>(value: Option<T>, field: &'static str) -> Self {
        value.map_or(Self::Missing(field), |value| Self::Value(value.to_string()))
    }

    /// Returns the value, if there is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Value(text) => Some(text),
            Self::Absent | Self::Missing(_) => None,
        }
    }
}

/// Returns a message about a missing field of the payload.
#[must_use]
pub fn missing_field(field: &str) -> String {
    format!("this job's payload has no {field}: GitLab or GitLab Runner is too old to tell")
}

const PATH: &str = "job_info.project_full_path";
const REF: &str = "git_info.ref";

impl Payload {
    /// Returns GitLab's value of a variable.
    #[must_use]
    pub fn trusted(&self, fact: TrustedVariable) -> TrustedValue {
        let path = self.project_path.as_deref();
        match fact {
            TrustedVariable::JobId => TrustedValue::of(self.id, "id"),
            TrustedVariable::JobName => TrustedValue::of(self.job_name.as_ref(), "job_info.name"),
            TrustedVariable::JobStage => TrustedValue::of(self.stage.as_ref(), "job_info.stage"),
            TrustedVariable::JobTimeout => TrustedValue::of(self.timeout, "runner_info.timeout"),
            TrustedVariable::PipelineId => {
                TrustedValue::of(self.pipeline_id, "job_info.pipeline_id")
            }
            TrustedVariable::PipelineSource => self.always_sent("CI_PIPELINE_SOURCE", is_source),
            TrustedVariable::ProjectId => TrustedValue::of(self.project_id, "job_info.project_id"),
            TrustedVariable::ProjectPath => TrustedValue::of(path, PATH),
            TrustedVariable::ProjectName => {
                TrustedValue::of(path.map(|p| p.rsplit('/').next().unwrap_or(p)), PATH)
            }
            TrustedVariable::ProjectNamespace => {
                TrustedValue::of(path.map(|p| p.rsplit_once('/').map_or("", |p| p.0)), PATH)
            }
            TrustedVariable::ProjectNamespaceId => {
                TrustedValue::of(self.namespace_id, "job_info.namespace_id")
            }
            TrustedVariable::ProjectRootNamespace => {
                TrustedValue::of(path.map(|p| p.split('/').next().unwrap_or(p)), PATH)
            }
            TrustedVariable::ProjectVisibility => {
                let words = ["private", "internal", "public"];
                self.always_sent("CI_PROJECT_VISIBILITY", |text| words.contains(&text))
            }
            TrustedVariable::Ref => TrustedValue::of(self.reference.as_ref(), REF),
            TrustedVariable::RefProtected => TrustedValue::of(self.protected, "git_info.protected"),
            TrustedVariable::Tag => match self.ref_type.as_deref() {
                Some("tag") => TrustedValue::of(self.reference.as_ref(), REF),
                Some(_) => TrustedValue::Absent,
                None => TrustedValue::Missing("git_info.ref_type"),
            },
            TrustedVariable::Sha => TrustedValue::of(commit(self.sha.as_deref()), "git_info.sha"),
            TrustedVariable::ShortSha => TrustedValue::of(
                commit(self.sha.as_deref()).and_then(|sha| sha.get(..8)),
                "git_info.sha",
            ),
            TrustedVariable::BeforeSha => {
                TrustedValue::of(commit(self.before_sha.as_deref()), "git_info.before_sha")
            }
            TrustedVariable::UserId => TrustedValue::of(self.user_id, "job_info.user_id"),
        }
    }

    /// Returns a variable that every GitLab server sends before the author's variables, if the server also sends the project's
    /// path as a field. An older server may not send the variable. A value of that form has nothing to expand.
    fn always_sent(&self, name: &'static str, is_right: impl Fn(&str) -> bool) -> TrustedValue {
        match self.project_path {
            None => TrustedValue::Missing(PATH),
            Some(_) => TrustedValue::of(self.first(name).filter(|text| is_right(text)), name),
        }
    }
}

/// A word of GitLab's own, such as `push` or `merge_request_event`.
fn is_source(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn commit(text: Option<&str>) -> Option<&str> {
    let is_hash =
        |text: &&str| matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
    text.filter(is_hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::trusted_variables::TRUSTED_VARIABLES;

    fn payload(json: &Value) -> Payload {
        Payload::parse(json.to_string().as_bytes()).unwrap()
    }

    fn whole() -> Value {
        json!({
            "id": 1001,
            "job_info": { "name": "build: [a, b]", "stage": "test", "pipeline_id": 77, "project_id": 5, "namespace_id": 6,
                "user_id": 7, "project_full_path": "group/sub/project", "project_name": "A Project" },
            "git_info": { "ref": "v1", "ref_type": "tag", "protected": true, "sha": "0123456789abcdef0123456789abcdef01234567",
                "before_sha": "0".repeat(40) },
            "runner_info": { "timeout": 3600 },
            "variables": [
                { "key": "CI_PIPELINE_SOURCE", "value": "push" },
                { "key": "CI_PROJECT_VISIBILITY", "value": "private" },
                { "key": "CI_PIPELINE_SOURCE", "value": "schedule" },
            ],
        })
    }

    #[test]
    fn each_fact_is_told_from_the_jobs_description() {
        let payload = payload(&whole());
        let want = [
            "0000000000000000000000000000000000000000",
            "v1",
            "true",
            "0123456789abcdef0123456789abcdef01234567",
            "01234567",
            "v1",
            "1001",
            "build: [a, b]",
            "test",
            "3600",
            "77",
            "push",
            "5",
            "project",
            "group/sub",
            "6",
            "group/sub/project",
            "group",
            "private",
            "7",
        ];
        for ((name, fact), want) in TRUSTED_VARIABLES.iter().zip(want) {
            assert_eq!(
                payload.trusted(*fact),
                TrustedValue::Value(want.to_owned()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_branch_is_no_tag() {
        let mut json = whole();
        json["git_info"]["ref_type"] = "branch".into();
        assert_eq!(
            payload(&json).trusted(TrustedVariable::Tag),
            TrustedValue::Absent
        );
        json["git_info"]["ref_type"] = Value::Null;
        assert_eq!(
            payload(&json).trusted(TrustedVariable::Tag),
            TrustedValue::Missing("git_info.ref_type")
        );
    }

    #[test]
    fn what_a_server_may_not_have_sent_itself_is_not_told() {
        let mut json = whole();
        // Older than what is always sent.
        json["job_info"]["project_full_path"] = Value::Null;
        assert_eq!(
            payload(&json).trusted(TrustedVariable::PipelineSource),
            TrustedValue::Missing(PATH)
        );
        let mut json = whole();
        for odd in ["", "$A", "push ", "Push", "a/b"] {
            json["variables"][0]["value"] = odd.into();
            let told = payload(&json).trusted(TrustedVariable::PipelineSource);
            assert_eq!(told, TrustedValue::Missing("CI_PIPELINE_SOURCE"), "{odd}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a job's variables say, before or after GitLab's own, what is told of it stays the same.
        #[test]
        fn no_variable_changes_what_is_told(at in 0_usize..4, values in proptest::collection::vec("[a-z$/0-9]{0,8}", 20)) {
            let plain = payload(&whole());
            let mut json = whole();
            let variables = json["variables"].as_array_mut().unwrap();
            for ((name, fact), value) in TRUSTED_VARIABLES.iter().zip(values) {
                // These two GitLab itself sends first.
                let at = match fact {
                    TrustedVariable::PipelineSource | TrustedVariable::ProjectVisibility => variables.len(),
                    _ => at,
                };
                variables.insert(at.min(variables.len()), json!({ "key": name, "value": value }));
            }
            let forged = payload(&json);
            for (name, fact) in TRUSTED_VARIABLES {
                prop_assert_eq!(forged.trusted(fact), plain.trusted(fact), "{}", name);
            }
        }
    }
}
