//! How scripts end, and what GitLab Runner is told of it: the stage's code, the script's own in the file.

use super::PLACE;
use super::scripts::Gate;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces::long;

/// Scripts and their own codes. A signal ends the script's shell itself, as it would end a lone command.
const ENDINGS: [(&str, u8); 18] = [
    ("exit 0", 0),
    ("true", 0),
    ("exit 1", 1),
    ("exit 2", 2),
    ("set -e; false; exit 9", 1),
    ("exit 42", 42),
    ("exit 126", 126),
    ("/etc/passwd", 126),
    ("exit 127", 127),
    ("no-such-command-anywhere", 127),
    ("exit 128", 128),
    ("exit 255", 255),
    ("exit 256", 0),
    ("exit -1", 255),
    ("kill -KILL $$", 137),
    ("kill -TERM $$", 143),
    ("ulimit -c 0; kill -SEGV $$", 139),
    ("sh -c 'kill -KILL $$'", 137),
];

/// Returns the machines of a kind: one shell of each in the short form.
fn machines(kind: Kind, short: Login) -> Vec<(Kind, Login)> {
    let all = servers::ALL.into_iter();
    all.filter(|(k, login)| *k == kind && (long() || *login == short))
        .collect()
}

fn endings_are_told(builder: RunnerBuilder) {
    let runner = builder.build();
    runner.start();
    for (script, code) in ENDINGS {
        let text = format!("echo begun\n{script}\n");
        // bash says itself, on standard error, what it cannot run.
        let output = runner.run("build_script", text);
        assert!(output.stdout.starts_with(b"begun\n"), "{script}: {output}");
        if !matches!(code, 126 | 127) && !script.starts_with("sh ") {
            assert_eq!(output.stdout, b"begun\n", "{script}: {output}");
        }
        assert!(output.stderr.is_empty(), "{script}: {output}");
        let (expected, file) = match code {
            0 => (0, None),
            code => (1, Some(code.to_string().into_bytes())),
        };
        assert_eq!(output.code(), Some(expected), "{script}: {output}");
        // The file of the ending before was another one's, or it is absent now.
        assert_eq!(runner.exit_file(), file, "{script}: {output}");
    }
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn endings_are_told_on_openssh() {
    for (kind, login) in machines(Kind::OpenSsh, Login::Bash) {
        endings_are_told(PLACE.job().machine(ServerBuilder::new(kind, login)));
    }
}

#[test]
fn endings_are_told_on_dropbear() {
    for (kind, login) in machines(Kind::Dropbear, Login::Dash) {
        endings_are_told(PLACE.job().machine(ServerBuilder::new(kind, login)));
    }
}

#[test]
fn endings_are_told_on_the_projects_server() {
    for (kind, login) in machines(Kind::Own, Login::Busybox) {
        endings_are_told(PLACE.job().machine(ServerBuilder::new(kind, login)));
    }
}

#[test]
fn endings_are_told_on_the_drivers_own_machine() {
    endings_are_told(PLACE.job());
}

#[test]
fn the_runners_own_codes_are_honoured() {
    for (build, system) in PLACE.some([(7, 9), (2, 1), (200, 255)], 1) {
        let runner = PLACE
            .job()
            .exit_codes(&build.to_string(), &system.to_string())
            .build();
        runner.start();
        runner.run("build_script", "exit 42").assert_code(build);
        assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
        // The script's own code is the one that stands for the machinery's failures: still the script's.
        runner
            .run("build_script", format!("exit {system}"))
            .assert_code(build);
        assert_eq!(runner.exit_file(), Some(system.to_string().into_bytes()));
        runner.run("build_script", "exit 0").assert_code(0);
        assert_eq!(runner.exit_file(), None);
        let missing = runner.attempt().join("no-such-script");
        let output = runner.spawn_run_file("build_script", &missing);
        output.wait(PATIENCE).assert_code(system);
        runner.cleanup().assert_success();
        // Nothing is known of the job any more.
        runner.run("build_script", "exit 0").assert_code(system);
    }
}

#[test]
fn a_failure_of_the_machinery_leaves_no_script_code() {
    let runner = PLACE.job().build();
    runner.start();
    let good = runner.default_config();
    let stale = || {
        runner.run("step_one", "exit 42").assert_code(1);
        assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
    };
    stale();
    let missing = runner.attempt().join("no-such-script");
    let output = runner.spawn_run_file("build_script", &missing);
    output.wait(PATIENCE).assert_code(2);
    assert_eq!(runner.exit_file(), None);
    stale();
    runner.write_config("capacity = \n");
    runner.run("build_script", "exit 3").assert_code(2);
    assert_eq!(runner.exit_file(), None);
    runner.write_config(&good);
    stale();
    runner.cleanup().assert_success();
    runner.run("build_script", "exit 3").assert_code(2);
    assert_eq!(runner.exit_file(), None);
}

#[test]
fn the_file_of_the_sub_stage_before_is_gone_while_the_next_runs() {
    let runner = PLACE.job().build();
    runner.start();
    runner.run("get_sources", "exit 42").assert_code(1);
    let before = files(&runner);
    let gate = Gate::new(runner.root());
    let script = format!("echo begun\nread -r code < {gate}\nexit $code\n");
    let stage = runner.spawn_run("build_script", script);
    stage.wait_output(b"begun\n", PATIENCE);
    assert_eq!(runner.exit_file(), None);
    gate.open("43");
    stage.wait(PATIENCE).assert_code(1);
    assert_eq!(runner.exit_file().as_deref(), Some(&b"43"[..]));
    // Nothing was left beside it by the writing.
    let left: Vec<_> = files(&runner)
        .into_iter()
        .filter(|name| !before.contains(name) && !name.starts_with("script"))
        .collect();
    assert_eq!(left, <[String; 0]>::default());
}

fn files(runner: &Runner) -> Vec<String> {
    let list = std::fs::read_dir(runner.attempt()).unwrap();
    list.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_code_that_cannot_be_written_is_said_and_the_script_failed_all_the_same() {
    let runner = PLACE
        .job()
        .environment("BUILD_EXIT_CODE_FILE", Some("/nonexistent/directory/code"))
        .build();
    runner.start();
    runner
        .run("build_script", "exit 42")
        .assert_code(1)
        .assert_contains("exit code 42")
        .assert_contains("/nonexistent/directory/code");
    runner.run("build_script", "exit 0").assert_stdout("");
}

/// Runners before 17.9 give no file for the code.
#[test]
fn older_runners_are_served() {
    let all = [
        (Kind::OpenSsh, Login::Busybox),
        (Kind::Dropbear, Login::Bash),
        (Kind::Own, Login::Dash),
    ];
    for (kind, login) in PLACE.some(all, 1) {
        let runner = PLACE
            .job()
            .machine(ServerBuilder::new(kind, login))
            .without_exit_code_file()
            .build();
        runner.config().assert_success();
        let before = files(&runner);
        let prepare = runner.prepare().assert_success();
        assert!(!prepare.contains("JOB_RESPONSE_FILE"), "{prepare}");
        for (script, code) in [("exit 0", 0), ("exit 42", 1), ("exit 2", 1), ("exit 1", 1)] {
            let output = runner.run("build_script", script).assert_code(code);
            output.assert_stdout("");
        }
        let left: Vec<_> = files(&runner)
            .into_iter()
            .filter(|name| !before.contains(name) && !name.starts_with("script"))
            .collect();
        assert_eq!(left, <[String; 0]>::default());
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}
