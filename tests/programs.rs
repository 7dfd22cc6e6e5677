//! What programs and people are told where a command cannot begin, or has to wait: JSON on standard output, whatever is wrong,
//! and what is waited for on standard error.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::stops::hold;

fn spawn(args: &[&str], directory: &Path, more: &[(&str, &str)]) -> Stage {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = BTreeMap::from([
        ("PATH".into(), path.into()),
        ("HOME".into(), directory.into()),
        ("TMPDIR".into(), directory.into()),
    ]);
    let more = more.iter();
    env.extend(more.map(|(name, value)| (name.into(), value.into())));
    Call {
        name: args.join(" "),
        program: env!("CARGO_BIN_EXE_gitlab-aws-driver").into(),
        args: args.iter().map(Into::into).collect(),
        env,
        directory: directory.to_owned(),
        ..Call::default()
    }
    .spawn()
}

/// Calls the binary as a program does that wants JSON.
fn call(args: &[&str], directory: &Path) -> Output {
    spawn(args, directory, &[]).wait(PATIENCE)
}

/// Returns the one object on standard output, whose error says the same as standard error.
#[track_caller]
fn document(output: &Output) -> Value {
    let object: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("no JSON object, {e}:\n{output}"));
    let message = object["error"]["message"].as_str().unwrap_or_default();
    let said: String = output.stderr_text().split_whitespace().collect();
    let told: String = message.split_whitespace().collect();
    assert!(!told.is_empty() && said.contains(&told), "{output}");
    object
}

