//! Wordings of the shapes that AWS uses, with names in them that look like other wordings.

use super::*;

fn stop(reason: &str) -> Verdict {
    task_stopped("TaskFailedToStart", &[reason], reason, "ci-coordinator")
}

const PULL: &str = "CannotPullContainerError: ";
const MANIFEST: &str = "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref ";
const INIT: &str = "ResourceInitializationError: ";
const SECRETS: &str = "ResourceInitializationError: unable to pull secrets or registry auth: ";
const START: &str = "CannotStartContainerError: ResourceInitializationError: failed to create new container runtime task: failed to create shim task: \
                     OCI runtime create failed: runc create failed: unable to start container process: ";
const WHO: &str = "User: arn:aws:sts::111122223333:assumed-role/ecsTaskExecutionRole/0123 is not authorized to perform: ";

#[track_caller]
fn check(cases: &[(&str, &str, Why, &str)]) {
    for (within, words, why, remedy) in cases {
        let verdict = stop(&format!("{within}{words}"));
        assert_eq!(verdict.why, *why, "{within}{words}: {verdict:?}");
        assert!(verdict.remedy.contains(remedy), "{words}: {verdict:?}");
    }
}

#[test]
fn an_image_is_judged_by_its_innermost_cause_and_not_by_its_name() {
    #[rustfmt::skip]
    check(&[
        // Names that are wordings.
        (MANIFEST, "r.example/toomanyrequests/no-space-left:1: unexpected status from HEAD request to https://r.example/v2/429/manifests/x509: 502 Bad Gateway", Why::Registry, "retry"),
        (MANIFEST, "r.example/i/o-timeout:denied: r.example/i/o-timeout:denied: not found", Why::Image, "Push the image"),
        (MANIFEST, "r.example/secret/decrypt:1: failed to do request: Head \"https://r.example/v2/secret/decrypt/manifests/1\": EOF", Why::Registry, "retry"),
        // Each way to say the same.
        (PULL, "The task can't pull the image. Check whether the image exists.", Why::Image, "Push the image"),
        (PULL, "The task can't pull the image. Check that the role has the permissions to pull images from the registry.", Why::Image, "execution role"),
        (PULL, "The task cannot pull the image 'a' from the Amazon ECR repository 'b'. There is a connection issue between the task and Amazon ECR. Check your task network configuration.", Why::Network, "NAT"),
        (PULL, "Error response from daemon: manifest for r.example/ci:2 not found: manifest unknown: Requested image not found", Why::Image, "Push"),
        (PULL, "Error response from daemon: Get https://1.dkr.ecr.eu-west-1.amazonaws.com/v2/: net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)", Why::Network, "NAT"),
        (PULL, "API error (500): Get https://1.dkr.ecr.eu-west-1.amazonaws.com/v2/: net/http: request canceled while waiting for connection", Why::Network, "NAT"),
        (PULL, "API error (404): repository 111122223333.dkr.ecr.us-east-1.amazonaws.com/ci not found", Why::Image, "Push"),
        (PULL, "name unknown: The repository with name 'ci' does not exist in the registry with id '111122223333'", Why::Image, "Push"),
        (PULL, "context canceled", Why::Network, "NAT"),
        (PULL, "failed to register layer: write /usr/lib/x: no space left on device", Why::Settings, "ephemeralStorage"),
        (PULL, "Error: failed to copy: httpReadSeeker: failed open: failed to do request: Get \"https://prod-eu-west-1-starport-layer-bucket.s3.amazonaws.com/x\": dial tcp: lookup prod on 10.0.0.2:53: no such host", Why::Network, "s3"),
        (MANIFEST, "docker.io/acme/ci:1: pulling from host registry-1.docker.io failed with status code [manifests 1]: 401 Unauthorized", Why::Image, "repositoryCredentials"),
        (MANIFEST, "r.example/ci:1: failed to authorize: failed to fetch oauth token: unexpected status from POST request to https://r.example/token: 403 Forbidden", Why::Image, "repositoryCredentials"),
        (MANIFEST, "r.example/ci:1: failed to authorize: failed to fetch oauth token: unexpected status from POST request to https://r.example/token: 504 Gateway Timeout", Why::Registry, "retry"),
        (MANIFEST, "r.example/ci:1: failed to do request: Head \"https://r.example/v2/ci/manifests/1\": x509: certificate has expired or is not yet valid: current time is after 2026-01-01T00:00:00Z", Why::Settings, "certificate"),
        (PULL, "ref pull has been retried 1 time(s): failed to copy: read tcp 10.0.0.4:33->192.0.2.7:443: read: connection reset by peer", Why::Registry, "retry"),
        (PULL, "error pulling image configuration: download failed after attempts=6: dial tcp 192.0.2.7:443: i/o timeout.", Why::Network, "NAT"),
        ("CannotPullECRContainerError: ", "ThrottlingException: Rate exceeded", Why::Registry, "limits pulls"),
        ("CannotPullImageManifestError: ", "Error response from daemon: no basic auth credentials", Why::Image, "repositoryCredentials"),
        (PULL, "failed to register layer: devicemapper: Error running deviceResume dm_task_run failed", Why::Outage, "retry"),
        (PULL, "Error response from daemon: error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: \"<html>\"", Why::Image, "repositoryCredentials"),
        (MANIFEST, "r.example/ci:1: failed to do request: Head \"https://r.example/v2/ci/manifests/1\": net/http: TLS handshake timeout", Why::Network, "NAT"),
        (PULL, "Error response from daemon: Get \"https://r.example/v2/\": http: server gave HTTP response to HTTPS client", Why::Settings, "certificate"),
        (PULL, "AssumeRole: ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task", Why::Denied, "ecs-tasks.amazonaws.com"),
        (PULL, "denied: Your authorization token has expired. Reauthenticate and try again.", Why::Registry, "retry"),
        (PULL, "something that nobody has seen", Why::Registry, "retry"),
    ]);
}

