//! Sudden deaths: of the driver at any moment, of GitLab Runner.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::lab::PATIENCE;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Call;
use crate::lab::stage::Stage;
use crate::lab::traces;
use crate::lab::traces::long;
use crate::lab::traces::until;
use crate::lab::unread::spawn_unread;
use crate::lab::unread::wait_child;

/// How soon somebody has to notice a death.
const SOON: Duration = Duration::from_secs(15);

/// A small generator (xorshift) whose seed a failure names.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn from_seed() -> Self {
        let seed = std::env::var("GAD_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7_919 + 1);
        eprintln!("GAD_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Lets a random, short time pass, counted in looks at the process.
pub(crate) fn look_on(stage: &Stage, looks: u64) {
    let path = format!("/proc/{}/stat", stage.pid().as_raw_nonzero());
    for _ in 0..looks {
        if std::fs::read(&path).is_err() {
            return;
        }
    }
}

/// Where in a job's life the driver is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Config,
    Prepare,
    PrepareWaits,
    RunBegins,
    RunPrints,
    RunEnds,
    RunIsCancelled,
    Cleanup,
}

const MOMENTS: [Moment; 8] = [
    Moment::Config,
    Moment::Prepare,
    Moment::PrepareWaits,
    Moment::RunBegins,
    Moment::RunPrints,
    Moment::RunEnds,
    Moment::RunIsCancelled,
    Moment::Cleanup,
];

/// What is easily overlooked: daemons, also without the machine's mark, and orphans.
const DAEMONS: &str = "setsid sleep 6001 </dev/null >/dev/null 2>&1 &\n\
                       setsid env -i /bin/sleep 6002.$CI_JOB </dev/null >/dev/null 2>&1 &\n\
                       (sleep 6003 </dev/null >/dev/null 2>&1 &)\n";

#[test]
fn the_driver_killed_at_random_moments() {
    let rounds = if long() { 50 } else { 10 };
    let mut random = Random::from_seed();
    for round in 0..rounds {
        // All kinds of moments come up, each at random ones of its own.
        let moment = MOMENTS[round % MOMENTS.len()];
        let looks = random.below(4_000);
        eprintln!("round {round}: {moment:?}, {looks} looks");
        kill_at(moment, looks, random.below(60_000));
    }
}

fn kill_at(moment: Moment, looks: u64, bytes: u64) {
    let runner = Runner::builder().build();
    let state = runner.state_directory().to_owned();
    let daemons = format!("CI_JOB={}\n{DAEMONS}", runner.job());
    let unmarked = format!("sleep\0{}.{}\0", 6002, runner.job());
    if !matches!(moment, Moment::Config) {
        runner.config().assert_success();
    }
    if !matches!(
        moment,
        Moment::Config | Moment::Prepare | Moment::PrepareWaits
    ) {
        runner.prepare().assert_success();
        runner.run("get_sources", daemons).assert_success();
    }
    let mut before = runner.traces();
    let prints = "i=0; while :; do echo \"line $i\"; i=$((i + 1)); done";
    let stage = match moment {
        Moment::Config => runner.spawn_config(),
        Moment::Prepare => runner.spawn_prepare(),
        Moment::PrepareWaits => {
            let stage = runner.spawn_prepare();
            stage.wait_output(b"Waiting for SSH", PATIENCE);
            stage
        }
        Moment::RunBegins => runner.spawn_run("build_script", prints),
        Moment::RunPrints => {
            let stage = runner.spawn_run("build_script", prints);
            stage.wait_stdout_len(bytes + 1, PATIENCE);
            stage
        }
        Moment::RunEnds => {
            let stage = runner.spawn_run("build_script", "echo bye");
            stage.wait_output(b"bye", PATIENCE);
            stage
        }
        Moment::RunIsCancelled => {
            let script = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done";
            let stage = runner.spawn_run("build_script", script);
            stage.wait_output(b"ready", PATIENCE);
            stage.signal(Signal::TERM);
            stage.wait_output(b"heard", PATIENCE);
            stage
        }
        Moment::Cleanup => runner.spawn_cleanup(),
    };
    look_on(&stage, looks);
    stage.signal(Signal::KILL);
    // What `prepare` left may hold its standard output no longer than it lives itself.
    stage.wait(PATIENCE);
    if matches!(moment, Moment::Prepare | Moment::PrepareWaits) {
        before = runner.traces();
    }
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    before.assert_gone();
    assert!(
        !somebody_runs(unmarked.as_bytes()),
        "a daemon without marks"
    );
    let tombstones = traces::tombstones(&state);
    // A job of which nothing was known yet leaves no word either.
    assert!(tombstones == 1 || before.is_empty() && tombstones == 0);
    // With nothing there it is as content.
    let again = Instant::now();
    runner.cleanup().assert_success();
    assert!(again.elapsed() < Duration::from_secs(30), "a lock was left");
}

/// Returns whether any process of this host has that at the end of its command line.
fn somebody_runs(command: &[u8]) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.ends_with(command))
}

