//! What an account holds now, and waiting until it is as wanted.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use super::Account;
use super::Called;
use super::State;
use super::Task;
use super::control;
use crate::lab::GONE_WITHIN;
use crate::lab::PATIENCE;

impl Account {
    /// Returns the account's state now.
    pub(crate) fn state(&self) -> State {
        self.state_after(None, Duration::ZERO)
    }

    /// Returns all tasks ever, oldest first.
    pub(crate) fn tasks(&self) -> Vec<Task> {
        self.state().tasks
    }

    /// Returns the tasks that are not over.
    pub(crate) fn alive(&self) -> Vec<Task> {
        let tasks = self.tasks().into_iter();
        tasks.filter(Task::is_alive).collect()
    }

    /// Returns the calls of an operation (`*`: of all), oldest first.
    pub(crate) fn calls(&self, action: &str) -> Vec<Called> {
        let calls = control(self.server, "GET", &self.path("calls"), &Value::Null);
        let calls: Vec<Called> = serde_json::from_value(calls).expect("the log of calls");
        let wanted = |call: &Called| action == "*" || call.action == action;
        calls.into_iter().filter(wanted).collect()
    }

    /// Waits until the state is as wanted, and returns it.
    ///
    /// # Panics
    ///
    /// With the state when that takes too long.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&State) -> bool) -> State {
        self.wait_within(what, PATIENCE, wanted)
    }

    /// As [`Self::wait`], with a limit of its own.
    pub(crate) fn wait_within(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&State) -> bool,
    ) -> State {
        let deadline = Instant::now() + within;
        let mut state = self.state();
        while !wanted(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {within:?}: {what}\n{state:#?}");
            state = self.state_after(Some(state.version), left.min(Duration::from_secs(5)));
        }
        state
    }

    /// Waits for a task as wanted, and returns the first.
    ///
    /// # Panics
    ///
    /// As [`Self::wait`].
    pub(crate) fn wait_task(&self, what: &str, wanted: impl Fn(&Task) -> bool) -> Task {
        let state = self.wait(what, |state| state.tasks.iter().any(&wanted));
        state.tasks.into_iter().find(wanted).expect("as waited for")
    }

    /// Waits until so many calls of the operation have come.
    ///
    /// # Panics
    ///
    /// With all calls when that takes too long.
    pub(crate) fn wait_calls(&self, action: &str, count: usize) -> Vec<Called> {
        self.wait(&format!("{count} calls of {action}"), |_| {
            self.calls(action).len() >= count
        });
        self.calls(action)
    }

    /// Waits until no task lives any more; returns those that still do.
    pub(crate) fn left(&self, family: Option<&str>) -> Vec<Task> {
        let of_family = |task: &Task| family.is_none_or(|family| task.family == family);
        self.wait_none(GONE_WITHIN, |state| {
            let tasks = state.tasks.iter().cloned();
            let alive = tasks.filter(|task| task.is_alive() && of_family(task));
            alive.collect()
        })
    }

    /// Waits until there is none any more of what is looked for; returns what there still is.
    pub(super) fn wait_none<T>(&self, within: Duration, find: impl Fn(&State) -> Vec<T>) -> Vec<T> {
        let deadline = Instant::now() + within;
        let mut state = self.state();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = find(&state);
            if found.is_empty() || left.is_zero() {
                return found;
            }
            state = self.state_after(Some(state.version), left);
        }
    }

    pub(super) fn state_after(&self, version: Option<u64>, within: Duration) -> State {
        let mut path = format!("/lab/accounts/{}?timeout={}", self.id, within.as_secs_f64());
        if let Some(version) = version {
            path += &format!("&after={version}");
        }
        let state = control(self.server, "GET", &path, &Value::Null);
        serde_json::from_value(state).expect("an account's state")
    }
}
