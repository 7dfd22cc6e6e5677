//! What AWS's words mean: from errors, failures and stop reasons to our few kinds, each with its cause in
//! AWS's own words and with what to do about it. Pure.
//!
//! All wordings stand in one table, a file for each kind of answer (`calls`, `pull`, `start`, `stops`, `ec2`, `common`): rows are tried in
//! order, the most exact first, and the first that fits decides. They go by the structure of an answer (`words`, `denied`), not by
//! words anywhere in it. AWS changes its words without notice, so what no row knows is [`Why::Other`], shown in full and never final.

mod action;
mod calls;
mod common;
mod denied;
mod ec2;
mod pull;
mod quota;
mod start;
mod stops;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_causes;
#[cfg(test)]
mod tests_ec2;
#[cfg(test)]
mod tests_forms;
#[cfg(test)]
mod tests_recorded;
mod words;

use crate::error::one_line;
use crate::machine::verdict::{Verdict, Why};
pub use action::Action;
use denied::{DRIVER, Denial, TASK};
use table::{Row, Said};
use words::{Words, is_code};

/// The longest cause that is shown, in characters: some answers carry a kilobyte of encoded context.
const MAX_CAUSE: usize = 700;

/// Reads an error that a service answered with: its code and message.
#[must_use]
pub fn service_error(action: Action, code: &str, message: &str) -> Verdict {
    let denial = Denial::read(message);
    let denied = denial.and_then(|d| d.action);
    // Some services tell a denial under a code that says nothing.
    let is_general = GENERAL.iter().any(|c| is_code(c, code));
    let read_as = match denied {
        Some(_) if is_general => "AccessDeniedException",
        _ => code,
    };
    let words = Words::read(message).and(denied);
    let cause = said(code, message);
    let answer = Answer {
        said: Said::Call,
        code: read_as,
        words: std::slice::from_ref(&words),
        cause: &cause,
    };
    let names = Names {
        call: action.name(),
        action: denied.unwrap_or(action.name()),
        container: "",
    };
    let remedy = denial.and_then(|d| d.remedy(DRIVER, names.action));
    let verdict = match remedy {
        Some(remedy) => answer.verdict(Why::Denied, &remedy, &names),
        None => answer.of_call(action, &names),
    };
    // A code that nobody knows, or none: one that stands in the words says more.
    let inner = || {
        let codes = words.codes().map(|code| Answer { code, ..answer });
        let mut read = codes.map(|inner| inner.of_call(action, &names));
        read.find(|verdict| verdict.why != Why::Other)
    };
    let verdict = match verdict.why {
        Why::Other => inner().unwrap_or(verdict),
        _ => verdict,
    };
    match verdict.why == Why::Quota && quota::is_exceeded_alone(message, "", 1) {
        true => never(verdict, action),
        false => verdict,
    }
}

/// Makes a quota one that no waiting helps with.
fn never(verdict: Verdict, action: Action) -> Verdict {
    let remedy = match action.is_of_instances() {
        true => ec2::ALONE.to_owned(),
        false => verdict.remedy,
    };
    Verdict {
        why: Why::Never,
        remedy,
        ..verdict
    }
}

/// Reads one of the errors of CreateFleet's answer: what one pool of capacity said, while others were still asked. `kind` is the pool's
/// instance type, where it is known, and `least` the least number of vCPUs that it has.
#[must_use]
pub fn fleet_error(code: &str, message: &str, kind: &str, least: u64) -> Verdict {
    let verdict = service_error(Action::CreateFleet, code, message);
    let why = match verdict.why {
        // The whole call is not repeated for one pool; another rung, or the next round, is as good.
        Why::Outage => {
            let remedy = "AWS is in trouble (health.aws.amazon.com); retry the job later.";
            return Verdict {
                why: Why::Busy,
                remedy: remedy.to_owned(),
                ..verdict
            };
        }
        Why::Throttled => Why::Busy,
        // What a pool may not do is what a launch takes, not what the fleet does.
        Why::Denied if denied_action(message).is_none() => {
            return Verdict {
                remedy: verdict
                    .remedy
                    .replace("ec2:CreateFleet", "ec2:RunInstances"),
                ..verdict
            };
        }
        Why::Quota if quota::is_exceeded_alone(message, kind, least) => {
            return never(verdict, Action::CreateFleet);
        }
        why => why,
    };
    Verdict { why, ..verdict }
}

