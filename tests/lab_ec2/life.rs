//! Instances from launch to termination, what goes with them and what stays, and how they are listed.

use std::time::Duration;

use serde_json::json;

use super::Form;
use super::Lab;
use super::between;
use crate::lab::PATIENCE;
use crate::lab::aws::InstanceFate;

#[test]
fn an_instance_comes_up_and_goes_with_all_that_is_its() {
    let waiting = Lab::bare();
    waiting.account.timings(&[("launching", 86_400.0)]);
    let instance = waiting.launch(&waiting.fleet());
    assert_eq!(instance.state, "pending");
    let told = waiting.describe(&instance.id);
    assert!(
        told.contains(&format!("<privateIpAddress>{}<", instance.address)),
        "{told}"
    );
    waiting.terminate(&instance.id);

    let lab = Lab::bare();
    let instance = lab.launch(&lab.fleet());
    lab.wait_state(&instance.id, "running");
    let state = lab.account.state();
    assert_eq!(state.volumes.len(), 1);
    assert_eq!(state.volumes[0].id, instance.volume);
    assert_eq!(instance.caller, lab.account.user());
    assert_eq!(
        state.volumes[0].instance.as_deref(),
        Some(instance.id.as_str())
    );
    assert_eq!(state.spot_requests[0].state, "active");
    lab.terminate(&instance.id);
    let state = lab.account.state();
    assert!(state.volumes.is_empty());
    assert_eq!(state.spot_requests[0].state, "closed");
    let told = lab.describe(&instance.id);
    assert!(told.contains("<name>terminated</name>"), "{told}");
    assert!(told.contains("Client.UserInitiatedShutdown"), "{told}");
    assert!(!told.contains("<privateIpAddress>"), "{told}");
    // As on AWS, once more is no error.
    lab.terminate(&instance.id);
}

#[test]
fn what_stays_behind_can_be_found_and_ended() {
    let lab = Lab::bare();
    let instance = lab.launch(&lab.fleet());
    lab.account.leave_behind("volume");
    lab.account.leave_behind("spot-request");
    lab.terminate(&instance.id);
    assert_eq!(lab.account.state().ec2_alive(|_| true).len(), 2);
    let form = Form::default()
        .set("Filter.1.Name", "status")
        .set("Filter.1.Value.1", "available");
    let found = lab.ok("DescribeVolumes", &form).text();
    let volume = between(&found, "<volumeId>", "<").unwrap().to_owned();
    lab.ok("DeleteVolume", &Form::default().set("VolumeId", &volume));
    lab.refused(
        "DeleteVolume",
        &Form::default().set("VolumeId", &volume),
        "InvalidVolume.NotFound",
    );
    let request = instance.spot_request.unwrap();
    let one = Form::default().set("SpotInstanceRequestId.1", &request);
    assert!(
        lab.ok("DescribeSpotInstanceRequests", &one)
            .text()
            .contains("<state>open</state>")
    );
    lab.ok("CancelSpotInstanceRequests", &one);
    assert!(
        lab.ok("DescribeSpotInstanceRequests", &one)
            .text()
            .contains("<state>cancelled</state>")
    );
}

#[test]
fn reads_lag_writes_where_a_test_says_so() {
    let lab = Lab::bare();
    let lag = Duration::from_secs(5);
    lab.account.lag(lag, lag);
    let instance = lab.launch(&lab.fleet());
    let one = Form::default().set("InstanceId.1", &instance.id);
    lab.refused("DescribeInstances", &one, "InvalidInstanceID.NotFound");
    lab.refused("TerminateInstances", &one, "InvalidInstanceID.NotFound");
    let all = Form::default();
    assert!(
        lab.ok("DescribeInstances", &all)
            .text()
            .contains("<reservationSet/>")
    );
    crate::lab::traces::until("the lag's end", PATIENCE, || {
        lab.account.ec2("DescribeInstances", &one.text()).status == 200
    });
    lab.terminate(&instance.id);
}

