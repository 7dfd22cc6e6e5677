//! Sudden deaths of what watches a script on the machine: its supervisor, and the copier of its output.

use std::time::Duration;
use std::time::Instant;

use super::PLACE;
use crate::lab::PATIENCE;
use crate::lab::place::Place;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::traces::until;

/// How soon somebody has to notice a death.
const SOON: Duration = Duration::from_secs(40);

/// The place's ordinary machine, and others; `None`: the ordinary one.
fn machines() -> [Option<ServerBuilder>; 4] {
    [
        None,
        Some(ServerBuilder::new(Kind::OpenSsh, Login::Bash)),
        Some(ServerBuilder::new(Kind::Dropbear, Login::Dash)),
        Some(ServerBuilder::new(Kind::Own, Login::Busybox).busybox_only()),
    ]
}

fn on_every_machine(test: impl Fn(&Runner)) {
    for machine in PLACE.some(machines(), 2) {
        // The agent of the driver's own machine is all of these in one process.
        if machine.is_none() && PLACE == Place::Here {
            continue;
        }
        eprintln!("on {machine:?}");
        let builder = PLACE.job();
        let runner = match machine {
            Some(machine) => builder.machine(machine).build(),
            None => builder.build(),
        };
        runner.start();
        test(&runner);
        let traces = runner.traces();
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
        traces.assert_gone();
    }
}

/// Kills what the file names while a script sleeps; returns how the stage ended.
fn kill_far(runner: &Runner, file: &str) -> Output {
    let traces = runner.traces();
    let stage = runner.spawn_run("build_script", "echo ready; sleep 6004; echo never");
    stage.wait_output(b"ready\n", PATIENCE);
    until("the sleep", PATIENCE, || sleeps(runner));
    traces.kill(file);
    let killed = Instant::now();
    let output = stage.wait(PATIENCE);
    assert!(killed.elapsed() < SOON, "noticed late: {output}");
    until("the end of the script itself", SOON, || !sleeps(runner));
    until("the spool is forgotten", PATIENCE, || {
        traces.scripts().is_empty()
    });
    // The machine is as good as before.
    runner
        .run("after_script", "echo after")
        .assert_success()
        .assert_stdout("after\n");
    output
}

fn sleeps(runner: &Runner) -> bool {
    let all = runner.processes();
    all.iter()
        .any(|process| process.to_string().trim_end().ends_with(" sleep 6004"))
}

#[test]
fn the_supervisor_killed() {
    on_every_machine(|runner| {
        let output = kill_far(runner, "sup").assert_code(2);
        assert_eq!(runner.exit_file(), None);
        assert_eq!(output.stdout_text(), "ready\n", "{output}");
        let text = output.stderr_text();
        assert!(
            text.contains("ERROR: ") && text.contains("killed"),
            "{output}"
        );
    });
}

#[test]
fn the_copier_killed() {
    on_every_machine(|runner| {
        let output = kill_far(runner, "dd").assert_code(2);
        assert_eq!(runner.exit_file(), None);
        assert_eq!(output.stdout_text(), "ready\n", "{output}");
        let text = output.stderr_text();
        assert!(text.contains("ERROR: "), "{output}");
        // The disk is not full, and whoever is told so looks in the wrong place.
        assert!(text.contains("killed"), "{output}");
    });
}
