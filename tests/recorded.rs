//! Replays jobs that were recorded from a real GitLab Runner: its calls in its order, with its
//! environments and scripts.
//!
//! The records are not part of the project. They are looked for in the directory that the variable
//! `GAD_RUNNER_JOBS` names, or else in `../shared/data/runner-jobs` beside the project. Where they are
//! missing the tests here say so and pass (`jobs.rs` has jobs of the same shape that always run); under
//! `CI=true`, where nobody reads what passes, they fail.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::git;
use crate::lab::git::GitServer;
use crate::lab::helper;
use crate::lab::helper::Helper;
use crate::lab::port::Port;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;

/// The commit that the records name; the test's own takes its place.
const COMMIT: &str = "6bef19705d7597b2b18ed6eed649d75e78e59f7d";

/// The job whose artifacts and cache other jobs use.
const FIRST_JOB: u64 = 1001;

/// A recorded job, made ready for replay in directories of this test's own.
struct Replay {
    folder: PathBuf,
    calls: Vec<Recorded>,
    rewriting: Vec<(String, String)>,
    runner: Runner,
    git: GitServer,
    helper: Helper,
    _directory: tempfile::TempDir,
}

/// One recorded call of the driver.
struct Recorded {
    name: String,
    args: Vec<String>,
    directory: PathBuf,
    exit: i32,
    env: BTreeMap<String, String>,
}

impl Recorded {
    /// Returns the stage, or sub-stage: the name without its number.
    fn stage(&self) -> &str {
        self.name.split_once('-').map_or("", |(_, stage)| stage)
    }
}