#[test]
fn what_comes_before_a_container_is_judged_by_operation_and_cause() {
    let v2 = "operation error Secrets Manager: GetSecretValue, https response error StatusCode: 400, RequestID: 0-1, ";
    let denied = format!(
        "unable to retrieve secret from asm: failed to fetch secret arn:aws:secretsmanager:eu-west-1:1:secret:ci/timeout-x: {v2}api error AccessDeniedException: {WHO}secretsmanager:GetSecretValue on resource: y because no identity-based policy allows the secretsmanager:GetSecretValue action"
    );
    let missing = format!(
        "unable to retrieve secret from asm: failed to fetch secret arn:aws:secretsmanager:eu-west-1:1:secret:access-denied-x: {v2}ResourceNotFoundException: Secrets Manager can't find the specified secret."
    );
    let endpoint = format!(
        "execution resource retrieval failed: unable to retrieve ecr registry auth: AccessDeniedException: {WHO}ecr:GetAuthorizationToken on resource: * because no VPC endpoint policy allows the ecr:GetAuthorizationToken action"
    );
    let far = "The task cannot pull registry auth from Amazon ECR: There is a connection issue between the task and Amazon ECR. Check your task network configuration. operation error ECR: \
               GetAuthorizationToken, exceeded maximum number of attempts, 3, https response error StatusCode: 0, RequestID: , request send failed, Post \"https://api.ecr.eu-west-1.amazonaws.com/\": \
               dial tcp 192.0.2.7:443: i/o timeout";
    #[rustfmt::skip]
    check(&[
        (SECRETS, &denied, Why::Denied, "*execution* role"),
        (SECRETS, &missing, Why::Settings, "`secrets`"),
        (SECRETS, &endpoint, Why::Denied, "policy of the VPC endpoint that the task's subnet"),
        (SECRETS, far, Why::Network, "VPC endpoints"),
        (SECRETS, "unable to retrieve secrets from ssm: The task cannot pull secrets from AWS Systems Manager. There is a connection issue between the task and AWS Systems Manager Parameter Store. Check your task network configuration. canceled, context deadline exceeded", Why::Network, "ssm"),
        (SECRETS, "execution resource retrieval failed: unable to retrieve secrets from ssm: invalid parameters: /ci/ssm-throttling", Why::Settings, "`secrets`"),
        (SECRETS, "execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 1 time(s): invalid character 'h' looking for beginning of value", Why::Settings, "`secrets`"),
        (SECRETS, "unable to retrieve secret from asm: InternalServiceError: An error occurred on the server side.", Why::Busy, "retry"),
        (INIT, "failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log stream: AccessDeniedException: not authorized", Why::Denied, "logs:CreateLogStream"),
        (INIT, "failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log stream: RequestError: send request failed caused by: Post \"https://logs.eu-west-1.amazonaws.com/\": dial tcp 192.0.2.9:443: i/o timeout : exit status 1", Why::Network, "logs"),
        (INIT, "failed to validate logger args: : signal: killed", Why::Network, "logs"),
        (INIT, "failed to invoke EFS utils commands to set up EFS volumes: stderr: Failed to resolve \"fs-1.efs.eu-west-1.amazonaws.com\" - check that your file system ID is correct : unsuccessful EFS utils command execution; code: 1", Why::Network, "DNS"),
        (INIT, "failed to download env files: file download command: non empty error stream: AccessDenied: Access Denied status code: 403, request id: x", Why::Denied, "s3:GetObject"),
        (INIT, "failed to configure ENI: failed to setup regular eni: context deadline exceeded", Why::Busy, "retry"),
        ("", "Fetching secret data from SSM Parameter Store in us-west-2: invalid parameters: /ci/x", Why::Settings, "`secrets`"),
        ("", "Fetching secret data from AWS Secrets Manager in region us-west-2: secret x: AccessDeniedException: Access denied", Why::Denied, "*execution* role"),
        (INIT, "failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist", Why::Settings, "log group"),
        ("", "ECS was unable to assume the role 'arn:aws:iam::1:role/timeout' that was provided for this task. Please verify that the role being passed has the proper trust relationship.", Why::Denied, "ecs-tasks.amazonaws.com"),
        (SECRETS, "The task can't retrieve the secret from AWS Secrets Manager. Check that the task execution role has the permissions to do so.", Why::Denied, "*execution* role"),
        ("", "Fargate Spot capacity is unavailable at this time. Please try again later.", Why::NoRoom, "capacity"),
        ("", "Amazon ECS is performing maintenance on the underlying infrastructure hosting the task", Why::HostGone, "Retry"),
        ("", "Network interface attachment failed", Why::NoRoom, "network interface"),
        ("", "Timed out configuring Amazon EBS volume attachment to your Task.", Why::Busy, "retry"),
        (INIT, "something that nobody has seen", Why::Other, "does not know"),
    ]);
}

