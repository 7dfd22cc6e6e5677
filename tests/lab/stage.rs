//! One child process as GitLab Runner starts a stage: own process group, /dev/null as standard input,
//! two pipes that are read to their end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::Instant;

use aws_lc_rs::digest;
use memchr::memmem;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::WaitId;
use rustix::process::WaitIdOptions;

/// How much of an output is shown in a message.
const SHOWN: usize = 16 * 1024;

/// What is kept of a process' output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Every byte.
    #[default]
    All,
    /// The first bytes, the length and a SHA-256: for outputs that are too large to keep.
    Digest,
}

/// A process to start.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// What messages call it.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// Its whole environment.
    pub(crate) env: BTreeMap<OsString, OsString>,
    /// Its working directory.
    pub(crate) directory: PathBuf,
    /// What is kept of its output.
    pub(crate) keep: Keep,
}

impl Call {
    /// Starts the process.
    pub(crate) fn spawn(self) -> Stage {
        let started = Instant::now();
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        let pid = Pid::from_child(&child);
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                streams: [Stream::new(self.keep), Stream::new(self.keep)],
                status: None,
                ended: None,
            }),
            changed: Condvar::new(),
        });
        spawn_reader(&shared, 0, stdout);
        spawn_reader(&shared, 1, stderr);
        spawn_waiter(&shared, child, pid);
        Stage {
            name: self.name,
            pid,
            started,
            shared,
        }
    }
}

/// A started process.
pub(crate) struct Stage {
    name: String,
    pid: Pid,
    started: Instant,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    streams: [Stream; 2],
    status: Option<ExitStatus>,
    ended: Option<Instant>,
}

struct Stream {
    kept: Vec<u8>,
    total: u64,
    digest: Option<digest::Context>,
    open: bool,
}

impl Stream {
    fn new(keep: Keep) -> Self {
        Self {
            kept: Vec::new(),
            total: 0,
            digest: (keep == Keep::Digest).then(|| digest::Context::new(&digest::SHA256)),
            open: true,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let mut room = bytes.len();
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
            room = room.min(SHOWN.saturating_sub(self.kept.len()));
        }
        self.kept.extend_from_slice(&bytes[..room]);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    /// Waits until the condition holds; returns whether it did before the deadline.
    fn wait(&self, within: Duration, mut holds: impl FnMut(&State) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        while !holds(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.changed.wait_timeout(state, left).expect("as above");
        }
        true
    }
}

impl Stage {
    /// Returns the process' id, which is also its process group's.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to the process group, as the Runner does; nothing once the process was waited for.
    pub(crate) fn signal(&self, signal: Signal) {
        // The waiter takes the same lock before it lets go of the process' id.
        let state = self.shared.lock();
        if state.status.is_none() {
            rustix::process::kill_process_group(self.pid, signal).expect("own process group");
        }
        drop(state);
    }

    /// Waits until the output (either pipe) holds the bytes.
    ///
    /// # Panics
    ///
    /// With all output so far when the deadline passes, or the process ends without writing them.
    pub(crate) fn wait_output(&self, wanted: &[u8], within: Duration) {
        let finder = memmem::Finder::new(wanted);
        // What was searched in vain before is not searched again.
        let mut searched = [0, 0];
        let mut found = false;
        self.shared.wait(within, |state| {
            for (stream, from) in state.streams.iter().zip(&mut searched) {
                found |= finder.find(&stream.kept[*from..]).is_some();
                *from = stream.kept.len().saturating_sub(wanted.len());
            }
            found || state.is_over()
        });
        assert!(
            found,
            "{} did not write {:?} within {within:?}:\n{}",
            self.name,
            String::from_utf8_lossy(wanted),
            self.so_far()
        );
    }

    /// Waits until standard output holds so many bytes.
    ///
    /// # Panics
    ///
    /// As [`Stage::wait_output`].
    pub(crate) fn wait_stdout_len(&self, len: u64, within: Duration) {
        let enough = |state: &State| state.streams[0].total >= len;
        self.shared
            .wait(within, |state| enough(state) || state.is_over());
        assert!(
            enough(&self.shared.lock()),
            "{} did not write {len} bytes within {within:?}:\n{}",
            self.name,
            self.so_far()
        );
    }

    /// Waits until the process has ended, whoever may still hold its pipes.
    ///
    /// # Panics
    ///
    /// With all output so far when the deadline passes.
    pub(crate) fn wait_ended(&self, within: Duration) {
        let ended = self.shared.wait(within, |state| state.ended.is_some());
        assert!(ended, "{} did not end:\n{}", self.name, self.so_far());
    }

    /// Tells whether the process has ended and both its pipes are at their end.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.lock().is_over()
    }

    /// Waits until the process has ended and both pipes are at their end, as the Runner does.
    ///
    /// # Panics
    ///
    /// With all output so far when the deadline passes; the process group is killed.
    pub(crate) fn wait(self, within: Duration) -> Output {
        if !self.shared.wait(within, State::is_over) {
            self.signal(Signal::KILL);
            let reason = if self.shared.lock().ended.is_some() {
                "ended, but something it left behind holds its output open"
            } else {
                "did not end"
            };
            panic!(
                "{} {reason}, within {within:?}:\n{}",
                self.name,
                self.so_far()
            );
        }
        self.so_far()
    }

