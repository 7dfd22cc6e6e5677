//! EC2's own wordings, tried before those of all services: what they mean for an instance, with remedies that name `[ec2]`.
//!
//! EC2's codes have a shape (`Invalid….NotFound`, `…LimitExceeded`, `Insufficient…`), by which those are read that no row names.

use super::table::{DENIED, From, Row, row};
use crate::machine::verdict::Why;

const CODES: &str = "EC2 API: Error codes";
const STATE: &str = "EC2 API: StateReason";
const FLEET: &str = "EC2 guide: EC2 Fleet, error codes of instant fleets";
const CONNECT: &str = "EC2 Instance Connect API: SendSSHPublicKey, Errors";

pub(super) const NO_ROOM: &str = "Name more `instance_types` (of several families) and `subnets` in more zones under [ec2], or add a rung to `capacity` \
     (`ec2` behind `ec2-spot`, say).";
const QUOTA: &str = "Ask AWS for a higher quota in this region (Service Quotas, EC2: running instances count vCPUs, on demand and Spot have one each), \
     or run fewer jobs at once (`concurrent` in the Runner's config.toml).";
/// For a quota that one machine exceeds.
pub(super) const ALONE: &str = "The account's quota does not allow for one such instance: ask AWS for a higher quota in this region (Service Quotas, EC2: running instances count \
     vCPUs, on demand and Spot have one each), or name smaller or other `instance_types` under [ec2].";
const VOLUMES: &str = "Ask AWS for more volumes or volume storage in this region (Service Quotas, EBS), or make `volume_size` under [ec2] smaller.";
const SPOT: &str = "Retry the job, and let GitLab retry such jobs by themselves (`retry: when: runner_system_failure` in .gitlab-ci.yml); for jobs that cannot bear this, put `ec2` before \
     `ec2-spot` in `capacity`, for them alone by a [[profile]].";
const KEY: &str = "The volume's encryption key cannot be used: let the driver's role (for Spot AWSServiceRoleForEC2Spot) use the KMS key of the image's snapshot or of the account's default encryption \
     (kms:CreateGrant, kms:Decrypt, kms:GenerateDataKeyWithoutPlaintext), and see that the key is enabled.";
const SOMEONE: &str = "Somebody ended the instance: this driver, when the job was cancelled or `reap` found it without an owner, or a person; CloudTrail's TerminateInstances events say who.";
const IMAGE: &str = "Correct `image_id` under [ec2]: this region has no such image, or it is not shared with this account.";
const VOLUME: &str = "Correct `volume_size` and `volume_type` under [ec2] (or the volumes of `launch_template`): the root volume cannot be smaller than the image's snapshot, and size, type, iops and throughput have to go together.";
const ONE_VPC: &str = "Name `subnets` and `security_groups` of one and the same VPC under [ec2].";
const TYPE_ZONE: &str = "That zone does not have this type: name other `instance_types`, or `subnets` of other zones, under [ec2].";
const TAGS: &str =
    "Correct the [tags] table: AWS takes 50 tags in all, and only what tag policies allow.";
