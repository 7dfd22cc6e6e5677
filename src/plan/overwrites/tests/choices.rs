//! What jobs choose by `AWS_DRIVER_…`, and what bounds it.

use proptest::prelude::*;

use super::*;
use crate::machine::task::TaskSize;
use crate::plan::overwrites::{ROLE, TASK_DEFINITION};

/// Both kinds of machines, and limits on everything.
const BOTH: &str = r#"
capacity = ["fargate-spot", "ec2-spot", "ecs:asg"]
[fargate]
task_definition = "ci-job"
subnets = ["subnet-1"]
[ec2]
image_id = "ami-1"
instance_types = ["c7i.large", "m7i.large"]
subnets = ["subnet-1"]
volume_size = "30GiB"
role_arn = "arn:aws:iam::111122223333:role/instances"
[limits]
task_definitions = ["ci-*"]
roles = ["arn:aws:iam::*:role/ci-*"]
max_cpu = "8"
max_memory = "32GiB"
max_disk = "300GiB"
architectures = ["x86_64", "arm64"]
machine_images = ["ami-a*", "/ci/*"]
instance_types = ["c7*.large"]
capacity = ["fargate", "ec2"]
"#;
/// What it takes to offer arm64 too.
const ARM: [(&str, &str); 2] = [
    (
        "[ec2]",
        "[ec2]\nimage_id_arm64 = \"ami-2\"\ninstance_types_arm64 = [\"c7g.large\"]",
    ),
    ("[fargate]", "[fargate]\ntask_definition_arm64 = \"ci-arm\""),
];

fn asked_of(text: &str, variables: &[(&str, &str)]) -> Result<Settled> {
    settle(
        &settings(text),
        &Overrides::default(),
        &overwrites(variables, "{}"),
    )
}

fn names(rungs: &[Rung]) -> Vec<String> {
    rungs.iter().map(ToString::to_string).collect()
}

#[test]
fn each_wish_comes_through_where_it_means_something() {
    let with_arm = ARM
        .iter()
        .fold(BOTH.to_owned(), |text, (from, to)| text.replace(from, to));
    let gib = |n: u64| n << 30;

    let plain = asked_of(BOTH, &[]).unwrap();
    assert_eq!(names(&plain.rungs), ["fargate-spot", "ec2-spot", "ecs:asg"]);
    let (task, instance) = (plain.task.unwrap(), plain.instance.unwrap());
    assert_eq!(task.on_fargate, TaskSize::default());
    assert_eq!((instance.disk, instance.min_memory), (Some(gib(30)), None));
    assert_eq!(instance.image.as_deref(), Some("ami-1"));
    assert_eq!(instance.types, ["c7i.large", "m7i.large"]);
    assert_eq!(
        instance.role.unwrap().arn,
        "arn:aws:iam::111122223333:role/instances"
    );

    let sized = asked_of(BOTH, &[(CPU, "3"), (MEMORY, "9GiB"), (DISK, "40.5GiB")]).unwrap();
    // A disk of another size is not to be had on the third.
    assert_eq!(names(&sized.rungs), ["fargate-spot", "ec2-spot"]);
    assert_eq!(sized.left_out[0].0.to_string(), "ecs:asg");
    let size = TaskSize {
        cpu: Some(4096),
        memory: Some(9 * 1024),
        disk: Some(41),
    };
    assert_eq!(sized.task.unwrap().on_fargate, size);
    let instance = sized.instance.unwrap();
    assert_eq!(
        (instance.min_cpu_millis, instance.min_memory),
        (Some(3000), Some(gib(9)))
    );
    assert_eq!(instance.disk, Some(gib(41)));
    let sized = asked_of(BOTH, &[(CPU, "3"), (MEMORY, "9GiB")]).unwrap();
    let elsewhere = sized.task.unwrap().elsewhere;
    assert_eq!(
        (elsewhere.cpu, elsewhere.memory),
        (Some(3072), Some(9 * 1024))
    );

    let arm = asked_of(&with_arm, &[(ARCHITECTURE, "arm64")]).unwrap();
    assert_eq!(arm.task.unwrap().task_definition, "ci-arm");
    let instance = arm.instance.unwrap();
    assert_eq!(instance.image.as_deref(), Some("ami-2"));
    assert_eq!(instance.types, ["c7g.large"]);
    let own = asked_of(
        &with_arm,
        &[(ARCHITECTURE, "arm64"), (TASK_DEFINITION, "ci-x")],
    )
    .unwrap();
    assert_eq!(
        (names(&own.rungs), own.task.unwrap().task_definition),
        (vec!["fargate-spot".into(), "ecs:asg".into()], "ci-x".into())
    );

    let machine = asked_of(
        BOTH,
        &[(MACHINE_IMAGE, "/ci/image"), (INSTANCE_TYPE, "c7a.large")],
    )
    .unwrap();
    assert_eq!(names(&machine.rungs), ["ec2-spot"]);
    assert!(machine.task.is_none());
    let instance = machine.instance.unwrap();
    assert_eq!(instance.image.as_deref(), Some("/ci/image"));
    assert_eq!(instance.types, ["c7a.large"]);

    let rungs = asked_of(BOTH, &[(CAPACITY, " ec2 ,fargate")]).unwrap();
    assert_eq!(names(&rungs.rungs), ["ec2", "fargate"]);
    // The file's own list needs no leave.
    assert!(asked_of(BOTH, &[(CAPACITY, "fargate-spot,ec2-spot,ecs:asg")]).is_ok());
    assert!(asked_of(BOTH, &[(CAPACITY, " ")]).is_ok());

    let role = "arn:aws:iam::111122223333:role/ci-a";
    let both = asked_of(BOTH, &[(ROLE, role), (GO_ROLE, role)]).unwrap();
    assert_eq!(both.task.unwrap().role.unwrap().arn, role);
    assert_eq!(both.instance.unwrap().role.unwrap().arn, role);
}

