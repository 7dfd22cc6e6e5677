//! Which `[[profile]]` applies to a job. That depends on the payload's own fields, which no variable of the job can shadow.

use crate::config::settings::{Match, Profile, Settings};
use crate::config::trusted_variables::{self, TrustedVariable};
use crate::image::Reference;
use crate::pattern;
use crate::runner::payload::Payload;
use crate::runner::trusted_variables::{TrustedValue, missing_field};

/// Separates the parts of paths and refs: one `*` does not match it.
const OF_PATHS: &[char] = &['/'];
/// Names of jobs and values of variables have no parts.
const NOTHING: &[char] = &[];

/// One profile, compared with a job.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// What does not fit, one line each; empty if the profile fits the job.
    pub misfits: Vec<String>,
    /// Fields of the payload that the profile needs, and that are missing.
    pub missing: Vec<&'static str>,
}

/// The settings of a job.
#[derive(Debug)]
pub struct Applied {
    /// The file's own settings, or a profile's.
    pub settings: Settings,
    /// The profile that they come from, if any.
    pub profile: Option<String>,
    /// Messages for the job log about profiles that could not apply because the payload lacks a field.
    pub untold: Vec<String>,
}

/// Returns the settings of a job: of the first profile that fits, else the file's own.
#[must_use]
pub fn applied(mut settings: Settings, payload: &Payload) -> Applied {
    let verdicts = verdicts(&settings, payload);
    let first = verdicts.iter().position(|v| v.misfits.is_empty());
    let passed_over = &verdicts[..first.unwrap_or(verdicts.len())];
    let untold = passed_over.iter().flat_map(|verdict| {
        let name = &verdict.profile.name;
        let missing = verdict.missing.iter();
        missing
            .map(move |field| format!("the profile {name} does not hold: {}", missing_field(field)))
    });
    let untold = untold.collect();
    match first {
        None => Applied {
            settings,
            profile: None,
            untold,
        },
        Some(first) => {
            let profile = settings.profiles.swap_remove(first);
            Applied {
                settings: profile.settings,
                profile: Some(profile.name),
                untold,
            }
        }
    }
}

/// Compares each profile with a job, in order. The first without misfits applies.
#[must_use]
pub fn verdicts<'a>(settings: &'a Settings, payload: &Payload) -> Vec<Verdict<'a>> {
    let profiles = settings.profiles.iter();
    profiles
        .map(|profile| {
            let mut verdict = Verdict {
                profile,
                misfits: Vec::new(),
                missing: Vec::new(),
            };
            verdict.compare_all(&profile.matches, payload);
            verdict
        })
        .collect()
}

