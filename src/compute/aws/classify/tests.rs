//! The table against wordings that AWS really uses.

use super::*;
use crate::error::Kind;

const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:task-definition/ci-job:7";

fn denied(action: &str, resource: &str) -> String {
    format!(
        "User: arn:aws:sts::123456789012:assumed-role/bastion/i-0abc is not authorized to perform: {action} on \
         resource: {resource} because no identity-based policy allows the {action} action"
    )
}

#[test]
fn errors_of_calls() {
    use Action::{AssumeRole, DescribeNetworkInterfaces, DescribeTasks, RunTask, StopTask};
    let run = denied("ecs:RunTask", ARN);
    let pass = denied(
        "iam:PassRole",
        "arn:aws:iam::123456789012:role/ecsTaskExecutionRole",
    );
    let tag = denied(
        "ecs:TagResource",
        "arn:aws:ecs:eu-west-1:123456789012:task/ci/*",
    );
    let stop = denied(
        "ecs:StopTask",
        "arn:aws:ecs:eu-west-1:123456789012:task/ci/abc",
    );
    let assume = denied("sts:AssumeRole", "arn:aws:iam::123456789012:role/ci-deploy");
    let session = denied("sts:TagSession", "arn:aws:iam::123456789012:role/ci-deploy");
    let eni = format!(
        "You are not authorized to perform this operation. {}",
        denied("ec2:DescribeNetworkInterfaces", "*")
    );
    let scp = "User: arn:aws:sts::1:assumed-role/b/i is not authorized to perform: ecs:RunTask on resource: x with an explicit deny in a service control policy";
    #[rustfmt::skip]
    let table: &[(Action, &str, &str, Why, &str)] = &[
        // Room.
        (RunTask, "ClientException", "Capacity is unavailable at this time. Please try again later or in a different availability zone", Why::NoRoom, "capacity"),
        (RunTask, "InvalidParameterException", "No Container Instances were found in your cluster.", Why::NoDefaultProvider, "capacity"),
        (RunTask, "InvalidParameterException", "No launch type to fall back to for empty capacity provider strategy.", Why::NoDefaultProvider, "capacity"),
        (RunTask, "InvalidParameterException", "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. Associate the capacity provider with the cluster or specify a valid capacity provider and try again.", Why::NoSuchProvider, "put-cluster-capacity-providers"),
        (RunTask, "InvalidParameterException", "The specified capacity provider was not found. Specify a valid capacity provider and try again.", Why::NoSuchProvider, "capacity"),
        (RunTask, "ClientException", "You’ve reached the limit on the number of vCPUs you can run concurrently", Why::Quota, "vCPU quota"),
        (RunTask, "ClientException", "The requested CPU configuration is above your limit", Why::Never, "quota"),
        (RunTask, "LimitExceededException", "The limit for the resource has been exceeded.", Why::Quota, "Service Quotas"),
        // Throttles, some of them wrapped.
        (RunTask, "ThrottlingException", "Rate exceeded", Why::Throttled, "ecs:RunTask"),
        (DescribeTasks, "com.amazonaws.ecs#ThrottlingException", "", Why::Throttled, "ecs:DescribeTasks"),
        (RunTask, "TooManyRequestsException", "Too Many Requests", Why::Throttled, "request_concurrency"),
        (DescribeNetworkInterfaces, "RequestLimitExceeded", "Request limit exceeded.", Why::Throttled, "ec2:DescribeNetworkInterfaces"),
        (RunTask, "InvalidParameterException", "Error retrieving security group information for [sg-05937427457b61ff5]: Request limit exceeded. (ErrorCode: RequestLimitExceeded)", Why::Throttled, "limit"),
        (AssumeRole, "Throttling", "Rate exceeded", Why::Throttled, "sts:AssumeRole"),
        // Denials, each with the action that is missing.
        (RunTask, "AccessDeniedException", &run, Why::Denied, "ecs:RunTask"),
        (RunTask, "AccessDeniedException", &pass, Why::Denied, "iam:PassRole"),
        (RunTask, "AccessDeniedException", &tag, Why::Denied, "ecs:TagResource"),
        (StopTask, "AccessDeniedException", &stop, Why::Denied, "ecs:StopTask"),
        (DescribeTasks, "AccessDeniedException", "", Why::Denied, "ecs:DescribeTasks"),
        (AssumeRole, "AccessDenied", &assume, Why::Denied, "trust policy"),
        (AssumeRole, "AccessDenied", &session, Why::Denied, "sts:TagSession"),
        (DescribeNetworkInterfaces, "UnauthorizedOperation", &eni, Why::Denied, "ec2:DescribeNetworkInterfaces"),
        (RunTask, "AccessDeniedException", scp, Why::Denied, "owns that policy"),
        (RunTask, "ClientException", "ECS was unable to assume the role 'arn:aws:iam::123456789012:role/x' that was provided for this task. Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role.", Why::Denied, "ecs-tasks.amazonaws.com"),
        (RunTask, "InvalidParameterException", "Unable to assume the service linked role. Please verify that the ECS service linked role exists.", Why::Denied, "create-service-linked-role"),
        // Credentials and the clock.
        (RunTask, "ExpiredTokenException", "The security token included in the request is expired", Why::Credentials, "Renew"),
        (AssumeRole, "ExpiredToken", "The security token included in the request is expired", Why::Credentials, "Renew"),
        (RunTask, "UnrecognizedClientException", "The security token included in the request is invalid.", Why::Credentials, "valid credentials"),
        (AssumeRole, "InvalidClientTokenId", "The security token included in the request is invalid.", Why::Credentials, "valid credentials"),
        (RunTask, "InvalidSignatureException", "Signature expired: 20260822T101112Z is now earlier than 20260822T111500Z (20260822T112000Z - 5 min.)", Why::Credentials, "clock"),
        (RunTask, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided.", Why::Credentials, "valid credentials"),
        // What was asked for.
        (RunTask, "ClusterNotFoundException", "Cluster not found.", Why::Settings, "`cluster`"),
        (RunTask, "ClientException", "TaskDefinition not found.", Why::Settings, "`task_definition`"),
        (RunTask, "ClientException", "Unable to describe task definition.", Why::Settings, "`task_definition`"),
        (RunTask, "InvalidParameterException", "TaskDefinition is inactive", Why::Settings, "family alone"),
        (RunTask, "InvalidParameterException", "Task definition does not support launch_type FARGATE.", Why::Settings, "requiresCompatibilities"),
        (RunTask, "InvalidParameterException", "Override for container named ci-coordinator is not a container in the TaskDefinition.", Why::Settings, "`container`"),
        (RunTask, "InvalidParameterException", "Error retrieving subnet information for [subnet-1]: The subnet ID 'subnet-1' does not exist (ErrorCode: InvalidSubnetID.NotFound)", Why::Settings, "`subnets`"),
        (RunTask, "InvalidParameterException", "Error retrieving security group information for [sg-1]: The security group 'sg-1' does not exist (ErrorCode: InvalidGroup.NotFound)", Why::Settings, "`security_groups`"),
        (RunTask, "InvalidParameterException", "Security group sg-1 does not appear to belong to the same VPC as the input subnets.", Why::Settings, "same VPC"),
        (RunTask, "InvalidParameterException", "subnets must belong to the same VPC.", Why::Settings, "same VPC"),
        (RunTask, "InvalidParameterException", "Network Configuration must be provided when networkMode 'awsvpc' is specified.", Why::Settings, "awsvpc"),
        (RunTask, "InvalidParameterException", "Assign public IP is not supported for this launch type.", Why::Settings, "enable_public_ip"),
        (RunTask, "PlatformUnknownException", "The specified platform does not exist.", Why::Settings, "`platform_version`"),
        (RunTask, "PlatformTaskDefinitionIncompatibilityException", "One or more of the requested capabilities are not supported.", Why::Settings, "`platform_version`"),
        (RunTask, "InvalidParameterException", "The platform version must be null when specifying an EC2 launch type.", Why::Settings, "`platform_version`"),
        (RunTask, "InvalidParameterException", "The execute command feature requires you to set a task role", Why::Settings, "ECS Exec"),
        (RunTask, "InvalidParameterException", "Container Overrides length must be at most 8192", Why::Settings, "8,192"),
        (RunTask, "InvalidParameterException", "Something that nobody has seen before", Why::Settings, "[fargate]"),
        (StopTask, "InvalidParameterException", "The referenced task was not found.", Why::NotFound, "does not know this task"),
        (DescribeNetworkInterfaces, "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-1' does not exist", Why::NotFound, "interface"),
        (RunTask, "ConflictException", "The client token was used with other parameters", Why::Conflict, "token"),
        // AWS itself.
        (RunTask, "ServerException", "Service Unavailable. Please try again later.", Why::Outage, "health.aws.amazon.com"),
        (DescribeTasks, "InternalFailure", "", Why::Outage, "health.aws.amazon.com"),
        (DescribeNetworkInterfaces, "Unavailable", "The service is unavailable.", Why::Outage, "health.aws.amazon.com"),
        (RunTask, "BrandNewException", "who knows", Why::Other, "does not know"),
    ];
    for (action, code, message, why, remedy) in table {
        let v = service_error(*action, code, message);
        assert_eq!(v.why, *why, "{code}: {message} -> {v:?}");
        assert!(v.remedy.contains(remedy), "{code}: {message} -> {v:?}");
        assert!(
            v.cause.contains(message.trim()) || message.len() > 600,
            "{v:?}"
        );
        assert_whole(&v);
    }
}

/// A remedy is one sentence that names no placeholder.
fn assert_whole(v: &Verdict) {
    assert!(!v.remedy.contains('{') && v.remedy.ends_with('.'), "{v:?}");
    assert!(!v.cause.contains('\n') && !v.remedy.contains('\n'), "{v:?}");
    assert!(!v.remedy.contains("  "), "{v:?}");
}

#[test]
fn failures_of_calls() {
    #[rustfmt::skip]
    let table: &[(Action, &str, Option<&str>, Why)] = &[
        (Action::RunTask, "RESOURCE:ENI", None, Why::NoRoom),
        (Action::RunTask, "RESOURCE:MEMORY", Some("insufficient memory"), Why::NoRoom),
        (Action::RunTask, "AGENT", None, Why::NoRoom),
        (Action::RunTask, "LOCATION", None, Why::NoRoom),
        (Action::RunTask, "ATTRIBUTE", None, Why::NoRoom),
        (Action::RunTask, "MemberOf placement constraint unsatisfied.", None, Why::NoRoom),
        (Action::RunTask, "EMPTY CAPACITY PROVIDER", None, Why::NoRoom),
        (Action::RunTask, "Capacity is unavailable at this time. Please try again later or in a different availability zone", None, Why::NoRoom),
        (Action::RunTask, "You’ve reached the limit on the number of vCPUs you can run concurrently. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.", None, Why::Quota),
        (Action::DescribeTasks, "MISSING", None, Why::NotFound),
        (Action::RunTask, "SOMETHING NEW", Some("and why"), Why::Other),
    ];
    for (action, reason, detail, why) in table {
        let v = failure(*action, reason, *detail);
        assert_eq!(v.why, *why, "{v:?}");
        assert!(v.cause.starts_with(reason), "{v:?}");
        assert!(detail.is_none_or(|d| v.cause.ends_with(d)), "{v:?}");
        assert_whole(&v);
    }
    assert!(is_missing("MISSING") && !is_missing("AGENT"));
}

#[test]
fn no_answer_is_an_outage_unless_it_is_about_credentials() {
    for (text, why) in [
        (
            "dispatch failure: io error: error trying to connect: tcp connect error: Connection refused",
            Why::Outage,
        ),
        ("request has timed out", Why::Outage),
        (
            "dispatch failure: other: the processor association failed",
            Why::Outage,
        ),
        (
            "the credential provider was not enabled: no providers in chain provided credentials",
            Why::Credentials,
        ),
        (
            "an error occurred while loading credentials: io error: client error (Connect): tcp connect error: Connection refused (os error 111)",
            Why::Outage,
        ),
        (
            "an error occurred while loading credentials: failed to load IMDS session token: dispatch failure: io error: client error (Connect): \
             tcp connect error: Connection refused (os error 111)",
            Why::Credentials,
        ),
        (
            "an error occurred while loading credentials: Error retrieving credentials: external process exited with code exit status: 1",
            Why::Credentials,
        ),
        ("Invalid Configuration: Missing Region", Why::Settings),
    ] {
        let v = no_answer(Action::RunTask, text);
        assert_eq!(v.why, why, "{v:?}");
        assert_eq!(v.cause, text);
        assert_whole(&v);
    }
}

#[test]
fn only_a_refusal_of_the_tags_alone_is_one() {
    let tag = denied("ecs:TagResource", "arn:aws:ecs:eu-west-1:1:task/ci/*");
    assert!(tags_refused("AccessDeniedException", &tag));
    assert!(tags_refused(
        "InvalidParameterException",
        "The new ARN and resource ID format must be enabled to add tags to the task. Opt in to the new format and try again."
    ));
    assert!(!tags_refused(
        "AccessDeniedException",
        &denied("ecs:RunTask", ARN)
    ));
    assert!(!tags_refused(
        "AccessDeniedException",
        &denied("iam:PassRole", "role/ecs:TagResource")
    ));
    assert!(!tags_refused("ThrottlingException", &tag));
    assert!(!tags_refused("InvalidParameterException", "Invalid tag"));
}

#[test]
fn the_denied_action_is_read_from_the_message() {
    for (message, action) in [
        (denied("ecs:RunTask", ARN), Some("ecs:RunTask")),
        ("You are not authorized to perform this operation.".to_owned(), None),
        (
            "You are not authorized to perform this operation. User: x is not authorized to perform: ec2:DescribeNetworkInterfaces because".to_owned(),
            Some("ec2:DescribeNetworkInterfaces"),
        ),
        ("not authorized to perform: logs:CreateLogGroup.".to_owned(), Some("logs:CreateLogGroup")),
        ("perform: perform".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(denied_action(&message), action, "{message}");
    }
}

#[test]
fn a_conflict_names_its_tasks_once() {
    let a = "arn:aws:ecs:eu-west-1:1:task/ci/aaaa";
    let b = "arn:aws:ecs:eu-west-1:1:task/ci/bbbb";
    let message = format!(
        "Tasks [{a}, {b}] were started with this token in arn:aws:ecs:eu-west-1:1:cluster/ci. See {a}."
    );
    assert_eq!(conflict_tasks(&[a.to_owned()], &message), [a, b]);
    assert_eq!(conflict_tasks(&[], "nothing"), Vec::<String>::new());
}

#[test]
fn what_follows_from_a_kind() {
    use Why::*;
    for why in [
        NoRoom,
        Short,
        Quota,
        Never,
        Busy,
        Throttled,
        Outage,
        Denied,
        Credentials,
        NoDefaultProvider,
        NoSuchProvider,
        Image,
        Registry,
        Network,
        Memory,
        Interrupted,
        HostGone,
        StoppedBySomeone,
        Exited,
        NotFound,
        Settings,
        Conflict,
        Other,
    ] {
        assert!(
            !(why.is_final() && (why.is_worth_waiting() || why.hands_over())),
            "{why:?}"
        );
        assert!(!why.repeats_call() || why.is_worth_waiting(), "{why:?}");
    }
    assert!(
        NoRoom.hands_over() && NoSuchProvider.hands_over() && !NoSuchProvider.is_worth_waiting()
    );
    assert!(!Throttled.hands_over() && !Image.hands_over());
    assert!(Never.hands_over() && !Never.is_worth_waiting() && !Never.is_final());
    assert!(Busy.hands_over() && Busy.passes() && !Quota.passes());
}

#[test]
fn a_long_answer_is_cut() {
    let long = "x ".repeat(5000);
    assert!(
        service_error(Action::RunTask, "E", &long)
            .cause
            .chars()
            .count()
            <= MAX_CAUSE
    );
}

#[test]
fn a_verdict_becomes_an_error_with_its_remedy() {
    let e = service_error(Action::RunTask, "ThrottlingException", "Rate exceeded")
        .error(Kind::Launch, "cannot start a task");
    assert_eq!(e.kind(), Kind::Launch);
    assert_eq!(
        e.to_string(),
        "cannot start a task: ThrottlingException: Rate exceeded"
    );
    assert!(e.remedy().is_some_and(|r| r.contains("ecs:RunTask")));
}

proptest::proptest! {
    #[test]
    fn whatever_aws_says_comes_out_on_one_line(code in ".*", words in "(?s).*", detail in "(?s).*") {
        for v in [
            service_error(Action::RunTask, &code, &words),
            failure(Action::RunTask, &code, Some(&detail)),
            no_answer(Action::StopTask, &words),
        ] {
            proptest::prop_assert!(!v.cause.chars().any(char::is_control));
            proptest::prop_assert!(v.cause.chars().count() <= MAX_CAUSE);
            proptest::prop_assert!(!v.remedy.is_empty());
        }
        // Neither may panic, whatever it reads.
        proptest::prop_assert!(!(tags_refused(&code, &words) && words.is_empty()));
        proptest::prop_assert!(conflict_tasks(&[], &words).len() <= words.len());
    }
}
