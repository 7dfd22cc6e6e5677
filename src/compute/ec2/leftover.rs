//! What instances may leave behind, as `reap` deals with it, and which templates are still used. Pure, but for notes in the
//! state directory.

use std::time::{Duration, SystemTime};

use crate::state::Store;

/// What a leftover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A volume that belongs to no instance.
    Volume,
    /// A Spot request that still waits.
    SpotRequest,
    /// A launch template.
    Template,
}

/// Something that may be left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its name, where it has one.
    pub name: String,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl Leftover {
    /// Says what it is.
    #[must_use]
    pub fn described(&self) -> String {
        match self.kind {
            Kind::Volume => format!("the volume {}", self.id),
            Kind::SpotRequest => format!("the Spot request {}", self.id),
            Kind::Template => format!("the launch template {}", self.name),
        }
    }

    /// Returns whether it is older than that at a time; of what AWS says no time nobody knows.
    #[must_use]
    pub fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        let since = self.created.and_then(|at| now.duration_since(at).ok());
        since.is_some_and(|since| since > age)
    }
}

/// Notes that a template of the driver's own is needed here.
pub fn note_use(store: &Store, template: &str) {
    store.keep(&["template", template], &());
}

/// Whether a template of the driver's own was needed here within that time.
#[must_use]
pub fn was_used(store: &Store, template: &str, within: Duration) -> bool {
    store
        .recall::<()>(&["template", template], within)
        .is_some()
}
