//! Why a resource that carries the driver's tags is believed to be the driver's. Pure.
//!
//! Anybody who may tag can put a fleet and a deadline on anything, by hand or by a tool that copies tags, and `reap` would
//! end it. So each launch's tag `launch` vouches for the tags that decisions are made by: its second half is a digest of
//! its first half and of them. It is no secret and no signature; it keeps honest mistakes from costing a foreign machine.

use crate::machine::tags;

/// The tag that vouches for the others, without the driver's prefix.
pub const LAUNCH: &str = "launch";
/// The tag that AWS alone sets, on what a fleet launches: a copy of an instance's tags does not have it.
const FLEET_ID: &str = "aws:ec2:fleet-id";
/// What is vouched for: all that is decided by.
const VOUCHED: [&str; 5] = ["fleet", "manager", "key", "job", "deadline"];
/// Characters of either half of a token.
const HALF: usize = 32;

/// What AWS says of a resource beside its tags, which nobody else could have said.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A task, with what RunTask was told about who starts it.
    Task(Option<&'a str>),
    /// An instance.
    Instance,
    /// What else AWS makes of a launch, of which it says nothing more.
    Other,
}

/// Returns the token of one launch: the same for the same parts and tags, another for any others. It is the client token,
/// which AWS keeps, and vouches for the tags.
#[must_use]
pub fn token(parts: &[&str], tags: &[(String, String)]) -> String {
    let mut token = tags::client_token(parts);
    token.truncate(HALF);
    let check = check(&token, tags);
    token + &check
}

/// Returns tags with the token that vouches for them.
#[must_use]
pub fn sealed(token: &str, tags: &[(String, String)]) -> Vec<(String, String)> {
    let mut sealed = Vec::with_capacity(tags.len() + 1);
    sealed.push((format!("{}{LAUNCH}", tags::PREFIX), token.to_owned()));
    sealed.extend_from_slice(tags);
    sealed
}

/// Says why a resource with the driver's tags is not believed to be one of the driver's; nothing where it is.
#[must_use]
pub fn doubt(tags: &[(String, String)], kind: Kind<'_>) -> Option<&'static str> {
    let Some(token) = tags::own(tags, LAUNCH) else {
        return Some("it has no tag `launch`");
    };
    // Whatever the bytes are, there is no slice of half a character.
    let fits =
        token.is_ascii() && token.len() == 2 * HALF && token[HALF..] == check(&token[..HALF], tags);
    if !fits {
        return Some("its tag `launch` does not fit its other tags");
    }
    let set_by_aws = |key: &str| tags.iter().any(|(k, v)| k == key && !v.is_empty());
    let manager = tags::own(tags, "manager").unwrap_or_default();
    match kind {
        Kind::Task(by) if by != Some(tags::started_by(manager).as_str()) => {
            Some("who started it is another than its tags say")
        }
        Kind::Instance if !set_by_aws(FLEET_ID) => Some("no fleet has launched it"),
        Kind::Task(_) | Kind::Instance | Kind::Other => None,
    }
}

fn check(half: &str, tags: &[(String, String)]) -> String {
    let mut parts = vec![half];
    parts.extend(VOUCHED.map(|name| tags::own(tags, name).unwrap_or_default()));
    let mut check = tags::client_token(&parts);
    check.truncate(HALF);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::machine::proof::*;

    fn ours() -> Vec<(String, String)> {
        let tags = [
            ("fleet", "f"),
            ("manager", "m"),
            ("key", "k-1"),
            ("job", "1"),
            ("job-name", "n"),
            ("deadline", "100"),
        ];
        let tags = tags.map(|(k, v)| (format!("{}{k}", tags::PREFIX), v.to_owned()));
        sealed(&token(&["m", "k-1", "a", "0"], &tags), &tags)
    }

    fn changed(name: &str, value: &str) -> Vec<(String, String)> {
        let mut tags = ours();
        let key = format!("{}{name}", tags::PREFIX);
        tags.retain(|(k, _)| *k != key);
        tags.push((key, value.to_owned()));
        tags
    }

    #[test]
    fn a_token_is_legal_and_each_launchs_own() {
        let tags = ours();
        let token = |parts: &[&str]| token(parts, &tags);
        assert!(tags::is_legal_token(&token(&["a"])));
        assert_eq!(token(&["a"]), token(&["a"]));
        assert_ne!(token(&["a", "bc"]), token(&["ab", "c"]));
        assert!(tags::is_legal_value(&token(&["a"])));
    }

    #[test]
    fn tags_that_anybody_changed_are_not_believed() {
        assert_eq!(doubt(&ours(), Kind::Other), None);
        // What nothing is decided by may change.
        assert_eq!(doubt(&changed("job-name", "x"), Kind::Other), None);
        for name in VOUCHED {
            assert!(doubt(&changed(name, "x"), Kind::Other).is_some(), "{name}");
        }
        for token in ["", "x", &"a".repeat(64), &"ä".repeat(32), &"ä".repeat(64)] {
            assert!(
                doubt(&changed(LAUNCH, token), Kind::Other).is_some(),
                "{token}"
            );
        }
        assert!(doubt(&ours()[1..], Kind::Other).is_some());
        assert!(doubt(&[], Kind::Other).is_some());
    }

    #[test]
    fn what_aws_alone_says_has_to_fit_as_well() {
        let mut tags = ours();
        assert_eq!(doubt(&tags, Kind::Task(Some("gad-m"))), None);
        assert!(doubt(&tags, Kind::Task(Some("gad-x"))).is_some());
        assert!(doubt(&tags, Kind::Task(None)).is_some());
        assert!(doubt(&tags, Kind::Instance).is_some(), "a copy of all tags");
        tags.push((FLEET_ID.to_owned(), "fleet-1".to_owned()));
        assert_eq!(doubt(&tags, Kind::Instance), None);
    }

    proptest! {
        #[test]
        fn whatever_the_tags_hold_is_an_answer(tags in prop::collection::vec(("(gitlab-aws-driver:)?[a-z]{0,9}", ".{0,80}"), 0..9)) {
            for kind in [Kind::Task(None), Kind::Instance, Kind::Other] {
                prop_assert!(doubt(&tags, kind).is_some());
            }
        }
    }
}
