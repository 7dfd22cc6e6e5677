//! Cancels of `run` while there is no connection: before it stands, while the script is sent, after it was lost.

use rustix::process::Signal;

use super::super::PLACE;
use super::LIMIT;
use super::assert_usable;
use super::at_once;
use super::behind_proxy;
use super::cancel;
use super::end;
use super::is_pending;
use super::left_of;
use super::wait_heeds_term;
use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Door;
use crate::lab::proxy::Harm;
use crate::lab::traces::until;

#[test]
fn run_before_the_connection_stands() {
    let runner = behind_proxy();
    runner.start();
    let marker = runner.root().join("ran");
    for door in [Door::Refuse, Door::Silent] {
        let before = runner.proxy().counts().connections;
        runner.proxy().door(door);
        let script = format!("touch {}", marker.display());
        let stage = runner.spawn_run("build_script", script);
        wait_heeds_term(&stage);
        if door == Door::Silent {
            runner.proxy().wait_connections(before + 1, PATIENCE);
        }
        cancel(stage)
            .assert_code(2)
            .assert_contains("cancelled before this script began");
        runner.proxy().door(Door::Open);
    }
    assert!(!marker.exists());
    assert_eq!(runner.exit_file(), None);
    assert_usable(&runner);
    end(&runner);
}

#[test]
fn run_while_the_script_is_sent() {
    let runner = behind_proxy();
    runner.start();
    let marker = runner.root().join("ran");
    let mut script = format!("touch {}\n", marker.display());
    script += &"# a long comment, as variables make a script long\n".repeat(40_000);
    let up = runner.proxy().counts().up;
    runner
        .proxy()
        .fault_on_next(Direction::Up, 300_000, Harm::Stall);
    let stage = runner.spawn_run("build_script", script);
    runner
        .proxy()
        .wait_bytes(Direction::Up, up + 300_000, PATIENCE);
    cancel(stage).assert_code(2);
    assert!(!marker.exists(), "a part of a script was run");
    assert_usable(&runner);
    assert!(!marker.exists(), "a script began after its cancel");
    end(&runner);
}

/// All that the machine says is lost from some byte of the connection on: in the key exchange, in the login, in
/// the news that the script began, in its output.
#[test]
fn run_while_nobody_tells_that_the_script_began() {
    let moments = PLACE.some((0..8).map(|step| 600 + step * 350), 3);
    at_once(moments, |bytes| {
        let runner = behind_proxy();
        runner.start();
        let script = "while :; do echo a line of output, to be sure of some; sleep 0.01; done";
        let down = runner.proxy().counts().down;
        runner
            .proxy()
            .fault_on_next(Direction::Down, bytes, Harm::Stall);
        let stage = runner.spawn_run("build_script", script);
        runner
            .proxy()
            .wait_bytes(Direction::Down, down + bytes, PATIENCE);
        let output = cancel(stage);
        assert!(matches!(output.code(), Some(1 | 2)), "{output}");
        assert_usable(&runner);
        // A script that could not be told ended before the next one began.
        let left = runner.traces().scripts();
        assert!(left.is_empty(), "{left:?}");
        end(&runner);
    });
}

#[test]
fn run_while_disconnected_hands_the_cancel_on_when_it_can() {
    let runner = behind_proxy();
    runner.start();
    let go = runner.root().join("go");
    let script = format!(
        "trap 'echo the end; exit 7' TERM\necho ready\n\
         until [ -e {} ]; do sleep 0.05; done\necho unreached\n",
        go.display()
    );
    let stage = runner.spawn_run("build_script", script);
    stage.wait_output(b"ready\n", PATIENCE);
    runner.proxy().door(Door::Refuse);
    runner.proxy().cut(Cut::Reset);
    stage.signal(Signal::TERM);
    until("the signal is taken", PATIENCE, || !is_pending(&stage));
    runner.proxy().door(Door::Open);
    let output = stage.wait(LIMIT).assert_code(1);
    assert!(output.contains("the end\n"), "{output}");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"7"[..]));
    assert_usable(&runner);
    end(&runner);
}

#[test]
fn run_that_cannot_hand_the_cancel_on_ends_all_the_same() {
    let runner = behind_proxy();
    runner.start();
    let stage = runner.spawn_run("build_script", "echo ready; exec sleep 4322");
    stage.wait_output(b"ready\n", PATIENCE);
    runner.proxy().door(Door::Refuse);
    runner.proxy().cut(Cut::Reset);
    let output = cancel(stage);
    assert!(output.contains("cancelled"), "{output}");
    output.assert_code(2);
    runner.proxy().door(Door::Open);
    assert_usable(&runner);
    assert_eq!(left_of(&runner, "sleep 4322"), [""; 0]);
    end(&runner);
}

#[test]
fn run_after_the_end_marker_keeps_its_result() {
    let runner = behind_proxy();
    runner.start();
    for code in PLACE.some([3, 0], 1) {
        let go = runner.root().join(format!("go-{code}"));
        let script = format!(
            "echo ready\nuntil [ -e {} ]; do sleep 0.05; done\necho bye\nexit {code}\n",
            go.display()
        );
        let stage = runner.spawn_run("build_script", script);
        stage.wait_output(b"ready\n", PATIENCE);
        // The word that the spool is not needed any more does not get through.
        runner.proxy().stall(Direction::Up, true);
        std::fs::write(&go, "").unwrap();
        stage.wait_output(b"bye\n", PATIENCE);
        let output = cancel(stage);
        runner.proxy().stall(Direction::Up, false);
        assert_eq!(output.stdout_text(), "ready\nbye\n", "{output}");
        output.assert_code(i32::from(code != 0));
        let file = runner.exit_file();
        assert_eq!(file.as_deref(), (code != 0).then_some(&b"3"[..]));
    }
    assert_usable(&runner);
    end(&runner);
}

/// Neither the cancel nor, later, the word that the spool is not needed gets through, so the stage's time is over when it
/// ends. The result that came in between counts all the same: once a busy machine lost it to the wait for the writer.
#[test]
fn run_whose_end_marker_comes_after_the_cancel_keeps_its_result() {
    if PLACE.leaves_out() {
        return;
    }
    let runner = behind_proxy();
    runner.start();
    let go = runner.root().join("go");
    let script = format!(
        "echo ready\nuntil [ -e {} ]; do sleep 0.05; done\necho bye\nexit 3\n",
        go.display()
    );
    let stage = runner.spawn_run("build_script", script);
    stage.wait_output(b"ready\n", PATIENCE);
    runner.proxy().stall(Direction::Up, true);
    stage.signal(Signal::TERM);
    until("the signal is taken", PATIENCE, || !is_pending(&stage));
    std::fs::write(&go, "").unwrap();
    let output = stage.wait(LIMIT).assert_code(1);
    runner.proxy().stall(Direction::Up, false);
    assert_eq!(output.stdout_text(), "ready\nbye\n", "{output}");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    assert_usable(&runner);
    end(&runner);
}
