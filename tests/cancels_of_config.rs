//! Cancels of `config`: its answer is whole, or there is none.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use rustix::fs::OFlags;

use crate::cancels::assert_given_up;
use crate::cancels::cancel;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::traces::until;

#[test]
fn config_answers_whole_or_not_at_all() {
    let runner = Runner::builder().build();
    let whole = runner.config().assert_success().stdout;
    for _ in 0..20 {
        let output = cancel(runner.spawn_config());
        if output.code() == Some(0) {
            assert_eq!(output.stdout, whole, "{output}");
        } else {
            assert_given_up(&output);
            // The signal may come between the answer and the end.
            assert!(
                output.stdout.is_empty() || output.stdout == whole,
                "{output}"
            );
        }
    }
    // A file that cannot be read to its end, as on a dead network mount.
    let pipe = runner.root().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    std::fs::remove_file(runner.config_file()).unwrap();
    std::fs::rename(&pipe, runner.config_file()).unwrap();
    let stage = runner.spawn_config();
    let mut writer = None;
    until("the file is read, or refused", PATIENCE, || {
        let flags = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
        let mut options = File::options();
        let opened = options.write(true).custom_flags(flags);
        writer = opened.open(runner.config_file()).ok();
        writer.is_some() || stage.is_over()
    });
    assert_given_up(&cancel(stage));
    drop(writer);
    std::fs::remove_file(runner.config_file()).unwrap();
    runner.write_config(&runner.default_config());
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
