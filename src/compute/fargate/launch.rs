//! RunTask, and what its answer means for the rung.

use std::cell::RefCell;
use std::time::Duration;

use aws_sdk_ecs::operation::run_task::RunTaskError;

use super::request;
use crate::compute::aws::classify::{self, Action};
use crate::compute::aws::{Aws, Failure};
use crate::compute::kind::{Launched, Refused};
use crate::error::{Error, Result};
use crate::machine::task::TaskRequest;
use crate::machine::verdict::{Verdict, Why};

/// How long RunTask is repeated while AWS throttles it or does not answer.
const LAUNCH_LIMIT: Duration = Duration::from_secs(4 * 60);

/// Sends the request, and returns the ARN of the task that it started.
///
/// # Errors
/// Where AWS refuses it for another reason than that the rung has no room.
pub(super) async fn launch(
    aws: &Aws,
    request: &TaskRequest,
) -> std::result::Result<Launched<String>, Refused> {
    let answer = match run_task(aws, request, LAUNCH_LIMIT).await {
        Ok(answer) => answer,
        Err(Told::Local(error)) => return Err(error.into()),
        Err(Told::Aws(failure, _)) => {
            // A call before it that had no answer may have started a task: the caller has to end that first.
            if failure.tags_refused && is_tagged(request) && !failure.unanswered {
                return Ok(Launched::Untaggable(failure.verdict.cause));
            }
            return rung(failure.verdict, failure.unanswered);
        }
    };
    match answer {
        Answer::Task(arn) => Ok(Launched::Coming(arn)),
        Answer::Nothing(verdict) => rung(verdict, false),
        Answer::Neither(verdict) => Ok(Launched::Neither(verdict)),
    }
}

/// Decides what a refusal means for the rung.
fn rung(verdict: Verdict, unanswered: bool) -> std::result::Result<Launched<String>, Refused> {
    match verdict.why {
        Why::NoSuchProvider | Why::NoDefaultProvider => Ok(Launched::Unusable(verdict)),
        // A call before it that had no answer may take effect yet, and then there would be a task on two rungs.
        why if why.hands_over() && !unanswered => Ok(Launched::NoRoom(verdict)),
        why => Err(Refused {
            hopeless: why.is_final() && !unanswered,
            error: verdict.error(why.kind(), "the job's task was not started"),
            unanswered,
        }),
    }
}

/// Sends a request again and returns the tasks of its token: one that it started first, or starts now. None where AWS
/// says that there is nothing and will be nothing.
///
/// # Errors
/// Where AWS does not say.
pub(super) async fn replay(
    aws: &Aws,
    request: &TaskRequest,
    limit: Duration,
) -> Result<Vec<String>> {
    match run_task(aws, request, limit).await {
        Ok(Answer::Task(arn)) => Ok(vec![arn]),
        Ok(Answer::Nothing(_) | Answer::Neither(_)) => Ok(Vec::new()),
        Err(Told::Local(error)) => Err(error),
        // The token was used with other parameters, by no version that is known; but AWS names its tasks.
        Err(Told::Aws(_, tasks)) if !tasks.is_empty() => Ok(tasks),
        // No room now says that the token has no task yet: a known one is named whatever the room.
        // What is refused for what it asks was refused then as well; where that has changed in between, `reap` finds it.
        Err(Told::Aws(failure, _)) if !failure.unanswered && says_nothing_started(&failure) => {
            Ok(Vec::new())
        }
        Err(Told::Aws(failure, _)) => {
            let what = "whether the job's task was started cannot be found out";
            Err(failure.verdict.error(failure.verdict.why.kind(), what))
        }
    }
}

/// Whether a refusal of the same request now tells that it has started nothing before. A missing permission does not: it
/// may be another's who calls now.
fn says_nothing_started(failure: &Failure) -> bool {
    let why = failure.verdict.why;
    why.hands_over() || why == Why::Settings || failure.tags_refused
}

fn is_tagged(request: &TaskRequest) -> bool {
    request.propagate_tags || !request.tags.is_empty()
}

enum Answer {
    Task(String),
    Nothing(Verdict),
    Neither(Verdict),
}

enum Told {
    Local(Error),
    /// And the tasks that a conflict names.
    Aws(Failure, Vec<String>),
}

async fn run_task(
    aws: &Aws,
    request: &TaskRequest,
    limit: Duration,
) -> std::result::Result<Answer, Told> {
    let input = request::input(request).map_err(Told::Local)?;
    let conflict = RefCell::new(Vec::new());
    let call = async || {
        let answer = input.clone().send_with(&aws.ecs).await;
        if let Err(error) = &answer
            && let Some(RunTaskError::ConflictException(e)) = error.as_service_error()
        {
            let message = e.message().unwrap_or_default();
            *conflict.borrow_mut() = classify::conflict_tasks(e.resource_ids(), message);
        }
        answer
    };
    let answer = match aws.call(Action::RunTask, limit, call).await {
        Ok(answer) => answer,
        Err(failure) => return Err(Told::Aws(failure, conflict.take())),
    };
    if let Some(arn) = answer.tasks().iter().find_map(|task| task.task_arn()) {
        return Ok(Answer::Task(arn.to_owned()));
    }
    Ok(match answer.failures() {
        [failure, ..] => Answer::Nothing(classify::failure(
            Action::RunTask,
            failure.reason().unwrap_or_default(),
            failure.detail(),
        )),
        [] => Answer::Neither(classify::no_room(
            Action::RunTask,
            "neither a task nor a failure was named".to_owned(),
        )),
    })
}
