//! The far side's disk: full before, full halfway, and kept small by a bound.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use super::PLACE;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::traces::long;
use crate::lab::traces::until;
use crate::lab::unread::spawn_unread;
use crate::lab::unread::wait_child;

const KINDS: [(Kind, Login); 3] = [
    (Kind::OpenSsh, Login::Bash),
    (Kind::Dropbear, Login::Dash),
    (Kind::Own, Login::Busybox),
];

/// Returns a job whose machine has a small disk and codes that no shell ends with by itself.
fn job(kind: Kind, login: Login, megabytes: u32) -> RunnerBuilder {
    let mut machine = ServerBuilder::new(kind, login).small_disk(megabytes);
    if login == Login::Busybox {
        machine = machine.busybox_only();
    }
    PLACE.job().machine(machine).exit_codes("70", "71")
}

/// A failure of the machinery that says what is wrong.
#[track_caller]
fn assert_full(runner: &Runner, output: Output) -> Output {
    let output = output.assert_code(71);
    let text = output.stderr_text();
    assert!(text.contains("ERROR: the machine "), "{output}");
    assert!(text.contains("No space"), "{output}");
    assert_eq!(runner.exit_file(), None, "{output}");
    output
}

/// Waits until no process has such a command line: a script that is ended.
#[track_caller]
fn wait_ended(runner: &Runner, command: &str) {
    until("the script's end", PATIENCE, || {
        let all = runner.processes();
        !all.iter().any(|p| p.to_string().contains(command))
    });
}

#[test]
fn no_room_for_the_script() {
    for (kind, login) in PLACE.some(KINDS, 1) {
        eprintln!("{kind:?} {login:?}");
        let runner = job(kind, login, 1).build();
        runner.start();
        let marker = runner.root().join("ran");
        let mut script = format!("touch {}\n", marker.display());
        script += &"# a long comment, as variables make a script long\n".repeat(40_000);
        let output = assert_full(&runner, runner.run("build_script", script));
        for place in ["/var/tmp", "/tmp", runner.server().home().to_str().unwrap()] {
            let named = format!("{place}: ");
            assert!(output.stderr_text().contains(&named), "{output}");
        }
        assert!(!marker.exists(), "a part of a script was run");
        // A shorter one fits, and is alone: its directory, its text and, on a container, its environment bear one name.
        runner
            .run(
                "after_script",
                "ls /var/tmp/.gad-* | sed 's/[.].*//' | sort -u | wc -l",
            )
            .assert_code(0)
            .assert_stdout("1\n");
    }
}

#[test]
fn no_room_at_all() {
    for (kind, login) in PLACE.some(KINDS, 1) {
        eprintln!("{kind:?} {login:?}");
        let runner = job(kind, login, 1).build();
        runner.start();
        let fill = "dd if=/dev/zero of=/tmp/fill bs=4096 2>/dev/null";
        // The end of the very script that fills the disk cannot be written down either.
        let output = runner.run("get_sources", fill);
        assert_full(&runner, output);
        // What the first one has left free is too little for this one.
        let script = format!("echo hello\n{}", "# a comment\n".repeat(10_000));
        assert_full(&runner, runner.run("build_script", script));
    }
}

#[test]
fn a_script_that_fills_the_disk_and_goes_on_printing() {
    for (kind, login) in PLACE.some(KINDS, 1) {
        eprintln!("{kind:?} {login:?}");
        let runner = job(kind, login, 2).build();
        runner.start();
        let go = runner.root().join("go");
        let script = format!(
            "echo before\nuntil [ -e {} ]; do sleep 0.05; done\n\
             dd if=/dev/zero of=/var/tmp/fill bs=4096 2>/dev/null\n\
             while :; do echo line after line; done\n",
            go.display()
        );
        let stage = runner.spawn_run("build_script", script);
        stage.wait_output(b"before\n", PATIENCE);
        std::fs::write(&go, "").unwrap();
        let output = assert_full(&runner, stage.wait(PATIENCE));
        assert!(output.stdout.starts_with(b"before\n"), "{output}");
        wait_ended(&runner, ".gad-");
    }
}

#[test]
fn a_full_disk_ends_a_script_that_prints_nothing_more() {
    let (kind, login) = KINDS[0];
    let runner = job(kind, login, 2).build();
    runner.start();
    let script = "dd if=/dev/zero of=/var/tmp/fill bs=4096 2>/dev/null\n\
                  head -c 100000 /dev/zero\nexec sleep 6007\n";
    let output = runner.run("build_script", script);
    assert_full(&runner, output);
    wait_ended(&runner, "sleep 6007");
}

#[test]
fn output_that_comes_faster_than_it_is_fetched() {
    for (kind, login) in PLACE.some(KINDS, 1) {
        eprintln!("{kind:?} {login:?}");
        let runner = job(kind, login, 4).through_proxy().build();
        runner.start();
        runner.proxy().delay(Some(Duration::from_millis(50)));
        let script = "i=0; while [ $i -lt 200 ]; do head -c 1000000 /dev/zero; i=$((i + 1)); done";
        let stage = runner.spawn_run("build_script", script);
        let output = stage.wait(PATIENCE + PATIENCE);
        assert_full(&runner, output);
        runner.proxy().delay(None);
        wait_ended(&runner, ".gad-");
        runner
            .run("after_script", "echo after")
            .assert_code(0)
            .assert_contains("after\n");
    }
}

