//! Who may do what: policies, roles, sessions.

use serde_json::Value;
use serde_json::json;

use super::Lab;
use super::with;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::allowing;
use crate::lab::aws::http;

#[test]
fn only_what_the_policy_allows_is_done() {
    let lab = Lab::bare();
    let account = &lab.account;
    account.allow(&["ecs:RunTask", "ecs:Stop*"]);
    let request = lab.request();
    let task = lab.run_task(&request);
    let tagged = with(&request, "tags", json!([{ "key": "a", "value": "b" }]));
    let refusal = lab.refused("RunTask", &tagged);
    assert_eq!(refusal["__type"], "AccessDeniedException");
    let expected = format!(
        "User: {} is not authorized to perform: ecs:TagResource on resource: arn:aws:ecs:{}:{}:task/{CLUSTER}/* \
         because no identity-based policy allows the ecs:TagResource action",
        account.user(),
        account.region(),
        account.id()
    );
    assert_eq!(refusal["message"], expected);
    let look = json!({ "cluster": CLUSTER, "tasks": [task] });
    let refusal = lab.refused("DescribeTasks", &look);
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains(&task), "{message}");
    lab.refused("ListTasks", &json!({ "cluster": CLUSTER }));
    lab.refused("DescribeClusters", &json!({ "clusters": [CLUSTER] }));
    let form = "Action=DescribeNetworkInterfaces&Version=2016-11-15";
    let answer = account.query("ec2", None, form).unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("<Code>UnauthorizedOperation</Code>"));
    lab.stop(&task, "");
    account.policy(&Value::Null);
    lab.ecs("DescribeTasks", &look);
}

#[test]
fn resources_conditions_and_passed_roles_count() {
    let lab = Lab::bare();
    let account = &lab.account;
    let (id, region) = (account.id(), account.region());
    let definition = format!("arn:aws:ecs:{region}:{id}:task-definition/ci-*");
    let cluster = format!("arn:aws:ecs:{region}:{id}:cluster/{CLUSTER}");
    let role = format!("arn:aws:iam::{id}:role/job");
    let document = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "ecs:RunTask", "Resource": definition,
          "Condition": { "ArnEquals": { "ecs:cluster": cluster } } },
        { "Effect": "Allow", "Action": "ecs:TagResource", "Resource": "*",
          "Condition": { "StringEquals": { "ecs:CreateAction": "RunTask" } } },
        { "Effect": "Allow", "Action": "iam:PassRole", "Resource": role,
          "Condition": { "StringLike": { "iam:PassedToService": "ecs-tasks.*" } } },
        { "Effect": "Allow", "Action": "ecs:StopTask", "Resource": "*" },
        { "Effect": "Deny", "Action": "ecs:StopTask", "Resource": "*",
          "Condition": { "ArnLike": { "ecs:cluster": "*:cluster/kept" } } },
    ] });
    account.policy(&document);
    account.cluster("kept", &[], &[]);
    account.task_definition("ci-plain");
    for (family, name) in [("ci-role", "job"), ("ci-other", "admin")] {
        account.register(&json!({
            "family": family,
            "taskRoleArn": format!("arn:aws:iam::{id}:role/{name}"),
            "containerDefinitions": [{ "name": "ci-coordinator", "image": "lab" }],
        }));
    }
    let of = |family: &str| with(&lab.request(), "taskDefinition", json!(family));
    lab.refused("RunTask", &of("job"));
    lab.refused("RunTask", &with(&of("ci-plain"), "cluster", json!("kept")));
    let refusal = lab.refused("RunTask", &of("ci-other"));
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains("iam:PassRole on resource"), "{message}");
    let tags = json!([{ "key": "a", "value": "b" }]);
    let tasks = [
        lab.run_task(&of("ci-plain")),
        lab.run_task(&with(&of("ci-role"), "tags", tags)),
    ];
    let kept = json!({ "cluster": "kept", "task": "0".repeat(32) });
    let refusal = lab.refused("StopTask", &kept);
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains("with an explicit deny"), "{message}");
    for task in tasks {
        lab.stop(&task, "");
    }
}

#[test]
fn a_role_is_assumed_with_tags() {
    let lab = Lab::bare();
    let account = &lab.account;
    account.allow(&["sts:AssumeRole"]);
    let role = account.role("ci-job", Some(&allowing(&["ecs:ListTasks"])));
    let form = |tags: &str| {
        format!("Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=job-7{tags}")
    };
    let ask = |form: &str| account.query("sts", None, form).unwrap();
    let tag = "&Tags.member.1.Key=CI_PROJECT_ID&Tags.member.1.Value=5";
    let refused = ask(&form(tag));
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("sts:TagSession"),
        "{}",
        refused.text()
    );
    account.allow(&["sts:AssumeRole", "sts:TagSession"]);
    assert_eq!(
        ask(&form(tag).replace("role/ci-job", "role/other")).status,
        403
    );
    assert_eq!(ask(&form(tag).replace("job-7", "job 7")).status, 400);
    assert_eq!(
        ask(&form("&Tags.member.1.Key=a&Tags.member.1.Value=a,b")).status,
        400
    );
    let assumed = ask(&form(tag));
    assert_eq!(assumed.status, 200, "{}", assumed.text());
    let session = &account.state().sessions[0];
    assert_eq!(
        (session.role.as_str(), session.name.as_str()),
        (role.as_str(), "job-7")
    );
    assert_eq!(session.tags["CI_PROJECT_ID"], "5");

    // A session may do what its role may, and only with its token.
    let text = assumed.text();
    let key = inner(&text, "AccessKeyId");
    let token = inner(&text, "SessionToken");
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    let known = account.query("sts", Some((&key, &token)), who).unwrap();
    assert!(inner(&known.text(), "Arn").ends_with(":assumed-role/ci-job/job-7"));
    let unknown: Vec<http::Answer> = [(key.as_str(), "x"), ("AKIANOBODY", "")]
        .into_iter()
        .map(|key| account.query("sts", Some(key), who).unwrap())
        .collect();
    assert!(unknown.iter().all(|answer| answer.status == 403));
    let call = account.calls("GetCallerIdentity").pop().unwrap();
    assert!(call.caller.ends_with(":assumed-role/ci-job/job-7"));
    let mine = account.query("sts", None, who).unwrap();
    assert_eq!(inner(&mine.text(), "Account"), account.id());
}

fn inner(xml: &str, tag: &str) -> String {
    let after = xml.split_once(&format!("<{tag}>")).unwrap().1;
    after.split_once('<').unwrap().0.to_owned()
}
