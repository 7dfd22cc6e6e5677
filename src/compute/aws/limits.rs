//! How often AWS takes which calls, for each account and region, as its documentation says; a little less, since calls
//! that are sent in order do not arrive so, and others may use the same account.

use crate::state::shared::budget::Bucket;

/// Tasks of Fargate that are started: AWS starts 20 a second, on demand and Spot each, 20 at once.
const LAUNCHES: Bucket = bucket("launches", 10.0, 15.0);
/// ECS calls that change a cluster's tasks: 100 at once, 40 a second.
const CHANGES: Bucket = bucket("changes", 60.0, 30.0);
/// ECS calls that read them: 100 at once, 20 a second.
const READS: Bucket = bucket("reads", 60.0, 16.0);
/// Polls: one every half second, whatever AWS would take, since each serves all who wait.
pub(super) const POLLS: Bucket = bucket("polls", 1.0, 2.0);

const fn bucket(name: &'static str, size: f64, rate: f64) -> Bucket {
    Bucket { name, size, rate }
}

/// Returns the buckets that a call takes from; none where no limit is known that jobs could meet.
pub(super) fn of(action: &'static str) -> Vec<Bucket> {
    match action {
        "ecs:RunTask" => vec![LAUNCHES, CHANGES],
        "ecs:StopTask" => vec![CHANGES],
        "ecs:DescribeTasks" | "ecs:ListTasks" => vec![READS],
        // 100 at once; 5 a second end.
        "ec2:TerminateInstances" => vec![bucket(action, 80.0, 4.5)],
        // 100 at once, 20 a second, each by itself.
        _ if action.starts_with("ec2:Describe") => vec![bucket(action, 60.0, 16.0)],
        // What changes something: 50 at once, 5 a second, each by itself.
        _ if action.starts_with("ec2:") => vec![bucket(action, 40.0, 4.5)],
        _ => Vec::new(),
    }
}