const ACCOUNT: &str = "AWS has not opened this account for it, or has closed it: the account's own mail says more, else AWS support.";
const COMPARE: &str =
    "Compare what AWS says with the [ec2] table (and with `launch_template`, where it names one).";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // Why an instance ended: AWS's codes say whose doing it was.
    row(From::End, Why::Settings, KEY, "ie-01, ie-02, ie-03; EC2 API: StateReason; re:Post: Client.InternalError on launch")
        .code(&["Client.InternalError", "*KMS*", "*.CustomerKeyHasBeenRevoked"]),
    row(From::End, Why::Interrupted, SPOT, "ie-09, ie-11; EC2 API: StateReason")
        .code(&["Server.Spot*"]),
    row(From::End, Why::NoRoom, NO_ROOM, "ie-06; EC2 API: StateReason")
        .code(&["Server.Insufficient*"]),
    row(From::End, Why::Exited, "The instance shut itself down: its last limit (the job's timeout and `deadline_margin`), a script that calls shutdown, or what its image starts.", STATE)
        .code(&["Client.InstanceInitiated*"]),
    row(From::End, Why::StoppedBySomeone, SOMEONE, STATE)
        .code(&["Client.UserInitiated*", "Client.InstanceTerminated"]),
    row(From::End, Why::HostGone, "AWS took the host under the instance out of service; retry the job.", "ie-05; EC2 API: StateReason")
        .code(&["Server.Scheduled*"]),
    row(From::End, Why::HostGone, "AWS could not bring the instance up, or lost the host under it; retry the job.", "ie-04; EC2 API: StateReason")
        .code(&["Server.*"]),
    row(From::End, Why::Interrupted, SPOT, "EC2 API: SpotInstanceStatus; instance's StateTransitionReason")
        .says(&["spot interruption", "spot instance termination", "spot*interrupt", "spot*interruption", "price-too-low", "no-spot-capacity", "instance-terminated-by-price", "instance-terminated-no-capacity", "instance-terminated-capacity-oversubscribed"]),
    row(From::End, Why::StoppedBySomeone, SOMEONE, "EC2 API: Instance, StateTransitionReason")
        .says(&["user initiated", "user initiated*"]),

    // Room.
    row(From::Call, Why::Short, "`max_price` under [ec2] is below what Spot costs now: raise it, or take it out (Spot never costs more than on demand), or add the rung `ec2` to `capacity`.", "fe-13")
        .code(&["SpotMaxPriceTooLow"]),
    row(From::Call, Why::Short, "Free addresses, or name larger `subnets`, or some in more zones, under [ec2]: each instance takes one address.", "fe-12; EC2 API: Error codes")
        .code(&["InsufficientFreeAddresses*", "InsufficientAddressCapacity", "InsufficientCidrBlocks", "PrivateIpAddressLimitExceeded", "*IpAddressLimitExceeded"]),
    row(From::Call, Why::NoRoom, "EBS has no room there: name `subnets` in other zones, or another `volume_type`, under [ec2].", CODES)
        .code(&["InsufficientVolumeCapacity"]),
    row(From::Call, Why::NoRoom, NO_ROOM, "fe-01, fe-02, fe-37; EC2 API: Error codes")
        .code(&["Insufficient*Capacity*", "InsufficientCapacity*", "UnfulfillableCapacity", "ReservationCapacityExceeded"]),
    row(From::Call, Why::NoRoom, NO_ROOM, "fe-01, fe-37, without their code")
        .says(&["we currently do not have sufficient*capacity", "there is no spot capacity available", "there is not enough capacity", "insufficient capacity", "insufficient instance capacity"]),
    // What only the image's seller has.
    row(From::Call, Why::Denied, "Subscribe the account to the image's product on AWS Marketplace (the page that the cause names), or take another `image_id` under [ec2].", "fe-14")
        .says(&["in order to use this aws marketplace product", "you are not authorized to use the requested product", "you are not subscribed to this product"]).names(&["Marketplace*"]),
    row(From::Call, Why::Settings, "The image's product on AWS Marketplace is not for these `instance_types` or this region: its page (the cause names it) says for which, else take another `image_id` under [ec2].", "AWS Marketplace guide: AMI products")
        .says(&["the instance configuration for this aws marketplace product is not supported"]),
    // What a zone does not have today it does not have in ten minutes.
    row(From::Call, Why::Never, TYPE_ZONE, "fe-03, fe-04")
        .says(&["your requested instance type*is not supported in", "the requested instance type*is not supported in", "the instance type*is not supported in", "your requested instance type*not supported in your requested availability zone"]),
    row(From::Call, Why::Never, VOLUME, CODES)
        .code(&["VolumeTypeNotAvailable*"]),
    row(From::Call, Why::Short, "That type is not to be had so in that zone (processor of the image, Spot): name others in `instance_types`, or `subnets` of other zones, under [ec2].", "EC2 API: Error codes; EC2 guide: EC2 Fleet")
        .code(&["Unsupported"]),

    // Quotas. Those of what one request may hold are settings.
    row(From::Call, Why::Settings, TAGS, "fe-36; EC2 API: Error codes")
        .code(&["TagPolicyViolation", "TagLimitExceeded", "InvalidTagKey.Malformed"]),
    row(From::Call, Why::Settings, COMPARE, CODES)
        .code(&["AttachmentLimitExceeded", "SecurityGroupsPer*LimitExceeded", "FilterLimitExceeded"]),
    row(From::Call, Why::Quota, VOLUMES, "fe-11, ie-07; EC2 API: Error codes")
        .code(&["VolumeLimitExceeded", "MaxIOPSLimitExceeded", "*VolumeLimitExceeded"]),
    row(From::Call, Why::Busy, "A quota of this account is used up (Service Quotas, EC2 Fleet: fleets of this region), and frees up by itself as fleets are forgotten: retry the job, or run fewer jobs at once.", "fe-10")
        .code(&["MaxFleetCountExceeded"]),
    row(From::Call, Why::Throttled, "AWS limits how often {call} may be called; have fewer jobs start at once (`request_concurrency`, `concurrent` in the Runner's config.toml), or ask AWS to raise the limit.", "fe-29; EC2 API: Error codes")
        .code(&["RequestLimitExceeded", "RequestResourceCountExceeded", "RequestThrottled", "EC2ThrottledException", "SlowDown", "Throttling", "ThrottlingException", "*RateExceeded"]),
    row(From::Call, Why::Throttled, "AWS limits how often {call} may be called; have fewer jobs start at once (`request_concurrency`, `concurrent` in the Runner's config.toml), or ask AWS to raise the limit.", "fe-29, under another code")
        .says(&["rate exceeded", "request rate exceeded", "request limit exceeded", "too many requests"]),
    row(From::Call, Why::Quota, QUOTA, "fe-05 to fe-09; EC2 API: Error codes; EC2 guide: EC2 Fleet")
        .code(&["MaxSpotInstanceCountExceeded", "MaxSpotFleetRequestCountExceeded", "Max*Exceeded", "TargetCapacityLimitExceededException", "ResourceLimitExceeded", "InstanceLimitExceeded", "VcpuLimitExceeded", "ResourceCountLimitExceeded",
            "AddressLimitExceeded", "NetworkInterfaceLimitExceeded", "InstanceCreditSpecification.LimitExceeded", "*LimitExceeded", "*LimitExceededException", "ServiceQuotaExceeded*"]),

    // What may not be done. The actions first that people forget.
    row(From::Call, Why::Denied, "Allow the driver's role iam:PassRole on the role of `instance_profile` under [ec2] (with the condition iam:PassedToService = ec2.amazonaws.com).", "fe-25")
        .code(DENIED).says(&["iam:passrole"]),
    row(From::Call, Why::Denied, "Allow the driver's role ec2:CreateTags (with the condition ec2:CreateAction = CreateFleet, RunInstances and CreateLaunchTemplate): an instance without tags could not be found again.", CODES)
        .code(DENIED).says(&["ec2:createtags"]),
    row(From::Call, Why::Denied, "Create the service-linked roles of EC2 fleets and Spot once for the account: aws iam create-service-linked-role --aws-service-name ec2fleet.amazonaws.com, and the same for spot.amazonaws.com.", "EC2 guide: EC2 Fleet prerequisites")
        .code(DENIED).says(&["iam:createservicelinkedrole"]),
    row(From::Call, Why::Denied, "Allow the driver's role ssm:GetParameters on the parameter that `image_id` under [ec2] names.", "EC2 guide: Use a Systems Manager parameter in place of an AMI's id")
        .code(DENIED).says(&["ssm:getparameter", "ssm:getparameters"]),
    row(From::Call, Why::Denied, "Create Spot's service-linked role once for the account: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com.", "EC2 guide: Service-linked role for Spot")
        .code(&["AuthFailure.ServiceLinkedRoleCreationNotPermitted"]),
    row(From::Call, Why::Denied, "Allow the driver's role {action}: `gitlab-aws-driver check --iam` prints the whole policy for this configuration, whose conditions name its `fleet`.", "fe-38; EC2 API: Error codes")
        .code(DENIED),
    row(From::Call, Why::Denied, "Allow the driver's role {action} on the fleet's instances (`gitlab-aws-driver check --iam` prints the policy; its conditions name the `fleet`), or take `instance_connect` out under [ec2].", CONNECT)
        .code(&["AuthException"]),
    row(From::Call, Why::Settings, IMAGE, "EC2 API: Error codes, AuthFailure")
        .code(&["AuthFailure"]).says(&["not authorized for images"]),
    row(From::Call, Why::Denied, ACCOUNT, "fe-15; EC2 API: Error codes")
        .code(&["PendingVerification", "Blocked", "OptInRequired", "AccountDisabled"]),

    // What is not there.
    row(From::Call, Why::NotFound, "Correct `launch_template` under [ec2]: this account has no such template, or not in this version, in this region.", "fe-32; EC2 API: Error codes")
        .code(&["InvalidLaunchTemplateName.NotFound*", "InvalidLaunchTemplateId.NotFound*", "InvalidLaunchTemplateId.VersionNotFound", "InvalidLaunchTemplate*NotFound*"]),
    row(From::Call, Why::NotFound, "EC2 does not know this instance (any more): it is over, or `region` or the role changed since it was started.", CODES)
        .code(&["InvalidInstanceID.NotFound"]),
    row(From::Call, Why::NotFound, "EC2 Instance Connect sends keys to running instances alone: see the instance in the EC2 console, and retry the job.", CONNECT)
        .code(&["EC2InstanceNotFoundException", "EC2InstanceStateInvalidException"]),
    row(From::Call, Why::Outage, "The instance is there and AWS cannot reach it; the call was sent again for a while; retry the job.", CONNECT)
        .code(&["EC2InstanceUnavailableException"]),
    row(From::Call, Why::Settings, "EC2 Instance Connect does not take this type: name others in `instance_types`, or take `instance_connect` out, under [ec2].", CONNECT)
        .code(&["EC2InstanceTypeInvalidException"]),
    row(From::Call, Why::Settings, "EC2 Instance Connect takes no such login or key: correct `username` under [ec2] or [ssh] (letters, digits, '.', '_', '-' and '@'), or take `instance_connect` out under [ec2].", CONNECT)
        .code(&["InvalidArgsException"]),
    row(From::Call, Why::NotFound, "It is gone already.", CODES)
        .code(&["InvalidVolume.NotFound", "InvalidSpotInstanceRequestID.NotFound"]),
    row(From::Call, Why::Settings, "The SSM parameter that `image_id` under [ec2] names does not have the data type `aws:ec2:image`, which EC2 asks for: make one that has it (aws ssm put-parameter --data-type aws:ec2:image), or write the image's id.", "EC2 guide: Use a Systems Manager parameter in place of an AMI's id; aws/aws-cdk#26712")
        .says(&["unsupported data type", "the following parameter data types are supported"]),
    row(From::Call, Why::Settings, "Correct `image_id` under [ec2]: the SSM parameter does not exist in this region, or holds no image's id, or the driver's role may not read it (ssm:GetParameters).", "EC2 guide: Use a Systems Manager parameter in place of an AMI's id")
        .code(&["Ssm*", "ParameterNotFound*", "ParameterVersionNotFound*"]),
    row(From::Call, Why::Settings, "Correct `image_id` under [ec2]: the SSM parameter does not exist in this region, or holds no image's id, or the driver's role may not read it (ssm:GetParameters).", "EC2 guide: Use a Systems Manager parameter in place of an AMI's id")
        .says(&["unable to resolve the ssm parameter", "ssm parameter", "the ssm parameter", "systems manager parameter", "the following aliases are invalid", "parameternotfound", "invalid ssm parameter", "unable to resolve"]),
    row(From::Call, Why::Settings, IMAGE, "fe-27, fe-39; EC2 API: Error codes")
        .code(&["InvalidAMIID.*", "InvalidAMIName.*", "InvalidManifest"]),
    row(From::Call, Why::Image, "The image's snapshot is gone: correct `image_id` under [ec2].", "fe-26, ie-08; EC2 API: Error codes")
        .code(&["InvalidSnapshot.*", "InvalidSnapshotID.*"]),
    row(From::Call, Why::Settings, KEY, "fe-28; EC2 API: Error codes")
        .code(&["*KMS*", "CustomerKeyHasBeenRevoked", "EncryptedVolumesNotSupported"]),
    row(From::Call, Why::Settings, "Correct `subnets` under [ec2]: one of them does not exist in this account and region.", "fe-35; EC2 API: Error codes")
        .code(&["InvalidSubnet*"]),
    row(From::Call, Why::Settings, ONE_VPC, "fe-23; EC2 API: Error codes")
        .says(&["security group*belong to different networks", "security group*and subnet*different networks", "the security group*does not belong to", "security group*vpc", "the security group*vpc"]),
    row(From::Call, Why::Settings, "Correct `security_groups` under [ec2]: one of them does not exist in this account and region.", CODES)
        .code(&["InvalidGroup*", "InvalidSecurityGroup*"]),
    row(From::Call, Why::Settings, "Correct `security_groups` under [ec2]: one of them does not exist in this account and region.", CODES)
        .says(&["invalid security group", "the security group*does not exist", "specified security group", "the specified security group*"]),
    row(From::Call, Why::Settings, "Correct `key_name` under [ec2], or leave it out: jobs bring keys of their own.", "fe-40; EC2 API: Error codes")
        .code(&["InvalidKeyPair*", "InvalidKey.*"]),
    row(From::Call, Why::Settings, "The instance profile of `instance_profile` under [ec2] has no role in it: put one in (aws iam add-role-to-instance-profile), or name another.", "fe-18")
        .says(&["iam instance profile*has no associated iam role", "iam instance profile*has no associated iam roles"]),
    row(From::Call, Why::Settings, "Correct `instance_profile` under [ec2]: no such instance profile (it is not the role's name, unless both are called the same).", "fe-17")
        .says(&["value*for parameter iaminstanceprofile", "invalid iam instance profile", "iam instance profile", "the iam instance profile"]),
    row(From::Call, Why::Settings, "Correct `instance_profile` under [ec2]: no such instance profile (it is not the role's name, unless both are called the same).", CODES)
        .code(&["InvalidIamInstanceProfile*", "InvalidIAMInstanceProfile*"]),
    row(From::Call, Why::Settings, "Two of `subnets` under [ec2] lie in one zone: allow the driver's role ec2:DescribeSubnets, by which it chooses one in each zone, or name one a zone yourself.", "fe-33")
        .says(&["the fleet configuration contains duplicate instance pools", "duplicate instance pools"]),
    row(From::Call, Why::Settings, VOLUME, "fe-19, ie-10; EC2 API: Error codes")
        .code(&["InvalidBlockDeviceMapping", "BootForVolumeTypeUnsupported", "InvalidVolume*", "UnknownVolumeType*"]),
    row(From::Call, Why::Settings, VOLUME, "ie-10")
        .says(&["could not create volume", "volume of size", "volume size", "the volume size", "volume iops", "iops", "the parameter iops", "the parameter 'iops", "the parameter volume", "the parameter 'volume", "invalid value*for volume", "maximum ratio of", "throughput", "volume type"]),

    // Image and type.
    row(From::Call, Why::Settings, "`image_id` and `instance_types` under [ec2] are of different processors (x86_64, arm64): name types of the image's.", "fe-20")
        .says(&["the architecture*does not match the architecture", "the architecture*of the specified", "the requested instance type*architecture", "the instance type*architecture", "architecture"]),
    row(From::Call, Why::Settings, "The image wants another boot mode (UEFI or BIOS) than these `instance_types` under [ec2] have: name types that have it, or an `image_id` for both.", "fe-21")
        .says(&["the instance type*boot mode", "the specified instance type*boot mode", "the boot mode", "boot mode", "the requested boot mode", "nitrotpm"]),
    row(From::Call, Why::Settings, "The image is not made for these `instance_types` under [ec2]: name types that it takes, or another `image_id`.", "EC2 API: DescribeImages, InstanceTypeSpecification")
        .says(&["this ami does not support the specified instance type", "the specified ami*instance type", "the ami*does not support", "non-windows instances with a virtualization type", "windows instances with a virtualization type"]),
    row(From::Call, Why::Settings, "The image lacks a driver that these `instance_types` under [ec2] need: take an `image_id` with ENA and NVMe (enaSupport in describe-images), or older types.", "fe-22")
        .says(&["enhanced networking with", "enhanced networking", "nvme", "the specified image*ena"]),
    row(From::Call, Why::Settings, "This account may start some `instance_types` only (its Free Tier plan): name such types under [ec2], or upgrade the account's plan.", "fe-16")
        .says(&["the specified instance type is not eligible for free tier", "the instance type*is not eligible for free tier", "*not eligible for free tier"]),
    row(From::Call, Why::Settings, "Correct `instance_types` under [ec2]: one of them does not exist, or not as it is asked for.", CODES)
        .code(&["InvalidInstanceType*"]),
    row(From::Call, Why::Settings, "Correct `instance_types` under [ec2]: one of them does not exist, or not as it is asked for.", CODES)
        .code(&["InvalidParameter*"]).says(&["invalid value*for instancetype", "invalid instance type", "the instance type", "instance type", "the following supplied instance types do not exist"]),
    row(From::Call, Why::Settings, "None of `instance_types` under [ec2] has as much as the job asks for: name larger ones, or ask for less by AWS_DRIVER_CPU and AWS_DRIVER_MEMORY.", FLEET)
        .says(&["no instance type", "no instance types"]),
    row(From::Call, Why::Settings, COMPARE, FLEET)
        .code(&["InvalidFleetConfig*"]),

    // The token, and the template.
    row(From::Call, Why::Conflict, "An instance was asked for before with this token but another request; it is ended first. Retry the job.", "fe-31; EC2 API: Error codes")
        .code(&["Idempotent*"]),
    row(From::Call, Why::Conflict, "Another process has just made the template.", CODES)
        .code(&["InvalidLaunchTemplateName.AlreadyExists*"]),
    row(From::Call, Why::Outage, "AWS is in trouble (health.aws.amazon.com); the call was sent again for some minutes; retry the job later.", "fe-30; EC2 API: Server error codes")
        .code(&["InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "ServiceException", "ServerInternal"]),

    // Who calls is told by all services alike, in words that begin as the next row's do.
    row(From::Call, Why::Credentials, "Give the driver valid credentials of the right partition (an instance profile on the bastion is best; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY otherwise), and check this host's clock.", CODES)
        .code(&["InvalidClientTokenId", "InvalidAccessKeyId", "InvalidSignatureException", "MissingAuthenticationToken*"]),
    // What is left of these is about what was asked for.
    row(From::Call, Why::Settings, COMPARE, "EC2 API: Error codes, by their shape")
        .code(&["Invalid*", "Malformed*", "Missing*", "Unknown*", "Unsupported*", "*NotSupported", "ValidationError", "ClientInvalidParameterValue", "VPCIdNotSpecified", "VPCResourceNotSpecified", "DefaultVpcDoesNotExist", "NoSuchVersion",
            "OperationNotPermitted", "ZonesMismatched", "NonEBSInstance"]),
];