#[test]
fn instances_are_listed_by_tags_and_states() {
    let lab = Lab::bare();
    let tagged = |value: &str| {
        lab.launch(
            &lab.fleet()
                .set("TagSpecification.1.ResourceType", "instance")
                .set("TagSpecification.1.Tag.1.Key", "job")
                .set("TagSpecification.1.Tag.1.Value", value),
        )
    };
    let (one, two) = (tagged("1"), tagged("2"));
    lab.terminate(&two.id);
    let filter = |pairs: &[(&str, &str)]| {
        let mut form = Form::default();
        for (number, (name, value)) in pairs.iter().enumerate() {
            let filter = format!("Filter.{}", number + 1);
            form = form
                .set(&format!("{filter}.Name"), name)
                .set(&format!("{filter}.Value.1"), value);
        }
        let text = lab.ok("DescribeInstances", &form).text();
        [text.contains(&one.id), text.contains(&two.id)]
    };
    assert_eq!(filter(&[]), [true, true]);
    assert_eq!(filter(&[("tag:job", "2")]), [false, true]);
    assert_eq!(
        filter(&[("tag:job", "*"), ("instance-state-name", "terminated")]),
        [false, true]
    );
    assert_eq!(
        filter(&[("tag-key", "job"), ("instance-lifecycle", "spot")]),
        [true, true]
    );
    let wrong = Form::default()
        .set("Filter.1.Name", "colour")
        .set("Filter.1.Value.1", "x");
    lab.refused("DescribeInstances", &wrong, "InvalidParameterValue");
    lab.terminate(&one.id);
}

#[test]
fn an_instance_that_fails_or_is_off_says_why() {
    let lab = Lab::bare();
    lab.account.instance_fate(&InstanceFate::fails(
        "Server.InternalError",
        "Internal error on launch",
    ));
    let failed = lab.launch(&lab.fleet());
    assert_eq!(
        lab.wait_state(&failed.id, "terminated").reason.unwrap(),
        "Server.InternalError"
    );
    lab.account.instance_fate(&InstanceFate::never_comes_up());
    let stuck = lab.launch(&lab.fleet());
    let other = lab.launch(&lab.fleet());
    lab.wait_state(&other.id, "running");
    assert_eq!(lab.account.instances()[1].state, "pending");
    lab.terminate(&stuck.id);
    lab.terminate(&other.id);
}

#[test]
fn subnets_images_and_parameters_are_told() {
    let lab = Lab::bare();
    let subnets = lab.account.subnets().to_vec();
    lab.account.free_addresses(&subnets[1], 7);
    let told = lab.ok("DescribeSubnets", &Form::default()).text();
    assert!(told.contains("<availableIpAddressCount>7<"), "{told}");
    assert!(told.contains("<availableIpAddressCount>507<"), "{told}");
    let id = lab
        .account
        .add_image(&json!({ "RootDeviceName": "/dev/sda1" }));
    let told = lab
        .ok("DescribeImages", &Form::default().set("ImageId.1", &id))
        .text();
    assert!(told.contains("<rootDeviceName>/dev/sda1<"), "{told}");
    lab.refused(
        "DescribeImages",
        &Form::default().set("ImageId.1", "ami-1"),
        "InvalidAMIID.NotFound",
    );
    lab.account.parameter("/ci/image", &id);
    let form = lab
        .template("named")
        .set("LaunchTemplateData.ImageId", "resolve:ssm:/ci/image");
    lab.ok("CreateLaunchTemplate", &form);
    let versions = Form::default()
        .set("LaunchTemplateName", "named")
        .set("LaunchTemplateVersion.1", "1");
    let told = lab.ok("DescribeLaunchTemplateVersions", &versions).text();
    assert!(told.contains("resolve:ssm:/ci/image"), "{told}");
    let told = lab
        .ok(
            "DescribeLaunchTemplateVersions",
            &versions.set("ResolveAlias", "true"),
        )
        .text();
    assert!(told.contains(&format!("<imageId>{id}<")), "{told}");
    let fleet = lab.fleet().set(
        "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName",
        "named",
    );
    let instance = lab.launch(&fleet);
    assert_eq!(instance.image, id);
    lab.terminate(&instance.id);
}

