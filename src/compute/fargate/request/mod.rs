//! The exact request of one launch: what stands in the intent, and how it is said to RunTask.
//!
//! Pure. The same [`TaskRequest`] always gives the same input, since a request that is sent again
//! with its token must be the very same one. What AWS would refuse in words that help nobody is
//! refused here, by the name of the key that is wrong.

mod check;

use aws_sdk_ecs::operation::run_task::builders::RunTaskInputBuilder;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride,
    EphemeralStorage, KeyValuePair, LaunchType, NetworkConfiguration, PropagateTags, Tag,
    TaskOverride,
};

use crate::error::{Error, Kind, Result};
use crate::machine::task::{Capacity, TaskRequest};

/// Returns what to send.
///
/// ECS-managed tags are left off: whether they need `ecs:TagResource` is not documented, and ours say more.
///
/// # Errors
/// Where AWS would refuse it whatever the account looks like; the message names the key and the limit.
pub fn input(request: &TaskRequest) -> Result<RunTaskInputBuilder> {
    check::check(request)?;
    let mut vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(request.subnets.clone()))
        .set_security_groups(
            (!request.security_groups.is_empty()).then(|| request.security_groups.clone()),
        );
    if request.capacity.takes_fargate_settings() {
        vpc = vpc.assign_public_ip(if request.public_ip {
            AssignPublicIp::Enabled
        } else {
            AssignPublicIp::Disabled
        });
    }
    let vpc = vpc.build().map_err(incomplete)?;
    let mut input = RunTaskInputBuilder::default()
        .set_cluster(request.cluster.clone())
        .task_definition(&request.task_definition)
        .count(1)
        .network_configuration(
            NetworkConfiguration::builder()
                .awsvpc_configuration(vpc)
                .build(),
        )
        .overrides(overrides(request))
        .started_by(&request.started_by)
        .client_token(&request.token);
    match &request.capacity {
        Capacity::ClusterDefault => {}
        Capacity::LaunchTypeFargate => input = input.launch_type(LaunchType::Fargate),
        Capacity::Provider(name) => {
            // A weight of 0, the default, would place nothing.
            let item = CapacityProviderStrategyItem::builder()
                .capacity_provider(name)
                .weight(1)
                .build()
                .map_err(incomplete)?;
            input = input.capacity_provider_strategy(item);
        }
    }
    if request.capacity.takes_fargate_settings() {
        input = input.set_platform_version(request.platform_version.clone());
    }
    if request.execute_command {
        input = input.enable_execute_command(true);
    }
    if request.propagate_tags {
        input = input.propagate_tags(PropagateTags::TaskDefinition);
    }
    for (key, value) in &request.tags {
        input = input.tags(Tag::builder().key(key).value(value).build());
    }
    Ok(input)
}

fn overrides(request: &TaskRequest) -> TaskOverride {
    let container = request.environment.iter().fold(
        ContainerOverride::builder().name(&request.container),
        |container, (name, value)| {
            container.environment(KeyValuePair::builder().name(name).value(value).build())
        },
    );
    let size = &request.size;
    let disk = size.disk.and_then(|gib| i32::try_from(gib).ok());
    TaskOverride::builder()
        .container_overrides(container.build())
        .set_cpu(size.cpu.map(|units| units.to_string()))
        .set_memory(size.memory.map(|mib| mib.to_string()))
        .set_ephemeral_storage(disk.map(|gib| EphemeralStorage::builder().size_in_gib(gib).build()))
        .build()
}

