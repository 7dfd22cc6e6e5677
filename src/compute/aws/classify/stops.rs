//! Why a task stopped, before anything else is read: whose doing it was, and how a task ended that ran.

use super::table::{From, Row, row};
use crate::machine::verdict::Why;

const CODES: &str = "ECS API: Task, stopCode";
const STOPPED: &str = "ECS guide: Stopped task error messages";

const SPOT: &str = "Retry the job; for jobs that cannot bear this, put `fargate` before `fargate-spot` in `capacity`, for them alone by a [[profile]].";
const SOMEONE: &str = "Somebody called ecs:StopTask on it; CloudTrail's StopTask events say who.";
const HOST: &str = "Retry the job: AWS took the host under its task out of service.";

#[rustfmt::skip]
pub(super) const OF_OTHERS: &[Row] = &[
    // What AWS says of the machine under it.
    row(From::Stop, Why::Interrupted, SPOT, "ts-10; ECS API: Task, stopCode")
        .code(&["SpotInterruption"]),
    // What somebody wrote as a reason is not AWS's wording: nothing below may read it.
    row(From::Stop, Why::StoppedBySomeone, "This driver ended it: the job was cancelled or timed out, or `reap` (of this or another bastion of the fleet) found it without an owner or past its deadline.", CODES)
        .code(&["UserInitiated"]).says(&["gitlab-aws-driver"]),
    row(From::Stop, Why::StoppedBySomeone, SOMEONE, CODES)
        .code(&["UserInitiated"]),
    row(From::Stop, Why::Interrupted, SPOT, STOPPED)
        .says(&["your spot task was interrupted", "spot interruption", "spotinterruptionerror", "spot instance*interrupt", "the spot instance*interrupted"]),
    row(From::Stop, Why::HostGone, "Retry the job: the instance under its task was stopped, drained or replaced (Managed Instances are replaced after 14 days at most); \
         look at the capacity provider's instances if this goes on.", "ts-09; ECS guide: Stopped task error messages")
        .says(&["amazon ecs is performing maintenance", "ecs is performing maintenance", "host ec2 (instance", "task stopped during instance draining", "instance draining", "container instance deregistration", "task stopped during*deregistration"]),
    row(From::Stop, Why::HostGone, HOST, CODES)
        .code(&["InfrastructureHealth"]),
    row(From::Stop, Why::StoppedBySomeone, "The ECS service scheduler or a deployment stopped it; keep CI tasks out of ECS services and their clusters.", CODES)
        .code(&["ServiceSchedulerInitiated"]),
    row(From::Stop, Why::StoppedBySomeone, SOMEONE, STOPPED)
        .says(&["task stopped by user"]),

    // Whatever the role was needed for.
    row(From::Stop, Why::Denied, super::calls::ASSUMED, "ECS guide: API error messages")
        .says(&["ecs was unable to assume the role", "ecs is unable to assume the role"]),

    // Memory.
    row(From::Stop, Why::Memory, "Give the task definition more `memory`, or the job less to do at once (fewer parallel compilers, smaller heaps).", "ts-53; ECS guide: Stopped task error messages")
        .says(&["outofmemoryerror", "out of memory", "container killed due to memory usage"]),
];

#[rustfmt::skip]
pub(super) const BY_ITSELF: &[Row] = &[
    row(From::Stop, Why::Exited, "ECS stopped it for its `healthCheck`; CI tasks need none: take it out of the task definition.", STOPPED)
        .says(&["task failed*health check", "task failed*health checks", "container health check", "health check"]),
    row(From::Stop, Why::Exited, "See why it ended: the logs of {container} (`logConfiguration` in the task definition), and whether its entrypoint takes SSH_PUBLIC_KEY and ends in `exec sshd -D` (or another server that stays).", "ts-52; ECS API: Task, stopCode")
        .code(&["EssentialContainerExited"]),
    row(From::Stop, Why::Exited, "See why it ended: the logs of {container} (`logConfiguration` in the task definition), and whether its entrypoint takes SSH_PUBLIC_KEY and ends in `exec sshd -D` (or another server that stays).", STOPPED)
        .says(&["essential container in task exited"]),
    row(From::Stop, Why::HostGone, "Retry the job: AWS takes the host under its task away; Spot capacity does so at any time.", CODES)
        .code(&["TerminationNotice"]),
];
