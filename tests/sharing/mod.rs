//! What the jobs of one bastion share: the budget of calls, the poller, what they know of rungs.

mod crowd;
mod damage;
mod rungs;

use std::path::Path;
use std::sync::Arc;

use crate::lab::aws::Account;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;

/// Returns a job of a bastion, on the lightest machine.
fn job(account: &Arc<Account>, state: &Path) -> RunnerBuilder {
    Runner::builder()
        .machine(ServerBuilder::new(Kind::Own, Login::Dash))
        .on_account(account)
        .state_directory(state)
}

/// Returns all files below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => files(&path),
        path => vec![path],
    });
    below.collect()
}
