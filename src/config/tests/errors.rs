//! How errors about a file's content read.

use super::*;

mod unknown_keys;

/// Checks that a file's errors have one that begins so, and that says so of what helps.
#[track_caller]
fn assert_told(text: &str, message: &str, remedy: &str) {
    let all = told(text);
    let Some((_, hint)) = all.iter().find(|(got, _)| got.starts_with(message)) else {
        panic!("{text}\n got {all:?}\nwant {message}");
    };
    assert!(hint.contains(remedy), "{text}\n got {hint}\nwant {remedy}");
}

#[test]
fn errors_name_file_line_column_key_and_what_is_right() {
    for (text, message, remedy) in [
        // Broken TOML.
        (
            "[ssh]\nusername = root\n",
            "f.toml:2:12: not TOML: ",
            "The line reads: username = root",
        ),
        ("[ssh\n", "f.toml:1:5: not TOML: ", "The line reads: [ssh"),
        (
            "[ssh]\nport = 22\nusername = \"a\nx",
            "f.toml:3:",
            "The line reads: username = \"a",
        ),
        // The same twice.
        (
            "[ssh]\nport = 22\n\nport = 23\n",
            "f.toml:4:1: port: the same is set in line 2",
            "line",
        ),
        (
            "[ssh]\nport = 22\n[ec2]\n[ssh]\n",
            "f.toml:4:2: ssh: the same is set in line 1",
            "line",
        ),
        (
            "ssh = { port = 1, port = 2 }",
            "f.toml:1:19: port: the key stands here twice",
            "",
        ),
        (
            "[SSH]\nPort = 1\nport = 2",
            "f.toml:3:1: SSH.port: the same is set in line 2 as SSH.Port",
            "Keep one of the two lines, 2 or 3.",
        ),
        (
            "[fargate]\nregion = \"eu-west-1\"\n[Fargate]\n",
            "f.toml:3:2: Fargate: the same is set in line 1 as fargate",
            "",
        ),
        (
            "[Fargate]\nSubnet = \"subnet-a\"\nsubnets = [\"subnet-b\"]\n",
            "f.toml:3:1: Fargate.subnets: the same is set in line 2 as Fargate.Subnet",
            "",
        ),
        (
            "[fargate]\nsecurity_groups = [\"sg-b\"]\nSecurityGroup = \"sg-a\"\n",
            "f.toml:3:1: fargate.SecurityGroup: the same is set in line 2 as fargate.security_groups",
            "",
        ),
        (
            "[state]\ndirectory = \"/a\"\n[TaskMetadata]\nDirectory = \"/b\"\n",
            "f.toml:4:1: TaskMetadata.Directory: the same is set in line 2 as state.directory",
            "",
        ),
        (
            "log_level = \"info\"\nLogLevel = \"info\"\n",
            "f.toml:2:1: LogLevel: the same is set in line 1 as log_level",
            "",
        ),
        (
            "[[profile]]\nname = \"a\"\n[profile.fargate]\nsubnet = \"subnet-a\"\nsubnets = [\"subnet-a\"]\n",
            "f.toml:5:1: profile[0].fargate.subnets: the same is set in line 4",
            "",
        ),
        // Wrong types.
        (
            "[ssh]\nport = \"22\"",
            "f.toml:2:8: ssh.port: invalid type: string \"22\", expected a TCP port without quotes such as 22",
            "For example, under [ssh]: port = 22",
        ),
        (
            "[SSH]\nPort = 70000",
            "f.toml:2:8: SSH.Port: 70000 is no TCP port: they go from 1 to 65535",
            "For example, under [SSH]: Port = 22",
        ),
        (
            "[ssh]\nport = 0",
            "f.toml:2:8: ssh.port: 0 is no TCP port",
            "port = 22",
        ),
        (
            "[ssh]\nport = -1",
            "f.toml:2:8: ssh.port: -1 is no TCP port",
            "port = 22",
        ),
        (
            "[ssh]\nport = 99999999999999999999999999",
            "f.toml:2:8: ssh.port: invalid type: integer `99999999999999999999999999` as i128, expected a TCP port",
            "port = 22",
        ),
        (
            "[ssh]\nport = 22.5",
            "f.toml:2:8: ssh.port: invalid type: floating point `22.5`",
            "port = 22",
        ),
        (
            "ssh = 22",
            "f.toml:1:7: ssh: expected a table, found an integer",
            "Write [ssh] on a line of its own",
        ),
        (
            "ssh = [\"root\", 22]",
            "f.toml:1:7: ssh: expected a table, found an array",
            "[ssh]",
        ),
        (
            "[profile]\nname = \"a\"",
            "f.toml:1:1: profile: expected a list of tables, found a table",
            "Write [[profile]] on a line",
        ),
        (
            "profile = [1]",
            "f.toml:1:12: profile: expected a list of tables, found an integer",
            "[[profile]]",
        ),
        (
            "rung_wait = 90",
            "f.toml:1:13: rung_wait: invalid type: integer `90`, expected a duration such as \"90s\"",
            "For example: rung_wait = \"5m\"",
        ),
        (
            "rung_wait = \"90\"",
            "f.toml:1:13: rung_wait: \"90\" is no duration (",
            "rung_wait = \"5m\"",
        ),
        (
            "[Fargate]\nEnablePublicIP = \"yes\"",
            "f.toml:2:18: Fargate.EnablePublicIP: invalid type: string \"yes\", expected true or false",
            "EnablePublicIP = true",
        ),
        (
            "[fargate]\nsubnets = \"a\"",
            "f.toml:2:11: fargate.subnets: invalid type: string \"a\", expected a list",
            "subnets = [\"subnet-",
        ),
        (
            "[fargate]\nSubnet = [\"a\"]",
            "f.toml:2:10: fargate.Subnet: invalid type: sequence, expected text",
            "Subnet = \"subnet-",
        ),
        (
            "[fargate]\nsubnets = [\"a\", 5]",
            "f.toml:2:17: fargate.subnets: invalid type: integer `5`, expected text",
            "subnets = ",
        ),
        (
            "[fargate]\nsubnets = []",
            "f.toml:2:11: fargate.subnets: the list is empty",
            "subnets = ",
        ),
        (
            "[ssh]\nport = 1979-05-27",
            "f.toml:2:8: ssh.port: invalid type: map",
            "port = 22",
        ),
        // Values that mean nothing.
        (
            "capacity = []",
            "f.toml:1:12: capacity: the list is empty, expected a list of rungs",
            "For example: capacity = [",
        ),
        (
            "capacity = [\"fargate_spot\"]",
            "f.toml:1:13: capacity: \"fargate_spot\" is no rung; did you mean \"fargate-spot\"?",
            "capacity = [",
        ),
        (
            "capacity = [\"ec2\", \"ec2\"]",
            "f.toml:1:12: capacity: \"ec2\" stands in the list twice",
            "",
        ),
        (
            "capacity = \"ec2\"",
            "f.toml:1:12: capacity: invalid type: string \"ec2\", expected a list of rungs such as [",
            "",
        ),
        (
            "log_level = \"inof\"",
            "f.toml:1:13: log_level: \"inof\" is no level; did you mean \"info\"?",
            "log_level = \"info\"",
        ),
        (
            "capacity = [\"ec2\"]\n[ssh]\nusername = \"\"",
            "f.toml:3:12: ssh.username: the text is empty",
            "username = \"root\"",
        ),
        (
            "builds_dir = \"builds\"",
            "f.toml:1:14: builds_dir: \"builds\" is no absolute path",
            "builds_dir = \"/builds\"",
        ),
        (
            "[state]\ndirectory = \"state\"",
            "f.toml:2:13: state.directory: \"state\" is no absolute path",
            "directory = \"/var/lib",
        ),
        (
            "[limits]\nmax_memory = \"8\"",
            "f.toml:2:14: limits.max_memory: \"8\" is no size",
            "max_memory = \"16GiB\"",
        ),
        (
            "[limits]\nmax_cpu = 4",
            "f.toml:2:11: limits.max_cpu: invalid type: integer `4`, expected a number of vCPU in quotes",
            "max_cpu = \"4\"",
        ),
        (
            "[local]\ncommand = [\"\"]",
            "f.toml:2:11: local.command: the program's name is empty",
            "command = [",
        ),
        (
            "[local]\ncommand = [\"a\\u0000\"]",
            "f.toml:2:12: local.command: the text holds a NUL",
            "command = [",
        ),
        // Tags and what else AWS takes only in one form.
        (
            "[tags]\n\"aws:x\" = \"a\"",
            "f.toml:2:1: tags.\"aws:x\": AWS keeps keys that begin with aws: for itself",
            "For example, under [tags]: team = \"platform\"",
        ),
        (
            "[tags]\na = \"b\"\n\"gitlab-aws-driver:job\" = \"a\"",
            "f.toml:3:1: tags.\"gitlab-aws-driver:job\": the driver keeps keys",
            "team",
        ),
        (
            "tags = { \"a,b\" = \"c\" }",
            "f.toml:1:10: tags.\"a,b\": a tag's key cannot hold ','",
            "team",
        ),
        (
            "[tags]\na = \"b*\"",
            "f.toml:2:5: tags.a: a tag's value cannot hold '*'",
            "For example, under [tags]: a = \"platform\"",
        ),
        (
            "[tags]\na = 1",
            "f.toml:2:5: tags.a: invalid type: integer `1`, expected text in quotes",
            "a = \"platform\"",
        ),
        (
            "[tags]\na = { b = \"c\" }",
            "f.toml:2:5: tags.a: invalid type: map, expected text",
            "a = ",
        ),
        (
            "[tags]\na = \"\"",
            "f.toml:2:5: tags.a: the text is empty",
            "a = ",
        ),
        (
            "tags = \"a\"",
            "f.toml:1:8: tags: expected a table, found a string",
            "Write [tags] on a line",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\n[profile.tags]\n\"AWS:a\" = \"b\"",
            "f.toml:5:1: profile[0].tags.\"AWS:a\": AWS keeps keys",
            "under [profile.tags]: team",
        ),
        (
            "fleet = \"a,b\"",
            "f.toml:1:9: fleet: a tag's value cannot hold ','",
            "fleet = \"gitlab-aws-driver\"",
        ),
        (
            "[[profile]]\nfleet = \"a\"",
            "f.toml:2:1: profile[0].fleet: no profile can set this",
            "Put fleet above",
        ),
        (
            "[fargate]\ncontainer = \"a b\"",
            "f.toml:2:13: fargate.container: \"a b\" is no container's name",
            "container = \"ci-coordinator\"",
        ),
        (
            "[fargate]\nrole_arn = \"ci\"",
            "f.toml:2:12: fargate.role_arn: \"ci\" is no role's ARN",
            "role_arn = \"arn:aws:iam::",
        ),
        (
            "[limits]\nroles = [\"arn:aws:iam::*:role/a\", \"ci-*\"]",
            "f.toml:2:35: limits.roles: \"ci-*\" fits no role",
            "roles = [\"arn:",
        ),
        (
            "[fargate]\nsecurity_groups = [\"sg-1\", \"sg-2\", \"sg-3\", \"sg-4\", \"sg-5\", \"sg-6\"]",
            "f.toml:2:19: fargate.security_groups: the list holds 6, and ECS takes at most 5",
            "security_groups = ",
        ),
        // What a rung needs of other keys.
        (
            "capacity = [\"fargate-spot\", \"fargate\"]",
            "f.toml:1:12: capacity: the rung \"fargate-spot\" needs [fargate] task_definition",
            "For example, under [fargate]: task_definition = \"ci-job\"",
        ),
        (
            "capacity = [\"ecs:x\"]\n[fargate]\nTaskDefinition = \"a\"",
            "f.toml:1:12: capacity: the rung \"ecs:x\" needs [fargate] subnets",
            "For example, under [fargate]: subnets = [",
        ),
        (
            "rung_wait = \"5m\"\n[[profile]]\nname = \"a\"\nmatch.protected = true\ncapacity = [\"fargate\"]\n[profile.fargate]\nsubnets = [\"subnet-a\"]",
            "f.toml:5:12: profile[0].capacity: the rung \"fargate\" needs [fargate] task_definition",
            "task_definition",
        ),
        (
            "capacity = [\"ec2\"]\n[ec2]\nlaunch_template = \"ci-job\"\nkey_name = \"ops\"",
            "f.toml:4:12: ec2.key_name: it stands in launch_template, which the file names as well",
            "take key_name out",
        ),
        // local.
        (
            "capacity = [\"local\"]",
            "f.toml:1:12: capacity: \"local\" is refused without allow_jobs_on_this_host = true: it runs jobs as the Runner's own user, beside its keys",
            "Take \"local\" out; or",
        ),
        (
            "capacity = [\"local\"]\nallow_jobs_on_this_host = false",
            "f.toml:1:12: capacity: \"local\" is refused",
            "write capacity = [\"local\"] and allow_jobs_on_this_host = true.",
        ),
        (
            "capacity = [\"fargate\", \"local\"]\nallow_jobs_on_this_host = true",
            "f.toml:1:12: capacity: \"local\" cannot stand beside other rungs",
            "Take",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = { protected = true }\ncapacity = [\"local\"]",
            "f.toml:4:12: profile[0].capacity: a profile cannot bring \"local\"",
            "Take",
        ),
        (
            "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n[[profile]]\nname = \"a\"\nmatch = { protected = true }\ncapacity = [\"ec2\"]",
            "f.toml:6:12: profile[0].capacity: no other rung",
            "Take",
        ),
    ] {
        assert_told(text, message, remedy);
    }
}

#[test]
fn more_than_aws_takes_is_refused() {
    let list: String = (0..17).map(|i| format!("\"subnet-{i}\",")).collect();
    let (message, _) = failed(&format!("[fargate]\nsubnets = [{list}]"));
    assert!(
        message.contains("the list holds 17, and ECS takes at most 16"),
        "{message}"
    );
    let table: String = (0..41).map(|i| format!("t{i} = \"x\"\n")).collect();
    let (message, _) = failed(&format!("[tags]\n{table}"));
    assert!(
        message.starts_with("f.toml:1:2: tags: the table holds 41 tags"),
        "{message}"
    );
}

#[test]
fn a_profile_that_needs_tasks_may_bring_what_they_need() {
    for text in [
        "rung_wait = \"5m\"\n[[profile]]\nname = \"a\"\nmatch.protected = true\ncapacity = [\"fargate\"]\nfargate = { subnets = [\"subnet-a\"], task_definition = \"b\" }",
        "rung_wait = \"5m\"\nfargate = { subnets = [\"subnet-a\"] }\n[[profile]]\nname = \"a\"\nmatch.protected = true\ncapacity = [\"fargate\"]\nfargate = { task_definition = \"b\" }",
        "capacity = [\"fargate\"]\nfargate = { Subnet = \"subnet-a\", TaskDefinition = \"b\" }\n[[profile]]\nname = \"a\"\nmatch.protected = true",
    ] {
        assert_eq!(parsed(text).warnings, Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_long_value_is_not_repeated_whole() {
    let (message, remedy) = failed(&format!("[ssh]\nport = \"{}\"", "x".repeat(100_000)));
    assert!(message.len() < 400, "{}", message.len());
    assert_eq!(remedy, "For example, under [ssh]: port = 22");
}

#[test]
fn the_errors_in_the_documentation_are_real() {
    let path = Path::new("/etc/gitlab-runner/aws-driver.toml");
    for text in [
        "[ssh]\nport = 70000",
        "capacity = [\"fargate_spot\", \"fargate\"]",
        "rung_wait = 90",
        "[fargate]\nSubnet = \"subnet-0a1b2c3d\"\nregion = \"eu-west-1\"\nsubnets = [\"subnet-0a1b2c3d\"]",
        "[ssh]\nusername = root",
        "capacity = [\"local\"]",
        "[limits]\nmax_memory = \"8gb\"",
        "capacity = [\"fargate\"]\n[fargate]\nsubnets = [\"subnet-0a1b2c3d\"]",
        "[tags]\n\"aws:team\" = \"a\"",
    ] {
        let e = parse(text, path).expect_err(text);
        let shown = format!("    ERROR: {e}\n    {}\n", e.remedy().unwrap_or_default());
        assert!(DOCUMENTATION.contains(&shown), "{shown}");
    }
    for text in ["[Fargate]\nClutser = \"ci\"", "port = 22"] {
        let loaded = parse(text, path).expect(text);
        for warning in loaded.warnings {
            let shown = format!("WARNING: {warning}\n");
            assert!(DOCUMENTATION.contains(&shown), "{shown}");
        }
    }
    let none =
        load_from(None, &DEFAULT_PATHS.map(|_| Path::new("/nonexistent"))).expect_err("none");
    let shown = none
        .to_string()
        .replacen("/nonexistent", DEFAULT_PATHS[0], 1);
    let shown = shown.replacen("/nonexistent", DEFAULT_PATHS[1], 1);
    assert!(DOCUMENTATION.contains(&shown), "{shown}");
}

#[test]
fn nothing_in_a_file_reaches_the_terminal_as_a_control_sequence() {
    let (message, remedy) = failed("\"a\\u001b[31m\" = \u{1b}[31m\n");
    let (other, hint) = failed("[ssh]\n\"a\u{1b}b\" = 1\nport = 0 \u{1b}[31m\n");
    for text in [message, remedy, other, hint] {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    for warning in parsed("\"a\\u001b[31m\" = 1\n").warnings {
        assert!(!warning.contains(char::is_control), "{warning:?}");
    }
}
