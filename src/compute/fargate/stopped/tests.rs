//! Stop reasons that AWS really uses.

use std::time::{Duration, UNIX_EPOCH};

use super::super::task::{Phase, Stop};
use super::*;

fn assert_whole(v: &Verdict) {
    assert!(!v.remedy.contains('{') && v.remedy.ends_with('.'), "{v:?}");
    assert!(!v.cause.contains('\n') && !v.remedy.contains('\n'), "{v:?}");
    assert!(!v.remedy.contains("  "), "{v:?}");
}

fn task(code: &str, reason: &str, containers: &[(&str, Option<i32>, &str)]) -> Task {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    Task {
        phase: Phase::Stopped,
        stop: Some(Stop {
            code: text(code),
            reason: text(reason),
            containers: containers
                .iter()
                .map(|(name, exit_code, reason)| Container {
                    name: (*name).to_owned(),
                    exit_code: *exit_code,
                    reason: text(reason),
                })
                .collect(),
        }),
        ..Task::default()
    }
}

/// stopCode, stoppedReason, the container's exit code and reason; what it is, and a part of the remedy.
type StopCase<'a> = (&'a str, &'a str, Option<i32>, &'a str, Why, &'a str);

#[test]
fn stop_reasons() {
    #[rustfmt::skip]
    let table: &[StopCase<'_>] = &[
        // Room that turned out not to be there.
        ("TaskFailedToStart", "Capacity is unavailable at this time. Please try again later or in a different availability zone", None, "", Why::NoRoom, "capacity"),
        ("TaskFailedToStart", "Timeout waiting for network interface provisioning to complete.", None, "", Why::NoRoom, "network interface"),
        ("TaskFailedToStart", "Network interface provision complete error timeout wait for network interface provision.", None, "", Why::NoRoom, "network interface"),
        ("TaskFailedToStart", "Rate limit exceeded while preparing network interface to be attached to instance", None, "", Why::NoRoom, "network interface"),
        ("TaskFailedToStart", "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet 'subnet-1': InsufficientFreeAddressesInSubnet", None, "", Why::Short, "subnets"),
        ("TaskFailedToStart", "Unexpected EC2 error while attempting to Create Network Interface: insufficient free addresses in subnet", None, "", Why::Short, "subnets"),
        ("TaskFailedToStart", "Unexpected EC2 error while attempting to tag the network interface: TagPolicyViolation", None, "", Why::Settings, "tag policy"),
        ("TaskFailedToStart", "RESOURCE:ENI", None, "", Why::NoRoom, ""),
        ("TaskFailedToStart", "RESOURCE:CPU", None, "", Why::NoRoom, "scale"),
        ("TaskFailedToStart", "AGENT", None, "", Why::NoRoom, "agent"),
        ("TaskFailedToStart", "ATTRIBUTE", None, "", Why::NoRoom, "ecs.capability.task-eni"),
        ("TaskFailedToStart", "EMPTY CAPACITY PROVIDER", None, "", Why::NoRoom, "Auto Scaling"),
        // Images.
        ("TaskFailedToStart", "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref docker.io/acme/ci:gone: docker.io/acme/ci:gone: not found", None, "", Why::Image, "Push the image"),
        ("TaskFailedToStart", "Task failed to start", None, "CannotPullContainerError: inspect image has been retried 1 time(s): failed to resolve ref \"1.dkr.ecr.eu-west-1.amazonaws.com/ci:1\": unexpected status code [manifests 1]: 403 Forbidden", Why::Image, "ecr:BatchGetImage"),
        ("TaskFailedToStart", "CannotPullContainerError: pull access denied for acme/ci, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", None, "", Why::Image, "repositoryCredentials"),
        ("TaskFailedToStart", "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref quay.io/acme/ci:latest: failed to do request: Head \"https://quay.io/v2/acme/ci/manifests/latest\": dial tcp 3.210.148.47:443: i/o timeout", None, "", Why::Network, "NAT gateway"),
        ("TaskFailedToStart", "CannotPullContainerError: The task cannot pull 1.dkr.ecr.eu-west-1.amazonaws.com/ci:1 from the registry 1.dkr.ecr.eu-west-1.amazonaws.com/ci:1. There is a connection issue between the task and the registry. Check your task network configuration.", None, "", Why::Network, "ecr.dkr"),
        ("TaskFailedToStart", "CannotPullContainerError: pull image manifest has been retried 5 time(s): image Manifest does not contain descriptor matching platform 'linux/amd64'", None, "", Why::Image, "runtimePlatform"),
        ("TaskFailedToStart", "CannotPullContainerError: failed to find a descriptor for platform {linux/amd64}", None, "", Why::Image, "runtimePlatform"),
        ("TaskFailedToStart", "CannotPullContainerError: ref pull has been retried 1 time(s): failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/rust/manifests/sha256:de6e: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.", None, "", Why::Registry, "pull-through cache"),
        ("TaskFailedToStart", "CannotPullContainerError: ref pull has been retried 1 time(s): failed to extract layer: write /var/lib: no space left on device", None, "", Why::Settings, "ephemeralStorage"),
        ("TaskFailedToStart", "CannotPullContainerError: ref pull has been retried 1 time(s): unexpected EOF", None, "", Why::Registry, "retry"),
        // What comes before a container.
        ("TaskFailedToStart", "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve ecr registry auth: service call has been retried 3 time(s): RequestError: send request failed caused by: Post \"https://api.ecr.eu-west-1.amazonaws.com/\": dial tcp 10.0.0.1:443: i/o timeout. Please check your task network configuration.", None, "", Why::Network, "VPC"),
        ("TaskFailedToStart", "ResourceInitializationError: unable to pull secrets or registry auth: pull command failed: : signal: killed", None, "", Why::Network, "VPC"),
        ("TaskFailedToStart", "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 1 time(s): AccessDeniedException: User: arn:aws:sts::1:assumed-role/exec/x is not authorized to perform: secretsmanager:GetSecretValue on resource: token", None, "", Why::Denied, "*execution* role"),
        ("TaskFailedToStart", "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 1 time(s): retrieved secret from Secrets Manager did not contain json key TOKEN", None, "", Why::Settings, "`secrets`"),
        ("TaskFailedToStart", "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist.", None, "", Why::Settings, "log group"),
        ("TaskFailedToStart", "ResourceInitializationError: failed to create Cloudwatch log group: AccessDeniedException: not authorized to perform: logs:CreateLogGroup", None, "", Why::Denied, "*execution* role"),
        ("TaskFailedToStart", "ResourceInitializationError: failed to invoke EFS utils commands to set up EFS volumes: stderr: b'mount.nfs4: Connection reset by peer' : unsuccessful EFS utils command execution; code: 32", None, "", Why::Network, "2049"),
        ("TaskFailedToStart", "Task failed to start", None, "CannotStartContainerError: Error response from daemon: OCI runtime create failed: exec: \"/entry.sh\": executable file not found in $PATH", Why::Image, "ENTRYPOINT"),
        ("TaskFailedToStart", "Task failed to start", None, "CannotStartContainerError: exec /entry.sh: exec format error", Why::Image, "runtimePlatform"),
        ("TaskFailedToStart", "ContainerRuntimeTimeoutError: Could not transition to running; timed out after waiting 1m", None, "", Why::Outage, "retry"),
        // Running, then not.
        ("EssentialContainerExited", "Essential container in task exited", Some(137), "OutOfMemoryError: Container killed due to memory usage", Why::Memory, "`memory`"),
        ("EssentialContainerExited", "Essential container in task exited", Some(137), "", Why::Exited, "memory"),
        ("EssentialContainerExited", "Essential container in task exited", Some(1), "", Why::Exited, "logs of ci-coordinator"),
        ("EssentialContainerExited", "Essential container in task exited", Some(127), "", Why::Image, "127"),
        ("", "Essential container in task exited", Some(0), "", Why::Exited, "logs of ci-coordinator"),
        ("SpotInterruption", "Your Spot Task was interrupted.", Some(143), "", Why::Interrupted, "Retry"),
        ("SpotInterruption", "", None, "", Why::Interrupted, "Retry"),
        ("TerminationNotice", "Your Spot Task was interrupted.", None, "", Why::Interrupted, "Retry"),
        ("", "Your Spot Task was interrupted.", Some(137), "", Why::Interrupted, "Retry"),
        ("TerminationNotice", "Host EC2 (instance i-03dba81187d65ce7e) terminated.", None, "", Why::HostGone, "instance"),
        ("", "Host EC2 (instance i-06aab15feb4568492) stopped.", None, "", Why::HostGone, "instance"),
        ("ServiceSchedulerInitiated", "Task stopped during instance draining", None, "", Why::HostGone, "14 days"),
        ("TerminationNotice", "", None, "", Why::HostGone, "host"),
        ("InfrastructureHealth", "", None, "", Why::HostGone, "host"),
        ("UserInitiated", "Task stopped by user", None, "", Why::StoppedBySomeone, "CloudTrail"),
        ("UserInitiated", "CannotPullContainerError, I guess; capacity is unavailable", Some(137), "OutOfMemoryError", Why::StoppedBySomeone, "CloudTrail"),
        ("UserInitiated", "gitlab-aws-driver: past its deadline", None, "", Why::StoppedBySomeone, "This driver"),
        ("ServiceSchedulerInitiated", "Scaling activity initiated by deployment ecs-svc/1", None, "", Why::StoppedBySomeone, "service"),
        ("Novelty", "Something new", None, "", Why::Other, "does not know"),
    ];
    for (code, reason, exit_code, of_container, why, remedy) in table {
        let v = stopped(
            &task(
                code,
                reason,
                &[("ci-coordinator", *exit_code, of_container)],
            ),
            "ci-coordinator",
        );
        assert_eq!(v.why, *why, "{code}: {reason} -> {v:?}");
        assert!(v.remedy.contains(remedy), "{code}: {reason} -> {v:?}");
        for words in [code, reason, of_container] {
            assert!(v.cause.contains(words), "{words} is not in {v:?}");
        }
        assert_whole(&v);
    }
}

