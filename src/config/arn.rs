//! The ARNs in configurations and job variables: of roles, task definitions and clusters.

/// Returns whether the text is a role's ARN, `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
#[must_use]
pub fn is_role(text: &str) -> bool {
    let Some((service, region, account, resource)) = parts(text) else {
        return false;
    };
    // IAM's characters for paths and names.
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    service == "iam"
        && region.is_empty()
        && is_account(account)
        && resource.strip_prefix("role/").is_some_and(|path| {
            path.split('/')
                .all(|part| !part.is_empty() && part.chars().all(fits))
        })
        && text.len() <= 2048
}

/// Returns the family and the revision of a task definition's ARN,
/// `arn:PARTITION:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION`; the revision may be left out.
#[must_use]
pub fn task_definition(text: &str) -> Option<(&str, Option<&str>)> {
    let (service, region, account, resource) = parts(text)?;
    let region_fits = !region.is_empty()
        && region
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if service != "ecs" || !region_fits || !is_account(account) {
        return None;
    }
    family(resource.strip_prefix("task-definition/")?)
}

/// Returns the family and the revision of `FAMILY` or `FAMILY:REVISION`.
#[must_use]
pub fn family(text: &str) -> Option<(&str, Option<&str>)> {
    let (family, revision) = match text.split_once(':') {
        Some((family, revision)) => (family, Some(revision)),
        None => (text, None),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let digits = |r: &str| !r.is_empty() && r.len() <= 10 && r.bytes().all(|b| b.is_ascii_digit());
    let right = !family.is_empty()
        && family.len() <= 255
        && family.chars().all(fits)
        && revision.is_none_or(digits);
    right.then_some((family, revision))
}

/// Returns region, account and name of a cluster's ARN, `arn:PARTITION:ecs:REGION:ACCOUNT:cluster/NAME`.
#[must_use]
pub fn cluster(text: &str) -> Option<(&str, &str, &str)> {
    let (service, region, account, resource) = parts(text)?;
    let name = resource.strip_prefix("cluster/")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let right = service == "ecs"
        && !region.is_empty()
        && is_account(account)
        && (1..=255).contains(&name.len())
        && name.chars().all(fits);
    right.then_some((region, account, name))
}

/// Splits an ARN: service, region, account, resource.
fn parts(text: &str) -> Option<(&str, &str, &str, &str)> {
    let mut parts = text.splitn(6, ':');
    let arn = parts.next()? == "arn";
    let partition = parts.next()?;
    let right = arn
        && partition.starts_with("aws")
        && partition
            .chars()
            .all(|c| c.is_ascii_lowercase() || c == '-');
    let found = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    right.then_some(found)
}

/// Returns whether the text is the number of an account.
#[must_use]
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_recognised() {
        for role in [
            "arn:aws:iam::111122223333:role/ci",
            "arn:aws-cn:iam::111122223333:role/team/a/ci-x",
            "arn:aws-us-gov:iam::111122223333:role/a+b=c,d.e@f_g",
        ] {
            assert!(is_role(role), "{role}");
        }
        for role in [
            "",
            "ci",
            "arn:aws:iam::1:role/ci",
            "arn:aws:iam::111122223333:user/ci",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam::111122223333:role//ci",
            "arn:aws:iam::111122223333:role/ci\n",
            "arn:aws:iam:eu-west-1:111122223333:role/ci",
            "arn:aws:iam::111122223333:role/x:role/ci-y",
            "ARN:aws:iam::111122223333:role/ci",
            " arn:aws:iam::111122223333:role/ci",
        ] {
            assert!(!is_role(role), "{role}");
        }
    }

    #[test]
    fn task_definitions_are_taken_apart() {
        assert_eq!(family("ci"), Some(("ci", None)));
        assert_eq!(family("ci:7"), Some(("ci", Some("7"))));
        for wrong in [
            "",
            ":1",
            "ci:",
            "ci:x",
            "ci:1:2",
            "ci job",
            "ci/x",
            "ci:99999999999",
        ] {
            assert_eq!(family(wrong), None, "{wrong}");
        }
        let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/ci:7";
        assert_eq!(task_definition(arn), Some(("ci", Some("7"))));
        let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/ci";
        assert_eq!(task_definition(arn), Some(("ci", None)));
        for wrong in [
            "ci:7",
            "arn:1",
            "arn:aws:ecs::111122223333:task-definition/ci",
            "arn:aws:ecs:eu-west-1:111122223333:task/ci",
            "arn:aws:iam:eu-west-1:111122223333:task-definition/ci",
        ] {
            assert_eq!(task_definition(wrong), None, "{wrong}");
        }
    }
}
