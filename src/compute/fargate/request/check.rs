//! What AWS would refuse in any account, refused by the name of the key that is wrong. Pure.

use crate::error::{Error, Kind, Result};
use crate::machine::access::Role;
use crate::machine::tags;
use crate::machine::task::{Capacity, TaskRequest};

/// Subnets that one task may name.
const MAX_SUBNETS: usize = 16;
/// Security groups that one task may name.
const MAX_SECURITY_GROUPS: usize = 5;
/// Session tags of one assumed role.
const MAX_SESSION_TAGS: usize = 50;
/// Characters of all container overrides together, the JSON around them included.
const MAX_OVERRIDES: usize = 8192;

/// Refuses what AWS would refuse in any account.
pub(super) fn check(request: &TaskRequest) -> Result<()> {
    let wrong = |what: String, hint: &str| Err(Error::new(Kind::Config, what).hint(hint));
    if blank(&request.task_definition) {
        return wrong(
            "`task_definition` under [fargate] is missing".into(),
            "Set it to a family (its newest revision is taken), family:revision or ARN.",
        );
    }
    if blank(&request.container) {
        return wrong(
            "`container` under [fargate] is empty".into(),
            "Set it to the name of the job's container in the task definition, or leave it out for ci-coordinator.",
        );
    }
    check_list("subnets", &request.subnets, MAX_SUBNETS)?;
    check_list(
        "security_groups",
        &request.security_groups,
        MAX_SECURITY_GROUPS,
    )?;
    if request.subnets.is_empty() {
        return wrong(
            "`subnets` under [fargate] names no subnet (`Subnet` in a Go-driver file)".into(),
            "A task needs at least one; several in different zones find room more often.",
        );
    }
    if request.cluster.as_deref().is_some_and(blank) {
        return wrong(
            "`cluster` under [fargate] is empty".into(),
            "Set it to the cluster's name or ARN, or leave it out for the cluster named default.",
        );
    }
    if let Capacity::Provider(name) = &request.capacity {
        if blank(name) {
            return wrong(
                "a rung of `capacity` names no capacity provider".into(),
                "Write ecs:NAME with the name of one of the cluster's capacity providers.",
            );
        }
        if request.dial_public && !request.capacity.takes_fargate_settings() {
            return wrong(
                format!(
                    "the rung ecs:{name} cannot be dialled at a public address, which `use_public_ip` or \
                     `enable_public_ip` under [fargate] asks for: only Fargate gives one"
                ),
                "Set `use_public_ip = false` and let the bastion reach the subnets, or take this rung out of `capacity`.",
            );
        }
    }
    if request.dial_public && !request.public_ip {
        return wrong(
            "`use_public_ip` under [fargate] asks to dial a public address, and `enable_public_ip` gives none".into(),
            "Set `enable_public_ip = true` as well, or `use_public_ip = false`.",
        );
    }
    check_role(request.access.role.as_ref())?;
    check_derived(request)?;
    let length = overrides_length(request);
    if length > MAX_OVERRIDES {
        return wrong(
            format!(
                "the environment of the container {} takes {length} characters of overrides, and AWS takes \
                 {MAX_OVERRIDES} in all",
                request.container
            ),
            "Pass less by the container's environment; job variables need not be there, scripts bring their own.",
        );
    }
    Ok(())
}

fn check_list(key: &str, items: &[String], most: usize) -> Result<()> {
    if items.len() > most {
        return Err(Error::new(
            Kind::Config,
            format!(
                "`{key}` under [fargate] names {}, and AWS takes at most {most}",
                items.len()
            ),
        )
        .hint(format!("Leave at most {most} in `{key}`.")));
    }
    if items.iter().any(|item| blank(item)) {
        return Err(Error::new(
            Kind::Config,
            format!("`{key}` under [fargate] holds an empty entry"),
        )
        .hint("Take it out, or write the id that was meant."));
    }
    Ok(())
}

fn check_role(role: Option<&Role>) -> Result<()> {
    let Some(role) = role else { return Ok(()) };
    let wrong = |what: String, hint: &str| Err(Error::new(Kind::Config, what).hint(hint));
    if !(role.arn.starts_with("arn:") && role.arn.contains(":role/")) {
        return wrong(
            format!("the role to assume, {}, is no role's ARN", role.arn),
            "Write it like arn:aws:iam::123456789012:role/NAME (`role_arn` under [fargate], or the job's ROLE_ARN).",
        );
    }
    if role.tags.len() > MAX_SESSION_TAGS {
        return wrong(
            format!(
                "SESSION_VARS names {} variables, and AWS takes at most {MAX_SESSION_TAGS} session tags",
                role.tags.len()
            ),
            "Name fewer.",
        );
    }
    if tags::session_name(&role.session_name) != role.session_name {
        return wrong(
            format!(
                "the session name {} of the role to assume is not what AWS takes",
                role.session_name
            ),
            "2 to 64 letters, digits and _=,.@- are taken.",
        );
    }
    // Policies decide by these: made legal silently, one project could pass for another.
    for (key, value) in &role.tags {
        if !tags::is_legal_key(key) || !tags::is_legal_value(value) {
            return wrong(
                format!(
                    "the session tag {key} (from SESSION_VARS) has a value or name that AWS does not take"
                ),
                "At most 256 letters, digits, spaces and _.:/=+-@ are taken: leave this variable out of SESSION_VARS.",
            );
        }
    }
    Ok(())
}

