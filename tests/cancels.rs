//! SIGTERM, as GitLab Runner sends it, at each step of each stage; what it ends, and what it leaves usable.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::FlockOperation;
use rustix::fs::OFlags;
use rustix::process::Pid;
use rustix::process::Signal;

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
use crate::lab::traces;
use crate::lab::traces::Traces;
use crate::lab::traces::until;

/// What a stage that was asked to end may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A server that takes connections right away, to be put behind a proxy.
fn machine() -> ServerBuilder {
    ServerBuilder::new(Kind::OpenSsh, Login::Bash)
}

/// The machines on which the far side of a cancel has to work; `None`: the driver's own.
fn machines() -> Vec<Option<ServerBuilder>> {
    vec![
        None,
        Some(machine()),
        Some(ServerBuilder::new(Kind::Dropbear, Login::Dash)),
        Some(ServerBuilder::new(Kind::Own, Login::Busybox).busybox_only()),
    ]
}

fn on_every_machine(test: impl Fn(&Runner) + Sync) {
    at_once(machines(), |machine| {
        let name = format!("on {machine:?}");
        let builder = Runner::builder();
        let runner = match machine {
            Some(machine) => builder.machine(machine).build(),
            None => builder.build(),
        };
        runner.start();
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            test(&runner);
            end(&runner);
        }));
        if let Err(panic) = passed {
            eprintln!("{name}");
            std::panic::resume_unwind(panic);
        }
    });
}

/// Cleans up and checks that nothing is left.
#[track_caller]
fn end(runner: &Runner) {
    let traces = runner.traces();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    traces.assert_gone();
    traces::assert_only_tombstones(runner.state_directory(), 1);
}

/// Cancels a stage and returns how it ended, which must be in time.
#[track_caller]
fn cancel(stage: Stage) -> Output {
    let began = Instant::now();
    stage.signal(Signal::TERM);
    let output = stage.wait(PATIENCE);
    assert!(began.elapsed() < LIMIT, "it took too long:\n{output}");
    output
}

/// Checks that a machine still does what comes after a cancel.
#[track_caller]
fn assert_usable(runner: &Runner) {
    runner.set_status("canceled");
    for stage in [
        "after_script",
        "archive_cache_on_failure",
        "upload_artifacts_on_failure",
        "cleanup_file_variables",
    ] {
        let text = format!("echo {stage} on this machine");
        runner
            .run(stage, text)
            .assert_success()
            .assert_stdout(format!("{stage} on this machine\n"));
    }
}

/// Returns whether the process has said what it does about SIGTERM, and it is not dying of it.
fn heeds_term(stage: &Stage) -> bool {
    const TERM: u64 = 1 << (15 - 1);
    let path = format!("/proc/{}/status", stage.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & TERM != 0)
}

#[track_caller]
fn wait_heeds_term(stage: &Stage) {
    until("the stage handles SIGTERM", PATIENCE, || {
        assert!(!stage.is_over(), "{}", stage.so_far());
        heeds_term(stage)
    });
}

/// Holds the lock on the job's directory, as a `cleanup` that hangs would.
struct Held {
    directory: File,
}

impl Held {
    /// Takes the lock of a job that may not have begun yet.
    fn of(runner: &Runner) -> Self {
        let answer = runner.config().assert_success();
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        let key = answer["hostname"].as_str().unwrap();
        let path = runner.state_directory().join("jobs").join(key);
        std::fs::create_dir_all(&path).unwrap();
        let directory = File::open(path).unwrap();
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
        Self { directory }
    }

    /// Waits until a process waits for the lock as such, and does nothing else meanwhile.
    fn wait_for(&self, stage: &Stage) {
        use std::os::unix::fs::MetadataExt as _;
        let inode = self.directory.metadata().unwrap().ino();
        let jobs = format!("/proc/{}/fd", stage.pid().as_raw_nonzero());
        until("the stage asks for the lock", PATIENCE, || {
            assert!(!stage.is_over(), "{}", stage.so_far());
            let open = std::fs::read_dir(&jobs).into_iter().flatten().flatten();
            open.filter_map(|fd| std::fs::metadata(fd.path()).ok())
                .any(|file| file.ino() == inode)
        });
    }
}

/// The Runner takes a stage that a signal ended for one that failed; anything else must be the code that it
/// asked for.
#[track_caller]
fn assert_given_up(output: &Output) {
    let given_up = output.code() == Some(2) || output.signal() == Some(15);
    assert!(given_up, "{output}");
}

