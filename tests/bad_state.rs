//! Whatever is wrong with the state that a stage finds: one line that says so, and nothing lost or damaged further.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::bad_input::assert_refused;
use crate::bad_input::jobs;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::stage::Call;
use crate::lab::stage::Stage;
use crate::lab::tools;
use crate::scripts::record_file;

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
        ("far too much", vec![b' '; 17 << 20], "larger than 16 MiB"),
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

/// Checks that the machine of a job has ended though a file of it is kept, and that it is forgotten once that is mended.
#[track_caller]
fn assert_ended_and_kept(runner: &Runner, file: &Path, good: &[u8], what: &str) {
    runner.assert_nothing_left();
    std::fs::write(file, good).unwrap();
    runner.cleanup().assert_success();
    assert_eq!(jobs(runner.state_directory()), 0, "{what}");
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
        assert_ended_and_kept(&runner, &file, &good, what);
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
        assert_ended_and_kept(&runner, &file, &good, what);
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
