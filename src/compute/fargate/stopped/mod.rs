//! Why a task stopped: AWS's code and reason, and its containers' own. Pure.

#[cfg(test)]
mod tests;

use super::task::{Container, Task};
use crate::compute::aws::classify::{said, task_stopped};
use crate::error::one_line;
use crate::machine::verdict::{Verdict, Why};

/// Reads why a task stopped or is stopping; `container` is the one that jobs run in.
#[must_use]
pub fn stopped(task: &Task, container: &str) -> Verdict {
    let stop = task.stop.clone().unwrap_or_default();
    let code = stop.code.as_deref().unwrap_or_default();
    let reason = stop.reason.as_deref().unwrap_or_default();
    let said_of_it = said(code, reason);
    let mut words = vec![reason];
    // A reason that somebody gave is not AWS's; what containers died of then is no news either.
    if code != "UserInitiated" {
        words.extend(stop.containers.iter().filter_map(|c| c.reason.as_deref()));
    }
    let mut cause = said_of_it.clone();
    for c in &stop.containers {
        if let Some(end) = ended(c, &cause) {
            if !cause.is_empty() {
                cause.push_str("; ");
            }
            cause.push_str(&end);
        }
    }
    if cause.is_empty() {
        // Told to stop, and nothing else is known yet.
        "the task is being stopped; AWS gives no reason".clone_into(&mut cause);
    }
    let ours = stop
        .containers
        .iter()
        .find(|c| c.name == container)
        .and_then(|c| c.exit_code);
    // What ended by itself may be told by its exit code alone.
    let kind = match ours {
        Some(_) if said_of_it.is_empty() => "EssentialContainerExited",
        _ => code,
    };
    let mut verdict = task_stopped(kind, &words, &cause, container);
    if verdict.why == Why::Exited {
        refine_exit(&mut verdict, task, ours, container);
    }
    verdict
}

/// What an exit code adds: a command that is not there will not be there next time.
fn refine_exit(verdict: &mut Verdict, task: &Task, exit_code: Option<i32>, container: &str) {
    match exit_code {
        Some(126 | 127) if !task.ran_for_a_while() => {
            verdict.why = Why::Image;
            verdict.remedy = format!(
                "Correct the image of the container {container} or the entryPoint/command in the task definition: \
                 126 means that what it starts cannot be executed, 127 that it is not there."
            );
        }
        Some(137) => {
            verdict.remedy = format!(
                "Process 1 of {container} was killed (137 is SIGKILL): give the task definition more memory if its \
                 Container Insights or logs show it full."
            );
        }
        _ => {}
    }
}

/// Says how a container ended; nothing where that is said already.
fn ended(container: &Container, already: &str) -> Option<String> {
    let reason = container
        .reason
        .as_deref()
        .map(one_line)
        .filter(|r| !one_line(already).contains(r.as_str()));
    let code = container.exit_code.map(|n| format!("exited with {n}"));
    let how = match (code, reason) {
        (Some(code), Some(reason)) => format!("{code}: {reason}"),
        (code, reason) => code.or(reason)?,
    };
    Some(format!("container {} {how}", container.name))
}
