//! Connections that are lost while a script runs: in its midst, while it starts, while it ends, by
//! silence. Whatever happens on the way, the script runs once and its result comes back intact.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::PLACE;
use super::scripts::record;
use crate::lab::proxy::Cut;
use crate::lab::runner::Runner;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;

mod meanwhile;
mod random;
mod reader;
mod silence;
mod sweeps;

const NOISE: &str = "welcome to the machine\nno newline at the end";
/// For what has cuts on its way: the time of some reconnects on a busy machine.
const LONG_PATIENCE: Duration = Duration::from_secs(300);
/// Both ways of cutting, which clients hear of differently.
const CUTS: [Cut; 2] = [Cut::Reset, Cut::Close];

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
    /// Its followers live for moments only: where no `tail` waits, a `cat` hands on what is there, time and again.
    fleeting: bool,
}

impl Far {
    fn start(machine: ServerBuilder) -> Self {
        // In the agent a follower is no process.
        let fleeting = machine.is_busybox_only() || PLACE.has_the_agent();
        Self {
            fleeting,
            ..Self::with(PLACE.job().machine(machine).through_proxy().build())
        }
    }

    fn with(runner: Runner) -> Self {
        runner.start();
        let spool = record(&runner)["spool"].as_str().unwrap().to_owned();
        assert!(spool.len() > 8, "{spool}");
        Self {
            runner,
            spool,
            scripts: std::cell::Cell::new(0),
            fleeting: false,
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
        let bases = self.runner.far_temp();
        let left: Vec<PathBuf> = bases
            .iter()
            .filter_map(|base| std::fs::read_dir(base.join(format!(".gad-{}", self.spool))).ok())
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "left of the spool: {left:?}");
    }

    fn end(&self) {
        self.runner.cleanup().assert_success();
        self.runner.assert_nothing_left();
        // A task's disk is gone with it.
        for base in ["/var/tmp", "/tmp"] {
            assert!(!Path::new(&format!("{base}/.gad-{}", self.spool)).exists());
        }
    }
}

/// Watches, until it is stopped, that never two processes hand the same job's spool on.
struct Watch {
    fleeting: bool,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Watch {
    fn start(far: &Far) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, spool) = (Arc::clone(&stop), far.spool.clone());
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
        Self {
            fleeting: far.fleeting,
            stop,
            thread,
        }
    }

    #[track_caller]
    fn assert_one(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (most, crowd) = self.thread.join().unwrap();
        assert!(most < 2, "more than one follower: {crowd:#?}");
        // A watch that sees nobody would prove nothing; but what lives for moments a busy host may never show.
        assert!(most == 1 || self.fleeting, "no follower was ever seen");
    }
}

/// Returns the live processes that write a spool to a connection: those that read a segment of it, are no shell
/// and are not being killed. Each by its number, its birth and its command line.
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
        if is_killed(&process) {
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

/// Tells whether SIGKILL is on its way to a process: it will do nothing any more, however late it gets to its end.
fn is_killed(process: &Path) -> bool {
    const KILL: u64 = 1 << (9 - 1);
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let mut masks = status.lines().filter_map(|line| {
        line.strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"))
    });
    masks.any(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & KILL != 0))
}

fn numbers(last: u64) -> Vec<u8> {
    let mut text = String::new();
    for number in 1..=last {
        writeln!(text, "{number}").unwrap();
    }
    text.into_bytes()
}
