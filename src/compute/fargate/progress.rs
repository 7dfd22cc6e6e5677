//! The few lines that `prepare` says while a task comes up. Pure.

use std::time::SystemTime;

use super::task::{Phase, Task};

/// Returns what is new in `now` since `before` (`None`: nothing was known), in the order in which it happened.
#[must_use]
pub fn lines(before: Option<&Task>, now: &Task) -> Vec<String> {
    let new = |known: fn(&Task) -> bool| known(now) && !before.is_some_and(known);
    let mut lines = Vec::new();
    if new(|t| t.attached) {
        lines.push(network(now));
    }
    if new(|t| t.pull_stopped.is_some()) {
        // Tasks on instances that kept the image pull nothing.
        lines.push(match between(now.pull_started, now.pull_stopped) {
            Some(took) => format!("Image pulled in {took}"),
            None => "Image pulled".to_owned(),
        });
    }
    if new(|t| t.phase == Phase::Running) {
        let whose = now
            .capacity_provider
            .as_deref()
            .map(|name| format!(" on {name}"))
            .unwrap_or_default();
        let after = between(now.created, now.started)
            .map(|took| format!(" after {took}"))
            .unwrap_or_default();
        lines.push(format!("Task running{whose}{after}"));
    }
    lines
}

/// Returns what a task waits for, for a line that is said again and again while nothing changes.
#[must_use]
pub fn waiting_for(task: &Task) -> &'static str {
    match task.phase {
        Phase::Provisioning if task.attached => "the task to be placed",
        Phase::Provisioning => "capacity and a network interface",
        Phase::Pending if task.pull_started.is_some() && task.pull_stopped.is_none() => {
            "the image to be pulled"
        }
        Phase::Pending => "its containers to start",
        Phase::Running => "its SSH server",
        _ => "AWS",
    }
}

fn network(task: &Task) -> String {
    let address = task
        .private_address()
        .map(|a| format!(": {a}"))
        .unwrap_or_default();
    let place = match (&task.zone, &task.subnet) {
        (Some(zone), Some(subnet)) => format!(" in {zone} ({subnet})"),
        (Some(place), None) | (None, Some(place)) => format!(" in {place}"),
        (None, None) => String::new(),
    };
    format!("Network attached{address}{place}")
}

/// Says a time span in seconds, with a decimal where it is short.
fn between(from: Option<SystemTime>, to: Option<SystemTime>) -> Option<String> {
    let seconds = to?.duration_since(from?).ok()?.as_secs_f64();
    Some(if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: f64) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_secs_f64(seconds))
    }

    #[test]
    fn each_step_is_said_once() {
        let created = Task {
            phase: Phase::Provisioning,
            created: at(0.0),
            ..Task::default()
        };
        let attached = Task {
            phase: Phase::Pending,
            attached: true,
            ipv4: Some("10.0.1.5".parse().unwrap()),
            zone: Some("eu-west-1a".into()),
            subnet: Some("subnet-1".into()),
            ..created.clone()
        };
        let pulled = Task {
            pull_started: at(10.0),
            pull_stopped: at(22.4),
            ..attached.clone()
        };
        let running = Task {
            phase: Phase::Running,
            started: at(24.0),
            capacity_provider: Some("FARGATE_SPOT".into()),
            ..pulled.clone()
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(lines(None, &created), none);
        assert_eq!(
            lines(Some(&created), &attached),
            ["Network attached: 10.0.1.5 in eu-west-1a (subnet-1)"]
        );
        assert_eq!(lines(Some(&attached), &attached), none);
        assert_eq!(lines(Some(&attached), &pulled), ["Image pulled in 12 s"]);
        assert_eq!(
            lines(Some(&pulled), &running),
            ["Task running on FARGATE_SPOT after 24 s"]
        );
        // All at once, where a poll missed the steps.
        assert_eq!(lines(None, &running).len(), 3);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let task = Task {
            phase: Phase::Running,
            attached: true,
            pull_stopped: at(1.0),
            started: at(5.0),
            created: at(6.0),
            ..Task::default()
        };
        assert_eq!(
            lines(None, &task),
            ["Network attached", "Image pulled", "Task running"]
        );
        assert_eq!(between(at(0.0), at(3.21)).as_deref(), Some("3.2 s"));
    }

    #[test]
    fn what_is_waited_for() {
        let mut task = Task {
            phase: Phase::Provisioning,
            ..Task::default()
        };
        assert_eq!(waiting_for(&task), "capacity and a network interface");
        task.phase = Phase::Pending;
        task.pull_started = at(1.0);
        assert_eq!(waiting_for(&task), "the image to be pulled");
        task.phase = Phase::Running;
        assert_eq!(waiting_for(&task), "its SSH server");
    }
}