/// Holds an object against the shape that the command's JSON has otherwise.
#[track_caller]
fn assert_shape(command: &str, object: &Value, code: i32) {
    let message = &object["error"]["message"];
    match command {
        "check" => {
            assert_eq!(object["verdict"]["good"], false, "{object:#}");
            assert_eq!(object["verdict"]["errors"], 1, "{object:#}");
            assert_eq!(&object["errors"][0]["message"], message, "{object:#}");
            assert_eq!(object["warnings"], json!([]), "{object:#}");
            for key in ["file", "line", "column", "key", "cause", "remedy"] {
                assert!(object["errors"][0].get(key).is_some(), "{key}: {object:#}");
            }
        }
        "reap" => {
            let problems = object["problems"].as_array().unwrap();
            assert!(problems.contains(message), "{object:#}");
            assert_eq!(object["ended"], json!([]), "{object:#}");
            assert_eq!(object["skipped"], json!([]), "{object:#}");
            assert!(object["dry_run"].is_boolean(), "{object:#}");
        }
        "try" => {
            assert_eq!(object["job_id"], Value::Null, "{object:#}");
            assert_eq!(object["configuration"], Value::Null, "{object:#}");
            assert_eq!(object["status"], "failed", "{object:#}");
            assert_eq!(object["exit_code"], code, "{object:#}");
            assert_eq!(
                object["failure_reason"], "runner_system_failure",
                "{object:#}"
            );
            assert_eq!(object["stages"], json!([]), "{object:#}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_in_json_too() {
    let directory = lab::temp_dir();
    let at = directory.path();
    for (args, command, word) in [
        (
            &["check", "--json", "--nonsense"][..],
            "check",
            "--nonsense",
        ),
        (&["check", "--nonsense", "--json"], "check", "--nonsense"),
        (&["check", "--json", "too", "many"], "check", "too"),
        (&["--log-level", "loud", "check", "--json"], "check", "loud"),
        (&["--config=", "check", "--json"], "check", "--config"),
        (&["reap", "--json", "--dry-run=5"], "reap", "--dry-run"),
        (&["check", "--json=yes"], "check", "--json"),
        (&["--nonsense", "reap", "--json"], "reap", "--nonsense"),
        (&["try", "--json"], "try", "required"),
        (
            &["try", "--json", "--timeout", "soon", "--", "true"],
            "try",
            "soon",
        ),
    ] {
        let output = call(args, at).assert_code(2);
        let object = document(&output);
        assert_shape(command, &object, 2);
        assert_eq!(object["error"]["kind"], "contract", "{output}");
        assert!(
            object["error"]["message"].to_string().contains(word),
            "{output}"
        );
        assert!(
            object["error"]["remedy"].to_string().contains("--help"),
            "{output}"
        );
    }
    let object = document(&call(&["chekc", "--json"], at).assert_code(2));
    assert!(
        object["error"]["message"].to_string().contains("chekc"),
        "{object}"
    );
    // A job's own words ask for nothing.
    let output = call(&["try", "--timeout", "soon", "--", "x", "--json"], at).assert_code(2);
    assert_eq!(output.stdout, b"", "{output}");
    let output = call(&["check", "--json", "--help"], at).assert_success();
    assert!(!output.stdout.starts_with(b"{"), "{output}");
}

#[test]
fn whatever_keeps_a_command_from_its_work_is_told_in_json_too() {
    let directory = lab::temp_dir();
    let at = directory.path();
    let file = |name: &str, text: &str| {
        let path = at.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let right = |state: &Path| {
        format!(
            "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n[state]\ndirectory = {state:?}\n"
        )
    };
    let wrong = file("wrong.toml", "capacity = 5\n");
    let folder = at.to_str().unwrap();
    // A state directory that others may write to, and one that is none.
    let open = at.join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let open = file("open.toml", &right(&open));
    let none = file("none.toml", &right(&at.join("wrong.toml")));
    for (config, kind, word) in [
        ("/no/such/file.toml", "config", "/no/such/file.toml"),
        (folder, "config", "cannot read"),
        (&wrong, "config", "wrong.toml:1:12"),
        (&open, "state", "cannot be trusted"),
        (&none, "state", "wrong.toml"),
    ] {
        let output = call(&["--config", config, "reap", "--json"], at).assert_code(1);
        let object = document(&output);
        assert_shape("reap", &object, 1);
        assert_eq!(object["error"]["kind"], kind, "{output}");
        assert!(
            object["error"]["message"].to_string().contains(word),
            "{output}"
        );
        assert!(object["error"]["remedy"].is_string(), "{output}");
        if kind == "config" {
            let output = call(&["--config", config, "check", "--json"], at).assert_code(1);
            assert_shape("check", &document(&output), 1);
        }
    }
    let output = call(&["--config", &wrong, "reap", "--json", "--dry-run"], at).assert_code(1);
    assert_eq!(document(&output)["dry_run"], true, "{output}");
    for args in [
        &["try", "--json", "--script", "/no/such/script"][..],
        &["try", "--json", "--script", folder],
    ] {
        let output = call(args, at).assert_code(125);
        let object = document(&output);
        assert_shape("try", &object, 125);
        assert!(object["error"]["causes"][0].is_string(), "{output}");
    }
}

#[test]
fn reap_tells_that_another_process_works_on_a_job() {
    let runner = Runner::builder().build();
    runner.start();
    let held = hold(&runner);
    let output = runner.command(&["reap", "--json"]).assert_success();
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["ended"], json!([]), "{output}");
    let jobs = std::fs::read_dir(runner.state_directory().join("jobs")).unwrap();
    let key = jobs.flatten().next().unwrap().file_name();
    let told = format!(
        "Waiting for the job {}: another process works on it...\n",
        key.display()
    );
    assert_eq!(output.stderr_text(), told, "{output}");
    drop(held);
    // Where nothing is waited for nothing is told.
    let output = runner.command(&["reap"]).assert_success();
    assert_eq!(output.stderr_text(), "", "{output}");
    runner.cleanup().assert_success();
}

#[test]
fn reap_tells_that_aws_does_not_answer() {
    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let directory = lab::temp_dir();
    let config = directory.path().join("config.toml");
    let state = directory.path().join("state");
    let text = format!(
        "capacity = [\"fargate\"]\n[fargate]\nregion = \"eu-west-1\"\ncluster = \"ci\"\nsubnets = [\"subnet-1\"]\n\
         task_definition = \"a\"\n[state]\ndirectory = {state:?}\n"
    );
    std::fs::write(&config, text).unwrap();
    let reap = spawn(
        &["--config", config.to_str().unwrap(), "reap"],
        directory.path(),
        &[
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ],
    );
    reap.wait_output(b"Waiting for the tasks of the cluster ci...\n", PATIENCE);
    reap.signal(Signal::KILL);
    let output = reap.wait(PATIENCE);
    assert_eq!(output.stdout, b"", "{output}");
}
