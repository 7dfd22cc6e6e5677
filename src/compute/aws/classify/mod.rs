//! What AWS's words mean: from errors, failures and stop reasons to our few kinds, each with its cause in
//! AWS's own words and with what to do about it. Pure.
//!
//! All wordings stand in one table (`table.rs`): rows are tried in order and the first that fits decides. AWS
//! changes its words without notice, so what no row knows is [`Why::Other`], shown in full and never final.

mod ec2;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_ec2;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, one_line};
pub(in crate::compute) use table::Said;
use table::{Row, TABLE};

/// The longest cause that is shown, in characters: some answers carry a kilobyte of encoded context.
const MAX_CAUSE: usize = 700;

/// What went wrong, as far as anybody has to act differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// No capacity, no network interface or no address free: another rung, or later.
    NoRoom,
    /// A quota of the account is used up: another rung may have its own, and it frees up as tasks end.
    Quota,
    /// Too many calls: the same call again, later.
    Throttled,
    /// AWS is in trouble, or did not answer: a call may be sent again, with the same token.
    Outage,
    /// A role may not do it: the driver's, or (in a stop reason) the task's execution role.
    Denied,
    /// The driver's credentials are missing, expired or wrong, or this host's clock is.
    Credentials,
    /// The cluster has no default strategy, and nothing else was asked for.
    NoDefaultProvider,
    /// The cluster does not have the capacity provider that was asked for.
    NoSuchProvider,
    /// The image, or what it starts, is wrong for good.
    Image,
    /// The image could not be pulled this time: rate limits, a registry in trouble.
    Registry,
    /// Something that the task needs is out of its network's reach.
    Network,
    /// Memory ran out under process 1.
    Memory,
    /// Spot took it back.
    Interrupted,
    /// The host under it went away or was drained.
    HostGone,
    /// Somebody (or something) told it to stop.
    StoppedBySomeone,
    /// Its process 1, or that of another essential container, ended by itself.
    Exited,
    /// What comes and goes is not there: a task, an interface. (A missing cluster is [`Why::Settings`].)
    NotFound,
    /// What was asked for does not fit together or does not exist: the settings or the task definition are wrong.
    Settings,
    /// Nothing reaches AWS before somebody changes something on the way: a certificate, a proxy. It says nothing of calls before.
    Barred,
    /// The token was used before with other parameters.
    Conflict,
    /// Nothing that this version knows.
    Other,
}

/// What AWS's answer comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The kind.
    pub why: Why,
    /// AWS's own words, on one line.
    pub cause: String,
    /// What to do about it, as a full sentence.
    pub remedy: String,
}

/// A call to AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// ECS RunTask.
    RunTask,
    /// ECS DescribeTasks.
    DescribeTasks,
    /// ECS StopTask.
    StopTask,
    /// ECS ListTasks.
    ListTasks,
    /// STS AssumeRole.
    AssumeRole,
    /// EC2 DescribeNetworkInterfaces.
    DescribeNetworkInterfaces,
    /// EC2 CreateFleet.
    CreateFleet,
    /// EC2 CreateLaunchTemplate.
    CreateLaunchTemplate,
    /// EC2 DescribeInstances.
    DescribeInstances,
    /// EC2 TerminateInstances.
    TerminateInstances,
    /// EC2 DescribeSubnets.
    DescribeSubnets,
    /// EC2 DescribeImages.
    DescribeImages,
    /// EC2 DescribeLaunchTemplateVersions.
    DescribeLaunchTemplateVersions,
    /// EC2 DescribeLaunchTemplates.
    DescribeLaunchTemplates,
    /// EC2 DeleteLaunchTemplate.
    DeleteLaunchTemplate,
    /// EC2 DescribeSpotInstanceRequests.
    DescribeSpotInstanceRequests,
    /// EC2 CancelSpotInstanceRequests.
    CancelSpotInstanceRequests,
    /// EC2 DescribeVolumes.
    DescribeVolumes,
    /// EC2 DeleteVolume.
    DeleteVolume,
    /// ECR GetAuthorizationToken.
    GetAuthorizationToken,
    /// EC2 Instance Connect's SendSSHPublicKey.
    SendSshPublicKey,
}