impl Replay {
    /// Reads a job; nothing where there are no records.
    fn load(job: &str) -> Option<Self> {
        let records = std::env::var_os("GAD_RUNNER_JOBS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/runner-jobs"),
            PathBuf::from,
        );
        let folder = records.join(job);
        if !folder.is_dir() {
            let missing = format!("there is no recorded job {}", folder.display());
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "{missing}: under CI=true the records have to be in ../shared/data/runner-jobs beside the project, or in \
                 the directory that GAD_RUNNER_JOBS names"
            );
            eprintln!("skipped: {missing}");
            return None;
        }
        let directory = lab::temp_dir();
        let helper = Helper::new(directory.path());
        let git = GitServer::start();
        let runner = Runner::builder().build();
        let root = runner.root().display();
        // The longer ones first: the first that fits is taken.
        let rewriting = [
            (
                "/tmp/custom-executor",
                format!("{root}/tmp/custom-executor"),
            ),
            ("/srv/runner/home", format!("{root}/home")),
            ("/srv/runner/bin", helper.bin().display().to_string()),
            ("/builds", format!("{root}/builds")),
            ("/cache", format!("{root}/cache")),
            (":8080", format!(":{}", git.port())),
            (COMMIT, git.sha().to_owned()),
            (&COMMIT[..8], git.sha()[..8].to_owned()),
        ]
        .map(|(old, new)| (old.to_owned(), new))
        .into();
        let mut replay = Self {
            calls: Vec::new(),
            folder,
            rewriting,
            runner,
            git,
            helper,
            _directory: directory,
        };
        replay.read_calls();
        Some(replay)
    }

    fn read_calls(&mut self) {
        let text = std::fs::read(self.folder.join("calls.json")).unwrap();
        let calls: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let mut first = BTreeMap::new();
        for call in calls {
            let text = |value: &Value| self.rewritten_text(value.as_str().unwrap());
            let pairs = |value: &Value| -> BTreeMap<String, String> {
                let pairs = value.as_object().into_iter().flatten();
                pairs
                    .map(|(name, value)| (name.clone(), text(value)))
                    .collect()
            };
            if call["env"].is_object() {
                first = pairs(&call["env"]);
            }
            let mut env = first.clone();
            env.extend(pairs(&call["env_changed"]));
            for gone in call["env_gone"].as_array().into_iter().flatten() {
                env.remove(gone.as_str().unwrap());
            }
            let args = call["argv"].as_array().unwrap().iter().skip(1);
            let recorded = Recorded {
                name: call["call"].as_str().unwrap().to_owned(),
                args: args.map(text).collect(),
                directory: text(&call["cwd"]).into(),
                exit: call["exit"].as_str().unwrap().parse().unwrap(),
                env,
            };
            self.calls.push(recorded);
        }
    }

    fn rewritten_text(&self, text: &str) -> String {
        String::from_utf8(self.rewritten(text.as_bytes())).unwrap()
    }

    /// Puts the test's own paths, port and commit in place of the recorded ones.
    fn rewritten(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            // In `../../cache` or `x/builds` it is not the absolute path.
            let inside_path = at > 0 && {
                let before = bytes[at - 1];
                before.is_ascii_alphanumeric() || b"._-/".contains(&before)
            };
            let rule = self.rewriting.iter().find(|(old, _)| {
                rest.starts_with(old.as_bytes()) && !(old.starts_with('/') && inside_path)
            });
            if let Some((old, new)) = rule {
                out.extend_from_slice(new.as_bytes());
                at += old.len();
            } else {
                out.push(bytes[at]);
                at += 1;
            }
        }
        out
    }

    /// Starts a recorded call.
    fn spawn(&self, call: &Recorded) -> Stage {
        std::fs::create_dir_all(&call.directory).unwrap();
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&call.directory, private).unwrap();
        let payload = call.directory.join("response.json");
        let response = std::fs::read(self.folder.join("response.json")).unwrap();
        std::fs::write(&payload, self.rewritten(&response)).unwrap();
        std::fs::set_permissions(payload, std::fs::Permissions::from_mode(0o600)).unwrap();
        if call.args[0] == "run" {
            let text = std::fs::read(self.folder.join(format!("{}.sh", call.name))).unwrap();
            let script = Path::new(&call.args[1]);
            std::fs::create_dir_all(script.parent().unwrap()).unwrap();
            std::fs::write(script, self.rewritten(&text)).unwrap();
        }
        let args: Vec<OsString> = call.args.iter().map(Into::into).collect();
        let env = call.env.iter();
        let env = env
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self.runner.spawn_in(&call.name, args, env, &call.directory)
    }

    /// Checks a call's end against the record, and the exit-code file against the end.
    fn check(call: &Recorded, output: Output) -> Output {
        let output = output.assert_code(call.exit);
        let file = std::fs::read_to_string(&call.env["BUILD_EXIT_CODE_FILE"]).ok();
        if call.args[0] == "run" {
            // Nothing of an earlier call may lie there.
            assert_eq!(file.is_some(), call.exit != 0, "{file:?} after {output}");
        }
        if let Some(file) = file {
            let code: i32 = file.parse().expect("a bare integer");
            assert_eq!(code.to_string(), file);
        }
        output
    }

    /// Makes a call and checks its end.
    fn call(&self, call: &Recorded) -> Output {
        Self::check(call, self.spawn(call).wait(PATIENCE))
    }

    /// Makes all calls; returns what each wrote. Where the record says that the build script was
    /// cancelled, it gets SIGTERM once it runs.
    fn play(&self, cancelled: bool) -> BTreeMap<&str, Output> {
        let mut outputs = BTreeMap::new();
        for call in &self.calls {
            let output = if cancelled && call.stage() == "build_script" {
                let stage = self.spawn(call);
                stage.wait_output(b"tick 1", PATIENCE);
                stage.signal(Signal::TERM);
                Self::check(call, stage.wait(PATIENCE))
            } else {
                self.call(call)
            };
            outputs.insert(call.stage(), output);
        }
        self.runner.assert_nothing_left();
        outputs
    }

    fn exit_file(&self) -> String {
        let env = &self.calls.last().unwrap().env;
        std::fs::read_to_string(&env["BUILD_EXIT_CODE_FILE"]).unwrap()
    }

    fn project(&self) -> PathBuf {
        self.runner.root().join("builds/g/p")
    }

    fn cache(&self) -> PathBuf {
        self.runner.root().join("cache/g/p/k1/cache.zip")
    }
}

/// Checks that a script that only failed at its caller's wish has not run on.
fn assert_no_more_than(output: &Output, ticks: usize) {
    let seen = output.stdout_text().matches("\ntick ").count();
    assert!(seen <= ticks, "{output}");
}

#[test]
fn records_that_are_missing_are_said_and_under_ci_they_are_an_error() {
    let empty = lab::temp_dir();
    // The tests here once more, with nothing to replay.
    let replayed = |ci: Option<&str>| {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "recorded::success", "--nocapture"]);
        again.env("GAD_RUNNER_JOBS", empty.path()).env_remove("CI");
        again.envs(ci.map(|ci| ("CI", ci)));
        let output = again.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    for ci in [None, Some(""), Some("false")] {
        let (passed, said) = replayed(ci);
        assert!(
            passed && said.contains("skipped: there is no recorded job"),
            "{said}"
        );
    }
    let (passed, said) = replayed(Some("true"));
    assert!(
        !passed && said.contains("under CI=true the records have to be in"),
        "{said}"
    );
}