/// Plays a Runner that can be killed: a shell that starts stages in process groups of their own.
pub(crate) const MORTAL_RUNNER: &str = "set -m\n\
    \"$1\" --config \"$2\" custom config > config.out || exit 1\n\
    \"$1\" --config \"$2\" custom prepare > prepare.out 2>&1 || exit 1\n\
    \"$1\" --config \"$2\" custom run \"$3\" build_script > run.out 2> run.err &\n\
    wait\n";

#[test]
fn a_runner_that_dies_takes_the_machine_with_it() {
    let openssh = || ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    for (prints, machine) in [(false, None), (true, None), (false, Some(openssh()))] {
        let builder = Runner::builder();
        let runner = match machine {
            Some(machine) => builder.machine(machine).build(),
            None => builder.build(),
        };
        let body = if prints {
            "while :; do echo line; sleep 0.01; done"
        } else {
            "sleep 6005"
        };
        let script = runner.write_script(format!("{DAEMONS}echo ready; {body}"));
        let mortal = Call {
            name: "a Runner".to_owned(),
            program: "/bin/bash".into(),
            args: [
                "-c",
                MORTAL_RUNNER,
                "bash",
                env!("CARGO_BIN_EXE_gitlab-aws-driver"),
            ]
            .map(Into::into)
            .into_iter()
            .chain([runner.config_file().into(), script.into()])
            .collect(),
            env: runner.stage_environment(),
            directory: runner.attempt(),
            ..Call::default()
        }
        .spawn();
        let read =
            |name: &str| std::fs::read_to_string(runner.attempt().join(name)).unwrap_or_default();
        until("the script's first line", PATIENCE, || {
            assert!(
                !mortal.is_over(),
                "{}{}",
                mortal.so_far(),
                read("prepare.out")
            );
            read("run.out").contains("ready\n")
        });
        let traces = runner.traces();
        assert!(!traces.marked().is_empty());
        mortal.signal(Signal::KILL);
        let left = processes::wait_none(runner.root(), SOON);
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "{left:?}\n{}", read("run.err"));
        traces.assert_gone();
        traces::assert_only_tombstones(runner.state_directory(), 1);
        assert!(
            read("run.err").contains("GitLab Runner is gone"),
            "{}",
            read("run.err")
        );
    }
}

#[test]
fn a_runner_that_does_not_read_any_more_is_as_good_as_dead() {
    for body in ["sleep 6006", "while :; do echo line; sleep 0.01; done"] {
        let runner = Runner::builder().build();
        runner.start();
        let traces = runner.traces();
        let script = format!("{DAEMONS}echo ready; {body}");
        let mut child = spawn_unread(&runner, &script);
        let mut reader = child.stdout.take().unwrap();
        let mut first = [0; 6];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"ready\n");
        drop(reader);
        assert_eq!(wait_child(&mut child, SOON), 2);
        runner.assert_nothing_left();
        traces.assert_gone();
        traces::assert_only_tombstones(runner.state_directory(), 1);
        assert!(!Path::new(&runner.attempt().join("build_exit_code")).exists());
    }
}
