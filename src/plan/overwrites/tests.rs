//! What jobs ask for, and what they get.

use std::path::Path;

use proptest::prelude::*;

use super::GO_ROLE as ROLE;
use super::GO_TASK_DEFINITION as TASK_DEFINITION;
use super::session_tags::SESSION;
use super::*;

mod choices;
mod session;

const OPEN: &str =
    "[Fargate]\nTaskDefinition = \"ci-job:7\"\nSubnet = \"a\"\nPlatformVersion = \"1.4.0\"";
const OWN: &str = "capacity = [\"fargate\"]\n[fargate]\ntask_definition = \"ci-job:7\"\nsubnets = [\"subnet-a\"]\n";
const ACCOUNT: &str = "arn:aws:ecs:eu-west-1:111122223333:task-definition/";
const ROLES: &str = "arn:aws:iam::111122223333:role/";

fn settings(text: &str) -> Settings {
    crate::config::parse(text, Path::new("f.toml"))
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
        .settings
}

fn overwrites(variables: &[(&str, &str)], payload: &str) -> Overwrites {
    let env = variables
        .iter()
        .map(|(k, v)| (format!("CUSTOM_ENV_{k}").into(), (*v).into()));
    let payload = Payload::parse(payload.as_bytes()).unwrap();
    Overwrites::read(&Environment::from_pairs(env), &payload)
}

/// Settles a job that can be nothing but a task.
fn settled(text: &str, variables: &[(&str, &str)]) -> Result<SettledTask> {
    settled_task(
        &settings(text),
        &Overrides::default(),
        &overwrites(variables, "{}"),
    )
}

fn settled_task(
    settings: &Settings,
    overrides: &Overrides,
    overwrites: &Overwrites,
) -> Result<SettledTask> {
    settle(settings, overrides, overwrites).map(|settled| settled.task.expect("a task"))
}

/// Returns whether a file with these limits lets a job have it.
fn allows(key: &str, patterns: &[&str], variable: &str, overwrite: &str) -> bool {
    match settled(
        &format!("{OWN}[limits]\n{key} = {patterns:?}"),
        &[(variable, overwrite)],
    ) {
        Ok(settled) => {
            let role = settled.role.map(|r| r.arn);
            assert_eq!(
                if variable == ROLE {
                    role.unwrap()
                } else {
                    settled.task_definition
                },
                overwrite
            );
            true
        }
        Err(e) => {
            assert_eq!(e.kind(), Kind::Limit, "{e}");
            assert!(e.to_string().contains(variable), "{e}");
            assert!(e.remedy().is_some_and(|r| r.contains(variable)), "{e}");
            false
        }
    }
}

#[test]
fn flag_then_job_then_file() {
    let file = settings(OPEN);
    let none = Overrides::default();
    let flag = Overrides {
        task_definition: Some("flag".to_owned()),
        platform_version: Some("1.3.0".to_owned()),
        ..Overrides::default()
    };
    let job = overwrites(
        &[(TASK_DEFINITION, "job:1"), (PLATFORM_VERSION, "LATEST")],
        "{}",
    );
    let empty = overwrites(&[(TASK_DEFINITION, ""), (PLATFORM_VERSION, "")], "{}");
    for (overrides, overwrites, task, version) in [
        (&none, &Overwrites::default(), "ci-job:7", "1.4.0"),
        (&none, &empty, "ci-job:7", "1.4.0"),
        (&none, &job, "job:1", "LATEST"),
        (&flag, &job, "flag", "1.3.0"),
        (&flag, &Overwrites::default(), "flag", "1.3.0"),
    ] {
        let settled = settled_task(&file, overrides, overwrites).unwrap();
        assert_eq!(settled.task_definition, task);
        assert_eq!(settled.platform_version.as_deref(), Some(version));
        assert_eq!(settled.role, None);
    }
    // What a flag overrides is not asked for, so it cannot be too much.
    assert!(settle(&settings(OWN), &flag, &job).is_ok());
    for text in ["[Fargate]\nSubnet = \"a\"", ""] {
        let error = settled(text, &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("nobody names a task definition"));
        assert_eq!(
            settled(text, &[(TASK_DEFINITION, "a")])
                .unwrap()
                .task_definition,
            "a"
        );
    }
}

#[test]
fn a_go_driver_file_is_open_and_any_other_closed() {
    let other = format!("{ACCOUNT}x:1");
    let role = format!("{ROLES}x");
    let all = [
        (TASK_DEFINITION, other.as_str()),
        (ROLE, &role),
        (PLATFORM_VERSION, "1.4.0"),
    ];
    let open = settled(OPEN, &all).unwrap();
    assert_eq!(
        (open.task_definition, open.role.unwrap().arn),
        (other.clone(), role.clone())
    );

    for (variable, overwrite, key) in [
        (TASK_DEFINITION, &other, "task_definitions"),
        (ROLE, &role, "roles"),
    ] {
        let error = settled(OWN, &[(variable, overwrite)]).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert_eq!(
            error.to_string(),
            format!(
                "the job asks for \"{overwrite}\" by {variable}, and [limits] {key} allows none"
            )
        );
    }
    // What the file has anyway, no limit forbids.
    assert!(
        settled(
            OWN,
            &[(TASK_DEFINITION, "ci-job:7"), (PLATFORM_VERSION, "LATEST")]
        )
        .is_ok()
    );
    assert!(settled(OWN, &[(PLATFORM_VERSION, "1.4.0; x")]).is_err());
    let with_role = format!("{OWN}role_arn = \"{role}\"");
    assert_eq!(
        settled(&with_role, &[(ROLE, &role)])
            .unwrap()
            .role
            .unwrap()
            .arn,
        role
    );
    assert_eq!(
        settled(&with_role, &[(ROLE, "")])
            .unwrap()
            .role
            .unwrap()
            .arn,
        role
    );
}

