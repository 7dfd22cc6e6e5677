//! `check --iam`: the policy for a file, from the statements of the examples.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use crate::check_command::check_text;
use crate::fargate_capacity::assert_failure;
use crate::lab::aws::Account;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config-examples");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Returns the statements of the bastion's example policies, by their names.
fn examples() -> BTreeMap<String, Value> {
    let files = ["bastion.json", "bastion-ec2.json", "bastion-ecr.json"];
    let policies = files.map(|name| example(&format!("iam/{name}")));
    policies.iter().flat_map(|text| statements(text)).collect()
}

fn statements(policy: &str) -> BTreeMap<String, Value> {
    let policy: Value = serde_json::from_str(policy).unwrap_or_else(|e| panic!("{e}: {policy}"));
    assert_eq!(policy["Version"], "2012-10-17", "{policy:#}");
    let all = policy["Statement"].as_array().unwrap().iter();
    let named = all.map(|one| (one["Sid"].as_str().unwrap().to_owned(), one.clone()));
    named.collect()
}

fn printed(output: &Output) -> BTreeMap<String, Value> {
    statements(std::str::from_utf8(&output.stdout).unwrap())
}

fn names(of: &BTreeMap<String, Value>) -> Vec<&str> {
    of.keys().map(String::as_str).collect()
}

/// A file that needs all that the examples hold.
const EVERYTHING: &str = r#"
capacity = ["fargate-spot", "ec2-spot"]

[fargate]
region = "eu-west-1"
cluster = "arn:aws:ecs:eu-west-1:111122223333:cluster/ci"
task_definition = "ci-job"
subnets = ["subnet-0a1b2c3d"]
enable_public_ip = true

[ec2]
region = "eu-west-1"
image_id = "/aws/service/debian/release/12/latest/amd64"
instance_types = ["c7i.large"]
subnets = ["subnet-0a1b2c3d"]
instance_profile = "ci-job"
instance_connect = true
container = true
ecr_login = "driver"

[limits]
task_definitions = ["ci-*"]
roles = ["arn:aws:iam::444455556666:role/ci-*"]
images = ["111122223333.dkr.ecr.eu-west-1.amazonaws.com/ci-*"]
machine_images = ["/aws/service/**", "/ci/**"]

[[profile]]
name = "own"
match = { project = "group/**" }
capacity = ["fargate"]
[profile.fargate]
role_arn = "arn:aws:iam::111122223333:role/ci-default"
[profile.limits]
roles = []
"#;

const PASSED: [&str; 2] = [
    "--pass-role=arn:aws:iam::111122223333:role/ci-execution",
    "--pass-role=arn:aws:iam::111122223333:role/ci-task",
];

#[test]
fn the_examples_are_what_a_file_of_everything_needs() {
    let output = check_text(EVERYTHING, &["--iam", PASSED[0], PASSED[1]]).assert_success();
    let mut printed = printed(&output);
    let wanted = examples();
    // The order in which roles come is the file's.
    let roles = printed.get_mut("TakeOnProjectRoles").unwrap()["Resource"].as_array_mut();
    roles.unwrap().sort_by_key(ToString::to_string);
    assert_eq!(names(&printed), names(&wanted));
    for (name, statement) in &wanted {
        assert_eq!(&printed[name], statement, "{name}");
    }
    let told = output.stderr_text();
    assert!(
        told.contains("check --iam=arn:aws:iam::111122223333:role/ci-default"),
        "{told}"
    );
    assert!(!told.contains("does not say which"), "{told}");
}

