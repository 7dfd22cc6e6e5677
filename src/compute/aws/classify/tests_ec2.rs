//! EC2's table against its documented codes and wordings.

use super::*;
use crate::error::Kind;

fn denied(action: &str) -> String {
    format!(
        "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/bastion/i-0abc is not \
         authorized to perform: {action} on resource: arn:aws:ec2:eu-west-1:123456789012:instance/* because no \
         identity-based policy allows the {action} action. Encoded authorization failure message: 4GIOHlTk"
    )
}

#[test]
fn every_capacity_code_hands_over_as_an_error_of_the_call_and_of_a_pool() {
    for code in [
        "InsufficientInstanceCapacity",
        "InsufficientCapacityOnHost",
        "UnfulfillableCapacity",
        "SpotMaxPriceTooLow",
        "MaxSpotInstanceCountExceeded",
        "TargetCapacityLimitExceededException",
        "ResourceLimitExceeded",
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
        "Unsupported",
        "InsufficientFreeAddressesInSubnet",
    ] {
        for verdict in [
            service_error(Action::CreateFleet, code, "words"),
            fleet_error(code, "words", "m7i.large", 1),
        ] {
            assert!(verdict.why.hands_over(), "{code}: {:?}", verdict.why);
            assert!(verdict.why.is_worth_waiting() && !verdict.why.is_final());
            assert_eq!(verdict.why.kind(), Kind::Capacity, "{code}");
            assert!(!verdict.remedy.contains("[fargate]"), "{}", verdict.remedy);
            assert_eq!(verdict.cause, format!("{code}: words"));
        }
    }
    // Too many calls: the call itself is repeated, one pool is not waited for.
    let code = "RequestLimitExceeded";
    let call = service_error(Action::CreateFleet, code, "Request limit exceeded.");
    assert_eq!(call.why, Why::Throttled);
    assert!(call.remedy.contains("ec2:CreateFleet"), "{}", call.remedy);
    assert_eq!(fleet_error(code, "", "", 1).why, Why::Busy);
    assert_eq!(fleet_error("InternalError", "", "", 1).why, Why::Busy);
}

#[test]
fn every_code_is_found_in_the_page_for_people() {
    let page = include_str!("../../../../docs/troubleshooting.md");
    let tables = [
        ec2::TABLE,
        calls::TABLE,
        common::TABLE,
        stops::OF_OTHERS,
        stops::BY_ITSELF,
    ];
    for code in tables.into_iter().flatten().flat_map(Row::codes) {
        let shown = code.replace('*', "…");
        assert!(page.contains(&format!("`{shown}`")), "{shown}");
    }
}

