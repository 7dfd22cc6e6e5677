//! EC2's own wordings, tried before the common table: what they mean for an instance, with remedies that name `[ec2]`.

use super::Why;
use super::table::{DENIED, From, Row, row};

const NO_ROOM_REMEDY: &str = "Name more `instance_types` (of several families) and `subnets` in more zones under [ec2], add a rung to `capacity` \
     (`ec2` behind `ec2-spot`, say), or let jobs wait longer with `capacity_wait`.";

const QUOTA_REMEDY: &str = "Ask AWS for a higher quota in this region (Service Quotas, EC2: running instances count vCPUs, on demand and Spot have one each), \
     or run fewer jobs at once (`concurrent` in the Runner's config.toml).";

const SPOT_REMEDY: &str = "Let GitLab retry such jobs by themselves (`retry: when: runner_system_failure` in .gitlab-ci.yml); for jobs that cannot bear this, put `ec2` before \
     `ec2-spot` in `capacity`, for them alone by a [[profile]].";

const THROTTLE_REMEDY: &str = "AWS limits how often {call} may be called; have fewer jobs start at once (`request_concurrency`, `concurrent` in the Runner's config.toml), or ask AWS \
     to raise the limit.";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // Why an instance ended: AWS's codes say whose doing it was.
    row(From::Stop, &["Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"], &[], Why::Interrupted, SPOT_REMEDY),
    row(From::Stop, &["Server.InsufficientInstanceCapacity"], &[], Why::NoRoom, NO_ROOM_REMEDY),
    row(From::Stop, &["Server.InternalError"], &[], Why::HostGone,
        "AWS could not bring the instance up, or lost the host under it; retry the job."),
    row(From::Stop, &["Server.ScheduledStop"], &[], Why::HostGone,
        "AWS took the host under the instance out of service; retry the job."),
    row(From::Stop, &["Client.VolumeLimitExceeded"], &[], Why::Quota,
        "Ask AWS for more volumes or volume storage in this region (Service Quotas, EBS), or make `volume_size` under [ec2] smaller."),
    row(From::Stop, &["Client.InternalError"], &[], Why::Settings,
        "Most often the volume's encryption key: let the driver's role (or AWSServiceRoleForEC2Spot) use the KMS key of the image's snapshot (kms:CreateGrant, kms:Decrypt)."),
    row(From::Stop, &["Client.InvalidSnapshot.NotFound"], &[], Why::Image,
        "The image's snapshot is gone: correct `image_id` under [ec2]."),
    row(From::Stop, &["Client.InstanceInitiatedShutdown"], &[], Why::Exited,
        "The instance shut itself down: its last limit (the job's timeout and `deadline_margin`), a script that calls shutdown, or what its image starts."),
    row(From::Stop, &["Client.UserInitiatedShutdown", "Client.UserInitiatedHibernate", "Client.InstanceTerminated"], &[], Why::StoppedBySomeone,
        "Somebody ended the instance: this driver, when the job was cancelled or `reap` found it without an owner, or a person; CloudTrail's TerminateInstances events say who."),
    row(From::Stop, &[], &["spot interruption", "spot instance termination", "spot*interrupt", "price-too-low", "no-spot-capacity", "instance-terminated-by-price", "instance-terminated-no-capacity"], Why::Interrupted, SPOT_REMEDY),
    row(From::Stop, &[], &["user initiated"], Why::StoppedBySomeone,
        "Somebody ended the instance: this driver, when the job was cancelled or `reap` found it without an owner, or a person; CloudTrail's TerminateInstances events say who."),
    row(From::Stop, &[], &[], Why::Other, "See the instance in the EC2 console (its state transition reason), and retry the job."),

    // Room.
    row(From::Call, &["SpotMaxPriceTooLow"], &[], Why::NoRoom,
        "`max_price` under [ec2] is below what Spot costs now: raise it, or take it out (Spot never costs more than on demand), or add the rung `ec2` to `capacity`."),
    row(From::Call, &["InsufficientInstanceCapacity", "InsufficientCapacityOnHost", "UnfulfillableCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity", "InsufficientCapacity"], &[], Why::NoRoom, NO_ROOM_REMEDY),
    row(From::Call, &["Unsupported"], &[], Why::NoRoom,
        "That type does not exist in that zone, or not as it is asked for (processor of the image, Spot): name others in `instance_types`, or subnets of other zones, under [ec2]."),
    row(From::Call, &["InsufficientFreeAddressesInSubnet", "InsufficientAddressCapacity", "InsufficientCidrBlocks", "PrivateIpAddressLimitExceeded"], &[], Why::NoRoom,
        "Free addresses, or name larger `subnets`, or some in more zones, under [ec2]: each instance takes one address."),
    row(From::Call, &["MaxSpotInstanceCountExceeded", "TargetCapacityLimitExceededException", "ResourceLimitExceeded", "InstanceLimitExceeded", "VcpuLimitExceeded", "ResourceCountLimitExceeded",
        "VolumeLimitExceeded", "MaxIOPSLimitExceeded", "MaxSpotFleetRequestCountExceeded", "AddressLimitExceeded", "NetworkInterfaceLimitExceeded", "InstanceCreditSpecification.LimitExceeded"], &[], Why::Quota, QUOTA_REMEDY),

    // Throttles.
    row(From::Call, &["RequestLimitExceeded", "ThrottlingException", "Throttling", "RequestThrottled", "EC2ThrottledException", "SlowDown", "RequestResourceCountExceeded"], &[], Why::Throttled, THROTTLE_REMEDY),

    // What may not be done. The actions first that people forget.
    row(From::Call, DENIED, &["perform: iam:passrole", "perform iam:passrole"], Why::Denied,
        "Allow the driver's role iam:PassRole on the role of `instance_profile` under [ec2] (with the condition iam:PassedToService = ec2.amazonaws.com)."),
    row(From::Call, DENIED, &["perform: ec2:createtags", "perform ec2:createtags"], Why::Denied,
        "Allow the driver's role ec2:CreateTags (with the condition ec2:CreateAction = CreateFleet, RunInstances and CreateLaunchTemplate): an instance without tags could not be found again."),
    row(From::Call, DENIED, &["perform: iam:createservicelinkedrole", "perform iam:createservicelinkedrole"], Why::Denied,
        "Create the service-linked roles of EC2 fleets and Spot once for the account: aws iam create-service-linked-role --aws-service-name ec2fleet.amazonaws.com, and the same for spot.amazonaws.com."),
    row(From::Call, DENIED, &["perform: ssm:getparameter", "perform ssm:getparameter"], Why::Denied,
        "Allow the driver's role ssm:GetParameters on the parameter that `image_id` under [ec2] names."),
    row(From::Call, &["AuthFailure.ServiceLinkedRoleCreationNotPermitted"], &[], Why::Denied,
        "Create Spot's service-linked role once for the account: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com."),
    row(From::Call, DENIED, &["service control policy", "explicit deny", "permissions boundary", "resource control policy"], Why::Denied,
        "A deny above the role's own policies (service control policy, permissions boundary, explicit Deny) forbids {action}: take it to whoever owns that policy."),
    row(From::Call, DENIED, &[], Why::Denied,
        "Allow the driver's role {action}: `gitlab-aws-driver check --iam` prints the whole policy for this configuration, whose conditions name its `fleet`."),
    row(From::Call, &["AuthException"], &[], Why::Denied,
        "Allow the driver's role {action} on the fleet's instances (`gitlab-aws-driver check --iam` prints the policy; its conditions name the `fleet`), or take `instance_connect` out under [ec2]."),
    row(From::Call, &["PendingVerification", "Blocked", "OptInRequired"], &[], Why::Denied,
        "AWS has not opened this account (or this image's marketplace subscription) for it yet; it says more in the account's own mail."),

    // What is not there.
    row(From::Call, &["InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.NotFoundException", "InvalidLaunchTemplateId.VersionNotFound", "InvalidLaunchTemplateName.NotFound"], &[], Why::NotFound,
        "Correct `launch_template` under [ec2]: this account has no such template, or not in this version, in this region."),
    row(From::Call, &["InvalidInstanceID.NotFound"], &[], Why::NotFound,
        "EC2 does not know this instance (any more): it is over, or `region` or the role changed since it was started."),
    row(From::Call, &["EC2InstanceNotFoundException", "EC2InstanceStateInvalidException"], &[], Why::NotFound,
        "EC2 Instance Connect sends keys to running instances alone: see the instance in the EC2 console, and retry the job."),
    row(From::Call, &["EC2InstanceUnavailableException"], &[], Why::Outage,
        "The instance is there and AWS cannot reach it; the call was sent again for a while; retry the job."),
    row(From::Call, &["EC2InstanceTypeInvalidException"], &[], Why::Settings,
        "EC2 Instance Connect does not take this type: name others in `instance_types`, or take `instance_connect` out, under [ec2]."),
    row(From::Call, &["InvalidArgsException"], &[], Why::Settings,
        "EC2 Instance Connect takes no such login or key: correct [ssh] username (letters, digits, '.', '_', '-' and '@'), or take `instance_connect` out under [ec2]."),
    row(From::Call, &["InvalidVolume.NotFound", "InvalidSpotInstanceRequestID.NotFound"], &[], Why::NotFound,
        "It is gone already."),
    row(From::Call, &["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidAMIID.Malformed", "InvalidAMIName.NotFound"], &[], Why::Settings,
        "Correct `image_id` under [ec2]: this region has no such image, or it is not shared with this account."),
    row(From::Call, &[], &["ssm parameter", "resolve:ssm", "systems manager parameter", "parameternotfound"], Why::Settings,
        "Correct `image_id` under [ec2]: the SSM parameter does not exist in this region, or holds no image's id, or the driver's role may not read it (ssm:GetParameters)."),
    row(From::Call, &["InvalidSubnetID.NotFound", "InvalidSubnetId.NotFound", "InvalidSubnet", "InvalidSubnetID.Malformed"], &[], Why::Settings,
        "Correct `subnets` under [ec2]: one of them does not exist in this account and region."),
    row(From::Call, &["InvalidGroup.NotFound", "InvalidGroupId.Malformed", "InvalidSecurityGroupID.NotFound", "InvalidSecurityGroupId.Malformed"], &[], Why::Settings,
        "Correct `security_groups` under [ec2]: one of them does not exist in this account and region."),
    row(From::Call, &[], &["security group*subnet*different network", "belong to different networks", "security group*vpc"], Why::Settings,
        "Name `subnets` and `security_groups` of one and the same VPC under [ec2]."),
    row(From::Call, &["InvalidKeyPair.NotFound"], &[], Why::Settings,
        "Correct `key_name` under [ec2], or leave it out: jobs bring keys of their own."),
    row(From::Call, &[], &["iam instance profile", "iaminstanceprofile"], Why::Settings,
        "Correct `instance_profile` under [ec2]: no such instance profile (it is not the role's name, unless both are called the same)."),
    row(From::Call, &["InvalidFleetConfig", "InvalidFleetConfiguration"], &[], Why::Settings,
        "Two of `subnets` under [ec2] lie in one zone: allow the driver's role ec2:DescribeSubnets, by which it chooses one in each zone, or name one a zone yourself."),
    row(From::Call, &["InvalidBlockDeviceMapping"], &[], Why::Settings,
        "Correct `volume_size` and `volume_type` under [ec2]: the root volume cannot be smaller than the image's snapshot."),
    row(From::Call, &[], &["architecture"], Why::Settings,
        "`image_id` and `instance_types` under [ec2] are of different processors (x86_64, arm64): name types of the image's."),
    row(From::Call, &["InvalidInstanceType", "InvalidParameterValue"], &["instance type", "instancetype"], Why::Settings,
        "Correct `instance_types` under [ec2]: one of them does not exist."),
    row(From::Call, &["IdempotentParameterMismatch", "IdempotentInstanceTerminated"], &[], Why::Conflict,
        "An instance was asked for before with this token but another request; it is ended first. Retry the job."),
    row(From::Call, &["InvalidLaunchTemplateName.AlreadyExistsException"], &[], Why::Conflict,
        "Another process has just made the template."),
    row(From::Call, &["TagPolicyViolation", "TagLimitExceeded", "InvalidTagKey.Malformed"], &[], Why::Settings,
        "Correct the [tags] table: AWS takes 50 tags in all, and only what tag policies allow."),
    row(From::Call, &["InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "Server.InternalError", "ServiceException"], &[], Why::Outage,
        "AWS is in trouble (health.aws.amazon.com); the call was sent again for some minutes; retry the job later."),
    row(From::Call, &["InvalidParameter", "InvalidParameterValue", "InvalidParameterCombination", "MissingParameter", "ValidationError", "InvalidInput", "UnsupportedOperation", "UnknownParameter", "InvalidUserData.Malformed",
        "InvalidRequest", "InvalidParameterDependency"], &[], Why::Settings,
        "Compare what AWS says with the [ec2] table (and with `launch_template`, where it names one)."),
];
