//! What can go wrong on command: with a call ([`Fault`]) and with a task ([`Fate`]).

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

/// Something that goes wrong with calls of an action, once unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Fault(pub(super) Value);

/// What a caller sees whose call takes effect late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// Nothing, until it is answered.
    Waits,
    /// Its connection is cut at once.
    Cut,
}

impl Fault {
    fn new(action: &str, kind: &str) -> Self {
        Self(json!({ "action": action, "kind": kind }))
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0[name] = value.into();
        self
    }

    /// Throttled, in the service's own way. The action `*` is any.
    pub(crate) fn throttle(action: &str) -> Self {
        Self::new(action, "throttle")
    }

    /// No room, said at once: `ClientException`.
    pub(crate) fn capacity() -> Self {
        Self::new("RunTask", "capacity")
    }

    /// RunTask succeeds with no task and this reason among its `failures`.
    pub(crate) fn failure(reason: &str) -> Self {
        Self::new("RunTask", "failure").with("reason", reason)
    }

    /// The launch is executed, and its answer names neither a machine nor a failure.
    pub(crate) fn neither(action: &str) -> Self {
        Self::new(action, "neither")
    }

    /// Not allowed, whatever the policy says.
    pub(crate) fn denied(action: &str) -> Self {
        Self::new(action, "denied")
    }

    /// Any other error.
    pub(crate) fn error(action: &str, status: u16, code: &str, message: &str) -> Self {
        let fault = Self::new(action, "error").with("status", status);
        fault.with("code", code).with("message", message)
    }

    /// The connection is cut before the call is executed.
    pub(crate) fn lost_call(action: &str) -> Self {
        Self::new(action, "close_before")
    }

    /// The connection is cut after the call was executed.
    pub(crate) fn lost_answer(action: &str) -> Self {
        Self::new(action, "close_after")
    }

    /// The call is executed only after a while, even if its caller is gone by then.
    pub(crate) fn delayed(action: &str, by: Duration, meanwhile: Meanwhile) -> Self {
        let answer = match meanwhile {
            Meanwhile::Waits => "hang",
            Meanwhile::Cut => "cut",
        };
        let fault = Self::new(action, "delay").with("seconds", by.as_secs_f64());
        fault.with("answer", answer)
    }

    /// The call is executed at once and answered late.
    pub(crate) fn slow(action: &str, by: Duration) -> Self {
        Self::new(action, "slow").with("seconds", by.as_secs_f64())
    }

    /// So many calls are executed at once, and answered when the last of them has come.
    pub(crate) fn gathered(action: &str, count: usize) -> Self {
        let fault = Self::new(action, "gather").with("count", count);
        fault.with("times", count)
    }

    /// Meets so many calls.
    #[must_use]
    pub(crate) fn times(self, times: u32) -> Self {
        self.with("times", times)
    }

    /// Meets every call.
    #[must_use]
    pub(crate) fn forever(self) -> Self {
        self.with("times", Value::Null)
    }

    /// Spares so many calls first.
    #[must_use]
    pub(crate) fn skip(self, calls: u32) -> Self {
        self.with("skip", calls)
    }

    /// Meets only calls whose parameter (a path with dots) holds the text in its JSON.
    #[must_use]
    pub(crate) fn matching(mut self, parameter: &str, text: &str) -> Self {
        self.0["match"][parameter] = text.into();
        self
    }
}

/// What becomes of one of the next tasks, in the order of the calls; or, at once, of one that is there.
#[derive(Clone, Debug)]
pub(crate) struct Fate(pub(super) Value);

impl Fate {
    fn new(kind: &str) -> Self {
        Self(json!({ "kind": kind }))
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0[name] = value.into();
        self
    }

    /// An ordinary life, before a later task meets with something.
    pub(crate) fn ordinary() -> Self {
        Self::new("none")
    }

    /// Never leaves the state.
    pub(crate) fn stuck(at: &str) -> Self {
        Self::new("stuck").with("at", at)
    }

    /// Is stopped by ECS in the state.
    pub(crate) fn stopped(at: &str, stop_code: &str, reason: &str) -> Self {
        let fate = Self::new("stop").with("at", at);
        fate.with("stop_code", stop_code).with("reason", reason)
    }

    /// Fails to come up, with this reason of the task and its container.
    pub(crate) fn failed_to_start(reason: &str) -> Self {
        Self::stopped("PENDING", "TaskFailedToStart", reason).container_reason(reason)
    }

    /// Its container ends as soon as it has started.
    pub(crate) fn exits_at_once(code: i32) -> Self {
        Self::new("exit").with("code", code)
    }

    /// Its container is killed for want of memory, so long after its start.
    pub(crate) fn out_of_memory(after: Duration) -> Self {
        Self::new("oom").after(after)
    }

    /// Spot takes it, so long after its start: SIGTERM for process 1, then the end.
    pub(crate) fn spot_interruption(after: Duration) -> Self {
        Self::new("spot").after(after)
    }

    /// Somebody stops it, so long after its start.
    pub(crate) fn stopped_by_someone(after: Duration, reason: &str) -> Self {
        Self::new("someone").after(after).with("reason", reason)
    }

    /// Comes so long after the task has reached the state.
    #[must_use]
    pub(crate) fn after(self, after: Duration) -> Self {
        self.with("after", after.as_secs_f64())
    }

    /// Gives the container that reason.
    #[must_use]
    pub(crate) fn container_reason(self, reason: &str) -> Self {
        self.with("container_reason", reason)
    }

    /// Is that of so many tasks.
    #[must_use]
    pub(crate) fn times(self, times: u32) -> Self {
        self.with("times", times)
    }

    /// Is that of every task.
    #[must_use]
    pub(crate) fn forever(self) -> Self {
        self.with("times", Value::Null)
    }

    /// Is only for tasks of that family.
    #[must_use]
    pub(crate) fn of_family(mut self, family: &str) -> Self {
        self.0["match"]["family"] = family.into();
        self
    }

    /// Is only for tasks of that capacity provider.
    #[must_use]
    pub(crate) fn on_provider(mut self, provider: &str) -> Self {
        self.0["match"]["provider"] = provider.into();
        self
    }
}
