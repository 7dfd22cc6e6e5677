//! CreateFleet's answer: an instance, or for each pool of capacity why it gave none. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::operation::create_fleet::CreateFleetOutput;
use aws_sdk_ec2::types::{CreateFleetError, InstanceType};

use crate::compute::aws::classify::{self, Action};
use crate::machine::instance::InstanceRequest;
use crate::machine::verdict::{Verdict, Why};

/// How many remedies are told of one answer.
const MOST_REMEDIES: usize = 3;

/// What CreateFleet gave.
#[derive(Debug)]
pub(super) enum Answer {
    /// Instances: one, and never more in practice.
    Instances(Vec<String>),
    /// None, and why.
    Nothing(Verdict),
    /// Neither an instance nor why there is none.
    Neither(Verdict),
}

/// One of the answer's errors: its code, its words, and which pool it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    code: String,
    words: String,
    kind: String,
    /// The least number of vCPUs that is asked for, whatever the type.
    least: u64,
    zone: String,
}

/// Reads the answer. Some pools may have refused although another gave the instance.
pub(super) fn read(request: &InstanceRequest, answer: &CreateFleetOutput) -> Answer {
    let ids: Vec<String> = answer
        .instances()
        .iter()
        .flat_map(|group| group.instance_ids().iter().cloned())
        .collect();
    if !ids.is_empty() {
        return Answer::Instances(ids);
    }
    let errors: Vec<Said> = answer
        .errors()
        .iter()
        .map(|e| Said::read(request, e))
        .collect();
    match errors.is_empty() {
        false => Answer::Nothing(judge(&errors)),
        true => Answer::Neither(classify::no_room(
            Action::CreateFleet,
            "neither an instance nor an error was named".to_owned(),
        )),
    }
}

impl Said {
    fn read(request: &InstanceRequest, error: &CreateFleetError) -> Self {
        let pool = error
            .launch_template_and_overrides()
            .and_then(|both| both.overrides());
        let subnet = pool.and_then(|p| p.subnet_id()).unwrap_or_default();
        let known = || {
            let named = request.subnets.iter().find(|s| s.id == subnet);
            named.and_then(|s| s.zone.as_deref())
        };
        let zone = pool
            .and_then(|p| p.availability_zone())
            .filter(|z| !z.is_empty());
        Self {
            code: error.error_code().unwrap_or_default().to_owned(),
            words: error.error_message().unwrap_or_default().to_owned(),
            kind: pool
                .and_then(|p| p.instance_type())
                .map(InstanceType::as_str)
                .unwrap_or_default()
                .to_owned(),
            least: u64::from(request.least.cpu.unwrap_or(1)),
            zone: zone.or_else(known).unwrap_or(subnet).to_owned(),
        }
    }
}

impl Said {
    /// Whether the code alone says that there is no room, whatever the words.
    fn is_told_by_its_code(&self) -> bool {
        classify::fleet_error(&self.code, "", &self.kind, self.least).why == Why::NoRoom
    }
}

/// Makes one verdict of all. Where any pool merely had no room, the rung has none: what is wrong with another is told,
/// and the same request may be met later.
fn judge(errors: &[Said]) -> Verdict {
    let each = errors
        .iter()
        .map(|e| classify::fleet_error(&e.code, &e.words, &e.kind, e.least));
    let verdicts: Vec<Verdict> = each.collect();
    let later = |v: &&Verdict| v.why.hands_over() && v.why.is_worth_waiting();
    let room = verdicts.iter().find(later);
    let room = room.or_else(|| verdicts.iter().find(|v| v.why.hands_over()));
    let first = room.unwrap_or(&verdicts[0]);
    Verdict {
        why: first.why,
        cause: cause(errors, &verdicts),
        remedy: remedy(first, &verdicts),
    }
}

/// Says what helps: of pools with plain want of room and others, what helps the others first.
fn remedy(first: &Verdict, verdicts: &[Verdict]) -> String {
    let is_plain = |v: &&Verdict| v.why == Why::NoRoom;
    let (plain, more): (Vec<&Verdict>, Vec<&Verdict>) = verdicts.iter().partition(is_plain);
    let mut told: Vec<&str> = Vec::new();
    // Of pools that are wrong in several ways the first way is enough: nothing else is tried then.
    let all: Vec<&Verdict> = match first.why.hands_over() {
        true => more.into_iter().chain(plain).collect(),
        false => vec![first],
    };
    for verdict in all {
        if told.len() < MOST_REMEDIES && !told.contains(&verdict.remedy.as_str()) {
            told.push(&verdict.remedy);
        }
    }
    told.join(" ")
}

/// What several pools have said alike.
struct Alike {
    /// By what they are alike.
    by: String,
    told: String,
    places: BTreeMap<String, BTreeSet<String>>,
}

/// Says all errors compactly: each once, with the types and zones that it was said of. What is more than want of room
/// is told in AWS's words.
fn cause(errors: &[Said], verdicts: &[Verdict]) -> String {
    let mut said: Vec<Alike> = Vec::new();
    for (error, verdict) in errors.iter().zip(verdicts) {
        let (by, told) = match verdict.why {
            Why::NoRoom if error.is_told_by_its_code() => (error.code.clone(), error.code.clone()),
            // AWS names the pool in its sentence, or encodes it: one of them says it for all.
            why if why.hands_over() || why == Why::Denied => {
                let by = format!("{} {}", error.code, verdict.remedy);
                (by, verdict.cause.clone())
            }
            _ => (verdict.cause.clone(), verdict.cause.clone()),
        };
        let at = said.iter().position(|alike| alike.by == by);
        let at = at.unwrap_or_else(|| {
            let places = BTreeMap::new();
            said.push(Alike { by, told, places });
            said.len() - 1
        });
        let places = &mut said[at].places;
        let zones = places.entry(error.kind.clone()).or_default();
        zones.insert(error.zone.clone());
    }
    let told = said.into_iter().map(|alike| match of(&alike.places) {
        places if places.is_empty() => alike.told,
        places => format!("{} ({places})", alike.told),
    });
    classify::shortened(&told.collect::<Vec<_>>().join("; "))
}

