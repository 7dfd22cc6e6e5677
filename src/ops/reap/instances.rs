//! What EC2 holds that nobody owns: instances, and what they may leave behind. Of this manager what no live job's launch
//! made; of the whole fleet what is past its deadline; templates that nobody has needed for a month.

use std::collections::HashSet;
use std::time::Duration;

use super::Ended;
use super::Reaper;
use super::judge::{self, Thing, Verdict, is_of_fleet};
use super::left;
use super::owned::Owned;
use super::waits::told;
use crate::compute::ec2::Api;
use crate::compute::ec2::instance::Instance;
use crate::compute::ec2::leftover::{self, Kind, Leftover};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::machine::access::Access;
use crate::machine::{Place, Request, proof, tags};
use crate::plan;
use crate::plan::overwrites::SettledRole;

/// A volume or a Spot request younger than that may belong to a launch that is still on its way.
const YOUNG: Duration = Duration::from_secs(15 * 60);
/// A template of the driver's own that was not used here for so long goes; whoever needs it later makes it again.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is there, before the state directory is read.
pub(super) struct Seen {
    api: Api,
    instances: Vec<Instance>,
    rest: Vec<Leftover>,
}

impl Reaper<'_> {
    /// Looks at all accounts that this configuration or any known job names.
    pub(super) async fn see_instances(&mut self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let settings = self.settings;
        let fleet = &settings.fleet;
        for access in self.accounts()? {
            let ui = self.ui;
            let what = format!("the instances of the fleet {fleet}");
            let looked = told(ui, &what, async {
                let api = Api::open(&access, ui, &self.store.shared()).await?;
                let instances = api.of_fleet(fleet).await;
                Some((api, instances))
            });
            let Some((api, instances)) = looked.await else {
                continue;
            };
            self.hear_time(api.clock_ahead());
            let instances = match instances {
                Ok(instances) => instances,
                Err(error) => {
                    self.unseen(&error);
                    continue;
                }
            };
            let mut rest = Vec::new();
            for kind in [Kind::Volume, Kind::SpotRequest, Kind::Template] {
                let what = format!("what instances of the fleet {fleet} have left");
                match told(ui, &what, api.leftovers(kind, fleet)).await {
                    Ok(found) => rest.extend(found),
                    Err(error) => self.unseen(&error),
                }
            }
            seen.push(Seen {
                api,
                instances,
                rest,
            });
        }
        Ok(seen)
    }

    /// Notes what could not be looked at: without the permission it is told and no more.
    fn unseen(&mut self, error: &Error) {
        match error.kind() {
            ErrorKind::Denied => {
                self.ui.warn(&format!("not looked at: {error}"));
                self.report.skipped.push(error.to_string());
            }
            _ => self.problem(error),
        }
    }

    fn accounts(&self) -> Result<HashSet<Access>> {
        let mut accounts = HashSet::new();
        for ec2 in self.settings.each().filter_map(|s| s.ec2.as_ref()) {
            let role = ec2.role_arn.clone().map(|arn| SettledRole {
                arn,
                tags: Vec::new(),
            });
            accounts.insert(plan::access_to_instances(ec2, role.as_ref()));
        }
        for job in self.store.jobs()? {
            if let Ok(Some(intent)) = job.intent() {
                for launch in intent.launches {
                    if let Request::Ec2(request) = launch.request {
                        accounts.insert(request.access);
                    }
                }
            }
            if let Ok(Some(record)) = job.record()
                && let Place::Ec2(place) = record.machine.place
            {
                accounts.insert(place.access);
            }
        }
        Ok(accounts)
    }

    /// Ends what of it is nobody's.
    pub(super) async fn end_instances(&mut self, seen: Vec<Seen>, owned: &Owned) {
        // One account may be seen as several roles, and what is in it by each.
        let mut done = HashSet::new();
        for Seen {
            api,
            instances,
            rest,
        } in seen
        {
            for instance in instances {
                let verdict = self.judge_instance(&api, &instance, owned);
                if let Some(why) = self.heed(verdict, &instance.described())
                    && done.insert(instance.id.clone())
                {
                    let ending = api.terminate(&instance.id);
                    self.end_leftover(instance.described(), why, ending).await;
                }
            }
            for leftover in rest {
                let verdict = self.judge_leftover(&api, &leftover, owned);
                if let Some(why) = self.heed(verdict, &leftover.described())
                    && done.insert(leftover.id.clone())
                {
                    let ending = api.remove(&leftover);
                    self.end_leftover(leftover.described(), why, ending).await;
                }
            }
        }
    }

    /// Returns why something ends, if it does, and tells what is left alone.
    fn heed(&mut self, verdict: Verdict, what: &str) -> Option<String> {
        match verdict {
            Verdict::End(why) => Some(why),
            Verdict::Leave => None,
            Verdict::Doubt(why) => {
                self.leave_alone(&left(what, &why));
                None
            }
        }
    }

    async fn end_leftover(
        &mut self,
        what: String,
        why: String,
        ending: impl Future<Output = Result<()>>,
    ) {
        let waited_for = format!("the end of {what}");
        if !self.report.dry_run
            && let Err(error) = told(self.ui, &waited_for, ending).await
        {
            self.problem(&error);
            return;
        }
        self.report.ended.push(Ended { what, why });
    }

    fn judge_instance(&self, api: &Api, instance: &Instance, owned: &Owned) -> Verdict {
        let tags = &instance.tags;
        let thing = Thing {
            tags,
            kind: proof::Kind::Instance,
            own: self.is_own(tags),
            life: owned.life_of(&instance.id, tags::own(tags, proof::LAUNCH)),
            unclear: owned.unclear(tags::own(tags, "key"), instance.launched),
            orphaned: "no live job of this bastion owns it",
        };
        judge::judge(&thing, &self.settings.fleet, self.times(api.clock_ahead()))
    }

    fn judge_leftover(&self, api: &Api, leftover: &Leftover, owned: &Owned) -> Verdict {
        let times = self.times(api.clock_ahead());
        let now = times.earliest().time();
        let tags = &leftover.tags;
        let of_fleet = is_of_fleet(tags, &self.settings.fleet);
        if leftover.kind == Kind::Template {
            let used = leftover::was_used(&self.store, &leftover.name, UNUSED);
            // When it was used here, only this host's clock knows.
            let unused = times.agree() && !used && leftover.is_older_than(UNUSED, now);
            return match of_fleet && unused {
                true => Verdict::End("no job has needed it for 30 days".to_owned()),
                false => Verdict::Leave,
            };
        }
        let old = leftover.is_older_than(YOUNG, now);
        // Its tags come from a template, and name neither job nor deadline; whoever asked for it has long had its answer.
        let waits = leftover.kind == Kind::SpotRequest && of_fleet && old;
        let thing = Thing {
            tags,
            kind: proof::Kind::Other,
            own: waits || (self.is_own(tags) && (old || !owned.may_launch())),
            life: owned.life_of(&leftover.id, tags::own(tags, proof::LAUNCH)),
            unclear: owned
                .unclear(tags::own(tags, "key"), leftover.created)
                .filter(|_| !waits),
            orphaned: match waits {
                true => "it still waits for an instance that nobody asks for any more",
                false => "the instance that it was made for is gone",
            },
        };
        judge::judge(&thing, &self.settings.fleet, times)
    }

    /// Whether this bastion has made it.
    fn is_own(&self, tags: &[(String, String)]) -> bool {
        let manager = tags::own(tags, "manager");
        self.names
            .own
            .iter()
            .any(|name| manager == Some(name.as_str()))
    }
}
