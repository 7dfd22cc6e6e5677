//! Who ends, and who is left alone. Pure.

use std::time::Duration;

use crate::error::Kind;
use crate::machine::launch::{Launch, LaunchState};
use crate::machine::{Place, Request, proof, tags};
use crate::process::Life as Alive;
use crate::state::deadline::{CLOCK_MARGIN, Clock};
use crate::state::record::{Intent, Record};

use super::owned::Life;

/// How long AWS knows the token of a launch.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Where AWS's clock and this host's agree: for what their answers and their seconds are off.
const AGREED_MARGIN: Duration = Duration::from_secs(10);

/// What time it is, as far as anything may be ended by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// This host's clocks.
    pub(super) clock: Clock,
    /// By how many seconds its wall clock is ahead of AWS's; none where AWS has not said a time.
    pub(super) ahead: Option<i64>,
}

impl Times {
    /// Returns the clocks, with no later a wall clock than AWS's.
    pub(super) fn earliest(self) -> Clock {
        let ahead = self.ahead.and_then(|ahead| u64::try_from(ahead).ok());
        self.clock.set_back(ahead.unwrap_or_default())
    }

    /// Whether both clocks say the same, as far as clocks do.
    pub(super) fn agree(self) -> bool {
        self.ahead
            .is_some_and(|ahead| ahead.unsigned_abs() <= CLOCK_MARGIN.as_secs())
    }
}

/// Something of AWS's that carries the driver's tags.
#[derive(Debug)]
pub(super) struct Thing<'a> {
    pub(super) tags: &'a [(String, String)],
    pub(super) kind: proof::Kind<'a>,
    /// Whether it is known to be this bastion's.
    pub(super) own: bool,
    /// The life of the job here that has it.
    pub(super) life: Option<Life>,
    /// A job here of which nothing can be read, and which may have it.
    pub(super) unclear: Option<&'a str>,
    /// Why it ends where it is this bastion's and no job has it.
    pub(super) orphaned: &'a str,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is left alone.
    Leave,
    /// It ends, and why.
    End(String),
    /// It might have to end, and is left alone all the same, and why.
    Doubt(String),
}

/// Decides. A live job here goes by what it knows itself, whatever the tags say.
pub(super) fn judge(thing: &Thing<'_>, fleet: &str, times: Times) -> Verdict {
    if thing.life == Some(Life::Lives) {
        return Verdict::Leave;
    }
    let doubt = proof::doubt(thing.tags, thing.kind);
    let past = past_deadline(thing.tags, fleet, times);
    if let (Some(why), None) = (&past, doubt) {
        return Verdict::End(why.clone());
    }
    // Who started a task nobody but its caller has said, so a role that may not tag is believed.
    let by_caller = thing.own && matches!(thing.kind, proof::Kind::Task(_));
    let orphaned = thing.own && thing.life.is_none();
    match (orphaned, thing.unclear, doubt) {
        (true, Some(key), _) => Verdict::Doubt(format!(
            "it may be of the job {key}, of which nothing can be read"
        )),
        (true, None, doubt) if by_caller || doubt.is_none() => {
            Verdict::End(thing.orphaned.to_owned())
        }
        (orphaned, _, Some(doubt)) if orphaned || past.is_some() => {
            Verdict::Doubt(format!("its tags are not believed, since {doubt}"))
        }
        _ => Verdict::Leave,
    }
}

pub(super) fn is_of_fleet(tags: &[(String, String)], fleet: &str) -> bool {
    tags::own(tags, "fleet") == Some(tags::value(fleet).as_str())
}

/// Says since when something of the fleet is past its deadline, if it is: by this host's clock and by AWS's.
fn past_deadline(tags: &[(String, String)], fleet: &str, times: Times) -> Option<String> {
    let deadline = tags::deadline(tags).filter(|_| is_of_fleet(tags, fleet))?;
    times.ahead?;
    let deadline = deadline.checked_add(AGREED_MARGIN.as_secs())?;
    let since = times.earliest().unix().checked_sub(deadline)?;
    (since > 0).then(|| is_past(Duration::from_secs(since)))
}

