//! How often the kernel has killed for want of memory.

use std::path::Path;

/// The files that tell, of the unified hierarchy and of the old one.
const FILES: [&str; 2] = [
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
];

/// Returns how often it happened in this container since its start; 0 where nothing tells.
pub(super) fn kills() -> u64 {
    FILES
        .iter()
        .filter_map(|file| std::fs::read_to_string(Path::new(file)).ok())
        .find_map(|text| count(&text))
        .unwrap_or(0)
}

fn count(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read() {
        let new = "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n";
        let old = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        assert_eq!(count(new), Some(3));
        assert_eq!(count(old), Some(7));
        assert_eq!(count("oom_kill_disable 0\n"), None);
    }
}
