//! What AWS may answer of a task, and what of it is read.

use aws_sdk_ecs::types::{
    Attachment, Container as SdkContainer, KeyValuePair, NetworkInterface, Tag, TaskStopCode,
};

use super::*;

const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:task/ci/0123456789abcdef";

fn attachment(id: &str, kind: &str, details: &[(&str, &str)]) -> Attachment {
    details
        .iter()
        .fold(
            Attachment::builder().id(id).r#type(kind).status("ATTACHED"),
            |a, (name, value)| a.details(KeyValuePair::builder().name(*name).value(*value).build()),
        )
        .build()
}

fn container(name: &str, interface: Option<NetworkInterface>) -> SdkContainer {
    SdkContainer::builder()
        .name(name)
        .set_network_interfaces(interface.map(|i| vec![i]))
        .build()
}

#[test]
fn a_running_task() {
    let answer = types::Task::builder()
        .task_arn(ARN)
        .last_status("RUNNING")
        .desired_status("RUNNING")
        .capacity_provider_name("FARGATE_SPOT")
        .availability_zone("eu-west-1b")
        .started_by("gad-abc")
        .pull_started_at(DateTime::from_secs(100))
        .pull_stopped_at(DateTime::from_millis(112_500))
        .tags(Tag::builder().key("a").value("b").build())
        .tags(Tag::builder().key("empty").build())
        .attachments(attachment(
            "v",
            "AmazonElasticBlockStorage",
            &[("volumeName", "x")],
        ))
        .attachments(attachment(
            "e",
            "ElasticNetworkInterface",
            &[
                ("subnetId", "subnet-1"),
                ("networkInterfaceId", "eni-1"),
                ("macAddress", "0a:0b"),
                ("privateIPv4Address", "10.0.1.5"),
            ],
        ))
        .containers(container("sidecar", None))
        .containers(container(
            "ci-coordinator",
            Some(
                NetworkInterface::builder()
                    .attachment_id("e")
                    .private_ipv4_address("10.0.1.5")
                    .ipv6_address("2001:db8::5")
                    .build(),
            ),
        ))
        .build();
    let task = Task::read(&answer, "ci-coordinator");
    assert_eq!(task.phase, Phase::Running);
    assert_eq!(task.id(), "0123456789abcdef");
    assert_eq!(task.private_address(), Some("10.0.1.5".parse().unwrap()));
    assert_eq!(task.ipv6, Some("2001:db8::5".parse().unwrap()));
    assert_eq!(
        (task.eni.as_deref(), task.subnet.as_deref()),
        (Some("eni-1"), Some("subnet-1"))
    );
    assert!(task.attached && task.stop.is_none());
    assert_eq!(
        task.pull_stopped
            .unwrap()
            .duration_since(task.pull_started.unwrap())
            .unwrap(),
        Duration::from_millis(12_500)
    );
    assert_eq!(
        task.tags,
        [("a".into(), "b".into()), ("empty".into(), String::new())]
    );
    assert!(!task.lacks("ci-coordinator") && task.lacks("build"));
}

#[test]
fn an_address_is_known_from_the_attachment_before_containers_have_it() {
    let answer = types::Task::builder()
        .last_status("PENDING")
        .attachments(attachment(
            "e",
            "eni",
            &[
                ("networkInterfaceId", "eni-1"),
                ("privateIPv4Address", "10.0.1.5"),
            ],
        ))
        .containers(container("ci-coordinator", None))
        .build();
    let task = Task::read(&answer, "ci-coordinator");
    assert_eq!(task.private_address(), Some("10.0.1.5".parse().unwrap()));
    assert!(task.attached);
}

#[test]
fn a_subnet_with_ipv6_alone_gives_that() {
    let answer = types::Task::builder()
        .containers(container(
            "c",
            Some(
                NetworkInterface::builder()
                    .ipv6_address("2001:db8::5")
                    .private_ipv4_address("")
                    .build(),
            ),
        ))
        .build();
    assert_eq!(
        Task::read(&answer, "c").private_address(),
        Some("2001:db8::5".parse().unwrap())
    );
}