    /// Returns what the process has written and, once it has ended, how.
    pub(crate) fn so_far(&self) -> Output {
        let state = self.shared.lock();
        let [stdout, stderr] = &state.streams;
        Output {
            name: self.name.clone(),
            status: state.status,
            stdout: stdout.kept.clone(),
            stderr: stderr.kept.clone(),
            stdout_len: stdout.total,
            stdout_digest: stdout.digest.clone().map(|digest| {
                let mut hash = [0; 32];
                hash.copy_from_slice(digest.finish().as_ref());
                hash
            }),
            duration: state.ended.unwrap_or_else(Instant::now) - self.started,
        }
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.status.is_some() && self.streams.iter().all(|stream| !stream.open)
    }
}

fn spawn_reader(shared: &Arc<Shared>, index: usize, mut pipe: impl Read + Send + 'static) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = pipe.read(&mut buffer).unwrap_or(0);
            let mut state = shared.lock();
            let stream = &mut state.streams[index];
            stream.take(&buffer[..read]);
            stream.open = read > 0;
            drop(state);
            shared.changed.notify_all();
            if read == 0 {
                break;
            }
        }
    });
}

fn spawn_waiter(shared: &Arc<Shared>, mut child: Child, pid: Pid) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        // The end is waited for first and the process reaped under the lock, so that `signal` can never
        // hit a stranger who got the same id.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while rustix::process::waitid(WaitId::Pid(pid), options).is_err() {}
        let mut state = shared.lock();
        state.status = Some(child.wait().expect("a child that has ended"));
        state.ended = Some(Instant::now());
        drop(state);
        shared.changed.notify_all();
    });
}

/// What a process wrote and how it ended.
#[derive(Clone)]
pub(crate) struct Output {
    name: String,
    status: Option<ExitStatus>,
    /// Standard output, as far as it was kept.
    pub(crate) stdout: Vec<u8>,
    /// Standard error, as far as it was kept.
    pub(crate) stderr: Vec<u8>,
    /// The whole length of standard output.
    pub(crate) stdout_len: u64,
    /// SHA-256 of standard output, with [`Keep::Digest`].
    pub(crate) stdout_digest: Option<[u8; 32]>,
    /// From the start to the end of the process (not of its pipes).
    pub(crate) duration: Duration,
}

impl Output {
    /// Returns the exit code, or nothing for a process that a signal ended.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// Returns the number of the signal that ended the process.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.signal())
    }

    /// Checks the exit code.
    ///
    /// # Panics
    ///
    /// With all that the process wrote.
    #[track_caller]
    pub(crate) fn assert_code(self, expected: i32) -> Self {
        assert!(
            self.code() == Some(expected),
            "{} should have ended {expected}:\n{self}",
            self.name
        );
        self
    }

    /// Checks that the process succeeded.
    #[track_caller]
    pub(crate) fn assert_success(self) -> Self {
        self.assert_code(0)
    }

    /// Checks that one of the outputs holds the text.
    ///
    /// # Panics
    ///
    /// With all that the process wrote.
    #[track_caller]
    pub(crate) fn assert_contains(self, text: &str) -> Self {
        assert!(
            self.contains(text),
            "{} should have written {text:?}:\n{self}",
            self.name
        );
        self
    }

    /// Checks that standard output is exactly these bytes and standard error is empty.
    ///
    /// # Panics
    ///
    /// With all that the process wrote.
    #[track_caller]
    pub(crate) fn assert_stdout(self, expected: impl AsRef<[u8]>) -> Self {
        let expected = expected.as_ref();
        assert!(
            self.stdout == expected && self.stderr.is_empty(),
            "{} should have written {} bytes {:?} and nothing else:\n{self}",
            self.name,
            expected.len(),
            shown(expected)
        );
        self
    }

    /// Tells whether one of the outputs holds the text.
    pub(crate) fn contains(&self, text: &str) -> bool {
        let finder = memmem::Finder::new(text);
        finder.find(&self.stdout).is_some() || finder.find(&self.stderr).is_some()
    }

    /// Returns standard output as text.
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns standard error as text.
    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Standard output, standard error below a rule, an end marker, the ending.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.name)?;
        write!(f, "{}", shown(&self.stdout))?;
        if !self.stderr.is_empty() {
            writeln!(f, "------- stderr -------")?;
            write!(f, "{}", shown(&self.stderr))?;
        }
        writeln!(f, "[EOF]")?;
        match (self.code(), self.signal()) {
            (Some(0), _) => writeln!(f, "[success after {:.1?}]", self.duration),
            (Some(code), _) => writeln!(f, "[exit status: {code} after {:.1?}]", self.duration),
            (None, Some(signal)) => writeln!(f, "[signal: {signal} after {:.1?}]", self.duration),
            (None, None) => writeln!(f, "[still running after {:.1?}]", self.duration),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

/// Returns text for a message: the head and the tail of what is long.
fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let (head, tail) = (&bytes[..SHOWN / 2], &bytes[bytes.len() - SHOWN / 2..]);
    format!(
        "{}\n[... {} bytes not shown ...]\n{}",
        String::from_utf8_lossy(head),
        bytes.len() - SHOWN,
        String::from_utf8_lossy(tail)
    )
}
