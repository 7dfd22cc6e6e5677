//! `[[profile]]`: which jobs one holds for, what it changes, and who cannot bring it about.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::fargate_drop_in::edit_payload;
use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Door;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;

/// The family of the task definition that profiles of these tests bring.
const BIG: &str = "ci-big";

/// Returns a profile that brings that task definition.
fn big(matches: &str) -> String {
    format!(
        "[[profile]]\nname = \"big\"\nmatch = {{ {matches} }}\nbuilds_dir = \"/var/tmp/big\"\n\
         [profile.fargate]\ntask_definition = \"{BIG}\"\n"
    )
}

/// Starts an account that knows it, with the job's own machine behind it.
fn on_fargate(builder: RunnerBuilder) -> Runner {
    let runner = builder.on_fargate().build();
    runner.account().task_definition(BIG);
    let (account, server) = (runner.account(), runner.server());
    account.machine(BIG, server, &BTreeMap::new());
    runner
}

/// Prepares, ends, and returns what of RunTask's parameters says which settings held.
fn task_definition(runner: &Runner) -> String {
    runner.prepare().assert_success();
    runner.cleanup().assert_success();
    let asked = runner.account().calls("RunTask").pop().unwrap();
    asked.parameters["taskDefinition"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn response(runner: &Runner) -> String {
    let file = runner.attempt().join("response.json");
    file.to_str().unwrap().to_owned()
}

#[test]
fn the_first_profile_that_fits_changes_where_and_how_a_job_runs() {
    let other = big("job_name = \"docker-*\"")
        .replace("\"big\"", "\"other\"")
        .replace(BIG, "no-such-family");
    let later = big("project = \"**\"")
        .replace("\"big\"", "\"later\"")
        .replace(BIG, "no-such-family");
    let text = format!(
        "{other}{}{later}",
        big("job_name = \"la*\", ref = \"main\", variables = { CI_PIPELINE_SOURCE = \"sched*\" }")
    );
    let runner = on_fargate(
        Runner::builder()
            .variable("CI_PIPELINE_SOURCE", "schedule")
            .config_tables(&text),
    );
    let answer: Value = serde_json::from_slice(&runner.config().assert_success().stdout).unwrap();
    assert_eq!(answer["builds_dir"], "/var/tmp/big");
    // What it does not name stays as the file has it.
    assert!(answer["cache_dir"].as_str().unwrap().ends_with("/cache"));
    runner
        .prepare()
        .assert_success()
        .assert_contains("The profile big holds for this job.");
    let asked = runner.account().calls("RunTask").pop().unwrap();
    assert_eq!(asked.parameters["taskDefinition"], BIG);
    runner
        .run("build_script", "echo on the big one")
        .assert_success()
        .assert_stdout("on the big one\n");
    // Nor does the end of the job need it.
    runner.write_config(&runner.default_config().replace("la*", "nobody"));
    std::fs::remove_file(response(&runner)).unwrap();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn no_job_brings_a_profile_about_by_gitlabs_own_names() {
    let text = big("project = \"trusted/**\", protected = true");
    let builder = Runner::builder()
        .variable("CI_PROJECT_PATH", "trusted/project")
        .variable("CI_PROJECT_NAMESPACE", "trusted")
        .variable("CI_COMMIT_REF_PROTECTED", "true")
        .config_tables(&text);
    let runner = on_fargate(builder);
    // As GitLab sends it: its own first, then what the job sets. An older one, or an older Runner, hands over no fields for
    // the same; then nobody says it, and the job's own may be the only variables of these names.
    let gitlabs = |runner: &Runner, path: &str, protected: &str, fields: bool, first: bool| {
        edit_payload(runner, |payload| {
            let variables = payload["variables"].as_array_mut().unwrap();
            variables
                .retain(|v| v["key"] != "CI_PROJECT_PATH" && v["key"] != "CI_COMMIT_REF_PROTECTED");
            for (key, own, forged) in [
                ("CI_PROJECT_PATH", path, "trusted/project"),
                ("CI_COMMIT_REF_PROTECTED", protected, "true"),
            ] {
                variables.push(json!({ "key": key, "value": forged }));
                if first {
                    variables.insert(0, json!({ "key": key, "value": own }));
                }
            }
            payload["job_info"]["project_full_path"] = Value::Null;
            if fields {
                payload["job_info"]["project_full_path"] = path.into();
                payload["git_info"]["protected"] = (protected == "true").into();
            }
        });
    };
    for (path, protected, fields, first, held) in [
        ("group/project", "true", true, true, false),
        ("group/project", "true", false, true, false),
        ("group/project", "true", false, false, false),
        ("trusted/project", "false", true, true, false),
        ("trusted/project", "false", false, false, false),
        // Whoever it really is, where that is said.
        ("trusted/project", "true", true, true, true),
        ("trusted/project", "true", false, true, false),
    ] {
        runner.next_attempt();
        gitlabs(&runner, path, protected, fields, first);
        let want = if held {
            BIG.to_owned()
        } else {
            runner.family()
        };
        assert_eq!(
            task_definition(&runner),
            want,
            "{path} {protected} {fields} {first}"
        );
    }
}

#[test]
fn a_profile_that_nobody_can_tell_of_does_not_hold_and_the_log_says_which_field_is_missing() {
    let narrow = "[[profile]]\nname = \"narrow\"\nmatch = { variables = { GITLAB_USER_ID = \"7\" } }\nrung_wait = \"1m\"\n";
    let text = format!(
        "{narrow}{}",
        big("project = \"group/**\", protected = true")
    );
    // What the author says in place of GitLab.
    let builder = Runner::builder()
        .variable("GITLAB_USER_ID", "7")
        .variable("CI_COMMIT_REF_PROTECTED", "true");
    let runner = on_fargate(builder.config_tables(&text));
    edit_payload(&runner, |payload| {
        payload["job_info"]["project_full_path"] = "".into();
        payload["runner_info"] = json!({ "timeout": 0 });
    });
    let prepared = runner.prepare().assert_success();
    for (profile, field) in [
        ("narrow", "job_info.user_id"),
        ("big", "job_info.project_full_path"),
        ("big", "git_info.protected"),
    ] {
        let line =
            format!("the profile {profile} does not hold: this job's payload has no {field}");
        assert!(prepared.contains(&line), "{line}\n{prepared}");
    }
    // An author's CI_JOB_TIMEOUT lengthens nothing.
    assert!(
        prepared.contains("has no runner_info.timeout"),
        "{prepared}"
    );
    let checked = runner.command(&["check", "--job", &response(&runner)]);
    for field in [
        "job_info.user_id",
        "job_info.project_full_path",
        "git_info.protected",
    ] {
        let told = format!("payload has no {field}: GitLab or GitLab Runner is too old to tell");
        assert!(checked.contains(&told), "{told}\n{checked}");
    }
    let checked = runner.command(&["check", "--json", "--job", &response(&runner)]);
    let told: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(told["profiles"][0]["missing"], json!(["job_info.user_id"]));
    assert_eq!(told["profile"], Value::Null);
    runner.cleanup().assert_success();
    let asked = runner.account().calls("RunTask").pop().unwrap();
    assert_eq!(asked.parameters["taskDefinition"], runner.family());
}

#[test]
fn a_profile_by_what_an_author_can_write_is_an_error_that_says_what_to_go_by() {
    for (name, instead) in [
        ("GITLAB_USER_LOGIN", "Go by GITLAB_USER_ID"),
        ("GITLAB_USER_EMAIL", "Go by GITLAB_USER_ID"),
        ("GITLAB_USER_NAME", "Go by GITLAB_USER_ID"),
        ("CI_COMMIT_BRANCH", "Go by CI_COMMIT_REF_NAME"),
        ("CI_COMMIT_MESSAGE", ""),
        ("KIND", "bounded by [limits]"),
    ] {
        let profile = big(&format!("variables = {{ {name} = \"admin\" }}"));
        let runner = Runner::builder()
            .variable(name, "admin")
            .config_tables(&profile)
            .build();
        for output in [runner.prepare(), runner.command(&["check"])] {
            assert_ne!(output.code(), Some(0), "{output}");
            let told = format!("profile[0].match.variables.{name}: no profile can go by it");
            assert!(output.contains(&told), "{output}");
            assert!(output.contains("config.toml:"), "{output}");
            assert!(output.contains(instead), "{output}");
        }
        runner.forgive_leftovers();
    }
}

#[test]
fn without_a_copy_of_the_job_no_profile_holds_since_no_job_begins() {
    let builder = Runner::builder().without_payload();
    let runner = builder.config_tables(&big("job_name = \"lab\"")).build();
    for output in [
        runner.config(),
        runner.spawn("prepare", &["prepare"]).wait(PATIENCE),
    ] {
        output
            .assert_code(2)
            .assert_contains("which job this is cannot be told: no JOB_RESPONSE_FILE")
            .assert_contains("GitLab Runner (15.0 or later)");
    }
    runner.assert_nothing_left();
}

#[test]
fn a_profile_may_change_how_a_job_is_reached_again() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let text =
        "[[profile]]\nname = \"hasty\"\nmatch.job_name = \"lab\"\nssh.reconnect_timeout = \"2s\"\n";
    let runner = Runner::builder()
        .machine(machine)
        .through_proxy()
        .reconnect_timeout("10m")
        .config_tables(text)
        .build();
    runner.start();
    let script = runner.spawn_run("build_script", "echo begun; exec sleep 600");
    script.wait_output(b"begun", PATIENCE);
    runner.proxy().door(Door::Refuse);
    runner.proxy().cut(Cut::Reset);
    script
        .wait(PATIENCE)
        .assert_code(2)
        .assert_contains("connection refused");
    runner.proxy().door(Door::Open);
    runner.cleanup().assert_success();
}

#[test]
fn a_profile_that_could_never_work_fails_every_job_at_once() {
    let text = "[[profile]]\nname = \"docker\"\nmatch.job_name = \"docker-*\"\n[profile.ec2]\nprivileged = true\n";
    let runner = Runner::builder().config_tables(text).build();
    for output in [runner.config(), runner.command(&["check"])] {
        assert_ne!(output.code(), Some(0), "{output}");
        assert!(
            output.contains("profile[0].ec2.privileged: it is for jobs in containers"),
            "{output}"
        );
    }
}

#[test]
fn check_explains_one_job() {
    let first = "[[profile]]\nname = \"docker\"\nmatch = { job_name = \"docker-*\", protected = true }\nrung_wait = \"1m\"\n";
    let limits = "[limits]\nmax_cpu = \"4\"\nmax_memory = \"16GiB\"\n";
    let text = format!("{limits}{first}{}", big("project = \"group/**\""));
    let runner = on_fargate(
        Runner::builder()
            .capacity(&["fargate-spot", "fargate"])
            .variable("AWS_DRIVER_CPU", "3")
            .variable("AWS_DRIVER_MEMORY", "9GiB")
            .config_tables(&text),
    );
    let file = response(&runner);
    let output = runner.command(&["check", "--job", &file]).assert_success();
    for line in [
        "docker             does not fit: job_name is \"lab\", not \"docker-*\"; the ref is not known to be protected or not, and protected has to be true",
        "  big                holds",
        "  1. fargate-spot    a task",
        "  task definition    ci-big",
        "  on Fargate         4 vCPU, 9GiB of memory",
        "  builds             /var/tmp/big",
    ] {
        assert!(output.stdout_text().contains(line), "{line}\n{output}");
    }
    let output = runner
        .command(&["check", "--json", "--job", &file])
        .assert_success();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["profile"], "big");
    assert_eq!(told["profiles"][0]["fits"], false);
    assert_eq!(told["gets"]["capacity"], json!(["fargate-spot", "fargate"]));
    assert_eq!(told["gets"]["task"]["on_fargate"]["cpu_millis"], 4000);
    assert_eq!(told["refused"], Value::Null);

    // A job that would be refused, and none of its secrets told.
    edit_payload(&runner, |payload| {
        let more = json!({ "key": "AWS_DRIVER_CPU", "value": "16" });
        payload["variables"].as_array_mut().unwrap().push(more);
    });
    let output = runner.command(&["check", "--job", &file]).assert_code(1);
    assert!(output.contains("it would be refused"), "{output}");
    assert!(
        output.contains("[limits] max_cpu allows 4 at most"),
        "{output}"
    );
    assert!(!output.contains("lab-job-token"), "{output}");
    let output = runner
        .command(&["check", "--json", "--job", &file])
        .assert_code(1);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["gets"], Value::Null);
    assert!(
        told["refused"]["message"]
            .as_str()
            .unwrap()
            .contains("max_cpu")
    );
    // Nothing was asked of AWS.
    assert!(runner.account().calls("*").is_empty());
}
