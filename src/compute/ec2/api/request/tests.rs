//! What is sent to CreateFleet, to the letter.

use aws_sdk_ec2::operation::create_fleet::CreateFleetInput;
use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, FleetOnDemandAllocationStrategy, FleetType, InstanceType,
    ResourceType, SpotAllocationStrategy,
};
use base64ct::{Base64, Encoding};

use super::*;
use crate::compute::ec2::api::template::tests::setting;
use crate::machine::access::Access;
use crate::machine::instance::{Dial, InstanceRequest, Least, Market, Subnet, Template};
use crate::machine::template::{Given, Setting};

pub(in crate::compute::ec2::api) fn request() -> InstanceRequest {
    InstanceRequest {
        access: Access::default(),
        market: Market::Spot,
        template: Template::Own(Box::new(setting())),
        image: None,
        instance_types: vec!["c7i.large".into(), "m7i.large".into()],
        least: Least::default(),
        subnets: vec![
            Subnet {
                id: "subnet-a".into(),
                zone: Some("eu-west-1a".into()),
            },
            Subnet {
                id: "subnet-b".into(),
                zone: None,
            },
        ],
        max_price: Some("0.05".into()),
        dial: Dial::Private,
        user_data: "#cloud-config\n".into(),
        host_key: "ssh-ed25519 AAAA".into(),
        admitted: None,
        token: tags::client_token(&["1"]),
        tags: vec![("gitlab-aws-driver:launch".into(), "x".into())],
    }
}

fn sent(request: &InstanceRequest) -> CreateFleetInput {
    input(request).unwrap().build().unwrap()
}

/// Type, subnet, price and image of each override.
fn pools(input: &CreateFleetInput) -> Vec<[String; 4]> {
    let text = |t: Option<&str>| t.unwrap_or("-").to_owned();
    input.launch_template_configs()[0]
        .overrides()
        .iter()
        .map(|o| {
            [
                text(o.instance_type().map(InstanceType::as_str)),
                text(o.subnet_id()),
                text(o.max_price()),
                text(o.image_id()),
            ]
        })
        .collect()
}

#[test]
fn the_capacity_has_a_name_by_what_there_may_be_no_room_for() {
    let name = request().capacity_name();
    let other = InstanceRequest {
        token: "t".into(),
        tags: vec![],
        user_data: String::new(),
        host_key: String::new(),
        ..request()
    };
    assert_eq!(other.capacity_name(), name);
    let least = Least {
        cpu: Some(16),
        memory: None,
    };
    let arm64 = Setting {
        image: "ami-0arm64".into(),
        ..setting()
    };
    for other in [
        InstanceRequest { least, ..request() },
        InstanceRequest {
            template: Template::Own(Box::new(arm64)),
            ..request()
        },
        InstanceRequest {
            market: Market::OnDemand,
            ..request()
        },
    ] {
        assert_ne!(other.capacity_name(), name, "{other:?}");
    }
}

#[test]
fn where_a_least_is_asked_for_aws_chooses_among_the_types() {
    let least = Least {
        cpu: Some(4),
        memory: Some(8 * 1024),
    };
    let request = InstanceRequest { least, ..request() };
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(
        serde_json::from_str::<InstanceRequest>(&text).unwrap(),
        request
    );
    let input = sent(&request);
    assert_eq!(
        pools(&input),
        [
            ["-", "subnet-a", "0.05", "-"],
            ["-", "subnet-b", "0.05", "-"],
        ]
    );
    for one in input.launch_template_configs()[0].overrides() {
        let wanted = one.instance_requirements().unwrap();
        assert_eq!(wanted.v_cpu_count().unwrap().min(), Some(4));
        assert_eq!(wanted.memory_mib().unwrap().min(), Some(8 * 1024));
        assert_eq!(wanted.allowed_instance_types(), ["c7i.large", "m7i.large"]);
        assert_eq!(wanted.burstable_performance().unwrap().as_str(), "included");
    }
}