#[test]
fn errors_of_calls() {
    use Action::{
        CreateFleet, CreateLaunchTemplate, DescribeInstances, DescribeSubnets, SendSshPublicKey,
        TerminateInstances,
    };
    let fleet = denied("ec2:CreateFleet");
    let tags = denied("ec2:CreateTags");
    let pass = denied("iam:PassRole");
    let subnets = denied("ec2:DescribeSubnets");
    let send = "User: arn:aws:iam::123456789012:user/bastion is not authorized to perform: ec2-instance-connect:SendSSHPublicKey on resource: \
                arn:aws:ec2:eu-west-1:123456789012:instance/i-1 because no identity-based policy allows the ec2-instance-connect:SendSSHPublicKey action";
    #[rustfmt::skip]
    let table: &[(Action, &str, &str, Why, &str)] = &[
        (CreateFleet, "UnauthorizedOperation", &fleet, Why::Denied, "ec2:CreateFleet"),
        (CreateFleet, "UnauthorizedOperation", &tags, Why::Denied, "ec2:CreateAction"),
        (CreateFleet, "UnauthorizedOperation", &pass, Why::Denied, "`instance_profile`"),
        (DescribeSubnets, "UnauthorizedOperation", &subnets, Why::Denied, "ec2:DescribeSubnets"),
        (CreateFleet, "AuthFailure.ServiceLinkedRoleCreationNotPermitted", "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances.", Why::Denied, "spot.amazonaws.com"),
        (CreateFleet, "InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name x, does not exist.", Why::NotFound, "`launch_template`"),
        (CreateFleet, "InvalidLaunchTemplateId.VersionNotFound", "Could not find the specified version 7 for the launch template with ID lt-1.", Why::NotFound, "`launch_template`"),
        (CreateLaunchTemplate, "InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.", Why::Conflict, ""),
        (CreateFleet, "IdempotentParameterMismatch", "The client token is already used with different parameters.", Why::Conflict, ""),
        (CreateFleet, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", Why::Settings, "`image_id`"),
        (CreateFleet, "InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", Why::Settings, "`subnets`"),
        (CreateFleet, "InvalidGroup.NotFound", "The security group 'sg-1' does not exist", Why::Settings, "`security_groups`"),
        (CreateFleet, "InvalidKeyPair.NotFound", "The key pair 'ops' does not exist", Why::Settings, "`key_name`"),
        (CreateFleet, "InvalidFleetConfig", "The fleet configuration contains duplicate instance pools", Why::Settings, "ec2:DescribeSubnets"),
        (CreateFleet, "InvalidBlockDeviceMapping", "Volume of size 4GB is smaller than snapshot 'snap-1', expect size >= 8GB", Why::Settings, "`volume_size`"),
        (CreateFleet, "InvalidParameterValue", "Value (ci) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", Why::Settings, "`instance_profile`"),
        (CreateFleet, "InvalidParameterValue", "The architecture 'arm64' of the specified instance type does not match the architecture 'x86_64' of the specified AMI.", Why::Settings, "processors"),
        (CreateFleet, "InvalidParameterValue", "Invalid value 'c7i.huge' for InstanceType.", Why::Settings, "`instance_types`"),
        (CreateFleet, "InvalidParameterValue", "Something else", Why::Settings, "[ec2]"),
        (DescribeInstances, "InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist", Why::NotFound, ""),
        (TerminateInstances, "InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist", Why::NotFound, ""),
        (DescribeInstances, "Unavailable", "The service is unavailable. Please try again shortly.", Why::Outage, ""),
        (DescribeInstances, "ExpiredToken", "The security token included in the request is expired", Why::Credentials, ""),
        (CreateFleet, "AuthFailure", "AWS was not able to validate the provided access credentials", Why::Credentials, ""),
        (SendSshPublicKey, "AccessDeniedException", send, Why::Denied, "ec2-instance-connect:SendSSHPublicKey"),
        (SendSshPublicKey, "AuthException", "Either your AWS credentials are not valid or you do not have access to the EC2 instance.", Why::Denied, "ec2-instance-connect:SendSSHPublicKey"),
        (SendSshPublicKey, "EC2InstanceNotFoundException", "Instance not found", Why::NotFound, "running"),
        (SendSshPublicKey, "EC2InstanceStateInvalidException", "Instance is not running", Why::NotFound, "running"),
        (SendSshPublicKey, "EC2InstanceUnavailableException", "The instance is currently unavailable. Wait a few minutes and try again.", Why::Outage, ""),
        (SendSshPublicKey, "EC2InstanceTypeInvalidException", "The instance type is not supported", Why::Settings, "`instance_types`"),
        (SendSshPublicKey, "InvalidArgsException", "Instance OS user is invalid", Why::Settings, "username"),
        (SendSshPublicKey, "ServiceException", "The service encountered an error. Follow the instructions in the error message and try again.", Why::Outage, ""),
        (SendSshPublicKey, "ThrottlingException", "Rate exceeded", Why::Throttled, "ec2-instance-connect:SendSSHPublicKey"),
        (CreateFleet, "NeverHeardOf", "x", Why::Other, "EC2 console"),
    ];
    for (action, code, words, why, remedy) in table {
        let verdict = service_error(*action, code, words);
        assert_eq!(verdict.why, *why, "{code}: {words}");
        assert!(
            verdict.remedy.contains(remedy),
            "{code}: {}",
            verdict.remedy
        );
        assert!(!verdict.remedy.contains("fargate"), "{}", verdict.remedy);
    }
    // What is final spares tries two and three; what may pass does not.
    assert!(Why::Settings.is_final() && Why::Denied.is_final() && !Why::NotFound.is_final());
}

#[test]
fn a_host_that_reaches_nobody_is_told_of_the_right_table() {
    let verdict = no_answer(
        Action::CreateFleet,
        "region must be set when sending requests",
    );
    assert_eq!(verdict.why, Why::Settings);
    assert!(verdict.remedy.contains("under [ec2]"), "{}", verdict.remedy);
}

#[test]
fn why_instances_end() {
    #[rustfmt::skip]
    let table: &[(&str, &str, bool, Why)] = &[
        ("Server.SpotInstanceTermination", "Spot instance termination", true, Why::Interrupted),
        ("Server.SpotInstanceShutdown", "Spot instance shutdown", true, Why::Interrupted),
        ("", "EC2 does not know the instance i-1 any more", true, Why::Interrupted),
        ("", "EC2 does not know the instance i-1 any more", false, Why::Other),
        ("", "User initiated (2026-11-21 14:00:00 GMT)", true, Why::StoppedBySomeone),
        ("Client.UserInitiatedShutdown", "User initiated shutdown", true, Why::StoppedBySomeone),
        ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown", true, Why::Exited),
        ("Client.InternalError", "Client error on launch", false, Why::Settings),
        ("Client.VolumeLimitExceeded", "Volume limit exceeded", false, Why::Quota),
        ("Client.InvalidSnapshot.NotFound", "The specified snapshot was not found.", false, Why::Image),
        ("Server.InsufficientInstanceCapacity", "Insufficient capacity to satisfy launch request", true, Why::NoRoom),
        ("Server.InternalError", "Internal error on launch", false, Why::HostGone),
    ];
    for (code, words, spot, why) in table {
        let verdict = instance_ended(code, words, *spot);
        assert_eq!(verdict.why, *why, "{code} {words}");
        assert_eq!(verdict.cause, *words);
    }
    let taken = instance_ended("Server.SpotInstanceTermination", "x", true);
    assert!(
        taken.remedy.contains("runner_system_failure"),
        "{}",
        taken.remedy
    );
}
