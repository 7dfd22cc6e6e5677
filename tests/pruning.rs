//! What nobody uses any more goes from the state directory by its age, at the end of any job and with `reap`.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use crate::lab;
use crate::lab::runner::Runner;

/// Each directory, and from which age on nobody needs what is in it.
const AGES: [(&str, u64); 6] = [
    ("tombstones", 24 * 3600),
    ("notes", 24 * 3600),
    ("known", 40 * 24 * 3600),
    ("shared/budget", 3600),
    ("shared/rungs", 3600),
    ("shared/climbs", 24 * 3600),
];

fn file(path: &Path, age: u64) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "").unwrap();
    aged(path, age);
    path.to_owned()
}

fn aged(path: &Path, age: u64) {
    let file = File::open(path).unwrap();
    let at = SystemTime::now() - Duration::from_secs(age);
    file.set_modified(at).unwrap();
}

/// Lays down what is old and what is not; returns both.
fn laid(state: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut old, mut young) = (Vec::new(), Vec::new());
    for (name, age) in AGES {
        let directory = state.join(name);
        old.push(file(&directory.join("0123456789abcdef.old"), age + 60));
        young.push(file(&directory.join("0123456789abcdef.young"), age - 600));
    }
    for (name, age, all) in [("old", 3700, &mut old), ("young", 3000, &mut young)] {
        let queue = state.join("shared/poll").join(name);
        file(&queue.join("lock"), 0);
        aged(&queue, age);
        all.push(queue);
    }
    // A link may lead anywhere; a writer that was killed leaves what nobody will rename.
    let elsewhere = file(&state.join("../elsewhere"), 100 * 24 * 3600);
    let link = state.join("notes/link");
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    young.push(elsewhere);
    old.push(file(&state.join("known/0123.999999999"), 0));
    old.push(file(&state.join("manager.999999999"), 0));
    (old, young)
}

#[track_caller]
fn assert_pruned(old: &[PathBuf], young: &[PathBuf]) {
    let left: Vec<_> = old.iter().filter(|path| path.exists()).collect();
    let gone: Vec<_> = young.iter().filter(|path| !path.exists()).collect();
    assert!(left.is_empty() && gone.is_empty(), "{left:?} {gone:?}");
}

#[test]
fn each_job_and_each_reap_removes_what_is_old() {
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let runner = Runner::builder().state_directory(&state).build();
    runner.start();
    let (old, young) = laid(&state);
    // To look is no reason to remove anything.
    runner.command(&["reap", "--dry-run"]).assert_success();
    assert!(old.iter().all(|path| path.exists()));
    runner.run("build_script", "echo on").assert_stdout("on\n");
    runner.cleanup().assert_success();
    assert_pruned(&old, &young);

    std::fs::remove_dir_all(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    std::fs::remove_file(directory.path().join("elsewhere")).unwrap();
    let (old, young) = laid(&state);
    runner.command(&["reap"]).assert_success();
    assert_pruned(&old, &young);
}
