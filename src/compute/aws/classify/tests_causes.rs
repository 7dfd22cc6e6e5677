//! Answers that are decided by a cause deep inside, by a code among the words or by what is missing, and that look like others.

use super::*;

fn stop(reason: &str) -> Verdict {
    task_stopped("TaskFailedToStart", &[reason], reason, "ci-coordinator")
}

#[track_caller]
fn check(cases: &[(&str, &str, Why, &str)]) {
    for (within, words, why, remedy) in cases {
        let verdict = stop(&format!("{within}{words}"));
        assert_eq!(verdict.why, *why, "{within}{words}: {verdict:?}");
        assert!(verdict.remedy.contains(remedy), "{words}: {verdict:?}");
    }
}

const PULL: &str = "CannotPullContainerError: ";
const INIT: &str = "ResourceInitializationError: ";
const SECRETS: &str = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: ";
const LOGS: &str = "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log group: ";
const START: &str = "CannotStartContainerError: ResourceInitializationError: failed to create new container runtime task: failed to create shim task: \
                     OCI runtime create failed: runc create failed: ";
const ENI: &str =
    "Unexpected EC2 error while attempting to Create Network Interface in subnet 'subnet-1': ";

#[test]
fn what_passes_is_not_told_as_something_to_correct() {
    #[rustfmt::skip]
    check(&[
        // A connection that breaks is no full disk, and not every fault of TLS is a certificate's.
        (PULL, "ref pull has been retried 1 time(s): failed to copy: write tcp 10.0.0.1:4567->192.0.2.1:443: write: broken pipe", Why::Registry, "retry"),
        (PULL, "failed to copy: local error: tls: bad record MAC", Why::Registry, "retry"),
        (PULL, "failed to do request: Head \"https://r.example/v2/\": remote error: tls: internal error", Why::Registry, "retry"),
        (PULL, "failed to do request: Head \"https://r.example/v2/\": remote error: tls: handshake failure", Why::Settings, "certificate"),
        // Tasks that start at once make the same log group.
        (LOGS, "OperationAbortedException: A conflicting operation is currently in progress against this resource. Please try again. : exit status 1", Why::Busy, "retry"),
        (LOGS, "ResourceAlreadyExistsException: The specified log group already exists : exit status 1", Why::Busy, "retry"),
        (INIT, "failed to download env files: file download command: non empty error stream: SlowDown: Please reduce your request rate.", Why::Busy, "retry"),
        (SECRETS, "unable to retrieve secrets from ssm: service call has been retried 5 time(s): KMSInternalException: x", Why::Busy, "retry"),
        ("CannotCreateVolumeError: ", "Post http://%2Frun%2Fplugins%2Fx.sock/VolumeDriver.Create: context deadline exceeded", Why::Outage, "retry"),
        ("", "EphemeralStorage provisioning failed.", Why::Other, "does not know"),
        // Hosts that are worn out.
        (START, "unable to join session keyring: unable to create session key: disk quota exceeded: unknown", Why::Outage, "retry"),
        (START, "unable to start container process: error during container init: unable to init seccomp: error loading seccomp filter into kernel: error loading seccomp filter: errno 524: unknown", Why::Outage, "retry"),
        ("CannotStartContainerError: ResourceInitializationError: ", "failed to create new container runtime task: failed to mount rootfs component: invalid argument: unknown", Why::Outage, "retry"),
        ("CannotCreateContainerError: ", "Error response from daemon: Conflict. The container name \"/ecs-ci\" is already in use by container \"abc\".", Why::Outage, "retry"),
        (ENI, "Server.InternalError", Why::Busy, "retry"),
    ]);
}

