//! CreateFleet: what it takes, what it refuses, and which pool gives the instance.

use serde_json::json;

use super::Form;
use super::Lab;
use super::asked;
use super::base64;
use crate::lab::aws::Shortage;
use crate::lab::aws::allowing;
use crate::lab::aws::ec2::TYPES;

const SPECIFICATION: &str = "LaunchTemplateConfigs.1.LaunchTemplateSpecification";
const KIND: &str = "TargetCapacitySpecification.DefaultTargetCapacityType";

#[test]
fn a_token_gives_the_same_answer_again_and_refuses_another_request() {
    let lab = Lab::bare();
    let form = lab.fleet().set("ClientToken", "once");
    let first = lab.ok("CreateFleet", &form).text();
    assert_eq!(lab.ok("CreateFleet", &form).text(), first);
    assert_eq!(lab.account.instances().len(), 1);
    let other = form.clone().set(KIND, "on-demand");
    lab.refused("CreateFleet", &other, "IdempotentParameterMismatch");
    lab.ok("CreateFleet", &form.set("ClientToken", "twice"));
    assert_eq!(lab.account.instances().len(), 2);
    let log = asked(&lab.account, "CreateFleet");
    assert_eq!(log["ClientToken"], "twice", "{log}");
    assert_eq!(
        log["LaunchTemplateConfigs"][0]["Overrides"][0]["InstanceType"],
        TYPES[0]
    );
    lab.account.forgive_leftovers();
}

#[test]
fn what_cannot_be_is_refused_in_aws_words() {
    let lab = Lab::bare();
    let fleet = lab.fleet();
    for (form, code) in [
        (
            fleet
                .clone()
                .set(&format!("{SPECIFICATION}.LaunchTemplateName"), "none"),
            "InvalidLaunchTemplateName.NotFoundException",
        ),
        (
            fleet.clone().without(&format!("{SPECIFICATION}.Version")),
            "InvalidParameterValue",
        ),
        (
            fleet.clone().set(&format!("{SPECIFICATION}.Version"), "7"),
            "InvalidLaunchTemplateId.VersionNotFound",
        ),
        (
            fleet
                .clone()
                .set("LaunchTemplateConfigs.1.Overrides.1.SubnetId", "subnet-1"),
            "InvalidSubnetID.NotFound",
        ),
        (
            lab.fleet_with(&"x".repeat(16 * 1024 + 1)),
            "InvalidParameterValue",
        ),
        (
            fleet.clone().set(
                &format!("{SPECIFICATION}.LaunchTemplateSpecificationUserData"),
                "no base64!",
            ),
            "InvalidUserData.Malformed",
        ),
        (
            tagged(&fleet, "network-interface", 1),
            "InvalidParameterValue",
        ),
        (tagged(&fleet, "instance", 51), "TagLimitExceeded"),
        (
            fleet
                .clone()
                .set("SpotOptions.AllocationStrategy", "cheapest"),
            "InvalidParameterValue",
        ),
        (
            fleet.clone().without("LaunchTemplateConfigs"),
            "MissingParameter",
        ),
    ] {
        lab.refused("CreateFleet", &form, code);
    }
    assert!(lab.account.instances().is_empty());
    lab.launch(&lab.fleet_with(&"x".repeat(16 * 1024)));
    lab.account.forgive_leftovers();
}

fn tagged(form: &Form, kind: &str, count: usize) -> Form {
    let mut form = form.clone().set("TagSpecification.1.ResourceType", kind);
    for number in 1..=count {
        let name = format!("TagSpecification.1.Tag.{number}");
        form = form
            .set(&format!("{name}.Key"), &format!("key {number}"))
            .set(&format!("{name}.Value"), "v");
    }
    form
}

#[test]
fn one_type_in_two_subnets_of_a_zone_is_refused() {
    let lab = Lab::bare();
    let other = lab.account.subnet_in("a");
    let form = lab
        .fleet()
        .set("LaunchTemplateConfigs.1.Overrides.5.InstanceType", TYPES[0])
        .set("LaunchTemplateConfigs.1.Overrides.5.SubnetId", &other);
    lab.refused("CreateFleet", &form, "InvalidFleetConfig");
}

#[test]
fn pools_without_room_are_told_and_the_next_one_gives_the_instance() {
    let lab = Lab::bare();
    let account = &lab.account;
    account.shortage(&Shortage::capacity().in_zone("eu-west-1a").of_type(TYPES[0]));
    account.shortage(
        &Shortage::new("Unsupported", "Not here.")
            .in_zone("eu-west-1b")
            .times(1),
    );
    let answer = lab.ok("CreateFleet", &lab.fleet()).text();
    assert!(
        answer.contains("<errorCode>InsufficientInstanceCapacity</errorCode>"),
        "{answer}"
    );
    assert!(
        answer.contains("<errorCode>Unsupported</errorCode>"),
        "{answer}"
    );
    let instance = account.instances().remove(0);
    assert_eq!(
        (instance.kind.as_str(), instance.zone.as_str()),
        (TYPES[1], "eu-west-1a")
    );

    account.no_shortages();
    account.shortage(&Shortage::capacity().on_market("spot"));
    let answer = lab.ok("CreateFleet", &lab.fleet()).text();
    assert!(answer.contains("<fleetInstanceSet/>"), "{answer}");
    assert_eq!(answer.matches("<errorCode>").count(), 4, "{answer}");
    let form = lab.fleet().set(KIND, "on-demand");
    assert!(!lab.launch(&form).spot);
    account.no_shortages();
    assert!(lab.launch(&lab.fleet()).spot);
    account.shortage(&Shortage::capacity().after(2));
    for _ in 0..2 {
        lab.launch(&lab.fleet());
    }
    let answer = lab.ok("CreateFleet", &lab.fleet()).text();
    assert!(answer.contains("<fleetInstanceSet/>"), "{answer}");
    account.forgive_leftovers();
}