impl Action {
    /// Returns the name that a policy uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RunTask => "ecs:RunTask",
            Self::DescribeTasks => "ecs:DescribeTasks",
            Self::StopTask => "ecs:StopTask",
            Self::ListTasks => "ecs:ListTasks",
            Self::AssumeRole => "sts:AssumeRole",
            Self::DescribeNetworkInterfaces => "ec2:DescribeNetworkInterfaces",
            Self::CreateFleet => "ec2:CreateFleet",
            Self::CreateLaunchTemplate => "ec2:CreateLaunchTemplate",
            Self::DescribeInstances => "ec2:DescribeInstances",
            Self::TerminateInstances => "ec2:TerminateInstances",
            Self::DescribeSubnets => "ec2:DescribeSubnets",
            Self::DescribeImages => "ec2:DescribeImages",
            Self::DescribeLaunchTemplateVersions => "ec2:DescribeLaunchTemplateVersions",
            Self::DescribeLaunchTemplates => "ec2:DescribeLaunchTemplates",
            Self::DeleteLaunchTemplate => "ec2:DeleteLaunchTemplate",
            Self::DescribeSpotInstanceRequests => "ec2:DescribeSpotInstanceRequests",
            Self::CancelSpotInstanceRequests => "ec2:CancelSpotInstanceRequests",
            Self::DescribeVolumes => "ec2:DescribeVolumes",
            Self::DeleteVolume => "ec2:DeleteVolume",
            Self::GetAuthorizationToken => "ecr:GetAuthorizationToken",
            Self::SendSshPublicKey => "ec2-instance-connect:SendSSHPublicKey",
        }
    }

    /// Whether it is about instances: `[ec2]` is what remedies name then.
    fn is_of_instances(self) -> bool {
        let name = self.name();
        let of_ec2 = name.starts_with("ec2:") || name.starts_with("ec2-instance-connect:");
        of_ec2 && self != Self::DescribeNetworkInterfaces
    }
}

impl Why {
    /// Whether the next rung may do better, for a task that has not come up yet.
    #[must_use]
    pub fn hands_over(self) -> bool {
        matches!(
            self,
            Self::NoRoom
                | Self::Quota
                | Self::NoSuchProvider
                | Self::NoDefaultProvider
                | Self::Interrupted
                | Self::HostGone
        )
    }

    /// Whether a launch on the same rung may do better later, by itself.
    #[must_use]
    pub fn is_worth_waiting(self) -> bool {
        matches!(
            self,
            Self::NoRoom
                | Self::Quota
                | Self::Throttled
                | Self::Outage
                | Self::Registry
                | Self::Interrupted
                | Self::HostGone
        )
    }

    /// Whether no further try of this job can do better until somebody changes something.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Denied | Self::Image | Self::Settings | Self::Barred
        )
    }

    /// Whether the very same call, with the same token, is worth sending again at once (with a pause).
    #[must_use]
    pub fn repeats_call(self) -> bool {
        matches!(self, Self::Throttled | Self::Outage)
    }
}

impl Why {
    /// Says of which kind an error is that AWS's words come to.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::NoRoom | Self::Quota => Kind::Capacity,
            // AWS has refused nothing: whoever ends machines keeps what is known of them.
            Self::Throttled | Self::Outage | Self::Barred => Kind::Throttled,
            Self::Denied => Kind::Denied,
            Self::Credentials => Kind::Credentials,
            Self::NoDefaultProvider
            | Self::NoSuchProvider
            | Self::Image
            | Self::Registry
            | Self::Network
            | Self::Memory
            | Self::Interrupted
            | Self::HostGone
            | Self::StoppedBySomeone
            | Self::Exited
            | Self::NotFound
            | Self::Settings
            | Self::Conflict
            | Self::Other => Kind::Launch,
        }
    }
}

impl Verdict {
    /// Makes it an error: what failed, AWS's words, and the remedy as its hint.
    #[must_use]
    pub fn error(&self, kind: Kind, what: &str) -> Error {
        let message = if self.cause.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {}", self.cause)
        };
        Error::new(kind, message).hint(self.remedy.clone())
    }
}

/// Reads an error that a service answered with: its code and message.
#[must_use]
pub fn service_error(action: Action, code: &str, message: &str) -> Verdict {
    let names = Names {
        call: action.name(),
        container: "",
    };
    let cause = said(code, message);
    match action.is_of_instances() {
        false => judge(Said::Call, code, message, &cause, &names),
        true => of_instances(Said::Call, code, message, &cause, &names),
    }
}

/// Reads one of the errors of CreateFleet's answer: what one pool of capacity said, while others were still asked.
#[must_use]
pub fn fleet_error(code: &str, message: &str) -> Verdict {
    let verdict = service_error(Action::CreateFleet, code, message);
    match verdict.why {
        // The whole call is not repeated for one pool; another rung, or the next round, is as good.
        why if why.repeats_call() => Verdict {
            why: Why::NoRoom,
            ..verdict
        },
        _ => verdict,
    }
}

/// Reads why an instance ended; where it is Spot and AWS itself ended it, it took its capacity back.
#[must_use]
pub fn instance_ended(code: &str, cause: &str, spot: bool) -> Verdict {
    let names = Names {
        call: Action::DescribeInstances.name(),
        container: "",
    };
    // A Spot instance that is gone without a reason: whoever else ends one leaves word of it.
    let unsaid = code.is_empty() && !cause.to_lowercase().contains("user initiated");
    let code = match spot && unsaid {
        true => "Server.SpotInstanceTermination",
        false => code,
    };
    judge_by(&[ec2::TABLE], Said::Stop, code, cause, cause, &names)
}

