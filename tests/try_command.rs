//! The `try` command, as a person types it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::processes;
use crate::lab::stage::Call;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::traces::Traces;
use crate::lab::traces::until;

/// A place for `try` with nothing in it.
struct Desk {
    directory: tempfile::TempDir,
    environment: BTreeMap<OsString, OsString>,
}

impl Desk {
    fn new() -> Self {
        let directory = lab::temp_dir();
        let temp = directory.path().join("tmp");
        std::fs::create_dir(&temp).unwrap();
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let environment = BTreeMap::from([
            ("PATH".into(), path.into()),
            ("HOME".into(), directory.path().into()),
            ("TMPDIR".into(), temp.into()),
        ]);
        Self {
            directory,
            environment,
        }
    }

    fn temp(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    fn spawn(&self, args: &[&str]) -> Stage {
        let mut all = vec!["try"];
        all.extend(args);
        Call {
            name: all.join(" "),
            program: env!("CARGO_BIN_EXE_gitlab-aws-driver").into(),
            args: all.into_iter().map(Into::into).collect(),
            env: self.environment.clone(),
            directory: self.directory.path().to_owned(),
            ..Call::default()
        }
        .spawn()
    }

    /// Runs it; nothing may be left, however it ends.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        let output = self.spawn(args).wait(PATIENCE);
        self.assert_clean(&output);
        output
    }

    #[track_caller]
    fn assert_clean(&self, output: &Output) {
        let left = processes::wait_none(self.directory.path(), Duration::from_secs(30));
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "{left:?}:\n{output}");
        let files: Vec<_> = std::fs::read_dir(self.temp()).unwrap().flatten().collect();
        assert!(files.is_empty(), "{files:?}:\n{output}");
    }

    /// Returns what the job that is running leaves on its way.
    fn traces(&self) -> Traces {
        let mut found = None;
        until("the try's directory", PATIENCE, || {
            found = std::fs::read_dir(self.temp()).unwrap().flatten().next();
            found.is_some()
        });
        Traces::of(&found.unwrap().path().join("state"))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for process in processes::of(self.directory.path()) {
            process.kill();
        }
    }
}

#[test]
fn hello() {
    let output = Desk::new().run(&["--", "echo", "hello"]).assert_success();
    let text = output.stdout_text();
    assert!(text.contains("\nhello\n"), "{output}");
    assert!(text.ends_with("Job succeeded\n"), "{output}");
    // A line of timing for each stage.
    let table = output.stderr_text();
    for stage in [
        "config",
        "prepare",
        "prepare_script",
        "get_sources",
        "build_script",
        "cleanup_file_variables",
        "cleanup",
        "total",
    ] {
        let line = |line: &str| line.split_whitespace().next() == Some(stage);
        assert_eq!(table.lines().filter(|l| line(l)).count(), 1, "{output}");
    }
}

/// What a job log of GitLab Runner 19.4 says, to the word; what the driver and the job say stands out.
#[test]
fn the_log_is_the_runners() {
    let output = Desk::new().run(&["--", "sh", "-c", "echo said; exit 42"]);
    let output = output.assert_code(42);
    let text = output.stdout_text();
    let lines: Vec<&str> = text.lines().map(plain).collect();
    let mut at = 0;
    for line in [
        "Running with gitlab-runner 19.4.0 (d79f3e7b)",
        "  on try trytrytry, system ID: s_000000000000",
        "Preparing the \"custom\" executor",
        concat!(
            "Using Custom executor with driver gitlab-aws-driver ",
            env!("CARGO_PKG_VERSION"),
            "..."
        ),
        "Preparing environment",
        "Getting source from Git repository",
        "Skipping Git repository setup",
        "Skipping Git checkout",
        "Skipping Git submodules setup",
        "Executing \"step_script\" stage of the job script",
        "WARNING: Starting with version 17.0 the 'build_script' stage will be replaced with 'step_script': \
         https://gitlab.com/groups/gitlab-org/-/epics/6112",
        "$ sh -c 'echo said; exit 42'",
        "said",
        "Cleaning up project directory and file based variables",
        "ERROR: Job failed: exit status 42",
    ] {
        let found = lines[at..].iter().position(|l| *l == line);
        at += found.unwrap_or_else(|| panic!("no {line:?} from line {at} on:\n{output}")) + 1;
    }
    assert_eq!(at, lines.len(), "{output}");
    // The table has the script's code, not the driver's own.
    let table = output.stderr_text();
    let build = table.lines().find(|line| line.starts_with("build_script "));
    assert!(
        build.is_some_and(|line| line.ends_with(" s  exit code 42")),
        "{output}"
    );
}

