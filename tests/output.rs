//! What scripts write reaches the job log byte by byte, in the order in which it was written.

use std::fmt::Write as _;

use super::PLACE;
use super::scripts::Gate;
use crate::lab::PATIENCE;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Keep;
use crate::lab::traces::long;

/// A machine of each kind, and the place's own.
pub(crate) fn machines() -> Vec<RunnerBuilder> {
    let on = |kind, login| PLACE.job().machine(ServerBuilder::new(kind, login));
    let all = [
        PLACE.job(),
        on(Kind::Own, Login::Busybox),
        on(Kind::OpenSsh, Login::Bash),
        on(Kind::Dropbear, Login::Dash),
    ];
    PLACE.some(all, 2)
}

/// Returns a script that prints the bytes by the shell's own `printf`.
fn printing(bytes: &[u8]) -> String {
    let mut text = String::from("printf '");
    for byte in bytes {
        write!(text, "\\{byte:03o}").unwrap();
    }
    text + "'\n"
}

#[test]
fn every_byte_arrives() {
    let each: Vec<u8> = (0..=255).collect();
    let mut pairs = Vec::new();
    for byte in 0..=255 {
        pairs.extend([byte, 0x1e, b'\n', byte, b'\r', 0]);
    }
    let outputs: [(&str, &[u8]); 16] = [
        ("nothing", b""),
        ("one newline", b"\n"),
        ("one byte", b"x"),
        ("no final newline", b"one\ntwo"),
        ("CRLF", b"one\r\ntwo\r\n\r\n"),
        ("CR", b"10%\r20%\r100%"),
        ("invalid UTF-8", b"\xff\xfe\xc3\x28\xe2\x82\n\xf0\x9f\x98"),
        ("NUL", b"\0\0a\0\n\0"),
        ("every byte", &each),
        ("every byte beside what frames are made of", &pairs),
        ("the beginning of a frame", b"\x1e"),
        ("the beginning of a frame in a line", b"line\n\x1e"),
        (
            "another one's frame",
            b"\x1e0123456789abcdef0123456789abcdef end 0\n",
        ),
        (
            "half of another one's frame",
            b"x\x1e0123456789abcdef0123456789abcdef en",
        ),
        ("an escape sequence", b"\x1b[31;1mred\x1b[0;m\n\x1b[0K"),
        ("a sections' marker", b"section_start:1:x\r\x1b[0K\n"),
    ];
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        for (what, bytes) in outputs {
            let output = runner.run("build_script", printing(bytes)).assert_success();
            assert_eq!(output.stdout, bytes, "{what}: {output}");
            assert!(output.stderr.is_empty(), "{what}: {output}");
            // On standard error, and by a script that fails.
            let script = format!("{{ {} }} >&2\nexit 5", printing(bytes));
            let output = runner.run("build_script", script).assert_code(1);
            assert_eq!(output.stdout, bytes, "{what}: {output}");
            assert!(output.stderr.is_empty(), "{what}: {output}");
        }
    }
}

#[test]
fn standard_output_and_standard_error_keep_their_order() {
    let script = "i=0; while [ $i -lt 2000 ]; do echo \"out $i\"; echo \"err $i\" >&2; \
                  printf 'half '; printf 'whole\\n' >&2; i=$((i+1)); done";
    let mut expected = String::new();
    for i in 0..2000 {
        write!(expected, "out {i}\nerr {i}\nhalf whole\n").unwrap();
    }
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        runner
            .run("build_script", script)
            .assert_success()
            .assert_stdout(&expected);
    }
}

/// A script's streams opened again by their names: a file would be truncated by it.
#[test]
fn streams_opened_by_name_keep_all() {
    let script = "
for i in 1 2 3; do
    echo \"plain $i\"
    echo \"stderr $i\" > /dev/stderr
    echo \"stdout $i\" > /dev/stdout
    echo \"append $i\" >> /dev/stderr
    echo \"tee $i\" | tee /dev/stderr
    echo \"tee stdout $i\" | tee /dev/stdout
    echo \"dd $i\" | dd of=/dev/stdout 2>/dev/null
    echo \"dd stderr $i\" | dd status=none of=/dev/stderr
    echo \"fd $i\" > /dev/fd/2
    echo \"proc $i\" > /proc/self/fd/1
    sh -c \"echo sub-shell $i > /dev/stderr\"
done
";
    let mut expected = String::new();
    for i in 1..=3 {
        write!(
            expected,
            "plain {i}\nstderr {i}\nstdout {i}\nappend {i}\ntee {i}\ntee {i}\ntee stdout {i}\ntee stdout {i}\n\
             dd {i}\ndd stderr {i}\nfd {i}\nproc {i}\nsub-shell {i}\n"
        )
        .unwrap();
    }
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        runner
            .run("build_script", script)
            .assert_success()
            .assert_stdout(&expected);
    }
}