/// Reads words about instances: EC2's own table, then what all services say alike.
fn of_instances(from: Said, code: &str, words: &str, cause: &str, names: &Names<'_>) -> Verdict {
    let mut verdict = judge_by(&[ec2::TABLE, TABLE], from, code, words, cause, names);
    verdict.remedy = verdict
        .remedy
        .replace("[fargate]", "[ec2]")
        .replace("the ECS console", "the EC2 console");
    verdict
}

/// Reads a call without a service's answer: no connection, a time limit, an answer that is none. Errors of
/// finding credentials come here too, since the SDK gives them no code.
#[must_use]
pub fn no_answer(action: Action, text: &str) -> Verdict {
    let names = Names {
        call: action.name(),
        container: "",
    };
    match action.is_of_instances() {
        false => judge(Said::Nothing, "", text, text, &names),
        true => of_instances(Said::Nothing, "", text, text, &names),
    }
}

/// Reads one of RunTask's or DescribeTasks' `failures`.
#[must_use]
pub fn failure(action: Action, reason: &str, detail: Option<&str>) -> Verdict {
    let detail = detail.unwrap_or_default();
    let names = Names {
        call: action.name(),
        container: "",
    };
    let cause = said(reason, detail);
    judge(Said::Failure, reason, &cause, &cause, &names)
}

/// Whether a failure of DescribeTasks says that the task is not (or not yet) known.
#[must_use]
pub fn is_missing(reason: &str) -> bool {
    reason.eq_ignore_ascii_case("MISSING")
}

/// Whether it was the tags alone that were refused, so that the launch may be tried without.
#[must_use]
pub fn tags_refused(code: &str, message: &str) -> bool {
    let denied = service_error(Action::RunTask, code, message).why == Why::Denied;
    (denied && denied_action(message) == Some("ecs:TagResource"))
        // Accounts that never left the short ARNs cannot tag tasks at all.
        || table::fits("new arn*must be enabled*tag", &message.to_lowercase())
}

/// Returns the action that an AWS message says is not allowed.
#[must_use]
pub fn denied_action(message: &str) -> Option<&str> {
    message.split("perform").skip(1).find_map(|rest| {
        let word = rest
            .trim_start_matches(':')
            .split_whitespace()
            .next()?
            .trim_end_matches(['.', ',', ';']);
        let (service, action) = word.split_once(':')?;
        let name =
            |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        (name(service) && name(action)).then_some(word)
    })
}

/// Returns the tasks that a conflict names: those that the token started before.
#[must_use]
pub fn conflict_tasks(resource_ids: &[String], message: &str) -> Vec<String> {
    let mut tasks: Vec<String> = Vec::new();
    let in_message = message
        .split(|c: char| c.is_whitespace() || "[](),;'\"".contains(c))
        .map(|word| word.trim_end_matches('.'));
    for id in resource_ids.iter().map(String::as_str).chain(in_message) {
        let is_task = id.starts_with("arn:") && id.contains(":task/");
        if is_task && !tasks.iter().any(|t| t == id) {
            tasks.push(id.to_owned());
        }
    }
    tasks
}

/// What remedies name.
pub(in crate::compute) struct Names<'a> {
    /// The call, as a policy names it.
    pub(in crate::compute) call: &'a str,
    /// The container that jobs run in.
    pub(in crate::compute) container: &'a str,
}

pub(in crate::compute) fn judge(
    from: Said,
    code: &str,
    words: &str,
    cause: &str,
    names: &Names<'_>,
) -> Verdict {
    judge_by(&[TABLE], from, code, words, cause, names)
}

/// Tries the rows of several tables, one table after the other.
fn judge_by(
    tables: &[&[Row]],
    from: Said,
    code: &str,
    words: &str,
    cause: &str,
    names: &Names<'_>,
) -> Verdict {
    let text = words.to_lowercase();
    let row = tables
        .iter()
        .copied()
        .flatten()
        .find(|row| row.from.holds(from) && row.fits(code, &text));
    let (why, remedy) = row.map_or(
        (
            Why::Other,
            "This version does not know this answer; look it up in the ECS console and AWS's documentation, then retry the job.",
        ),
        |row| (row.why, row.remedy),
    );
    Verdict {
        why,
        cause: shortened(&one_line(cause)),
        remedy: remedy
            .replace("{action}", denied_action(words).unwrap_or(names.call))
            .replace("{call}", names.call)
            .replace("{container}", names.container),
    }
}

/// Joins a code and its explanation, unless one already says the other.
pub(in crate::compute) fn said(code: &str, words: &str) -> String {
    let (code, words) = (code.trim(), words.trim());
    if code.is_empty() || words.contains(code) {
        words.to_owned()
    } else if words.is_empty() {
        code.to_owned()
    } else {
        format!("{code}: {words}")
    }
}

/// Cuts a cause that is too long for a job log.
pub(in crate::compute) fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_CAUSE {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_CAUSE - 1).collect();
    short.push('…');
    short
}