#[test]
fn a_file_gets_what_its_rungs_use_and_no_more() {
    let all = examples();
    let of = |name: &str| {
        let output = check_text(&example(name), &["--iam"]).assert_success();
        let printed = printed(&output);
        for (name, statement) in &printed {
            assert_eq!(statement["Action"], all[name]["Action"], "{name}");
            assert_eq!(statement["Effect"], "Allow");
        }
        printed
    };
    let tasks = [
        "FindLeftOverTasks",
        "LaunchTasks",
        "PassRolesToTasks",
        "TagTasksAtLaunch",
        "WatchAndEndTasks",
    ];
    for file in ["fargate-spot.toml", "public-egress.toml", "go-driver.toml"] {
        assert_eq!(names(&of(file)), tasks, "{file}");
    }
    let instances = [
        "EndWhatCarriesTheFleetsTag",
        "LaunchFromWhatIsThere",
        "LaunchWithTheFleetsTag",
        "LookAtInstances",
    ];
    let spot = of("ec2-spot.toml");
    assert!(
        instances.iter().all(|name| spot.contains_key(*name)),
        "{spot:#?}"
    );
    assert!(
        tasks.iter().all(|name| !spot.contains_key(*name)),
        "{spot:#?}"
    );
    assert_eq!(
        spot["ReadImageParameters"]["Resource"],
        json!([
            "arn:aws:ssm:eu-west-1::parameter/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
        ])
    );
    assert!(!spot.contains_key("PassTheInstanceRole"));
    assert!(!of("fargate-then-ec2.toml").contains_key("ReadImageParameters"));
    assert!(of("docker-builds.toml").contains_key("PassTheInstanceRole"));
    // All is done by roles: the bastion may take them on, and nothing else.
    assert_eq!(names(&of("role-per-project.toml")), ["TakeOnProjectRoles"]);
    assert!(of("local.toml").is_empty());
    let role = "--iam=arn:aws:iam::111122223333:role/ci-default";
    let output = check_text(&example("role-per-project.toml"), &[role]).assert_success();
    let of_role = printed(&output);
    assert_eq!(names(&of_role), tasks);
    assert_eq!(
        of_role["LaunchTasks"]["Resource"],
        json!(["arn:aws:ecs:eu-west-1:111122223333:task-definition/ci-*:*"])
    );
    let nobody = ["--iam=arn:aws:iam::111122223333:role/other", "--json"];
    let output = check_text(&example("role-per-project.toml"), &nobody).assert_code(1);
    assert!(
        output.contains("nothing of this file is done by the role"),
        "{output}"
    );
}

#[test]
fn a_policy_names_this_files_places_and_no_others() {
    let text = "capacity = [\"fargate\", \"ec2\"]\nfleet = \"ci-west\"\n[fargate]\nregion = \"cn-north-1\"\ncluster = \"builds\"\n\
                task_definition = \"job:7\"\nsubnets = [\"subnet-1\"]\n[ec2]\nregion = \"cn-north-1\"\nimage_id = \"ami-1\"\n\
                instance_types = [\"c7i.large\"]\nsubnets = [\"subnet-1\"]\ninstance_profile = \"ci\"\n[[profile]]\nname = \"other\"\n\
                match.protected = true\n[profile.fargate]\nregion = \"cn-northwest-1\"\ncluster = \"more\"\n";
    let output = check_text(text, &["--iam"]).assert_success();
    let printed = printed(&output);
    assert_eq!(
        printed["LaunchTasks"]["Resource"],
        json!([
            "arn:aws-cn:ecs:cn-north-1:*:task-definition/job:7",
            "arn:aws-cn:ecs:cn-northwest-1:*:task-definition/job:7"
        ])
    );
    assert_eq!(
        printed["LaunchTasks"]["Condition"]["ArnEquals"]["ecs:cluster"],
        json!([
            "arn:aws-cn:ecs:cn-north-1:*:cluster/builds",
            "arn:aws-cn:ecs:cn-northwest-1:*:cluster/more"
        ])
    );
    assert_eq!(
        printed["WatchAndEndTasks"]["Resource"],
        json!([
            "arn:aws-cn:ecs:cn-north-1:*:task/builds/*",
            "arn:aws-cn:ecs:cn-northwest-1:*:task/more/*"
        ])
    );
    // EC2 has another name there, ECS has not.
    let passed =
        |name: &str| printed[name]["Condition"]["StringEquals"]["iam:PassedToService"].clone();
    assert_eq!(
        passed("PassTheInstanceRole"),
        json!(["ec2.amazonaws.com", "ec2.amazonaws.com.cn"])
    );
    assert_eq!(passed("PassRolesToTasks"), "ecs-tasks.amazonaws.com");
    for name in ["LaunchWithTheFleetsTag", "EndWhatCarriesTheFleetsTag"] {
        let condition = printed[name]["Condition"].to_string();
        assert!(condition.contains("\"ci-west\""), "{condition}");
    }
    let all = String::from_utf8(output.stdout.clone()).unwrap();
    for foreign in [
        "eu-west-1",
        "111122223333",
        "cluster/ci\"",
        "\"gitlab-aws-driver\"",
    ] {
        assert!(!all.contains(foreign), "{foreign}: {all}");
    }
    let told = output.stderr_text();
    for note in ["EXECUTION-ROLE", "does not say which account"] {
        assert!(told.contains(note), "{told}");
    }
    // `check` says where to get it.
    let output = check_text(text, &[]).assert_success();
    assert!(output.contains("check --iam"), "{output}");
}

