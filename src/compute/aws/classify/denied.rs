//! The sentence by which AWS says that something is not allowed: what, and which policy it was that did not allow it. Pure.
//!
//! Its form is the one of IAM's user guide ("Troubleshoot access denied error messages"): *User: … is not authorized to perform: ACTION on
//! resource: … because no KIND allows the ACTION action*, or *… with an explicit deny in a KIND*. Older services leave parts of it out.

use super::words::may_be_cut;

/// What begins the sentence.
const PHRASE: &str = "not authorized to perform";

/// A kind of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Of the caller's own role or user.
    Identity,
    /// Of the resource: a repository, a key, a secret.
    Resource,
    Boundary,
    ServiceControl,
    ResourceControl,
    Session,
    Endpoint,
    Trust,
}

/// Shorter beginnings of a kind are not taken for it.
const SHORTEST_STUMP: usize = 3;

/// Kinds as AWS names them, in lower case.
const KINDS: [(&str, Policy); 9] = [
    ("identity-based policy", Policy::Identity),
    ("resource-based policy", Policy::Resource),
    ("permissions boundary", Policy::Boundary),
    ("service control policy", Policy::ServiceControl),
    ("resource control policy", Policy::ResourceControl),
    ("session policy", Policy::Session),
    ("vpc endpoint policy", Policy::Endpoint),
    ("role trust policy", Policy::Trust),
    ("trust policy", Policy::Trust),
];

/// What one such sentence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denial<'a> {
    /// What may not be done; none where AWS does not name it.
    pub(super) action: Option<&'a str>,
    /// The policy that did not allow it.
    pub(super) policy: Option<Policy>,
    /// Whether a statement forbids it, rather than that none allows it.
    pub(super) explicit: bool,
}

impl<'a> Denial<'a> {
    /// Reads the first such sentence of a text.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut rest = text;
        let mut found: Option<Self> = None;
        while let Some((_, after)) = rest.split_once(PHRASE) {
            rest = after;
            let action = action(after);
            // EC2 begins with "You are not authorized to perform this operation.", and says what later on.
            if action.is_some() || found.is_none() {
                let (policy, explicit) = reason(after, may_be_cut(text));
                found = Some(Self {
                    action,
                    policy,
                    explicit,
                });
            }
            if action.is_some() {
                break;
            }
        }
        found
    }

    /// Returns what to do about a policy that is not the caller's own list of what it may do. `by` is what makes the call.
    pub(super) fn remedy(&self, by: Caller, action: &str) -> Option<String> {
        let Caller {
            role,
            endpoint,
            session,
        } = by;
        Some(match (self.policy, self.explicit) {
            (Some(Policy::Endpoint), _) => format!(
                "The role may do it; the policy of the VPC endpoint that {endpoint} calls AWS through does not allow {action}: add it there."
            ),
            (Some(Policy::Session), _) => format!(
                "The role may do it; the session policy that {session} was begun with does not allow {action}: add it there, where the \
                 credentials are made."
            ),
            (Some(Policy::Boundary), _) => format!(
                "The permissions boundary of {role} does not allow {action}: take it to whoever owns that policy."
            ),
            (Some(Policy::ServiceControl), _) => format!(
                "A service control policy of the organisation does not allow {action} in this account: take it to whoever owns that policy."
            ),
            (Some(Policy::ResourceControl), _) => format!(
                "A resource control policy of the organisation does not allow {action} on this resource: take it to whoever owns that policy."
            ),
            (Some(Policy::Resource), true) => format!(
                "The policy of the resource itself (the repository, key, secret or bucket) forbids {action}: take its Deny out, or have \
                 it spare {role}."
            ),
            (Some(Policy::Identity), true) => {
                format!("A policy of {role} has an explicit Deny for {action}: take it out.")
            }
            (None, true) => format!(
                "A deny above the role's own policies (service control policy, permissions boundary, explicit Deny) forbids {action}: take it to \
                 whoever owns that policy."
            ),
            // What allows it has to be added: that depends on what it is.
            (Some(Policy::Identity | Policy::Resource | Policy::Trust) | None, _) => return None,
        })
    }
}

/// Who makes a call, as remedies name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    role: &'static str,
    endpoint: &'static str,
    session: &'static str,
}

