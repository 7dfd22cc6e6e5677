//! Finding, and ending, the processes that belong to a test.
//!
//! A process belongs to a test when it carries the path of the test's directory in its arguments,
//! environment, working directory or open files. Names are never used: the same programs run for
//! other tests at the same time.

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;

/// A process that was alive when it was looked for.
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: Pid,
    command: String,
    handle: OwnedFd,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid.as_raw_nonzero(), self.command)
    }
}

/// Returns all live processes that belong to the directory, this one excepted.
pub(crate) fn of(directory: &Path) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux's /proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };
        if is_of_this_test(pid) || !belongs(pid, directory) {
            continue;
        }
        // The handle comes before the second look, so that it can only be this very process.
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        if !is_of_this_test(pid) && belongs(pid, directory) {
            found.push(Process {
                pid,
                command: command(pid),
                handle,
            });
        }
    }
    found
}

/// Returns this host's id of the process that has that id in the PID namespace of another one.
pub(crate) fn of_namespace(member: Pid, inner: Pid) -> Option<Pid> {
    let proc = |pid: Pid| Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let namespace = std::fs::read_link(proc(member).join("ns/pid")).ok()?;
    let known = |pid: &Pid| {
        let status = std::fs::read_to_string(proc(*pid).join("status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let last = ids.and_then(|ids| ids.split_whitespace().next_back());
        last.and_then(|id| id.parse().ok()) == Some(inner.as_raw_nonzero().get())
    };
    let alike =
        |pid: &Pid| std::fs::read_link(proc(*pid).join("ns/pid")).ok().as_ref() == Some(&namespace);
    let all = std::fs::read_dir("/proc").expect("Linux's /proc").flatten();
    all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .find(|pid| alike(pid) && known(pid))
}

/// Between two looks at whose the processes are, where none ends.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until no process belongs to the directory; returns those that are still there.
pub(crate) fn wait_none(directory: &Path, within: Duration) -> Vec<Process> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let found = of(directory);
        let Some(first) = found.first() else {
            return found;
        };
        if left.is_zero() {
            return found;
        }
        // It may cease to belong to the directory without an end.
        first.wait(left.min(LOOK));
    }
}

impl Process {
    /// Waits for the process' end; returns whether it came in time.
    pub(crate) fn wait(&self, within: Duration) -> bool {
        let timeout = within.try_into().expect("a short time");
        let mut polled = [PollFd::new(&self.handle, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }

    /// Ends the process at once.
    pub(crate) fn kill(&self) {
        // An error means that it is gone already.
        let _gone = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

/// Tells whether a process is this one, or a child that it has just forked and that has not begun its own program yet: that
/// has all of this one's open files, and another test's stage was killed for them. Just before they are closed it has
/// no command line at all.
fn is_of_this_test(pid: Pid) -> bool {
    let line = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let one = line(&pid.as_raw_nonzero().to_string());
    one.is_empty() || one == line("self")
}

fn belongs(pid: Pid, directory: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let wanted = memchr::memmem::Finder::new(directory.as_os_str().as_bytes());
    let mentions = |bytes: &[u8]| wanted.find(bytes).is_some();
    let file = |name: &str| std::fs::read(proc.join(name)).is_ok_and(|text| mentions(&text));
    let link = |path: &Path| {
        std::fs::read_link(path).is_ok_and(|target| mentions(target.as_os_str().as_bytes()))
    };
    // A process that has ended but was not yet waited for has none of these.
    file("environ")
        || file("cmdline")
        || link(&proc.join("cwd"))
        || std::fs::read_dir(proc.join("fd"))
            .is_ok_and(|list| list.flatten().any(|entry| link(&entry.path())))
}

fn command(pid: Pid) -> String {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let bytes = std::fs::read(path).unwrap_or_default();
    let mut text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.truncate(text.floor_char_boundary(200));
    text
}
