//! Where the jobs of a test run: what holds of scripts holds everywhere, and its tests are run everywhere.

use super::images;
use super::runner::Runner;
use super::runner::RunnerBuilder;
use super::traces::long;

/// Where the jobs of a test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On machines that are processes of this host.
    Here,
    /// On Fargate tasks.
    Task,
    /// On EC2 instances.
    Instance,
    /// In containers of this host's docker, by the agent.
    Container,
}

impl Place {
    /// Returns an ordinary job there.
    pub(crate) fn job(self) -> RunnerBuilder {
        match self {
            Self::Here => Runner::builder(),
            Self::Task => Runner::builder().on_fargate(),
            Self::Instance => Runner::builder().on_ec2(),
            Self::Container => Runner::builder().in_container(images::debian),
        }
    }

    /// Tells whether every variation shall be gone through: in the short form the second place is only shown to be
    /// no different.
    pub(crate) fn thorough(self) -> bool {
        self == Self::Here || long()
    }

    /// Tells whether the agent is what serves there.
    pub(crate) fn has_the_agent(self) -> bool {
        self == Self::Container
    }

    /// Tells, also the reader of the test's output, that a test is left out of the short form: it takes half a minute of
    /// waiting to show once more what no place can change.
    pub(crate) fn leaves_out(self) -> bool {
        if !self.thorough() {
            eprintln!("left out on {self:?}: GAD_LONG=1 runs it");
        }
        !self.thorough()
    }

    /// Returns the first so many of several variations, or all of them.
    pub(crate) fn some<T>(self, all: impl IntoIterator<Item = T>, count: usize) -> Vec<T> {
        let count = if self.thorough() { usize::MAX } else { count };
        all.into_iter().take(count).collect()
    }
}
