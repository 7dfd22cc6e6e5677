//! The table: AWS's wordings, what each means, and what to do about it.
//!
//! Rows are tried in order, so the special stands before the general. Words are compared in lower case and
//! `*` stands for anything in between. In remedies `{action}` is the action that a message says is not allowed (or the
//! call itself), `{call}` the call, `{container}` the container that jobs run in.

use super::Why;

/// Where words come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compute) enum Said {
    /// An error of a call.
    Call,
    /// One of a call's `failures`.
    Failure,
    /// Why a task stopped.
    Stop,
    /// No answer at all.
    Nothing,
}

/// Where a row applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Call,
    Failure,
    Stop,
    Nothing,
    /// Failures and stop reasons: what placement says.
    Placed,
    /// Errors, failures and stop reasons: AWS says these in any of the three.
    Launch,
}

impl From {
    pub(super) fn holds(self, said: Said) -> bool {
        match self {
            Self::Call => said == Said::Call,
            Self::Failure => said == Said::Failure,
            Self::Stop => said == Said::Stop,
            Self::Nothing => said == Said::Nothing,
            Self::Placed => matches!(said, Said::Failure | Said::Stop),
            Self::Launch => said != Said::Nothing,
        }
    }
}

/// One row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) from: From,
    /// Codes, of which one must be it; none: any.
    pub(super) codes: &'static [&'static str],
    /// Words, of which one must be said; none: any.
    pub(super) words: &'static [&'static str],
    pub(super) why: Why,
    pub(super) remedy: &'static str,
}

impl Row {
    /// `text` is in lower case.
    pub(super) fn fits(&self, code: &str, text: &str) -> bool {
        let bare = code.rsplit(['.', '#']).next().unwrap_or(code);
        (self.codes.is_empty() || self.codes.iter().any(|c| *c == bare || *c == code))
            && (self.words.is_empty() || self.words.iter().any(|w| fits(w, text)))
    }
}

/// Whether all parts of a pattern stand in a text, in this order.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|part| {
        rest.find(part).is_some_and(|at| {
            rest = &rest[at + part.len()..];
            true
        })
    })
}

pub(super) const fn row(
    from: From,
    codes: &'static [&'static str],
    words: &'static [&'static str],
    why: Why,
    remedy: &'static str,
) -> Row {
    Row {
        from,
        codes,
        words,
        why,
        remedy,
    }
}

pub(super) const DENIED: &[&str] = &[
    "AccessDeniedException",
    "AccessDenied",
    "UnauthorizedOperation",
    "NotAuthorized",
    "NotAuthorizedException",
    "UnauthorizedException",
];

const SUBNET_REMEDY: &str = "Free addresses, or name more or larger subnets (up to 16, in several zones) in `subnets` under [fargate]: \
     each task takes one address.";

const NO_ROOM_REMEDY: &str = "Add a rung to `capacity` (`fargate` behind `fargate-spot`, say) or subnets in more zones to `subnets` under \
     [fargate], or let jobs wait longer with `capacity_wait`.";

const RESOURCE_REMEDY: &str = "Let the capacity provider scale further (its Auto Scaling group's maximum, instances large enough for the task's \
     cpu, memory and network interfaces), or add another rung to `capacity`.";

const REACH_REGISTRY_REMEDY: &str = "Give the subnets under [fargate] a way to the registry: a NAT gateway, `enable_public_ip = true` in public \
     subnets, or VPC endpoints (ecr.api, ecr.dkr, s3) whose security group lets the task in on port 443.";

