//! How fast the driver is, beside what else does the same on the same machine in the same run.
//!
//! `cargo bench --bench speed` builds the release binary, starts an OpenSSH server as the job's machine (Debian's, run as
//! `[local] command`, beside the agent that the driver brings, and then behind the addresses of ECS tasks), takes every figure several times, the peers in turn,
//! and prints medians with the targets and the Go driver's figures beside them. It passes no verdict on a build: a figure that
//! is missed is printed as missed, and the exit code is 0 unless nothing could be measured at all.
//!
//! ```text
//! cargo bench --bench speed                          everything
//! cargo bench --bench speed -- config output         only the figures whose names begin so
//! cargo bench --bench speed -- --rounds 5 sub-stage  more or fewer rounds
//! cargo bench --bench speed -- --on task             only that kind of machine: local, own, task
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints figures"
)]

mod agent;
mod figures;
mod machine;
mod measure;
mod table;

#[path = "../../tests/lab/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "the tests' own; of all that is in there, tasks are what is needed here"
)]
mod lab;

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use machine::{Bench, Place};
use table::Table;

/// Whatever keeps a figure from being taken, in words.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One thing to measure.
struct Figure {
    name: &'static str,
    measure: fn(&mut Table, &mut Bench, u32) -> Result<()>,
    /// How often, unless the command line says otherwise.
    rounds: u32,
    /// On which kinds of machines.
    on: &'static [Place],
}

/// Those whose server is OpenSSH.
const OPENSSH: &[Place] = &[Place::Local, Place::Task];

const ALL: &[Place] = &[Place::Local, Place::Own, Place::Task];

const FIGURES: [Figure; 8] = [
    Figure {
        name: "config",
        measure: figures::config,
        rounds: 60,
        on: OPENSSH,
    },
    Figure {
        name: "sub-stage",
        measure: figures::sub_stage,
        rounds: 25,
        on: ALL,
    },
    Figure {
        name: "cpu",
        measure: figures::cpu,
        rounds: 5,
        on: ALL,
    },
    Figure {
        name: "output",
        measure: figures::output,
        rounds: 5,
        on: ALL,
    },
    Figure {
        name: "agent",
        measure: agent::agent,
        rounds: 25,
        on: &[Place::Own],
    },
    Figure {
        name: "login",
        measure: figures::login,
        rounds: 9,
        on: OPENSSH,
    },
    Figure {
        name: "line",
        measure: figures::line,
        rounds: 40,
        on: ALL,
    },
    // The last: it makes tasks slow.
    Figure {
        name: "calls",
        measure: figures::calls,
        rounds: 1,
        on: &[Place::Task],
    },
];

/// The kinds of machines, as the command line names them and as the table does.
const PLACES: [(&str, Place, &str); 3] = [
    ("local", Place::Local, "on a machine of this host (`local`)"),
    (
        "own",
        Place::Own,
        "on a machine of this host that runs the agent (`local` without `command`), beside OpenSSH",
    ),
    ("task", Place::Task, "on an ECS task, of the tests' AWS"),
];

/// What the command line asks for.
struct Wanted {
    names: Vec<String>,
    place: Option<Place>,
    rounds: Option<u32>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts benches too, and says nothing; `cargo bench` says this.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match wanted(&arguments).and_then(|wanted| run(&wanted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted {
        names: Vec::new(),
        place: None,
        rounds: None,
    };
    let mut words = arguments.iter().filter(|a| *a != "--bench");
    while let Some(word) = words.next() {
        if word == "--rounds" {
            let number = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            wanted.rounds = Some(number.ok_or("--rounds wants a number")?);
        } else if word == "--on" {
            let place = words.next().and_then(|w| PLACES.iter().find(|p| p.0 == w));
            wanted.place = Some(place.ok_or("--on wants local, own or task")?.1);
        } else if FIGURES.iter().any(|f| f.name.starts_with(word)) {
            wanted.names.push(word.clone());
        } else {
            let names: Vec<&str> = FIGURES.iter().map(|f| f.name).collect();
            return Err(format!("{word:?} is no figure; there are {}", names.join(", ")).into());
        }
    }
    Ok(wanted)
}

fn run(wanted: &Wanted) -> Result<()> {
    let mut table = Table::begin()?;
    for (_, place, title) in PLACES {
        if wanted.place.is_some_and(|wanted| wanted != place) {
            continue;
        }
        table.title(title);
        match caught(|| Bench::new(place)) {
            Ok(mut bench) => all(wanted, place, &mut table, &mut bench),
            Err(error) => table.failed("all of these", &*error),
        }
    }
    table.end()
}

fn all(wanted: &Wanted, place: Place, table: &mut Table, bench: &mut Bench) {
    for figure in &FIGURES {
        if !figure.on.contains(&place) {
            continue;
        }
        if !wanted.names.is_empty() && !wanted.names.iter().any(|n| figure.name.starts_with(n)) {
            continue;
        }
        let rounds = wanted.rounds.unwrap_or(figure.rounds);
        if let Err(error) = caught(|| (figure.measure)(table, bench, rounds)) {
            table.failed(figure.name, &*error);
        }
    }
}

/// The tests' lab panics where something is not as it should be; one figure less is no reason to lose the others.
fn caught<T>(measure: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(measure))
        .unwrap_or_else(|_| Err("see the panic above".into()))
}
