//! Machines that are hard to reach: late, forgetful, hostile, gone, or another one than they were.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use super::PLACE;
use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Door;
use crate::lab::proxy::Harm;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::traces::long;

/// How soon a failure that time cannot mend has to be told.
const AT_ONCE: Duration = Duration::from_secs(30);

fn assert_job_runs(runner: &Runner) {
    runner
        .run("build_script", "echo here; exit 42")
        .assert_code(1)
        .assert_stdout("here\n");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// Checks that a stage ended as a failure of the system, for that reason, and in time.
#[track_caller]
pub(crate) fn assert_system_failure(runner: &Runner, output: Output, reason: &str) {
    let output = output.assert_code(2).assert_contains(reason);
    let text = output.stderr_text();
    assert!(!text.contains("panicked"), "{output}");
    assert_eq!(runner.exit_file(), None);
}

/// Starts a script that goes on until it is ended from outside.
pub(crate) fn spawn_endless(runner: &Runner) -> Stage {
    let run = runner.spawn_run("build_script", "echo begun; while :; do sleep 1; done");
    run.wait_output(b"begun\n", PATIENCE);
    run
}

/// The moment from which a stage has to be over soon.
pub(crate) fn assert_ends_at_once(run: Stage, since: Instant) -> Output {
    let output = run.wait(PATIENCE);
    let took = since.elapsed();
    assert!(took < AT_ONCE, "it took {took:.1?}:\n{output}");
    output
}

fn behind_proxy(machine: ServerBuilder) -> lab::runner::RunnerBuilder {
    PLACE.job().machine(machine).through_proxy()
}

#[test]
fn a_login_that_refuses_is_told_in_its_own_words() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let runner = PLACE.job().machine(machine).build();
    runner.start();
    // As an instance answers root where its image wants another user.
    let words = "Please login as the user \"admin\" rather than the user \"root\".";
    let start_up = runner.server().home().join(".bashrc");
    std::fs::write(&start_up, format!("echo '{words}'\nexit 142\n")).unwrap();
    let output = runner.run("build_script", "echo never");
    let reason = format!("the machine cannot run the driver's far side: {words}");
    assert_system_failure(&runner, output, &reason);
    std::fs::remove_file(start_up).unwrap();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_command_that_is_refused_is_told_at_once() {
    let machine = ServerBuilder::new(Kind::Own, Login::Bash);
    let runner = PLACE.job().machine(machine).build();
    runner.start();
    // No shell can be started in a home that is not there any more.
    let home = runner.server().home();
    let away = home.with_extension("away");
    std::fs::rename(home, &away).unwrap();
    let output = runner.run("build_script", "echo never");
    std::fs::rename(away, home).unwrap();
    assert!(output.duration < AT_ONCE, "{output}");
    let reason = "the machine cannot run the driver's far side: cannot start ";
    assert_system_failure(&runner, output, reason);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_machine_that_refuses_for_too_long_is_told() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let runner = behind_proxy(machine).reconnect_timeout("3s").build();
    runner.start();
    let run = spawn_endless(&runner);
    let proxy = runner.proxy();
    proxy.door(Door::Refuse);
    let since = Instant::now();
    proxy.cut(Cut::Reset);
    let output = assert_ends_at_once(run, since);
    assert!(since.elapsed() > Duration::from_secs(2), "{output}");
    assert_system_failure(&runner, output, "connection refused");
    // The next script's own time begins anew.
    let since = Instant::now();
    let after = runner.spawn_run("after_script", "echo never");
    let output = assert_ends_at_once(after, since);
    assert_system_failure(&runner, output, "connection refused");
    proxy.door(Door::Open);
    assert_job_runs(&runner);
}

#[test]
fn a_machine_that_never_listens_is_told() {
    let machine = ServerBuilder::new(Kind::Dropbear, Login::Dash);
    let machine = machine.listen_late(Duration::from_secs(600));
    let runner = PLACE.job().machine(machine).connect_timeout("3s");
    let runner = runner.build();
    runner.config().assert_success();
    let since = Instant::now();
    let output = assert_ends_at_once(runner.spawn_prepare(), since);
    assert_system_failure(&runner, output, "connection refused");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_machine_that_is_knocked_on_ever_more_rarely_has_its_time_to_the_end() {
    let machine = ServerBuilder::new(Kind::Dropbear, Login::Dash);
    let runner = behind_proxy(machine).connect_timeout("3s").build();
    runner.proxy().door(Door::Close);
    runner.config().assert_success();
    let since = Instant::now();
    let output = assert_ends_at_once(runner.spawn_prepare(), since);
    // At 0, 0.2, 0.6 and 1.4 s, and then at the end of the time rather than never.
    assert!(output.duration >= Duration::from_secs(3), "{output}");
    assert_system_failure(&runner, output, "closed it");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// Prepares a machine that has this to be waited for, and runs a job there.
fn late_by(machine: ServerBuilder, late: Duration) {
    let runner = PLACE.job().machine(machine).connect_timeout("2m");
    let runner = runner.build();
    runner.config().assert_success();
    let output = runner.spawn_prepare().wait(2 * PATIENCE).assert_success();
    assert!(output.duration >= late, "{output}");
    // After a wait of the login's own, but not much later.
    assert!(output.duration < late + AT_ONCE, "{output}");
    assert_job_runs(&runner);
}

#[test]
fn a_server_that_listens_late_is_waited_for() {
    let late = Duration::from_secs(if long() { 60 } else { 8 });
    for kind in PLACE.some([Kind::OpenSsh, Kind::Own], 1) {
        late_by(
            ServerBuilder::new(kind, Login::Bash).listen_late(late),
            late,
        );
    }
}

#[test]
fn a_key_that_is_authorised_late_is_waited_for() {
    let late = Duration::from_secs(if long() { 20 } else { 8 });
    for kind in PLACE.some([Kind::OpenSsh, Kind::Dropbear], 1) {
        let machine = ServerBuilder::new(kind, Login::Bash);
        late_by(machine.authorise_late(late), late);
    }
}

#[test]
fn a_server_that_penalises_failed_logins_is_waited_for() {
    // Attempts come 6 s apart: the second must fail too, and the one after it must find the lockout still there.
    let (late, lasting) = if long() { (20, 15) } else { (14, 15) };
    for kind in PLACE.some([Kind::OpenSsh, Kind::Dropbear], 1) {
        let machine = ServerBuilder::new(kind, Login::Bash);
        let machine = machine.authorise_late(Duration::from_secs(late));
        let runner = behind_proxy(machine).connect_timeout("2m").build();
        runner.config().assert_success();
        let log = runner.server().log_file();
        let proxy = runner.proxy();
        proxy.penalise(2, Duration::from_secs(lasting), log);
        runner.spawn_prepare().wait(2 * PATIENCE).assert_success();
        let counts = proxy.counts();
        assert!(counts.turned_away > 0, "never penalised: {counts:?}");
        // The lockout is met with patience, not with attempts.
        assert!(counts.connections < 30, "{counts:?}");
        assert_job_runs(&runner);
    }
}

/// Where a machine without a process left would have been given up: it says nothing.
#[test]
fn a_server_that_penalises_before_a_script_is_waited_for() {
    if PLACE.leaves_out() {
        return;
    }
    let runner = behind_proxy(ServerBuilder::new(Kind::OpenSsh, Login::Bash)).build();
    runner.start();
    let proxy = runner.proxy();
    let before = proxy.counts().turned_away;
    proxy.door(Door::TurnAway);
    let run = runner.spawn_run("build_script", "echo here; exit 42");
    // At 0, 0.2, 0.6, 1.4, 3 and 6.2 s, at 12 s, and at once again.
    proxy.wait("eight knocks", PATIENCE, |counts| {
        counts.turned_away >= before + 8
    });
    proxy.door(Door::Open);
    let output = run.wait(PATIENCE).assert_code(1);
    assert_eq!(output.stdout_text(), "here\n", "{output}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();

    // What it says is told.
    let runner = behind_proxy(ServerBuilder::new(Kind::OpenSsh, Login::Bash));
    let runner = runner.connect_timeout("1s").build();
    runner.proxy().door(Door::TurnAway);
    runner.config().assert_success();
    let output = runner.prepare();
    assert_system_failure(&runner, output, "it says: Not allowed at this time");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_door_that_closes_at_first_is_knocked_on_again() {
    let runner = behind_proxy(ServerBuilder::new(Kind::OpenSsh, Login::Dash)).build();
    let proxy = runner.proxy();
    proxy.door(Door::Close);
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    proxy.wait("three knocks", PATIENCE, |counts| counts.turned_away >= 3);
    proxy.door(Door::Open);
    prepare.wait(PATIENCE).assert_success();
    assert_job_runs(&runner);
}

#[test]
fn a_door_that_is_silent_at_first_is_knocked_on_again() {
    let machine = ServerBuilder::new(Kind::Dropbear, Login::Bash);
    let runner = behind_proxy(machine).connect_timeout("50s").build();
    let proxy = runner.proxy();
    proxy.door(Door::Silent);
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    proxy.wait_connections(1, PATIENCE);
    proxy.door(Door::Open);
    prepare.wait(PATIENCE).assert_success();
    assert_job_runs(&runner);
}

#[test]
fn a_login_that_is_cut_is_tried_again() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let runner = behind_proxy(machine).connect_timeout("2m").build();
    let proxy = runner.proxy();
    for (index, bytes) in (0..2_400).step_by(300).enumerate() {
        let cut = if index % 2 == 0 {
            Cut::Reset
        } else {
            Cut::Close
        };
        let direction = if index % 3 == 0 {
            Direction::Up
        } else {
            Direction::Down
        };
        proxy.fault_on_next(direction, bytes, Harm::Cut(cut));
    }
    runner.config().assert_success();
    runner.spawn_prepare().wait(2 * PATIENCE).assert_success();
    assert_job_runs(&runner);
}

/// Another machine that knows the same key; its own keys are others.
struct Impostor {
    server: lab::servers::Server,
    running: lab::servers::Running,
    _directory: tempfile::TempDir,
}

impl Impostor {
    fn of(runner: &Runner, kind: Kind) -> Self {
        let directory = lab::temp_dir();
        let server = ServerBuilder::new(kind, Login::Bash).build(directory.path());
        let addresses = runner.machine_addresses();
        let running = server.start_at(&addresses, &runner.server().authorised_key());
        Self {
            server,
            running,
            _directory: directory,
        }
    }
}

#[test]
fn another_host_key_half_way_is_refused() {
    for kind in PLACE.some([Kind::OpenSsh, Kind::Dropbear], 1) {
        let runner = behind_proxy(ServerBuilder::new(kind, Login::Bash)).build();
        runner.start();
        let started: PathBuf = runner.root().join("after");
        let impostor = Impostor::of(&runner, kind);
        let run = spawn_endless(&runner);
        let proxy = runner.proxy();
        proxy.set_upstream(impostor.server.port());
        let since = Instant::now();
        proxy.cut(Cut::Reset);
        let output = assert_ends_at_once(run, since);
        assert_refused(&runner, output);
        // A script that comes afterwards is not even sent there.
        let since = Instant::now();
        let script = format!("touch {}", started.display());
        let after = runner.spawn_run("after_script", script);
        let output = assert_ends_at_once(after, since);
        assert_refused(&runner, output);
        assert_eq!(impostor.server.logins(), 0, "{}", impostor.server.log());
        assert!(!Path::new(&started).exists());
        impostor.running.end();
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[track_caller]
fn assert_refused(runner: &Runner, output: Output) {
    let shown = output.stderr_text();
    // Both fingerprints, for whoever has to find out.
    assert_eq!(shown.matches("SHA256:").count(), 2, "{output}");
    assert_system_failure(runner, output, "host key");
}
