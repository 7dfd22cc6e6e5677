//! What all processes of one bastion share, so that many jobs at once ask AWS no more often than it allows.
//!
//! Nothing in here is needed: what cannot be read or written is done without, and no job fails for it.

use std::path::PathBuf;

/// The part of the state directory that belongs to no job.
#[derive(Clone, Debug)]
pub struct Shared {
    directory: PathBuf,
}

impl Shared {
    /// Names the directory; nothing is touched yet.
    #[must_use]
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }
}
