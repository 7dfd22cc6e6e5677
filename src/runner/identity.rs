//! Who a job is, to every stage of it alike: the name its state is kept under and the `hostname` of the
//! config answer. The same name as the Go driver's, so that a job prepared by either is found by the other.

use crate::error::{Error, Kind, Result};
use crate::runner::Environment;
use crate::runner::payload::Payload;

/// The longest short token that becomes part of a file name; the Runner's own has 9 characters.
const SHORT_TOKEN_LIMIT: usize = 32;

/// A job's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `SHORT_TOKEN-SHA256("PROJECT_URL-PIPELINE-JOB")`, fit for a file name.
    pub key: String,
    /// The job's number.
    pub job_id: u64,
    /// The Runner's short token, as the job's variables have it: for texts, never for decisions.
    pub runner: String,
}

impl Identity {
    /// Derives the identity from the trusted payload, and only where that is silent from variables, which
    /// a job can shadow.
    ///
    /// # Errors
    /// Where not even the job's number is known.
    pub fn of(payload: &Payload, env: &Environment) -> Result<Self> {
        let number = |name: &str| env.job_variable(name).and_then(|v| v.parse::<u64>().ok());
        let Some(job_id) = payload.id.or_else(|| number("CI_JOB_ID")) else {
            let payload = match env.get("JOB_RESPONSE_FILE") {
                Some(_) => "no job in the file that JOB_RESPONSE_FILE names",
                None => "no JOB_RESPONSE_FILE",
            };
            return Err(Error::new(
                Kind::Contract,
                format!("which job this is cannot be told: {payload}, and no CUSTOM_ENV_CI_JOB_ID"),
            )
            .hint("Stages are called by GitLab Runner; to run a job by hand use `gitlab-aws-driver try`."));
        };
        let pipeline = payload.pipeline_id.or_else(|| number("CI_PIPELINE_ID"));
        let url = payload
            .first("CI_PROJECT_URL")
            .map(str::to_owned)
            .or_else(|| env.job_variable("CI_PROJECT_URL"))
            .unwrap_or_default();
        // Not part of the payload. A job that shadows it changes only its own name's beginning.
        let token: String = env
            .job_variable("CI_RUNNER_SHORT_TOKEN")
            .unwrap_or_default()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '_' {
                    c
                } else {
                    '-'
                }
            })
            .take(SHORT_TOKEN_LIMIT)
            .collect();
        let pipeline = pipeline.map(|p| p.to_string()).unwrap_or_default();
        let digest = crate::hash::sha256_hex(format!("{url}-{pipeline}-{job_id}").as_bytes());
        Ok(Self {
            key: format!("{token}-{digest}"),
            job_id,
            runner: token,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_go_drivers_and_no_job_can_choose_it() {
        let payload = Payload::parse(
            br#"{"id":1001,"job_info":{"pipeline_id":77},
                 "variables":[{"key":"CI_PROJECT_URL","value":"http://h/g/p"},{"key":"CI_PROJECT_URL","value":"x"}]}"#,
        )
        .unwrap();
        let env = Environment::from_pairs(
            [
                ("CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN", "../ab"),
                ("CUSTOM_ENV_CI_JOB_ID", "5"),
                ("CUSTOM_ENV_CI_PROJECT_URL", "evil"),
            ]
            .map(|(k, v)| (k.into(), v.into())),
        );
        let id = Identity::of(&payload, &env).unwrap();
        assert_eq!(
            id.key,
            format!("---ab-{}", crate::hash::sha256_hex(b"http://h/g/p-77-1001"))
        );
    }
}