#[test]
fn the_partition_is_that_of_the_region_or_of_what_is_named() {
    let file = |lines: &str| {
        format!(
            "capacity = [\"ec2\"]\n[ec2]\n{lines}\nimage_id = \"ami-1\"\ninstance_types = [\"c7i.large\"]\n\
             subnets = [\"subnet-1\"]\n"
        )
    };
    let profile = "arn:aws-us-gov:iam::111122223333:instance-profile/ci";
    for (lines, partition) in [
        ("region = \"eu-isoe-west-1\"", "aws-iso-e"),
        ("region = \"us-isof-south-1\"", "aws-iso-f"),
        ("region = \"us-iso-east-1\"", "aws-iso"),
        ("region = \"eusc-de-east-1\"", "aws-eusc"),
        ("region = \"mx-central-1\"", "aws"),
        (&*format!("instance_profile = \"{profile}\""), "aws-us-gov"),
    ] {
        let output = check_text(&file(lines), &["--iam"]).assert_success();
        for statement in printed(&output).values() {
            for resource in statement["Resource"].as_array().unwrap() {
                let resource = resource.as_str().unwrap();
                let right = resource.starts_with(&format!("arn:{partition}:"));
                assert!(right || resource == "*", "{lines}: {resource}");
            }
        }
    }
}

/// Has the account's user do what the driver prints for the runner's own file, and no more.
fn allow_printed(runner: &Runner) {
    let output = runner.command(&["check", "--iam"]).assert_success();
    let policy: Value = serde_json::from_slice(&output.stdout).unwrap();
    runner.account().policy(&policy);
}

#[test]
fn jobs_run_under_the_printed_policy_with_a_fleet_of_their_own() {
    let tasks = Runner::builder()
        .on_fargate()
        .config_line("fleet = \"ci-west\"")
        .build();
    allow_printed(&tasks);
    tasks.start();
    let task = tasks.account().alive().remove(0);
    assert_eq!(task.tags["gitlab-aws-driver:fleet"], "ci-west");
    tasks.assert_runs_and_ends();

    let account = Arc::new(Account::new());
    let instances = |fleet: &str| {
        Runner::builder()
            .on_ec2_of(&account)
            .config_line(&format!("fleet = \"{fleet}\""))
            .build()
    };
    let west = instances("ci-west");
    allow_printed(&west);
    west.start();
    west.assert_runs_and_ends();
    west.command(&["reap"]).assert_success();
    // A fleet that the policy does not name is refused, and where to get the right one is told.
    let east = instances("ci-east");
    east.config().assert_success();
    let output = assert_failure(
        east.prepare(),
        "is not authorized to perform: ec2:",
        "check --iam",
    );
    assert!(output.contains("fleet"), "{output}");
    east.cleanup().assert_success();
}