#[test]
fn config_answers_whole_or_not_at_all() {
    let runner = Runner::builder().build();
    let whole = runner.config().assert_success().stdout;
    for _ in 0..20 {
        let output = cancel(runner.spawn_config());
        if output.code() == Some(0) {
            assert_eq!(output.stdout, whole, "{output}");
        } else {
            assert_given_up(&output);
            // The signal may come between the answer and the end.
            assert!(
                output.stdout.is_empty() || output.stdout == whole,
                "{output}"
            );
        }
    }
    // A file that cannot be read to its end, as on a dead network mount.
    let pipe = runner.root().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    std::fs::remove_file(runner.config_file()).unwrap();
    std::fs::rename(&pipe, runner.config_file()).unwrap();
    let stage = runner.spawn_config();
    let mut writer = None;
    until("the file is read, or refused", PATIENCE, || {
        let flags = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
        let mut options = File::options();
        let opened = options.write(true).custom_flags(flags);
        writer = opened.open(runner.config_file()).ok();
        writer.is_some() || stage.is_over()
    });
    assert_given_up(&cancel(stage));
    drop(writer);
    std::fs::remove_file(runner.config_file()).unwrap();
    runner.write_config(&runner.default_config());
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn prepare_before_the_machine() {
    let runner = Runner::builder().build();
    let held = Held::of(&runner);
    let stage = runner.spawn_prepare();
    // From here on it can only wait: it cannot even write down what it is about to start.
    wait_heeds_term(&stage);
    cancel(stage).assert_code(2).assert_contains("cancelled");
    drop(held);
    end(&runner);
}

#[test]
fn prepare_at_any_moment() {
    for polls in 0..12 {
        let runner = Runner::builder().build();
        runner.config().assert_success();
        let stage = runner.spawn_prepare();
        wait_heeds_term(&stage);
        for _ in 0..polls * 20 {
            heeds_term(&stage);
        }
        let output = cancel(stage);
        if output.code() == Some(0) {
            runner.run("build_script", "echo up").assert_stdout("up\n");
        } else {
            // What it says depends on who of the group, it or the machine's first process, dies first.
            output.assert_code(2);
        }
        end(&runner);
    }
}

#[test]
fn prepare_while_it_waits_for_ssh() {
    let late = machine().listen_late(Duration::from_secs(600));
    let runner = Runner::builder()
        .machine(late)
        .connect_timeout("10m")
        .build();
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    stage.wait_output(b"Waiting for SSH", PATIENCE);
    let output = cancel(stage);
    assert!(output.contains("cancelled"), "{output}");
    output.assert_code(2);
    end(&runner);
}

#[test]
fn prepare_while_a_server_accepts_and_says_nothing() {
    let runner = Runner::builder()
        .machine(machine())
        .through_proxy()
        .connect_timeout("10m")
        .build();
    runner.proxy().door(Door::Silent);
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    runner.proxy().wait_connections(1, PATIENCE);
    cancel(stage).assert_code(2).assert_contains("cancelled");
    end(&runner);
}

#[test]
fn prepare_while_it_writes_the_record() {
    let runner = Runner::behind_proxy(machine());
    runner.proxy().door(Door::Silent);
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    runner.proxy().wait_connections(1, PATIENCE);
    let held = Held::of(&runner);
    runner.proxy().door(Door::Open);
    // The connection that nobody answered is given up only after a while.
    runner.proxy().cut(Cut::Reset);
    runner.server().wait_log("Accepted publickey", 1, PATIENCE);
    cancel(stage).assert_code(2).assert_contains("cancelled");
    drop(held);
    end(&runner);
}

#[test]
fn prepare_when_it_is_as_good_as_over() {
    let runner = Runner::builder().build();
    runner.config().assert_success();
    let stage = runner.spawn_prepare();
    stage.wait_output(b"Machine ready", PATIENCE);
    let output = cancel(stage);
    assert!(matches!(output.code(), Some(0 | 2)), "{output}");
    runner.run("build_script", "echo up").assert_stdout("up\n");
    end(&runner);
}

#[test]
fn run_before_the_connection_stands() {
    let runner = Runner::behind_proxy(machine());
    runner.start();
    let marker = runner.root().join("ran");
    for door in [Door::Refuse, Door::Silent] {
        let before = runner.proxy().counts().connections;
        runner.proxy().door(door);
        let script = format!("touch {}", marker.display());
        let stage = runner.spawn_run("build_script", script);
        wait_heeds_term(&stage);
        if door == Door::Silent {
            runner.proxy().wait_connections(before + 1, PATIENCE);
        }
        cancel(stage)
            .assert_code(2)
            .assert_contains("cancelled before this script began");
        runner.proxy().door(Door::Open);
    }
    assert!(!marker.exists());
    assert_eq!(runner.exit_file(), None);
    assert_usable(&runner);
    end(&runner);
}

#[test]
fn run_while_the_script_is_sent() {
    let runner = Runner::behind_proxy(machine());
    runner.start();
    let marker = runner.root().join("ran");
    let mut script = format!("touch {}\n", marker.display());
    script += &"# a long comment, as variables make a script long\n".repeat(40_000);
    let up = runner.proxy().counts().up;
    runner
        .proxy()
        .fault_on_next(Direction::Up, 300_000, Harm::Stall);
    let stage = runner.spawn_run("build_script", script);
    runner
        .proxy()
        .wait_bytes(Direction::Up, up + 300_000, PATIENCE);
    cancel(stage).assert_code(2);
    assert!(!marker.exists(), "a part of a script was run");
    assert_usable(&runner);
    assert!(!marker.exists(), "a script began after its cancel");
    end(&runner);
}

/// All that the machine says is lost from some byte of the connection on: in the key exchange, in the login, in
/// the news that the script began, in its output.
#[test]
fn run_while_nobody_tells_that_the_script_began() {
    let moments: Vec<u64> = (0..8).map(|step| 600 + step * 350).collect();
    at_once(moments, |bytes| {
        let runner = Runner::behind_proxy(machine());
        runner.start();
        let script = "while :; do echo a line of output, to be sure of some; sleep 0.01; done";
        let down = runner.proxy().counts().down;
        runner
            .proxy()
            .fault_on_next(Direction::Down, bytes, Harm::Stall);
        let stage = runner.spawn_run("build_script", script);
        runner
            .proxy()
            .wait_bytes(Direction::Down, down + bytes, PATIENCE);
        let output = cancel(stage);
        assert!(matches!(output.code(), Some(1 | 2)), "{output}");
        assert_usable(&runner);
        // A script that could not be told ended before the next one began.
        let left = runner.traces().scripts();
        assert!(left.is_empty(), "{left:?}");
        end(&runner);
    });
}

/// Does something for each of several things, in a thread of its own.
fn at_once<T: Send>(all: Vec<T>, test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for one in all {
            scope.spawn(|| test(one));
        }
    });
}

