//! Files as users of the Go driver have them: they load with warnings at most, and mean what they meant.

use super::*;

const FILES: [(&str, &str); 4] = [
    ("documented", include_str!("go_driver/documented.toml")),
    ("lower-case", include_str!("go_driver/lower-case.toml")),
    ("unknown-keys", include_str!("go_driver/unknown-keys.toml")),
    ("no-port", include_str!("go_driver/no-port.toml")),
];

#[test]
fn public_files_load_and_mean_what_they_meant() {
    for (name, text) in FILES {
        let Loaded {
            settings, warnings, ..
        } = parsed(text);
        assert_eq!(settings.style, Style::GoDriver, "{name}");
        assert_eq!(settings.limits, None, "{name}");
        assert!(
            settings.capacity.is_empty() && settings.builds_dir.is_none(),
            "{name}"
        );
        assert_eq!(
            settings.state_directory,
            Path::new("/opt/gitlab-runner/metadata")
        );
        assert!(settings.fargate_problem().is_none(), "{name}");
        let fargate = settings.fargate.expect(name);
        assert_eq!(fargate.region.as_deref(), Some("eu-west-1"), "{name}");
        assert_eq!(fargate.subnets, ["subnet-0a1b2c3d"], "{name}");
        assert_eq!(fargate.security_groups, ["sg-0a1b2c3d"], "{name}");
        assert!(
            fargate.cluster.is_some() && fargate.task_definition.is_some(),
            "{name}"
        );
        assert_eq!(fargate.container, "ci-coordinator", "{name}");
        assert_eq!(
            (fargate.role_arn, fargate.propagate_tags),
            (None, false),
            "{name}"
        );
        let (user, port) = match name {
            "lower-case" => ("ci", 2222),
            _ => ("root", 22),
        };
        assert_eq!(
            (settings.ssh.username.as_str(), settings.ssh.port),
            (user, port)
        );
        let public = match name {
            "documented" => (true, Some(false)),
            "no-port" => (true, None),
            _ => (false, None),
        };
        assert_eq!(
            (fargate.enable_public_ip, fargate.use_public_ip),
            public,
            "{name}"
        );
        let unknown: Vec<_> = warnings
            .iter()
            .filter(|w| w.contains("unknown key"))
            .collect();
        assert_eq!(
            unknown.len(),
            if name == "unknown-keys" { 5 } else { 0 },
            "{warnings:?}"
        );
        assert_eq!(warnings.len(), unknown.len() + 1, "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("there is no [limits]")));
    }
}

#[test]
fn what_a_go_driver_file_lacks_is_told_when_a_task_is_to_be_launched() {
    for (text, message, remedy) in [
        (
            "",
            "has no [Fargate] Subnet",
            "under [Fargate]: Subnet = \"subnet-",
        ),
        (
            "[Fargate]\nSubnet = \"\"",
            "has no [Fargate] Subnet",
            "Subnet = ",
        ),
        (
            "log_level = \"info\"",
            "has no [fargate] subnets",
            "subnets = [\"subnet-",
        ),
        (
            "[fargate]\nregion = \"eu-west-1\"\nsubnets = [\"subnet-a\"]",
            "",
            "",
        ),
        ("[Fargate]\nSubnet = \"subnet-a\"", "", ""),
    ] {
        let problem = parsed(text).settings.fargate_problem();
        assert_eq!(problem.is_none(), message.is_empty(), "{text}");
        if let Some(problem) = problem {
            assert!(problem.to_string().contains(message), "{problem}");
            assert!(
                problem.remedy().unwrap_or_default().contains(remedy),
                "{problem}"
            );
        }
    }
}
