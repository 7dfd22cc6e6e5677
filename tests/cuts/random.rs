//! Connections that are cut at random moments of a script.

use std::path::Path;

use super::super::PLACE;
use super::CUTS;
use super::Far;
use super::LONG_PATIENCE;
use super::NOISE;
use super::Random;
use super::Watch;
use super::numbers;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Harm;
use crate::lab::servers;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces::long;

const LINES: u64 = 200_000;

/// Returns a script that prints numbered lines in bursts of a thousand and ends 42.
fn numbered(starts: &Path, pause: &str) -> String {
    format!(
        "echo started >> {}\n\
         i=0\n\
         while [ $i -lt {LINES} ]; do\n\
         seq $((i + 1)) $((i + 1000)); sleep {pause}; i=$((i + 1000))\n\
         done\n\
         exit 42\n",
        starts.display()
    )
}

/// Cuts the connection at random moments while a script prints its lines.
fn cut_at_random(machine: ServerBuilder, seed: u64) {
    let far = Far::start(machine);
    let proxy = far.runner.proxy();
    let (cuts, pause) = match (long(), PLACE.thorough()) {
        (true, _) => (100, "0.2"),
        (false, true) => (12, "0.02"),
        (false, false) => (6, "0.02"),
    };
    let expected = numbers(LINES);
    let starts = far.starts();
    let mut random = Random::new(seed);
    let watch = Watch::start(&far);
    // All distances together are surely less than what there is to send, so that every cut will come.
    let distance = expected.len() as u64 * 6 / 10 / cuts;
    let faults = (0..cuts).map(|_| {
        let harm = Harm::Cut(CUTS[usize::try_from(random.below(2)).unwrap()]);
        // Short ones hit the login or the start of the next connection.
        (1 + random.below(2 * distance), harm)
    });
    let before = proxy.counts().cut;
    // All at once: a test that is late with the next one would find nothing more to cut.
    proxy.faults_after(Direction::Down, faults);
    let run = far
        .runner
        .spawn_run("build_script", numbered(&starts, pause));
    let output = run.wait(LONG_PATIENCE);
    assert_eq!(proxy.counts().cut, before + cuts, "{output}");
    watch.assert_one();
    far.assert_result(&output, &expected, 42, &starts);
    far.end();
}

#[test]
fn cuts_at_random_on_openssh() {
    for (kind, login) in PLACE.some(servers::of(Kind::OpenSsh), 1) {
        cut_at_random(ServerBuilder::new(kind, login), 1 + login as u64);
    }
}

#[test]
fn cuts_at_random_on_dropbear() {
    for (kind, login) in PLACE.some(servers::of(Kind::Dropbear), 1) {
        cut_at_random(ServerBuilder::new(kind, login), 11 + login as u64);
    }
}

#[test]
fn cuts_at_random_on_the_own_server() {
    for (kind, login) in PLACE.some(servers::of(Kind::Own), 1) {
        cut_at_random(ServerBuilder::new(kind, login), 21 + login as u64);
    }
}

#[test]
fn cuts_at_random_with_a_noisy_start_up_file() {
    let machine = |kind, login| ServerBuilder::new(kind, login).noise(NOISE);
    cut_at_random(machine(Kind::OpenSsh, Login::Bash), 31);
    if PLACE.thorough() {
        cut_at_random(machine(Kind::Dropbear, Login::Dash), 32);
    }
}

#[test]
fn cuts_at_random_with_nothing_but_busybox() {
    let machine = |kind| ServerBuilder::new(kind, Login::Busybox).busybox_only();
    if PLACE.thorough() {
        cut_at_random(machine(Kind::OpenSsh), 41);
    }
    cut_at_random(machine(Kind::Own), 42);
}
