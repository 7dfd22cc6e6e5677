//! Tests of whole files: what they mean, and how their errors read.

use std::path::Path;
use std::time::Duration;

mod all;
mod errors;
mod go_driver;
mod profiles;
mod reading;
mod warnings;

use super::file::Keys;
use super::keys::{Key, KeyKind, ROOT};
use super::settings::{LogFormat, LogLevel, Rung, Style};
use super::*;

fn parsed(text: &str) -> Loaded {
    match parse(text, Path::new("f.toml")) {
        Ok(loaded) => loaded,
        Err(e) => panic!("{e}\n{text}"),
    }
}

fn load_from(explicit: Option<&Path>, defaults: &[&Path]) -> Result<Loaded> {
    examine_from(explicit, defaults).map_err(Refusal::first)
}

/// Returns all that is wrong, in order, each with its remedy.
fn told(text: &str) -> Vec<(String, String)> {
    let path = Path::new("f.toml");
    let wrong = parse_all(text, path).expect_err(text);
    let all = wrong.problems.iter();
    let all = all.map(|p| (p.message(path), p.remedy.clone().unwrap_or_default()));
    all.collect()
}

fn failed(text: &str) -> (String, String) {
    let e = parse(text, Path::new("f.toml")).expect_err(text);
    assert_eq!(e.kind(), Kind::Config);
    (e.to_string(), e.remedy().unwrap_or_default().to_owned())
}

const EXAMPLES: [(&str, &str); 5] = [
    (
        "two-profiles.toml",
        include_str!("../../config-examples/two-profiles.toml"),
    ),
    (
        "arm64.toml",
        include_str!("../../config-examples/arm64.toml"),
    ),
    (
        "local.toml",
        include_str!("../../config-examples/local.toml"),
    ),
    (
        "fargate-spot.toml",
        include_str!("../../config-examples/fargate-spot.toml"),
    ),
    (
        "go-driver.toml",
        include_str!("../../config-examples/go-driver.toml"),
    ),
];

const RUNNER_EXAMPLE: &str = include_str!("../../config-examples/gitlab-runner-config.toml");
const DOCUMENTATION: &str = include_str!("../../docs/configuration.md");

/// The pages that have whole files, in blocks that are marked as TOML.
const PAGES: [(&str, &str); 3] = [
    ("configuration.md", DOCUMENTATION),
    ("containers.md", include_str!("../../docs/containers.md")),
    ("ec2.md", include_str!("../../docs/ec2.md")),
];

#[test]
fn the_style_follows_from_the_spellings() {
    for (text, style) in [
        ("", Style::GoDriver),
        ("LOGLEVEL = \"info\"", Style::GoDriver),
        ("log_level = \"info\"", Style::New),
        (
            "[fargate]\ncluster = \"a\"\ntaskdefinition = \"b\"\nsubnet = \"subnet-c\"",
            Style::GoDriver,
        ),
        (
            "[fargate]\ncluster = \"a\"\ntask_definition = \"b\"",
            Style::New,
        ),
        ("[ssh]\nusername = \"a\"\nPORT = 22", Style::GoDriver),
        ("[ssh]\nconnect_timeout = \"1m\"", Style::New),
        ("[limits]", Style::New),
        ("[State]\nDIRECTORY = \"/a\"", Style::New),
        ("something_else = 1", Style::GoDriver),
    ] {
        assert_eq!(parsed(text).settings.style, style, "{text}");
    }
}

#[test]
fn a_go_driver_file_behaves_as_there() {
    let Loaded {
        settings, warnings, ..
    } = parsed(
        "[fargate]\nCLUSTER = \"ci\"\nsubnet = \"subnet-s\"\nSecurityGroup = \"sg-g\"\nPlatformVersion = \"\"\nenablepublicip = true\n[SSH]\nUserName = \"\"",
    );
    assert_eq!(settings.limits, None);
    assert!(settings.capacity.is_empty());
    assert_eq!(settings.builds_dir, None);
    assert_eq!(settings.log.level, LogLevel::Info);
    assert_eq!(settings.ssh.username, "root");
    assert_eq!(
        settings.state_directory,
        Path::new("/var/lib/gitlab-aws-driver")
    );
    let fargate = settings.fargate.expect("[fargate]");
    assert_eq!(fargate.cluster.as_deref(), Some("ci"));
    assert_eq!(fargate.subnets, ["subnet-s"]);
    assert_eq!(fargate.security_groups, ["sg-g"]);
    assert_eq!(fargate.platform_version, None);
    assert!(fargate.enable_public_ip);
    assert_eq!(fargate.use_public_ip, None);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("there is no [limits]"));

    let relative = parsed("[TaskMetadata]\nDirectory = \"meta\"");
    assert_eq!(
        relative.settings.state_directory,
        Path::new("/var/lib/gitlab-aws-driver")
    );
    assert!(
        relative.warnings[0]
            .contains("f.toml:2: TaskMetadata.Directory \"meta\" is no absolute path"),
        "{:?}",
        relative.warnings
    );
}

