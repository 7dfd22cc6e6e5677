//! Cancels of `run` that reach a running script: its traps, its groups, its stubbornness, its daemons.

use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;

use super::super::PLACE;
use super::LIMIT;
use super::assert_usable;
use super::cancel;
use super::end;
use super::left_of;
use super::on_every_machine;
use crate::lab::PATIENCE;
use crate::lab::traces::until;
use crate::lab::unread::spawn_unread;
use crate::lab::unread::wait_child;

#[test]
fn run_during_the_script_whose_trap_has_the_last_word() {
    on_every_machine(|runner| {
        let script = "trap 'echo the end; echo of it >&2; exit 7' TERM\n\
                      echo ready\nwhile :; do sleep 0.05; done\n";
        let stage = runner.spawn_run("build_script", script);
        stage.wait_output(b"ready\n", PATIENCE);
        let output = cancel(stage);
        let text = output.stdout_text();
        output.assert_code(1);
        assert_eq!(runner.exit_file().as_deref(), Some(&b"7"[..]));
        // The shell's own word on the `sleep` that died may stand between.
        assert!(text.starts_with("ready\n"), "{text}");
        assert!(text.ends_with("the end\nof it\n"), "{text}");
        assert_usable(runner);
    });
}

#[test]
fn run_during_a_command_with_a_group_of_its_own() {
    on_every_machine(|runner| {
        let script = "echo ready; timeout 100 sleep 100; echo \"after: $?\"";
        let stage = runner.spawn_run("build_script", script);
        stage.wait_output(b"ready\n", PATIENCE);
        until("the sleep", PATIENCE, || {
            !left_of(runner, "sleep 100").is_empty()
        });
        cancel(stage).assert_code(1);
        assert_eq!(left_of(runner, "sleep 100"), [""; 0]);
        // busybox' own watches from a session of its own, and looks once a second.
        until("the end of timeout", PATIENCE, || {
            left_of(runner, "timeout 100 sleep 100").is_empty()
        });
        assert_usable(runner);
    });
}

/// A script of which every process shrugs at TERM.
const STUBBORN: &str = "trap 'echo heard' TERM\n\
                        (trap '' TERM; while :; do sleep 1; done) &\n\
                        echo ready\nwhile :; do sleep 0.05 || :; done\n";

#[test]
fn run_whose_script_ignores_it_is_killed_after_the_grace() {
    on_every_machine(|runner| {
        let stage = runner.spawn_run("build_script", STUBBORN);
        stage.wait_output(b"ready\n", PATIENCE);
        let began = Instant::now();
        let output = cancel(stage);
        let took = began.elapsed();
        assert!(output.contains("heard\n"), "{output}");
        assert!(took > Duration::from_secs(9), "no grace: {output}");
        assert!(took < Duration::from_secs(25), "{output}");
        output.assert_code(1);
        assert_eq!(runner.exit_file().as_deref(), Some(&b"137"[..]));
        assert_usable(runner);
    });
}

#[test]
fn run_that_is_cancelled_again_is_killed_at_once() {
    on_every_machine(|runner| {
        let is_quick = || {
            let stage = runner.spawn_run("build_script", STUBBORN);
            stage.wait_output(b"ready\n", PATIENCE);
            let began = Instant::now();
            stage.signal(Signal::TERM);
            stage.wait_output(b"heard\n", PATIENCE);
            cancel(stage).assert_code(1);
            let took = began.elapsed();
            assert_eq!(runner.exit_file().as_deref(), Some(&b"137"[..]));
            eprintln!("after {took:?}");
            took < Duration::from_secs(8)
        };
        // A busy host may hold one up for as long as the grace would last, but not each.
        assert!((0..3).any(|_| is_quick()), "insisting did not help");
        assert_usable(runner);
    });
}

#[test]
fn daemons_are_not_the_sessions_and_end_with_the_machine() {
    on_every_machine(|runner| {
        // A daemon has no parent of the script: the agent ends what descends from it, in whichever session.
        let script = "(setsid sleep 5432 </dev/null >/dev/null 2>&1 &)\n\
                      echo ready\nwhile :; do sleep 0.05; done\n";
        let stage = runner.spawn_run("build_script", script);
        stage.wait_output(b"ready\n", PATIENCE);
        until("the daemon", PATIENCE, || {
            !left_of(runner, "sleep 5432").is_empty()
        });
        cancel(stage).assert_code(1);
        assert_usable(runner);
        assert_eq!(left_of(runner, "sleep 5432").len(), 1);
        runner.cleanup().assert_success();
        // AWS may have said only that the machine will end.
        until("the daemon's end", PATIENCE, || {
            left_of(runner, "sleep 5432").is_empty()
        });
    });
}

#[test]
fn run_whose_output_nobody_reads_ends_too() {
    let runner = PLACE.job().build();
    runner.start();
    let done = runner.root().join("done");
    // More than all pipes and queues hold; then more than the pipe but little enough for the queues.
    for (bytes, goes_on) in PLACE.some([(40_000_000, true), (100_000, false)], 1) {
        let mut script = format!(
            "head -c {bytes} /dev/zero; touch {done}\n",
            done = done.display()
        );
        if goes_on {
            script += "exec sleep 4323\n";
        }
        let mut child = spawn_unread(&runner, &script);
        until("the script's last word", PATIENCE, || done.exists());
        if !goes_on {
            // Its end is known then, and all that is left to do is to write.
            let traces = runner.traces();
            until("the spool is forgotten", PATIENCE, || {
                traces.scripts().is_empty()
            });
        }
        std::fs::remove_file(&done).unwrap();
        let began = Instant::now();
        let group = Pid::from_child(&child);
        rustix::process::kill_process_group(group, Signal::TERM).unwrap();
        let within = LIMIT.saturating_sub(began.elapsed());
        let code = wait_child(&mut child, within);
        assert!([1, 2].contains(&code), "{code}");
    }
    assert_usable(&runner);
    end(&runner);
}

#[test]
fn sources_that_fail_twice_are_fetched_three_times() {
    on_every_machine(|runner| {
        let count = runner.root().join("count");
        let script = format!(
            "echo x >> {count}\n[ \"$(wc -l < {count})\" -eq 3 ] || exit 128\necho fetched\n",
            count = count.display()
        );
        for _ in 0..2 {
            runner
                .run("get_sources", &script)
                .assert_code(1)
                .assert_stdout("");
            assert_eq!(runner.exit_file().as_deref(), Some(&b"128"[..]));
        }
        let output = runner.run("get_sources", &script);
        output.assert_success().assert_stdout("fetched\n");
        assert_eq!(std::fs::read_to_string(count).unwrap(), "x\nx\nx\n");
        assert_eq!(runner.exit_file(), None);
    });
}