#[test]
fn a_container_that_does_not_start_is_judged_by_what_the_runtime_says() {
    #[rustfmt::skip]
    check(&[
        (START, "exec: \"/secret/decrypt\": stat /secret/decrypt: no such file or directory: unknown", Why::Image, "ENTRYPOINT"),
        (START, "exec /entrypoint.sh: exec format error", Why::Image, "runtimePlatform"),
        (START, "error during container init: error setting rlimit type 8: operation not permitted: unknown", Why::Settings, "`ulimits`"),
        (START, "error during container init: error mounting \"/mnt/no-such-user\" to rootfs at \"/cache\": not a directory: unknown", Why::Settings, "mountPoints"),
        ("CannotStartContainerError: ", "Error response from daemon: OCI runtime create failed: container_linux.go:370: starting container process caused \"exec: \\\"sshd\\\": executable file not found in $PATH\": unknown", Why::Image, "ENTRYPOINT"),
        ("CannotStartContainerError: ", "Error response from daemon: linux spec user: unable to find user build: no matching entries in passwd file", Why::Settings, "`user`"),
        ("CannotStartContainerError: ", "Error response from daemon: failed to initialize logging driver: failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist.", Why::Settings, "log group"),
        ("CannotCreateContainerError: ", "Error response from daemon: No command specified", Why::Image, "ENTRYPOINT"),
        ("CannotCreateContainerError: ", "API error (500): devmapper: Thin Pool has 4350 free data blocks which is less than minimum required 4454 free data blocks", Why::Outage, "retry"),
        ("CannotStartContainerError: ", "Error response from daemon: error gathering device information while adding custom device \"/dev/dri/renderD130\": no such file or directory", Why::Settings, "linuxParameters"),
        ("CannotCreateContainerError: ", "API error (400): something that nobody has seen", Why::Exited, "by hand"),
        ("ContainerRuntimeError: ", "failed to create container runtime task", Why::Outage, "retry"),
        ("CannotInspectContainerError: ", "Could not transition to inspecting", Why::Outage, "retry"),
    ]);
}