/// The driver.
pub(super) const DRIVER: Caller = Caller {
    role: "the driver's role",
    endpoint: "this host",
    session: "the driver's session",
};

/// What ECS does for a task before it starts.
pub(super) const TASK: Caller = Caller {
    role: "the task's *execution* role",
    endpoint: "the task's subnet",
    session: "the task's session",
};

/// Reads the action that follows.
fn action(after: &str) -> Option<&str> {
    let word = after
        .trim_start_matches(':')
        .split_whitespace()
        .next()?
        .trim_matches(['.', ',', ';', '"', '\'', '`']);
    let (service, action) = word.split_once(':')?;
    let name = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (name(service) && name(action)).then_some(word)
}

/// Reads which policy it was. What was cut off within its name is known by what is left, where that is enough.
fn reason(after: &str, cut: bool) -> (Option<Policy>, bool) {
    let lower = after.to_lowercase();
    let kind = |text: &str| {
        let article = ["an ", "a ", "the "]
            .iter()
            .find_map(|article| text.strip_prefix(article))
            .unwrap_or(text);
        let named = KINDS.iter().find(|(name, _)| article.starts_with(name));
        let stump = article.trim_end_matches(['.', '…']);
        let rest = |(name, _): &&(&str, Policy)| {
            cut && stump.len() >= SHORTEST_STUMP && name.starts_with(stump)
        };
        let named = named.or_else(|| match KINDS.iter().filter(rest).collect::<Vec<_>>()[..] {
            [one] => Some(one),
            _ => None,
        });
        named.map(|(_, policy)| *policy)
    };
    if let Some((_, rest)) = lower.split_once("with an explicit deny") {
        let policy = rest.trim_start().strip_prefix("in ").and_then(kind);
        return (policy, true);
    }
    let implicit = lower.split_once("because no ");
    (implicit.and_then(|(_, rest)| kind(rest)), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: &str = "User: arn:aws:sts::111122223333:assumed-role/because no session policy/i-1 is not authorized to perform";

    #[test]
    fn each_kind_of_policy_is_read_in_both_forms() {
        for (name, policy) in KINDS {
            let shown = name.replace("vpc", "VPC");
            let implicit = format!(
                "{WHO}: ecs:RunTask on resource: x because no {shown} allows the ecs:RunTask action"
            );
            let read = Denial::read(&implicit).unwrap();
            assert_eq!(read.action, Some("ecs:RunTask"));
            assert_eq!(
                (read.policy, read.explicit),
                (Some(policy), false),
                "{name}"
            );
            let explicit =
                format!("{WHO} ecs:RunTask with an explicit deny in a {shown}: arn:aws:x");
            let read = Denial::read(&explicit).unwrap();
            assert_eq!((read.policy, read.explicit), (Some(policy), true), "{name}");
        }
        let text = format!("{WHO}: ecs:RunTask with an explicit deny");
        let bare = Denial::read(&text).unwrap();
        assert_eq!((bare.policy, bare.explicit), (None, true));
        assert!(bare.remedy(DRIVER, "x").is_some());
        assert_eq!(Denial::read("Access denied"), None);
    }

    #[test]
    fn a_kind_that_was_cut_off_is_known_by_what_is_left() {
        for (left, policy) in [
            ("VPC endpo...", Some(Policy::Endpoint)),
            ("sess…", Some(Policy::Session)),
            ("resource-b...", Some(Policy::Resource)),
            ("resource...", None),
            ("VP...", None),
            ("VPC endpo", None),
        ] {
            let text = format!("{WHO}: ecs:RunTask on resource: x because no {left}");
            let read = Denial::read(&text).unwrap();
            assert_eq!((read.policy, read.explicit), (policy, false), "{left}");
        }
    }

    #[test]
    fn what_is_denied_is_read_behind_the_general_sentence() {
        let text = format!(
            "You are not authorized to perform this operation. {WHO}: iam:PassRole on resource: x because no identity-based policy allows it"
        );
        let read = Denial::read(&text).unwrap();
        assert_eq!(
            (read.action, read.policy),
            (Some("iam:PassRole"), Some(Policy::Identity))
        );
        let general = Denial::read("You are not authorized to perform this operation.").unwrap();
        assert_eq!((general.action, general.policy), (None, None));
    }
}