/// Returns a line without its colours.
fn plain(line: &str) -> &str {
    let line = line.rsplit_once("\x1b[0;m").map_or(line, |(text, _)| text);
    match line.strip_prefix("\x1b[") {
        Some(rest) => rest.split_once('m').map_or(line, |(_, text)| text),
        None => line,
    }
}

/// An installed configuration may start machines: whoever tries asks for none.
#[test]
fn an_installed_configuration_is_used_only_where_it_is_named() {
    let desk = Desk::new();
    let output = desk.run(&["--", "true"]).assert_success();
    let first = output.stderr_text().lines().next().unwrap().to_owned();
    assert!(
        first.contains(" Configuration: none, so the job runs on this host (`local`)"),
        "{output}"
    );
    // One that no machine can be had of, in the usual place of a root of its own.
    let etc = desk.directory.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let installed = etc.join("aws-driver.toml");
    std::fs::write(
        &installed,
        "capacity = [\"fargate\"]\n[fargate]\nsubnets = [\"subnet-1\"]\n",
    )
    .unwrap();
    let inside = |args: &[&str]| {
        let script = "mkdir -p /etc/gitlab-runner && mount --bind \"$1\" /etc/gitlab-runner && shift && exec \"$@\"";
        let mut all = vec!["--mount", "sh", "-c", script, "sh", etc.to_str().unwrap()];
        all.push(env!("CARGO_BIN_EXE_gitlab-aws-driver"));
        all.extend(args);
        Call {
            name: args.join(" "),
            program: "unshare".into(),
            args: all.into_iter().map(Into::into).collect(),
            env: desk.environment.clone(),
            directory: desk.directory.path().to_owned(),
            ..Call::default()
        }
        .spawn()
        .wait(PATIENCE)
    };
    // It is there for all others.
    inside(&["check"]).assert_contains("fargate");
    let output = inside(&["try", "--", "echo", "he''re"]).assert_success();
    assert!(
        output.contains("; /etc/gitlab-runner/aws-driver.toml is used where --config "),
        "{output}"
    );
    assert!(output.contains("127.0.0.1"), "{output}");
    desk.assert_clean(&output);
    // Named, it is used, and says so: by a path that needs no working directory.
    std::fs::write(desk.directory.path().join("wrong.toml"), "capacity = 5\n").unwrap();
    let file = desk.directory.path().join("wrong.toml");
    let output = inside(&["--config", "wrong.toml", "try", "--", "echo", "ne''ver"]);
    let output = output.assert_code(125);
    let told = format!(" Configuration: {}\n", file.display());
    assert!(output.stderr_text().contains(&told), "{output}");
    let text = output.stdout_text();
    assert_eq!(
        text.matches("ERROR: Preparation failed: exit status 2")
            .count(),
        3,
        "{output}"
    );
    assert_eq!(
        text.matches("Will be retried in 3s ...").count(),
        3,
        "{output}"
    );
    assert!(
        text.trim_end()
            .trim_end_matches("\x1b[0;m")
            .ends_with("ERROR: Job failed (system failure): exit status 2"),
        "{output}"
    );
}