#[test]
fn success() {
    let Some(replay) = Replay::load("success") else {
        return;
    };
    let outputs = replay.play(false);
    let build = &outputs["build_script"];
    for line in [
        &replay.project().display().to_string(),
        "0",
        "job 1001",
        git::BUILD_OUTPUT.trim_end(),
        "result of job 1001",
    ] {
        let text = build.stdout_text();
        assert!(text.lines().any(|seen| seen == line), "{line}: {build}");
    }
    assert!(outputs["prepare_script"].contains("Running on "));
    assert!(outputs["get_sources"].contains(&replay.git.sha()[..8]));
    let after = &outputs["after_script"];
    assert!(after.contains("\nafter\nstatus=success\n"), "{after}");
    assert_eq!(helper::packed(&replay.cache()), ["vendor/", "vendor/stamp"]);
    let artifacts = helper::packed(&replay.helper.artifacts(FIRST_JOB));
    assert_eq!(artifacts, ["out/", "out/result.txt"]);
    let called = |name: &str| {
        replay
            .helper
            .calls()
            .iter()
            .any(|call| call.starts_with(name))
    };
    for name in ["cache-extractor", "cache-archiver", "artifacts-uploader"] {
        assert!(called(name), "{name}");
    }
}

#[test]
fn failure_42() {
    let Some(replay) = Replay::load("failure-42") else {
        return;
    };
    replay.git.clone_to(&replay.project());
    std::fs::write(replay.project().join("litter"), "of an earlier job").unwrap();
    helper::pack(&replay.cache(), "vendor/stamp", "an old stamp\n");
    let artifacts = replay.helper.artifacts(FIRST_JOB);
    helper::pack(&artifacts, "out/result.txt", "an old result\n");
    for call in &replay.calls {
        let output = replay.call(call);
        match call.stage() {
            "get_sources" => assert!(!replay.project().join("litter").exists(), "{output}"),
            "build_script" => {
                assert!(
                    output.contains("\nan old result\nan old stamp\n"),
                    "{output}"
                );
                assert!(output.contains(git::BUILD_OUTPUT), "{output}");
                assert_eq!(replay.exit_file(), "42");
            }
            "after_script" => assert!(output.contains("\nafter\nstatus=failed\n"), "{output}"),
            _ => {}
        }
    }
    assert!(replay.helper.artifacts(1002).exists());
    replay.runner.assert_nothing_left();
}

#[test]
fn cancel_graceful() {
    let Some(replay) = Replay::load("cancel-graceful") else {
        return;
    };
    let outputs = replay.play(true);
    assert_no_more_than(&outputs["build_script"], 10);
    let after = &outputs["after_script"];
    assert!(after.contains("\nafter status=canceled\n"), "{after}");
}

#[test]
fn cancel_hard() {
    let Some(replay) = Replay::load("cancel-hard") else {
        return;
    };
    let outputs = replay.play(true);
    let build = &outputs["build_script"];
    assert_no_more_than(build, 10);
    assert!(build.contains("\nscript got TERM\n"), "{build}");
}

#[test]
fn job_timeout() {
    let Some(replay) = Replay::load("job-timeout") else {
        return;
    };
    assert_no_more_than(&replay.play(true)["build_script"], 10);
}

#[test]
fn get_sources_fails_3_attempts() {
    let Some(replay) = Replay::load("get-sources-fails-3-attempts") else {
        return;
    };
    replay.git.fail_next(u64::MAX);
    let mut tries = 0;
    for call in &replay.calls {
        replay.call(call);
        if call.stage() == "get_sources" {
            tries += 1;
            assert_eq!(replay.exit_file(), "128");
            // The same name and the same text again, and it has really run again.
            assert_eq!(replay.git.requests(), tries);
        }
    }
    assert_eq!(tries, 3);
    replay.runner.assert_nothing_left();
}

#[test]
fn prepare_fails_twice() {
    let Some(replay) = Replay::load("prepare-fails-twice") else {
        return;
    };
    let good = replay.runner.default_config();
    let state = replay.runner.state_directory();
    let mut failures = 0;
    for call in &replay.calls {
        let fails = call.stage() == "prepare" && call.exit != 0;
        if !fails {
            replay.call(call);
            continue;
        }
        failures += 1;
        if failures == 1 {
            // No directory can be made where a file is.
            drop(std::fs::remove_dir_all(state));
            std::fs::write(state, "in the way").unwrap();
            replay.call(call);
            std::fs::remove_file(state).unwrap();
        } else {
            let port = Port::reserve();
            let ssh = format!("[ssh]\nport = {}", port.number());
            let bad = good.replace("[ssh]", &ssh);
            let bad = bad + "\n[local]\ncommand = [\"/nonexistent/entrypoint\"]\n";
            replay.runner.write_config(&bad);
            replay.call(call);
            replay.runner.write_config(&good);
        }
    }
    assert_eq!(failures, 2);
    replay.runner.assert_nothing_left();
}
