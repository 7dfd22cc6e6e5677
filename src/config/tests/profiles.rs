//! Profiles: what they keep of the file, what applies to their jobs, and that each is checked before a job runs.

use super::*;

#[test]
fn profiles_keep_what_they_override() {
    let text = "[[profile]]\nname = \"docker\"\nmatch = { job_name = \"docker-*\", project = \"group/**\", protected = true, ref = \"main\", image = \"docker:*\", variables = { CI_PIPELINE_SOURCE = \"x*\" } }\ncapacity = [\"ec2-spot\", \"ec2\"]\n[profile.ec2]\nimage_id = \"ami-1\"\ninstance_types = [\"c7i.large\"]\nsubnets = [\"subnet-1\"]\n[profile.ssh]\nport = 2222\n[profile.limits]\nmax_cpu = \"0.5\"\nmax_memory = \"8GiB\"\n[[profile]]\nname = \"b\"\nmatch.project = \"x\"\n";
    let profiles = parsed(text).settings.profiles;
    assert_eq!(profiles.len(), 2);
    let docker = &profiles[0];
    let wanted = &docker.matches;
    assert_eq!(wanted.job_name.as_deref(), Some("docker-*"));
    assert_eq!(wanted.protected, Some(true));
    assert_eq!(wanted.reference.as_deref(), Some("main"));
    assert_eq!(wanted.image.as_deref(), Some("docker:*"));
    assert_eq!(
        wanted.variables,
        [("CI_PIPELINE_SOURCE".to_owned(), "x*".to_owned())]
    );
    assert_eq!(
        docker.overrides.capacity,
        Some(vec![Rung::Ec2Spot, Rung::Ec2])
    );
    assert_eq!(docker.overrides.ssh.port, Some(2222));
    let limits = docker.overrides.limits.clone().expect("limits");
    assert_eq!(limits.max_cpu, Some(500));
    assert_eq!(limits.max_memory, Some(8 << 30));
    assert_eq!(profiles[1].overrides, Keys::default());
}

#[test]
fn what_a_profile_says_counts_key_by_key() {
    let text = r#"
capacity = ["fargate-spot"]
rung_wait = "1m"
tags = { team = "a", unit = "b" }
[ssh]
port = 2222
username = "ci"
[fargate]
task_definition = "ci-job"
Subnet = "subnet-1"
security_groups = ["sg-1"]
enable_public_ip = true
[limits]
max_cpu = "2"
max_memory = "4GiB"
[[profile]]
name = "big"
match.job_name = "big-*"
builds_dir = "/big"
tags.team = "c"
ssh.username = "big"
[profile.fargate]
task_definition = "ci-big"
subnets = ["subnet-2", "subnet-3"]
SecurityGroup = "sg-2"
enable_public_ip = false
[profile.limits]
max_cpu = "16"
"#;
    let base = parsed(text).settings;
    let big = &base.profiles[0].settings;
    assert_eq!(big.capacity, [Rung::FargateSpot]);
    assert_eq!(big.rung_wait, Duration::from_secs(60));
    assert_eq!(big.builds_dir.as_deref(), Some("/big"));
    assert_eq!(base.builds_dir.as_deref(), Some("/builds"));
    let tag = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(big.tags, [tag("unit", "b"), tag("team", "c")]);
    assert_eq!((big.ssh.port, big.ssh.username.as_str()), (2222, "big"));
    let fargate = big.fargate.as_ref().expect("[fargate]");
    assert_eq!(fargate.task_definition.as_deref(), Some("ci-big"));
    // Two spellings of one thing, of which the profile has the other.
    assert_eq!(fargate.subnets, ["subnet-2", "subnet-3"]);
    assert_eq!(fargate.security_groups, ["sg-2"]);
    assert!(!fargate.enable_public_ip);
    let limits = big.limits.as_ref().expect("[limits]");
    assert_eq!(limits.max_cpu_millis, Some(16_000));
    assert_eq!(limits.max_memory, Some(4 << 30));
    assert!(big.profiles.is_empty());
    // The file's own is as it was.
    let own = base.fargate.as_ref().expect("[fargate]");
    assert_eq!(own.subnets, ["subnet-1"]);
    assert_eq!(base.tags, [tag("team", "a"), tag("unit", "b")]);
}