#[test]
fn a_new_file_is_closed_and_has_defaults() {
    let Loaded {
        settings, warnings, ..
    } = parsed(
        "capacity = [\"fargate-spot\", \"ecs:asg\", \"ec2\"]\n[fargate]\ntask_definition = \"a\"\nsubnets = [\"subnet-b\"]\n[ec2]\nimage_id = \"ami-1\"\ninstance_types = [\"c7i.large\"]\nsubnets = [\"subnet-1\"]",
    );
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        settings.capacity,
        [Rung::FargateSpot, Rung::Ecs("asg".to_owned()), Rung::Ec2]
    );
    assert_eq!(settings.limits, Some(settings::Limits::default()));
    assert_eq!(settings.builds_dir.as_deref(), Some("/builds"));
    assert_eq!(settings.cache_dir.as_deref(), Some("/cache"));
    assert_eq!(settings.rung_wait, Duration::from_secs(300));
    assert_eq!(settings.capacity_wait, Duration::from_secs(600));
    assert_eq!(settings.ssh.port, 22);
    assert_eq!(settings.ssh.connect_timeout, Duration::from_secs(180));
    assert_eq!(settings.ssh.reconnect_timeout, Duration::from_secs(600));
    assert_eq!(settings.log.level, LogLevel::Warn);
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.fleet, "gitlab-aws-driver");
    assert_eq!(settings.tags, []);
    let fargate = settings.fargate.expect("[fargate]");
    assert_eq!(fargate.container, "ci-coordinator");
    // The SDK's own settings name it.
    assert_eq!(fargate.region, None);
}

#[test]
fn tags_are_kept_as_they_are_written() {
    let text = "fleet = \"ci: west\"\n[Tags]\nTeam = \"a\"\nteam = \"b\"\n\"cost center\" = \"4711/x\"\n[fargate]\nrole_arn = \"arn:aws:iam::111122223333:role/ci/launch\"\npropagate_tags = true\ncontainer = \"job\"\n[[profile]]\nname = \"p\"\nmatch.project = \"x\"\ntags = { team = \"c\" }";
    let Loaded {
        settings, warnings, ..
    } = parsed(text);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings.fleet, "ci: west");
    let tag = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let want = [
        tag("Team", "a"),
        tag("cost center", "4711/x"),
        tag("team", "b"),
    ];
    assert_eq!(settings.tags, want);
    assert_eq!(
        settings.profiles[0].overrides.tags,
        Some(vec![tag("team", "c")])
    );
    let fargate = settings.fargate.expect("[fargate]");
    assert_eq!(fargate.container, "job");
    assert!(fargate.propagate_tags && fargate.role_arn.is_some());
    let most: String = (0..40).map(|i| format!("t{i} = \"x\"\n")).collect();
    assert_eq!(parsed(&format!("[tags]\n{most}")).settings.tags.len(), 40);
}

#[test]
fn local_needs_to_be_meant() {
    let loaded = parsed(
        "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n[local]\ncommand = [\"/bin/x\", \"\"]",
    );
    assert_eq!(loaded.settings.capacity, [Rung::Local]);
    assert_eq!(loaded.settings.local.command, ["/bin/x", ""]);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let idle = parsed("allow_jobs_on_this_host = true");
    assert!(idle.warnings[0].starts_with("f.toml:1: allow_jobs_on_this_host changes nothing"));
    assert_eq!(loaded.settings.builds_dir, None);
}