#[test]
fn causes_name_the_containers_that_explain_them() {
    let both = task(
        "EssentialContainerExited",
        "Essential container in task exited",
        &[
            ("ci-coordinator", Some(143), ""),
            ("sidecar", Some(3), "it\nfell over"),
            ("quiet", None, ""),
        ],
    );
    assert_eq!(
        stopped(&both, "ci-coordinator").cause,
        "EssentialContainerExited: Essential container in task exited; container ci-coordinator exited with 143; \
         container sidecar exited with 3: it fell over"
    );
    let alone = task("", "", &[("c", Some(1), "")]);
    let verdict = stopped(&alone, "c");
    assert_eq!(verdict.cause, "container c exited with 1");
    assert_eq!(verdict.why, Why::Exited);
    assert!(verdict.remedy.contains("logs of c"), "{verdict:?}");
    let nothing = Task {
        stop: Some(Stop::default()),
        ..Task::default()
    };
    assert!(stopped(&nothing, "x").cause.contains("no reason"));
}

#[test]
fn a_missing_command_is_blamed_only_on_tasks_that_never_ran_for_long() {
    let mut ran = task(
        "EssentialContainerExited",
        "Essential container in task exited",
        &[("c", Some(127), "")],
    );
    ran.started = Some(UNIX_EPOCH);
    ran.stopping = Some(UNIX_EPOCH + Duration::from_secs(600));
    assert_eq!(stopped(&ran, "c").why, Why::Exited);
    ran.stopping = Some(UNIX_EPOCH + Duration::from_secs(5));
    assert_eq!(stopped(&ran, "c").why, Why::Image);
}

proptest::proptest! {
    #[test]
    fn whatever_aws_says_comes_out_on_one_line(code in ".*", words in "(?s).*", detail in "(?s).*") {
        let v = stopped(&task(&code, &words, &[("c", Some(1), &detail)]), "c");
        proptest::prop_assert!(!v.cause.chars().any(char::is_control));
        proptest::prop_assert!(!v.remedy.is_empty());
    }
}
