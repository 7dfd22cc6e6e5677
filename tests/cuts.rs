//! Connections that are lost while a script runs: in its midst, while it starts, while it ends, by
//! silence. Whatever happens on the way, the script runs once and its result comes back intact.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Door;
use crate::lab::proxy::Harm;
use crate::lab::runner::Runner;
use crate::lab::servers;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;

const NOISE: &str = "welcome to the machine\nno newline at the end";
const LINES: u64 = 200_000;
/// For what has cuts on its way: the time of some reconnects on a busy machine.
const LONG_PATIENCE: Duration = Duration::from_secs(300);
/// Both ways of cutting, which clients hear of differently.
const CUTS: [Cut; 2] = [Cut::Reset, Cut::Close];

/// Tells whether the tests shall take the time for the full numbers.
pub(crate) fn long() -> bool {
    std::env::var_os("GAD_LONG").is_some_and(|value| value == "1")
}

/// Random numbers that are the same each time, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds shall not begin alike; zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A job behind a proxy, with what a test has to know of its far side.
struct Far {
    runner: Runner,
    spool: String,
    scripts: std::cell::Cell<u32>,
}

impl Far {
    fn start(machine: ServerBuilder) -> Self {
        Self::with(Runner::behind_proxy(machine))
    }

    fn with(runner: Runner) -> Self {
        runner.start();
        let spool = record(&runner)["spool"].as_str().unwrap().to_owned();
        assert!(spool.len() > 8, "{spool}");
        Self {
            runner,
            spool,
            scripts: std::cell::Cell::new(0),
        }
    }

    /// Returns a new file for a script to tell its starts in.
    fn starts(&self) -> PathBuf {
        self.scripts.set(self.scripts.get() + 1);
        self.runner
            .root()
            .join(format!("starts-{}", self.scripts.get()))
    }

    /// Checks that a script gave its result, ran once and left nothing behind on the far side.
    #[track_caller]
    fn assert_result(&self, output: &Output, expected: &[u8], code: i32, starts: &Path) {
        let same = output
            .stdout
            .iter()
            .zip(expected)
            .take_while(|(is, shall)| is == shall)
            .count();
        assert!(
            output.stdout == expected,
            "{} bytes, not {}, differ at {same}:\n{output}",
            output.stdout.len(),
            expected.len(),
        );
        assert_eq!(output.stderr_text(), "");
        assert_eq!(output.code(), Some(i32::from(code != 0)), "{output}");
        let file = (code != 0).then(|| code.to_string().into_bytes());
        assert_eq!(self.runner.exit_file(), file);
        let starts = std::fs::read_to_string(starts).unwrap();
        assert_eq!(starts, "started\n");
        self.assert_no_spool();
    }

    #[track_caller]
    fn assert_no_spool(&self) {
        let left: Vec<PathBuf> = ["/var/tmp", "/tmp"]
            .iter()
            .filter_map(|base| std::fs::read_dir(format!("{base}/.gad-{}", self.spool)).ok())
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "left of the spool: {left:?}");
    }

    fn end(&self) {
        self.runner.cleanup().assert_success();
        self.runner.assert_nothing_left();
        for base in ["/var/tmp", "/tmp"] {
            assert!(!Path::new(&format!("{base}/.gad-{}", self.spool)).exists());
        }
    }
}

/// Returns the job's record, as the driver wrote it.
pub(crate) fn record(runner: &Runner) -> serde_json::Value {
    let jobs = std::fs::read_dir(runner.state_directory().join("jobs")).unwrap();
    let texts: Vec<Vec<u8>> = jobs
        .filter_map(|job| std::fs::read(job.unwrap().path().join("record.json")).ok())
        .collect();
    let [text] = &texts[..] else {
        panic!("{} records", texts.len());
    };
    serde_json::from_slice(text).unwrap()
}

/// Watches, until it is stopped, that never two processes hand the same job's spool on.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Watch {
    fn start(spool: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, spool) = (Arc::clone(&stop), spool.to_owned());
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            let mut crowd = Vec::new();
            while !flag.load(Ordering::SeqCst) {
                let mut seen = followers(&spool);
                // A process may have ended before the next one began, while the list was being made. Who is
                // still there after it was complete lived beside all that came later in it.
                if seen.len() > 1 {
                    let again = followers(&spool);
                    seen.retain(|follower| again.contains(follower));
                }
                if seen.len() > most {
                    most = seen.len();
                    crowd = seen;
                }
                // Strangers' processes are no event that could be waited for.
                std::thread::sleep(Duration::from_millis(15));
            }
            (most, crowd)
        });
        Self { stop, thread }
    }

    #[track_caller]
    fn assert_one(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (most, crowd) = self.thread.join().unwrap();
        assert!(most < 2, "more than one follower: {crowd:#?}");
        // A watch that sees nobody would prove nothing.
        assert_eq!(most, 1, "no follower was ever seen");
    }
}