/// Returns a job whose `/var/tmp` is such a disk, on which that is done; the others are the host's.
fn job_with_var_tmp(login: Login, disk: &str, act: &str) -> RunnerBuilder {
    let mount = format!("mount -t tmpfs -o mode=1777,{disk} lab /var/tmp; {act}");
    let machine = ServerBuilder::new(Kind::OpenSsh, login).first(&mount);
    let machine = match login {
        Login::Busybox => machine.busybox_only(),
        Login::Bash | Login::Dash => machine,
    };
    PLACE.job().machine(machine).exit_codes("70", "71")
}

/// Returns the command that leaves so many KiB of `/var/tmp`.
fn leave(kibibytes: u32) -> String {
    format!(
        "head -c {kibibytes}k /dev/zero >/var/tmp/left; head -c 100m /dev/zero >/var/tmp/fill 2>/dev/null || rm /var/tmp/left"
    )
}

#[test]
fn a_script_goes_where_there_is_room_for_it() {
    let logins = [Login::Bash, Login::Dash, Login::Busybox];
    let mut disks = Vec::new();
    for login in logins {
        for free in if long() { 0..40 } else { 0..3 } {
            disks.push((login, "size=1m".to_owned(), leave(4 * free)));
        }
        for free in [64, 128, 192, 256] {
            disks.push((login, "size=1m".to_owned(), leave(free)));
        }
        // One is the directory's own.
        for inodes in if long() { 2..30 } else { 2..5 } {
            disks.push((login, format!("nr_inodes={inodes}"), ":".to_owned()));
        }
        for inodes in [10, 14, 15, 16, 17, 30] {
            disks.push((login, format!("nr_inodes={inodes}"), ":".to_owned()));
        }
    }
    let disks = PLACE.some(disks, 1);
    for some in disks.chunks(16) {
        std::thread::scope(|scope| {
            for (login, disk, act) in some {
                scope.spawn(move || {
                    let runner = job_with_var_tmp(*login, disk, act).build();
                    runner.start();
                    // As much as the room that is made sure of.
                    let script = "echo $0; head -c 60000 /dev/zero | tr '\\0' x; exit 5";
                    let output = runner.run("build_script", script).assert_code(70);
                    let text = output.stdout_text();
                    let (path, rest) = text.split_once('\n').unwrap();
                    eprintln!("{login:?} {disk} {act}: {path}");
                    assert_eq!(rest.len(), 60_000, "{login:?} {disk} {act}: {output}");
                    assert_eq!(output.stderr_text(), "", "{login:?} {disk} {act}");
                    runner.cleanup().assert_success();
                    runner.assert_nothing_left();
                });
            }
        });
    }
}

/// The bound of the far side, in bytes not yet acknowledged.
const BOUND: u64 = 64 << 20;
/// Segments that come on top: one that is being written, one whose receipt is on its way.
const SLACK: u64 = 2 * (16 << 20) + (1 << 20);

#[test]
fn a_slow_reader_meets_a_bound() {
    // The agent's spool has no name to be looked at; its own tests count what it takes in.
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let runner = PLACE.job().machine(machine).build();
    runner.start();
    let traces = runner.traces();
    let total: u64 = if long() { 1 << 30 } else { 160 << 20 };
    let lines = total / 16;
    let mut child = spawn_unread(&runner, &format!("seq -f %015.0f 1 {lines}"));
    let mut reader = child.stdout.take().unwrap();
    // Nobody reads until the bound is met; then all stands still.
    let (mut most, mut last) = (0, 0);
    let mut steady = 0;
    until("the spool stands still", PATIENCE + PATIENCE, || {
        let now = traces.spooled();
        // Not at the most that it ever was: a receipt that is on its way makes it smaller.
        steady = match now == last && now >= BOUND {
            true => steady + 1,
            false => 0,
        };
        (most, last) = (most.max(now), now);
        steady > 200
    });
    assert!(most <= BOUND + SLACK, "{most} bytes in the spool");
    let mut expected = 1_u64;
    let mut buffer = vec![0; 16 << 10];
    for _ in 0..lines / 1024 {
        reader.read_exact(&mut buffer).unwrap();
        for line in buffer.chunks(16) {
            let number = std::str::from_utf8(&line[..15]).ok();
            assert_eq!(number.and_then(|n| n.parse().ok()), Some(expected));
            assert_eq!(line[15], b'\n');
            expected += 1;
        }
        if expected % 65_536 == 1 {
            let now = traces.spooled();
            assert!(now <= BOUND + SLACK, "{now} bytes in the spool");
        }
    }
    assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    assert_eq!(wait_child(&mut child, PATIENCE), 0);
    assert_eq!(expected, lines + 1);
    assert!(!Path::new(&runner.attempt().join("build_exit_code")).exists());
    until("the end of the spool", PATIENCE, || {
        traces.scripts().is_empty()
    });
}