#[test]
fn the_scripts_own_code_passes_through() {
    for code in [1, 2, 42, 255] {
        let script = format!("echo to be seen; exit {code}");
        let output = Desk::new().run(&["--", "sh", "-c", &script]);
        let output = output.assert_code(code);
        assert!(output.contains("\nto be seen\n"), "{output}");
        let last = format!("ERROR: Job failed: exit status {code}\n");
        assert!(output.stdout_text().ends_with(&last), "{output}");
    }
}

#[test]
fn a_script_from_a_file() {
    let desk = Desk::new();
    let file = desk.directory.path().join("build.sh");
    std::fs::write(&file, "echo \"it's $WHAT\"\nfalse\necho never\n").unwrap();
    let file = file.display().to_string();
    let output = desk.run(&["--script", &file, "--env", "WHAT=a \"value\" of $HOME"]);
    let output = output.assert_code(1);
    assert!(!output.contains("\nnever\n"), "{output}");
    assert!(output.contains("it's a \"value\" of "), "{output}");
}

#[test]
fn json_that_cannot_be_written_is_told_and_changes_no_result() {
    let desk = Desk::new();
    let text = "\"$0\" try --json -- sh -c 'exit 3' >/dev/full";
    let output = Call {
        name: "try > /dev/full".to_owned(),
        program: "sh".into(),
        args: ["-c", text, env!("CARGO_BIN_EXE_gitlab-aws-driver")]
            .map(Into::into)
            .into(),
        env: desk.environment.clone(),
        directory: desk.directory.path().to_owned(),
        ..Call::default()
    }
    .spawn()
    .wait(PATIENCE)
    .assert_code(3);
    assert!(
        output.contains("ERROR: cannot write to standard output: No space left"),
        "{output}"
    );
}

#[test]
fn one_json_object() {
    for (script, code, status) in [("true", 0, "success"), ("exit 42", 42, "failed")] {
        let output = Desk::new().run(&["--json", "--", "sh", "-c", script]);
        let output = output.assert_code(code);
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["exit_code"], code, "{output}");
        assert_eq!(object["status"], status, "{output}");
        assert_eq!(object["configuration"], serde_json::Value::Null, "{output}");
        let stages = object["stages"].as_array().unwrap();
        let names: Vec<_> = stages.iter().map(|stage| stage["name"].clone()).collect();
        assert_eq!(names.first().unwrap(), "config", "{output}");
        assert_eq!(names.last().unwrap(), "cleanup", "{output}");
        let build = stages.iter().find(|stage| stage["name"] == "build_script");
        let build = build.unwrap();
        assert_eq!(build["exit_code"], i32::from(code != 0), "{output}");
        let own = (code != 0).then_some(code);
        assert_eq!(
            build["script_exit_code"],
            serde_json::json!(own),
            "{output}"
        );
        // The job log is still there.
        let log = output.stderr_text();
        assert!(log.contains("Executing \"step_script\""), "{output}");
    }
}