fn is_past(since: Duration) -> String {
    let since = humantime::format_duration(since);
    format!("its deadline is past since {since}")
}

/// Who looks.
#[derive(Debug, Default)]
pub(super) struct Here<'a> {
    /// This bastion.
    pub(super) bastion: Option<&'a str>,
    /// Bastions that are proven dead.
    pub(super) dead: &'a [String],
}

/// Says why a job is nobody's, if it is.
pub(super) fn ownerless(
    intent: Option<&Intent>,
    record: Option<&Record>,
    here: &Here<'_>,
    clock: Clock,
) -> Option<String> {
    let (owner, bastion, until) = match (intent, record) {
        (Some(intent), _) if intent.ending => {
            return Some("its cleanup came to no end".to_owned());
        }
        (Some(intent), _) => (intent.ownership(), &intent.bastion, intent.until),
        (None, Some(record)) => (record.ownership(), &record.bastion, record.until),
        (None, None) => return Some("nothing is known of it".to_owned()),
    };
    if bastion.as_ref().is_some_and(|b| here.dead.contains(b)) {
        return Some("the host of the GitLab Runner that owned it is gone".to_owned());
    }
    // Of a process of another host nothing can be seen from here.
    let elsewhere = bastion.is_some() && bastion.as_deref() != here.bastion;
    let owner = owner.whose_end_tells().filter(|_| !elsewhere);
    match owner.map(|owner| (owner.life(), owner.pid)) {
        Some((Alive::Gone, pid)) => Some(format!(
            "the GitLab Runner that owned it (process {pid}) is gone"
        )),
        // A machine on this host has no watchdog, so its deadline is no more than what it was told.
        Some((Alive::Lives, _)) if is_here(intent, record) => None,
        // Nobody knows whose it is, or whether its Runner lives, or that has forgotten it: its time decides.
        _ => until.past(clock).map(is_past),
    }
}

/// Whether nothing more can be done about what a job may have left. Its time is long over, and AWS refuses (it may not be
/// asked any more, or knows nothing of where the machine is) rather than being out of reach. A launch whose answer was lost
/// can be asked for again only as long as AWS knows its token; one that is named may be ended by whoever may.
pub(super) fn is_past_finding(kind: Kind, intent: &Intent, clock: Clock) -> bool {
    // Not an instance that was asked for: its tag would still name it.
    let lost = |launch: &Launch| {
        matches!(
            (&launch.request, &launch.state),
            (Request::Ecs(_), LaunchState::Asked)
                | (Request::Ecs(_) | Request::Ec2(_), LaunchState::Named(_))
        )
    };
    matches!(kind, Kind::Denied | Kind::Launch)
        && intent
            .until
            .past(clock)
            .is_some_and(|past| past > TOKEN_LIFE)
        && intent.open_launches().all(lost)
}