fn left_of(runner: &Runner, command: &str) -> Vec<String> {
    let all = runner.processes();
    let all = all.iter().map(ToString::to_string);
    // The stage itself and shells that have the command in their text are others.
    all.filter(|line| {
        line.split_once(' ')
            .is_some_and(|(_, rest)| rest.trim() == command)
    })
    .collect()
}

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
        until("the end of timeout", Duration::from_secs(5), || {
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
        let stage = runner.spawn_run("build_script", STUBBORN);
        stage.wait_output(b"ready\n", PATIENCE);
        let began = Instant::now();
        stage.signal(Signal::TERM);
        stage.wait_output(b"heard\n", PATIENCE);
        cancel(stage).assert_code(1);
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(8),
            "insisting did not help: {took:?}"
        );
        assert_eq!(runner.exit_file().as_deref(), Some(&b"137"[..]));
        assert_usable(runner);
    });
}

#[test]
fn daemons_are_not_the_sessions_and_end_with_the_machine() {
    on_every_machine(|runner| {
        let script = "setsid sleep 5432 </dev/null >/dev/null 2>&1 &\n\
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
        assert_eq!(left_of(runner, "sleep 5432"), [""; 0]);
    });
}

#[test]
fn run_while_disconnected_hands_the_cancel_on_when_it_can() {
    let runner = Runner::behind_proxy(machine());
    runner.start();
    let go = runner.root().join("go");
    let script = format!(
        "trap 'echo the end; exit 7' TERM\necho ready\n\
         until [ -e {} ]; do sleep 0.05; done\necho unreached\n",
        go.display()
    );
    let stage = runner.spawn_run("build_script", script);
    stage.wait_output(b"ready\n", PATIENCE);
    runner.proxy().door(Door::Refuse);
    runner.proxy().cut(Cut::Reset);
    stage.signal(Signal::TERM);
    until("the signal is taken", PATIENCE, || !is_pending(&stage));
    runner.proxy().door(Door::Open);
    let output = stage.wait(LIMIT).assert_code(1);
    assert!(output.contains("the end\n"), "{output}");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"7"[..]));
    assert_usable(&runner);
    end(&runner);
}

/// Returns whether SIGTERM was sent to the process and did not reach it yet.
fn is_pending(stage: &Stage) -> bool {
    let path = format!("/proc/{}/status", stage.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let mut masks = status.lines().filter_map(|line| {
        line.strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"))
    });
    masks.any(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask != 0))
}

#[test]
fn run_that_cannot_hand_the_cancel_on_ends_all_the_same() {
    let runner = Runner::behind_proxy(machine());
    runner.start();
    let stage = runner.spawn_run("build_script", "echo ready; exec sleep 4322");
    stage.wait_output(b"ready\n", PATIENCE);
    runner.proxy().door(Door::Refuse);
    runner.proxy().cut(Cut::Reset);
    let output = cancel(stage);
    assert!(output.contains("cancelled"), "{output}");
    output.assert_code(2);
    runner.proxy().door(Door::Open);
    assert_usable(&runner);
    assert_eq!(left_of(&runner, "sleep 4322"), [""; 0]);
    end(&runner);
}