/// Says of which types in which zones: types of the same zones stand together.
fn of(places: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut groups: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for (kind, zones) in places {
        let zones: Vec<&str> = zones
            .iter()
            .map(String::as_str)
            .filter(|z| !z.is_empty())
            .collect();
        match groups.iter_mut().find(|(_, same)| *same == zones) {
            Some((kinds, _)) => kinds.push(kind),
            None => groups.push((vec![kind], zones)),
        }
    }
    let told = groups.into_iter().filter_map(|(kinds, zones)| {
        let kinds: Vec<&str> = kinds.into_iter().filter(|k| !k.is_empty()).collect();
        match (kinds.join(", "), zones.join(", ")) {
            (kinds, zones) if kinds.is_empty() => (!zones.is_empty()).then_some(zones),
            (kinds, zones) if zones.is_empty() => Some(kinds),
            (kinds, zones) => Some(format!("{kinds} in {zones}")),
        }
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: &str, kind: &str, zone: &str) -> Said {
        Said {
            code: code.into(),
            words: format!("words of {code}"),
            kind: kind.into(),
            least: 1,
            zone: zone.into(),
        }
    }

    #[test]
    fn each_code_is_told_once_with_its_types_and_zones() {
        let verdict = judge(&[
            said("InsufficientInstanceCapacity", "c7i.large", "eu-west-1a"),
            said("InsufficientInstanceCapacity", "c7i.large", "eu-west-1b"),
            said("InsufficientInstanceCapacity", "m7i.large", "eu-west-1b"),
            said("InsufficientInstanceCapacity", "m7i.large", "eu-west-1a"),
            said("Unsupported", "m7i.large", "eu-west-1c"),
            said("InsufficientInstanceCapacity", "c7i.large", "eu-west-1a"),
        ]);
        assert_eq!(verdict.why, Why::NoRoom);
        assert_eq!(
            verdict.cause,
            "InsufficientInstanceCapacity (c7i.large, m7i.large in eu-west-1a, eu-west-1b); \
             words of Unsupported (m7i.large in eu-west-1c)"
        );
    }

    #[test]
    fn want_of_room_that_the_code_does_not_say_is_told_in_words() {
        let words = "We currently do not have sufficient c7i.large capacity";
        let verdict = judge(&[Said {
            words: words.into(),
            ..said("BrandNew", "c7i.large", "a")
        }]);
        assert_eq!(
            (verdict.why, verdict.cause),
            (Why::NoRoom, format!("BrandNew: {words} (c7i.large in a)"))
        );
    }

    #[test]
    fn want_of_room_anywhere_is_want_of_room_and_the_rest_is_told() {
        let verdict = judge(&[
            said("InvalidParameterValue", "x", "a"),
            said("UnfulfillableCapacity", "y", "a"),
        ]);
        assert_eq!(verdict.why, Why::NoRoom);
        assert!(
            verdict
                .cause
                .contains("words of InvalidParameterValue (x in a)")
                && verdict.cause.contains("UnfulfillableCapacity (y in a)"),
            "{}",
            verdict.cause
        );
        let wrong = judge(&[said("InvalidParameterValue", "x", "a")]);
        assert_eq!(wrong.why, Why::Settings);
    }

    #[test]
    fn one_sentence_is_told_for_all_pools_of_which_aws_says_it_by_name() {
        let of = |kind: &str, zone: &str| {
            let words = format!(
                "Your requested instance type ({kind}) is not supported in your requested Availability Zone ({zone})."
            );
            Said {
                words,
                ..said("InvalidFleetConfiguration", kind, zone)
            }
        };
        let verdict = judge(&[
            of("c7i.large", "a"),
            of("c7i.large", "b"),
            of("m7i.large", "a"),
        ]);
        assert_eq!(
            verdict.cause,
            "InvalidFleetConfiguration: Your requested instance type (c7i.large) is not supported in your requested Availability Zone (a). \
             (c7i.large in a, b; m7i.large in a)"
        );
        assert_eq!(verdict.why, Why::Never);
        // One that may have room later is waited for.
        let verdict = judge(&[
            of("c7i.large", "a"),
            said("VcpuLimitExceeded", "m7i.large", "a"),
        ]);
        assert_eq!(verdict.why, Why::Quota);
        for helps in ["That zone does not have this type", "higher quota"] {
            assert!(verdict.remedy.contains(helps), "{}", verdict.remedy);
        }
    }

    #[test]
    fn what_is_not_known_of_a_pool_is_left_out() {
        let verdict = judge(&[said("VcpuLimitExceeded", "", "")]);
        assert_eq!(
            (verdict.why, verdict.cause.as_str()),
            (Why::Quota, "words of VcpuLimitExceeded")
        );
        let verdict = judge(&[said("VcpuLimitExceeded", "", "a")]);
        assert!(verdict.cause.ends_with("VcpuLimitExceeded (a)"));
        let verdict = judge(&[said("VcpuLimitExceeded", "c7i.large", "")]);
        assert!(verdict.cause.ends_with("VcpuLimitExceeded (c7i.large)"));
    }
}
