//! Which `[[profile]]` a job falls under: by the trusted payload alone, which no variable of the job can shadow.

use super::payload::Payload;
use crate::config::pattern;
use crate::config::settings::{Match, Profile, Settings};
use crate::error::{Error, Kind};

/// What parts paths, refs and images, and so ends what one `*` may stand for.
const OF_PATHS: &[char] = &['/'];
/// In names of jobs and values of variables nothing is parted.
const NOTHING: &[char] = &[];

/// One profile, held against a job.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// What does not fit, one line each; empty where the profile fits the job.
    pub misfits: Vec<String>,
}

/// Returns what holds for a job, and the name of the profile that brings it; the file's own settings, where none fits.
#[must_use]
pub fn applied(mut settings: Settings, payload: &Payload) -> (Settings, Option<String>) {
    let fits = |profile: &Profile| misfits(&profile.matches, payload).is_empty();
    match settings.profiles.iter().position(fits) {
        None => (settings, None),
        Some(first) => {
            let profile = settings.profiles.swap_remove(first);
            (profile.settings, Some(profile.name))
        }
    }
}

/// Returns why nobody can say which profile holds: without the payload only a job's own word would say what it is.
#[must_use]
pub fn untold(settings: &Settings, payload: &Payload) -> Option<Error> {
    let untold = !settings.profiles.is_empty() && payload.is_empty();
    untold.then(|| {
        Error::new(
            Kind::Contract,
            "which profile holds for this job cannot be told: GitLab Runner hands over no copy of the job",
        )
        .hint("Update GitLab Runner (14.1 or later), or take the profiles out of the configuration.")
    })
}

/// Holds each profile against a job, in their order; the first without misfits holds.
#[must_use]
pub fn verdicts<'a>(settings: &'a Settings, payload: &Payload) -> Vec<Verdict<'a>> {
    let profiles = settings.profiles.iter();
    profiles
        .map(|profile| Verdict {
            profile,
            misfits: misfits(&profile.matches, payload),
        })
        .collect()
}

/// Returns what does not fit. All that is named must; what the payload does not say fits nothing.
fn misfits(wanted: &Match, payload: &Payload) -> Vec<String> {
    let mut misfits = Vec::new();
    let mut hold = |what: &str, pattern: &str, text: Option<&str>, separators| match text {
        Some(text) if pattern::fits(pattern, text, separators) => {}
        Some(_) if what.ends_with("(masked)") => misfits.push(format!("{what} is not {pattern:?}")),
        Some(text) => misfits.push(format!("{what} is {text:?}, not {pattern:?}")),
        None => misfits.push(format!("{what} is not said, and has to be {pattern:?}")),
    };
    let image = payload.image.as_ref().map(|image| image.name.clone());
    for (what, pattern, text, separators) in [
        ("job_name", &wanted.job_name, &payload.job_name, NOTHING),
        ("project", &wanted.project, &payload.project_path, OF_PATHS),
        ("ref", &wanted.reference, &payload.reference, OF_PATHS),
        ("image", &wanted.image, &image, OF_PATHS),
    ] {
        if let Some(pattern) = pattern {
            hold(what, pattern, text.as_deref(), separators);
        }
    }
    for (name, pattern) in &wanted.variables {
        // GitLab puts its own before the user's, so no job can pass for another by one of GitLab's names.
        let what = match payload.is_masked(name) {
            true => format!("variable {name} (masked)"),
            false => format!("variable {name}"),
        };
        hold(&what, pattern, payload.first(name), NOTHING);
    }
    if let Some(wanted) = wanted.protected
        && payload.protected != Some(wanted)
    {
        let is = match payload.protected {
            Some(true) => "protected",
            Some(false) => "not protected",
            None => "not known to be protected or not",
        };
        misfits.push(format!("the ref is {is}, and protected has to be {wanted}"));
    }
    misfits
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn payload(text: &str) -> Payload {
        Payload::parse(text.as_bytes()).unwrap()
    }

    const JOB: &str = r#"{"id":7,"job_info":{"name":"docker-a/b","project_full_path":"group/sub/p"},
        "git_info":{"ref":"release/1","protected":true},"image":{"name":"docker:27"},
        "variables":[{"key":"KIND","value":"big/one"},{"key":"KIND","value":"small"},
                     {"key":"CI_PROJECT_PATH","value":"group/sub/p"},{"key":"CI_PROJECT_PATH","value":"evil/p"}]}"#;

    fn matches(text: &str) -> Match {
        let text = format!("[[profile]]\nname = \"a\"\nmatch = {{ {text} }}\n");
        let loaded =
            crate::config::parse(&text, Path::new("f.toml")).unwrap_or_else(|e| panic!("{e}"));
        loaded.settings.profiles[0].matches.clone()
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
            ("variables = { KIND = \"big*\" }", None),
            // What came later is the job's own.
            (
                "variables = { KIND = \"small\" }",
                Some("variable KIND is \"big/one\""),
            ),
            (
                "variables = { CI_PROJECT_PATH = \"evil/**\" }",
                Some("variable CI_PROJECT_PATH is"),
            ),
            (
                "variables = { OTHER = \"*\" }",
                Some("variable OTHER is not said"),
            ),
            (
                "job_name = \"docker-*\", ref = \"release/*\", protected = true",
                None,
            ),
            ("job_name = \"docker-*\", ref = \"main\"", Some("ref is")),
        ] {
            let misfits = misfits(&matches(wanted), &payload(JOB));
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
            "variables = { A = \"**\" }",
        ] {
            let misfits = misfits(&matches(wanted), &Payload::default());
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
            let (settings, profile) = applied(settings.clone(), &payload(job));
            assert_eq!(profile.as_deref(), name);
            assert_eq!(settings.rung_wait.as_secs(), minutes * 60);
        }
        let verdicts = verdicts(&settings, &payload(JOB));
        let fit: Vec<_> = verdicts.iter().map(|v| v.misfits.is_empty()).collect();
        assert_eq!(fit, [false, true, true]);
    }
}
