//! Connections that are cut after each so many bytes, while a script is sent and while its result comes.

use std::path::Path;

use super::super::PLACE;
use super::CUTS;
use super::Far;
use super::NOISE;
use super::Random;
use super::numbers;
use crate::lab::PATIENCE;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Harm;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces::long;

/// Where the connection of one short script is cut, byte by byte.
fn sweep(machine: ServerBuilder, seed: u64, direction: Direction) {
    let far = Far::start(machine);
    let proxy = far.runner.proxy();
    let mut random = Random::new(seed);
    // The script's own size matters on the way up only.
    let padding = match direction {
        Direction::Up => "# padding, to be sent in many pieces\n".repeat(8_300),
        Direction::Down => String::new(),
    };
    let script = |starts: &Path| {
        format!(
            "echo started >> {}\n{padding}seq 1 200\nexit 42\n",
            starts.display()
        )
    };
    let expected = numbers(200);
    let bytes = || proxy.counts().bytes(direction);
    // The smaller of two: a busy host may need another connection to tidy up.
    let whole = (0..2).map(|_| {
        let starts = far.starts();
        let before = bytes();
        let output = far.runner.run("build_script", script(&starts));
        far.assert_result(&output, &expected, 42, &starts);
        proxy.wait("the end", PATIENCE, |counts| counts.open == 0);
        bytes() - before
    });
    let whole = whole.min().unwrap();
    let steps = match (long(), PLACE.thorough()) {
        (true, _) => 60,
        (false, true) => 8,
        (false, false) => 2,
    };
    let mut points: Vec<u64> = (0..steps).map(|_| random.below(whole)).collect();
    // Small numbers hit the login and the command, the last ones the end marker, its receipt and `done`.
    let (first, last) = (whole.min(14_000), whole.min(1_200));
    points.extend((0..steps).map(|step| step * first / steps + random.below(first / steps)));
    points.extend((0..steps).map(|step| whole - last + step * last / steps));
    let (all, mut cuts) = (points.len(), 0);
    for (index, point) in points.into_iter().enumerate() {
        let cut = CUTS[index % 2];
        let starts = far.starts();
        let before = proxy.counts();
        proxy.fault_on_next(direction, point, Harm::Cut(cut));
        eprintln!("{cut:?} after {point} of {whole} bytes {direction:?}");
        let output = far.runner.run("build_script", script(&starts));
        far.assert_result(&output, &expected, 42, &starts);
        let counts = proxy.wait("the end", PATIENCE, |counts| counts.open == 0);
        // The bytes vary a little (how many packets there are): the last ones may not come this time.
        let reached = counts.cut == before.cut + 1;
        let came = counts.bytes(direction) - before.bytes(direction);
        assert!(reached || came <= point, "{came} bytes: {counts:?}");
        if reached {
            cuts += 1;
        } else {
            // The fault was the connection's, and is gone with it.
            assert_eq!(counts.connections, before.connections + 1);
        }
    }
    assert!(4 * cuts >= all, "only {cuts} of {all} cuts came");
    far.end();
}

#[test]
fn cuts_while_a_script_is_sent_to_openssh() {
    sweep(
        ServerBuilder::new(Kind::OpenSsh, Login::Bash),
        1,
        Direction::Up,
    );
}

#[test]
fn cuts_while_a_script_is_sent_to_dropbear() {
    let machine = ServerBuilder::new(Kind::Dropbear, Login::Dash).noise(NOISE);
    sweep(machine, 2, Direction::Up);
}

#[test]
fn cuts_while_a_script_is_sent_to_the_own_server() {
    let machine = ServerBuilder::new(Kind::Own, Login::Busybox).busybox_only();
    sweep(machine, 3, Direction::Up);
}

#[test]
fn cuts_while_a_result_comes_from_openssh() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Dash).noise(NOISE);
    sweep(machine, 4, Direction::Down);
}

#[test]
fn cuts_while_a_result_comes_from_dropbear() {
    let machine = ServerBuilder::new(Kind::Dropbear, Login::Busybox).busybox_only();
    sweep(machine, 5, Direction::Down);
}

#[test]
fn cuts_while_a_result_comes_from_the_own_server() {
    sweep(
        ServerBuilder::new(Kind::Own, Login::Bash),
        6,
        Direction::Down,
    );
}
