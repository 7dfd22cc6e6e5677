//! The processes of a script: its session, and what descends from it in sessions of its own.

use std::collections::HashMap;

use rustix::process::{Pid, Signal};

/// After how many processes other work gets its turn: a machine may have very many.
const TURN: usize = 256;

/// What of a process's name is told.
const NAME_LIMIT: usize = 80;

/// What one line of `/proc/PID/stat` says of a live process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    pid: i32,
    parent: i32,
    session: i32,
    start: u64,
}

impl Stat {
    /// Reads a process's line; `None` if it is gone, dead or hidden.
    fn read(pid: i32) -> Option<Self> {
        let line = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&line)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name is in parentheses, and may have any byte in it.
        let name_ends = line.iter().rposition(|byte| *byte == b')')?;
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let pid = text(line.split(|byte| *byte == b' ').next()?)?
            .parse()
            .ok()?;
        let mut fields = text(line.get(name_ends + 1..)?)?.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(15)?.parse().ok()?;
        Some(Self {
            pid,
            parent,
            session,
            start,
        })
    }
}

/// Tells whether processes can be seen at all.
pub(super) fn can_see() -> bool {
    std::fs::read("/proc/self/stat").is_ok_and(|line| Stat::parse(&line).is_some())
}

/// The script's own process, which leads its session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leader {
    pid: i32,
    /// When it was started; unknown where it cannot be seen.
    start: Option<u64>,
}

impl Leader {
    /// Must be called before the process is reaped, while its number is surely its own.
    pub(super) fn new(pid: i32) -> Self {
        let start = Stat::read(pid).map(|stat| stat.start);
        Self { pid, start }
    }
}

/// The live processes of a script, as far as they have been seen.
///
/// A process that was seen once stays a member for its life, also where its parent ends and so its descent is lost.
#[derive(Debug)]
pub(super) struct Members {
    leader: Leader,
    alive: HashMap<i32, Stat>,
}

impl Members {
    pub(super) fn new(leader: Leader) -> Self {
        Self {
            leader,
            alive: HashMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// Looks at all processes anew.
    pub(super) async fn look(&mut self) {
        let mut all = Vec::new();
        for (index, pid) in pids().into_iter().enumerate() {
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            all.extend(Stat::read(pid));
        }
        let own = std::process::id().try_into().unwrap_or(0);
        all.retain(|stat: &Stat| stat.pid != own);
        self.choose(&all);
    }

    fn choose(&mut self, all: &[Stat]) {
        let leader = self.leader;
        // Another process that got the leader's number leads another session of that number.
        let is_reused = all
            .iter()
            .any(|stat| stat.pid == leader.pid && leader.start.is_some_and(|at| at != stat.start));
        let was_seen = std::mem::take(&mut self.alive);
        let mut rest = Vec::new();
        for stat in all {
            let seen = was_seen
                .get(&stat.pid)
                .is_some_and(|before| before.start == stat.start);
            let is_own = stat.pid == leader.pid || stat.session == leader.pid;
            if seen || (is_own && !is_reused) {
                self.alive.insert(stat.pid, *stat);
            } else {
                rest.push(*stat);
            }
        }
        loop {
            let before = rest.len();
            rest.retain(|stat| {
                let descends = self.alive.contains_key(&stat.parent);
                if descends {
                    self.alive.insert(stat.pid, *stat);
                }
                !descends
            });
            if rest.len() == before {
                return;
            }
        }
    }

    /// Sends all of them a signal.
    pub(super) fn signal(&self, signal: Signal) {
        for stat in self.alive.values() {
            // Its number may be another's by now.
            let same = Stat::read(stat.pid).is_some_and(|now| now.start == stat.start);
            if let Some(pid) = Pid::from_raw(stat.pid).filter(|_| same) {
                // It may have gone this moment, or be another user's; what is left is named in the end.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// Returns number and name of each.
    pub(super) fn names(&self) -> Vec<String> {
        let mut alive: Vec<_> = self.alive.keys().copied().collect();
        alive.sort_unstable();
        alive
            .into_iter()
            .map(|pid| {
                let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("{pid} {}", clean(&name))
            })
            .collect()
    }
}

fn clean(name: &[u8]) -> String {
    let name = name.strip_suffix(b"\n").unwrap_or(name);
    String::from_utf8_lossy(name)
        .chars()
        .take(NAME_LIMIT)
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

/// Returns the numbers of all processes that can be seen. One that vanishes meanwhile does no harm.
fn pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, session: i32) -> Stat {
        Stat {
            pid,
            parent,
            session,
            start: 1000 + u64::from(pid.unsigned_abs()),
        }
    }

    fn members(leader: i32) -> Members {
        Members::new(Leader {
            pid: leader,
            start: Some(1000 + u64::from(leader.unsigned_abs())),
        })
    }

    fn chosen(members: &Members) -> Vec<i32> {
        let mut pids: Vec<_> = members.alive.keys().copied().collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn a_line_is_read_whatever_the_name() {
        let line = b"42 (a) R (b) S 7 40 30 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 8 9";
        let read = Stat::parse(line).unwrap();
        assert_eq!((read.pid, read.parent, read.session), (42, 7, 30));
        assert_eq!(read.start, 4711);
        assert_eq!(Stat::parse(b"42 (a) Z 7 40 30 0 0"), None);
        assert_eq!(Stat::parse(b"42 (a"), None);
        assert_eq!(Stat::parse(b""), None);
        assert!(
            Stat::parse(b"42 (\xff\xff) S 7 40 30 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 47 8").is_some()
        );
    }

    #[test]
    fn the_session_and_its_descendants_are_members() {
        let mut members = members(10);
        let all = [
            stat(1, 0, 1),
            stat(10, 1, 10),
            stat(13, 12, 13),
            stat(11, 1, 10),
            stat(12, 11, 12),
            stat(20, 1, 20),
        ];
        members.choose(&all);
        assert_eq!(chosen(&members), [10, 11, 12, 13]);
    }

    #[test]
    fn a_member_stays_one_when_its_parent_ends() {
        let mut members = members(10);
        members.choose(&[stat(10, 1, 10), stat(12, 10, 12)]);
        members.choose(&[stat(12, 1, 12), stat(14, 12, 14)]);
        assert_eq!(chosen(&members), [12, 14]);
        // The same number, another process.
        let mut other = stat(12, 1, 12);
        other.start = 9999;
        members.choose(&[other]);
        assert!(members.is_empty());
    }

    #[test]
    fn a_session_of_a_number_used_again_is_anothers() {
        let mut members = members(10);
        let mut other = stat(10, 1, 10);
        other.start = 9999;
        members.choose(&[other, stat(11, 10, 10)]);
        assert!(members.is_empty());
    }

    #[test]
    fn names_are_clean() {
        assert_eq!(clean(b"a\nb\n"), "a?b");
        assert_eq!(clean(b""), "");
    }

    #[tokio::test]
    async fn a_process_of_ours_is_seen_and_ended() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let mut members = Members::new(Leader::new(i32::try_from(child.id()).unwrap()));
        members.look().await;
        assert!(members.names()[0].starts_with(&format!("{} ", child.id())));
        members.signal(Signal::KILL);
        assert!(!child.wait().unwrap().success());
        members.look().await;
        assert!(members.is_empty());
    }
}