#[test]
fn run_after_the_end_marker_keeps_its_result() {
    let runner = Runner::behind_proxy(machine());
    runner.start();
    for code in [0, 3] {
        let go = runner.root().join(format!("go-{code}"));
        let script = format!(
            "echo ready\nuntil [ -e {} ]; do sleep 0.05; done\necho bye\nexit {code}\n",
            go.display()
        );
        let stage = runner.spawn_run("build_script", script);
        stage.wait_output(b"ready\n", PATIENCE);
        // The word that the spool is not needed any more does not get through.
        runner.proxy().stall(Direction::Up, true);
        std::fs::write(&go, "").unwrap();
        stage.wait_output(b"bye\n", PATIENCE);
        let output = cancel(stage);
        runner.proxy().stall(Direction::Up, false);
        assert_eq!(output.stdout_text(), "ready\nbye\n", "{output}");
        output.assert_code(i32::from(code != 0));
        let file = runner.exit_file();
        assert_eq!(file.as_deref(), (code != 0).then_some(&b"3"[..]));
    }
    assert_usable(&runner);
    end(&runner);
}

/// Neither the cancel nor, later, the word that the spool is not needed gets through, so the stage's time is over when it
/// ends. The result that came in between counts all the same: once a busy machine lost it to the wait for the writer.
#[test]
fn run_whose_end_marker_comes_after_the_cancel_keeps_its_result() {
    let runner = Runner::behind_proxy(machine());
    runner.start();
    let go = runner.root().join("go");
    let script = format!(
        "echo ready\nuntil [ -e {} ]; do sleep 0.05; done\necho bye\nexit 3\n",
        go.display()
    );
    let stage = runner.spawn_run("build_script", script);
    stage.wait_output(b"ready\n", PATIENCE);
    runner.proxy().stall(Direction::Up, true);
    stage.signal(Signal::TERM);
    until("the signal is taken", PATIENCE, || !is_pending(&stage));
    std::fs::write(&go, "").unwrap();
    let output = stage.wait(LIMIT).assert_code(1);
    runner.proxy().stall(Direction::Up, false);
    assert_eq!(output.stdout_text(), "ready\nbye\n", "{output}");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    assert_usable(&runner);
    end(&runner);
}

/// Starts a sub-stage whose standard output the test itself holds, and reads, or does not.
pub(crate) fn spawn_unread(runner: &Runner, script: &str) -> std::process::Child {
    let script = runner.write_script(script);
    Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
        .arg("--config")
        .arg(runner.config_file())
        .args(["custom", "run"])
        .arg(script)
        .arg("build_script")
        .env_clear()
        .envs(runner.stage_environment())
        .current_dir(runner.attempt())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Waits for a child of the test's own; returns its exit code or minus the signal's number.
#[track_caller]
pub(crate) fn wait_child(child: &mut std::process::Child, within: Duration) -> i32 {
    let mut ended = None;
    until("the stage's end", within, || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let status = ended.unwrap();
    status
        .code()
        .unwrap_or_else(|| -status.signal().unwrap_or_default())
}

#[test]
fn run_whose_output_nobody_reads_ends_too() {
    let runner = Runner::builder().build();
    runner.start();
    let done = runner.root().join("done");
    // More than all pipes and queues hold; then more than the pipe but little enough for the queues.
    for (bytes, goes_on) in [(40_000_000, true), (100_000, false)] {
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
fn cleanup_at_any_moment() {
    for polls in 0..8 {
        let runner = Runner::builder().build();
        runner.start();
        let script = "setsid sleep 5433 </dev/null >/dev/null 2>&1 &";
        runner.run("build_script", script).assert_success();
        let traces = runner.traces();
        let stage = runner.spawn_cleanup();
        for _ in 0..polls * 100 {
            assert!(Path::new("/proc/self/stat").exists());
        }
        let output = cancel(stage);
        if output.code() != Some(0) {
            assert_given_up(&output);
        }
        end_again(&runner, &traces);
    }
}

#[track_caller]
fn end_again(runner: &Runner, traces: &Traces) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    traces.assert_gone();
    traces::assert_only_tombstones(runner.state_directory(), 1);
}

#[test]
fn cleanup_that_waits_for_another() {
    let runner = Runner::builder().build();
    runner.start();
    let traces = runner.traces();
    let held = Held::of(&runner);
    let stage = runner.spawn_cleanup();
    held.wait_for(&stage);
    assert_given_up(&cancel(stage));
    drop(held);
    end_again(&runner, &traces);
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
