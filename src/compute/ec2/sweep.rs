//! What is left over beside instances: volumes, Spot requests and templates that carry the driver's tags. For `reap`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::instance::read_tags;
use super::list::{filter, tagged};
use crate::compute::aws::classify::Action;
use crate::compute::aws::{Aws, Failure};
use crate::error::{Error, Result};
use crate::machine::tags;
use crate::machine::template::is_own_name;
use crate::machine::verdict::Why;

/// One call, repeated within that time.
const LIMIT: Duration = Duration::from_secs(2 * 60);

/// What a leftover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A volume that belongs to no instance.
    Volume,
    /// A Spot request that still waits.
    SpotRequest,
    /// A launch template.
    Template,
}

/// Something that may be left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its name, where it has one.
    pub name: String,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl Leftover {
    /// Says what it is.
    #[must_use]
    pub fn described(&self) -> String {
        match self.kind {
            Kind::Volume => format!("the volume {}", self.id),
            Kind::SpotRequest => format!("the Spot request {}", self.id),
            Kind::Template => format!("the launch template {}", self.name),
        }
    }

    /// Returns whether it is older than that at a time; of what AWS says no time nobody knows.
    #[must_use]
    pub fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        let since = self.created.and_then(|at| now.duration_since(at).ok());
        since.is_some_and(|since| since > age)
    }
}

/// Returns what of a kind carries the fleet's tag.
///
/// # Errors
/// Where AWS does not say.
pub async fn of_fleet(aws: &Aws, kind: Kind, fleet: &str) -> Result<Vec<Leftover>> {
    let fleet = tags::value(fleet);
    let mut all = Vec::new();
    let mut page: Option<String> = None;
    loop {
        let (found, next) = match kind {
            Kind::Volume => volumes(aws, &fleet, page.as_deref()).await,
            Kind::SpotRequest => spot_requests(aws, &fleet, page.as_deref()).await,
            Kind::Template => templates(aws, &fleet, page.as_deref()).await,
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
pub async fn end(aws: &Aws, leftover: &Leftover) -> Result<()> {
    let id = &leftover.id;
    let done = match leftover.kind {
        Kind::Volume => {
            let call = async || aws.ec2.delete_volume().volume_id(id).send().await;
            aws.call(Action::DeleteVolume, LIMIT, call).await.map(drop)
        }
        Kind::SpotRequest => {
            let call = async || {
                let cancel = aws.ec2.cancel_spot_instance_requests();
                cancel.spot_instance_request_ids(id).send().await
            };
            let action = Action::CancelSpotInstanceRequests;
            aws.call(action, LIMIT, call).await.map(drop)
        }
        Kind::Template => {
            let call = async || {
                let delete = aws.ec2.delete_launch_template();
                delete.launch_template_id(id).send().await
            };
            aws.call(Action::DeleteLaunchTemplate, LIMIT, call)
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

type Page = (Vec<Leftover>, Option<String>);

async fn volumes(aws: &Aws, fleet: &str, page: Option<&str>) -> Result<Page> {
    let call = async || {
        aws.ec2
            .describe_volumes()
            .filters(tagged("fleet", fleet))
            .filters(filter("status", &["available"]))
            .set_next_token(page.map(str::to_owned))
            .send()
            .await
    };
    let answer = match aws.call(Action::DescribeVolumes, LIMIT, call).await {
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

async fn spot_requests(aws: &Aws, fleet: &str, page: Option<&str>) -> Result<Page> {
    let call = async || {
        aws.ec2
            .describe_spot_instance_requests()
            .filters(tagged("fleet", fleet))
            .filters(filter("state", &["open"]))
            .set_next_token(page.map(str::to_owned))
            .send()
            .await
    };
    let action = Action::DescribeSpotInstanceRequests;
    let answer = match aws.call(action, LIMIT, call).await {
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

async fn templates(aws: &Aws, fleet: &str, page: Option<&str>) -> Result<Page> {
    let call = async || {
        aws.ec2
            .describe_launch_templates()
            .filters(tagged("fleet", fleet))
            .set_next_token(page.map(str::to_owned))
            .send()
            .await
    };
    let answer = match aws.call(Action::DescribeLaunchTemplates, LIMIT, call).await {
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
