//! Which `[[profile]]` a job falls under: by the trusted payload alone, which no variable of the job can shadow.

use super::payload::Payload;
use crate::config::pattern;
use crate::config::settings::{Match, Profile, Settings};

/// What parts a project's path, and so ends what one `*` may stand for.
const OF_PATHS: &[char] = &['/'];

/// Returns the first profile that holds for a job.
#[must_use]
pub fn first<'a>(settings: &'a Settings, payload: &Payload) -> Option<&'a Profile> {
    let mut profiles = settings.profiles.iter();
    profiles.find(|profile| holds(&profile.matches, payload))
}

/// All that is named must fit; what the payload does not say fits nothing.
fn holds(wanted: &Match, payload: &Payload) -> bool {
    let fits = |pattern: &Option<String>, text: &Option<String>, separators: &[char]| {
        let Some(pattern) = pattern else { return true };
        text.as_ref()
            .is_some_and(|text| pattern::fits(pattern, text, separators))
    };
    fits(&wanted.job_name, &payload.job_name, &[])
        && fits(&wanted.project, &payload.project_path, OF_PATHS)
        && wanted
            .protected
            .is_none_or(|protected| payload.protected == Some(protected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(name: &str, path: &str, protected: Option<bool>) -> Payload {
        let mut payload = Payload::default();
        payload.job_name = Some(name.to_owned());
        payload.project_path = Some(path.to_owned());
        payload.protected = protected;
        payload
    }

    #[test]
    fn all_that_is_named_must_fit() {
        let wanted = Match {
            job_name: Some("docker-*".to_owned()),
            project: Some("group/**".to_owned()),
            protected: Some(true),
        };
        assert!(holds(
            &wanted,
            &payload("docker-a/b", "group/sub/p", Some(true))
        ));
        for other in [
            payload("lint", "group/sub/p", Some(true)),
            payload("docker-a", "other/p", Some(true)),
            payload("docker-a", "group/p", Some(false)),
            payload("docker-a", "group/p", None),
            Payload::default(),
        ] {
            assert!(!holds(&wanted, &other), "{other:?}");
        }
    }

    #[test]
    fn one_star_ends_at_a_slash_of_a_path() {
        let wanted = Match {
            project: Some("group/*".to_owned()),
            ..Match::default()
        };
        assert!(holds(&wanted, &payload("x", "group/p", None)));
        assert!(!holds(&wanted, &payload("x", "group/sub/p", None)));
    }
}