/// Returns the live processes that write a spool to a connection: those that read a segment of it and are
/// no shell. Each by its number, its birth and its command line.
fn followers(spool: &str) -> Vec<String> {
    let mark = format!("/.gad-{spool}/");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let process = entry.path();
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let name = |word: &&[u8]| {
            Path::new(OsStr::from_bytes(word)).file_name() == Some("cat".as_ref())
                || Path::new(OsStr::from_bytes(word)).file_name() == Some("tail".as_ref())
        };
        if !words.iter().take(2).any(name) {
            continue;
        }
        let segment = |path: &[u8]| {
            let text = String::from_utf8_lossy(path);
            text.contains(&mark) && text.contains("/o.")
        };
        let input = std::fs::read_link(process.join("fd/0")).unwrap_or_default();
        if !words.iter().any(|word| segment(word)) && !segment(input.as_os_str().as_bytes()) {
            continue;
        }
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let birth = fields.split(' ').nth(19).unwrap_or_default();
        found.push(format!(
            "{} {birth} {}",
            entry.file_name().display(),
            String::from_utf8_lossy(&line).replace('\0', " ")
        ));
    }
    found
}

fn numbers(last: u64) -> Vec<u8> {
    let mut text = String::new();
    for number in 1..=last {
        writeln!(text, "{number}").unwrap();
    }
    text.into_bytes()
}

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
    let (cuts, pause) = if long() { (100, "0.2") } else { (12, "0.02") };
    let expected = numbers(LINES);
    let starts = far.starts();
    let mut random = Random::new(seed);
    let watch = Watch::start(&far.spool);
    // All distances together are surely less than what there is to send, so that every cut will come.
    let distance = expected.len() as u64 * 6 / 10 / cuts;
    let before = proxy.counts().cut;
    let run = far
        .runner
        .spawn_run("build_script", numbered(&starts, pause));
    for cut in 1..=cuts {
        let harm = Harm::Cut(CUTS[usize::try_from(random.below(2)).unwrap()]);
        // Short ones hit the login or the start of the next connection.
        proxy.fault_after(Direction::Down, 1 + random.below(2 * distance), harm);
        proxy.wait(&format!("cut {cut}"), PATIENCE, |counts| {
            counts.cut >= before + cut
        });
    }
    let output = run.wait(LONG_PATIENCE);
    watch.assert_one();
    far.assert_result(&output, &expected, 42, &starts);
    far.end();
}

#[test]
fn cuts_at_random_on_openssh() {
    for (kind, login) in servers::ALL {
        if kind == Kind::OpenSsh {
            cut_at_random(ServerBuilder::new(kind, login), 1 + login as u64);
        }
    }
}

#[test]
fn cuts_at_random_on_dropbear() {
    for (kind, login) in servers::ALL {
        if kind == Kind::Dropbear {
            cut_at_random(ServerBuilder::new(kind, login), 11 + login as u64);
        }
    }
}

#[test]
fn cuts_at_random_on_the_own_server() {
    for (kind, login) in servers::ALL {
        if kind == Kind::Own {
            cut_at_random(ServerBuilder::new(kind, login), 21 + login as u64);
        }
    }
}

#[test]
fn cuts_at_random_with_a_noisy_start_up_file() {
    let machine = |kind, login| ServerBuilder::new(kind, login).noise(NOISE);
    cut_at_random(machine(Kind::OpenSsh, Login::Bash), 31);
    cut_at_random(machine(Kind::Dropbear, Login::Dash), 32);
}