#[test]
fn a_refusal_names_value_variable_and_bound() {
    let text = format!("{OWN}[limits]\ntask_definitions = [\"ci-*\", \"deploy\"]");
    let error = settled(&text, &[(TASK_DEFINITION, "root\n\u{1b}[31m")]).unwrap_err();
    assert!(
        error.to_string().contains("no task definition's name"),
        "{error}"
    );
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
    let error = settled(&text, &[(TASK_DEFINITION, "admin:1")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the job asks for \"admin:1\" by FARGATE_TASK_DEFINITION, and [limits] task_definitions allows only ci-*, deploy"
    );
    assert!(
        settled(&text, &[(TASK_DEFINITION, &"x".repeat(100_000))])
            .unwrap_err()
            .to_string()
            .len()
            < 500
    );
}

#[test]
fn task_definitions_fit_as_documented() {
    let arn = |name: &str| format!("{ACCOUNT}{name}");
    for (pattern, overwrite, want) in [
        // A family, whatever its revision.
        ("ci-*", "ci-x", true),
        ("ci-*", "ci-x:12", true),
        ("ci-x", "ci-x:12", true),
        ("ci-*", "xci-x", false),
        ("ci-*", "CI-x", false),
        ("**", "anything:1", true),
        // Never an ARN: it may be another account's.
        ("ci-*", &arn("ci-x:1"), false),
        ("**", &arn("ci-x:1"), false),
        ("*:*:*:*:*:*/*", &arn("ci-x:1"), false),
        // A family with its revision.
        ("ci-x:7", "ci-x:7", true),
        ("ci-x:7", "ci-x:70", false),
        ("ci-x:7", "ci-x", false),
        ("ci-*:*", "ci-x:7", true),
        ("ci-*:*", "ci-x", false),
        // ARNs by ARNs.
        (&arn("ci-*"), &arn("ci-x:7"), true),
        (&arn("ci-*"), &arn("ci-x"), true),
        (&arn("ci-*"), "ci-x", false),
        (&arn("ci-*:7"), &arn("ci-x:8"), false),
        (
            "arn:aws:ecs:*:111122223333:task-definition/ci-*",
            &arn("ci-x:7"),
            true,
        ),
        (
            "arn:aws:ecs:*:999999999999:task-definition/ci-*",
            &arn("ci-x:7"),
            false,
        ),
        ("arn:aws:ecs:*:task-definition/ci-*", &arn("ci-x:7"), false),
        ("arn:**", &arn("ci-x:7"), true),
        ("arn:**", "ci-x:7", false),
        ("arn", "arn:1", true),
        // What is no name at all fits nothing.
        ("**", "ci-x:1:2", false),
        ("**", "ci-x:latest", false),
        ("**", "ci-x ", false),
        (
            "arn:**",
            "arn:aws:ecs:eu-west-1:111122223333:task-definition/a/b:1",
            false,
        ),
    ] {
        assert_eq!(
            allows("task_definitions", &[pattern], TASK_DEFINITION, overwrite),
            want,
            "{pattern} {overwrite}"
        );
    }
    assert!(allows(
        "task_definitions",
        &["a", "b"],
        TASK_DEFINITION,
        "b:1"
    ));
    assert!(!allows("task_definitions", &[], TASK_DEFINITION, "b:1"));
}

#[test]
fn roles_fit_as_documented() {
    let arn = |name: &str| format!("{ROLES}{name}");
    for (pattern, overwrite, want) in [
        ("arn:aws:iam::*:role/ci-*", arn("ci-x"), true),
        ("arn:aws:iam::*:role/ci-*", arn("ci-x/admin"), false),
        ("arn:aws:iam::*:role/ci-*", arn("team/ci-x"), false),
        ("arn:aws:iam::*:role/**", arn("team/ci-x"), true),
        ("arn:aws:iam::999999999999:role/**", arn("ci-x"), false),
        (
            "arn:aws:iam::*:role/ci-*",
            "arn:aws:iam::1:role/x:role/ci-y".to_owned(),
            false,
        ),
        (
            "arn:**",
            "arn:aws:iam::111122223333:user/x".to_owned(),
            false,
        ),
        ("arn:**", "ci-x".to_owned(), false),
    ] {
        assert_eq!(
            allows("roles", &[pattern], ROLE, &overwrite),
            want,
            "{pattern} {overwrite}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a job asks for, a closed file gives it nothing but the file's own.
    #[test]
    fn nothing_gets_out_of_a_closed_file(overwrite in "[a-z:/*0-9 .-]{1,30}|arn:aws:(ecs|iam):[a-z0-9-]{0,9}:[0-9]{12}:(role|task-definition)/[a-z:0-9*/]{1,9}") {
        for variable in [
            TASK_DEFINITION, ROLE, super::TASK_DEFINITION, super::ROLE, CPU, MEMORY, DISK, ARCHITECTURE, MACHINE_IMAGE,
            INSTANCE_TYPE,
        ] {
            let got = settled(OWN, &[(variable, &overwrite)]);
            prop_assert!(got.is_err(), "{:?}", got);
        }
    }

    /// A pattern of families never lets an ARN through, whatever it looks like.
    #[test]
    fn no_pattern_of_families_fits_an_arn(pattern in "[a-z*:/]{1,12}", name in "[a-z]{1,4}(:[0-9])?") {
        // What is said to fit nothing is refused when the file is read.
        prop_assume!(!pattern.starts_with("arn:") && !pattern.ends_with(':'));
        let overwrite = format!("{ACCOUNT}{name}");
        prop_assert!(!allows("task_definitions", &[&pattern], TASK_DEFINITION, &overwrite));
    }
}
