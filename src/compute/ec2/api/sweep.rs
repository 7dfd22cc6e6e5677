//! What is left over beside instances: volumes, Spot requests and templates that carry the driver's tags. For `reap`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Api;
use super::describe::read_tags;
use super::list::{filter, tagged};
use crate::compute::aws::Failure;
use crate::compute::aws::classify::Action;
use crate::compute::ec2::leftover::{Kind, Leftover};
use crate::error::{Error, Result};
use crate::machine::tags;
use crate::machine::template::is_own_name;
use crate::machine::verdict::Why;

/// One call, repeated within that time.
const LIMIT: Duration = Duration::from_secs(2 * 60);

impl Api {
    /// Returns what of a kind carries the fleet's tag.
    ///
    /// # Errors
    /// Where AWS does not say.
    pub async fn leftovers(&self, kind: Kind, fleet: &str) -> Result<Vec<Leftover>> {
        let fleet = tags::value(fleet);
        let mut all = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let (found, next) = match kind {
                Kind::Volume => volumes(self, &fleet, page.as_deref()).await,
                Kind::SpotRequest => spot_requests(self, &fleet, page.as_deref()).await,
                Kind::Template => templates(self, &fleet, page.as_deref()).await,
            }?;
            all.extend(found);
            page = next.filter(|t| !t.is_empty());
            if page.is_none() {
                return Ok(all);
            }
        }
    }

    /// Ends one. One that is gone is as good.
    ///
    /// # Errors
    /// Where it may still be there.
    pub async fn remove(&self, leftover: &Leftover) -> Result<()> {
        let id = &leftover.id;
        let done = match leftover.kind {
            Kind::Volume => {
                let call = async || self.ec2.delete_volume().volume_id(id).send().await;
                self.aws
                    .call(Action::DeleteVolume, LIMIT, call)
                    .await
                    .map(drop)
            }
            Kind::SpotRequest => {
                let call = async || {
                    let cancel = self.ec2.cancel_spot_instance_requests();
                    cancel.spot_instance_request_ids(id).send().await
                };
                let action = Action::CancelSpotInstanceRequests;
                self.aws.call(action, LIMIT, call).await.map(drop)
            }
            Kind::Template => {
                let call = async || {
                    let delete = self.ec2.delete_launch_template();
                    delete.launch_template_id(id).send().await
                };
                self.aws
                    .call(Action::DeleteLaunchTemplate, LIMIT, call)
                    .await
                    .map(drop)
            }
        };
        match done {
            Err(failure) if failure.verdict.why != Why::NotFound => {
                let what = format!("{} could not be removed", leftover.described());
                Err(told(&failure, &what))
            }
            _ => Ok(()),
        }
    }
}

type Page = (Vec<Leftover>, Option<String>);

async fn volumes(api: &Api, fleet: &str, page: Option<&str>) -> Result<Page> {
    let call = async || {
        api.ec2
            .describe_volumes()
            .filters(tagged("fleet", fleet))
            .filters(filter("status", &["available"]))
            .set_next_token(page.map(str::to_owned))
            .send()
            .await
    };
    let answer = match api.aws.call(Action::DescribeVolumes, LIMIT, call).await {
        Ok(answer) => answer,
        Err(failure) => return Err(told(&failure, "leftover volumes cannot be looked for")),
    };
    let found = answer.volumes().iter().map(|v| Leftover {
        kind: Kind::Volume,
        id: v.volume_id().unwrap_or_default().to_owned(),
        name: String::new(),
        created: v.create_time().and_then(|t| at(t.secs())),
        tags: read_tags(v.tags()),
    });
    Ok((found.collect(), answer.next_token().map(str::to_owned)))
}

async fn spot_requests(api: &Api, fleet: &str, page: Option<&str>) -> Result<Page> {
    let call = async || {
        api.ec2
            .describe_spot_instance_requests()
            .filters(tagged("fleet", fleet))
            .filters(filter("state", &["open"]))
            .set_next_token(page.map(str::to_owned))
            .send()
            .await
    };
    let action = Action::DescribeSpotInstanceRequests;
    let answer = match api.aws.call(action, LIMIT, call).await {
        Ok(answer) => answer,
        Err(failure) => {
            return Err(told(
                &failure,
                "leftover Spot requests cannot be looked for",
            ));
        }
    };
    let found = answer.spot_instance_requests().iter().map(|r| Leftover {
        kind: Kind::SpotRequest,
        id: r.spot_instance_request_id().unwrap_or_default().to_owned(),
        name: String::new(),
        created: r.create_time().and_then(|t| at(t.secs())),
        tags: read_tags(r.tags()),
    });
    Ok((found.collect(), answer.next_token().map(str::to_owned)))
}

async fn templates(api: &Api, fleet: &str, page: Option<&str>) -> Result<Page> {
    let call = async || {
        api.ec2
            .describe_launch_templates()
            .filters(tagged("fleet", fleet))
            .set_next_token(page.map(str::to_owned))
            .send()
            .await
    };
    let answer = match api
        .aws
        .call(Action::DescribeLaunchTemplates, LIMIT, call)
        .await
    {
        Ok(answer) => answer,
        Err(failure) => {
            return Err(told(
                &failure,
                "unused launch templates cannot be looked for",
            ));
        }
    };
    let found = answer.launch_templates().iter().map(|t| Leftover {
        kind: Kind::Template,
        id: t.launch_template_id().unwrap_or_default().to_owned(),
        name: t.launch_template_name().unwrap_or_default().to_owned(),
        created: t.create_time().and_then(|t| at(t.secs())),
        tags: read_tags(t.tags()),
    });
    let own = found.filter(|t| is_own_name(&t.name));
    Ok((own.collect(), answer.next_token().map(str::to_owned)))
}

fn at(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn told(failure: &Failure, what: &str) -> Error {
    failure.verdict.error(failure.verdict.why.kind(), what)
}