#[test]
fn what_is_out_of_bounds_is_refused_by_the_bounds_name() {
    for (variables, told) in [
        (
            &[(CPU, "8.5")][..],
            "asks for \"8.5\" by AWS_DRIVER_CPU, and [limits] max_cpu allows 8 at most",
        ),
        (
            &[(CPU, "many")],
            "AWS_DRIVER_CPU, and \"many\" is no number of vCPU",
        ),
        (
            &[(MEMORY, "33GiB")],
            "[limits] max_memory allows 32GiB at most",
        ),
        (&[(MEMORY, "8gb")], "did you mean \"8GB\"?"),
        (
            &[(DISK, "301GiB")],
            "[limits] max_disk allows 300GiB at most",
        ),
        (
            &[(ARCHITECTURE, "riscv")],
            "\"riscv\" is no architecture: there are x86_64, arm64",
        ),
        (
            &[(MACHINE_IMAGE, "ami-b1")],
            "[limits] machine_images allows only ami-a*, /ci/*",
        ),
        (&[(MACHINE_IMAGE, "/ci/a/b")], "machine_images allows only"),
        (
            &[(MACHINE_IMAGE, "latest")],
            "\"latest\" is no machine image",
        ),
        (
            &[(INSTANCE_TYPE, "p5.48xlarge")],
            "[limits] instance_types allows only c7*.large",
        ),
        (&[(INSTANCE_TYPE, "large")], "is no instance type"),
        (
            &[(CAPACITY, "fargate,ec2-spot")],
            "asks for \"ec2-spot\" by AWS_DRIVER_CAPACITY, and [limits] capacity allows only fargate, ec2",
        ),
        (&[(CAPACITY, "ec2,ec2")], "stands in the list twice"),
        (&[(CAPACITY, "local")], "[limits] capacity allows only"),
        (
            &[(CAPACITY, "fargate_spot")],
            "did you mean \"fargate-spot\"?",
        ),
        (
            &[(TASK_DEFINITION, "root")],
            "by AWS_DRIVER_TASK_DEFINITION, and [limits] task_definitions allows only ci-*",
        ),
        (
            &[(TASK_DEFINITION, "ci-a"), (GO_TASK_DEFINITION, "ci-b")],
            "and for \"ci-b\" by FARGATE_TASK_DEFINITION",
        ),
        (&[(ROLE, "arn:aws:iam::1:role/x")], "by AWS_DRIVER_ROLE, "),
        // The file's own, but for the other kind of machine.
        (
            &[(ROLE, "arn:aws:iam::111122223333:role/instances")],
            "[limits] roles allows only",
        ),
        (
            &[(INSTANCE_TYPE, "c7a.large"), (CPU, "2")],
            "which says already what AWS_DRIVER_CPU asks for",
        ),
        (
            &[(MACHINE_IMAGE, "ami-a"), (TASK_DEFINITION, "ci-a")],
            "and a task has none; the job asks for \"ci-a\" by AWS_DRIVER_TASK_DEFINITION, and an instance has none",
        ),
        (
            &[(ARCHITECTURE, "arm64")],
            "there is no [fargate] task_definition_arm64; the job asks for \"arm64\" by AWS_DRIVER_ARCHITECTURE, and there is no [ec2] image_id_arm64",
        ),
    ] {
        let error = asked_of(BOTH, variables).expect_err(told);
        assert_eq!(error.kind(), Kind::Limit, "{error}");
        assert!(error.to_string().contains(told), "{error}\n{told}");
        assert!(error.remedy().is_some_and(|r| !r.is_empty()), "{error}");
    }
    // What is not listed is closed.
    let none = BOTH.split("[limits]").next().unwrap();
    for (variable, overwrite, key) in [
        (CPU, "1", "max_cpu is not set"),
        (MEMORY, "1GiB", "max_memory is not set"),
        (DISK, "1GiB", "max_disk is not set"),
        (ARCHITECTURE, "x86_64", "architectures allows none"),
        (MACHINE_IMAGE, "ami-a", "machine_images allows none"),
        (INSTANCE_TYPE, "c7i.xlarge", "instance_types allows none"),
        (CAPACITY, "fargate", "capacity allows none"),
    ] {
        let error = asked_of(none, &[(variable, overwrite)])
            .expect_err(key)
            .to_string();
        assert!(error.contains(variable) && error.contains(key), "{error}");
    }
    // What the file has anyway is not.
    for (variable, overwrite) in [(MACHINE_IMAGE, "ami-1"), (INSTANCE_TYPE, "m7i.large")] {
        assert!(
            asked_of(none, &[(variable, overwrite)]).is_ok(),
            "{overwrite}"
        );
    }
}