/// Whether a job's machine is on this host. What is over counts no more.
fn is_here(intent: Option<&Intent>, record: Option<&Record>) -> bool {
    let launches = || intent.into_iter().flat_map(Intent::open_launches);
    let place = record.map(|record| &record.machine.place);
    let elsewhere = matches!(place, Some(Place::Ecs(_) | Place::Ec2(_)))
        || launches().any(|launch| launch.request.is_remote());
    !elsewhere && (place.is_some() || launches().next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    const DEADLINE: u64 = 1_000_000;

    fn ours(deadline: u64) -> Vec<(String, String)> {
        let owner = tags::Owner {
            fleet: "f",
            manager: "m",
            key: "k-1",
            job: "1",
            until: Some(deadline),
            ..tags::Owner::default()
        };
        let tags = tags::all(&owner, &[]).tags;
        proof::sealed(&proof::token(&["m"], &tags), &tags)
    }

    fn times(unix: u64, ahead: Option<i64>) -> Times {
        let clock = Clock::look();
        let clock = clock.set_back(clock.unix() - unix);
        Times { clock, ahead }
    }

    fn thing(tags: &[(String, String)]) -> Thing<'_> {
        Thing {
            tags,
            kind: proof::Kind::Other,
            own: false,
            life: None,
            unclear: None,
            orphaned: "orphaned",
        }
    }

    fn ends(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::End(_))
    }

    #[test]
    fn a_deadline_is_past_once_both_clocks_say_so() {
        let tags = ours(DEADLINE);
        let judged = |unix, ahead| judge(&thing(&tags), "f", times(unix, ahead));
        assert!(ends(&judged(DEADLINE + 11, Some(0))));
        assert_eq!(judged(DEADLINE + 10, Some(0)), Verdict::Leave);
        // This host's is hours ahead, or AWS's is, or AWS says nothing.
        assert_eq!(judged(DEADLINE + 7200, Some(7195)), Verdict::Leave);
        assert!(ends(&judged(DEADLINE + 7200, Some(7100))));
        assert_eq!(judged(DEADLINE, Some(-7200)), Verdict::Leave);
        assert_eq!(judged(DEADLINE + 7200, None), Verdict::Leave);
        assert!(!times(0, Some(61)).agree() && !times(0, Some(-61)).agree());
        assert!(times(0, Some(60)).agree() && !times(0, None).agree());
        for nonsense in [0, u64::MAX] {
            assert_eq!(
                ends(&judge(
                    &thing(&ours(nonsense)),
                    "f",
                    times(DEADLINE, Some(0))
                )),
                nonsense == 0
            );
        }
        assert_eq!(
            judge(&thing(&tags), "other", times(DEADLINE + 11, Some(0))),
            Verdict::Leave
        );
    }

    #[test]
    fn what_a_live_job_has_goes_by_what_that_knows() {
        let tags = ours(DEADLINE);
        let late = times(DEADLINE + 7200, Some(0));
        let judged = |life| {
            judge(
                &Thing {
                    life,
                    own: true,
                    ..thing(&tags)
                },
                "f",
                late,
            )
        };
        assert_eq!(judged(Some(Life::Lives)), Verdict::Leave);
        // Its own end came to nothing: others may have better luck.
        assert!(ends(&judged(Some(Life::Over))));
        let early = times(DEADLINE, Some(0));
        let over = Thing {
            life: Some(Life::Over),
            own: true,
            ..thing(&tags)
        };
        assert_eq!(judge(&over, "f", early), Verdict::Leave);
    }

    #[test]
    fn nothing_ends_by_tags_that_are_not_believed() {
        let mut tags = ours(DEADLINE);
        tags.iter_mut()
            .filter(|(key, _)| key.ends_with(":deadline"))
            .for_each(|(_, value)| *value = "1".to_owned());
        let now = times(DEADLINE, Some(0));
        for own in [false, true] {
            let verdict = judge(
                &Thing {
                    own,
                    ..thing(&tags)
                },
                "f",
                now,
            );
            assert!(matches!(verdict, Verdict::Doubt(_)), "{verdict:?}");
        }
        // Its caller says whose a task is.
        let task = Thing {
            own: true,
            kind: proof::Kind::Task(Some("gad-m")),
            ..thing(&[])
        };
        assert_eq!(judge(&task, "f", now), Verdict::End("orphaned".into()));
        let unclear = Thing {
            unclear: Some("k-1"),
            ..task
        };
        assert!(matches!(judge(&unclear, "f", now), Verdict::Doubt(_)));
    }

    #[test]
    fn of_another_host_only_the_time_counts() {
        let hour = Duration::from_secs(3600);
        let gone = Process {
            started: 1,
            ..Process::this().unwrap()
        };
        let mut intent = Intent::new("a".into(), Some(gone), None, hour);
        let clock = Clock::look();
        let dead = ["c".to_owned()];
        let here = Here {
            bastion: Some("b"),
            dead: &dead,
        };
        let why = |intent: &Intent| ownerless(Some(intent), None, &here, clock);
        // A version before this one did not say where: as it judged itself.
        for (bastion, gone) in [
            (None, true),
            (Some("b"), true),
            (Some("x"), false),
            (Some("c"), true),
        ] {
            intent.bastion = bastion.map(str::to_owned);
            assert_eq!(why(&intent).is_some(), gone, "{bastion:?}");
        }
        intent.bastion = Some("x".into());
        intent.ending = true;
        assert!(why(&intent).is_some(), "its `cleanup` was called");
    }
}
