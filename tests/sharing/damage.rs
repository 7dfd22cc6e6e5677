//! What is shared is no job's condition: damaged, out of reach, or not to be written.

use std::sync::Arc;

use super::files;
use super::job;
use crate::lab;
use crate::lab::aws::Account;

#[test]
fn a_job_runs_whatever_the_shared_files_hold() {
    let account = Arc::new(Account::new());
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let shared = state.join("shared");
    let contents: [&[u8]; 4] = [
        b"",
        b"{\"missing\":1e300,\"at\":-1e300}",
        b"\xff\x00{",
        &[b'['; 9000],
    ];
    let play = || {
        let runner = job(&account, &state).build();
        runner.start();
        runner
            .run("build_script", "echo on\n")
            .assert_stdout("on\n");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    };
    play();
    for content in contents {
        let files = files(&shared);
        assert!(files.len() >= 4, "{files:?}");
        for file in files {
            std::fs::write(file, content).unwrap();
        }
        play();
    }
    // Directories where files should be, and the other way round.
    for file in files(&shared) {
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
    }
    play();
    std::fs::remove_dir_all(&shared).unwrap();
    std::fs::write(&shared, "").unwrap();
    play();
}
