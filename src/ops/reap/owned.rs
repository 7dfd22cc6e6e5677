//! What the jobs of the state directory own, or may own. What one of them cannot tell shields what may be its own, and nothing
//! else.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::machine::launch::{Launch, LaunchState};
use crate::machine::{Place, Request, tags};
use crate::state::Job;
use crate::state::record::{Intent, Record};

/// AWS takes calls of a clock that is off by a few minutes, so its times and this host's may differ by so much.
const CALLER_MARGIN: Duration = Duration::from_secs(15 * 60);

/// Whether a job that owns something lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It does: nothing of it is touched.
    Lives,
    /// It is over, and what it has is being ended by what it knows.
    Over,
}

/// What jobs own.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// Tasks and instances by their names, launches by their tokens.
    known: HashMap<String, Life>,
    /// When the oldest launch of a task was asked for whose answer is not known yet.
    asked_since: Option<u64>,
    /// Whether a job that lives may be launching an instance just now.
    launches: bool,
    /// Jobs of which nothing can be read.
    unclear: Vec<Unclear>,
}

/// A job of which nothing can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unclear {
    /// Its key, as the tag of what it owns has it.
    key: String,
    /// When its directory was made, before anything was launched; none where the file system does not tell.
    since: Option<SystemTime>,
}

impl Owned {
    /// Notes what a job has that lives, or is over.
    pub(super) fn note(&mut self, intent: Option<&Intent>, record: Option<&Record>, life: Life) {
        match record.map(|record| &record.machine.place) {
            Some(Place::Ecs(place)) => self.add(&place.task, life),
            Some(Place::Ec2(place)) => self.add(&place.instance, life),
            Some(Place::Local(_)) | None => {}
        }
        let Some(intent) = intent else { return };
        for launch in &intent.launches {
            if let LaunchState::Named(machine) = &launch.state {
                self.add(machine, life);
            }
            if launch.state == LaunchState::Over {
                continue;
            }
            match &launch.request {
                Request::Ecs(request) => self.add(&request.token, life),
                Request::Ec2(request) => {
                    self.add(&request.token, life);
                    self.launches |= life == Life::Lives;
                }
                Request::Local(_) => {}
            }
        }
        let asked = |launch: &Launch| {
            launch.state == LaunchState::Asked && matches!(launch.request, Request::Ecs(_))
        };
        if life == Life::Lives && intent.launches.iter().any(asked) {
            let since = self.asked_since.unwrap_or(u64::MAX).min(intent.created);
            self.asked_since = Some(since);
        }
    }

    /// Notes a job of which nothing can be read.
    pub(super) fn note_unclear(&mut self, job: &Job) {
        let made = std::fs::metadata(job.directory()).and_then(|it| it.created());
        self.unclear.push(Unclear {
            key: tags::value(job.key()),
            since: made.ok(),
        });
    }

    fn add(&mut self, name: &str, life: Life) {
        let known = self.known.entry(name.to_owned()).or_insert(life);
        if life == Life::Lives {
            *known = life;
        }
    }

    /// Returns the life of the job that has a machine, or whose launch has made it.
    pub(super) fn life_of(&self, name: &str, token: Option<&str>) -> Option<Life> {
        let by = |name: &str| self.known.get(name).copied();
        let all = [by(name), token.and_then(by)];
        let lives = all.contains(&Some(Life::Lives)).then_some(Life::Lives);
        lives.or_else(|| all.into_iter().flatten().next())
    }

    /// Whether a live job that waits for its answer may have started a task of which nothing but its time tells.
    pub(super) fn may_have_asked_for(&self, created: Option<SystemTime>) -> bool {
        self.asked_since.is_some_and(|since| {
            may_be_of(created, UNIX_EPOCH.checked_add(Duration::from_secs(since)))
        })
    }

    /// Whether any live job may be launching an instance just now.
    pub(super) fn may_launch(&self) -> bool {
        self.launches || !self.unclear.is_empty()
    }

    /// Returns the job of which nothing can be read and that may own something: by the key, where that is known of it, else by
    /// the time when it was made.
    pub(super) fn unclear(&self, key: Option<&str>, created: Option<SystemTime>) -> Option<&str> {
        let may_own = |job: &&Unclear| match key {
            Some(key) => job.key == key,
            None => may_be_of(created, job.since),
        };
        self.unclear
            .iter()
            .find(may_own)
            .map(|job| job.key.as_str())
    }
}

/// Whether what was made at one time by AWS's clock may be of what began at another by this host's. What is not known says yes.
fn may_be_of(created: Option<SystemTime>, since: Option<SystemTime>) -> bool {
    match (created, since) {
        (Some(created), Some(since)) => created
            .checked_add(CALLER_MARGIN)
            .is_none_or(|latest| latest >= since),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    #[test]
    fn what_a_damaged_job_may_own_is_told_by_its_key_or_its_time() {
        let mut owned = Owned::default();
        assert_eq!(owned.unclear(None, None), None);
        owned.unclear.push(Unclear {
            key: "k-1".into(),
            since: at(10_000),
        });
        assert_eq!(owned.unclear(Some("k-1"), at(0)), Some("k-1"));
        assert_eq!(owned.unclear(Some("k-2"), at(20_000)), None);
        assert_eq!(owned.unclear(None, at(20_000)), Some("k-1"));
        assert_eq!(owned.unclear(None, at(9_100)), Some("k-1"));
        assert_eq!(owned.unclear(None, at(9_099)), None, "it was there before");
        assert_eq!(owned.unclear(None, None), Some("k-1"));
        owned.unclear[0].since = None;
        assert_eq!(owned.unclear(None, at(0)), Some("k-1"));
    }

    #[test]
    fn whoever_lives_counts_more_than_whoever_is_over() {
        let mut owned = Owned::default();
        owned.add("i-1", Life::Over);
        assert_eq!(owned.life_of("i-1", None), Some(Life::Over));
        owned.add("token", Life::Lives);
        assert_eq!(owned.life_of("i-1", Some("token")), Some(Life::Lives));
        owned.add("i-1", Life::Lives);
        owned.add("i-1", Life::Over);
        assert_eq!(owned.life_of("i-1", None), Some(Life::Lives));
        assert_eq!(owned.life_of("i-2", Some("x")), None);
    }
}
