//! What a job on Fargate may be and ask for: odd names and sizes, choices by variable, by flag and by file, and what of
//! them RunTask is asked.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::fargate_drop_in::assert_example_names_all;
use crate::fargate_drop_in::edit_payload;
use crate::fargate_drop_in::policy;
use crate::lab::PATIENCE;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::Fate;
use crate::lab::proxy::Direction;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::traces::until;
use crate::lab::unread::spawn_unread;
use crate::lab::unread::wait_child;

mod addresses;

use self::addresses::security_group;

/// Calls the driver with flags before `custom`.
fn call(runner: &Runner, flags: &[&str], stage: &[&str]) -> Output {
    let config = runner.config_file();
    let config = ["--config", config.to_str().unwrap()];
    runner.call(&[&config[..], flags, &["custom"], stage].concat())
}

/// Adds lines to the configuration's table `[fargate]`.
fn with_fargate(runner: &Runner, lines: &str) {
    let text = runner.default_config();
    assert!(text.contains("[fargate]\n"));
    runner.write_config(&text.replace("[fargate]\n", &format!("[fargate]\n{lines}\n")));
}

/// Prepares, ends, and returns what RunTask was asked last.
fn asked(runner: &Runner) -> Value {
    runner.prepare().assert_success();
    runner.cleanup().assert_success();
    runner.account().calls("RunTask").pop().unwrap().parameters
}

fn on_init() -> RunnerBuilder {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash).init();
    Runner::builder().on_fargate().machine(machine)
}

fn tag(call: &Value, name: &str) -> Option<String> {
    let tags = call["tags"].as_array()?;
    let tag = tags.iter().find(|tag| tag["key"] == name)?;
    Some(tag["value"].as_str().unwrap().to_owned())
}

#[test]
fn a_job_runs_on_a_task_of_its_own_with_the_examples_policy() {
    let runner = on_init().build();
    let account = runner.account();
    account.policy(&policy(account, "bastion.json"));
    let prepared = runner.prepare().assert_success();
    assert!(!prepared.contains("WARNING"), "{prepared}");
    let task = account.alive().pop().unwrap();
    assert_eq!(task.tags["gitlab-aws-driver:job"], runner.job().to_string());
    assert!(task.started_by.unwrap().starts_with("gad-"));
    runner
        .run("build_script", "echo out; echo err >&2; exit 3")
        .assert_code(1);
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    runner.run("after_script", "exit 0").assert_stdout("");
    runner.cleanup().assert_success();
    assert_example_names_all(account);
    let refused = account
        .calls("*")
        .into_iter()
        .find(|call| call.status != Some(200));
    assert!(refused.is_none(), "{refused:?}");
}

