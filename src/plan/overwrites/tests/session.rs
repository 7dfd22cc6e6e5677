//! What the session of a job's role is told of the job.

use super::*;

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
            super::super::ROLE,
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
