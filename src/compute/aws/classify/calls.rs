//! What ECS says of a launch: errors of RunTask and its `failures`, and what a task that stopped says in the same words.

use super::table::{From, Row, row};
use crate::machine::verdict::Why;

const RUN_TASK: &str = "ECS API: RunTask, Errors";
const MESSAGES: &str = "ECS guide: API error messages";
const FAILURES: &str = "ECS guide: API failure reasons";
const STOPPED: &str = "ECS guide: Stopped task error messages";

const SUBNET: &str = "Free addresses, or name more or larger subnets (up to 16, in several zones) in `subnets` under [fargate]: \
     each task takes one address.";
pub(super) const NO_ROOM: &str = "Add a rung to `capacity` (`fargate` behind `fargate-spot`, say) or subnets in more zones to `subnets` under \
     [fargate].";
const QUOTA: &str = "Ask AWS for a higher Fargate vCPU quota in this region (Service Quotas, AWS Fargate; on demand and Spot have one each), or run fewer jobs at once (`concurrent` in the Runner's config.toml).";
const RESOURCE: &str = "Let the capacity provider scale further (its Auto Scaling group's maximum, instances large enough for the task's \
     cpu, memory and network interfaces), or add another rung to `capacity`.";
pub(super) const ASSUMED: &str = "Let ecs-tasks.amazonaws.com assume the task definition's roles (their trust policy), and the driver's role pass them (iam:PassRole).";
const LINKED_ROLE: &str = "Create ECS's service-linked role AWSServiceRoleForECS once for the account: aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com.";
const COMPATIBLE: &str = "Add what this rung needs to `requiresCompatibilities` in the task definition: FARGATE, EC2 or MANAGED_INSTANCES (with awsvpc, and cpu and memory for the whole task).";
const SIZE: &str = "Fargate does not have this pair of `cpu` and `memory`: correct both in the task definition, or what the job asks for by AWS_DRIVER_CPU and AWS_DRIVER_MEMORY.";
const ONE_VPC: &str =
    "Name `subnets` and `security_groups` of one and the same VPC under [fargate].";
const CLUSTER: &str = "Correct `cluster` and `region` under [fargate]: this account has no such cluster in this region (nothing set means the one named default).";
const DEFINITION: &str = "Correct `task_definition` under [fargate] (or the job's FARGATE_TASK_DEFINITION): no such family, or revision, in this account and region.";
const PLATFORM: &str = "Correct `platform_version` under [fargate] (or the job's FARGATE_PLATFORM_VERSION): LATEST or 1.4.0 fit nearly always, Windows has 1.0.0; only Fargate takes one.";
const ATTRIBUTE: &str = "The task definition asks for what the capacity provider's instances lack (awsvpc needs `ecs.capability.task-eni` in the subnets' zones; mind the processor).";
const AGENT: &str = "The ECS agent of the chosen instance is not connected, which passes; if it goes on, replace that instance.";