#[test]
fn fargates_next_size_has_to_be_within_the_limits_too() {
    let only = "capacity = [\"fargate\"]\n[fargate]\ntask_definition = \"a\"\nsubnets = [\"subnet-b\"]\n[limits]\nmax_disk = \"1TiB\"\n";
    for (limits, variables, told) in [
        (
            "max_cpu = \"3\"\nmax_memory = \"9GiB\"",
            &[(CPU, "3")][..],
            "for which the next size of Fargate has 4 vCPU, and [limits] max_cpu allows 3 at most",
        ),
        (
            "max_cpu = \"4\"\nmax_memory = \"4GiB\"",
            &[(CPU, "4"), (MEMORY, "2GiB")],
            "\"4\" by AWS_DRIVER_CPU and \"2GiB\" by AWS_DRIVER_MEMORY, for which the next size of Fargate has 8GiB",
        ),
        (
            "",
            &[(DISK, "201GiB")],
            "a task on Fargate has 200GiB at most",
        ),
    ] {
        let error = asked_of(&format!("{only}{limits}"), variables).expect_err(told);
        assert!(error.to_string().contains(told), "{error}\n{told}");
        assert_eq!(error.kind(), Kind::Limit);
    }
}

#[test]
fn a_size_beyond_fargates_table_is_anothers_turn_or_aws_is_asked() {
    let task = "[fargate]\ntask_definition = \"a\"\nsubnets = [\"subnet-1\"]\n[limits]\nmax_cpu = \"64\"\nmax_memory = \"512GiB\"\n";
    let instance = "[ec2]\nimage_id = \"ami-0123456789abcdef0\"\ninstance_types = [\"c7i.16xlarge\"]\nsubnets = [\"subnet-1\"]\n";
    for asked in [
        &[(CPU, "64"), (MEMORY, "128GiB")][..],
        &[(CPU, "1"), (MEMORY, "300GiB")],
    ] {
        let alone = asked_of(&format!("capacity = [\"fargate\"]\n{task}"), asked).unwrap();
        assert_eq!(alone.rungs, [Rung::Fargate]);
        let doubt = alone.doubt.expect("a doubt");
        assert!(
            doubt.contains("more than Fargate is known to have"),
            "{doubt}"
        );
        let both = format!("capacity = [\"fargate\", \"ec2\"]\n{instance}{task}");
        let both = asked_of(&both, asked).unwrap();
        assert_eq!((both.rungs, both.doubt), (vec![Rung::Ec2], None));
        assert_eq!(both.left_out.len(), 1);
    }
    let known = [(CPU, "32"), (MEMORY, "244GiB")];
    let known = asked_of(&format!("capacity = [\"fargate\"]\n{task}"), &known).unwrap();
    assert_eq!(known.doubt, None);
    let size = known.task.expect("a task").on_fargate;
    assert_eq!((size.cpu, size.memory), (Some(32_768), Some(249_856)));
}

