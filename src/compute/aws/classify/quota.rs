//! Whether a quota is one that a request exceeds all by itself, so that no waiting helps. Pure.
//!
//! EC2's sentence has a fixed form: *You have requested more … (N) than your current … limit of LIMIT allows for …*. A limit
//! of 0 is exceeded by anything, whatever the sentence. (What is merely left just now, *Your quota allows for 0 more running
//! instance(s)*, frees up as machines end.)

/// How a limit is named.
const LIMITS: [&str; 4] = ["limit of ", "quota of ", "limit is ", "quota is "];

/// Whether a message names such a quota for one instance of that type, which has at least so many vCPUs.
pub(super) fn is_exceeded_alone(message: &str, kind: &str, least: u64) -> bool {
    let lower = message.to_lowercase();
    let none = |name: &str| {
        let mut limits = lower.match_indices(name);
        limits.any(|(at, _)| number(&lower[at + name.len()..]) == Some(0))
    };
    if LIMITS.iter().any(|name| none(name)) {
        return true;
    }
    let Some((asked, rest)) = lower.split_once(" than your current ") else {
        return false;
    };
    let Some((of, rest)) = rest.split_once("limit of ") else {
        return false;
    };
    let Some(limit) = number(rest) else {
        return false;
    };
    let named = asked.rsplit_once('(').and_then(|(_, n)| number(n));
    let needs = match of.contains("vcpu") {
        true => vcpus(kind).max(least),
        false => 1,
    };
    limit < named.unwrap_or(needs)
}

/// Reads the number that a text begins with.
fn number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == ','));
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    // No part of another number or word.
    let mut after = rest.chars();
    let goes_on = match after.next() {
        Some('.') => after.next().is_some_and(|c| c.is_ascii_digit()),
        next => next.is_some_and(char::is_alphanumeric),
    };
    if goes_on {
        return None;
    }
    digits.replace(',', "").parse().ok()
}

/// Returns the least number of vCPUs of a type, by AWS's names for sizes.
fn vcpus(kind: &str) -> u64 {
    let size = kind.split_once('.').map_or("", |(_, size)| size);
    match size.strip_suffix("xlarge") {
        Some("") => 4,
        Some(times) => times.parse::<u64>().map_or(4, |times| times * 4),
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_exceeded_alone_where_it_is_smaller_than_one_request() {
        let vcpu = |limit: &str| {
            format!(
                "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the \
                 specified instance type belongs to."
            )
        };
        for (message, kind, exceeded) in [
            (vcpu("0"), "m7i.large", true),
            (vcpu("0"), "", true),
            (vcpu("32"), "m7i.large", false),
            (vcpu("32"), "m7i.16xlarge", true),
            (vcpu("64"), "m7i.16xlarge", false),
            (vcpu("1,280"), "m7i.48xlarge", false),
            (vcpu("2"), "c7i.xlarge", true),
            (vcpu("many"), "c7i.xlarge", false),
            (
                "You have requested more instances (1) than your current instance limit of 0 allows for the specified instance type.".into(),
                "p5.48xlarge",
                true,
            ),
            (
                "You have requested more instances (1) than your current instance limit of 20 allows for the specified instance type.".into(),
                "p5.48xlarge",
                false,
            ),
            ("Your quota allows for 0 more running instance(s). You requested at least 1".into(), "c7i.large", false),
            ("You have exceeded the limit".into(), "c7i.large", false),
            ("Your account's vCPU quota is 0 in this Region.".into(), "c7i.large", true),
            ("You have reached the limit of 0 Spot instances.".into(), "", true),
            ("You have reached the limit of 0.5 of it".into(), "", false),
            ("You have reached the limit of 05".into(), "", false),
        ] {
            assert_eq!(is_exceeded_alone(&message, kind, 1), exceeded, "{message} {kind}");
        }
        // Where AWS names no type the job may have said how large it has to be.
        assert!(is_exceeded_alone(&vcpu("32"), "", 64) && !is_exceeded_alone(&vcpu("32"), "", 32));
    }
}