/// What EC2 said to ECS about the task's network interface.
const EC2_ERROR: &[&str] = &[
    "unexpected ec2 error while attempting",
    "ec2 error while attempting",
];

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // Room, wherever ECS says it.
    row(From::Launch, Why::Quota, "Ask AWS for a higher quota of network interfaces or public addresses in this region (Service Quotas, EC2), or end what holds them.", "EC2 API: Error codes")
        .names(&["NetworkInterfaceLimitExceeded", "AddressLimitExceeded"]).says(&["maximum number of network interfaces"]),
    row(From::Launch, Why::Short, SUBNET, "ts-05; EC2 API: Error codes")
        .names(&["InsufficientFreeAddressesInSubnet", "InsufficientCidrBlocks", "InsufficientAddressCapacity", "PrivateIpAddressLimitExceeded"])
        .says(&["insufficient free addresses", "not enough free addresses", "there are not enough free addresses", "no available ip address", "no free addresses", "*does not have enough free ip addresses", "*does not have enough free addresses"]),
    row(From::Launch, Why::Never, "This task is larger than the account's quota lets any be: ask AWS for a higher Fargate vCPU quota in this region (Service Quotas, AWS Fargate), or ask for less `cpu`.", FAILURES)
        .says(&["the requested cpu configuration is above your limit", "the requested memory configuration is above your limit", "the requested*configuration is above your limit"]),
    row(From::Launch, Why::Quota, QUOTA, "tc-14, tc-15, tc-16; ECS guide: API failure reasons")
        .says(&["you*ve reached the limit on", "you have reached the limit on", "you*ve reached your", "you have reached your"]),
    row(From::Launch, Why::Quota, "The cluster holds as many waiting tasks as ECS allows: let the capacity provider scale further (its Auto Scaling group's maximum), run fewer jobs at once, or add another rung to `capacity`.", "ECS guide: Service quotas, tasks in the PROVISIONING state per cluster")
        .says(&["tasks provisioning capacity limit exceeded"]),
    row(From::Launch, Why::NoRoom, NO_ROOM, "tc-19; ECS guide: API error messages")
        .says(&["capacity is unavailable", "fargate*capacity is unavailable", "fargate*capacity is not available", "capacity is not available", "capacity unavailable", "insufficient capacity", "insufficient instance capacity", "no spot capacity", "we currently do not have sufficient*capacity"])
        .names(&["Insufficient*Capacity", "UnfulfillableCapacity", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow"]),

    // ECS could not, this once.
    row(From::Failure, Why::Busy, "AWS limits how fast tasks start in this account and region; retry the job later, have fewer jobs start at once (`concurrent` in the Runner's config.toml), or ask AWS to raise the Fargate launch rate.", "tc-23")
        .says(&["rate exceeded", "request limit exceeded", "too many requests"]).names(&["*Throttl*"]),
    row(From::Failure, Why::Busy, "AWS is in trouble (health.aws.amazon.com); retry the job later.", FAILURES)
        .says(&["internal error", "internal server error", "service unavailable", "unable to"]).names(&["Internal*", "ServiceUnavailable*", "ServerException"]),

    // Placement on instances.
    row(From::Placed, Why::NoRoom, "The capacity provider has no instance in this cluster: let its Auto Scaling group scale (managed scaling on, a maximum above 0) and its instances register, or add another rung to `capacity`.", FAILURES)
        .says(&["empty capacity provider", "no active instances", "no container instances were found"]),
    row(From::Placed, Why::NoRoom, "No instance meets the task definition's `placementConstraints`; change these, or the capacity provider's instances.", FAILURES)
        .says(&["memberof placement constraint", "memberof constraint", "placement constraint", "distinctinstance placement constraint"]),
    row(From::Placed, Why::NoRoom, RESOURCE, "tc-20, tc-24, tc-25; ECS guide: API failure reasons")
        .says(&["resource:"]),
    row(From::Placed, Why::NoRoom, AGENT, "tc-21; ECS guide: API failure reasons")
        .says(&["agent", "ecs agent*disconnected"]),
    row(From::Placed, Why::NoRoom, "The capacity provider's instances stand in other zones than `subnets` under [fargate]; name subnets of their zones.", FAILURES)
        .says(&["location"]),
    row(From::Placed, Why::NoRoom, ATTRIBUTE, "tc-22; ECS guide: API failure reasons")
        .says(&["attribute", "missing attribute"]),
    row(From::Placed, Why::NoRoom, "The chosen instance is deregistered; if it goes on, replace the capacity provider's instances.", FAILURES)
        .says(&["inactive"]),
    row(From::Failure, Why::NotFound, "AWS does not know it (right after a launch: not yet); otherwise check `region` and `cluster` under [fargate].", FAILURES)
        .code(&["MISSING"]),

    // ECS's own roles.
    row(From::Call, Why::Denied, ASSUMED, MESSAGES)
        .says(&["ecs was unable to assume the role", "ecs is unable to assume the role", "unable to assume the role"]),
    row(From::Call, Why::Denied, "AWS has closed this account: its own mail says more, else AWS support.", "tc-08")
        .says(&["your aws account", "your account is", "aws account", "the account is"]),
    row(From::Call, Why::Denied, LINKED_ROLE, "tc-09; ECS guide: API error messages")
        .says(&["ecs service linked role", "service linked role", "service-linked role", "the service linked role", "the service-linked role", "unable to assume the service linked role", "unable to assume the service-linked role", "please create a service linked role", "please verify that the ecs service linked role"]),
    row(From::Launch, Why::Settings, "Correct the role that the task definition names (`taskRoleArn`, `executionRoleArn`): this account has none of that name, or ecs-tasks.amazonaws.com may not assume it.", "tc-01")
        .says(&["role is not valid", "the role*is not valid", "the provided*role is invalid", "invalid role"]),
    row(From::Launch, Why::Settings, "Give the task definition an execution role (`executionRoleArn`): Fargate needs it to pull from ECR, to write logs and to read secrets.", "tc-02")
        .says(&["fargate requires task definition to have execution role"]),

    // Capacity providers.
    row(From::Call, Why::NoDefaultProvider, "Name rungs by `capacity` (\"fargate\", say), or give the cluster a default capacity provider strategy.", RUN_TASK)
        .says(&["no container instances were found", "no launch type to fall back to"]),
    row(From::Call, Why::NoSuchProvider, "Associate the capacity provider with the cluster (aws ecs put-cluster-capacity-providers; fargate-spot is FARGATE_SPOT), or take its rung out of `capacity`.", RUN_TASK)
        .says(&["the*capacity provider*not associated with the cluster", "the*capacity provider*not found", "the*capacity provider*does not exist", "the*capacity provider*is not valid", "the*capacity provider*inactive",
            "the*capacity provider*not active", "the*capacity provider*delete_", "the*capacity provider*update_in_progress", "capacity provider*not associated with the cluster", "capacity provider*not found", "capacity provider*does not exist",
            "capacity provider*inactive", "capacity provider*not active", "capacity provider*delete_", "capacity provider*update_in_progress"]),

    // What was asked for.
    row(From::Call, Why::Settings, CLUSTER, "tc-06, tc-26; ECS API: RunTask, Errors")
        .code(&["ClusterNotFoundException"]),
    row(From::Call, Why::Settings, CLUSTER, RUN_TASK)
        .says(&["cluster not found", "the referenced cluster was", "the specified cluster was not found"]),
    row(From::Call, Why::Settings, DEFINITION, RUN_TASK)
        .says(&["taskdefinition not found", "task definition not found", "unable to describe task definition", "task definition does not exist", "unable to find task definition", "invalid revision number"]),
    row(From::Call, Why::Settings, "That revision was deregistered: name the family alone in `task_definition` under [fargate], which takes the newest active revision.", RUN_TASK)
        .says(&["taskdefinition is inactive", "task definition is inactive", "taskdefinition*inactive", "task definition*inactive"]),
    row(From::Call, Why::Settings, "Name the job's container in the task definition `ci-coordinator`, or set `container` under [fargate] to its name.", RUN_TASK)
        .says(&["override for container named", "container*is not a container in the taskdefinition"]),
    row(From::Launch, Why::Settings, COMPATIBLE, "tc-05, ts-11; ECS guide: Stopped task error messages")
        .says(&["the selected task definition is not compatible with", "task definition does not support launch", "task definition does not support", "task definition is not compatible with", "the task definition is not compatible with", "tasks using the*are not compatible with",
            "no compatible"]),
    row(From::Launch, Why::Settings, SIZE, "tc-03, tc-04; ECS guide: Invalid CPU or memory value specified")
        .says(&["no fargate configuration exists for given values", "invalid 'cpu' setting for task", "invalid 'memory' setting for task", "invalid cpu or memory value", "invalid setting for container", "invalid cpu", "invalid memory",
            "the requested cpu and memory", "task cpu", "task memory"]),
    row(From::Launch, Why::Settings, "Correct the task definition as the cause says: Fargate takes awsvpc, `cpu` and `memory` of the whole task, and not every option of a container.", "ECS guide: Task definition differences for Fargate")
        .says(&["fargate requires", "fargate only supports", "fargate does not support", "fargate compatible task definitions", "when networkmode=awsvpc"]),
    row(From::Call, Why::Settings, "Correct `volumes` and `mountPoints` in the task definition.", RUN_TASK)
        .says(&["volume configuration", "the volume"]),
    row(From::Call, Why::Settings, "Correct the size of the task's disk: `ephemeralStorage` in the task definition, or what the job asks for by AWS_DRIVER_DISK; Fargate has 21 to 200 GiB.", "tc-12")
        .says(&["ephemeral storage", "ephemeralstorage", "the ephemeral storage"]),
    row(From::Call, Why::Outage, "AWS is in trouble (health.aws.amazon.com); the call was sent again for some minutes; retry the job later.", "EC2's errors within ECS's")
        .within(&[&["error retrieving"]]).names(&["Internal*", "Unavailable", "ServiceUnavailable"]),
    row(From::Call, Why::Throttled, "AWS limits how often {call} may be called; have fewer jobs start at once (`request_concurrency`, `concurrent` in the Runner's config.toml), or ask AWS to raise the limit.", "EC2's errors within ECS's")
        .within(&[&["error retrieving"]]).names(&["RequestLimitExceeded", "*Throttl*"]),
    row(From::Call, Why::Denied, "ECS may not look at the subnets: the service-linked role AWSServiceRoleForECS is missing or a service control policy forbids it.", "tc-10")
        .within(&[&["error retrieving"]]).names(&["UnauthorizedOperation", "AccessDenied*"]).says(&["you are not authorized to perform"]),
    row(From::Call, Why::Settings, ONE_VPC, "tc-11")
        .says(&["security group*vpc", "the security group*vpc", "subnet*vpc", "subnets*vpc", "the subnet*vpc", "security group*different networks", "the security group*different networks"]),
    row(From::Call, Why::Settings, "Correct `security_groups` under [fargate]: one of them does not exist in this account and region, or there are more than AWS takes (5).", RUN_TASK)
        .says(&["error retrieving security group", "security group*does not exist", "the security group*does not exist", "security group*not found", "securitygroups can have at most"]).names(&["InvalidGroup*", "InvalidSecurityGroup*"]),
    row(From::Call, Why::Settings, "Correct `subnets` under [fargate]: one of them does not exist in this account and region, or there are more than AWS takes (16).", RUN_TASK)
        .says(&["error retrieving subnet", "subnet*does not exist", "the subnet*does not exist", "subnet*not found", "subnets can have at most"]).names(&["InvalidSubnet*"]),
    row(From::Call, Why::Settings, "Only Fargate gives public addresses: set `enable_public_ip = false` under [fargate] for this rung (by a [[profile]], say), or dial private addresses.", RUN_TASK)
        .says(&["assign public ip", "assignpublicip"]),
    row(From::Call, Why::Settings, PLATFORM, RUN_TASK)
        .code(&["PlatformUnknownException", "PlatformTaskDefinitionIncompatibilityException"]),
    row(From::Launch, Why::Settings, PLATFORM, RUN_TASK)
        .says(&["the platform version", "platform version", "the specified platform"]),
    row(From::Call, Why::Settings, "This region does not have what the task definition asks for; take another region, or leave that feature out.", RUN_TASK)
        .code(&["UnsupportedFeatureException"]),
    row(From::Call, Why::Settings, "ECS Exec needs a task role in the task definition (`taskRoleArn`, with ssmmessages actions) and a writable root file system; or set `enable_execute_command = false` under [fargate].", "tc-13")
        .says(&["the execute command feature", "execute command", "executecommand"]),
    row(From::Call, Why::Settings, "The task definition's `networkMode` must be awsvpc, and `subnets` under [fargate] set.", RUN_TASK)
        .says(&["network configuration"]),
    row(From::Call, Why::Settings, "Pass less by the container's environment: AWS takes 8,192 characters of overrides in all.", RUN_TASK)
        .says(&["container overrides length", "*overrides length"]),
    row(From::Call, Why::Settings, "Opt in to long ARNs for tasks: aws ecs put-account-setting-default --name taskLongArnFormat --value enabled.", RUN_TASK)
        .says(&["the new arn*must be enabled", "long arn format must be enabled"]),
    row(From::Call, Why::Settings, "Let the [tags] table follow the organisation's tag policy.", "fe-36")
        .code(&["TagPolicy*"]),
    row(From::Call, Why::Settings, "Correct the [tags] table (and the task definition's tags where `propagate_tags` is on): AWS takes 50 tags in all, and only what tag policies allow.", RUN_TASK)
        .says(&["the tag policy", "tag policy", "tags", "invalid tag", "too many tags", "tag key", "tag value", "duplicate tag"]).names(&["TagPolicy*"]),
    row(From::Call, Why::NotFound, "AWS does not know this task (any more): it is over, or `region`, `cluster` or the role changed since it was started.", "ECS API: StopTask, Errors")
        .says(&["the referenced task", "task was not found", "task not found"]),
    row(From::Call, Why::NotFound, "The task's network interface is gone, and so is the task, most likely.", "EC2 API: Error codes")
        .code(&["InvalidNetworkInterfaceI*.NotFound"]),
    row(From::Call, Why::Conflict, "A task was started before with this token but another request; it is ended first. Were settings changed in between? Retry the job.", RUN_TASK)
        .code(&["ConflictException", "IdempotentParameterMismatch"]),

    // What a task that stopped says of its own network interface and disk.
    row(From::Stop, Why::NoRoom, "The task got no network interface in time; more subnets in other zones (`subnets` under [fargate]) and fewer jobs starting at once help, otherwise it passes.", "ts-02, ts-04, ts-59, ts-60; ECS guide: Stopped task error messages")
        .says(&["timeout waiting for network interface", "network interface", "rate limit exceeded while preparing network interface", "unable to attach network interface"]),
    row(From::Stop, Why::Busy, "AWS did not get it done this once; retry the job, and tell AWS support if this goes on.", "ts-01, ts-03")
        .says(&["timeout waiting for", "timed out", "failed to configure eni", "failed to setup", "netplugin failed", "rate limit exceeded while", "rate exceeded"]).names(&["*Throttl*", "RequestLimitExceeded", "Internal*", "Unavailable", "ServiceUnavailable*"]),
    row(From::Stop, Why::Settings, "An organisation's tag policy refuses the tags of the task's network interface; let the [tags] table and the task definition's tags follow it.", "ts-61")
        .names(&["TagPolicy*"]),
    row(From::Stop, Why::Denied, "ECS may not make the task's network interface: the service-linked role AWSServiceRoleForECS is missing or a service control policy denies it ec2:CreateNetworkInterface.", STOPPED)
        .within(&[EC2_ERROR]).names(&["UnauthorizedOperation", "AccessDenied*"]),
    row(From::Stop, Why::Settings, "Correct `subnets` and `security_groups` under [fargate]: one of them is not there any more.", STOPPED)
        .within(&[EC2_ERROR]).names(&["InvalidSubnet*", "InvalidGroup*", "InvalidSecurityGroup*", "InvalidVpc*"]),
    row(From::Stop, Why::Settings, "Name fewer `security_groups` under [fargate]: the task's network interface takes no more (5, unless the account's quota says otherwise).", "EC2 API: Error codes")
        .within(&[EC2_ERROR]).names(&["SecurityGroupsPer*"]),
    row(From::Stop, Why::Quota, "Ask AWS for a higher quota of network interfaces or addresses in this region (Service Quotas, VPC), or run fewer jobs at once.", STOPPED)
        .within(&[EC2_ERROR]).names(&["*LimitExceeded"]),
    row(From::Stop, Why::NoRoom, "EC2 did not give the task its network interface this time; retry the job later, and look at the subnets under [fargate] if this goes on.", STOPPED)
        .within(&[EC2_ERROR]),
];