/// A line without its end is shown while the script waits: a prompt, a percentage.
#[test]
fn output_arrives_while_the_script_runs() {
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        let gate = Gate::new(runner.root());
        let script = format!("printf 'half a line'\nread -r go < {gate}\necho \" $go\"\n");
        let stage = runner.spawn_run("build_script", script);
        stage.wait_output(b"half a line", PATIENCE);
        gate.open("done");
        stage.wait(PATIENCE).assert_stdout("half a line done\n");
    }
}

/// The most that `run` may take of the memory, whatever its script writes; `cargo bench` holds the packaged binary to it
/// on tasks too.
const MEMORY_KIB: u64 = 24 * 1024;
/// What this unoptimised binary may take beside that to ask AWS how its machine fares: its pages of the AWS crates, and
/// the certificates of this host.
const AWS_KIB: u64 = 16 * 1024;
const BLOCK: usize = 1 << 20;

/// Returns a block of bytes that do not repeat within it.
fn block() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(BLOCK);
    while bytes.len() < BLOCK {
        // Xorshift: good enough to show a byte that is lost, doubled or moved.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

fn much_output_arrives(builder: RunnerBuilder, blocks: usize) {
    let runner = builder.keep(Keep::Digest).build();
    runner.start();
    let file = runner.root().join("block");
    let block = block();
    std::fs::write(&file, &block).unwrap();
    let gate = Gate::new(runner.root());
    let script = format!(
        "i=0\nwhile [ $i -lt {blocks} ]; do echo \"block $i\"; cat '{}'; i=$((i+1)); done\n\
         read -r code < {gate}\nexit $code\n",
        file.display()
    );
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut length = 0;
    for i in 0..blocks {
        let head = format!("block {i}\n");
        digest.update(head.as_bytes());
        digest.update(&block);
        length += (head.len() + block.len()) as u64;
    }
    let stage = runner.spawn_run("build_script", script);
    // A busy machine may take its time for a gibibyte.
    stage.wait_stdout_len(length, 10 * PATIENCE);
    let peak = peak_kib(stage.pid());
    gate.open("42");
    let output = stage.wait(PATIENCE).assert_code(1);
    assert_eq!(output.stdout_len, length, "{output}");
    let expected = digest.finish();
    assert_eq!(output.stdout_digest.unwrap(), expected.as_ref(), "{output}");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
    let limit = MEMORY_KIB
        + if PLACE == crate::lab::place::Place::Here {
            0
        } else {
            AWS_KIB
        };
    eprintln!("{blocks} MiB of output, {peak} KiB at the peak");
    assert!(peak <= limit, "{peak} KiB for {blocks} MiB of output");
}

/// Returns the most memory that a live process has had.
fn peak_kib(pid: rustix::process::Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How many MiB.
fn much() -> usize {
    match (long(), PLACE.thorough()) {
        (true, _) => 1024,
        (false, true) => 64,
        (false, false) => 16,
    }
}

#[test]
fn a_gibibyte_arrives_from_the_drivers_own_machine() {
    much_output_arrives(PLACE.job(), much());
}

#[test]
fn a_gibibyte_arrives_from_openssh() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    much_output_arrives(PLACE.job().machine(machine), much());
}

#[test]
fn a_gibibyte_arrives_from_dropbear_and_busybox() {
    let machine = ServerBuilder::new(Kind::Dropbear, Login::Busybox).busybox_only();
    much_output_arrives(PLACE.job().machine(machine), much());
}

/// The Runner stops reading for a while: the script waits, nothing is lost, memory stays bounded.
#[test]
fn output_that_nobody_reads_for_a_while_is_not_lost() {
    use std::io::Read as _;
    use std::process::Command;
    use std::process::Stdio;

    let runner = PLACE.job().build();
    runner.start();
    let megabytes = 100;
    let script = runner.write_script(format!(
        "head -c {} /dev/zero\necho all > {}\necho end\n",
        megabytes * BLOCK,
        runner.root().join("written").display()
    ));
    let mut child = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
        .arg("--config")
        .arg(runner.config_file())
        .args(["custom", "run"])
        .arg(&script)
        .arg("build_script")
        .env_clear()
        .envs(runner.stage_environment())
        .current_dir(runner.attempt())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    wait_idle(pid);
    // The bound of the spool holds the script up.
    assert!(!runner.root().join("written").exists());
    let peak = peak_kib(pid);
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() + 1, megabytes * BLOCK + 4);
    assert!(rest.ends_with(b"\0end\n"));
    assert!(child.wait().unwrap().success());
}

/// Waits until a process uses no more processor time: it has taken in all that it would.
fn wait_idle(pid: rustix::process::Pid) {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let used = || {
        let stat = std::fs::read_to_string(&path).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let numbers = fields.split(' ').skip(11).take(2);
        numbers.map(|n| n.parse::<u64>().unwrap()).sum::<u64>()
    };
    let mut last = used();
    let mut still = 0;
    while still < 4 {
        // That nothing happens any more is no event.
        std::thread::sleep(std::time::Duration::from_millis(250));
        let now = used();
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
}