#[test]
fn cuts_at_random_with_nothing_but_busybox() {
    let machine = |kind| ServerBuilder::new(kind, Login::Busybox).busybox_only();
    cut_at_random(machine(Kind::OpenSsh), 41);
    cut_at_random(machine(Kind::Own), 42);
}

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
    let starts = far.starts();
    let before = bytes();
    let output = far.runner.run("build_script", script(&starts));
    far.assert_result(&output, &expected, 42, &starts);
    proxy.wait("the end", PATIENCE, |counts| counts.open == 0);
    let whole = bytes() - before;
    let steps = if long() { 60 } else { 8 };
    let mut points: Vec<u64> = (0..steps).map(|_| random.below(whole)).collect();
    // Small numbers hit the login and the command, the last ones the end marker, its receipt and `done`.
    let (first, last) = (whole.min(14_000), whole.min(1_200));
    points.extend((0..steps).map(|step| step * first / steps + random.below(first / steps)));
    points.extend((0..steps).map(|step| whole - last + step * last / steps));
    for (index, point) in points.into_iter().enumerate() {
        let cut = CUTS[index % 2];
        let starts = far.starts();
        let before = proxy.counts();
        proxy.fault_on_next(direction, point, Harm::Cut(cut));
        eprintln!("{cut:?} after {point} of {whole} bytes {direction:?}");
        let output = far.runner.run("build_script", script(&starts));
        far.assert_result(&output, &expected, 42, &starts);
        let counts = proxy.wait("the end", PATIENCE, |counts| counts.open == 0);
        // The very last bytes vary a little (how many packets there are); all others are surely reached.
        let reached = counts.cut == before.cut + 1;
        assert!(reached || point + last > whole, "{counts:?}");
        if !reached {
            // The fault was the connection's, and is gone with it.
            assert_eq!(counts.connections, before.connections + 1);
        }
    }
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
    let watch = Watch::start(&far.spool);
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
    let far = Far::start(ServerBuilder::new(Kind::Own, Login::Dash));
    let proxy = far.runner.proxy();
    let starts = far.starts();
    let before = proxy.counts();
    let run = far.runner.spawn_run("build_script", large(&starts));
    proxy.wait_bytes(Direction::Up, before.up + (4 << 20), PATIENCE);
    proxy.stall(Direction::Up, true);
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
    let builder = Runner::builder().machine(machine).through_proxy();
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

/// What a driver may take for itself, however much output waits.
const MEMORY: u64 = 32 << 10;

#[test]
fn a_reader_that_stalls_loses_nothing() {
    const SIZE: u64 = 100 << 20;
    let far = Far::start(ServerBuilder::new(Kind::OpenSsh, Login::Bash));
    let (starts, finished) = (far.starts(), far.runner.root().join("finished"));
    // 128 bytes a line, each different.
    let script = format!(
        "echo started >> {}\nseq -f %0127.0f {}\ntouch {}\nexit 42\n",
        starts.display(),
        SIZE / 128,
        finished.display()
    );
    let script = far.runner.write_script(script);
    let mut child = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
        .arg("--config")
        .arg(far.runner.config_file())
        .args(["custom", "run"])
        .arg(&script)
        .arg("build_script")
        .env_clear()
        .envs(far.runner.stage_environment())
        .current_dir(far.runner.attempt())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // The first bytes show that it runs; then the time is what this is about.
    let mut first = [0; 128];
    stdout.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_secs(if long() { 90 } else { 5 }));
    assert!(!finished.exists(), "nothing held the script up");
    let stalled = peak(child.id());
    let mut buffer = vec![0; 1 << 16];
    let mut rest = first.to_vec();
    let (mut line, mut highest) = (0, stalled);
    let began = Instant::now();
    loop {
        while rest.len() >= 128 {
            line += 1;
            let expected = format!("{line:0127}\n");
            assert_eq!(String::from_utf8_lossy(&rest[..128]), expected);
            rest.drain(..128);
        }
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        rest.extend_from_slice(&buffer[..count]);
        if line % 4096 == 0 {
            highest = highest.max(peak(child.id()));
        }
        assert!(began.elapsed() < LONG_PATIENCE, "only {line} lines");
    }
    assert_eq!((line, rest.len()), (SIZE / 128, 0));
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), &*stderr), (Some(1), ""));
    assert_eq!(far.runner.exit_file().as_deref(), Some(&b"42"[..]));
    assert_eq!(std::fs::read_to_string(&starts).unwrap(), "started\n");
    assert!(
        highest < MEMORY,
        "{stalled} KiB stalled, {highest} KiB in all"
    );
    far.assert_no_spool();
    far.end();
}

/// Returns the most memory that a process ever had, in KiB; nothing where it has ended.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default()
}
