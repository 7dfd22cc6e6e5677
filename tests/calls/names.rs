//! What `check` says of names that AWS could never take: the same under every table.

use crate::check_command::check_text;
use crate::lab::stage::Output;

/// What a table holds, and what `check` says of a value in the place of its example.
const CASES: [(&str, &str, &str); 16] = [
    (
        "subnets",
        "[\"subnet-1,subnet-2\"]",
        "several are written as a list",
    ),
    (
        "subnets",
        "[\"subnet-1 subnet-2\"]",
        "several are written as a list",
    ),
    ("subnets", "[\"$SUBNET\"]", "nothing is filled in here"),
    ("subnets", "[\"${SUBNET}\"]", "nothing is filled in here"),
    ("subnets", "[\"<subnet-id>\"]", "nothing is filled in here"),
    ("subnets", "[\"sg-1\"]", "it is a security group's id"),
    ("subnets", "[\"subnet-1 \"]", "there are blanks around it"),
    (
        "subnets",
        "[\"subnet-\u{200b}1\"]",
        "a character that nobody sees, U+200B",
    ),
    (
        "subnets",
        "[\"\u{feff}subnet-1\"]",
        "a character that nobody sees, U+FEFF",
    ),
    ("subnets", "[\"'subnet-1'\"]", "there are quotes in it"),
    ("security_groups", "[\"subnet-1\"]", "it is a subnet's id"),
    (
        "security_groups",
        "[\"sg-\u{a0}1\"]",
        "a character that nobody sees, U+00A0",
    ),
    (
        "region",
        "\"eu-west-1a\"",
        "is a zone, and no region: its region is \\\"eu-west-1\\\"",
    ),
    ("region", "\"$AWS_REGION\"", "nothing is filled in here"),
    (
        "region",
        "\"\u{ff45}u-west-1\"",
        "is no region: they read like",
    ),
    ("region", "\"eu-west-1 \"", "there are blanks around it"),
];

const OF_TASKS: [(&str, &str, &str); 5] = [
    (
        "task_definition",
        "\"ci-job:\"",
        "the revision is missing after the colon",
    ),
    (
        "task_definition",
        "\"${TASK}\"",
        "nothing is filled in here",
    ),
    ("cluster", "\"${CLUSTER}\"", "nothing is filled in here"),
    (
        "cluster",
        "\"arn:aws:ecs:eu-west-1:1:cluster/ci\"",
        "is no cluster's ARN",
    ),
    (
        "platform_version",
        "\"1.4.0,LATEST\"",
        "several are written as a list",
    ),
];

const OF_INSTANCES: [(&str, &str, &str); 4] = [
    ("image_id", "\"$AMI\"", "nothing is filled in here"),
    (
        "instance_types",
        "[\"c7i.large,m7i.large\"]",
        "several are written as a list",
    ),
    (
        "launch_template",
        "\"${TEMPLATE}\"",
        "nothing is filled in here",
    ),
    (
        "role_arn",
        "\"arn:aws:iam::<account>:role/ci\"",
        "nothing is filled in here",
    ),
];

/// Checks that one thing is wrong with a file, by this key.
#[track_caller]
fn refused(text: &str, key: &str, cause: &str) {
    let output: Output = check_text(text, &["--json"]).assert_code(1);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["verdict"]["errors"], 1, "{text}\n{told:#}");
    let error = &told["errors"][0];
    assert_eq!(error["key"], key, "{text}\n{told:#}");
    let said = error["cause"].to_string();
    assert!(said.contains(cause), "{text}\n{said}");
}

#[test]
fn names_are_refused_alike_in_every_table_and_profile() {
    let tasks = CASES.iter().chain(&OF_TASKS).map(|case| ("fargate", case));
    let instances = CASES.iter().chain(&OF_INSTANCES).map(|case| ("ec2", case));
    for (table, (key, value, cause)) in tasks.chain(instances) {
        let text = format!("fleet = \"a\"\n[{table}]\n{key} = {value}\n");
        refused(&text, &format!("{table}.{key}"), cause);
    }
    for table in ["fargate", "ec2"] {
        let text = format!(
            "fleet = \"a\"\n[{table}]\nregion = \"eu-west-1\"\n[[profile]]\nname = \"a\"\nmatch.protected = true\n\
             [profile.{table}]\nregion = \"eu-west-1a\"\n"
        );
        refused(&text, &format!("profile[0].{table}.region"), "is a zone");
    }
    refused("fleet = \"ci \"\n", "fleet", "there are blanks around it");
    for key in ["project", "image"] {
        let text =
            format!("[[profile]]\nname = \"a\"\nmatch = {{ {key} = \"group\u{200b}/**\" }}\n");
        refused(&text, &format!("profile[0].match.{key}"), "U+200B");
    }
    for table in ["ssh", "fargate", "ec2"] {
        let text = format!("fleet = \"a\"\n[{table}]\nusername = \"$USER\"\n");
        refused(&text, &format!("{table}.username"), "nothing is filled in");
    }
    refused(
        "[limits]\ntask_definitions = [\"ci-a,ci-b\"]\n",
        "limits.task_definitions",
        "fits nothing",
    );
    refused(
        "[limits]\ntask_definitions = [\"ci-job:\"]\n",
        "limits.task_definitions",
        "fits nothing: something is missing after the colon",
    );
    refused(
        "[limits]\nroles = [\"arn:aws:iam::*:role/$TEAM\"]\n",
        "limits.roles",
        "fits no role: nothing is filled in",
    );
}

