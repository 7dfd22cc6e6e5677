//! Every key that the file may have: its spellings, the table that it belongs to, and an example of it.
//!
//! One table serves to find a key whatever its case, to suggest one for a misspelt name, to say
//! what would be right, and to keep the tests and the documentation complete.

/// A key: how it is written, and what kind of value it has.
#[derive(Debug)]
pub struct Key {
    /// The name that the raw structs use, in lower case.
    pub name: &'static str,
    /// The Go driver's spelling, if that driver knows the key.
    pub go: Option<&'static str>,
    /// What kind of value it has.
    pub kind: KeyKind,
    /// Whether a profile may set it.
    pub in_profile: bool,
    /// Whether a file with this key is one of this driver, and not one of the Go driver.
    pub is_new_style: bool,
}

/// The kind of a key's value.
#[derive(Debug)]
pub enum KeyKind {
    /// One value; the example is how TOML writes it.
    Value(&'static str),
    /// A table.
    Table(&'static [Key]),
    /// A list of tables.
    Tables(&'static [Key]),
    /// A table whose keys are the administrator's own, with an example of one.
    Free(&'static str, &'static str),
}

impl Key {
    const fn own(name: &'static str, example: &'static str) -> Self {
        Self {
            name,
            go: None,
            kind: KeyKind::Value(example),
            in_profile: true,
            is_new_style: true,
        }
    }

    const fn both(name: &'static str, go: &'static str, example: &'static str) -> Self {
        Self {
            name,
            go: Some(go),
            kind: KeyKind::Value(example),
            in_profile: true,
            is_new_style: true,
        }
    }

    const fn table(name: &'static str, go: Option<&'static str>, keys: &'static [Self]) -> Self {
        Self {
            name,
            go,
            kind: KeyKind::Table(keys),
            in_profile: true,
            is_new_style: true,
        }
    }

    /// Marks a key that applies to all jobs alike, so that no profile may set it.
    const fn for_all_jobs(mut self) -> Self {
        self.in_profile = false;
        self
    }

    /// Marks a key that the Go driver has in another table. Its users also have it in this one, where that driver ignored it.
    const fn in_go_driver_files_too(mut self) -> Self {
        self.is_new_style = false;
        self
    }

    /// Returns whether `lower` (a key in lower case) is this key.
    #[must_use]
    pub fn is(&self, lower: &str) -> bool {
        lower == self.name || self.is_go(lower)
    }

    /// Returns whether `lower` (a key in lower case) is the Go driver's spelling of this key.
    #[must_use]
    pub fn is_go(&self, lower: &str) -> bool {
        self.go.is_some_and(|go| go.eq_ignore_ascii_case(lower))
    }

    /// Returns whether only the Go driver's spelling exists; the key of this driver has another name.
    #[must_use]
    pub fn only_go(&self) -> bool {
        self.is_go(self.name) && self.go.is_some_and(|go| GO_ONLY.contains(&go))
    }

    /// Returns the keys below this one.
    #[must_use]
    pub fn children(&self) -> &'static [Self] {
        match self.kind {
            KeyKind::Value(_) | KeyKind::Free(..) => &[],
            KeyKind::Table(keys) | KeyKind::Tables(keys) => keys,
        }
    }
}

/// Spellings of the Go driver for which this driver has a key of another name or shape.
const GO_ONLY: [&str; 3] = ["Subnet", "SecurityGroup", "TaskMetadata"];

/// Keys that set the same thing; a file may have only one of them.
pub const MUTUALLY_EXCLUSIVE: [(&str, &str); 3] = [
    ("fargate.subnet", "fargate.subnets"),
    ("fargate.securitygroup", "fargate.security_groups"),
    ("taskmetadata.directory", "state.directory"),
];

/// The keys at the top of the file.
pub const ROOT: &[Key] = &[
    CAPACITY,
    RUNG_WAIT,
    CAPACITY_WAIT,
    Key::own("deadline_margin", "\"30m\"").for_all_jobs(),
    Key::own("allow_jobs_on_this_host", "true").for_all_jobs(),
    BUILDS_DIR,
    CACHE_DIR,
    Key::both("log_level", "LogLevel", "\"info\"").for_all_jobs(),
    Key::both("log_format", "LogFormat", "\"text\"").for_all_jobs(),
    Key::both("log_file", "LogFile", "\"/var/log/gitlab-aws-driver.log\"").for_all_jobs(),
    Key::table("state", None, STATE).for_all_jobs(),
    Key::table("taskmetadata", Some("TaskMetadata"), TASK_METADATA).for_all_jobs(),
    Key::own("fleet", "\"gitlab-aws-driver\"").for_all_jobs(),
    TAGS_TABLE,
    SSH_TABLE,
    Key::table("local", None, LOCAL).for_all_jobs(),
    FARGATE_TABLE,
    EC2_TABLE,
    LIMITS_TABLE,
    Key {
        name: "profile",
        go: None,
        kind: KeyKind::Tables(PROFILE),
        in_profile: false,
        is_new_style: true,
    },
];

/// The keys of a profile: its own two, and what it may override.
pub const PROFILE: &[Key] = &[
    Key::own("name", "\"docker\""),
    Key::table("match", None, MATCH),
    CAPACITY,
    RUNG_WAIT,
    CAPACITY_WAIT,
    BUILDS_DIR,
    CACHE_DIR,
    TAGS_TABLE,
    SSH_TABLE,
    FARGATE_TABLE,
    EC2_TABLE,
    LIMITS_TABLE,
];

const CAPACITY: Key = Key::own("capacity", "[\"fargate-spot\", \"fargate\"]");
const RUNG_WAIT: Key = Key::own("rung_wait", "\"5m\"");
const CAPACITY_WAIT: Key = Key::own("capacity_wait", "\"10m\"");
const BUILDS_DIR: Key = Key::own("builds_dir", "\"/builds\"");
const CACHE_DIR: Key = Key::own("cache_dir", "\"/cache\"");
/// A right key of `[tags]`.
pub const TAG: &str = "team";

const TAGS_TABLE: Key = Key {
    name: "tags",
    go: None,
    kind: KeyKind::Free(TAG, "\"platform\""),
    in_profile: true,
    is_new_style: true,
};
const SSH_TABLE: Key = Key::table("ssh", Some("SSH"), SSH);
const FARGATE_TABLE: Key = Key::table("fargate", Some("Fargate"), FARGATE);
const EC2_TABLE: Key = Key::table("ec2", None, EC2);
const LIMITS_TABLE: Key = Key::table("limits", None, LIMITS);

const MATCH: &[Key] = &[
    Key::own("job_name", "\"docker-*\""),
    Key::own("project", "\"group/**\""),
    Key::own("ref", "\"release/*\""),
    Key::own("protected", "true"),
    Key::own("image", "\"docker:*\""),
    Key {
        name: "variables",
        go: None,
        kind: KeyKind::Free("CI_PIPELINE_SOURCE", "\"schedule\""),
        in_profile: true,
        is_new_style: true,
    },
];

const STATE: &[Key] = &[
    Key::own("directory", "\"/var/lib/gitlab-aws-driver\""),
    Key::own("manager", "\"ci-bastion\""),
];

const TASK_METADATA: &[Key] = &[Key::both(
    "directory",
    "Directory",
    "\"/opt/gitlab-runner/metadata\"",
)];

const SSH: &[Key] = &[
    Key::both("username", "Username", "\"root\""),
    Key::both("port", "Port", "22"),
    Key::own("connect_timeout", "\"3m\""),
    Key::own("reconnect_timeout", "\"10m\""),
];

const LOCAL: &[Key] = &[
    Key::own(
        "command",
        "[\"/usr/local/bin/entrypoint\", \"--foreground\"]",
    ),
    Key::own("container", "true"),
    Key::own("container_image", "\"debian:12\""),
    Key::own(
        "agent",
        "\"/usr/lib/gitlab-aws-driver/gitlab-aws-agent-x86_64\"",
    ),
];

const FARGATE: &[Key] = &[
    Key::both("region", "Region", "\"eu-west-1\""),
    Key::both("cluster", "Cluster", "\"ci\""),
    Key::both("task_definition", "TaskDefinition", "\"ci-job\""),
    Key::own("task_definition_arm64", "\"ci-job-arm64\""),
    Key::both("subnet", "Subnet", "\"subnet-0a1b2c3d\""),
    Key::own("subnets", "[\"subnet-0a1b2c3d\", \"subnet-4e5f6a7b\"]"),
    Key::both("securitygroup", "SecurityGroup", "\"sg-0a1b2c3d\""),
    Key::own("security_groups", "[\"sg-0a1b2c3d\"]"),
    Key::both("enable_public_ip", "EnablePublicIP", "true"),
    Key::both("use_public_ip", "UsePublicIP", "false"),
    Key::both("platform_version", "PlatformVersion", "\"1.4.0\""),
    Key::both("enable_execute_command", "EnableExecuteCommand", "true"),
    Key::own("container", "\"ci-coordinator\""),
    Key::own("role_arn", "\"arn:aws:iam::111122223333:role/ci-launch\""),
    Key::own("propagate_tags", "true"),
    Key::own("username", "\"root\"").in_go_driver_files_too(),
    Key::own("port", "2222").in_go_driver_files_too(),
];

const EC2: &[Key] = &[
    Key::own("region", "\"eu-west-1\""),
    Key::own("image_id", "\"ami-0123456789abcdef0\""),
    Key::own("instance_types", "[\"c7i.large\", \"m7i.large\"]"),
    Key::own("image_id_arm64", "\"ami-0fedcba9876543210\""),
    Key::own("instance_types_arm64", "[\"c7g.large\", \"m7g.large\"]"),
    Key::own("subnets", "[\"subnet-0a1b2c3d\"]"),
    Key::own("security_groups", "[\"sg-0a1b2c3d\"]"),
    Key::own("role_arn", "\"arn:aws:iam::111122223333:role/ci-launch\""),
    Key::own("launch_template", "\"lt-0123456789abcdef0:$Default\""),
    Key::own("instance_profile", "\"ci-job\""),
    Key::own("key_name", "\"ops\""),
    Key::own("volume_size", "\"50GiB\""),
    Key::own("volume_type", "\"gp3\""),
    Key::own("max_price", "\"0.05\""),
    Key::own("public_ip", "true"),
    Key::own("use_public_ip", "true"),
    Key::own("use_ipv6", "true"),
    Key::own("instance_connect", "true"),
    Key::own("container", "true"),
    Key::own("container_image", "\"debian:12\""),
    Key::own("privileged", "true"),
    Key::own("docker_socket", "true"),
    Key::own("ecr_login", "\"driver\""),
    Key::own("services_timeout", "\"2m\""),
    Key::own("username", "\"ec2-user\""),
    Key::own("port", "22"),
];

const LIMITS: &[Key] = &[
    Key::own("task_definitions", "[\"ci-*\"]"),
    Key::own("roles", "[\"arn:aws:iam::*:role/ci-*\"]"),
    Key::own("images", "[\"registry.example.com/**\"]"),
    Key::own("max_cpu", "\"4\""),
    Key::own("max_memory", "\"16GiB\""),
    Key::own("max_disk", "\"200GiB\""),
    Key::own("architectures", "[\"x86_64\", \"arm64\"]"),
    Key::own("machine_images", "[\"/aws/service/canonical/**\"]"),
    Key::own("instance_types", "[\"c7*.large\", \"m7*.large\"]"),
    Key::own("capacity", "[\"fargate-spot\", \"fargate\"]"),
];

/// Returns the name out of `names` that `given` most probably meant.
///
/// Case, `_` and `-` count for nothing; a third of the letters may be wrong.
pub fn closest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = bare(given);
    // The distance takes time in the product of both lengths, and no key is nearly as long.
    if given.is_empty() || given.len() > 64 {
        return None;
    }
    let allowed = (given.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &bare(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn bare(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_found_and_a_far_one_is_not() {
        let names = ["fargate-spot", "fargate", "ec2-spot", "ec2"];
        for (given, want) in [
            ("FARGATE_SPOT", Some("fargate-spot")),
            ("fargte", Some("fargate")),
            ("ec2_spot", Some("ec2-spot")),
            ("e2", Some("ec2")),
            ("kubernetes", None),
            ("", None),
            ("--", None),
        ] {
            assert_eq!(closest(given, names), want, "{given}");
        }
        assert_eq!(closest(&"x".repeat(1 << 20), names), None);
    }

    #[test]
    fn names_are_lower_case_and_unique_in_their_table() {
        fn walk(keys: &[Key]) {
            for (i, key) in keys.iter().enumerate() {
                assert_eq!(key.name, key.name.to_lowercase());
                for other in &keys[i + 1..] {
                    assert!(!other.is(key.name), "{}", key.name);
                    assert!(!key.go.is_some_and(|go| other.is(&go.to_lowercase())));
                }
                walk(key.children());
            }
        }
        walk(ROOT);
    }
}