impl Verdict<'_> {
    /// Compares all that a match names: all must fit. A missing field of the payload fits nothing.
    fn compare_all(&mut self, wanted: &Match, payload: &Payload) {
        for (what, pattern, fact, separators) in [
            (
                "job_name",
                &wanted.job_name,
                TrustedVariable::JobName,
                NOTHING,
            ),
            (
                "project",
                &wanted.project,
                TrustedVariable::ProjectPath,
                OF_PATHS,
            ),
            ("ref", &wanted.reference, TrustedVariable::Ref, OF_PATHS),
        ] {
            if let Some(pattern) = pattern {
                self.compare(what, pattern, &payload.trusted(fact), separators);
            }
        }
        if let Some(pattern) = &wanted.image {
            let image = payload.image.as_ref().map(|image| &*image.name);
            let fits = |name: &str| Reference::parse(name).is_ok_and(|image| image.fits(pattern));
            match image {
                Some(name) if fits(name) => {}
                Some(name) => self.misfit("image", name, pattern),
                None => self
                    .misfits
                    .push(format!("image is not said, and has to be {pattern:?}")),
            }
        }
        for (name, pattern) in &wanted.variables {
            // The file names no others.
            let told = trusted_variables::named(name)
                .map_or(TrustedValue::Absent, |fact| payload.trusted(fact));
            self.compare(&format!("variable {name}"), pattern, &told, NOTHING);
        }
        if let Some(wanted) = wanted.protected {
            let is = match payload.protected {
                Some(is) if is == wanted => return,
                Some(true) => "protected",
                Some(false) => "not protected",
                None => "not known to be protected or not",
            };
            if let TrustedValue::Missing(field) = payload.trusted(TrustedVariable::RefProtected) {
                self.missing(field);
            }
            let misfit = format!("the ref is {is}, and protected has to be {wanted}");
            self.misfits.push(misfit);
        }
    }

    fn compare(&mut self, what: &str, pattern: &str, told: &TrustedValue, separators: &[char]) {
        match told {
            TrustedValue::Value(text) if pattern::fits(pattern, text, separators) => {}
            TrustedValue::Value(text) => self.misfit(what, text, pattern),
            TrustedValue::Absent => self
                .misfits
                .push(format!("there is no {what}, and it has to be {pattern:?}")),
            TrustedValue::Missing(field) => {
                self.missing(field);
                self.misfits
                    .push(format!("{what} is not said, and has to be {pattern:?}"));
            }
        }
    }

    fn misfit(&mut self, what: &str, text: &str, pattern: &str) {
        self.misfits
            .push(format!("{what} is {text:?}, not {pattern:?}"));
    }

    fn missing(&mut self, field: &'static str) {
        if !self.missing.contains(&field) {
            self.missing.push(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn payload(text: &str) -> Payload {
        Payload::parse(text.as_bytes()).unwrap()
    }

    const JOB: &str = r#"{"id":7,"job_info":{"name":"docker-a/b","project_full_path":"group/sub/p"},
        "git_info":{"ref":"release/1","ref_type":"branch","protected":true},"image":{"name":"docker:27"},
        "variables":[{"key":"CI_PIPELINE_SOURCE","value":"push"},{"key":"CI_PIPELINE_SOURCE","value":"schedule"},
                     {"key":"CI_PROJECT_PATH","value":"evil/p"},{"key":"GITLAB_USER_ID","value":"1"}]}"#;

    fn settings(matches: &str) -> Settings {
        let text = format!("[[profile]]\nname = \"a\"\nmatch = {{ {matches} }}\n");
        let loaded =
            crate::config::parse(&text, Path::new("f.toml")).unwrap_or_else(|e| panic!("{e}"));
        loaded.settings
    }

    fn misfits(matches: &str, job: &str) -> Vec<String> {
        let settings = settings(matches);
        let mut verdicts = verdicts(&settings, &payload(job));
        verdicts.remove(0).misfits
    }

    #[test]
    fn all_that_is_named_must_fit() {
        for (wanted, misfit) in [
            ("job_name = \"docker-*\"", None),
            ("project = \"group/**\"", None),
            (
                "project = \"group/*\"",
                Some("project is \"group/sub/p\", not \"group/*\""),
            ),
            ("ref = \"release/*\"", None),
            ("ref = \"*\"", Some("ref is \"release/1\"")),
            ("protected = true", None),
            (
                "protected = false",
                Some("the ref is protected, and protected has to be false"),
            ),
            ("image = \"docker:*\"", None),
            ("image = \"alpine\"", Some("image is \"docker:27\"")),
            ("image = \"docker.io/library/docker:*\"", None),
            ("image = \"docker:2\"", Some("image is \"docker:27\"")),
            ("variables = { CI_PIPELINE_SOURCE = \"pu*\" }", None),
            ("variables = { CI_PROJECT_NAME = \"p\" }", None),
            // What came later is the job's own.
            (
                "variables = { CI_PIPELINE_SOURCE = \"schedule\" }",
                Some("variable CI_PIPELINE_SOURCE is \"push\""),
            ),
            (
                "variables = { CI_PROJECT_PATH = \"evil/**\" }",
                Some("variable CI_PROJECT_PATH is \"group/sub/p\""),
            ),
            // And what GitLab does not say the job cannot either.
            (
                "variables = { GITLAB_USER_ID = \"1\" }",
                Some("variable GITLAB_USER_ID is not said, and has to be \"1\""),
            ),
            (
                "variables = { CI_COMMIT_TAG = \"*\" }",
                Some("there is no variable CI_COMMIT_TAG"),
            ),
            (
                "job_name = \"docker-*\", ref = \"release/*\", protected = true",
                None,
            ),
            ("job_name = \"docker-*\", ref = \"main\"", Some("ref is")),
        ] {
            let misfits = misfits(wanted, JOB);
            match misfit {
                None => assert_eq!(misfits, Vec::<String>::new(), "{wanted}"),
                Some(told) => {
                    assert_eq!(misfits.len(), 1, "{wanted}: {misfits:?}");
                    assert!(misfits[0].starts_with(told), "{wanted}: {misfits:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_said_fits_nothing() {
        for wanted in [
            "job_name = \"**\"",
            "project = \"**\"",
            "ref = \"**\"",
            "image = \"**\"",
            "protected = true",
            "protected = false",
            "variables = { CI_JOB_ID = \"**\" }",
        ] {
            let misfits = misfits(wanted, "{}");
            assert_eq!(misfits.len(), 1, "{wanted}: {misfits:?}");
        }
    }

    #[test]
    fn the_first_that_fits_holds() {
        let text = "rung_wait = \"1m\"\n\
                    [[profile]]\nname = \"other\"\nmatch.job_name = \"lint\"\nrung_wait = \"2m\"\n\
                    [[profile]]\nname = \"first\"\nmatch.job_name = \"docker-*\"\nrung_wait = \"3m\"\n\
                    [[profile]]\nname = \"second\"\nmatch.project = \"**\"\nrung_wait = \"4m\"\n";
        let settings = crate::config::parse(text, Path::new("f.toml"))
            .unwrap()
            .settings;
        for (job, name, minutes) in [
            (JOB, Some("first"), 3),
            (
                r#"{"job_info":{"project_full_path":"a/b"}}"#,
                Some("second"),
                4,
            ),
            ("{}", None, 1),
        ] {
            let applied = applied(settings.clone(), &payload(job));
            assert_eq!(applied.profile.as_deref(), name);
            assert_eq!(applied.settings.rung_wait.as_secs(), minutes * 60);
        }
        let verdicts = verdicts(&settings, &payload(JOB));
        let fit: Vec<_> = verdicts.iter().map(|v| v.misfits.is_empty()).collect();
        assert_eq!(fit, [false, true, true]);
    }

    #[test]
    fn what_nobody_says_is_told_of_the_profiles_that_are_passed_over() {
        let untold = |matches: &str, job: &str| applied(settings(matches), &payload(job)).untold;
        for (matches, fields) in [
            ("project = \"**\"", &["job_info.project_full_path"][..]),
            ("ref = \"**\"", &["git_info.ref"]),
            ("protected = true", &["git_info.protected"]),
            (
                "project = \"x\", protected = false, variables = { CI_PROJECT_NAME = \"x\", GITLAB_USER_ID = \"1\" }",
                &[
                    "job_info.project_full_path",
                    "job_info.user_id",
                    "git_info.protected",
                ],
            ),
            ("image = \"x\"", &[]),
        ] {
            let told = untold(matches, r#"{"id":7}"#);
            assert_eq!(told.len(), fields.len(), "{told:?}");
            for (told, field) in told.iter().zip(fields) {
                let want = format!(
                    "the profile a does not hold: this job's payload has no {field}: GitLab or GitLab Runner is too old to tell"
                );
                assert_eq!(*told, want);
            }
            assert_eq!(
                untold(matches, JOB).len(),
                usize::from(fields.contains(&"job_info.user_id"))
            );
        }
    }
}
