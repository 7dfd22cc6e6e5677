//! The processes around this one, as `/proc` shows them. Where it shows nothing there are none.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::process::{Pid, Signal};

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// When it started, in the kernel's ticks: a number that was given anew has another.
    pub(crate) start: u64,
    /// It has ended and was not collected yet.
    pub(crate) is_zombie: bool,
}

impl Process {
    /// Looks at one process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        parse(&read(Path::new(&format!("/proc/{pid}/stat")), 4096)?)
    }

    /// Sends KILL. A failure means that it has just gone, or belongs to somebody else.
    pub(crate) fn kill(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Returns what a small file holds, up to a limit.
pub(crate) fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Returns the name of a process, of at most 15 bytes.
pub(crate) fn name(pid: i32) -> Option<String> {
    let name = read(Path::new(&format!("/proc/{pid}/comm")), 64)?;
    let name = String::from_utf8_lossy(&name).trim_end().to_owned();
    (!name.is_empty()).then_some(name)
}

/// Returns the line of a process's status that has this name, without the name.
pub(crate) fn status(pid: i32, field: &str) -> Option<String> {
    let status = read(Path::new(&format!("/proc/{pid}/status")), 64 << 10)?;
    String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

/// Returns this process's ancestors but for process 1, the nearest first.
pub(crate) fn ancestors() -> Vec<Process> {
    let mut found = Vec::new();
    let mut next = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    while next > 1
        && let Some(process) = Process::of(next)
        && found.len() < 256
    {
        next = process.parent;
        found.push(process);
    }
    found
}

/// Returns all that descends from this process and has not ended.
pub(crate) fn descendants() -> Vec<Process> {
    let all = list();
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut look_at = vec![rustix::process::getpid().as_raw_pid()];
    while let Some(pid) = look_at.pop() {
        // The list is not of one moment, so there may be circles in it.
        if seen.insert(pid) {
            for child in children.get(&pid).into_iter().flatten() {
                look_at.push(child.pid);
                found.push(*child);
            }
        }
    }
    found.retain(|process| !process.is_zombie);
    found
}

fn list() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn parse(stat: &[u8]) -> Option<Process> {
    let text = String::from_utf8_lossy(stat);
    let pid = text.split(' ').next()?.parse().ok()?;
    // The name is in brackets, and may itself hold some.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.trim_end().parse().ok()?;
    Some(Process {
        pid,
        parent,
        start,
        is_zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parsed_whatever_the_name() {
        let line = b"77 (a) R (b) Z 5 77 77 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 98765 0 0\n";
        assert_eq!(
            parse(line),
            Some(Process {
                pid: 77,
                parent: 5,
                start: 98765,
                is_zombie: true
            })
        );
        assert_eq!(parse(b"77 (a) Z"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = descendants().into_iter().find(|found| found.pid == pid);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(found.map(|found| found.parent), Some(own));
        assert_eq!(found, Process::of(pid));
        found.unwrap().kill();
        assert!(!child.wait().unwrap().success());
    }
}