#[test]
fn what_a_cause_names_is_what_has_to_be_corrected() {
    #[rustfmt::skip]
    check(&[
        (PULL, "ref pull has been retried 1 time(s): failed to extract layer sha256:0a: failed to get stream processor for application/vnd.oci.image.layer.v1.tar+zstd: no processor for media-type: unknown", Why::Image, "compression"),
        (PULL, "a Windows version 10.0.20348-based image is incompatible with a 10.0.17763 host", Why::Image, "runtimePlatform"),
        ("CannotPullContainer: ", "Error response from daemon: manifest for r.example/ci:9 not found", Why::Image, "Push the image"),
        (PULL, "The task can’t find the image. Check whether the image exists.", Why::Image, "Push the image"),
        (INIT, "unable to generate firelens config: unable to apply log options of container ci to fluent config", Why::Settings, "FireLens"),
        (START, "unable to start container process: chdir to cwd (\"/builds\") set in config.json failed: no such file or directory: unknown", Why::Settings, "workingDirectory"),
        ("CannotStartContainerError: ", "Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]]", Why::Settings, "GPU"),
        (START, "error running hook: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy' nvidia-container-cli: initialization error: driver error", Why::Exited, "GPU"),
        ("CannotStartContainerError: ", "failed to create task for container: hcs::CreateComputeSystem abc: The container operating system does not match the host operating system.", Why::Image, "runtimePlatform"),
        (ENI, "SecurityGroupsPerInterfaceLimitExceeded", Why::Settings, "`security_groups`"),
        ("TagPolicyViolation: ", "The tag policy does not allow the specified value for the tag key Env", Why::Settings, "[tags]"),
    ]);
}

#[test]
fn nobody_was_reached_only_where_nothing_else_is_said() {
    let asm = "unable to retrieve secret from asm: service call has been retried 5 time(s): failed to fetch secret arn:aws:secretsmanager:eu-west-1:1:secret:x from secrets manager: ";
    #[rustfmt::skip]
    check(&[
        (SECRETS, "unable to retrieve ecr registry auth: service call has been retried 3 time(s)", Why::Network, "NAT"),
        // Cut off in the code, or before it.
        (SECRETS, &format!("{asm}RequestCanc..."), Why::Network, "NAT"),
        (SECRETS, &format!("{asm}Req..."), Why::Network, "NAT"),
        (SECRETS, &format!("{asm}ResourceNotFoundExcep..."), Why::Settings, "`secrets`"),
        (SECRETS, &format!("{asm}something that nobody has seen"), Why::Other, "does not know"),
        ("ResourceInitializationError: unable to pull secrets or registry auth: ", "pull command failed: panic: runtime error: invalid memory address", Why::Busy, "retry"),
    ]);
}

#[test]
fn a_code_among_the_words_says_what_an_unknown_one_does_not() {
    use Action::{CreateFleet, RunTask};
    #[rustfmt::skip]
    let table: &[(Action, &str, &str, Why, &str)] = &[
        (RunTask, "", "operation error ECS: RunTask, https response error StatusCode: 400, RequestID: 0-1, ClusterNotFoundException: Cluster not found.", Why::Settings, "`cluster`"),
        (RunTask, "", "operation error ECS: RunTask, https response error StatusCode: 400, RequestID: 0-1, ThrottlingException: Rate exceeded", Why::Throttled, "ecs:RunTask"),
        (RunTask, "InvalidParameterException", "Error retrieving subnet information for [subnet-1]: The service is unavailable. Please try again shortly. (ErrorCode: Unavailable)", Why::Outage, "in trouble"),
        (RunTask, "InvalidParameterException", "Request rate exceeded.", Why::Throttled, "ecs:RunTask"),
        (CreateFleet, "LimitExceededException", "Rate exceeded", Why::Throttled, "ec2:CreateFleet"),
        (RunTask, "BrandNewException", "No. (Service: AmazonECS; Status Code: 400; Error Code: PlatformUnknownException; Request ID: b0-1; Proxy: null)", Why::Settings, "platform_version"),
        (RunTask, "ClientException", "Tasks provisioning capacity limit exceeded.", Why::Quota, "capacity provider"),
        (CreateFleet, "", "operation error EC2: CreateFleet, https response error StatusCode: 400, RequestID: x, api error InvalidSubnetID.NotFound: The subnet ID 'subnet-1' does not exist", Why::Settings, "`subnets` under [ec2]"),
        (CreateFleet, "BrandNew", "x (Service: AmazonEC2; Status Code: 500; Error Code: InsufficientInstanceCapacity; Request ID: 1)", Why::NoRoom, "[ec2]"),
        (CreateFleet, "", "We currently do not have sufficient c7i.large capacity in zones with support for 'gp3' volumes.", Why::NoRoom, "[ec2]"),
        (CreateFleet, "InvalidParameter", "Specified security group sg-1 does not exist in VPC vpc-1", Why::Settings, "`security_groups`"),
    ];
    for (action, code, words, why, remedy) in table {
        let verdict = service_error(*action, code, words);
        assert_eq!(verdict.why, *why, "{code} {words}: {verdict:?}");
        assert!(verdict.remedy.contains(remedy), "{words}: {verdict:?}");
    }
    for (words, spot, why) in [
        (
            "Server.InternalError: Internal error on launch",
            false,
            Why::HostGone,
        ),
        (
            "Server.InternalError: Internal error on launch",
            true,
            Why::HostGone,
        ),
        ("Server.InsufficientInstanceCapacity: x", false, Why::NoRoom),
        (
            "Client.InternalError: Client error on launch",
            true,
            Why::Settings,
        ),
    ] {
        assert_eq!(instance_ended("", words, spot).why, why, "{words}");
    }
}