#[test]
fn what_was_cut_off_at_255_characters_is_still_read() {
    let whole = format!(
        "{MANIFEST}docker.io/{}:1: failed to do request: Head \"https://registry-1.docker.io/v2/acme/ci/manifests/1\": dial tcp 192.0.2.13:443: i/o timeout",
        "x".repeat(60)
    );
    for length in (255..=whole.len()).rev() {
        let cut = &whole[..length];
        // As long as anything of the cause is left.
        if length > whole.find("dial").unwrap() + 6 {
            assert_eq!(stop(cut).why, Why::Network, "{cut}");
            assert_eq!(stop(&format!("{cut}...")).why, Why::Network, "{cut}...");
        }
        assert!(!stop(cut).why.is_final(), "{cut}");
    }
}

#[test]
fn a_reason_that_a_person_gave_is_no_wording() {
    for reason in [
        "CannotPullContainerError: not found",
        "RESOURCE:ENI",
        "x is not authorized to perform: a:B because no session policy allows it",
    ] {
        let verdict = task_stopped("UserInitiated", &[reason], reason, "c");
        assert_eq!(verdict.why, Why::StoppedBySomeone, "{reason}");
    }
}

#[test]
fn a_denial_is_told_as_the_policy_that_it_comes_from_in_every_call() {
    use Action::*;
    let actions = [
        RunTask,
        DescribeTasks,
        StopTask,
        ListTasks,
        AssumeRole,
        DescribeNetworkInterfaces,
        CreateFleet,
        CreateLaunchTemplate,
        DescribeInstances,
        TerminateInstances,
        GetAuthorizationToken,
        SendSshPublicKey,
    ];
    for action in actions {
        let code = if action.is_of_instances() {
            "UnauthorizedOperation"
        } else {
            "AccessDeniedException"
        };
        let name = action.name();
        for (policy, told) in [
            (
                "because no VPC endpoint policy allows the",
                "policy of the VPC endpoint that this host calls AWS through",
            ),
            (
                "because no session policy allows the",
                "session policy that the driver's session was begun with",
            ),
            (
                "because no permissions boundary allows the",
                "permissions boundary of the driver's role",
            ),
            (
                "because no service control policy allows the",
                "service control policy of the organisation",
            ),
            (
                "because no resource control policy allows the",
                "resource control policy of the organisation",
            ),
            (
                "with an explicit deny in a VPC endpoint policy",
                "policy of the VPC endpoint",
            ),
            (
                "with an explicit deny in a session policy",
                "session policy",
            ),
            (
                "with an explicit deny in a service control policy: arn:aws:organizations::1:policy/o-1/service_control_policy/p-1",
                "whoever owns that policy",
            ),
            (
                "with an explicit deny in a permissions boundary",
                "permissions boundary",
            ),
            (
                "with an explicit deny in a resource-based policy",
                "policy of the resource itself",
            ),
            (
                "with an explicit deny in an identity-based policy",
                "explicit Deny",
            ),
        ] {
            let message = format!(
                "User: arn:aws:sts::1:assumed-role/bastion/i-1 is not authorized to perform: {name} on resource: * {policy} {name} action"
            );
            for message in [
                message.clone(),
                format!(
                    "You are not authorized to perform this operation. {message} Encoded authorization failure message: x"
                ),
            ] {
                let verdict = service_error(action, code, &message);
                assert_eq!(verdict.why, Why::Denied, "{message}");
                assert!(
                    verdict.remedy.contains(told) && verdict.remedy.contains(name),
                    "{message}: {}",
                    verdict.remedy
                );
                assert!(
                    !verdict.remedy.contains("Allow the driver's role"),
                    "{}",
                    verdict.remedy
                );
            }
        }
        let none = format!(
            "User: x is not authorized to perform: {name} on resource: * because no identity-based policy allows the {name} action"
        );
        let verdict = service_error(action, code, &none);
        assert_eq!(verdict.why, Why::Denied);
        assert!(
            verdict.remedy.contains("Allow the driver's role"),
            "{}",
            verdict.remedy
        );
    }
}