#[test]
fn the_interface_of_the_right_container_counts() {
    let interface = |id: &str, address: &str| {
        Some(
            NetworkInterface::builder()
                .attachment_id(id)
                .private_ipv4_address(address)
                .build(),
        )
    };
    let answer = types::Task::builder()
        .attachments(attachment(
            "one",
            "ElasticNetworkInterface",
            &[("networkInterfaceId", "eni-1")],
        ))
        .attachments(attachment(
            "two",
            "ElasticNetworkInterface",
            &[("networkInterfaceId", "eni-2")],
        ))
        .containers(container("sidecar", interface("one", "10.0.0.1")))
        .containers(container("ci-coordinator", interface("two", "10.0.0.2")))
        .build();
    let task = Task::read(&answer, "ci-coordinator");
    assert_eq!(task.eni.as_deref(), Some("eni-2"));
    assert_eq!(task.private_address(), Some("10.0.0.2".parse().unwrap()));
}

#[test]
fn nothing_is_an_error() {
    let task = Task::read(&types::Task::builder().build(), "c");
    assert_eq!(task, Task::default());
    assert_eq!(
        (task.private_address(), task.id(), task.lacks("c")),
        (None, "", false)
    );

    let odd = types::Task::builder()
        .last_status("HIBERNATING")
        .attachments(Attachment::builder().build())
        .attachments(attachment(
            "e",
            "ElasticNetworkInterface",
            &[("privateIPv4Address", "soon")],
        ))
        .containers(SdkContainer::builder().build())
        .started_at(DateTime::from_secs(i64::MAX))
        .build();
    let task = Task::read(&odd, "c");
    assert_eq!(
        (task.phase, task.private_address(), task.stop),
        (Phase::Other, None, None)
    );
}

#[test]
fn a_stop_is_known_before_the_task_has_stopped() {
    let answer = types::Task::builder()
        .last_status("RUNNING")
        .desired_status("STOPPED")
        .stop_code(TaskStopCode::SpotInterruption)
        .stopped_reason("Your Spot Task was interrupted.")
        .containers(
            SdkContainer::builder()
                .name("c")
                .exit_code(143)
                .reason(" ")
                .build(),
        )
        .build();
    let task = Task::read(&answer, "c");
    assert_eq!(task.phase, Phase::Running);
    let stop = task.stop.unwrap();
    assert_eq!(stop.code.as_deref(), Some("SpotInterruption"));
    assert_eq!(
        stop.containers,
        [Container {
            name: "c".into(),
            exit_code: Some(143),
            reason: None
        }]
    );
    for (status, ends) in [
        ("RUNNING", false),
        ("DEACTIVATING", true),
        ("STOPPED", true),
        ("NEW", false),
    ] {
        let task = Task::read(&types::Task::builder().last_status(status).build(), "c");
        assert_eq!(task.stop.is_some(), ends, "{status}");
    }
    // Codes that this SDK does not know pass through.
    let new = types::Task::builder()
        .stop_code(TaskStopCode::from("BrandNew"))
        .build();
    assert_eq!(
        Task::read(&new, "c").stop.unwrap().code.as_deref(),
        Some("BrandNew")
    );
}

#[test]
fn phases_are_in_order() {
    let all = [
        "?",
        "PROVISIONING",
        "PENDING",
        "ACTIVATING",
        "RUNNING",
        "DEACTIVATING",
        "STOPPING",
        "DEPROVISIONING",
        "STOPPED",
        "DELETED",
    ]
    .map(Phase::read);
    assert!(all.is_sorted() && all[4] == Phase::Running);
    assert!(!all[0].is_ending() && !all[4].is_ending() && all[5].is_ending());
    assert!(!all[6].is_over() && all[7].is_over());
}
