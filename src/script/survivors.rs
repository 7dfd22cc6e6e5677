//! Processes that the far side could not end, as it names them.

use std::fmt;

use crate::error::one_line;

/// How many are named; whoever looks for the cause needs no more.
const NAMED: usize = 16;
/// How much of each name is shown: a kernel's own are shorter.
const LENGTH: usize = 80;

/// Processes that no signal ended; of many, the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survivors {
    names: Vec<String>,
    more: bool,
}

impl Survivors {
    /// Notes one.
    pub(super) fn note(&mut self, name: &str) {
        let name: String = one_line(name).chars().take(LENGTH).collect();
        if self.names.contains(&name) {
            return;
        }
        match self.names.len() < NAMED {
            true => self.names.push(name),
            false => self.more = true,
        }
    }

    /// Notes those that were noted elsewhere.
    pub(super) fn note_all(&mut self, others: &Self) {
        for name in &others.names {
            self.note(name);
        }
        self.more |= others.more;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl fmt::Display for Survivors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        if self.more {
            f.write_str(" and more")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::script::survivors::*;

    #[test]
    fn of_many_the_first_are_named_once() {
        let mut left = Survivors::default();
        assert!(left.is_empty());
        for name in ["7 dd", "8 a\u{1b}b", "7 dd"] {
            left.note(name);
        }
        assert_eq!(left.to_string(), "7 dd, 8 ab");
        let mut all = Survivors::default();
        for number in 0..100_000 {
            all.note(&format!("{number} {}", "x".repeat(500)));
        }
        left.note_all(&all);
        let told = left.to_string();
        assert!(told.starts_with("7 dd, 8 ab, 0 xx"), "{told}");
        assert!(told.ends_with(" and more"), "{told}");
        assert!(told.len() < NAMED * (LENGTH + 2) + 10, "{told}");
    }
}
