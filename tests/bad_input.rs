//! Whatever is wrong with what a stage is given: one line that says so, at most one that says what to do, the
//! code for failures of the machinery, and nothing lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::tools;
use crate::scripts::record_file;

/// Checks that a stage failed for want of something other than the script, and how it reads.
#[track_caller]
pub(crate) fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code(), Some(code), "{output}");
    let text = output.stderr_text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        matches!(lines.len(), 1 | 2),
        "{} lines: {output}",
        lines.len()
    );
    let (red, reset) = ("\x1b[31;1m", "\x1b[0;m");
    for line in &lines {
        assert!(line.starts_with(red) && line.ends_with(reset), "{output}");
        let inner = &line[red.len()..line.len() - reset.len()];
        assert!(!inner.contains('\x1b') && inner.len() < 600, "{output}");
    }
    let cause = lines[0].trim_start_matches(red);
    assert!(cause.starts_with("ERROR: "), "{output}");
    for word in words {
        assert!(cause.contains(word), "no {word:?} in {output}");
    }
    for word in ["panicked", "RUST_BACKTRACE", "unwrap", "Some(", "Err("] {
        assert!(!text.contains(word), "{word:?} in {output}");
    }
    let remedy = lines.get(1).map_or("", |line| line.trim_start_matches(red));
    assert!(!remedy.starts_with("ERROR"), "{output}");
}