#[test]
fn each_key_does_in_a_profile_what_it_does_in_the_file() {
    let (mut seen, mut differing) = (0, 0);
    for (header, name, example) in every_key() {
        let Some(table) = header.strip_prefix("profile") else {
            continue;
        };
        if (table.is_empty() && name == "name") || table.starts_with(".match") {
            continue;
        }
        seen += 1;
        let line = format!("{name} = {example}\n");
        let line = match name.as_str() {
            "privileged" | "docker_socket" | "ecr_login" | "services_timeout" => {
                format!("container = true\n{line}")
            }
            _ => line,
        };
        let top = "log_level = \"warn\"\nfargate = { task_definition = \"a\", subnets = [\"subnet-b\"] }\n";
        let top = if table.starts_with(".fargate") || table.starts_with(".Fargate") {
            "log_level = \"warn\"\n"
        } else {
            top
        };
        let (of_file, of_profile) = match table.strip_prefix('.') {
            None => (line.clone(), line),
            Some(table) => (
                format!("[{table}]\n{line}"),
                format!("[profile.{table}]\n{line}"),
            ),
        };
        let file = parsed(&format!("{top}{of_file}")).settings;
        let head = "[[profile]]\nname = \"p\"\nmatch.protected = true\n";
        let profile = parsed(&format!("{top}{head}{of_profile}")).settings;
        assert_eq!(profile.profiles[0].settings, file, "{header} {name}");
        differing += usize::from(file != parsed(top).settings);
    }
    // The examples of some are the defaults.
    assert!(seen > 50 && differing > 40, "{seen} {differing}");
}

#[test]
fn each_profile_is_checked_as_a_whole() {
    let ec2 = "[ec2]\nimage_id = \"ami-1\"\ninstance_types = [\"c7i.large\"]\n";
    let profile = "[[profile]]\nname = \"a\"\nmatch.protected = true\n";
    for (text, message, remedy) in [
        (
            format!("{profile}capacity = [\"ec2\"]"),
            "f.toml:4:12: profile[0].capacity: the rung \"ec2\" needs [ec2] image_id, which is not there",
            "under [ec2]: image_id = \"ami-",
        ),
        (
            format!("{ec2}{profile}capacity = [\"ec2-spot\"]"),
            "f.toml:7:12: profile[0].capacity: the rung \"ec2-spot\" needs [ec2] subnets",
            "subnets = [",
        ),
        (
            // Of the second profile, by what the first does not have.
            format!("{ec2}{profile}capacity = [\"ec2\"]\nec2.subnets = [\"subnet-1\"]\n{}capacity = [\"ec2\"]", profile.replace("\"a\"", "\"b\"")),
            "f.toml:12:12: profile[1].capacity: the rung \"ec2\" needs [ec2] subnets",
            "",
        ),
        (
            format!("{ec2}{profile}[profile.ec2]\nprivileged = true"),
            "f.toml:8:14: profile[0].ec2.privileged: it is for jobs in containers, and container = true is not there",
            "Add container = true under [ec2], or take privileged out.",
        ),
        (
            format!("[ec2]\ncontainer = true\ndocker_socket = true\ncontainer_image = \"a\"\n{profile}ec2.container = false"),
            "f.toml:3:17: ec2.docker_socket: it is for jobs in containers",
            "",
        ),
        (
            format!("{profile}limits.capacity = [\"fargate\"]"),
            "f.toml:4:19: profile[0].limits.capacity: the rung \"fargate\" needs [fargate] task_definition",
            "",
        ),
        (
            format!("{profile}limits.capacity = [\"local\"]"),
            "f.toml:4:19: profile[0].limits.capacity: no job may choose \"local\": it runs jobs as",
            "Take \"local\" out of the list.",
        ),
        (
            "capacity = [\"local\"]\nallow_jobs_on_this_host = true\nfargate = { task_definition = \"a\", subnets = [\"subnet-b\"] }\n[limits]\ncapacity = [\"fargate\"]".to_owned(),
            "f.toml:5:12: limits.capacity: jobs cannot choose another rung",
            "",
        ),
        (
            format!("{profile}match.variables = {{ A = 1 }}").replace("match.protected = true\n", ""),
            "f.toml:3:25: profile[0].match.variables.A: invalid type: integer `1`",
            "For example, under [profile.match.variables]: A = \"schedule\"",
        ),
    ] {
        let (got, hint) = failed(&text);
        assert!(got.starts_with(message), "{text}\n got {got}\nwant {message}");
        assert!(hint.contains(remedy), "{text}\n{hint}");
    }
    // Tags of both together.
    let many = |prefix: &str| {
        (0..21)
            .map(|i| format!("{prefix}{i} = \"x\"\n"))
            .collect::<String>()
    };
    let (got, _) = failed(&format!(
        "[tags]\n{}{profile}[profile.tags]\n{}",
        many("a"),
        many("b")
    ));
    assert!(
        got.contains("profile[0].tags: the table holds 42 tags"),
        "{got}"
    );
}

