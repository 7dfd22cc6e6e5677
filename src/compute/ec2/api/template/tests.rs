//! Names of templates, and what they hold.

use crate::machine::instance::{Dial, Market};
use crate::machine::template::{Root, Setting};
use std::collections::BTreeSet;

use super::*;

pub(in crate::compute::ec2::api) fn setting() -> Setting {
    Setting {
        image: "ami-0123456789abcdef0".into(),
        market: Market::Spot,
        instance_profile: Some("ci-job".into()),
        key_name: None,
        security_groups: vec!["sg-1".into()],
        public_ip: false,
        ipv6: false,
        root: None,
        tags: vec![("gitlab-aws-driver:fleet".into(), "f".into())],
    }
}

fn root(device: Option<&str>) -> Root {
    Root {
        device: device.map(str::to_owned),
        size: Some((50 << 30) + 1),
        kind: "gp3".into(),
    }
}

#[test]
fn each_distinct_setting_has_a_name_of_its_own() {
    let others = [
        setting(),
        Setting {
            image: "ami-1".into(),
            ..setting()
        },
        Setting {
            market: Market::OnDemand,
            ..setting()
        },
        Setting {
            instance_profile: None,
            ..setting()
        },
        Setting {
            key_name: Some("ci-job".into()),
            instance_profile: None,
            ..setting()
        },
        Setting {
            security_groups: vec!["sg-1".into(), "sg-2".into()],
            ..setting()
        },
        Setting {
            security_groups: vec!["sg-2".into(), "sg-1".into()],
            ..setting()
        },
        Setting {
            public_ip: true,
            ..setting()
        },
        Setting {
            ipv6: true,
            ..setting()
        },
        Setting {
            root: Some(root(Some("/dev/xvda"))),
            ..setting()
        },
        Setting {
            root: Some(root(Some("/dev/sda1"))),
            ..setting()
        },
        Setting {
            tags: vec![],
            ..setting()
        },
    ];
    let names: BTreeSet<String> = others.iter().map(Setting::name).collect();
    assert_eq!(names.len(), others.len());
    // The same setting is found again, by any later version as well: a changed digest would leave all templates behind.
    assert_eq!(
        setting().name(),
        "gitlab-aws-driver-6325cd63e35bd5d51fb6a98e"
    );
    assert!(names.iter().all(|name| name.len() <= 128));
    assert_eq!(others[9].plain().name(), setting().name());
}

#[test]
fn a_root_volume_without_its_device_is_never_sent() {
    let unknown = Setting {
        root: Some(root(None)),
        ..setting()
    };
    assert!(unknown.check(Dial::Private).is_err());
    assert!(setting().check(Dial::Private).is_ok());
}

mod sent {
    use aws_sdk_ec2::types::{
        LaunchTemplateHttpTokensState, RequestLaunchTemplateData, ResourceType, ShutdownBehavior,
        VolumeType,
    };

    use super::*;

    fn data(setting: &Setting) -> RequestLaunchTemplateData {
        let input = input(setting).build().unwrap();
        assert_eq!(input.launch_template_name(), Some(setting.name().as_str()));
        let tags = &input.tag_specifications()[0];
        assert_eq!(tags.resource_type(), Some(&ResourceType::LaunchTemplate));
        assert_eq!(tags.tags()[0].value(), Some("f"));
        input.launch_template_data().unwrap().clone()
    }

    fn tagged(data: &RequestLaunchTemplateData) -> Vec<ResourceType> {
        let all = data.tag_specifications().iter();
        all.map(|t| t.resource_type().unwrap().clone()).collect()
    }

    #[test]
    fn every_instance_is_closed_and_goes_when_it_shuts_down() {
        let data = data(&setting());
        assert_eq!(data.image_id(), Some("ami-0123456789abcdef0"));
        assert_eq!(
            data.instance_initiated_shutdown_behavior(),
            Some(&ShutdownBehavior::Terminate)
        );
        let metadata = data.metadata_options().unwrap();
        assert_eq!(
            metadata.http_tokens(),
            Some(&LaunchTemplateHttpTokensState::Required)
        );
        assert_eq!(metadata.http_put_response_hop_limit(), Some(2));
        let [interface] = data.network_interfaces() else {
            panic!("{data:?}");
        };
        assert_eq!(interface.device_index(), Some(0));
        assert_eq!(interface.associate_public_ip_address(), Some(false));
        assert_eq!(interface.delete_on_termination(), Some(true));
        assert_eq!(interface.groups(), ["sg-1"]);
        assert_eq!(interface.ipv6_address_count(), None);
        // Groups beside an interface that has its own are refused by AWS, and so are user data and market here by the fleet.
        assert!(data.security_group_ids().is_empty());
        assert!(data.user_data().is_none() && data.instance_market_options().is_none());
        assert!(data.block_device_mappings().is_empty());
        assert_eq!(data.iam_instance_profile().unwrap().name(), Some("ci-job"));
    }

    #[test]
    fn tags_of_spot_requests_stand_in_templates_for_spot_alone() {
        let spot = data(&setting());
        assert_eq!(
            tagged(&spot),
            [
                ResourceType::NetworkInterface,
                ResourceType::SpotInstancesRequest
            ]
        );
        let on_demand = data(&Setting {
            market: Market::OnDemand,
            ..setting()
        });
        assert_eq!(tagged(&on_demand), [ResourceType::NetworkInterface]);
    }

    #[test]
    fn what_the_file_asks_for_is_in_it() {
        let arn = "arn:aws:iam::123456789012:instance-profile/ci";
        let data = data(&Setting {
            image: "/aws/service/ami-amazon-linux-latest/al2023".into(),
            instance_profile: Some(arn.into()),
            key_name: Some("ops".into()),
            public_ip: true,
            ipv6: true,
            root: Some(root(Some("/dev/xvda"))),
            ..setting()
        });
        assert_eq!(
            data.image_id(),
            Some("resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023")
        );
        assert_eq!(data.iam_instance_profile().unwrap().arn(), Some(arn));
        assert_eq!(data.key_name(), Some("ops"));
        let interface = &data.network_interfaces()[0];
        assert_eq!(interface.associate_public_ip_address(), Some(true));
        assert_eq!(interface.ipv6_address_count(), Some(1));
        let [mapping] = data.block_device_mappings() else {
            panic!("{data:?}");
        };
        assert_eq!(mapping.device_name(), Some("/dev/xvda"));
        let volume = mapping.ebs().unwrap();
        assert_eq!(volume.volume_size(), Some(51));
        assert_eq!(volume.volume_type(), Some(&VolumeType::Gp3));
        assert_eq!(volume.delete_on_termination(), Some(true));
    }
}
