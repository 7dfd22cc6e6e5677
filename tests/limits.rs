//! What jobs choose by variable: what comes through to AWS, and what `[limits]` does not let through.

use serde_json::Value;
use serde_json::json;

use crate::fargate_drop_in::edit_payload;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;

/// Bounds for everything.
const LIMITS: &str = "[limits]\nmax_cpu = \"8\"\nmax_memory = \"32GiB\"\nmax_disk = \"100GiB\"\n\
    architectures = [\"arm64\"]\ninstance_types = [\"c7*.large\", \"c7*.xlarge\"]\nmachine_images = [\"ami-0*\"]\n\
    task_definitions = [\"ci-job-*\"]\nroles = [\"arn:aws:iam::*:role/ci-*\"]\n";

fn with(variables: &[(&str, &str)]) -> RunnerBuilder {
    variables.iter().fold(
        Runner::builder().config_tables(LIMITS),
        |builder, (name, value)| builder.variable(name, value),
    )
}

/// Prepares, ends, and returns what AWS was asked by the last such call.
fn asked(runner: &Runner, action: &str) -> Value {
    runner.prepare().assert_success();
    runner.cleanup().assert_success();
    runner.account().calls(action).pop().unwrap().parameters
}

#[test]
fn what_is_out_of_bounds_is_refused_with_its_bound_and_no_try_fares_better() {
    for (variables, told) in [
        (
            &[("AWS_DRIVER_CPU", "9")][..],
            "\"9\" by AWS_DRIVER_CPU, and [limits] max_cpu allows 8 at most",
        ),
        (
            &[("AWS_DRIVER_MEMORY", "33GiB")],
            "[limits] max_memory allows 32GiB at most",
        ),
        (&[("AWS_DRIVER_MEMORY", "8gb")], "did you mean \"8GB\"?"),
        (
            &[("AWS_DRIVER_DISK", "1TiB")],
            "[limits] max_disk allows 100GiB at most",
        ),
        (
            &[("AWS_DRIVER_ARCHITECTURE", "x86_64")],
            "[limits] architectures allows only arm64",
        ),
        (
            &[("AWS_DRIVER_INSTANCE_TYPE", "p5.48xlarge")],
            "[limits] instance_types allows only c7*.large, c7*.xlarge",
        ),
        (
            &[("AWS_DRIVER_MACHINE_IMAGE", "/evil/image")],
            "[limits] machine_images allows only ami-0*",
        ),
        (
            &[("AWS_DRIVER_TASK_DEFINITION", "root")],
            "[limits] task_definitions allows only ci-job-*",
        ),
        (
            &[("AWS_DRIVER_CAPACITY", "fargate")],
            "[limits] capacity allows none",
        ),
    ] {
        let runner = with(variables).build();
        let first = runner.prepare().assert_code(2).assert_contains(told);
        assert!(!first.contains("Machine ready"), "{first}");
        runner.cleanup().assert_success();
        runner.next_attempt();
        runner.prepare().assert_code(2).assert_contains(told);
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn nothing_is_launched_for_a_job_that_asks_for_too_much() {
    let role = "arn:aws:iam::123456789012:role/admin";
    for (name, value, key) in [
        ("AWS_DRIVER_ROLE", role, "roles"),
        ("AWS_DRIVER_CPU", "16", "max_cpu"),
    ] {
        let runner = with(&[(name, value)]).on_fargate().build();
        let told = format!("by {name}, and [limits] {key} ");
        runner.prepare().assert_code(2).assert_contains(&told);
        runner.cleanup().assert_success();
        assert!(runner.account().calls("*").is_empty());
    }
}

#[test]
fn a_shadowed_variable_widens_no_limit() {
    let profile = "[[profile]]\nname = \"wide\"\nmatch = { project = \"trusted/**\" }\nlimits.max_cpu = \"64\"\n";
    let runner = with(&[("AWS_DRIVER_CPU", "16"), ("CI_PROJECT_PATH", "trusted/x")])
        .config_tables(profile)
        .on_fargate()
        .build();
    let runner_sends = |trusted: &str| {
        edit_payload(&runner, |payload| {
            payload["job_info"]["project_full_path"] = Value::Null;
            let variables = payload["variables"].as_array_mut().unwrap();
            let own = json!({ "key": "CI_PROJECT_PATH", "value": trusted });
            variables.insert(0, own);
        });
    };
    runner_sends("group/project");
    runner
        .prepare()
        .assert_code(2)
        .assert_contains("\"16\" by AWS_DRIVER_CPU, and [limits] max_cpu allows 8 at most");
    runner.cleanup().assert_success();
    assert!(runner.account().calls("RunTask").is_empty());
    // Whoever it really is may.
    let runner = with(&[("AWS_DRIVER_CPU", "16"), ("AWS_DRIVER_MEMORY", "32GiB")])
        .config_tables(&profile.replace("trusted", "group"))
        .on_fargate()
        .build();
    assert_eq!(asked(&runner, "RunTask")["overrides"]["cpu"], "16384");
}

#[test]
fn no_spelling_of_an_image_passes_for_another() {
    let runner = Runner::builder()
        .config_tables(
            "[limits]\nimages = [\"ruby:3*\", \"docker.io/group/**\", \"registry.example.com/**\"]\n",
        )
        .on_ec2()
        .ec2_line("container = true")
        .build();
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let (out_of_bounds, no_name) = (
        "[limits] images allows only ruby:3*, docker.io/group/**, registry.example.com/**",
        "which is no image's name",
    );
    for (name, told) in [
        ("EVIL/library/ruby:3", out_of_bounds),
        ("EVIL/group/x", out_of_bounds),
        ("EVIL/registry.example.com/x", out_of_bounds),
        ("Docker.io/group/x", out_of_bounds),
        ("docker.io/registry.example.com/x", out_of_bounds),
        ("registry.example.com:5000/x", out_of_bounds),
        ("[::1]:5000/group/x", out_of_bounds),
        ("ruby:3/x", out_of_bounds),
        ("bitnami/ruby:3", out_of_bounds),
        ("docker.io/../x", no_name),
        ("registry.example.com//x", no_name),
        ("registry.example.com/x/", no_name),
        ("registry.example.com/X", no_name),
        ("registry.example.com/x%2f..", no_name),
        ("registry.example.com/x y", no_name),
        ("registry.example.com/x\u{0}", no_name),
        ("registry.example.com/\u{ff41}", no_name),
        (&format!("ruby:3@{digest}"), out_of_bounds),
        (&format!("ruby@{digest}"), out_of_bounds),
        ("ruby:3@sha256:00", no_name),
        (&format!("ruby@{digest}@{digest}"), no_name),
        (&format!("ruby:{}", "3".repeat(129)), no_name),
        (
            &format!("registry.example.com/{}", "x".repeat(300)),
            no_name,
        ),
    ] {
        for services in [false, true] {
            edit_payload(&runner, |payload| {
                let (image, all) = match services {
                    false => (json!({ "name": name }), json!([])),
                    true => (json!({ "name": "ruby:3.4" }), json!([{ "name": name }])),
                };
                payload["image"] = image;
                payload["services"] = all;
            });
            let file = runner.attempt().join("response.json");
            let file = file.to_str().unwrap();
            // What `check` says of it a job is told too.
            let output = runner.command(&["check", "--job", file]).assert_code(1);
            assert!(output.contains(told), "{name}: {output}");
        }
    }
    for name in [format!("ruby:3@{digest}"), "EVIL/library/ruby:3".to_owned()] {
        edit_payload(&runner, |payload| {
            payload["image"] = json!({ "name": name });
            payload["services"] = json!([]);
        });
        runner
            .prepare()
            .assert_code(2)
            .assert_contains(out_of_bounds);
        runner.cleanup().assert_success();
        drop(std::fs::remove_dir_all(
            runner.state_directory().join("tombstones"),
        ));
        runner.next_attempt();
    }
    assert!(runner.account().calls("*").is_empty());
}

#[test]
fn a_size_on_fargate_is_the_next_that_there_is() {
    let runner = with(&[
        ("AWS_DRIVER_CPU", "3"),
        ("AWS_DRIVER_MEMORY", "9GiB"),
        ("AWS_DRIVER_DISK", "40GiB"),
    ])
    .on_fargate()
    .build();
    let asked = asked(&runner, "RunTask");
    let overrides = &asked["overrides"];
    assert_eq!(overrides["cpu"], "4096");
    assert_eq!(overrides["memory"], "9216");
    assert_eq!(overrides["ephemeralStorage"], json!({ "sizeInGiB": 40 }));
    // Who asks for nothing gets the task definition's own.
    let runner = with(&[]).on_fargate().build();
    let asked = self::asked(&runner, "RunTask");
    let overrides = asked["overrides"].as_object().unwrap();
    assert_eq!(overrides.keys().collect::<Vec<_>>(), ["containerOverrides"]);
}

#[test]
fn arm64_needs_a_task_definition_of_its_own() {
    let runner = with(&[("AWS_DRIVER_ARCHITECTURE", "arm64")])
        .on_fargate()
        .build();
    runner
        .prepare()
        .assert_code(2)
        .assert_contains("there is no [fargate] task_definition_arm64")
        .assert_contains("For example, under [fargate]: task_definition_arm64 = ");
    runner.cleanup().assert_success();
    runner.next_attempt();
    let family = runner.family();
    let file = runner.default_config();
    runner.write_config(&file.replace(
        "[fargate]\n",
        &format!("[fargate]\ntask_definition_arm64 = \"{family}:1\"\n"),
    ));
    // The failure of a configuration that was put right is not held against the job for ever.
    std::fs::remove_dir_all(runner.state_directory().join("tombstones")).unwrap();
    assert_eq!(
        asked(&runner, "RunTask")["taskDefinition"],
        format!("{family}:1")
    );
}

#[test]
fn rungs_that_cannot_are_left_out() {
    let runner = with(&[("AWS_DRIVER_INSTANCE_TYPE", "c7i.xlarge")])
        .capacity(&["fargate", "ec2-spot"])
        .on_ec2()
        .build();
    runner.prepare().assert_success().assert_contains(
        "fargate is left out: the job asks for \"c7i.xlarge\" by AWS_DRIVER_INSTANCE_TYPE",
    );
    let instance = runner.account().instances_alive().pop().unwrap();
    assert_eq!(instance.kind, "c7i.xlarge");
    assert!(runner.account().calls("RunTask").is_empty());
    runner.cleanup().assert_success();
}

#[test]
fn an_instance_has_as_much_as_is_asked_for() {
    let runner = with(&[
        ("AWS_DRIVER_CPU", "3"),
        ("AWS_DRIVER_MEMORY", "6GiB"),
        ("AWS_DRIVER_DISK", "40.5GiB"),
    ])
    .on_ec2()
    .ec2_line("instance_types = [\"c7i.large\", \"c7i.xlarge\"]")
    .build();
    runner.prepare().assert_success();
    let instance = runner.account().instances_alive().pop().unwrap();
    assert_eq!(instance.kind, "c7i.xlarge");
    assert_eq!(instance.volume_size, 41);
    runner
        .run("build_script", "echo there")
        .assert_success()
        .assert_stdout("there\n");
    runner.cleanup().assert_success();
    // None of them is large enough.
    let runner = with(&[("AWS_DRIVER_CPU", "8")])
        .on_ec2()
        .ec2_line("instance_types = [\"c7i.large\", \"c7i.xlarge\"]")
        .build();
    let output = runner.prepare();
    assert_eq!(output.code(), Some(2), "{output}");
    assert!(output.contains("instance requirements"), "{output}");
    runner.cleanup().assert_success();
}

#[test]
fn a_file_of_the_go_driver_knows_none_of_them() {
    let runner = with(&[
        ("AWS_DRIVER_CPU", "64"),
        ("AWS_DRIVER_CAPACITY", "nonsense"),
    ])
    .on_fargate()
    .build();
    let account = runner.account();
    runner.write_config(&format!(
        "[Fargate]\nCluster = \"{}\"\nRegion = \"{}\"\nSubnet = \"{}\"\nSecurityGroup = \"{}\"\n\
         TaskDefinition = \"{}\"\n[TaskMetadata]\nDirectory = \"{}\"\n[SSH]\nUsername = \"root\"\nPort = {}\n",
        crate::lab::aws::CLUSTER,
        account.region(),
        account.subnets()[0],
        account.security_group(),
        runner.family(),
        runner.state_directory().display(),
        runner.server().port(),
    ));
    let asked = asked(&runner, "RunTask");
    assert_eq!(asked["taskDefinition"], runner.family());
    assert!(asked["overrides"].get("cpu").is_none(), "{asked}");
}