#[test]
fn what_is_wrong_with_the_settings_is_said_of_each_pool() {
    let lab = Lab::bare();
    let image = |value: &str| {
        let form = lab.template(value).set("LaunchTemplateData.ImageId", value);
        lab.ok("CreateLaunchTemplate", &form);
        value.to_owned()
    };
    let arm = lab.account.add_image(&json!({ "Architecture": "arm64" }));
    let data = |name: &str, key: &str, value: &str| {
        let form = lab
            .template(name)
            .set(&format!("LaunchTemplateData.{key}"), value);
        lab.ok("CreateLaunchTemplate", &form);
        name.to_owned()
    };
    for (template, code) in [
        (image("ami-00000000000000000"), "InvalidAMIID.NotFound"),
        (image(&arm), "InvalidParameterValue"),
        (data("key", "KeyName", "none"), "InvalidKeyPair.NotFound"),
        (
            data("profile", "IamInstanceProfile.Name", "none"),
            "InvalidParameterValue",
        ),
        (
            data("group", "SecurityGroupId.1", "sg-1"),
            "InvalidGroup.NotFound",
        ),
    ] {
        let form = lab
            .fleet()
            .set(&format!("{SPECIFICATION}.LaunchTemplateName"), &template);
        let answer = lab.ok("CreateFleet", &form).text();
        let told = format!("<errorCode>{code}</errorCode>");
        assert!(answer.contains(&told), "{code}: {answer}");
        assert!(answer.contains("<fleetInstanceSet/>"), "{answer}");
    }
    let cheap = lab.fleet();
    let cheap = (1..=4).fold(cheap, |form, number| {
        form.set(
            &format!("LaunchTemplateConfigs.1.Overrides.{number}.MaxPrice"),
            "0.001",
        )
    });
    let answer = lab.ok("CreateFleet", &cheap).text();
    assert!(answer.contains("SpotMaxPriceTooLow"), "{answer}");
    for subnet in lab.account.subnets() {
        lab.account.free_addresses(subnet, 0);
    }
    let answer = lab.ok("CreateFleet", &lab.fleet()).text();
    assert!(
        answer.contains("InsufficientFreeAddressesInSubnet"),
        "{answer}"
    );
    assert!(lab.account.instances().is_empty());
}

#[test]
fn tags_of_spot_requests_fail_an_on_demand_launch() {
    let lab = Lab::bare();
    let tags = "LaunchTemplateData.TagSpecification.1";
    let form = lab
        .template("tagged")
        .set(&format!("{tags}.ResourceType"), "spot-instances-request")
        .set(&format!("{tags}.Tag.1.Key"), "team")
        .set(&format!("{tags}.Tag.1.Value"), "ci");
    lab.ok("CreateLaunchTemplate", &form);
    let fleet = lab
        .fleet()
        .set(&format!("{SPECIFICATION}.LaunchTemplateName"), "tagged");
    let spot = lab.launch(&fleet);
    assert_eq!(spot.spot_request_tags["team"], "ci");
    let answer = lab.ok("CreateFleet", &fleet.set(KIND, "on-demand")).text();
    assert!(
        answer.contains("<fleetInstanceSet/>") && answer.contains("spot-instances-request"),
        "{answer}"
    );
    lab.account.forgive_leftovers();
}

#[test]
fn the_policy_is_asked_about_all_that_a_launch_takes() {
    let lab = Lab::bare();
    let all = [
        "ec2:CreateFleet",
        "ec2:RunInstances",
        "ec2:CreateTags",
        "iam:PassRole",
    ];
    let profile = lab.account.instance_profile("ci");
    let form = lab
        .template("profile")
        .set("LaunchTemplateData.IamInstanceProfile.Arn", &profile);
    lab.ok("CreateLaunchTemplate", &form);
    let fleet = tagged(&lab.fleet(), "instance", 1)
        .set(&format!("{SPECIFICATION}.LaunchTemplateName"), "profile");
    for denied in all {
        let rest: Vec<_> = all.into_iter().filter(|action| *action != denied).collect();
        lab.account.policy(&allowing(&rest));
        if denied == "ec2:CreateFleet" {
            let said = lab.refused("CreateFleet", &fleet, "UnauthorizedOperation");
            assert!(said.contains(denied), "{said}");
            continue;
        }
        let answer = lab.ok("CreateFleet", &fleet).text();
        assert!(answer.contains("<fleetInstanceSet/>"), "{answer}");
        assert!(answer.contains(&format!("perform: {denied} ")), "{answer}");
    }
    // As a policy says that lets the driver touch only what carries its tag.
    let own = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": all, "Resource": "*" },
        { "Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*",
          "Condition": { "StringEquals": { "aws:ResourceTag/key 1": "v" } } },
    ] });
    lab.account.policy(&own);
    let instance = lab.launch(&fleet);
    let other = lab.launch(&fleet.clone().without("TagSpecification"));
    let terminate = |id: &str| Form::default().set("InstanceId.1", id);
    lab.refused(
        "TerminateInstances",
        &terminate(&other.id),
        "UnauthorizedOperation",
    );
    lab.ok("TerminateInstances", &terminate(&instance.id));
    lab.account.forgive_leftovers();
}

#[test]
fn base64_is_base64() {
    for (plain, encoded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
    ] {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
}