#[test]
fn sources_that_come_at_the_third_try() {
    let desk = Desk::new();
    let count = desk.directory.path().join("count");
    let hook = format!(
        "echo x >> {count}; [ \"$(wc -l < {count})\" -eq 3 ]",
        count = count.display()
    );
    let args = ["--pre-get-sources-script", &hook, "--json"];
    let job = ["--", "echo", "built"];
    // Two are not enough.
    let output = desk.run(&[&args[..], &["--stage-attempts", "2"], &job[..]].concat());
    assert_ne!(output.code(), Some(0), "{output}");
    assert!(!output.contains("\nbuilt\n"), "{output}");
    std::fs::remove_file(&count).unwrap();
    let output = desk.run(&[&args[..], &["--stage-attempts", "3"], &job[..]].concat());
    let output = output.assert_success();
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<_> = object["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|stage| stage["name"] == "get_sources")
        .map(|stage| stage["exit_code"].as_i64().unwrap())
        .collect();
    assert_eq!(codes, [1, 1, 0], "{output}");
}

#[test]
fn ctrl_c_ends_the_script_and_what_follows_still_runs() {
    let desk = Desk::new();
    let stage = desk.spawn(&[
        "--after-script",
        "echo after a job that was $CI_JOB_STATUS",
        "--",
        "sh",
        "-c",
        "echo under''way; while :; do sleep 0.1; done",
    ]);
    stage.wait_output(b"underway\n", PATIENCE);
    let traces = desk.traces();
    stage.signal(Signal::INT);
    let output = stage.wait(PATIENCE).assert_code(130);
    let text = output.stdout_text();
    assert!(
        text.contains("\nafter a job that was canceled\n"),
        "{output}"
    );
    assert!(text.ends_with("ERROR: Job failed: canceled\n"), "{output}");
    desk.assert_clean(&output);
    traces.assert_gone();
}

#[test]
fn ctrl_c_twice_skips_to_the_cleanup() {
    let desk = Desk::new();
    let stage = desk.spawn(&[
        "--after-script",
        "echo never",
        "--",
        "bash",
        "-c",
        "trap 'echo he''ard' TERM; echo under''way; while :; do sleep 0.1; done",
    ]);
    stage.wait_output(b"underway\n", PATIENCE);
    let traces = desk.traces();
    stage.signal(Signal::INT);
    stage.wait_output(b"heard\n", PATIENCE);
    stage.signal(Signal::INT);
    let output = stage.wait(PATIENCE).assert_code(130);
    assert!(!output.contains("\nnever\n"), "{output}");
    desk.assert_clean(&output);
    traces.assert_gone();
}

#[test]
fn the_jobs_time_is_over() {
    let desk = Desk::new();
    let stage = desk.spawn(&[
        "--timeout",
        "20s",
        "--after-script",
        "echo never",
        "--",
        "sh",
        "-c",
        "echo under''way; exec sleep 600",
    ]);
    stage.wait_output(b"underway\n", PATIENCE);
    let traces = desk.traces();
    let output = stage.wait(PATIENCE).assert_code(124);
    assert!(
        output.contains("execution took longer than 20s seconds"),
        "{output}"
    );
    assert!(!output.contains("\nnever\n"), "{output}");
    desk.assert_clean(&output);
    traces.assert_gone();
}

#[test]
fn the_jobs_time_may_be_over_before_its_script() {
    let output = Desk::new().run(&[
        "--timeout",
        "2s",
        "--pre-get-sources-script",
        "sleep 600",
        "--",
        "true",
    ]);
    output
        .assert_code(124)
        .assert_contains("execution took longer than 2s seconds");
}

#[test]
fn what_this_machine_cannot_do_is_refused() {
    let output = Desk::new().run(&["--service", "redis:8", "--", "echo", "un", "seen"]);
    let output = output.assert_code(125);
    assert!(!output.contains("\nun seen\n"), "{output}");
    let text = output.stdout_text();
    let told =
        |line: &str| line.contains("redis:8") && line.contains("and `local` runs no services");
    let line = text.lines().find(|line| told(line));
    assert!(
        line.is_some_and(|line| line.contains("ERROR: ")),
        "{output}"
    );
}

#[test]
fn colours_only_where_they_are_wanted() {
    let mut desk = Desk::new();
    let coloured = desk.run(&["--", "true"]).assert_success();
    assert!(coloured.contains("\x1b["), "{coloured}");
    desk.environment.insert("NO_COLOR".into(), "1".into());
    let plain = desk.run(&["--", "true"]).assert_success();
    assert!(!plain.contains("\x1b"), "{plain}");
    let failed = desk.run(&["--image", "alpine", "--", "true"]);
    assert!(!failed.assert_code(125).contains("\x1b"));
}

#[test]
fn words_that_make_no_sense_start_nothing() {
    for args in [
        &["--"][..],
        &["--timeout", "soon", "--", "true"],
        &["--stage-attempts", "11", "--", "true"],
        &["--script", "/nonexistent/script"],
    ] {
        let output = Desk::new().run(args);
        assert!(matches!(output.code(), Some(2 | 125)), "{output}");
        assert!(output.stdout.is_empty(), "{output}");
    }
}