#[test]
fn codes_that_no_row_names_are_read_by_their_shape() {
    for (code, message, why) in [
        ("InsufficientReservedInstanceCapacity", "x", Why::NoRoom),
        ("InsufficientSomethingNewCapacity", "x", Why::NoRoom),
        ("NewThingLimitExceeded", "x", Why::Quota),
        ("MaxNewThingCountExceeded", "x", Why::Quota),
        ("TagLimitExceeded", "x", Why::Settings),
        (
            "SecurityGroupsPerInterfaceLimitExceeded",
            "x",
            Why::Settings,
        ),
        ("InvalidPlacementGroup.Unknown", "x", Why::Settings),
        ("InvalidCapacityReservationId.NotFound", "x", Why::Settings),
        ("Client.InvalidSubnetID.NotFound", "x", Why::Settings),
        ("Client.RequestLimitExceeded", "x", Why::Throttled),
        ("Server.InsufficientInstanceCapacity", "x", Why::NoRoom),
        ("Server.InternalError", "x", Why::Outage),
        ("Client.UnauthorizedOperation", "x", Why::Denied),
        (
            "InvalidParameterValue",
            "Unsupported data type. The following parameter data types are supported: aws:ec2:image",
            Why::Settings,
        ),
        (
            "SsmInvalidParameter",
            "The following aliases are invalid: /ci/image",
            Why::Settings,
        ),
        (
            "AuthFailure",
            "Not authorized for images: [ami-0123456789abcdef0]",
            Why::Settings,
        ),
        (
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
            Why::Credentials,
        ),
        ("InvalidClientTokenId", "x", Why::Credentials),
        ("InvalidSpotFleetRequestConfig", "x", Why::Settings),
        (
            "InvalidParameterCombination",
            "This AMI does not support the specified instance type. Check DescribeImages for InstanceTypeSpecification, and try again.",
            Why::Settings,
        ),
        (
            "UnsupportedOperation",
            "The instance configuration for this AWS Marketplace product is not supported. Please see http://aws.amazon.com/marketplace/pp?sku=x",
            Why::Settings,
        ),
        (
            "OptInRequired",
            "You are not subscribed to this service. Please go to http://aws.amazon.com to subscribe.",
            Why::Denied,
        ),
        ("SomeNewRateExceeded", "x", Why::Throttled),
        (
            "InvalidParameterValue",
            "Invalid security group ID",
            Why::Settings,
        ),
        (
            "InvalidFleetConfiguration",
            "No instance types match the requirements.",
            Why::Settings,
        ),
        (
            "Unsupported",
            "The requested configuration is currently not supported.",
            Why::Short,
        ),
        (
            "VcpuLimitExceeded",
            "Your vCPU quota is 0 in this Region.",
            Why::Never,
        ),
        ("BrandNew", "x", Why::Other),
    ] {
        let verdict = service_error(Action::CreateFleet, code, message);
        assert_eq!(verdict.why, why, "{code}: {verdict:?}");
    }
    for (code, message, why) in [
        (
            "ClientException",
            "Fargate only supports network mode ‘awsvpc’.",
            Why::Settings,
        ),
        ("ClientException", "Tags can not be empty.", Why::Settings),
        (
            "ClientException",
            "The provided target role is invalid",
            Why::Settings,
        ),
        (
            "ClientException",
            "Your AWS account was suspended",
            Why::Denied,
        ),
        (
            "InvalidParameterException",
            "The provided capacity provider strategy cannot contain a capacity provider that is not associated with the cluster",
            Why::NoSuchProvider,
        ),
        (
            "ClientException",
            "Something that nobody has seen",
            Why::Other,
        ),
    ] {
        let verdict = service_error(Action::RunTask, code, message);
        assert_eq!(verdict.why, why, "{code} {message}: {verdict:?}");
    }
    assert!(tags_refused(
        "InvalidParameterException",
        "Long arn format must be enabled for tagging."
    ));
    let unnamed = fleet_error(
        "UnauthorizedOperation",
        "You are not authorized to perform this operation.",
        "",
        1,
    );
    assert!(
        unnamed.remedy.contains("ec2:RunInstances"),
        "{}",
        unnamed.remedy
    );
    for (code, cause, why) in [
        ("Server.SomethingNew", "x", Why::HostGone),
        ("Client.InvalidBlockDeviceMapping", "x", Why::Settings),
        ("Client.VolumeLimitExceeded", "x", Why::Quota),
        ("Client.SomethingNew", "x", Why::Other),
        (
            "Server.InternalError",
            "Server.InternalError: Client.InvalidKMSKey.InvalidState: The KMS key is disabled",
            Why::Settings,
        ),
        ("Server.SpotInstanceTermination", "x", Why::Interrupted),
    ] {
        let verdict = instance_ended(code, cause, false);
        assert_eq!(verdict.why, why, "{code}: {verdict:?}");
    }
    let ssm = service_error(
        Action::CreateLaunchTemplate,
        "SsmInvalidParameter",
        "Unsupported data type. The following parameter data types are supported: aws:ec2:image",
    );
    assert!(
        ssm.remedy.contains("data type `aws:ec2:image`"),
        "{}",
        ssm.remedy
    );
}