#[test]
fn templates_have_one_name_each_and_go() {
    let lab = Lab::bare();
    lab.refused(
        "CreateLaunchTemplate",
        &lab.template("job"),
        "InvalidLaunchTemplateName.AlreadyExistsException",
    );
    lab.refused(
        "CreateLaunchTemplate",
        &lab.template("a b c"),
        "InvalidLaunchTemplateName.MalformedException",
    );
    let tagged = lab
        .template("mine")
        .set("TagSpecification.1.ResourceType", "launch-template")
        .set("TagSpecification.1.Tag.1.Key", "fleet")
        .set("TagSpecification.1.Tag.1.Value", "ci");
    lab.ok("CreateLaunchTemplate", &tagged);
    let filter = Form::default()
        .set("Filter.1.Name", "tag:fleet")
        .set("Filter.1.Value.1", "ci");
    let found = lab.ok("DescribeLaunchTemplates", &filter).text();
    assert_eq!(found.matches("<launchTemplateName>").count(), 1, "{found}");
    let id = between(&found, "<launchTemplateId>", "<")
        .unwrap()
        .to_owned();
    assert!(
        lab.account
            .state()
            .templates
            .iter()
            .any(|one| one.id == id && one.name == "mine" && one.tags["fleet"] == "ci")
    );
    let one = Form::default().set("LaunchTemplateId", &id);
    lab.ok("DeleteLaunchTemplate", &one);
    lab.refused(
        "DeleteLaunchTemplate",
        &one,
        "InvalidLaunchTemplateId.NotFound",
    );
}

#[test]
fn what_the_template_says_is_heeded() {
    let lab = Lab::bare();
    let profile = lab.account.instance_profile("ci");
    lab.account.key_pair("people");
    let interface = "LaunchTemplateData.NetworkInterface.1";
    let volume = "LaunchTemplateData.BlockDeviceMapping.1";
    let form = lab
        .template("all")
        .without("LaunchTemplateData.SecurityGroupId")
        .set("LaunchTemplateData.IamInstanceProfile.Name", "ci")
        .set("LaunchTemplateData.KeyName", "people")
        .set("LaunchTemplateData.MetadataOptions.HttpTokens", "required")
        .set(&format!("{interface}.DeviceIndex"), "0")
        .set(&format!("{interface}.AssociatePublicIpAddress"), "true")
        .set(
            &format!("{interface}.SecurityGroupId.1"),
            lab.account.security_group(),
        )
        .set(&format!("{volume}.DeviceName"), "/dev/xvda")
        .set(&format!("{volume}.Ebs.VolumeSize"), "30")
        .set(&format!("{volume}.Ebs.VolumeType"), "io2");
    lab.ok("CreateLaunchTemplate", &form);
    let fleet = lab.fleet_with("#cloud-config\n").set(
        "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName",
        "all",
    );
    let id = lab.launch(&fleet).id;
    let instance = lab.wait_state(&id, "running");
    assert_eq!(instance.profile.as_deref(), Some(profile.as_str()));
    assert_eq!(instance.key_name.as_deref(), Some("people"));
    assert_eq!(instance.groups, [lab.account.security_group()]);
    assert_eq!(instance.metadata_options["HttpTokens"], "required");
    assert_eq!(
        (instance.volume_size, instance.volume_type.as_str()),
        (30, "io2")
    );
    assert_eq!(instance.shutdown_behavior, "terminate");
    assert_eq!(instance.user_data.as_deref(), Some("I2Nsb3VkLWNvbmZpZwo="));
    assert!(instance.public_address.is_some());
    let template = lab.account.state().templates.pop().unwrap();
    assert_eq!(
        (&instance.template, template.name.as_str()),
        (&template.id, "all")
    );
    assert_eq!(instance.tags["aws:ec2:fleet-id"], instance.fleet);
    lab.terminate(&id);
    let over = lab.account.instances().remove(0);
    assert!(over.ended.unwrap() > over.created);
}
