//! CreateFleet, the template that it goes by, and what its answer means for the rung.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Api;
use super::fleet::{self, Answer};
use super::made;
use super::request;
use super::template;
use crate::compute::aws::Failure;
use crate::compute::aws::classify::Action;
use crate::compute::kind::{Launched, Refused};
use crate::error::Error;
use crate::machine::instance::{InstanceRequest, Template};
use crate::machine::template::Setting;
use crate::machine::verdict::{Verdict, Why};
use crate::state::Store;

/// How long CreateFleet is repeated while AWS throttles it or does not answer.
const LAUNCH_LIMIT: Duration = Duration::from_secs(4 * 60);
/// How long EC2 may say that it does not know a template that it has just made: its reads lag its writes.
const TEMPLATE_LAG: Duration = Duration::from_secs(20);
/// Between two tries meanwhile.
const TEMPLATE_PAUSE: Duration = Duration::from_secs(1);

/// The id of the instance that a CreateFleet started, and of those that came with it and were not asked for.
type Started = (String, Vec<String>);

/// Sends the request, and makes its template where AWS does not know it.
///
/// # Errors
/// Where AWS refuses it for another reason than that the rung has no room.
pub(super) async fn launch(
    api: &Api,
    request: &InstanceRequest,
    store: &Store,
) -> Result<Launched<Started>, Refused> {
    let mut since: Option<Instant> = None;
    loop {
        let (verdict, unanswered) = match create_fleet(api, request, LAUNCH_LIMIT).await {
            Ok(Answer::Instances(mut ids)) => {
                made::proved(store, request);
                let first = ids.remove(0);
                return Ok(Launched::Coming((first, ids)));
            }
            Ok(Answer::Nothing(verdict)) => (verdict, false),
            Ok(Answer::Neither(verdict)) => return Ok(Launched::Neither(verdict)),
            Err(Told::Aws(failure)) => (failure.verdict, failure.unanswered),
            Err(Told::Local(error)) => return Err(error.into()),
        };
        match &request.template {
            Template::Own(setting) if verdict.why == Why::NotFound && lags(since) => {
                make_for(api, request, setting, &mut since, store).await?;
            }
            _ => {
                let answer = rung(request, verdict, unanswered);
                if let Ok(Launched::NoRoom(_)) = &answer {
                    made::proved(store, request);
                }
                return answer;
            }
        }
    }
}

/// Whether EC2 may just not know yet what was made first at that time.
pub(super) fn lags(since: Option<Instant>) -> bool {
    since.is_none_or(|since| since.elapsed() < TEMPLATE_LAG)
}

/// Makes a template that EC2 does not know, or does not know yet. Once more where it was made before: another launch that
/// was refused may have taken it back meanwhile.
///
/// # Errors
/// Where AWS does not take it.
pub(super) async fn make_for(
    api: &Api,
    request: &InstanceRequest,
    setting: &Setting,
    since: &mut Option<Instant>,
    store: &Store,
) -> Result<(), Refused> {
    if since.is_some() {
        sleep(TEMPLATE_PAUSE).await;
    }
    if make(api, setting).await? {
        made::note(store, &request.access, setting);
    }
    since.get_or_insert_with(Instant::now);
    Ok(())
}

/// Decides what a refusal means for the rung.
fn rung(
    request: &InstanceRequest,
    verdict: Verdict,
    unanswered: bool,
) -> Result<Launched<Started>, Refused> {
    match verdict.why {
        // A call before it that had no answer may take effect yet, and then there would be an instance on two rungs.
        why if why.hands_over() && !unanswered => Ok(Launched::NoRoom(verdict)),
        // What the token was used for is there, and has to be found by its tag.
        Why::Conflict => Err(Refused {
            error: verdict.error(verdict.why.kind(), "the job's instance was not started"),
            unanswered: true,
            hopeless: false,
        }),
        why => {
            // An administrator's template that is not there is a wrong setting.
            let given = matches!(request.template, Template::Given(_));
            let settled = why.is_final() || (given && why == Why::NotFound);
            Err(Refused {
                error: verdict.error(why.kind(), "the job's instance was not started"),
                unanswered,
                hopeless: settled && !unanswered,
            })
        }
    }
}

/// Makes a template of the driver's own. One that is there already is as good; returns whether it was not.
///
/// # Errors
/// Where AWS does not take it.
async fn make(api: &Api, setting: &Setting) -> Result<bool, Refused> {
    let input = template::input(setting);
    let call = async || input.clone().send_with(&api.ec2).await;
    match api
        .aws
        .call(Action::CreateLaunchTemplate, LAUNCH_LIMIT, call)
        .await
    {
        Ok(_) => Ok(true),
        Err(failure) if failure.verdict.why == Why::Conflict => Ok(false),
        Err(failure) => Err(Refused {
            error: failure.verdict.error(
                failure.verdict.why.kind(),
                "the launch template of the job's instance was not made",
            ),
            unanswered: false,
            hopeless: failure.verdict.why.is_final(),
        }),
    }
}

/// What sending a request again told.
#[derive(Debug)]
pub(super) enum Replayed {
    /// The instances of its token: started first, or just now.
    Instances(Vec<String>),
    /// AWS says that there is nothing by it.
    Nothing,
    /// The token was used with another request: what it started has to be looked for.
    Conflict,
}

/// Sends a request again, to learn what it has started.
///
/// # Errors
/// Where AWS does not say.
pub(super) async fn replay(
    api: &Api,
    request: &InstanceRequest,
    limit: Duration,
) -> Result<Replayed, Error> {
    match create_fleet(api, request, limit).await {
        Ok(Answer::Instances(ids)) => Ok(Replayed::Instances(ids)),
        Ok(Answer::Nothing(_) | Answer::Neither(_)) => Ok(Replayed::Nothing),
        Err(Told::Local(error)) => Err(error),
        Err(Told::Aws(failure)) => match failure.verdict.why {
            Why::Conflict => Ok(Replayed::Conflict),
            // What is refused for what it asks was refused then as well; a template that is not there started nothing.
            why if (why.hands_over() || matches!(why, Why::Settings | Why::NotFound))
                && !failure.unanswered =>
            {
                Ok(Replayed::Nothing)
            }
            why => {
                let what = "whether the job's instance was started cannot be found out";
                Err(failure.verdict.error(why.kind(), what))
            }
        },
    }
}

enum Told {
    Local(Error),
    Aws(Failure),
}

async fn create_fleet(
    api: &Api,
    request: &InstanceRequest,
    limit: Duration,
) -> Result<Answer, Told> {
    let input = request::input(request).map_err(Told::Local)?;
    let call = async || input.clone().send_with(&api.ec2).await;
    match api.aws.call(Action::CreateFleet, limit, call).await {
        Ok(answer) => Ok(fleet::read(request, &answer)),
        Err(failure) => Err(Told::Aws(failure)),
    }
}
