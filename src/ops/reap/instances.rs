//! What EC2 holds that nobody owns: instances, and what they may leave behind. Of this manager what no live job's launch
//! made; of the whole fleet what is past its deadline; templates that nobody has needed for a month.

use std::collections::HashSet;
use std::time::Duration;

use super::{Ended, Owned, Reaper, is_of_fleet, past_deadline};
use crate::compute::aws::Aws;
use crate::compute::aws::access::Access;
use crate::compute::aws::tags;
use crate::compute::ec2::instance::Instance;
use crate::compute::ec2::sweep::{self, Kind, Leftover};
use crate::compute::ec2::{LAUNCH, end, list, settle};
use crate::compute::plan;
use crate::compute::{Place, Request};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::runner::wishes::SettledRole;

/// A volume or a Spot request younger than that may belong to a launch that is still on its way.
const YOUNG: Duration = Duration::from_secs(15 * 60);
/// A template of the driver's own that was not used here for so long goes; whoever needs it later makes it again.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is there, before the state directory is read.
pub(super) struct Seen {
    aws: Aws,
    instances: Vec<Instance>,
    rest: Vec<Leftover>,
}

impl Reaper<'_> {
    /// Looks at all accounts that this configuration or any known job names.
    pub(super) async fn see_instances(&mut self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for access in self.accounts()? {
            let aws = Aws::new(&access, None, &self.store.shared()).await;
            let fleet = &self.settings.fleet;
            let instances = match list::of_fleet(&aws, fleet).await {
                Ok(instances) => instances,
                Err(error) => {
                    self.unseen(&error);
                    continue;
                }
            };
            let mut rest = Vec::new();
            for kind in [Kind::Volume, Kind::SpotRequest, Kind::Template] {
                match sweep::of_fleet(&aws, kind, fleet).await {
                    Ok(found) => rest.extend(found),
                    Err(error) => self.unseen(&error),
                }
            }
            seen.push(Seen {
                aws,
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
    pub(super) async fn end_instances(&mut self, seen: Vec<Seen>, owned: &Owned) -> Result<()> {
        // One account may be seen as several roles, and what is in it by each.
        let mut done = HashSet::new();
        for Seen {
            aws,
            instances,
            rest,
        } in seen
        {
            for instance in instances {
                if let Some(why) = self.instance_left_over(&instance, owned)?
                    && done.insert(instance.id.clone())
                {
                    let what = instance.described();
                    let ending = end::terminate(&aws, &instance.id);
                    self.end_leftover(what, why, ending).await;
                }
            }
            for leftover in rest {
                if let Some(why) = self.left_behind(&leftover, owned)?
                    && done.insert(leftover.id.clone())
                {
                    let ending = sweep::end(&aws, &leftover);
                    self.end_leftover(leftover.described(), why, ending).await;
                }
            }
        }
        Ok(())
    }

    async fn end_leftover(
        &mut self,
        what: String,
        why: String,
        ending: impl Future<Output = Result<()>>,
    ) {
        if !self.report.dry_run
            && let Err(error) = ending.await
        {
            self.problem(&error);
            return;
        }
        self.report.ended.push(Ended { what, why });
    }

    fn instance_left_over(&self, instance: &Instance, owned: &Owned) -> Result<Option<String>> {
        if let Some(why) = past_deadline(&instance.tags, &self.settings.fleet) {
            return Ok(Some(why));
        }
        let live = owned.machines.contains(&instance.id) || owned.launched(&instance.tags);
        if live || !self.is_own(&instance.tags)? {
            return Ok(None);
        }
        Ok(Some("no live job of this bastion owns it".to_owned()))
    }

    /// Says why something beside an instance is nobody's, if it is.
    fn left_behind(&self, leftover: &Leftover, owned: &Owned) -> Result<Option<String>> {
        if leftover.kind == Kind::Template {
            let used = settle::was_used(&self.store, &leftover.name, UNUSED);
            let of_fleet = is_of_fleet(&leftover.tags, &self.settings.fleet);
            let unused = of_fleet && !used && leftover.is_older_than(UNUSED);
            return Ok(unused.then(|| "no job has needed it for 30 days".to_owned()));
        }
        if let Some(why) = past_deadline(&leftover.tags, &self.settings.fleet) {
            return Ok(Some(why));
        }
        let of_fleet = is_of_fleet(&leftover.tags, &self.settings.fleet);
        if leftover.kind == Kind::SpotRequest && of_fleet && leftover.is_older_than(YOUNG) {
            // Its tags come from a template, and name neither job nor deadline; whoever asked for it has long had its answer.
            return Ok(Some(
                "it still waits for an instance that nobody asks for any more".to_owned(),
            ));
        }
        if owned.launched(&leftover.tags) || !self.is_own(&leftover.tags)? {
            return Ok(None);
        }
        let old = leftover.is_older_than(YOUNG) || !owned.may_ask();
        Ok(old.then(|| "the instance that it was made for is gone".to_owned()))
    }

    /// Whether this manager has made it. Whoever has no name has made nothing.
    fn is_own(&self, tags: &[(String, String)]) -> Result<bool> {
        let manager = self.store.known_manager()?;
        Ok(manager.is_some_and(|name| tags::own(tags, "manager") == Some(name.as_str())))
    }
}

impl Owned {
    /// Whether a live job's launch has made it.
    fn launched(&self, tags: &[(String, String)]) -> bool {
        self.unclear || tags::own(tags, LAUNCH).is_some_and(|token| self.launches.contains(token))
    }

    /// Whether any live job may be launching just now.
    fn may_ask(&self) -> bool {
        self.unclear || !self.launches.is_empty()
    }
}
