//! What a request needs to know of the account before it is written down: one subnet for each zone, and the image's own
//! name of its root volume. Asked for once and kept for a while, since every job of the same settings needs the same.

use std::time::Duration;

use super::Api;
use super::launch::{lags, make_for};
use super::made;
use super::pools::{self, Known};
use crate::compute::aws::classify::{self, Action};
use crate::compute::ec2::leftover;
use crate::compute::kind::{Refused, Settled};
use crate::error::{Error, Kind};
use crate::machine::instance::{InstanceRequest, Template};
use crate::machine::template::{Setting, is_parameter};
use crate::machine::verdict::{Verdict, Why};
use crate::state::Store;

/// How long the subnets' free addresses are taken for what they were.
const SUBNETS_AGE: Duration = Duration::from_secs(5 * 60);
/// How long it is believed that there are none.
const FULL_AGE: Duration = Duration::from_secs(15);
/// An image's root device is always the same; what a parameter names changes now and then, and hardly ever in this.
const DEVICE_AGE: Duration = Duration::from_secs(24 * 3600);
/// One call, repeated within that time.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// The note that says that the role may not look at subnets.
const BLIND: &str = "no-describe-subnets";

/// Completes a request.
///
/// # Errors
/// Where what it names does not exist, or AWS does not say.
pub(super) async fn settle(
    api: &Api,
    request: &mut InstanceRequest,
    store: &Store,
) -> Result<Settled, Refused> {
    let asked = request.clone();
    let settled = complete(api, request, store).await;
    if let Err(refused) = &settled
        && refused.hopeless
    {
        made::withdraw(api, &asked, store).await;
    }
    settled
}

async fn complete(
    api: &Api,
    request: &mut InstanceRequest,
    store: &Store,
) -> Result<Settled, Refused> {
    if let Template::Own(setting) = &request.template
        && setting.root.as_ref().is_some_and(|r| r.device.is_none())
    {
        let device = root_device(api, setting, request, store).await?;
        if let Template::Own(setting) = &mut request.template
            && let Some(root) = &mut setting.root
        {
            root.device = Some(device);
        }
    }
    if let Template::Own(setting) = &request.template {
        leftover::note_use(store, &setting.name());
    }
    if request.subnets.len() > 1
        && !store.is_noted(BLIND)
        && let Some(known) = subnets(api, request, store).await?
    {
        request.subnets = pools::choose(&request.subnets, &known);
        if request.subnets.is_empty() {
            let names: Vec<&str> = known.iter().map(|k| k.id.as_str()).collect();
            let cause = format!("no free address in {}", names.join(", "));
            let code = "InsufficientFreeAddressesInSubnet";
            let full = classify::service_error(Action::CreateFleet, code, "");
            return Ok(Settled::NoRoom(Verdict { cause, ..full }));
        }
    }
    Ok(Settled::Ready)
}

/// Returns what is known of the subnets; none where AWS does not say: most requests are good as they are.
async fn subnets(
    api: &Api,
    request: &InstanceRequest,
    store: &Store,
) -> Result<Option<Vec<Known>>, Refused> {
    let mut ids: Vec<&str> = request.subnets.iter().map(|s| s.id.as_str()).collect();
    ids.sort_unstable();
    let account = request.access.key();
    let mut about = vec!["subnets", &account];
    about.extend(&ids);
    if let Some(known) = store.recall::<Vec<Known>>(&about, SUBNETS_AGE) {
        let full = known.iter().all(|k| k.free <= 0);
        if !full || store.recall::<Vec<Known>>(&about, FULL_AGE).is_some() {
            return Ok(Some(known));
        }
    }
    let call = async || {
        api.ec2
            .describe_subnets()
            .set_subnet_ids(Some(ids.iter().map(|id| (*id).to_owned()).collect()))
            .send()
            .await
    };
    let answer = match api
        .aws
        .call(Action::DescribeSubnets, LOOK_LIMIT, call)
        .await
    {
        Ok(answer) => answer,
        Err(failure) if failure.verdict.why == Why::Settings => {
            return Err(refused(&failure.verdict, "the subnets cannot be looked at"));
        }
        Err(failure) => {
            if failure.verdict.why == Why::Denied {
                store.note(BLIND);
            }
            tracing::debug!(cause = failure.verdict.cause, "the subnets are not known");
            return Ok(None);
        }
    };
    let known: Vec<Known> = answer
        .subnets()
        .iter()
        .filter_map(|s| {
            Some(Known {
                id: s.subnet_id()?.to_owned(),
                zone: s.availability_zone()?.to_owned(),
                free: s.available_ip_address_count().unwrap_or(i32::MAX),
            })
        })
        .collect();
    store.keep(&about, &known);
    Ok(Some(known))
}

/// Returns the image's own name of its root volume.
async fn root_device(
    api: &Api,
    setting: &Setting,
    request: &InstanceRequest,
    store: &Store,
) -> Result<String, Refused> {
    let account = request.access.key();
    let about = ["root device", &account, &setting.image];
    if let Some(device) = store.recall(&about, DEVICE_AGE) {
        return Ok(device);
    }
    let image = match is_parameter(&setting.image) {
        true => resolve(api, setting, request, store).await?,
        false => setting.image.clone(),
    };
    let call = async || api.ec2.describe_images().image_ids(&image).send().await;
    let what = "the root volume of the image cannot be found out";
    let answer = match api.aws.call(Action::DescribeImages, LOOK_LIMIT, call).await {
        Ok(answer) => answer,
        Err(failure) => return Err(refused(&failure.verdict, what)),
    };
    let device = answer.images().first().and_then(|i| i.root_device_name());
    match device {
        Some(device) => {
            store.keep(&about, &device);
            Ok(device.to_owned())
        }
        None => Err(Refused {
            error: Error::new(Kind::Launch, format!("{what}: EC2 says nothing of {image}")).hint(
                "Correct `image_id` under [ec2], or take `volume_size` and `volume_type` out.",
            ),
            unanswered: false,
            hopeless: false,
        }),
    }
}

/// Returns the image that a parameter names now: EC2 itself reads it, out of a template.
async fn resolve(
    api: &Api,
    setting: &Setting,
    request: &InstanceRequest,
    store: &Store,
) -> Result<String, Refused> {
    let plain = setting.plain();
    let mut since = None;
    make_for(api, request, &plain, &mut since, store).await?;
    let call = async || {
        api.ec2
            .describe_launch_template_versions()
            .launch_template_name(plain.name())
            .versions("1")
            .resolve_alias(true)
            .send()
            .await
    };
    let what = format!("the image that {} names cannot be found out", setting.image);
    let action = Action::DescribeLaunchTemplateVersions;
    let answer = loop {
        match api.aws.call(action, LOOK_LIMIT, call).await {
            Ok(answer) => break answer,
            Err(failure) if failure.verdict.why == Why::NotFound && lags(since) => {
                make_for(api, request, &plain, &mut since, store).await?;
            }
            Err(failure) => return Err(refused(&failure.verdict, &what)),
        }
    };
    let version = answer.launch_template_versions().first();
    let image = version
        .and_then(|v| v.launch_template_data()?.image_id())
        .filter(|image| image.starts_with("ami-"));
    image.map(str::to_owned).ok_or_else(|| Refused {
        error: Error::new(Kind::Launch, what)
            .hint("Does that SSM parameter hold an image's id, in this region?"),
        unanswered: false,
        hopeless: false,
    })
}

fn refused(verdict: &Verdict, what: &str) -> Refused {
    Refused {
        error: verdict.error(verdict.why.kind(), what),
        unanswered: false,
        hopeless: verdict.why.is_final(),
    }
}
