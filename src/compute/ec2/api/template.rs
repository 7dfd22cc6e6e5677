//! Launch templates: what all launches of the same settings have in common. Pure.
//!
//! CreateFleet takes nothing but a template and a few overrides. The driver makes one for each distinct setting, named by
//! its digest: whoever needs it names it, and makes it where AWS does not know it. A job's own (its user data, its tags) goes
//! with the request.

use aws_sdk_ec2::operation::create_launch_template::builders::CreateLaunchTemplateInputBuilder;
use aws_sdk_ec2::types::{
    LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMetadataEndpointState, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest,
    LaunchTemplateTagSpecificationRequest, RequestLaunchTemplateData, ResourceType,
    ShutdownBehavior, Tag, TagSpecification, VolumeType,
};

use crate::machine::instance::Market;
use crate::machine::template::{Root, Setting, image_reference};

/// So that containers on the instance reach its metadata as well: each bridge takes one hop.
const METADATA_HOPS: i32 = 2;
/// What a volume is measured in.
const GIB: u64 = 1 << 30;

/// Returns what to send to CreateLaunchTemplate.
pub(super) fn input(setting: &Setting) -> CreateLaunchTemplateInputBuilder {
    CreateLaunchTemplateInputBuilder::default()
        .launch_template_name(setting.name())
        .version_description("made by gitlab-aws-driver; swept when it is not used for a month")
        .launch_template_data(data(setting))
        .tag_specifications(
            TagSpecification::builder()
                .resource_type(ResourceType::LaunchTemplate)
                .set_tags(Some(tags(setting)))
                .build(),
        )
}

fn data(setting: &Setting) -> RequestLaunchTemplateData {
    let mut tagged = vec![ResourceType::NetworkInterface];
    if setting.market == Market::Spot {
        tagged.push(ResourceType::SpotInstancesRequest);
    }
    let tagged = tagged.into_iter().map(|kind| {
        LaunchTemplateTagSpecificationRequest::builder()
            .resource_type(kind)
            .set_tags(Some(tags(setting)))
            .build()
    });
    RequestLaunchTemplateData::builder()
        .image_id(image_reference(&setting.image))
        // What shuts itself down, by the last limit or by a script, is gone and not kept for money.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
        .metadata_options(
            LaunchTemplateInstanceMetadataOptionsRequest::builder()
                .http_endpoint(LaunchTemplateInstanceMetadataEndpointState::Enabled)
                .http_tokens(LaunchTemplateHttpTokensState::Required)
                .http_put_response_hop_limit(METADATA_HOPS)
                .build(),
        )
        .set_iam_instance_profile(setting.instance_profile.as_deref().map(profile))
        .set_key_name(setting.key_name.clone())
        .network_interfaces(interface(setting))
        .set_block_device_mappings(setting.root.as_ref().map(|root| vec![volume(root)]))
        .set_tag_specifications(Some(tagged.collect()))
        .build()
}

fn profile(named: &str) -> LaunchTemplateIamInstanceProfileSpecificationRequest {
    let profile = LaunchTemplateIamInstanceProfileSpecificationRequest::builder();
    match named.starts_with("arn:") {
        true => profile.arn(named),
        false => profile.name(named),
    }
    .build()
}

fn interface(setting: &Setting) -> LaunchTemplateInstanceNetworkInterfaceSpecificationRequest {
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest::builder()
        .device_index(0)
        .associate_public_ip_address(setting.public_ip)
        .delete_on_termination(true)
        .set_groups((!setting.security_groups.is_empty()).then(|| setting.security_groups.clone()))
        .set_ipv6_address_count(setting.ipv6.then_some(1))
        .build()
}

fn volume(root: &Root) -> LaunchTemplateBlockDeviceMappingRequest {
    // AWS takes 64 TiB at most, so it always fits.
    let size = root
        .size
        .map(|bytes| i32::try_from(bytes.div_ceil(GIB)).unwrap_or(i32::MAX));
    LaunchTemplateBlockDeviceMappingRequest::builder()
        .set_device_name(root.device.clone())
        .ebs(
            LaunchTemplateEbsBlockDeviceRequest::builder()
                .delete_on_termination(true)
                .set_volume_size(size)
                .volume_type(VolumeType::from(root.kind.as_str()))
                .build(),
        )
        .build()
}

fn tags(setting: &Setting) -> Vec<Tag> {
    let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
    setting.tags.iter().map(tag).collect()
}

#[cfg(test)]
pub(super) mod tests;