/// Reads why an instance ended; where it is Spot and AWS itself ended it, it took its capacity back.
#[must_use]
pub fn instance_ended(code: &str, cause: &str, spot: bool) -> Verdict {
    let words = Words::read(cause);
    // A Spot instance that is gone without a reason: whoever else ends one leaves word of it.
    let unsaid = code.is_empty()
        && words.code_of("Server.").is_none()
        && !cause.to_lowercase().contains("user initiated");
    // What the request itself is to blame for is told as AWS's own fault at times, and only the words say better.
    let code = match words.code_of("Client.") {
        Some(client) => client.to_owned(),
        None if spot && unsaid => "Server.SpotInstanceTermination".to_owned(),
        None => match words.code_of("Server.").filter(|_| code.is_empty()) {
            Some(server) => server.to_owned(),
            None => code.to_owned(),
        },
    };
    // What has failed is the launch, which was the fleet's.
    let launch = "ec2:RunInstances";
    let names = Names {
        call: launch,
        action: launch,
        container: "",
    };
    let mut answer = Answer {
        said: Said::End,
        code: &code,
        words: &[words],
        cause,
    };
    let verdict = answer.judge(&[ec2::TABLE], &names, UNKNOWN_END);
    if verdict.why != Why::Other || !code.starts_with("Client.") {
        return verdict;
    }
    // What the request is to blame for is told in the codes of the calls.
    answer.said = Said::Call;
    answer.judge(&[ec2::TABLE], &names, UNKNOWN_END)
}

/// Has a remedy name the table of the configuration that a call is about.
fn named_for(action: Action, verdict: Verdict) -> Verdict {
    let remedy = match action {
        // Roles are assumed for both.
        Action::AssumeRole => verdict
            .remedy
            .replace(
                "the [fargate] table and the task definition",
                "ROLE_ARN or `role_arn`, and SESSION_VARS",
            )
            .replace(" under [fargate]", ""),
        // It is instances that log in to a registry with what the driver gets.
        Action::GetAuthorizationToken => in_ec2s_words(&verdict.remedy),
        _ if action.is_of_instances() => in_ec2s_words(&verdict.remedy),
        _ => verdict.remedy,
    };
    Verdict { remedy, ..verdict }
}

fn in_ec2s_words(remedy: &str) -> String {
    remedy
        .replace("[fargate]", "[ec2]")
        .replace("the task definition", "`launch_template`")
        .replace("the ECS console", "the EC2 console")
}

/// Reads a call without a service's answer: no connection, a time limit, an answer that is none. Errors of
/// finding credentials come here too, since the SDK gives them no code.
#[must_use]
pub fn no_answer(action: Action, text: &str) -> Verdict {
    let names = Names {
        call: action.name(),
        action: action.name(),
        container: "",
    };
    let answer = Answer {
        said: Said::Nothing,
        code: "",
        words: &[Words::read(text)],
        cause: text,
    };
    let verdict = match action.is_of_instances() {
        false => answer.judge(&[common::TABLE], &names, UNKNOWN),
        true => answer.judge(&[ec2::TABLE, common::TABLE], &names, UNKNOWN),
    };
    named_for(action, verdict)
}

/// Reads one of RunTask's or DescribeTasks' `failures`.
#[must_use]
pub fn failure(action: Action, reason: &str, detail: Option<&str>) -> Verdict {
    let cause = said(reason, detail.unwrap_or_default());
    let names = Names {
        call: action.name(),
        action: action.name(),
        container: "",
    };
    let answer = Answer {
        said: Said::Failure,
        code: reason,
        words: &[Words::read(&cause)],
        cause: &cause,
    };
    let verdict = answer.judge(&[calls::TABLE], &names, UNKNOWN);
    if verdict.why != Why::Other {
        return verdict;
    }
    // It may be told in the words of an error. The call itself was answered, so it is not repeated.
    let verdict = service_error(action, "", &cause);
    match verdict.why {
        Why::Throttled | Why::Outage => Verdict {
            why: Why::Busy,
            ..verdict
        },
        _ => verdict,
    }
}

