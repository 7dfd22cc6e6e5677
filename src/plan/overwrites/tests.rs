//! What jobs ask for, and what they get.

use std::path::Path;

use proptest::prelude::*;

use super::session_tags::SESSION;
use super::{GO_ROLE as ROLE, GO_TASK_DEFINITION as TASK_DEFINITION, *};

mod choices;

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

const PAYLOAD: &str = r#"{"id": 1001,
    "job_info": {"pipeline_id": 77, "project_id": 5, "project_full_path": "group/project", "name": "test (all)", "user_id": 7},
    "git_info": {"ref": "main", "ref_type": "branch", "protected": true},
    "variables": [
    {"key": "CI_PROJECT_PATH", "value": "evil"},
    {"key": "CI_JOB_TOKEN", "value": "secret", "masked": true},
    {"key": "GITLAB_USER_LOGIN", "value": "admin"},
    {"key": "GITLAB_USER_ID", "value": "1"},
    {"key": "CI_COMMIT_TAG", "value": "v1"},
    {"key": "STAGE", "value": "prod"},
    {"key": "PASSWORD", "value": "x", "masked": true}]}"#;

/// Every name that is refused or left out: whoever writes the job may set it, or have GitLab's own value expanded.
const UNTRUSTED: [&str; 9] = [
    "GITLAB_USER_LOGIN",
    "GITLAB_USER_EMAIL",
    "GITLAB_USER_NAME",
    "CI_COMMIT_AUTHOR",
    "CI_COMMIT_BRANCH",
    "CI_COMMIT_REF_SLUG",
    "CI_JOB_TOKEN",
    "CI_ENVIRONMENT_NAME",
    "CI_UNKNOWN",
];

fn session_of(file: &str, names: &str, payload: &str) -> Result<Vec<(String, String)>> {
    let role = format!("{ROLES}x");
    let variables = [
        (ROLE, role.as_str()),
        (SESSION, names),
        ("CI_PROJECT_PATH", "evil"),
        ("ci_project_path", "evil"),
        ("CI_UNKNOWN", "evil"),
        ("GITLAB_USER_LOGIN", "admin"),
        ("STAGE", "prod"),
        ("stage", "dev"),
        ("LONG", &"x".repeat(257)),
        ("PASSWORD", "x"),
        ("EMPTY", ""),
    ];
    let overwrites = overwrites(&variables, payload);
    settled_task(&settings(file), &Overrides::default(), &overwrites).map(|s| s.role.unwrap().tags)
}

/// With a file of this driver's own, which lets the job take on the role.
fn session(names: &str, payload: &str) -> Result<Vec<(String, String)>> {
    let file = format!("{OWN}[limits]\nroles = [\"{ROLES}*\"]");
    session_of(&file, names, payload)
}

fn pair(k: &str, v: &str) -> (String, String) {
    (k.to_owned(), v.to_owned())
}

#[test]
fn a_session_is_told_who_the_job_really_is() {
    let told = session(
        " CI_PROJECT_PATH , GITLAB_USER_ID,,CI_PROJECT_PATH,CI_COMMIT_TAG,CI_PIPELINE_ID,CI_COMMIT_REF_PROTECTED",
        PAYLOAD,
    );
    let want = [
        pair("CI_PROJECT_PATH", "group/project"),
        pair("GITLAB_USER_ID", "7"),
        pair("CI_PIPELINE_ID", "77"),
        pair("CI_COMMIT_REF_PROTECTED", "true"),
    ];
    // A branch has no tag, whatever the job says.
    assert_eq!(told.unwrap(), want);
    assert_eq!(session("", PAYLOAD).unwrap(), []);
    for (names, words) in [
        (
            "ci_project_path",
            "AWS would take for GitLab's CI_PROJECT_PATH",
        ),
        ("Gitlab_User", "GITLAB_USER"),
        ("CI_JOB_NAME", "cannot hold '('"),
        (
            "STAGE",
            "no policy can go by it: whoever writes the job can set it",
        ),
        ("MISSING", "whoever writes the job can set it"),
        ("PASSWORD", "whoever writes the job can set it"),
        ("A B", "no variable's name"),
        ("aws:x", "no variable's name"),
        ("CI_PROJECT_PATH,GITLAB_USER_LOGIN", "\"GITLAB_USER_LOGIN\""),
    ] {
        let error = session(names, PAYLOAD).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.to_string().contains(words), "{error}");
        assert!(
            error.to_string().contains(SESSION) && error.remedy().is_some(),
            "{error}"
        );
    }
    for name in UNTRUSTED {
        let error = session(name, PAYLOAD).unwrap_err().to_string();
        let want =
            "and no policy can go by it: whoever writes the job can set it or have it expanded";
        assert!(error.ends_with(want), "{error}");
    }
    let hint = session("GITLAB_USER_EMAIL", PAYLOAD).unwrap_err();
    assert!(hint.remedy().unwrap().contains("Name GITLAB_USER_ID"));
}