/// What the driver derives itself: wrong only by a bug, yet AWS's words for it would be worse.
fn check_derived(request: &TaskRequest) -> Result<()> {
    let legal = tags::is_legal_started_by(&request.started_by)
        && tags::is_legal_token(&request.token)
        && request.tags.len() <= tags::MAX_TAGS
        && request
            .tags
            .iter()
            .all(|(key, value)| tags::is_legal_key(key) && tags::is_legal_value(value));
    if legal {
        Ok(())
    } else {
        Err(Error::new(
            Kind::Launch,
            "startedBy, the client token or a tag is not what AWS takes; this is a bug of the driver",
        ))
    }
}

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Counts the overrides as AWS does, the JSON around them included.
fn overrides_length(request: &TaskRequest) -> usize {
    let environment: Vec<_> = request
        .environment
        .iter()
        .map(|(name, value)| serde_json::json!({"name": name, "value": value}))
        .collect();
    let mut all = serde_json::json!({
        "containerOverrides": [{"name": request.container, "environment": environment}],
    });
    let size = &request.size;
    if let Some(cpu) = size.cpu {
        all["cpu"] = cpu.to_string().into();
    }
    if let Some(memory) = size.memory {
        all["memory"] = memory.to_string().into();
    }
    if let Some(disk) = size.disk {
        all["ephemeralStorage"] = serde_json::json!({ "sizeInGiB": disk });
    }
    all.to_string().chars().count()
}

#[cfg(test)]
mod tests {
    use super::super::input;
    use super::super::tests::request;
    use super::*;
    use crate::machine::access::Access;

    #[test]
    fn what_aws_would_refuse_is_refused_by_the_name_of_its_key() {
        let many = |n: usize| (0..n).map(|i| format!("x-{i}")).collect::<Vec<_>>();
        let role = |arn: &str, value: &str| Access {
            region: None,
            role: Some(Role {
                arn: arn.into(),
                session_name: "ci".into(),
                tags: vec![("k".into(), value.into())],
            }),
        };
        let arn = "arn:aws:iam::1:role/ci";
        let key = "k".repeat(9000);
        #[rustfmt::skip]
        let cases: Vec<(TaskRequest, &str)> = vec![
            (TaskRequest { task_definition: " ".into(), ..request() }, "`task_definition`"),
            (TaskRequest { container: String::new(), ..request() }, "`container`"),
            (TaskRequest { subnets: vec![], ..request() }, "`subnets`"),
            (TaskRequest { subnets: many(17), ..request() }, "at most 16"),
            (TaskRequest { subnets: vec![String::new()], ..request() }, "`subnets`"),
            (TaskRequest { security_groups: many(6), ..request() }, "at most 5"),
            (TaskRequest { cluster: Some(String::new()), ..request() }, "`cluster`"),
            (TaskRequest { capacity: Capacity::Provider(String::new()), ..request() }, "`capacity`"),
            (TaskRequest { capacity: Capacity::Provider("asg".into()), dial_public: true, ..request() }, "ecs:asg"),
            (TaskRequest { public_ip: false, dial_public: true, ..request() }, "`use_public_ip`"),
            (TaskRequest { environment: vec![("SSH_PUBLIC_KEY".into(), key)], ..request() }, "8192"),
            (TaskRequest { access: role("ci", "v"), ..request() }, "ARN"),
            (TaskRequest { access: role(arn, "a,b"), ..request() }, "SESSION_VARS"),
            (TaskRequest { token: "a b".into(), ..request() }, "token"),
            (TaskRequest { tags: vec![("a,b".into(), "v".into())], ..request() }, "tag"),
        ];
        for (request, named) in cases {
            let e = input(&request).unwrap_err();
            assert!(e.to_string().contains(named), "{named}: {e}");
        }
        assert!(
            input(&TaskRequest {
                subnets: many(16),
                security_groups: many(5),
                ..request()
            })
            .is_ok()
        );
    }

    #[test]
    fn overrides_are_counted_with_the_json_around_them() {
        let empty = overrides_length(&TaskRequest {
            environment: vec![],
            ..request()
        });
        assert_eq!(
            empty,
            r#"{"containerOverrides":[{"environment":[],"name":"ci-coordinator"}]}"#.len()
        );
        let fits = |n: usize| {
            input(&TaskRequest {
                environment: vec![("K".into(), "v".repeat(n))],
                ..request()
            })
            .is_ok()
        };
        let around = empty + r#"{"name":"K","value":""}"#.len();
        assert!(fits(8192 - around) && !fits(8193 - around));
    }
}