/// Reads why a task stopped: its code, and the reasons of the task and its containers; `cause` is what is told of them.
#[must_use]
pub fn task_stopped(code: &str, reasons: &[&str], cause: &str, container: &str) -> Verdict {
    let words: Vec<Words> = reasons.iter().map(|reason| Words::read(reason)).collect();
    let answer = Answer {
        said: Said::Stop,
        code,
        words: &words,
        cause,
    };
    // A reason that somebody gave is not AWS's sentence, whatever it looks like.
    let mut denials = reasons.iter().filter_map(|reason| Denial::read(reason));
    let denial = denials.next().filter(|_| code != "UserInitiated");
    let action = denial.and_then(|d| d.action);
    let names = Names {
        call: Action::RunTask.name(),
        action: action.unwrap_or(Action::RunTask.name()),
        container,
    };
    match denial.and_then(|d| d.remedy(TASK, names.action)) {
        Some(remedy) => answer.verdict(Why::Denied, &remedy, &names),
        None => answer.judge(
            &[
                stops::OF_OTHERS,
                pull::TABLE,
                start::TABLE,
                stops::BY_ITSELF,
                calls::TABLE,
            ],
            &names,
            UNKNOWN,
        ),
    }
}

/// Makes a verdict of what AWS has not said: that a rung has no room, as the driver itself has found.
#[must_use]
pub fn no_room(action: Action, cause: String) -> Verdict {
    let remedy = match action.is_of_instances() {
        true => ec2::NO_ROOM,
        false => calls::NO_ROOM,
    };
    Verdict {
        why: Why::NoRoom,
        cause,
        remedy: remedy.to_owned(),
    }
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
        || [
            "the new arn*must be enabled to add tags",
            "long arn format must be enabled for tagging",
        ]
        .iter()
        .any(|phrase| Words::read(message).says(0, phrase))
}

/// Returns the action that an AWS message says is not allowed.
#[must_use]
pub fn denied_action(message: &str) -> Option<&str> {
    Denial::read(message)?.action
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

/// Codes under which anything is told.
const GENERAL: [&str; 4] = ["ClientException", "InvalidParameter*", "Validation*", ""];
/// What is told of an answer that no row knows.
const UNKNOWN: &str = "This version does not know this answer; look it up in the ECS console and AWS's documentation, then retry the job.";
/// The same, of an instance's end.
const UNKNOWN_END: &str =
    "See the instance in the EC2 console (its state transition reason), and retry the job.";

/// What remedies name.
struct Names<'a> {
    /// The call, as a policy names it.
    call: &'a str,
    /// What is not allowed, or the call.
    action: &'a str,
    /// The container that jobs run in.
    container: &'a str,
}

/// An answer, as rows are held against it.
#[derive(Clone, Copy)]
struct Answer<'a> {
    said: Said,
    code: &'a str,
    /// What was said: a task's reason and its containers' stand apart.
    words: &'a [Words],
    /// What is told of it.
    cause: &'a str,
}

impl Answer<'_> {
    /// Reads an error of a call: about instances by EC2's own table, then by what all services say alike.
    fn of_call(&self, action: Action, names: &Names<'_>) -> Verdict {
        let own = match action.is_of_instances() {
            true => ec2::TABLE,
            false => calls::TABLE,
        };
        named_for(action, self.judge(&[own, common::TABLE], names, UNKNOWN))
    }

    /// Tries the rows of several tables, one table after the other.
    fn judge(&self, tables: &[&[Row]], names: &Names<'_>, unknown: &str) -> Verdict {
        let nothing = [Words::default()];
        let words = match self.words {
            [] => &nothing,
            words => words,
        };
        let fits = |row: &&Row| words.iter().any(|w| row.fits(self.said, self.code, w));
        match tables.iter().copied().flatten().find(fits) {
            Some(row) => {
                tracing::debug!(cause = self.cause, why = ?row.why, source = row.source, "read what AWS said");
                self.verdict(row.why, row.remedy, names)
            }
            None => self.verdict(Why::Other, unknown, names),
        }
    }

    fn verdict(&self, why: Why, remedy: &str, names: &Names<'_>) -> Verdict {
        Verdict {
            why,
            cause: shortened(&one_line(self.cause)),
            remedy: remedy
                .replace("{action}", names.action)
                .replace("{call}", names.call)
                .replace("{container}", names.container),
        }
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