#[test]
fn images_are_for_containers_and_bounded() {
    let payload =
        r#"{"image":{"name":"registry.example.com/a/b:1"},"services":[{"name":"postgres:16"}]}"#;
    let overwrites = overwrites(&[], payload);
    let settle = |text: &str| settle(&settings(text), &Overrides::default(), &overwrites);
    let error = settle(BOTH).unwrap_err().to_string();
    assert!(
        error.contains("by `image:`, and a task runs in its task definition's own image"),
        "{error}"
    );
    assert!(
        error.contains("jobs on instances run without a container"),
        "{error}"
    );
    let container = BOTH.replace(
        "[ec2]",
        "[ec2]\ncontainer = true\ncontainer_image = \"debian:12\"",
    );
    let limited =
        |images: &str| container.replace("[limits]", &format!("[limits]\nimages = {images}"));
    for (images, told) in [
        (
            "[]",
            "the image registry.example.com/a/b:1 by image:, and [limits] images allows none",
        ),
        (
            "[\"registry.example.com/*\"]",
            "images allows only registry.example.com/*",
        ),
        (
            "[\"registry.example.com/**\"]",
            "the image postgres:16 by services:, and [limits] images allows only",
        ),
    ] {
        let error = settle(&limited(images)).expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
    }
    let settled = settle(&limited("[\"registry.example.com/**\", \"postgres:*\"]")).unwrap();
    assert_eq!(names(&settled.rungs), ["ec2-spot"]);
}

#[test]
fn a_go_driver_file_knows_none_of_these() {
    let all = [
        CPU,
        MEMORY,
        DISK,
        ARCHITECTURE,
        MACHINE_IMAGE,
        INSTANCE_TYPE,
        CAPACITY,
        ROLE,
        TASK_DEFINITION,
    ];
    let variables: Vec<_> = all.iter().map(|name| (*name, "nonsense")).collect();
    let settled = asked_of(OPEN, &variables).unwrap();
    assert_eq!(settled, asked_of(OPEN, &[]).unwrap());
    let overwrites = overwrites(&variables, "{}");
    assert_eq!(
        settle_role(None, &settings(OPEN), &overwrites).unwrap(),
        None
    );
}

#[test]
fn every_variable_stands_in_the_documentation_with_its_bound() {
    const DOCUMENTATION: &str = include_str!("../../../../docs/job-variables.md");
    for (variable, bound) in [
        (CPU, "max_cpu"),
        (MEMORY, "max_memory"),
        (DISK, "max_disk"),
        (ARCHITECTURE, "architectures"),
        (MACHINE_IMAGE, "machine_images"),
        (INSTANCE_TYPE, "instance_types"),
        (CAPACITY, "capacity"),
        (ROLE, "roles"),
        (GO_ROLE, "roles"),
        (TASK_DEFINITION, "task_definitions"),
        (GO_TASK_DEFINITION, "task_definitions"),
        (PLATFORM_VERSION, "–"),
        (SESSION, "the role's trust policy"),
    ] {
        let name = format!("`{variable}`");
        let mut rows = DOCUMENTATION
            .lines()
            .filter(|line| line.starts_with('|') && line.contains(&name));
        assert!(rows.any(|row| row.contains(bound)), "{variable}");
    }
}

#[test]
fn this_host_is_what_it_is() {
    let local =
        "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n[limits]\nmax_cpu = \"4\"\n";
    assert!(asked_of(local, &[(GO_TASK_DEFINITION, "")]).is_ok());
    let error = asked_of(local, &[(CPU, "2")]).unwrap_err().to_string();
    assert!(
        error.contains("and `local` is this host as it is"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for, what is settled is within the limits, and no less than asked for.
    #[test]
    fn nothing_settled_is_out_of_bounds(cpu in 1_u32..20_000, mib in 1_u64..70_000, disk in 1_u64..400) {
        let (cpu_text, memory, disk_text) = (
            crate::config::display::vcpu(cpu.into()), format!("{mib}MiB"), format!("{disk}GiB"),
        );
        let variables = [(CPU, cpu_text.as_str()), (MEMORY, &memory), (DISK, &disk_text)];
        let over = cpu > 8000 || mib > 32 * 1024 || disk > 300;
        match asked_of(BOTH, &variables) {
            Err(error) => prop_assert!(over, "{}", error),
            Ok(settled) => {
                prop_assert!(!over);
                let instance = settled.instance.unwrap();
                prop_assert_eq!(instance.min_cpu_millis, Some(cpu));
                if let Some(task) = settled.task {
                    let size = task.on_fargate;
                    prop_assert!(size.cpu_millis().unwrap() <= 8000 && size.cpu_millis().unwrap() >= u64::from(cpu));
                    prop_assert!(size.memory.unwrap() <= 32 * 1024 && size.memory.unwrap() >= mib);
                }
            }
        }
    }

    /// Any bytes in any variable are taken or refused.
    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,60}") {
        for variable in [CPU, MEMORY, DISK, ARCHITECTURE, MACHINE_IMAGE, INSTANCE_TYPE, CAPACITY] {
            drop(asked_of(BOTH, &[(variable, &text)]));
        }
    }
}