#[test]
fn a_quota_that_one_request_exceeds_is_never_waited_for() {
    let words = |limit: u32| {
        format!(
            "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the specified instance type belongs to."
        )
    };
    for (limit, kind, why) in [
        (0, "c7i.large", Why::Never),
        (32, "c7i.16xlarge", Why::Never),
        (32, "c7i.large", Why::Quota),
    ] {
        let verdict = fleet_error("VcpuLimitExceeded", &words(limit), kind, 1);
        assert_eq!(verdict.why, why, "{limit} {kind}");
        assert!(verdict.remedy.contains("quota"), "{}", verdict.remedy);
    }
    // What is left just now frees up.
    let left = fleet_error(
        "InstanceLimitExceeded",
        "Your quota allows for 0 more running instance(s). You requested at least 1",
        "c7i.large",
        1,
    );
    assert_eq!(left.why, Why::Quota);
}

#[test]
fn each_row_says_where_its_wording_is_from_and_what_helps() {
    let tables = [
        calls::TABLE,
        common::TABLE,
        ec2::TABLE,
        pull::TABLE,
        start::TABLE,
        stops::OF_OTHERS,
        stops::BY_ITSELF,
    ];
    for row in tables.into_iter().flatten() {
        assert!(!row.source.is_empty(), "{row:?}");
        assert!(
            row.remedy.ends_with('.') && !row.remedy.contains("  "),
            "{row:?}"
        );
    }
}
