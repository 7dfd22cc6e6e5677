//! The identity of a job, the same in each of its stages: the name of its state and the `hostname` of the config answer. It is
//! the Go driver's name as well, so that each driver finds a job that the other one prepared.

use crate::error::{Error, Kind, Result};
use crate::runner::Environment;
use crate::runner::payload::Payload;

/// The longest short token that becomes part of a file name; the Runner's own has 9 characters.
const SHORT_TOKEN_LIMIT: usize = 32;

/// The beginning of every error about a job that cannot be identified.
pub(super) const UNKNOWN: &str = "which job this is cannot be told";
/// Its remedy.
pub(super) const REMEDY: &str = "GitLab Runner (15.0 or later) hands a copy of the job to every stage: update it, and see that nothing clears the job's \
     temporary directory or changes JOB_RESPONSE_FILE. To run a job by hand use `gitlab-aws-driver try`.";

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
    /// Derives the identity from the trusted payload, which no job can shadow, and the short token from the note of an earlier
    /// stage of this attempt, if there is one.
    ///
    /// # Errors
    /// If the payload does not say which job it is.
    pub fn of(payload: &Payload, env: &Environment, noted: Option<&str>) -> Result<Self> {
        let Some(job_id) = payload.id else {
            return Err(Error::new(
                Kind::Contract,
                format!("{UNKNOWN}: the file that JOB_RESPONSE_FILE names holds no job"),
            )
            .hint(REMEDY));
        };
        // The Go driver's key has it, so it has to be the same here. The first occurrence is GitLab's own.
        let url = payload.first("CI_PROJECT_URL").unwrap_or_default();
        let pipeline = payload.pipeline_id.map(|p| p.to_string());
        let pipeline = pipeline.unwrap_or_default();
        let digest = crate::hash::sha256_hex(format!("{url}-{pipeline}-{job_id}").as_bytes());
        // It is not part of the payload, so a job may shadow it, for example by `$CI_JOB_STATUS`, which differs in `cleanup`. So all
        // stages of an attempt use the token that the first one saw. Whatever it is, the digest keeps jobs apart.
        let runner = noted.and_then(|key| noted_token(key, &digest));
        let runner = runner.unwrap_or_else(|| {
            let token = env.job_variable("CI_RUNNER_SHORT_TOKEN");
            legal(&token.unwrap_or_default())
        });
        Ok(Self {
            key: format!("{runner}-{digest}"),
            job_id,
            runner,
        })
    }
}

/// Returns the short token of a key that was noted, if it is this job's.
fn noted_token(key: &str, digest: &str) -> Option<String> {
    let token = key.strip_suffix(digest)?.strip_suffix('-')?;
    (legal(token) == token).then(|| token.to_owned())
}

/// Makes a short token fit for a file name.
fn legal(token: &str) -> String {
    let legal = |c: char| match c.is_ascii_alphanumeric() || c == '_' {
        true => c,
        false => '-',
    };
    token.chars().map(legal).take(SHORT_TOKEN_LIMIT).collect()
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
        let digest = crate::hash::sha256_hex(b"http://h/g/p-77-1001");
        let key = |noted: Option<&str>| Identity::of(&payload, &env, noted).unwrap().key;
        assert_eq!(key(None), format!("---ab-{digest}"));
        // What a stage before this one saw counts, unless it is another job's or no name.
        let noted = format!("running-{digest}");
        assert_eq!(key(Some(&noted)), noted);
        let other = crate::hash::sha256_hex(b"http://h/g/p-77-1002");
        for odd in [
            format!("running-{other}"),
            format!("../x-{digest}"),
            format!("{}-{digest}", "x".repeat(SHORT_TOKEN_LIMIT + 1)),
            digest.clone(),
            String::new(),
        ] {
            assert_eq!(key(Some(&odd)), format!("---ab-{digest}"), "{odd}");
        }
    }

    #[test]
    fn no_variable_tells_who_a_job_is() {
        let env = Environment::from_pairs(
            [
                ("CUSTOM_ENV_CI_JOB_ID", "5"),
                ("CUSTOM_ENV_CI_PIPELINE_ID", "6"),
                ("CUSTOM_ENV_CI_PROJECT_URL", "evil"),
            ]
            .map(|(k, v)| (k.into(), v.into())),
        );
        let error = Identity::of(&Payload::default(), &env, None).unwrap_err();
        assert!(error.to_string().starts_with(UNKNOWN), "{error}");
        let payload = Payload::parse(br#"{"id":0}"#).unwrap();
        let id = Identity::of(&payload, &env, None).unwrap();
        assert_eq!(id.key, format!("-{}", crate::hash::sha256_hex(b"--0")));
    }
}
