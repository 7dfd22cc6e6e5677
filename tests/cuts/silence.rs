//! Connections that go silent, and machines that are out of reach for a while.

use std::path::Path;
use std::time::Duration;

use super::super::PLACE;
use super::Far;
use super::Watch;
use super::numbers;
use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Door;
use crate::lab::proxy::Harm;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::traces::long;

/// A silent connection must be noticed this soon.
const NOTICED: Duration = Duration::from_secs(45);

/// Returns a script that goes on until a file is there.
fn until(starts: &Path, gate: &Path, each_round: &str) -> String {
    format!(
        "echo started >> {}\necho begun\nuntil [ -e {} ]; do {each_round}sleep 0.1; done\n\
         echo ended\nexit 42\n",
        starts.display(),
        gate.display()
    )
}

/// Has a running script's connections go silent, all of them, until the driver makes a new one.
fn black_hole(machine: ServerBuilder, each_round: &str) -> (Far, Output) {
    let far = Far::start(machine);
    let proxy = far.runner.proxy();
    let (starts, gate) = (far.starts(), far.runner.root().join("gate"));
    let watch = Watch::start(&far);
    let run = far
        .runner
        .spawn_run("build_script", until(&starts, &gate, each_round));
    run.wait_output(b"begun\n", PATIENCE);
    let before = proxy.counts().connections;
    proxy.black_hole(true);
    proxy.wait_connections(before + 1, NOTICED);
    proxy.black_hole(false);
    std::fs::write(&gate, "").unwrap();
    let output = run.wait(PATIENCE);
    assert_eq!(output.stderr_text(), "");
    let starts = std::fs::read_to_string(starts).unwrap();
    assert_eq!(starts, "started\n");
    watch.assert_one();
    far.assert_no_spool();
    assert_eq!(far.runner.exit_file().as_deref(), Some(&b"42"[..]));
    (far, output)
}

#[test]
fn a_silent_connection_of_a_quiet_script_is_noticed() {
    let machine = ServerBuilder::new(Kind::Dropbear, Login::Dash);
    let (far, output) = black_hole(machine, "");
    assert_eq!(output.stdout_text(), "begun\nended\n");
    far.end();
}

#[test]
fn a_silent_connection_of_a_talking_script_is_noticed() {
    if PLACE.leaves_out() {
        return;
    }
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let (far, output) = black_hole(machine, "echo $((n += 1)); ");
    let text = output.stdout_text();
    let lines: Vec<&str> = text.lines().collect();
    let [first, middle @ .., last] = &lines[..] else {
        panic!("{text}");
    };
    assert_eq!((*first, *last), ("begun", "ended"));
    for (index, line) in middle.iter().enumerate() {
        assert_eq!(*line, (index + 1).to_string());
    }
    far.end();
}

#[test]
fn a_silent_connection_is_noticed_on_the_own_server_with_busybox() {
    if PLACE.leaves_out() {
        return;
    }
    let machine = ServerBuilder::new(Kind::Own, Login::Busybox).busybox_only();
    // Enough to fill all buffers of a connection that nobody reads.
    let (far, output) = black_hole(machine, "seq 1 20000; ");
    let text = output.stdout_text();
    let middle = text
        .strip_prefix("begun\n")
        .and_then(|text| text.strip_suffix("ended\n"))
        .unwrap();
    let rounds = numbers(20_000);
    assert!(
        middle.len().is_multiple_of(rounds.len()),
        "{}",
        middle.len()
    );
    assert!(
        middle
            .as_bytes()
            .chunks(rounds.len())
            .all(|part| part == rounds)
    );
    far.end();
}

/// Returns a script of 20 MiB.
fn large(starts: &Path) -> String {
    let padding = "# padding that takes its time\n".repeat(700_000);
    assert!(padding.len() > 20 << 20);
    format!(
        "echo started >> {}\n{padding}echo done\nexit 42\n",
        starts.display()
    )
}

#[test]
fn a_connection_that_goes_silent_while_sending_is_noticed() {
    if PLACE.leaves_out() {
        return;
    }
    for stalled_at in [3 << 20, 10 << 20]
        .into_iter()
        .take(if long() { 2 } else { 1 })
    {
        let far = Far::start(ServerBuilder::new(Kind::OpenSsh, Login::Bash));
        let proxy = far.runner.proxy();
        let starts = far.starts();
        let before = proxy.counts();
        proxy.fault_on_next(Direction::Up, stalled_at, Harm::Stall);
        let run = far.runner.spawn_run("build_script", large(&starts));
        proxy.wait_bytes(Direction::Up, before.up + stalled_at, PATIENCE);
        proxy.wait_connections(before.connections + 2, NOTICED);
        let output = run.wait(PATIENCE);
        far.assert_result(&output, b"done\n", 42, &starts);
        far.end();
    }
}

#[test]
fn a_connection_that_goes_silent_one_way_while_sending_is_noticed() {
    if PLACE.leaves_out() {
        return;
    }
    let far = Far::start(ServerBuilder::new(Kind::Own, Login::Dash));
    let proxy = far.runner.proxy();
    let starts = far.starts();
    let before = proxy.counts();
    // All of it would go at once, and the stall come too late: so it takes ten seconds and more.
    proxy.delay(Some(Duration::from_millis(20)));
    let run = far.runner.spawn_run("build_script", large(&starts));
    proxy.wait_bytes(Direction::Up, before.up + (4 << 20), PATIENCE);
    proxy.stall(Direction::Up, true);
    proxy.delay(None);
    let stalled = proxy.counts().up - before.up;
    assert!(stalled < 20 << 20, "too late: {stalled}");
    proxy.wait_connections(before.connections + 2, NOTICED);
    proxy.stall(Direction::Up, false);
    let output = run.wait(PATIENCE);
    far.assert_result(&output, b"done\n", 42, &starts);
    far.end();
}

/// Keeps a running script out of reach for a while and returns what the stage wrote.
fn lost_for(time: Duration) -> String {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let builder = PLACE.job().machine(machine).through_proxy();
    let far = Far::with(builder.reconnect_timeout("5m").build());
    let proxy = far.runner.proxy();
    let (starts, gate) = (far.starts(), far.runner.root().join("gate"));
    let run: Stage = far
        .runner
        .spawn_run("build_script", until(&starts, &gate, ""));
    run.wait_output(b"begun\n", PATIENCE);
    proxy.door(Door::Refuse);
    proxy.cut(Cut::Reset);
    // The time is what this is about.
    std::thread::sleep(time);
    proxy.door(Door::Open);
    std::fs::write(&gate, "").unwrap();
    let output = run.wait(PATIENCE).assert_code(1);
    assert_eq!(output.stdout_text(), "begun\nended\n");
    assert_eq!(far.runner.exit_file().as_deref(), Some(&b"42"[..]));
    far.assert_no_spool();
    far.end();
    output.stderr_text()
}

#[test]
fn a_short_loss_is_nobodys_business() {
    let time = if long() { 50 } else { 4 };
    assert_eq!(lost_for(Duration::from_secs(time)), "");
}

#[test]
fn a_loss_of_more_than_a_minute_is_told_once() {
    if !long() {
        eprintln!("skipped: takes over a minute; GAD_LONG=1 runs it");
        return;
    }
    let text = lost_for(Duration::from_secs(70));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("no connection to the machine"), "{text}");
}
