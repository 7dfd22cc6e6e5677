//! Start-up files of a login that keep it from its command.

use std::time::Duration;

use serde_json::json;

use crate::PLACE;
use crate::connecting::assert_system_failure;
use crate::lab::PATIENCE;
use crate::lab::place::Place;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Stage;
use crate::lab::traces::long;

/// Within this the job log names what is behind it.
const SOON: Duration = Duration::from_secs(30);
/// What is named, of each kind.
const FILES: &str = "(~/.bashrc, ~/.profile, ~/.zshenv, ~/.ssh/rc, their like in /etc and /etc/profile.d: what its shell reads)";
/// What is said where the login's command never begins.
const ASTRAY: &str = "a start-up file of the login, or a ForceCommand, starts another shell or reads what is sent to the job's command, \
                      which never began";

fn machine(start_up: &str) -> ServerBuilder {
    ServerBuilder::new(Kind::OpenSsh, Login::Bash).start_up(start_up)
}

fn ends(runner: &Runner) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// Start-up files that swallow what is sent to the command, the job's script included.
const SWALLOWING: [&str; 6] = [
    "exec bash",
    "exec zsh",
    // It has a prompt, and knows no comment behind a command.
    "exec zsh -i",
    // Not in its place, but before it.
    "sh",
    "read -r answer",
    "printf 'Which environment? ' >&2; read -r answer",
];
/// Those on which there is silence. The second takes all that ever comes.
const WAITING: [&str; 2] = ["sleep 1000", "cat >/dev/null"];

#[test]
fn a_script_is_not_run_by_a_shell_that_a_start_up_file_starts_and_the_file_is_named() {
    for start_up in SWALLOWING {
        eprintln!("{start_up}");
        for kind in PLACE.some([Kind::OpenSsh, Kind::Dropbear], 1) {
            let machine = ServerBuilder::new(kind, Login::Bash).start_up(start_up);
            let runner = PLACE.job().machine(machine).build();
            runner.start();
            let trace = runner.root().join("ran");
            let script = format!("touch '{0}'\ntouch '{0}'\n", trace.display());
            let output = runner.run("build_script", script);
            assert!(output.duration < SOON / 2, "{output}");
            let output = output.assert_contains(FILES);
            assert_system_failure(&runner, output, ASTRAY);
            assert!(!trace.exists(), "{start_up}");
            ends(&runner);
        }
    }
}

#[test]
fn prepare_names_a_start_up_file_that_starts_another_shell() {
    for start_up in ["exec bash", "exec zsh -i", "sh"] {
        eprintln!("{start_up}");
        let runner = Place::Task.job().machine(machine(start_up)).build();
        runner.config().assert_success();
        let output = runner.prepare();
        assert!(output.duration < SOON / 2, "{output}");
        let output = output.assert_contains(FILES);
        assert_system_failure(&runner, output, ASTRAY);
        ends(&runner);
    }
}

#[test]
fn an_instance_that_keeps_a_key_or_has_containers_names_such_a_file_too() {
    let job = |machine| Place::Instance.job().machine(machine);
    let image = json!({ "name": "localhost/lab/app:1", "pull_policy": "never" });
    // What it starts takes all of the text at once, or one line of it.
    for start_up in ["sh", "read -r answer"] {
        eprintln!("{start_up}");
        let keeps = job(machine(start_up).instance_connect()).ec2_line("instance_connect = true");
        let contains = job(machine(start_up))
            .ec2_line("container = true")
            .config_tables("[limits]\nimages = [\"localhost/lab/*\"]\n")
            .payload_field("image", image.clone());
        for job in [keeps, contains] {
            let runner = job.build();
            runner.config().assert_success();
            let output = runner.prepare().assert_contains(FILES);
            assert_system_failure(&runner, output, ASTRAY);
            ends(&runner);
        }
    }
}

/// Waits until a stage has named the files; returns it, still there.
fn told(stage: &Stage) {
    stage.wait_output(b"has said nothing for 20 s", SOON);
    let so_far = stage.so_far();
    assert_eq!(so_far.stderr_text().matches(FILES).count(), 1, "{so_far}");
}

#[test]
fn a_login_that_waits_is_told_in_time_in_prepare_and_in_run() {
    // Beside each other: each takes its time.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runner = Place::Task.job().machine(machine("sleep 1000")).build();
            runner.config().assert_success();
            let prepare = runner.spawn_prepare();
            told(&prepare);
            if long() {
                let output = prepare.wait(4 * SOON).assert_code(2);
                let what = "the login to the machine did not come to its first command within 30 s";
                output.assert_contains(what);
            } else {
                prepare.signal(rustix::process::Signal::TERM);
                prepare.wait(PATIENCE).assert_code(2);
            }
            ends(&runner);
        });
        for start_up in WAITING {
            scope.spawn(move || {
                let job = PLACE.job().machine(machine(start_up));
                let runner = job.reconnect_timeout("21s").build();
                runner.start();
                let run = runner.spawn_run("build_script", "echo never");
                told(&run);
                let output = run.wait(SOON).assert_contains("its far side said nothing");
                // Once more, as the remedy.
                assert_eq!(output.stderr_text().matches(FILES).count(), 2, "{output}");
                assert_system_failure(&runner, output, "the machine lets in");
                ends(&runner);
            });
        }
        scope.spawn(|| {
            // Slow, and honest.
            let runner = PLACE.job().machine(machine("sleep 25")).build();
            runner.start();
            let run = runner.spawn_run("build_script", "echo here");
            told(&run);
            let output = run.wait(SOON).assert_success();
            assert_eq!(output.stdout_text(), "here\n", "{output}");
            ends(&runner);
        });
    });
}