/// Runs each stage in turn.
fn each_stage(runner: &Runner) -> [(&'static str, Output); 4] {
    [
        ("config", runner.config()),
        ("prepare", runner.prepare()),
        ("run", runner.run("build_script", "echo never")),
        ("cleanup", runner.cleanup()),
    ]
}

#[test]
fn what_is_wrong_with_the_configuration_is_said_with_file_line_and_key() {
    // (The change, what the message holds.)
    let cases: [(&str, &str, &[&str]); 18] = [
        // Broken TOML.
        (
            "capacity = [\"local\"]",
            "capacity = [\"local\"",
            &["config.toml:", "not TOML"],
        ),
        (
            "capacity = [\"local\"]",
            "capacity",
            &["config.toml:1:", "not TOML"],
        ),
        ("[ssh]", "[ssh", &["config.toml:", "not TOML"]),
        ("[ssh]", "[ssh]\n= 1", &["config.toml:", "not TOML"]),
        (
            "username = \"root\"",
            "username = \"root",
            &["config.toml:", "not TOML"],
        ),
        (
            "username = \"root\"",
            "username = \"a\"\nusername = \"b\"",
            &["config.toml:", "username"],
        ),
        ("[ssh]", "[state]", &["config.toml:", "state"]),
        // Wrong types.
        (
            "capacity = [\"local\"]",
            "capacity = 7",
            &["config.toml:1:", "capacity"],
        ),
        (
            "capacity = [\"local\"]",
            "capacity = [\"moon\"]",
            &["config.toml:1:", "moon"],
        ),
        (
            "capacity = [\"local\"]",
            "capacity = [1]",
            &["config.toml:1:", "capacity"],
        ),
        (
            "allow_jobs_on_this_host = true",
            "allow_jobs_on_this_host = \"yes\"",
            &["config.toml:2:", "allow_jobs_on_this_host"],
        ),
        (
            "username = \"root\"",
            "username = 5",
            &["config.toml:", "username"],
        ),
        (
            "username = \"root\"",
            "connect_timeout = \"soon\"",
            &["config.toml:", "connect_timeout"],
        ),
        // Out of range.
        (
            "username = \"root\"",
            "port = 70000",
            &["config.toml:", "port", "70000", "65535"],
        ),
        ("username = \"root\"", "port = 0", &["config.toml:", "port"]),
        (
            "username = \"root\"",
            "port = -1",
            &["config.toml:", "port"],
        ),
        (
            "username = \"root\"",
            "port = \"22\"",
            &["config.toml:", "port"],
        ),
        // Not meant for here.
        (
            "allow_jobs_on_this_host = true",
            "allow_jobs_on_this_host = false",
            &["config.toml:", "local", "allow_jobs_on_this_host"],
        ),
    ];
    let runner = Runner::builder().build();
    let good = runner.default_config();
    for (old, new, words) in cases {
        assert!(good.contains(old), "{old}");
        // Each wait is there already, and may not stand twice.
        let base = match new.split(' ').next() {
            Some("connect_timeout") => good.replace("connect_timeout = \"30s\"\n", ""),
            _ => good.clone(),
        };
        let text = base.replacen(old, new, 1);
        runner.write_config(&text);
        let mut seen = Vec::new();
        for (stage, output) in each_stage(&runner) {
            assert_refused(&output, 2, words);
            assert!(output.stdout.is_empty(), "{stage}: {output}");
            seen.push(output.stderr_text());
        }
        assert!(seen.iter().all(|text| *text == seen[0]), "{seen:#?}");
        // The line of the key itself is the one named.
        if let Some(line) = text.lines().position(|line| line.starts_with("port = ")) {
            let place = format!("config.toml:{}:", line + 1);
            assert!(seen[0].contains(&place), "{place}: {}", seen[0]);
        }
    }
    runner.write_config(&good);
    runner.assert_nothing_left();
    assert!(!runner.state_directory().exists());
}

#[test]
fn a_configuration_that_is_no_text_or_not_there_is_said() {
    let runner = Runner::builder().build();
    let good = runner.default_config();
    let file = runner.config_file();
    let refused = |words: &[&str]| {
        for (_, output) in each_stage(&runner) {
            assert_refused(&output, 2, words);
        }
    };
    std::fs::write(&file, b"capacity = [\"local\"]\n# \xff\xfe\n").unwrap();
    refused(&["config.toml:2:", "UTF-8"]);
    std::fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
    refused(&["config.toml", "1 MiB"]);
    std::fs::write(&file, vec![0; 4096]).unwrap();
    refused(&["config.toml:1:"]);
    std::fs::remove_file(&file).unwrap();
    refused(&["config.toml"]);
    std::fs::create_dir(&file).unwrap();
    refused(&["config.toml"]);
    std::fs::remove_dir(&file).unwrap();
    rustix::fs::symlink("config.toml", &file).unwrap();
    refused(&["config.toml"]);
    std::fs::remove_file(&file).unwrap();
    runner.write_config(&good);
    runner.start();
    // It goes away under a job: the job is kept, and is ended once it is back.
    std::fs::remove_file(&file).unwrap();
    let output = runner.run("build_script", "echo never");
    assert_refused(&output, 2, &["config.toml"]);
    assert_refused(&runner.cleanup(), 2, &["config.toml"]);
    assert!(!runner.processes().is_empty());
    runner.write_config(&good);
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn codes_that_are_missing_or_no_numbers_are_said() {
    // (Build code, system code, the code to end with.)
    let cases: [(Option<&str>, Option<&str>, i32, &str); 12] = [
        (None, Some("9"), 9, "BUILD_FAILURE_EXIT_CODE is not set"),
        (Some("1"), None, 2, "SYSTEM_FAILURE_EXIT_CODE is not set"),
        (None, None, 2, "_FAILURE_EXIT_CODE is not set"),
        (Some(""), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("one"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("0"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("256"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("-1"), Some("9"), 9, "BUILD_FAILURE_EXIT_CODE"),
        (Some("1"), Some("two"), 2, "SYSTEM_FAILURE_EXIT_CODE"),
        (Some("1"), Some("0"), 2, "SYSTEM_FAILURE_EXIT_CODE"),
        (Some("1"), Some("2 system"), 2, "SYSTEM_FAILURE_EXIT_CODE"),
        (
            Some("1"),
            Some("99999999999999999999"),
            2,
            "SYSTEM_FAILURE_EXIT_CODE",
        ),
    ];
    let runner = Runner::builder().build();
    for (build, system, code, words) in cases {
        runner.next_attempt();
        runner.start();
        runner.run("build_script", "echo on").assert_stdout("on\n");
        let spawn = |name: &str, args: &[&str]| {
            let mut env = runner.stage_environment();
            for (name, value) in [
                ("BUILD_FAILURE_EXIT_CODE", build),
                ("SYSTEM_FAILURE_EXIT_CODE", system),
            ] {
                match value {
                    Some(value) => drop(env.insert(name.into(), value.into())),
                    None => drop(env.remove(std::ffi::OsStr::new(name))),
                }
            }
            let args = args.iter().map(Into::into).collect();
            let stage = runner.spawn_in(name, args, env, &runner.attempt());
            stage.wait(PATIENCE)
        };
        let script = runner.write_script("echo never");
        let script = script.to_str().unwrap();
        for (name, args) in [
            ("config", &["config"][..]),
            ("prepare", &["prepare"]),
            ("run", &["run", script, "build_script"]),
        ] {
            let output = spawn(name, args);
            assert_refused(&output, code, &[words]);
            assert!(output.stdout.is_empty(), "{output}");
        }
        // A cleanup does its work all the same.
        let output = spawn("cleanup", &["cleanup"]);
        assert_refused(&output, code, &[words]);
        runner.assert_nothing_left();
        assert_eq!(jobs(runner.state_directory()), 0);
        runner.cleanup().assert_success();
    }
}

/// Returns how many jobs the state knows.
fn jobs(state: &Path) -> usize {
    std::fs::read_dir(state.join("jobs")).map_or(0, Iterator::count)
}

#[test]
fn a_script_that_is_not_there_is_said() {
    let runner = Runner::builder().build();
    runner.start();
    let missing = runner.attempt().join("no-such-script");
    let refused = |path: &Path, words: &[&str]| {
        let output = runner.spawn_run_file("build_script", path).wait(PATIENCE);
        assert_refused(&output, 2, words);
        assert_eq!(runner.exit_file(), None);
    };
    refused(&missing, &["no-such-script", "No such file"]);
    refused(&runner.attempt(), &["directory"]);
    refused(&missing.join("below"), &["no-such-script"]);
    runner.run("build_script", "echo on").assert_stdout("on\n");
}

#[test]
fn a_wrong_command_line_never_blames_the_script() {
    let runner = Runner::builder().exit_codes("7", "9").build();
    for args in [
        &["run"][..],
        &["run", "x"],
        &["prepare", "extra"],
        &["no-such-stage"],
        &[],
    ] {
        let output = runner.spawn("misused", args).wait(PATIENCE);
        // 7 would blame the user's script.
        assert!(!matches!(output.code(), Some(0 | 7) | None), "{output}");
        assert!(!output.contains("panicked"), "{output}");
    }
}

#[test]
fn a_job_that_was_never_prepared_is_said() {
    let runner = Runner::builder().build();
    let output = runner.run("build_script", "echo never");
    assert_refused(&output, 2, &["nothing is known of this job"]);
    assert!(output.stdout.is_empty());
    assert!(!runner.state_directory().exists());
    runner.cleanup().assert_success();
}

#[test]
fn a_prepare_that_is_called_twice_leaves_the_machine_as_it_is() {
    let runner = Runner::builder().build();
    runner.start();
    assert_refused(&runner.prepare(), 2, &["twice"]);
    runner.run("build_script", "echo on").assert_stdout("on\n");
}

#[test]
fn a_payload_that_cannot_be_read_is_said_and_the_job_goes_on() {
    for text in [
        None,
        Some(""),
        Some("{\"id\": "),
        Some("\0\0\0"),
        Some("[]"),
    ] {
        let runner = Runner::builder().build();
        let file = runner.attempt().join("response.json");
        match text {
            None => std::fs::remove_file(&file).unwrap(),
            Some(text) => std::fs::write(&file, text).unwrap(),
        }
        runner.config().assert_success();
        let output = runner.prepare().assert_success();
        assert!(!output.contains("panicked"), "{output}");
        // `[]` is JSON, and says nothing.
        let said = output.stderr_text().contains("response.json");
        assert_eq!(said, text != Some("[]"), "{output}");
        runner.run("build_script", "echo on").assert_stdout("on\n");
        runner.cleanup().assert_success();
        assert_eq!(jobs(runner.state_directory()), 0);
    }
}

#[test]
fn a_job_that_cannot_be_told_from_others_is_refused() {
    let cases = [
        (
            vec!["CUSTOM_ENV_CI_JOB_ID", "JOB_RESPONSE_FILE"],
            "which job this is",
        ),
        (vec!["TMPDIR"], "TMPDIR"),
    ];
    let runner = Runner::builder().build();
    for (removed, word) in cases {
        let mut env = runner.stage_environment();
        for name in removed {
            assert!(env.remove(std::ffi::OsStr::new(name)).is_some());
        }
        for stage in ["config", "prepare", "cleanup"] {
            let args = vec![stage.into()];
            let stage = runner.spawn_in(stage, args, env.clone(), runner.root());
            assert_refused(&stage.wait(PATIENCE), 2, &[word]);
        }
    }
    runner.assert_nothing_left();
    assert!(!runner.state_directory().exists());
}

/// Ways to damage a state file.
fn damages(good: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let json: serde_json::Value = serde_json::from_slice(good).unwrap();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = json.clone();
        change(&mut json);
        json.to_string().into_bytes()
    };
    let without = |key: &str| {
        changed(&|json| {
            json.as_object_mut().unwrap().remove(key);
        })
    };
    vec![
        ("empty", Vec::new(), "damaged"),
        ("cut off", good[..good.len() / 2].to_vec(), "damaged"),
        ("zeros", vec![0; good.len()], "damaged"),
        ("no JSON", b"a record".to_vec(), "damaged"),
        ("too much", vec![b' '; 2 << 20], "damaged"),
        ("null", b"null".to_vec(), "damaged"),
        ("no version", without("version"), "damaged"),
        ("no attempt", without("attempt"), "damaged"),
        (
            "version of another type",
            changed(&|json| json["version"] = json!("1")),
            "damaged",
        ),
        (
            "a newer version",
            changed(&|json| json["version"] = json!(99)),
            "newer",
        ),
        (
            "a newer version of another shape",
            b"{\"version\":99,\"all\":\"new\"}".to_vec(),
            "newer",
        ),
    ]
}

#[test]
fn a_record_that_cannot_be_understood_is_said_and_kept() {
    let runner = Runner::builder().build();
    runner.start();
    let file = record_file(&runner);
    let good = std::fs::read(&file).unwrap();
    for (what, bad, word) in damages(&good) {
        std::fs::write(&file, &bad).unwrap();
        let output = runner.run("build_script", "echo never");
        assert_refused(&output, 2, &["record.json", word]);
        assert!(output.stdout.is_empty(), "{what}: {output}");
        std::fs::write(&file, &good).unwrap();
        runner.run("build_script", "echo on").assert_stdout("on\n");
    }
    runner.cleanup().assert_success();

    for (what, bad, word) in damages(&good) {
        runner.next_attempt();
        runner.start();
        let file = record_file(&runner);
        let good = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bad).unwrap();
        for _ in 0..2 {
            let output = runner.cleanup();
            assert_refused(&output, 2, &["record.json", word]);
            assert_eq!(std::fs::read(&file).unwrap(), bad, "{what}");
        }
        // The intent was enough to end the machine; what nobody understood is still there.
        runner.assert_nothing_left();
        std::fs::write(&file, &good).unwrap();
        runner.cleanup().assert_success();
        assert_eq!(jobs(runner.state_directory()), 0, "{what}");
    }
}

#[test]
fn an_intent_that_cannot_be_understood_is_said_and_kept() {
    let runner = Runner::builder().build();
    runner.start();
    let good = std::fs::read(record_file(&runner).with_file_name("intent.json")).unwrap();
    runner.cleanup().assert_success();
    for (what, bad, word) in damages(&good) {
        runner.next_attempt();
        runner.start();
        let file = record_file(&runner).with_file_name("intent.json");
        let good = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bad).unwrap();
        // A script needs only the record.
        runner.run("build_script", "echo on").assert_stdout("on\n");
        let output = runner.prepare();
        assert_refused(&output, 2, &["intent.json", word]);
        let output = runner.cleanup();
        assert_refused(&output, 2, &["intent.json", word]);
        assert_eq!(std::fs::read(&file).unwrap(), bad, "{what}");
        runner.assert_nothing_left();
        std::fs::write(&file, &good).unwrap();
        runner.cleanup().assert_success();
        assert_eq!(jobs(runner.state_directory()), 0, "{what}");
    }
}

#[test]
fn a_job_of_which_nothing_is_understood_is_kept_until_it_is() {
    let runner = Runner::builder().build();
    runner.start();
    let record = record_file(&runner);
    let files = [record.clone(), record.with_file_name("intent.json")];
    let good: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    for bad in [&b"{\"version\":99}"[..], b"{"] {
        for file in &files {
            std::fs::write(file, bad).unwrap();
        }
        assert_refused(&runner.cleanup(), 2, &["is"]);
        for file in &files {
            assert_eq!(std::fs::read(file).unwrap(), bad);
        }
        // Nobody can tell what to end.
        assert!(!runner.processes().is_empty());
    }
    for (file, good) in files.iter().zip(&good) {
        std::fs::write(file, good).unwrap();
    }
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_said() {
    let place = lab::temp_dir();
    let file = place.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let runner = Runner::builder()
        .state_directory(&file.join("state"))
        .build();
    runner.config().assert_success();
    let output = runner.prepare();
    assert_refused(&output, 2, &["state", "Not a directory"]);
    runner.assert_nothing_left();
    let output = runner.run("build_script", "echo never");
    assert_refused(&output, 2, &["state"]);
    assert_refused(&runner.cleanup(), 2, &["state"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    // Once it can be made all goes on.
    std::fs::remove_file(&file).unwrap();
    runner.cleanup().assert_success();
    runner.next_attempt();
    runner.start();
    runner.run("build_script", "echo on").assert_stdout("on\n");
}

/// A mount namespace with a small disk of its own, in which a driver can be run.
struct SmallDisk {
    holder: Stage,
    driver: PathBuf,
    directory: tempfile::TempDir,
}

impl SmallDisk {
    const PAGE: usize = 4096;

    /// Mounts so many pages at `disk` in the directory.
    fn new(pages: usize) -> Self {
        let directory = lab::temp_dir();
        let disk = directory.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let size = pages * Self::PAGE;
        let script = format!(
            "mount -t tmpfs -o size={size},mode=700 tmpfs '{disk}' && echo mounted && exec sleep 100000",
            disk = disk.display()
        );
        let holder = Call {
            name: "unshare".to_owned(),
            program: tools::program("unshare"),
            args: ["--mount", "--propagation", "private", "sh", "-c", &script]
                .map(Into::into)
                .into(),
            env: BTreeMap::from([("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())]),
            directory: directory.path().to_owned(),
            ..Call::default()
        }
        .spawn();
        holder.wait_output(b"mounted\n", PATIENCE);
        let driver = directory.path().join("driver");
        let text = format!(
            "#!/bin/sh\nexec nsenter --mount=/proc/{}/ns/mnt --wd=\"$PWD\" '{}' \"$@\"\n",
            holder.pid().as_raw_nonzero(),
            env!("CARGO_BIN_EXE_gitlab-aws-driver")
        );
        lab::write_program(&driver, &text);
        Self {
            holder,
            driver,
            directory,
        }
    }

    /// Returns the state directory as the driver sees it.
    fn state(&self) -> PathBuf {
        self.directory.path().join("disk/state")
    }

    /// Returns a path on the disk as it is seen from outside.
    fn outside(&self, name: &str) -> PathBuf {
        let disk = self.directory.path().join("disk").join(name);
        let root = format!("/proc/{}/root", self.holder.pid().as_raw_nonzero());
        Path::new(&root).join(disk.strip_prefix("/").unwrap())
    }

    /// Fills the disk up to so many free pages.
    fn fill(&self, free: usize) {
        use std::io::Write as _;
        self.free();
        let mut file = std::fs::File::create(self.outside("ballast")).unwrap();
        while file.write_all(&[7; Self::PAGE]).is_ok() {}
        let length = file.metadata().unwrap().len() - (free * Self::PAGE) as u64;
        file.set_len(length).unwrap();
    }

    fn free(&self) {
        drop(std::fs::remove_file(self.outside("ballast")));
    }

    /// Makes the disk read-only, or writable again.
    fn remount(&self, how: &str) {
        let done = std::process::Command::new(tools::program("nsenter"))
            .arg(format!(
                "--mount=/proc/{}/ns/mnt",
                self.holder.pid().as_raw_nonzero()
            ))
            .args(["mount", "-o", &format!("remount,{how}")])
            .arg(self.directory.path().join("disk"))
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.signal(rustix::process::Signal::KILL);
    }
}

/// With each amount of room from none on: either the job is prepared and runs, or it is refused and nothing is
/// left alive. What is there is never damaged, and all of it goes once there is room.
#[test]
fn a_full_state_directory_is_said_and_nothing_is_lost() {
    let disk = SmallDisk::new(64);
    let (mut prepared, mut refused) = (0, 0);
    for free in 0..8 {
        let runner = Runner::builder()
            .driver(&disk.driver)
            .state_directory(&disk.state())
            .build();
        disk.fill(free);
        runner.config().assert_success();
        let output = runner.prepare();
        let text = output.stderr_text();
        assert!(!text.contains("panicked"), "{output}");
        if output.code() == Some(0) {
            prepared += 1;
            runner.run("build_script", "echo on").assert_stdout("on\n");
        } else {
            refused += 1;
            assert_eq!(output.code(), Some(2), "{output}");
            assert_eq!(text.matches("ERROR: ").count(), 1, "{output}");
            assert!(text.contains("No space left"), "{free} pages: {output}");
            let run = runner.run("build_script", "echo never");
            assert_refused(&run, 2, &["nothing is known of this job"]);
        }
        // The disk may fill up meanwhile; the machine ends even so.
        disk.fill(0);
        let output = runner.cleanup();
        if output.code() != Some(0) {
            assert_refused(&output, 2, &["No space left"]);
        }
        runner.assert_nothing_left();
        disk.free();
        runner.cleanup().assert_success();
        assert_eq!(jobs(&disk.outside("state")), 0, "{free} pages");
    }
    assert!(
        prepared > 0 && refused > 1,
        "{prepared} prepared, {refused} refused"
    );
}

#[test]
fn a_read_only_state_directory_is_said_and_nothing_is_lost() {
    let disk = SmallDisk::new(64);
    let runner = Runner::builder()
        .driver(&disk.driver)
        .state_directory(&disk.state())
        .build();
    disk.remount("ro");
    runner.config().assert_success();
    assert_refused(&runner.prepare(), 2, &["state", "Read-only"]);
    runner.assert_nothing_left();
    runner.cleanup().assert_success();
    disk.remount("rw");
    runner.next_attempt();
    runner.start();
    // What a keeper writes it has open already; scripts go on.
    runner.run("build_script", "echo on").assert_stdout("on\n");
}