#[test]
fn a_flag_stands_above_the_job_and_the_job_above_the_file() {
    let chosen = [
        ("FARGATE_TASK_DEFINITION", "ci-chosen"),
        ("FARGATE_PLATFORM_VERSION", "1.3.0"),
    ];
    let limits = "[limits]\ntask_definitions = [\"ci-chosen\"]\n";
    let mut builder = Runner::builder().on_fargate().config_tables(limits);
    for (name, value) in chosen {
        builder = builder.variable(name, value);
    }
    let runner = builder.build();
    let account = runner.account();
    for family in ["ci-chosen", "ci-flag"] {
        account.task_definition(family);
        account.machine(family, runner.server(), &BTreeMap::new());
    }
    with_fargate(&runner, "platform_version = \"1.4.0\"");
    let chosen = |call: &Value| {
        let text = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
        (text("taskDefinition"), text("platformVersion"))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(chosen(&asked(&runner)), pair("ci-chosen", "1.3.0"));
    for (flags, wanted) in [
        // The administrator's own flags know no limits.
        (
            ["--task-def", "ci-flag", "--platform-version=LATEST"],
            pair("ci-flag", "LATEST"),
        ),
        (
            ["--task-def", "", "--platform-version="],
            pair("ci-chosen", "1.3.0"),
        ),
    ] {
        runner.next_attempt();
        call(&runner, &flags, &["prepare"]).assert_success();
        call(&runner, &flags, &["cleanup"]).assert_success();
        assert_eq!(
            chosen(&account.calls("RunTask").pop().unwrap().parameters),
            wanted
        );
    }
    // An empty variable chooses nothing.
    let empty = Runner::builder()
        .on_fargate()
        .variable("FARGATE_TASK_DEFINITION", "")
        .variable("FARGATE_PLATFORM_VERSION", "")
        .build();
    with_fargate(&empty, "platform_version = \"1.4.0\"");
    let wanted = pair(&empty.family(), "1.4.0");
    assert_eq!(chosen(&asked(&empty)), wanted);
}

#[test]
fn a_role_is_taken_on_with_what_gitlab_says_of_the_job() {
    let runner = on_init()
        .variable(
            "SESSION_VARS",
            "CI_PROJECT_PATH, GITLAB_USER_ID,CI_PIPELINE_ID,CI_COMMIT_TAG",
        )
        .variable("GITLAB_USER_ID", "1")
        .build();
    let account = runner.account();
    let role = account.role("ci-project", None);
    account.allow(&["sts:AssumeRole", "sts:TagSession"]);
    let limits = format!(
        "[limits]\nroles = [\"arn:aws:iam::{}:role/ci-*\"]\n",
        account.id()
    );
    runner.write_config(&(runner.default_config() + &limits));
    // The job shadows its project's path for all that it can reach.
    let shadowed = |payload: &mut Value| {
        let variables = payload["variables"].as_array_mut().unwrap();
        for (key, value) in [("CI_PROJECT_PATH", "other/team"), ("CI_COMMIT_TAG", "v1")] {
            variables.insert(0, json!({ "key": key, "value": value, "public": true }));
        }
        payload["job_info"]["user_id"] = 7.into();
    };
    edit_payload(&runner, shadowed);
    let environment = |stage: &[&str]| {
        let mut environment = runner.stage_environment();
        environment.insert("CUSTOM_ENV_CI_PROJECT_PATH".into(), "other/team".into());
        environment.insert("CUSTOM_ENV_ROLE_ARN".into(), role.clone().into());
        let args = stage.iter().map(Into::into).collect();
        runner
            .spawn_in(stage[0], args, environment, &runner.attempt())
            .wait(PATIENCE)
    };
    environment(&["prepare"]).assert_success();
    let script = runner.write_script("echo on; exit 4");
    let ended = environment(&["run", script.to_str().unwrap(), "build_script"]).assert_code(1);
    assert_eq!(ended.stdout_text(), "on\n");
    environment(&["cleanup"]).assert_success();
    let state = account.state();
    assert!(!state.sessions.is_empty());
    for session in state.sessions {
        assert_eq!(session.role, role);
        let tags: Vec<_> = session.tags.iter().map(|(k, v)| (&**k, &**v)).collect();
        let wanted = [
            ("CI_PIPELINE_ID", "77"),
            ("CI_PROJECT_PATH", "group/project"),
            ("GITLAB_USER_ID", "7"),
        ];
        // And a branch is no tag.
        assert_eq!(tags, wanted);
    }
    for call in account
        .calls("*")
        .iter()
        .filter(|call| call.service == "ecs")
    {
        assert!(
            call.caller.contains(":assumed-role/ci-project/"),
            "{call:?}"
        );
    }
    let call = account.calls("RunTask").pop().unwrap().parameters;
    assert_eq!(
        tag(&call, "gitlab-aws-driver:project").unwrap(),
        "group/project"
    );
    let reason = account.tasks().pop().unwrap().reason.unwrap();
    assert!(reason.contains("group/project"), "{reason}");
    assert_example_names_all(account);
}

#[test]
fn no_role_is_told_what_an_author_can_write() {
    let tables = "[limits]\nroles = [\"arn:aws:iam::111122223333:role/ci-*\"]\n";
    let runner = Runner::builder()
        .on_fargate()
        .variable("ROLE_ARN", "arn:aws:iam::111122223333:role/ci-x")
        .variable("GITLAB_USER_LOGIN", "admin")
        .variable("TEAM", "infra")
        .config_tables(tables)
        .build();
    for (names, told) in [
        (
            "GITLAB_USER_LOGIN",
            "whoever writes the job can set it or have it expanded",
        ),
        (
            "CI_PROJECT_ID,GITLAB_USER_EMAIL",
            "Name GITLAB_USER_ID in SESSION_VARS",
        ),
        ("GITLAB_USER_NAME", "no policy can go by it"),
        ("CI_COMMIT_REF_SLUG", "no policy can go by it"),
        (
            "gitlab_user_id",
            "AWS would take for GitLab's GITLAB_USER_ID",
        ),
        ("TEAM", "whoever writes the job can set it"),
        // Nobody says it of this job.
        (
            "CI_COMMIT_REF_PROTECTED",
            "payload has no git_info.protected",
        ),
    ] {
        let mut environment = runner.stage_environment();
        environment.insert("CUSTOM_ENV_SESSION_VARS".into(), names.into());
        let stage = |name: &str| {
            let args = vec![name.into()];
            let stage = runner.spawn_in(name, args, environment.clone(), &runner.attempt());
            stage.wait(PATIENCE)
        };
        stage("prepare").assert_code(2).assert_contains(told);
        stage("cleanup").assert_success();
        // The next is another job's try: a final failure of this one would be told again.
        drop(std::fs::remove_dir_all(
            runner.state_directory().join("tombstones"),
        ));
        runner.next_attempt();
    }
    assert!(runner.account().calls("*").is_empty());
}

#[test]
fn what_is_outside_the_limits_is_refused_once_and_for_all() {
    let role = "arn:aws:iam::111122223333:role/admin";
    for (variable, value, key) in [
        ("FARGATE_TASK_DEFINITION", "admin-job", "task_definitions"),
        ("ROLE_ARN", role, "roles"),
    ] {
        let tables = "[limits]\ntask_definitions = [\"ci-*\"]\nroles = [\"arn:aws:iam::111122223333:role/ci-*\"]\n";
        let runner = Runner::builder()
            .on_fargate()
            .variable(variable, value)
            .config_tables(tables)
            .exit_codes("1", "9")
            .build();
        runner.account().task_definition("admin-job");
        let mut words = Vec::new();
        for _ in 0..3 {
            runner.config().assert_success();
            let refused = runner.prepare().assert_code(9);
            for word in [variable, value, key] {
                assert!(refused.contains(word), "no {word} in {refused}");
            }
            assert!(refused.duration < Duration::from_secs(10), "{refused}");
            words.push((refused.stdout_text(), refused.stderr_text()));
            runner.cleanup().assert_success();
            runner.next_attempt();
        }
        assert!(words[0] == words[1] && words[1] == words[2], "{words:#?}");
        assert!(runner.account().calls("*").is_empty());
    }
}

#[test]
fn odd_names_large_variables_and_shadowed_paths_are_right() {
    let odd = "test: [linux, 3.12] – ünïcode ✓";
    let long = format!("{odd} {}", "é".repeat(300 - odd.chars().count() - 1));
    let big = "0123456789abcdef".repeat(100 * 1024 / 16);
    for name in [odd, &long] {
        let runner = on_init()
            .variable("CI_JOB_NAME", name)
            .variable("BIG", &big)
            .variable("BIGGER", &big)
            .build();
        let account = runner.account();
        edit_payload(&runner, |payload| {
            payload["job_info"]["name"] = json!(name);
            // GitLab names what a job overrides once more, after its own.
            let variables = payload["variables"].as_array_mut().unwrap();
            variables
                .push(json!({ "key": "CI_PROJECT_PATH", "value": "evil/path", "public": true }));
        });
        let mut environment = runner.stage_environment();
        environment.insert("CUSTOM_ENV_CI_PROJECT_PATH".into(), "evil/path".into());
        runner
            .spawn_in(
                "prepare",
                vec!["prepare".into()],
                environment,
                &runner.attempt(),
            )
            .wait(PATIENCE)
            .assert_success();
        let call = account.calls("RunTask").pop().unwrap().parameters;
        assert_eq!(
            tag(&call, "gitlab-aws-driver:project").unwrap(),
            "group/project"
        );
        let named = tag(&call, "gitlab-aws-driver:job-name").unwrap();
        assert!(
            named.starts_with("test: ") && named.contains("ünïcode"),
            "{named}"
        );
        assert!(named.encode_utf16().count() <= 256, "{named}");
        assert!(!call.to_string().contains("evil/path"), "{call}");
        let script = format!(
            "export BIG='{big}'\nexport BIGGER='{big}'\necho ${{#BIG}} ${{#BIGGER}} \"$BIG\"\n"
        );
        let ended = runner.run("build_script", script);
        ended.assert_stdout(format!("{} {} {big}\n", big.len(), big.len()));
        runner.run("build_script", "exit 5").assert_code(1);
        runner.cleanup().assert_success();
        let task = account.tasks().pop().unwrap();
        assert_eq!(task.stop_code.as_deref(), Some("UserInitiated"));
    }
}

#[test]
fn all_that_the_file_says_of_a_task_is_asked_for() {
    let tables = "[tags]\nteam = \"infra\"\n\"cost center\" = \"42\"\n";
    let runner = on_init().config_tables(tables).build();
    let account = runner.account();
    account.register(&json!({
        "family": runner.family(),
        "taskRoleArn": format!("arn:aws:iam::{}:role/ci-task", account.id()),
        "tags": [{ "key": "of", "value": "the definition" }],
        "containerDefinitions": [
            { "name": "main", "image": "lab", "essential": true },
            { "name": "side", "image": "lab", "essential": false },
        ],
    }));
    let mut groups = vec![account.security_group().to_owned()];
    for name in ["second", "third"] {
        groups.push(security_group(account, name));
    }
    let text = runner.default_config().replace(
        &format!("security_groups = [\"{}\"]", account.security_group()),
        &format!(
            "security_groups = {groups:?}\ncontainer = \"main\"\nenable_execute_command = true\npropagate_tags = true"
        ),
    );
    runner.write_config(&text);
    account.policy(&policy(account, "bastion.json"));
    let prepared = runner.prepare().assert_success();
    assert!(!prepared.contains("WARNING"), "{prepared}");
    let call = account.calls("RunTask").pop().unwrap().parameters;
    let network = &call["networkConfiguration"]["awsvpcConfiguration"];
    assert_eq!(network["subnets"], json!(account.subnets()));
    assert_eq!(network["securityGroups"], json!(groups));
    assert_eq!(call["enableExecuteCommand"], true);
    assert_eq!(call["propagateTags"], "TASK_DEFINITION");
    assert_eq!(call["count"], 1);
    assert_eq!(tag(&call, "team").as_deref(), Some("infra"));
    assert_eq!(tag(&call, "cost center").as_deref(), Some("42"));
    let overrides = call["overrides"]["containerOverrides"].as_array().unwrap();
    assert_eq!(overrides.len(), 1);
    assert_eq!(overrides[0]["name"], "main");
    let environment = overrides[0]["environment"].as_array().unwrap();
    assert_eq!(environment.len(), 1);
    assert_eq!(environment[0]["name"], "SSH_PUBLIC_KEY");
    let task = account.alive().pop().unwrap();
    assert_eq!(task.tags["of"], "the definition");
    runner
        .run("build_script", "echo main")
        .assert_stdout("main\n");
}

#[test]
fn scripts_have_the_containers_environment() {
    let runner = on_init()
        .image_variable("JAVA_HOME", "/opt/it's java")
        .image_variable("PATH", "/opt/tool/bin:/usr/bin:/bin")
        .build();
    let account = runner.account();
    account.register(&json!({
        "family": runner.family(),
        "taskRoleArn": format!("arn:aws:iam::{}:role/ci-task", account.id()),
        "containerDefinitions": [{
            "name": CONTAINER, "image": "lab", "essential": true,
            "environment": [{ "name": "OF_THE_DEFINITION", "value": "two words" }],
        }],
    }));
    let prepared = runner.prepare().assert_success();
    assert!(!prepared.contains("WARNING"), "{prepared}");
    let script = "echo \"$JAVA_HOME\"\necho \"$OF_THE_DEFINITION\"\necho \"$ECS_CONTAINER_METADATA_URI_V4\"\n\
                  echo \"$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI\"\necho \"$PATH\"\necho \"${SSH_PUBLIC_KEY-none}\"\n\
                  env | grep -c '^JAVA_HOME=/opt/it'\n";
    for stage in ["prepare_script", "build_script"] {
        let ended = runner.run(stage, script).assert_success();
        let text = ended.stdout_text();
        let lines: Vec<&str> = text.lines().collect();
        let [java, definition, metadata, credentials, path, key, count] = lines[..] else {
            panic!("{ended}");
        };
        assert_eq!((java, definition), ("/opt/it's java", "two words"));
        assert!(metadata.starts_with("http://169.254.170.2/v4/"), "{ended}");
        assert!(credentials.starts_with("/v2/credentials/"), "{ended}");
        assert!(path.starts_with("/opt/tool/bin:/usr/bin:/bin:"), "{ended}");
        assert!(
            path.contains("/usr/local/bin"),
            "the login's own come behind: {ended}"
        );
        assert_eq!((key, count), ("none", "1"));
        assert!(ended.stderr.is_empty(), "{ended}");
    }
}

#[test]
fn an_ssh_server_that_is_process_1_costs_one_warning() {
    let runner = Runner::builder()
        .on_fargate()
        .image_variable("JAVA_HOME", "/opt/java")
        .build();
    let prepared = runner.prepare().assert_success();
    let text = prepared.stdout_text() + &prepared.stderr_text();
    let warnings: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("WARNING"))
        .collect();
    assert_eq!(warnings.len(), 1, "{prepared}");
    assert!(warnings[0].contains("initProcessEnabled"), "{prepared}");
    runner
        .run("build_script", "echo \"${JAVA_HOME-none}\"")
        .assert_stdout("none\n");
    runner.run("build_script", "exit 6").assert_code(1);
}