#[test]
fn a_warning_is_said_once_for_all_profiles() {
    let text = "[ec2]\ncontainer = true\n[[profile]]\nname = \"a\"\nmatch.protected = true\n[[profile]]\nname = \"b\"\nmatch.protected = false\n";
    let warnings = parsed(text).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("f.toml:2: jobs run in containers, and there is no image for them"),
        "{warnings:?}"
    );
    for mended in [
        text.replace(
            "[[profile]]\nname = \"a\"",
            "container_image = \"a\"\n[[profile]]\nname = \"a\"",
        ),
        format!("limits.images = [\"a\"]\n{text}"),
    ] {
        assert_eq!(parsed(&mended).warnings, Vec::<String>::new(), "{mended}");
    }
}

#[test]
fn a_profile_goes_by_what_no_author_can_write() {
    let go_by = |names: &str| {
        format!(
            "[[profile]]\nname = \"a\"\nmatch = {{ protected = true, variables = {{ {names} }} }}\n"
        )
    };
    let all: Vec<_> = trusted_variables::TRUSTED_VARIABLES
        .iter()
        .map(|(name, _)| format!("{name} = \"*\""))
        .collect();
    let profiles = parsed(&go_by(&all.join(", "))).settings.profiles;
    assert_eq!(profiles[0].matches.variables.len(), all.len());
    for (name, why, instead) in [
        (
            "GITLAB_USER_LOGIN",
            "set it or have it expanded",
            "Go by GITLAB_USER_ID",
        ),
        (
            "GITLAB_USER_EMAIL",
            "set it or have it expanded",
            "Go by GITLAB_USER_ID",
        ),
        (
            "GITLAB_USER_NAME",
            "set it or have it expanded",
            "Go by GITLAB_USER_ID",
        ),
        (
            "CI_COMMIT_BRANCH",
            "set it or have it expanded",
            "Go by CI_COMMIT_REF_NAME",
        ),
        (
            "CI_ENVIRONMENT_NAME",
            "set it or have it expanded",
            "Go by CI_COMMIT_REF_PROTECTED",
        ),
        (
            "ci_project_path",
            "set it or have it expanded",
            "Go by CI_PROJECT_PATH",
        ),
        ("KIND", "can set it", "Go by job_name, project, ref"),
        ("\"odd name\"", "can set it", "Go by job_name, project, ref"),
    ] {
        let (got, hint) = failed(&go_by(&format!("{name} = \"admin\"")));
        let want = format!(
            "f.toml:3:43: profile[0].match.variables.{name}: no profile can go by it: whoever writes the job can"
        );
        assert!(got.starts_with(&want), "{got}");
        assert!(got.ends_with(why), "{got}");
        assert!(hint.starts_with(instead), "{hint}");
    }
}