#[test]
fn a_spot_instance_is_asked_for_over_all_types_and_subnets() {
    let request = request();
    let input = sent(&request);
    assert_eq!(input.client_token(), Some(request.token.as_str()));
    assert_eq!(input.r#type(), Some(&FleetType::Instant));
    let capacity = input.target_capacity_specification().unwrap();
    assert_eq!(capacity.total_target_capacity(), Some(1));
    assert_eq!(
        capacity.default_target_capacity_type(),
        Some(&DefaultTargetCapacityType::Spot)
    );
    assert_eq!(
        input.spot_options().unwrap().allocation_strategy(),
        Some(&SpotAllocationStrategy::PriceCapacityOptimized)
    );
    assert!(input.on_demand_options().is_none());
    assert_eq!(
        pools(&input),
        [
            ["c7i.large", "subnet-a", "0.05", "-"],
            ["m7i.large", "subnet-a", "0.05", "-"],
            ["c7i.large", "subnet-b", "0.05", "-"],
            ["m7i.large", "subnet-b", "0.05", "-"],
        ]
    );
    let [config] = input.launch_template_configs() else {
        panic!("{input:?}");
    };
    let specification = config.launch_template_specification().unwrap();
    assert_eq!(
        specification.launch_template_name(),
        Some(setting().name().as_str())
    );
    assert_eq!(specification.launch_template_id(), None);
    assert_eq!(specification.version(), Some("1"));
    let user_data = specification.launch_template_specification_user_data();
    assert_eq!(
        Base64::decode_vec(user_data.unwrap()).unwrap(),
        request.user_data.as_bytes()
    );
    let tagged: Vec<_> = input
        .tag_specifications()
        .iter()
        .map(|t| (t.resource_type().unwrap().clone(), t.tags().len()))
        .collect();
    assert_eq!(
        tagged,
        [
            (ResourceType::Fleet, 1),
            (ResourceType::Instance, 1),
            (ResourceType::Volume, 1)
        ]
    );
    assert_eq!(
        input.tag_specifications()[1].tags()[0].key(),
        Some("gitlab-aws-driver:launch")
    );
}

#[test]
fn on_demand_has_no_price_and_no_spot_options() {
    let input = sent(&InstanceRequest {
        market: Market::OnDemand,
        ..request()
    });
    assert!(input.spot_options().is_none());
    assert_eq!(
        input.on_demand_options().unwrap().allocation_strategy(),
        Some(&FleetOnDemandAllocationStrategy::LowestPrice)
    );
    assert_eq!(
        input
            .target_capacity_specification()
            .unwrap()
            .default_target_capacity_type(),
        Some(&DefaultTargetCapacityType::OnDemand)
    );
    assert!(pools(&input).iter().all(|[_, _, price, _]| price == "-"));
}

#[test]
fn an_administrators_template_is_named_as_it_is_and_overridden_by_what_the_file_says() {
    let given = |text: &str| InstanceRequest {
        template: Template::Given(Given::read(text)),
        max_price: None,
        ..request()
    };
    let specification = |input: &CreateFleetInput| {
        let config = &input.launch_template_configs()[0];
        let s = config.launch_template_specification().unwrap();
        [
            s.launch_template_id(),
            s.launch_template_name(),
            s.version(),
        ]
        .map(|t| t.unwrap_or("-").to_owned())
    };
    let id = "lt-0123456789abcdef0";
    for (text, want) in [
        (id.to_owned(), [id, "-", "$Default"]),
        (format!("{id}:7"), [id, "-", "7"]),
        ("ci".to_owned(), ["-", "ci", "$Default"]),
        ("ci:$Latest".to_owned(), ["-", "ci", "$Latest"]),
        ("lt-x".to_owned(), ["-", "lt-x", "$Default"]),
    ] {
        assert_eq!(specification(&sent(&given(&text))), want, "{text}");
    }
    let bare = InstanceRequest {
        instance_types: vec![],
        subnets: vec![],
        ..given("ci")
    };
    assert_eq!(pools(&sent(&bare)), [["-"; 4]]);
    let image = InstanceRequest {
        subnets: vec![],
        image: Some("/aws/service/x".into()),
        ..given("ci")
    };
    assert_eq!(
        pools(&sent(&image)),
        [
            ["c7i.large", "-", "-", "resolve:ssm:/aws/service/x"],
            ["m7i.large", "-", "-", "resolve:ssm:/aws/service/x"]
        ]
    );
}

#[test]
fn what_aws_would_refuse_is_refused_by_the_keys_name() {
    let many = |n: usize| (0..n).map(|i| format!("t{i}.large")).collect();
    for (request, words) in [
        (
            InstanceRequest {
                instance_types: many(151),
                ..request()
            },
            "302 combinations",
        ),
        (
            InstanceRequest {
                instance_types: vec![],
                ..request()
            },
            "`instance_types`",
        ),
        (
            InstanceRequest {
                user_data: "x".repeat(16 * 1024 + 1),
                ..request()
            },
            "user data",
        ),
        (
            InstanceRequest {
                dial: Dial::Public,
                ..request()
            },
            "`use_public_ip`",
        ),
    ] {
        let error = input(&request).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let most = InstanceRequest {
        instance_types: many(150),
        user_data: "x".repeat(16 * 1024),
        ..request()
    };
    assert_eq!(pools(&sent(&most)).len(), 300);
}

#[test]
fn a_request_comes_back_from_its_intent() {
    let given = InstanceRequest {
        template: Template::Given(Given::read("ci:7")),
        market: Market::OnDemand,
        dial: Dial::Ipv6,
        max_price: None,
        image: Some("ami-1".into()),
        ..request()
    };
    for request in [request(), given] {
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(
            serde_json::from_str::<InstanceRequest>(&text).unwrap(),
            request
        );
    }
}