const REACH_AWS_REMEDY: &str = "Give the subnets under [fargate] a way to AWS: a NAT gateway, `enable_public_ip = true` in public subnets, or VPC \
     endpoints (ecr.api, ecr.dkr, s3, logs, secretsmanager, ssm), with DNS support on in the VPC and port 443 open outwards.";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // Why a task stopped, first what AWS says of the machine under it.
    row(From::Stop, &["SpotInterruption"], &[], Why::Interrupted,
        "Retry the job; for jobs that cannot bear this, put `fargate` before `fargate-spot` in `capacity`, for them alone by a [[profile]]."),
    row(From::Stop, &[], &["spot task was interrupted", "spot interruption", "spot instance*interrupt"], Why::Interrupted,
        "Retry the job; for jobs that cannot bear this, put `fargate` before `fargate-spot` in `capacity`, for them alone by a [[profile]]."),
    row(From::Stop, &[], &["host ec2 (instance", "instance draining", "container instance deregistration"], Why::HostGone,
        "Retry the job: the instance under its task was stopped, drained or replaced (Managed Instances are replaced after 14 days at most); \
         look at the capacity provider's instances if this goes on."),
    row(From::Stop, &["InfrastructureHealth"], &[], Why::HostGone,
        "Retry the job: AWS took the host under its task out of service."),
    // What somebody wrote as a reason is not AWS's wording: nothing below may read it.
    row(From::Stop, &["UserInitiated"], &["gitlab-aws-driver"], Why::StoppedBySomeone,
        "This driver ended it: the job was cancelled or timed out, or `reap` (of this or another bastion of the fleet) found it without an owner or past its deadline."),
    row(From::Stop, &["UserInitiated"], &[], Why::StoppedBySomeone,
        "Somebody called ecs:StopTask on it; CloudTrail's StopTask events say who."),
    row(From::Stop, &["ServiceSchedulerInitiated"], &[], Why::StoppedBySomeone,
        "The ECS service scheduler or a deployment stopped it; keep CI tasks out of ECS services and their clusters."),
    row(From::Stop, &[], &["task stopped by user"], Why::StoppedBySomeone,
        "Somebody called ecs:StopTask on it; CloudTrail's StopTask events say who."),

    // Memory.
    row(From::Stop, &[], &["outofmemory", "out of memory", "due to memory usage"], Why::Memory,
        "Give the task definition more `memory`, or the job less to do at once (fewer parallel compilers, smaller heaps)."),

    // The image.
    row(From::Stop, &[], &["cannotpull*toomanyrequests", "cannotpull*too many requests", "cannotpull*pull rate limit", "cannotpull*rate exceeded", "cannotpull*throttl"], Why::Registry,
        "The registry limits pulls: log in to it by `repositoryCredentials` in the task definition, or pull through ECR (pull-through cache, public.ecr.aws)."),
    row(From::Stop, &[], &["cannotpull*no space left", "cannotpull*not enough space"], Why::Settings,
        "The image does not fit on the task's disk: raise `ephemeralStorage` in the task definition, or make the image smaller."),
    row(From::Stop, &[], &["cannotpull*matching platform", "cannotpull*descriptor for platform", "cannotpull*no match for platform", "cannotpull*no matching manifest", "cannotpull*operating system cannot be used"], Why::Image,
        "The image was built for another processor: push it for the task definition's `runtimePlatform` (docker buildx build --platform linux/amd64,linux/arm64), or change that."),
    row(From::Stop, &[], &["cannotpull*i/o timeout", "cannotpull*connection issue", "cannotpull*no such host", "cannotpull*deadline exceeded", "cannotpull*connection refused", "cannotpull*timeout exceeded",
        "cannotpull*network is unreachable", "cannotpull*no route to host", "cannotpull*handshake timeout", "cannotpull*request canceled"], Why::Network,
        REACH_REGISTRY_REMEDY),
    row(From::Stop, &[], &["cannotpull*forbidden", "cannotpull*unauthorized", "cannotpull*no basic auth", "cannotpull*access denied", "cannotpull*accessdenied", "cannotpull*not authorized",
        "cannotpull*authorization failed", "cannotpull*authentication required", "cannotpull*no pull access", "cannotpull*denied:"], Why::Image,
        "Let the task definition's execution role pull it (ecr:GetAuthorizationToken, ecr:BatchCheckLayerAvailability, ecr:GetDownloadUrlForLayer, ecr:BatchGetImage, and the repository's own policy across accounts), \
         or give it `repositoryCredentials`; registries say the same of a name that does not exist."),
    row(From::Stop, &[], &["cannotpull*not found", "cannotpull*manifest unknown", "cannotpull*name unknown", "cannotpull*does not exist", "cannotpull*invalid reference", "cannotpull*not_found", "cannotpull*repository name must"], Why::Image,
        "Push the image, or correct `image` of the container {container} in the task definition; ECR lifecycle rules may have removed its tag."),
    row(From::Stop, &[], &["cannotpull"], Why::Registry,
        "The registry did not give the image this time; retry the job, and look at the registry's own status if this goes on."),

    // What Fargate prepares before a container starts.
    row(From::Stop, &[], &["resourceinitializationerror*efs utils", "resourceinitializationerror*efs volume", "resourceinitializationerror*mount.nfs"], Why::Network,
        "Let the task reach its EFS mount targets (port 2049 in their security group, one in each zone of `subnets`, DNS on in the VPC), and the task role use the file system."),
    row(From::Stop, &[], &["resourceinitializationerror*accessdenied", "resourceinitializationerror*access denied", "resourceinitializationerror*not authorized", "resourceinitializationerror*unauthorized"], Why::Denied,
        "Allow the task definition's *execution* role (not the driver's) what the cause names: secretsmanager:GetSecretValue, ssm:GetParameters and kms:Decrypt for secrets, \
         logs:CreateLogStream and logs:PutLogEvents for logs, ecr:GetAuthorizationToken for ECR."),
    row(From::Stop, &[], &["resourceinitializationerror*i/o timeout", "resourceinitializationerror*deadline exceeded", "resourceinitializationerror*connection issue", "resourceinitializationerror*signal: killed",
        "resourceinitializationerror*no such host", "resourceinitializationerror*request canceled", "resourceinitializationerror*send request failed", "resourceinitializationerror*requesterror", "resourceinitializationerror*dial tcp"], Why::Network,
        REACH_AWS_REMEDY),
    row(From::Stop, &[], &["resourceinitializationerror*logger", "resourceinitializationerror*logging", "resourceinitializationerror*log group", "resourceinitializationerror*cloudwatch",
        "cannotstartcontainererror*logging driver", "cannotstartcontainererror*log group"], Why::Settings,
        "Create the log group that `logConfiguration` in the task definition names, or set `awslogs-create-group` and allow its execution role logs:CreateLogGroup."),
    row(From::Stop, &[], &["resourceinitializationerror*secret", "resourceinitializationerror*ssm", "resourceinitializationerror*asm", "resourceinitializationerror*json key"], Why::Settings,
        "Correct `secrets` in the task definition: the secret, the parameter or its JSON key does not exist (in this region), or its execution role may not read it."),
    row(From::Stop, &[], &["resourceinitializationerror*registry auth", "resourceinitializationerror*ecr"], Why::Network,
        REACH_AWS_REMEDY),

    // Starting it.
    row(From::Stop, &[], &["exec format error"], Why::Image,
        "What the image starts is for another processor, or a script without `#!` line: build it for the task definition's `runtimePlatform`."),
    row(From::Stop, &[], &["executable file not found", "cannotstartcontainererror*no such file", "cannotstartcontainererror*permission denied", "cannotcreatecontainererror*no command specified", "cannotcreatecontainererror*executable"], Why::Image,
        "Correct the ENTRYPOINT and CMD of the image of {container}, or `entryPoint` and `command` in the task definition (`entryPoint` there throws away the image's CMD as well)."),
    row(From::Stop, &[], &["cannotcreatevolumeerror"], Why::Settings,
        "Correct `volumes` in the task definition, or what the volume needs (EFS access point, file system, plug-in)."),
    row(From::Stop, &[], &["containerruntimetimeouterror", "dockertimeouterror", "containerruntimeerror", "cannotinspectcontainererror", "internalerror"], Why::Outage,
        "The host under the task failed; retry the job, and tell AWS support if this goes on."),
    row(From::Stop, &[], &["cannotstartcontainererror", "cannotcreatecontainererror"], Why::Exited,
        "Run the image of {container} with the task definition's command and limits by hand (`docker run`) and see what it says."),

    // Room, wherever AWS says it.
    row(From::Launch, &[], &["insufficient free addresses", "insufficientfreeaddresses", "not enough free addresses", "no available ip address", "insufficientcidrblocks", "no free addresses"], Why::NoRoom,
        SUBNET_REMEDY),
    row(From::Launch, &[], &["networkinterfacelimitexceeded", "addresslimitexceeded", "maximum number of network interfaces"], Why::Quota,
        "Ask AWS for a higher quota of network interfaces or public addresses in this region (Service Quotas, EC2), or end what holds them."),
    row(From::Launch, &[], &["limit on the number of vcpus", "limit on the number of tasks", "configuration is above your limit", "limit on the number of"], Why::Quota,
        "Ask AWS for a higher Fargate vCPU quota in this region (Service Quotas, AWS Fargate; on demand and Spot have one each), or run fewer jobs at once (`concurrent` in the Runner's config.toml)."),
    row(From::Launch, &[], &["capacity is unavailable", "capacity unavailable", "insufficient capacity", "insufficientinstancecapacity", "insufficient instance capacity", "no spot capacity", "unfulfillablecapacity",
        "capacity is not available", "not have sufficient capacity", "maxspotinstancecountexceeded", "spotmaxpricetoolow"], Why::NoRoom,
        NO_ROOM_REMEDY),
    row(From::Call, &[], &["rate exceeded", "request limit exceeded", "requestlimitexceeded", "too many requests", "throttlingexception"], Why::Throttled,
        "AWS limits how often {call} may be called; have fewer jobs start at once (`request_concurrency`, `concurrent` in the Runner's config.toml), or ask AWS to raise the limit."),
    row(From::Call, &["ThrottlingException", "Throttling", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "EC2ThrottledException", "SlowDown", "PriorRequestNotComplete"], &[], Why::Throttled,
        "AWS limits how often {call} may be called; have fewer jobs start at once (`request_concurrency`, `concurrent` in the Runner's config.toml), or ask AWS to raise the limit."),
    row(From::Failure, &[], &["rate exceeded", "request limit exceeded", "too many requests"], Why::NoRoom,
        "AWS limits how fast tasks start in this account and region; have fewer jobs start at once (`concurrent` in the Runner's config.toml), or ask AWS to raise the Fargate launch rate."),

    // The network interface.
    row(From::Stop, &[], &["network interface provision", "rate limit exceeded while preparing network interface", "attach network interface", "failed to configure eni", "resource:eni"], Why::NoRoom,
        "The task got no network interface in time; more subnets in other zones (`subnets` under [fargate]) and fewer jobs starting at once help, otherwise it passes."),
    row(From::Stop, &[], &["network interface*tagpolicy", "network interface*tag policy"], Why::Settings,
        "An organisation's tag policy refuses the tags of the task's network interface; let the [tags] table and the task definition's tags follow it."),
    row(From::Stop, &[], &["ec2 error while attempting*unauthorizedoperation"], Why::Denied,
        "ECS may not make the task's network interface: the service-linked role AWSServiceRoleForECS is missing or a service control policy denies it ec2:CreateNetworkInterface."),
    row(From::Stop, &[], &["ec2 error while attempting*invalidsubnet", "ec2 error while attempting*invalidgroup", "ec2 error while attempting*invalidsecuritygroup"], Why::Settings,
        "Correct `subnets` and `security_groups` under [fargate]: one of them is not there any more."),
    row(From::Stop, &[], &["ec2 error while attempting"], Why::NoRoom,
        "EC2 did not give the task its network interface this time; retry the job, and look at the subnets under [fargate] if this goes on."),

    // Placement on instances.
    row(From::Placed, &[], &["empty capacity provider", "no active instances"], Why::NoRoom,
        "The capacity provider has no instance in this cluster: let its Auto Scaling group scale (managed scaling on, a maximum above 0) and its instances register, or add another rung to `capacity`."),
    row(From::Placed, &[], &["memberof placement constraint", "placement constraint"], Why::NoRoom,
        "No instance meets the task definition's `placementConstraints`; change these, or the capacity provider's instances."),
    row(From::Failure, &[], &["resource:"], Why::NoRoom, RESOURCE_REMEDY),
    // Not the bare word: "on resource: arn:…" is what denials say.
    row(From::Stop, &[], &["taskfailedtostart: resource:"], Why::NoRoom, RESOURCE_REMEDY),
    row(From::Failure, &["AGENT"], &[], Why::NoRoom,
        "The ECS agent of the chosen instance is not connected, which passes; if it goes on, replace that instance."),
    row(From::Stop, &[], &["taskfailedtostart: agent", "ecs agent*disconnected"], Why::NoRoom,
        "The ECS agent of the chosen instance is not connected, which passes; if it goes on, replace that instance."),
    row(From::Failure, &["LOCATION"], &[], Why::NoRoom,
        "The capacity provider's instances stand in other zones than `subnets` under [fargate]; name subnets of their zones."),
    row(From::Failure, &["ATTRIBUTE"], &[], Why::NoRoom,
        "The task definition asks for what the capacity provider's instances lack (awsvpc needs `ecs.capability.task-eni` in the subnets' zones; mind the processor)."),
    row(From::Stop, &[], &["taskfailedtostart: attribute"], Why::NoRoom,
        "The task definition asks for what the capacity provider's instances lack (awsvpc needs `ecs.capability.task-eni` in the subnets' zones; mind the processor)."),
    row(From::Failure, &["MISSING"], &[], Why::NotFound,
        "AWS does not know it (right after a launch: not yet); otherwise check `region` and `cluster` under [fargate]."),
    row(From::Failure, &["INACTIVE"], &[], Why::NoRoom,
        "The chosen instance is deregistered; if it goes on, replace the capacity provider's instances."),

    // How a task ended by itself.
    row(From::Stop, &["EssentialContainerExited"], &[], Why::Exited,
        "See why it ended: the logs of {container} (`logConfiguration` in the task definition), and whether its entrypoint takes SSH_PUBLIC_KEY and ends in `exec sshd -D` (or another server that stays)."),
    row(From::Stop, &[], &["essential container in task exited"], Why::Exited,
        "See why it ended: the logs of {container} (`logConfiguration` in the task definition), and whether its entrypoint takes SSH_PUBLIC_KEY and ends in `exec sshd -D` (or another server that stays)."),
    row(From::Stop, &[], &["health check"], Why::Exited,
        "ECS stopped it for its `healthCheck`; CI tasks need none: take it out of the task definition."),
    row(From::Stop, &["TerminationNotice"], &[], Why::HostGone,
        "Retry the job: AWS takes the host under its task away; Spot capacity does so at any time."),

    // What a call may not do. The actions first that people forget.
    row(From::Call, DENIED, &["perform: iam:passrole", "perform iam:passrole"], Why::Denied,
        "Allow the driver's role iam:PassRole on the task definition's task role and execution role (with the condition iam:PassedToService = ecs-tasks.amazonaws.com)."),
    row(From::Call, DENIED, &["perform: ecs:tagresource", "perform ecs:tagresource"], Why::Denied,
        "Allow the driver's role ecs:TagResource (with the condition ecs:CreateAction = RunTask); until then tasks carry no tags, and `reap` cannot find those of bastions that died for good."),
    row(From::Call, DENIED, &["perform: sts:tagsession", "perform sts:tagsession"], Why::Denied,
        "Allow sts:TagSession beside sts:AssumeRole, in the driver's policy *and* in the trust policy of the role that the job assumes, or take SESSION_VARS away."),
    row(From::Call, DENIED, &["perform: sts:assumerole", "perform sts:assumerole"], Why::Denied,
        "Allow the driver's role sts:AssumeRole on that role, and name the driver's role in that role's trust policy; ROLE_ARN or `role_arn` may also be misspelt."),
    row(From::Call, DENIED, &["service control policy", "explicit deny", "permissions boundary", "resource control policy"], Why::Denied,
        "A deny above the role's own policies (service control policy, permissions boundary, explicit Deny) forbids {action}: take it to whoever owns that policy."),
    row(From::Call, DENIED, &["perform: ec2:describenetworkinterfaces", "describenetworkinterfaces"], Why::Denied,
        "Allow the driver's role ec2:DescribeNetworkInterfaces: it is what public addresses are read by; or dial private addresses (`use_public_ip = false` under [fargate])."),
    row(From::Call, DENIED, &["perform: ecr:getauthorizationtoken", "perform ecr:getauthorizationtoken"], Why::Denied,
        "Allow the driver's role ecr:GetAuthorizationToken (config-examples/iam/bastion-ecr.json), or let the instance's own role log in (`ecr_login = \"instance\"` under [ec2])."),
    row(From::Call, DENIED, &[], Why::Denied,
        "Allow the driver's role {action}: `gitlab-aws-driver check --iam` prints the whole policy for this configuration."),
    row(From::Call, &[], &["unable to assume the role"], Why::Denied,
        "Let ecs-tasks.amazonaws.com assume the task definition's roles (their trust policy), and the driver's role pass them (iam:PassRole)."),
    row(From::Call, &[], &["service linked role", "service-linked role"], Why::Denied,
        "Create ECS's service-linked role once for the account: aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com."),
    row(From::Call, &["BlockedException"], &[], Why::Denied,
        "AWS blocked this account; only AWS support can open it."),
    row(From::Call, &["OptInRequired"], &[], Why::Denied,
        "Enable this region (or service) for the account, or correct `region` under [fargate]."),

    // Who calls.
    row(From::Call, &["RequestTimeTooSkewed", "RequestExpired"], &[], Why::Credentials,
        "Set this host's clock (chronyc tracking): AWS refuses requests that are five minutes off."),
    row(From::Call, &["InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException", "AuthFailure"],
        &["signature expired", "not yet current", "is now earlier than", "is now later than"], Why::Credentials,
        "Set this host's clock (chronyc tracking): AWS refuses requests that are five minutes off."),
    row(From::Call, &["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"], &[], Why::Credentials,
        "Renew the driver's credentials: the session token in the environment or in ~/.aws/credentials has expired; an instance profile renews itself."),
    row(From::Call, &["UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
        "IncompleteSignature", "IncompleteSignatureException"], &[], Why::Credentials,
        "Give the driver valid credentials of the right partition (an instance profile on the bastion is best; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY otherwise), and check this host's clock."),
    row(From::Nothing, &[], &["credential", "no providers in chain", "sso token", "sso session", "imds"], Why::Credentials,
        "Give the driver credentials: an instance profile on the bastion is best; with environment variables or a profile, set them for the Runner's own process."),
    row(From::Nothing, &[], &["region must be set", "no region", "missing region", "missing signing region", "invalid region", "missingregion"], Why::Settings,
        "Set `region` under [fargate] (or AWS_REGION for the Runner's process)."),

    // Capacity providers.
    row(From::Call, &[], &["no container instances were found", "no launch type to fall back to"], Why::NoDefaultProvider,
        "Name rungs by `capacity` (\"fargate\", say), or give the cluster a default capacity provider strategy."),
    row(From::Call, &[], &["capacity provider*not associated with the cluster", "capacity provider*not found", "capacity provider*does not exist", "capacity provider*is not valid",
        "capacity provider*not active", "capacity provider*inactive", "capacity provider*delete_", "capacity provider*update_in_progress"], Why::NoSuchProvider,
        "Associate the capacity provider with the cluster (aws ecs put-cluster-capacity-providers; fargate-spot is FARGATE_SPOT), or take its rung out of `capacity`."),

    // What was asked for.
    row(From::Call, &["ClusterNotFoundException"], &[], Why::Settings,
        "Correct `cluster` and `region` under [fargate]: this account has no such cluster in this region (nothing set means the one named default)."),
    row(From::Call, &[], &["cluster not found", "cluster was not found"], Why::Settings,
        "Correct `cluster` and `region` under [fargate]: this account has no such cluster in this region (nothing set means the one named default)."),
    row(From::Call, &[], &["taskdefinition not found", "task definition not found", "unable to describe task definition", "task definition does not exist", "unable to find task definition"], Why::Settings,
        "Correct `task_definition` under [fargate] (or the job's FARGATE_TASK_DEFINITION): no such family, or revision, in this account and region."),
    row(From::Call, &[], &["taskdefinition is inactive", "task definition is inactive", "taskdefinition*inactive"], Why::Settings,
        "That revision was deregistered: name the family alone in `task_definition` under [fargate], which takes the newest active revision."),
    row(From::Call, &[], &["is not a container in the taskdefinition", "override for container named"], Why::Settings,
        "Name the job's container in the task definition `ci-coordinator`, or set `container` under [fargate] to its name."),
    row(From::Call, &[], &["does not support launch", "not compatible with", "no compatible", "not support fargate", "requires compatibilit", "requirescompatibilit"], Why::Settings,
        "Add what this rung needs to `requiresCompatibilities` in the task definition: FARGATE, EC2 or MANAGED_INSTANCES (with awsvpc, and cpu and memory for the whole task)."),
    row(From::Call, &[], &["security group*vpc", "securitygroup*vpc", "subnet*same vpc", "subnet*different vpc", "belong to different networks", "same vpc as"], Why::Settings,
        "Name `subnets` and `security_groups` of one and the same VPC under [fargate]."),
    row(From::Call, &[], &["retrieving subnet*(errorcode: internal", "retrieving security group*(errorcode: internal", "(errorcode: unavailable", "(errorcode: serviceunavailable"], Why::Outage,
        "AWS is in trouble (health.aws.amazon.com); the call was sent again for some minutes; retry the job later."),
    row(From::Call, &[], &["retrieving subnet*unauthorized", "retrieving security group*unauthorized"], Why::Denied,
        "ECS may not look at the subnets: the service-linked role AWSServiceRoleForECS is missing or a service control policy forbids it."),
    row(From::Call, &[], &["subnet*does not exist", "subnet*not found", "retrieving subnet", "invalidsubnet"], Why::Settings,
        "Correct `subnets` under [fargate]: one of them does not exist in this account and region."),
    row(From::Call, &[], &["security group*does not exist", "security group*not found", "retrieving security group", "invalidgroup", "invalidsecuritygroup"], Why::Settings,
        "Correct `security_groups` under [fargate]: one of them does not exist in this account and region."),
    row(From::Call, &[], &["assign public ip", "assignpublicip"], Why::Settings,
        "Only Fargate gives public addresses: set `enable_public_ip = false` under [fargate] for this rung (by a [[profile]], say), or dial private addresses."),
    row(From::Call, &["PlatformUnknownException", "PlatformTaskDefinitionIncompatibilityException"], &[], Why::Settings,
        "Correct `platform_version` under [fargate] (or the job's FARGATE_PLATFORM_VERSION): LATEST or 1.4.0 fit nearly always, Windows has 1.0.0."),
    row(From::Call, &[], &["platform version"], Why::Settings,
        "Correct `platform_version` under [fargate] (or the job's FARGATE_PLATFORM_VERSION); only Fargate takes one."),
    row(From::Call, &["UnsupportedFeatureException"], &[], Why::Settings,
        "This region does not have what the task definition asks for; take another region, or leave that feature out."),
    row(From::Call, &[], &["execute command", "executecommand"], Why::Settings,
        "ECS Exec needs a task role in the task definition (with ssmmessages actions) and a writable root file system; or set `enable_execute_command = false` under [fargate]."),
    row(From::Call, &[], &["network configuration"], Why::Settings,
        "The task definition's `networkMode` must be awsvpc, and `subnets` under [fargate] set."),
    row(From::Call, &[], &["overrides length"], Why::Settings,
        "Pass less by the container's environment: AWS takes 8,192 characters of overrides in all."),
    row(From::Call, &[], &["new arn*must be enabled"], Why::Settings,
        "Opt in to long ARNs for tasks: aws ecs put-account-setting-default --name taskLongArnFormat --value enabled."),
    row(From::Call, &["TagPolicyException", "TagPolicyViolation"], &[], Why::Settings,
        "Let the [tags] table follow the organisation's tag policy."),
    row(From::Call, &[], &["tag policy", "tagpolicy", "invalid tag", "too many tags", "tag key", "tag value", "duplicate tag"], Why::Settings,
        "Correct the [tags] table (and the task definition's tags where `propagate_tags` is on): AWS takes 50 tags in all, and only what tag policies allow."),
    row(From::Call, &[], &["task was not found", "task not found", "the referenced task"], Why::NotFound,
        "AWS does not know this task (any more): it is over, or `region`, `cluster` or the role changed since it was started."),
    row(From::Call, &["InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterfaceId.NotFound"], &[], Why::NotFound,
        "The task's network interface is gone, and so is the task, most likely."),
    row(From::Call, &["ConflictException", "IdempotentParameterMismatch"], &[], Why::Conflict,
        "A task was started before with this token but another request; it is ended first. Were settings changed in between? Retry the job."),
    row(From::Call, &["LimitExceededException", "ServiceQuotaExceededException", "ResourceLimitExceeded", "VcpuLimitExceeded"], &[], Why::Quota,
        "A quota of this account is used up (Service Quotas, ECS and Fargate): ask AWS for more, or run fewer jobs at once."),
    row(From::Call, &["MalformedPolicyDocument", "PackedPolicyTooLarge", "PackedPolicyTooLargeException"], &[], Why::Settings,
        "Send fewer or shorter session tags: take variables out of SESSION_VARS."),
    row(From::Call, &["RegionDisabledException"], &[], Why::Settings,
        "STS is off for this region in the account: turn it on, or correct `region` under [fargate]."),

    // AWS itself.
    row(From::Call, &["ServerException", "InternalFailure", "InternalError", "InternalServerError", "InternalServerException", "InternalServiceError", "ServiceUnavailable", "ServiceUnavailableException", "Unavailable",
        "RequestTimeout", "RequestTimeoutException", "IDPCommunicationError"], &[], Why::Outage,
        "AWS is in trouble (health.aws.amazon.com); the call was sent again for some minutes; retry the job later."),
    row(From::Call, &[], &["service unavailable", "internal server error", "bad gateway", "gateway timeout", "try again later"], Why::Outage,
        "AWS is in trouble (health.aws.amazon.com); the call was sent again for some minutes; retry the job later."),
    row(From::Nothing, &[], &[], Why::Outage,
        "This host does not reach AWS for {call}: check its route, DNS, proxy and security group (port 443), and that `region` under [fargate] exists."),
    // What is left of these is always about what was sent.
    row(From::Call, &["InvalidParameterException", "ValidationException", "ValidationError", "InvalidParameterValue", "InvalidParameterCombination", "SerializationException", "MissingParameter", "InvalidAction"], &[], Why::Settings,
        "Compare what AWS says with the [fargate] table and the task definition."),
];