/// A required member that the SDK misses: all of them are checked before, so this is never seen.
fn incomplete(e: aws_sdk_ecs::error::BuildError) -> Error {
    Error::new(Kind::Launch, "cannot build the RunTask request").because(e)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::machine::access::{Access, Role};
    use crate::machine::tags;
    use crate::machine::task::TaskSize;

    pub(in crate::compute::fargate) fn request() -> TaskRequest {
        TaskRequest {
            access: Access {
                region: Some("eu-west-1".into()),
                role: Some(Role {
                    arn: "arn:aws:iam::123456789012:role/ci".into(),
                    session_name: "ci-1".into(),
                    tags: vec![("project".into(), "group/app".into())],
                }),
            },
            cluster: Some("ci".into()),
            task_definition: "ci-job".into(),
            capacity: Capacity::LaunchTypeFargate,
            subnets: vec!["subnet-a".into(), "subnet-b".into()],
            security_groups: vec!["sg-1".into()],
            public_ip: true,
            dial_public: false,
            platform_version: Some("1.4.0".into()),
            execute_command: true,
            container: "ci-coordinator".into(),
            environment: vec![("SSH_PUBLIC_KEY".into(), "ssh-ed25519 AAAA".into())],
            started_by: tags::started_by("abc"),
            token: tags::client_token(&["1"]),
            tags: vec![("gitlab-aws-driver:job".into(), "1".into())],
            propagate_tags: true,
            size: TaskSize::default(),
            asked: 0,
        }
    }

    #[test]
    fn the_capacity_has_a_name_by_what_there_may_be_no_room_for() {
        let name = request().capacity_name();
        let other = TaskRequest {
            token: "t".into(),
            tags: vec![],
            environment: vec![],
            asked: 7,
            ..request()
        };
        assert_eq!(other.capacity_name(), name);
        let size = TaskSize {
            cpu: Some(16_384),
            ..TaskSize::default()
        };
        for other in [
            TaskRequest { size, ..request() },
            TaskRequest {
                task_definition: "ci-job-arm64".into(),
                ..request()
            },
            TaskRequest {
                capacity: Capacity::fargate_spot(),
                ..request()
            },
        ] {
            assert_ne!(other.capacity_name(), name, "{other:?}");
        }
    }

    #[test]
    fn a_size_is_asked_for_where_the_job_does() {
        let plain = input(&request()).unwrap().build().unwrap();
        let overrides = plain.overrides().unwrap();
        assert_eq!((overrides.cpu(), overrides.memory()), (None, None));
        assert!(overrides.ephemeral_storage().is_none());
        let size = TaskSize {
            cpu: Some(4096),
            memory: Some(8192),
            disk: Some(100),
        };
        let sized = TaskRequest { size, ..request() };
        let text = serde_json::to_string(&sized).unwrap();
        assert_eq!(serde_json::from_str::<TaskRequest>(&text).unwrap(), sized);
        let input = input(&sized).unwrap().build().unwrap();
        let overrides = input.overrides().unwrap();
        assert_eq!(overrides.cpu(), Some("4096"));
        assert_eq!(overrides.memory(), Some("8192"));
        let disk = overrides.ephemeral_storage().unwrap();
        assert_eq!(disk.size_in_gib(), 100);
    }

    #[test]
    fn everything_asked_for_is_sent() {
        let input = input(&request()).unwrap().build().unwrap();
        assert_eq!(input.cluster(), Some("ci"));
        assert_eq!(input.task_definition(), Some("ci-job"));
        assert_eq!(input.count(), Some(1));
        assert_eq!(input.launch_type(), Some(&LaunchType::Fargate));
        assert!(input.capacity_provider_strategy().is_empty());
        assert_eq!(input.platform_version(), Some("1.4.0"));
        assert_eq!(input.started_by(), Some("gad-abc"));
        assert_eq!(input.client_token(), Some(request().token.as_str()));
        assert_eq!(input.enable_execute_command(), Some(true));
        assert_eq!(input.enable_ecs_managed_tags(), None);
        assert_eq!(input.propagate_tags(), Some(&PropagateTags::TaskDefinition));
        assert_eq!(input.tags()[0].key(), Some("gitlab-aws-driver:job"));
        let vpc = input
            .network_configuration()
            .unwrap()
            .awsvpc_configuration()
            .unwrap();
        assert_eq!(vpc.subnets(), ["subnet-a", "subnet-b"]);
        assert_eq!(vpc.security_groups(), ["sg-1"]);
        assert_eq!(vpc.assign_public_ip(), Some(&AssignPublicIp::Enabled));
        let container = &input.overrides().unwrap().container_overrides()[0];
        assert_eq!(container.name(), Some("ci-coordinator"));
        assert_eq!(container.environment()[0].name(), Some("SSH_PUBLIC_KEY"));
        assert_eq!(container.environment()[0].value(), Some("ssh-ed25519 AAAA"));
    }

    #[test]
    fn each_capacity_gets_what_it_takes() {
        let with = |capacity: Capacity| {
            input(&TaskRequest {
                capacity,
                ..request()
            })
            .unwrap()
            .build()
            .unwrap()
        };
        let public = |input: &aws_sdk_ecs::operation::run_task::RunTaskInput| {
            input
                .network_configuration()
                .unwrap()
                .awsvpc_configuration()
                .unwrap()
                .assign_public_ip()
                .cloned()
        };
        let default = with(Capacity::ClusterDefault);
        assert_eq!(default.launch_type(), None);
        assert!(default.capacity_provider_strategy().is_empty());
        assert_eq!(default.platform_version(), Some("1.4.0"));

        let spot = with(Capacity::fargate_spot());
        assert_eq!(spot.launch_type(), None);
        let item = &spot.capacity_provider_strategy()[0];
        assert_eq!(
            (item.capacity_provider(), item.weight()),
            ("FARGATE_SPOT", 1)
        );
        assert_eq!(public(&spot), Some(AssignPublicIp::Enabled));

        let managed = with(Capacity::Provider("managed".into()));
        assert_eq!(managed.platform_version(), None);
        assert_eq!(public(&managed), None);
        assert_eq!(
            managed.capacity_provider_strategy()[0].capacity_provider(),
            "managed"
        );
    }

    #[test]
    fn nothing_that_was_not_asked_for_is_sent() {
        let plain = TaskRequest {
            access: Access::default(),
            cluster: None,
            capacity: Capacity::ClusterDefault,
            security_groups: vec![],
            public_ip: false,
            platform_version: None,
            execute_command: false,
            ..request()
        }
        .without_tags("t".into());
        let input = input(&plain).unwrap().build().unwrap();
        assert_eq!(input.cluster(), None);
        assert_eq!(input.enable_execute_command(), None);
        assert_eq!(input.propagate_tags(), None);
        assert!(input.tags().is_empty());
        assert_eq!(input.client_token(), Some("t"));
        let vpc = input
            .network_configuration()
            .unwrap()
            .awsvpc_configuration()
            .unwrap();
        assert_eq!(vpc.assign_public_ip(), Some(&AssignPublicIp::Disabled));
        assert!(vpc.security_groups().is_empty());
    }

    #[test]
    fn a_request_comes_back_from_its_intent() {
        for capacity in [
            Capacity::ClusterDefault,
            Capacity::LaunchTypeFargate,
            Capacity::fargate_spot(),
        ] {
            let request = TaskRequest {
                capacity,
                ..request()
            };
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<TaskRequest>(&text).unwrap(), request);
        }
    }
}