/// Every key with its example, each in a file of its own: header, the key as written, example.
fn every_key() -> Vec<(String, String, String)> {
    fn walk(keys: &[Key], header: &str, out: &mut Vec<(String, String, String)>) {
        for key in keys {
            let dot = if header.is_empty() { "" } else { "." };
            for name in [Some(key.name), key.go].into_iter().flatten() {
                let path = format!("{header}{dot}{name}");
                match key.kind {
                    KeyKind::Value(example) => {
                        out.push((header.to_owned(), name.to_owned(), example.to_owned()));
                    }
                    KeyKind::Table(keys) | KeyKind::Tables(keys) => walk(keys, &path, out),
                    KeyKind::Free(key, example) => {
                        out.push((path, key.to_owned(), example.to_owned()));
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    walk(ROOT, "", &mut out);
    out
}

#[test]
fn every_key_is_known_to_the_raw_structs_and_its_example_is_right() {
    for (header, name, example) in every_key() {
        let mut text = String::new();
        if name == "capacity" {
            // What its rungs need.
            text.push_str("fargate = { task_definition = \"a\", subnets = [\"subnet-b\"] }\n");
        }
        if header.starts_with("profile") {
            text.push_str("[[profile]]\n");
            if (header.as_str(), name.as_str()) != ("profile", "name") {
                text.push_str("name = \"a\"\n");
            }
            if !header.contains("match") {
                text.push_str("match.protected = true\n");
            }
        }
        if !header.is_empty() && header != "profile" {
            text.push_str(&format!("[{header}]\n"));
        }
        if matches!(
            name.as_str(),
            "privileged" | "docker_socket" | "ecr_login" | "services_timeout"
        ) || (header == "local" && matches!(name.as_str(), "container_image" | "agent"))
        {
            text.push_str("container = true\n");
        }
        text.push_str(&format!("{name} = {example}\n"));
        let warnings = parsed(&text).warnings;
        assert!(
            !warnings.iter().any(|w| w.contains("unknown")),
            "{text}{warnings:?}"
        );
    }
}

/// Returns what the page says under a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let line = format!("\n{heading}\n");
    let mut found = DOCUMENTATION.split(line.as_str());
    let (Some(_), Some(below), None) = (found.next(), found.next(), found.next()) else {
        panic!("the page does not have one heading {heading:?}");
    };
    let ends = ["\n## ", "\n### "].map(|next| below.find(next).unwrap_or(below.len()));
    &below[..ends[0].min(ends[1])]
}

/// Returns the heading of a table: one of the file has a part of the page, one in a profile is a key like others.
fn heading_of_table(path: &str) -> String {
    match path.contains('.') {
        false => format!("## `[{path}]`"),
        true => format!("### `{path}`"),
    }
}

#[test]
fn every_key_is_documented() {
    fn walk(keys: &[Key], table: &str) {
        for key in keys {
            let go = key.go.unwrap_or_default();
            assert!(DOCUMENTATION.contains(go), "{go}");
            if key.only_go() {
                for go in key.children().iter().filter_map(|child| child.go) {
                    assert!(DOCUMENTATION.contains(go), "{go}");
                }
                continue;
            }
            let dot = if table.is_empty() { "" } else { "." };
            let path = format!("{table}{dot}{}", key.name);
            match key.kind {
                KeyKind::Value(example) => {
                    let text = section(&format!("### `{path}`"));
                    let line = format!("\n    {} = {example}\n", key.name);
                    assert!(format!("{text}\n").contains(&line), "{path}:{line}");
                    assert!(text.contains("Type: ") && text.contains(go), "{path}");
                    assert!(
                        text.contains(" Default: ") || text.contains(" Required"),
                        "{path}"
                    );
                }
                KeyKind::Free(own, example) => {
                    let line = format!("{own} = {example}");
                    let text = section(&heading_of_table(&path));
                    assert!(text.contains(&line), "{path}: {line}");
                }
                KeyKind::Table(children) => {
                    section(&heading_of_table(&path));
                    walk(children, &path);
                }
                KeyKind::Tables(children) => {
                    let text = section(&format!("## `[[{path}]]`"));
                    let is_of_file = |own: &&Key| ROOT.iter().any(|key| key.name == own.name);
                    for own in children.iter().filter(is_of_file) {
                        assert!(text.contains(&format!("`{}`", own.name)), "{}", own.name);
                    }
                    for own in children.iter().filter(|own| !is_of_file(own)) {
                        walk(std::slice::from_ref(own), &path);
                    }
                }
            }
        }
    }
    walk(ROOT, "");
}

#[test]
fn the_files_on_the_pages_load_without_a_warning() {
    for (name, page) in PAGES {
        let blocks = page.split("\n```toml\n").skip(1);
        let files: Vec<_> = blocks
            .filter_map(|rest| Some(rest.split_once("```\n")?.0))
            .collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            assert_eq!(
                parsed(file).warnings,
                Vec::<String>::new(),
                "{name}\n{file}"
            );
        }
    }
}

#[test]
fn the_examples_load_without_a_warning() {
    for (name, text) in EXAMPLES {
        let Loaded {
            settings, warnings, ..
        } = parsed(text);
        if name == "go-driver.toml" {
            assert_eq!(settings.style, Style::GoDriver);
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains("there is no [limits]"));
        } else {
            assert_eq!(warnings, Vec::<String>::new(), "{name}");
        }
    }
    assert!(DeTable::parse(RUNNER_EXAMPLE).is_ok());
}