#[test]
fn a_failure_may_be_told_in_the_words_of_an_error() {
    for (reason, detail, why, remedy) in [
        (
            "TaskDefinition is inactive",
            None,
            Why::Settings,
            "revision",
        ),
        (
            "AccessDeniedException",
            Some(
                "User: arn:aws:sts::1:assumed-role/x is not authorized to perform: ecs:RunTask on resource: y because no VPC endpoint policy allows \
                 the ecs:RunTask action",
            ),
            Why::Denied,
            "VPC endpoint",
        ),
        (
            "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task.",
            None,
            Why::Denied,
            "ecs-tasks.amazonaws.com",
        ),
        // The call was answered, and is not sent again.
        (
            "ServerException",
            Some("Please try again later."),
            Why::Busy,
            "retry",
        ),
        ("RequestLimitExceeded", None, Why::Busy, "ecs:RunTask"),
        (
            "something that nobody has seen",
            None,
            Why::Other,
            "does not know",
        ),
    ] {
        let verdict = failure(Action::RunTask, reason, detail);
        assert_eq!(verdict.why, why, "{reason}: {verdict:?}");
        assert!(verdict.remedy.contains(remedy), "{reason}: {verdict:?}");
    }
}

#[test]
fn no_remedy_names_the_other_kinds_table() {
    let of_tasks = [
        calls::TABLE,
        pull::TABLE,
        start::TABLE,
        stops::OF_OTHERS,
        stops::BY_ITSELF,
    ];
    for row in of_tasks.into_iter().flatten() {
        assert!(!row.remedy.contains("[ec2]"), "{}", row.remedy);
    }
    for row in ec2::TABLE {
        for other in ["[fargate]", "task definition"] {
            assert!(!row.remedy.contains(other), "{}", row.remedy);
        }
    }
    // What all services say alike is named for what was asked.
    let codes: Vec<String> = common::TABLE
        .iter()
        .flat_map(Row::codes)
        .map(|code| code.replace('*', ""))
        .collect();
    for action in [
        Action::CreateFleet,
        Action::DescribeInstances,
        Action::SendSshPublicKey,
        Action::GetAuthorizationToken,
        Action::AssumeRole,
    ] {
        for code in &codes {
            let verdict = service_error(action, code, "x");
            assert!(
                !verdict.remedy.contains("[fargate]"),
                "{action:?} {code}: {verdict:?}"
            );
        }
        for text in [
            "connection refused",
            "region must be set",
            "no providers in chain",
        ] {
            let verdict = no_answer(action, text);
            assert!(
                !verdict.remedy.contains("[fargate]"),
                "{action:?} {text}: {verdict:?}"
            );
        }
    }
}