#[test]
fn a_try_runs_on_fargate_as_a_job_does() {
    // It only lends its configuration and its machine.
    let runner = on_init().build();
    let account = runner.account();
    account.policy(&policy(account, "bastion.json"));
    for (script, code) in [("echo hello from a task", 0), ("exit 42", 42)] {
        let output = runner.try_here(script).assert_code(code);
        assert!(
            output.contains("hello from a task") || code != 0,
            "{output}"
        );
        assert!(account.left(None).is_empty(), "{output}");
        let task = account.tasks().pop().unwrap();
        assert_eq!(task.family, runner.family());
        assert_eq!(task.stop_code.as_deref(), Some("UserInitiated"), "{output}");
    }
    assert_eq!(account.calls("RunTask").len(), 2);
    assert_example_names_all(account);
}

#[test]
fn a_result_that_came_before_its_machine_went_counts_however_late_the_runner_reads() {
    // More than the pipe to the Runner and the driver's queue behind it hold. What is beyond that waits in the connection's own queue.
    const SIZE: usize = 5 << 18;
    // Both queues count pieces (32 and 100), not bytes. A piece has 8 KiB, as `tail` writes them, where the server is quick, and up
    // to 32 KiB where it is not: only then does all of the output come before anybody reads it.
    const SURELY: u64 = 1 << 19;
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let job = Runner::builder().on_fargate().machine(machine);
    let runner = job.through_proxy().build();
    runner.start();
    let (account, proxy) = (runner.account(), runner.proxy());
    let script = format!("head -c {SIZE} /dev/zero; exit 3\n");
    let scene = || {
        let before = proxy.counts().down;
        let mut run = spawn_unread(&runner, &script);
        proxy.wait_bytes(Direction::Down, before + SURELY, PATIENCE);
        // The result is behind the last of it.
        let mut seen = 0;
        until("the connection to be quiet", PATIENCE, || {
            let last = std::mem::replace(&mut seen, proxy.counts().down);
            std::thread::sleep(Duration::from_millis(500));
            last == seen
        });
        if seen - before >= SIZE as u64 {
            return Some(run);
        }
        let mut output = Vec::new();
        let stdout = run.stdout.take();
        stdout.unwrap().read_to_end(&mut output).unwrap();
        wait_child(&mut run, PATIENCE);
        None
    };
    let mut run = (0..30)
        .find_map(|_| scene())
        .expect("the server sent small pieces each time");
    let task = account.alive().remove(0).arn;
    account.meet(&task, &Fate::spot_interruption(Duration::ZERO));
    account.wait_task("its end", |task| task.status == "STOPPED");
    // It knows, and the next look would come after that.
    let looks = account.calls("DescribeTasks").len();
    account.wait_calls("DescribeTasks", looks + 1);
    let mut output = Vec::new();
    let mut stdout = run.stdout.take().unwrap();
    stdout.read_to_end(&mut output).unwrap();
    assert_eq!(wait_child(&mut run, PATIENCE), 1);
    assert!(output.len() == SIZE, "{} bytes", output.len());
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