#[test]
fn a_wait_for_one_rung_cannot_be_longer_than_that_for_all() {
    let cause = "for one rung is more than the";
    refused(
        "rung_wait = \"6m\"\ncapacity_wait = \"5m\"\n",
        "rung_wait",
        cause,
    );
    // What is not said counts too.
    refused(
        "rung_wait = \"11m\"\n",
        "rung_wait",
        "10m that capacity_wait leaves",
    );
    refused(
        "rung_wait = \"5m\"\n[[profile]]\nname = \"a\"\nmatch.protected = true\ncapacity_wait = \"4m\"\n",
        "rung_wait",
        "4m that capacity_wait (line 5) leaves for all",
    );
    for right in [
        "capacity_wait = \"1m\"\n",
        "rung_wait = \"5m\"\ncapacity_wait = \"5m\"\n",
    ] {
        check_text(right, &["--strict"]).assert_success();
    }
}

#[test]
fn what_the_go_driver_took_is_a_warning_in_its_files() {
    let text = "[Fargate]\nCluster = \"${CLUSTER}\"\nRegion = \"eu-west-1a\"\nSubnet = \"a,b\"\nSecurityGroup = \"subnet-1\"\n\
                TaskDefinition = \"ci-job:\"\n";
    let output = check_text(text, &[]).assert_success();
    for (line, key, cause) in [
        (2, "Cluster", "nothing is filled in"),
        (3, "Region", "its region is \"eu-west-1\""),
        (4, "Subnet", "written as a list"),
        (5, "SecurityGroup", "it is a subnet's id"),
        (6, "TaskDefinition", "the revision is missing"),
    ] {
        let warning = output.stderr_text();
        let warning = warning
            .lines()
            .find(|told| told.contains(&format!(":{line}: Fargate.{key}: ")));
        assert!(warning.is_some_and(|told| told.contains(cause)), "{output}");
    }
    check_text(text, &["--strict"]).assert_code(1);
}

#[test]
fn a_byte_order_mark_before_a_file_is_none_of_its_keys() {
    check_text("\u{feff}fleet = \"a\"\n", &["--strict"]).assert_success();
}

#[test]
fn a_misspelt_table_is_told_once() {
    for (text, line) in [
        // Beside the right one, and in its place.
        (
            "capacity = [\"fargate\"]\n[fargate]\ncluster = \"ci\"\n[fargte]\ntask_definition = \"ci\"\nsubnets = [\"subnet-1\"]\n",
            4,
        ),
        (
            "capacity = [\"fargate\"]\n[fargte]\ntask_definition = \"ci\"\n",
            2,
        ),
        ("capacity = [\"ec2\"]\n[ec3]\nimage_id = \"ami-1\"\n", 2),
    ] {
        let output = check_text(text, &[]).assert_code(1);
        let told = output.stderr_text();
        let table = if line == 4 || text.contains("fargte") {
            "fargte"
        } else {
            "ec3"
        };
        let lines: Vec<&str> = told.lines().filter(|told| told.contains(table)).collect();
        assert_eq!(lines.len(), 1, "{output}");
        let start = format!(":{line}:2: {table}: there is no such key; did you mean");
        assert!(lines[0].contains(&start), "{output}");
        assert!(
            told.ends_with("1 error: the file cannot be used.\n"),
            "{output}"
        );
        // And what is missing for it, all of it.
        let keys: &[&str] = match table {
            "ec3" => &["image_id", "instance_types", "subnets"],
            _ => &["task_definition", "subnets"],
        };
        for key in keys {
            assert!(
                told.contains(&format!("] {key}, which is not there")),
                "{output}"
            );
        }
    }
    // A misspelt key likewise.
    let text = "capacity = [\"ec2\"]\n[ec2]\nimage_id = \"ami-1\"\nsubnets = [\"subnet-1\"]\ninstance_type = [\"c7i.large\"]\n";
    let output = check_text(text, &[]).assert_code(1);
    assert_eq!(
        output.stderr_text().matches("instance_type:").count(),
        1,
        "{output}"
    );
    assert!(!output.contains("is ignored"), "{output}");
}

/// The Go driver's `Subnet` is as near, and no key of such a file.
#[test]
fn a_misspelt_key_is_told_by_the_names_of_its_own_file() {
    let text =
        "capacity = [\"fargate\"]\n[fargate]\nsubnetz = [\"subnet-1\"]\ntask_definition = \"ci\"\n";
    let output = check_text(text, &[]).assert_code(1);
    let told = output.stderr_text();
    let start = ":3:1: fargate.subnetz: there is no such key; did you mean subnets?";
    assert!(told.contains(start), "{output}");
    assert_eq!(told.matches("subnetz").count(), 1, "{output}");
}