#[test]
fn what_gitlab_does_not_say_no_session_is_told() {
    for (name, field) in [
        ("CI_PROJECT_PATH", "job_info.project_full_path"),
        ("GITLAB_USER_ID", "job_info.user_id"),
        ("CI_COMMIT_REF_NAME", "git_info.ref"),
        ("CI_COMMIT_REF_PROTECTED", "git_info.protected"),
    ] {
        let forged = format!("{{\"id\":1,\"variables\":[{{\"key\":\"{name}\",\"value\":\"1\"}}]}}");
        for payload in ["{}", &forged] {
            let error = session(name, payload).unwrap_err().to_string();
            let want = format!("this job's payload has no {field}");
            assert!(error.contains(&want), "{error}");
            // With the Go driver's file the job goes on without it.
            assert_eq!(session_of(OPEN, name, payload).unwrap(), []);
        }
    }
}

#[test]
fn with_a_file_of_the_go_driver_what_is_the_authors_to_forge_is_left_out() {
    let all = format!(
        "CI_PROJECT_PATH,{},STAGE,MISSING,EMPTY",
        UNTRUSTED.join(",")
    );
    let told = session_of(OPEN, &all, PAYLOAD).unwrap();
    assert_eq!(
        told,
        [
            pair("CI_PROJECT_PATH", "group/project"),
            pair("STAGE", "prod")
        ]
    );
    for (names, words) in [
        ("PASSWORD", "masked"),
        ("LONG", "257 characters"),
        ("STAGE,stage", "cannot tell from \"STAGE\""),
        ("ci_project_path", "AWS would take for GitLab's"),
    ] {
        let error = session_of(OPEN, names, PAYLOAD).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let warned = |file: &str, variables: &[(&str, &str)]| {
        let (settings, overwrites) = (settings(file), overwrites(variables, PAYLOAD));
        let settled = settle(&settings, &Overrides::default(), &overwrites).unwrap();
        overwrites.left_out_of_session(&settings, &settled)
    };
    let role = format!("{ROLES}x");
    let told = warned(OPEN, &[(ROLE, &role), (SESSION, &all)]).unwrap();
    for name in UNTRUSTED {
        assert!(told.contains(&format!("{name} (whoever writes")), "{told}");
    }
    assert!(
        !told.contains("CI_PROJECT_PATH") && !told.contains("STAGE"),
        "{told}"
    );
    // Without a role nobody is told anything.
    assert_eq!(warned(OPEN, &[(SESSION, &all)]), None);
    assert_eq!(
        warned(OPEN, &[(ROLE, &role), (SESSION, "STAGE,CI_JOB_ID")]),
        None
    );
}

#[test]
fn the_end_of_a_task_of_the_go_driver_is_held_up_by_no_bound_and_no_odd_name() {
    let role = format!("{ROLES}x");
    let variables = [
        (ROLE, role.as_str()),
        (
            super::ROLE,
            "arn:aws:iam::111122223333:role/never-that-drivers",
        ),
        (
            SESSION,
            "CI_PROJECT_PATH,GITLAB_USER_LOGIN,A B,PASSWORD,STAGE,stage",
        ),
        ("STAGE", "prod"),
        ("stage", "dev"),
        ("PASSWORD", "x"),
    ];
    let of_file = "arn:aws:iam::111122223333:role/file".to_owned();
    let roles = overwrites(&variables, PAYLOAD).roles_of_go_driver(Some(&of_file));
    let tags = vec![
        pair("CI_PROJECT_PATH", "group/project"),
        pair("STAGE", "prod"),
    ];
    let by = |arn: &str| {
        let (arn, tags) = (arn.to_owned(), tags.clone());
        Some(SettledRole { arn, tags })
    };
    assert_eq!(roles, [by(&role), by(&of_file), None]);
    for odd in ["", "x", "arn:aws:iam::1:role/x"] {
        assert_eq!(
            overwrites(&[(ROLE, odd)], "{}").roles_of_go_driver(None),
            [None]
        );
    }
}

#[test]
fn a_session_has_fifty_tags_at_most_and_needs_a_role() {
    let names: Vec<String> = (0..51).map(|i| format!("V{i}")).collect();
    let list = names.join(",");
    let role = format!("{ROLES}x");
    let mut variables: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "x")).collect();
    variables.push((SESSION, &list));
    // Nobody is told anything: there is no session.
    assert_eq!(settled(OPEN, &variables).unwrap().role, None);
    variables.push((ROLE, &role));
    assert!(
        settled(OPEN, &variables)
            .unwrap_err()
            .to_string()
            .contains("51 variables")
    );
    variables.remove(0);
    assert_eq!(
        settled(OPEN, &variables).unwrap().role.unwrap().tags.len(),
        50
    );
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
