//! The owner of a job: the Runner process, once two stages have told it apart from any process between the Runner and them.
//!
//! A wrapper that runs the driver in a process group of its own (`timeout`, `setsid`, `sudo`) is an ancestor of one stage
//! only; the nearest ancestor that two stages share is the Runner. Until two stages were compared, the owner is unknown, and
//! the end of a process proves nothing.

use rustix::fs::FlockOperation;

use super::record::{Intent, Record};
use super::{Job, files};
use crate::error::Result;
use crate::process::Process;

/// The owner of a job, as far as its stages know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The Runner process.
    pub owner: Option<Process>,
    /// If the owner is not known yet: the processes that may be it, the nearest first, as the latest stage saw them.
    pub candidates: Vec<Process>,
}

impl Ownership {
    /// Returns what is known after one stage.
    #[must_use]
    pub fn unsettled(ancestors: Vec<Process>) -> Self {
        Self {
            owner: None,
            candidates: ancestors,
        }
    }

    /// Returns the owner after another stage with those ancestors. An owner that is not among them has not called this stage:
    /// it was taken for the Runner by mistake.
    #[must_use]
    pub fn seen_by(&self, ancestors: &[Process]) -> Self {
        match ancestors.iter().find(|one| self.may_be(**one)) {
            Some(owner) => Self {
                owner: Some(*owner),
                candidates: Vec::new(),
            },
            None => Self::unsettled(ancestors.to_vec()),
        }
    }

    /// Whether the owner may have called the stage with those ancestors.
    #[must_use]
    pub fn is_among(&self, ancestors: &[Process]) -> bool {
        ancestors.iter().any(|one| self.may_be(*one))
    }

    /// Returns the process whose end means that no stage of the job runs: the owner, or, if it is not known yet, one of those that
    /// may be it, if they are of an earlier boot.
    #[must_use]
    pub fn whose_end_tells(&self) -> Option<Process> {
        let earlier = |one: &Process| one.is_of_another_boot();
        self.owner
            .or_else(|| self.candidates.iter().copied().find(earlier))
    }

    fn may_be(&self, process: Process) -> bool {
        self.owner == Some(process) || self.candidates.contains(&process)
    }
}

impl Intent {
    /// Returns the owner of the job.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        Ownership {
            owner: self.owner,
            candidates: self.candidates.clone(),
        }
    }

    /// Sets the owner of the job.
    pub fn set_ownership(&mut self, ownership: Ownership) {
        self.owner = ownership.owner;
        self.candidates = ownership.candidates;
    }
}

impl Record {
    /// Returns the owner of the job.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        Ownership {
            owner: self.owner,
            candidates: self.candidates.clone(),
        }
    }

    /// Sets the owner of the job.
    pub fn set_ownership(&mut self, ownership: Ownership) {
        self.owner = ownership.owner;
        self.candidates = ownership.candidates;
    }
}

impl Job {
    /// Writes the owner of the job to the files of that attempt. Does not wait if another stage has the lock: the next stage finds
    /// the owner again.
    pub fn note_ownership(&self, attempt: &str, ownership: &Ownership) {
        if let Err(error) = self.try_note_ownership(attempt, ownership) {
            tracing::debug!(%error, "whose the job is was not noted");
        }
    }

    fn try_note_ownership(&self, attempt: &str, ownership: &Ownership) -> Result<()> {
        let Some(lock) = self.open_lock()? else {
            return Ok(());
        };
        if !self.take(&lock, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(());
        }
        let Some(locked) = self.confirm(lock) else {
            return Ok(());
        };
        if let Some(mut intent) = locked.intent()?
            && intent.attempt == attempt
        {
            intent.set_ownership(ownership.clone());
            locked.write_intent(&intent)?;
        }
        if let Some(mut record) = locked.record()?
            && record.attempt == attempt
        {
            record.set_ownership(ownership.clone());
            files::write(&self.dir.join("record.json"), &record)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> Process {
        Process {
            pid,
            ..Process::this().unwrap()
        }
    }

    fn settled(pid: i32) -> Ownership {
        Ownership {
            owner: Some(process(pid)),
            candidates: Vec::new(),
        }
    }

    #[test]
    fn the_owner_is_the_nearest_that_two_stages_share() {
        let [runner, service] = [process(100), process(50)];
        let plain = [runner, service];
        let wrapped = [process(300), process(200), runner, service];
        let otherwise = [process(400), runner, service];
        for (one, other) in [
            (&plain[..], &plain[..]),
            (&plain, &wrapped),
            (&wrapped, &plain),
            (&wrapped, &otherwise),
        ] {
            let owner = Ownership::unsettled(one.to_vec()).seen_by(other);
            assert_eq!(owner, settled(100));
            // It stays the owner, whatever processes are between.
            assert_eq!(owner.seen_by(&wrapped), owner);
        }
    }

    #[test]
    fn stages_that_share_nobody_know_nobody() {
        let owner = Ownership::unsettled(vec![process(300)]).seen_by(&[process(400)]);
        assert_eq!(owner, Ownership::unsettled(vec![process(400)]));
        assert_eq!(owner.whose_end_tells(), None);
        let none = Ownership::default().seen_by(&[]);
        assert_eq!(none, Ownership::default());
        assert!(!none.is_among(&[process(400)]));
    }

    #[test]
    fn an_owner_that_did_not_call_is_none_until_the_next_stage() {
        let ours = [process(400), process(100)];
        let once = settled(300).seen_by(&ours);
        assert_eq!(once, Ownership::unsettled(ours.to_vec()));
        assert_eq!(once.seen_by(&[process(500), process(100)]), settled(100));
        assert!(settled(100).is_among(&ours) && !settled(300).is_among(&ours));
    }

    #[test]
    fn nobody_of_an_earlier_boot_calls_any_more() {
        let mut earlier = process(300);
        earlier.boot ^= 1;
        let owner = Ownership::unsettled(vec![earlier]);
        assert_eq!(owner.whose_end_tells(), Some(earlier));
    }
}
