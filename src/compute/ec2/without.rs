//! What stands in for EC2's calls in a build without the feature `ec2`: nothing that such a build starts needs them, but a
//! record of another build may.

/// Ending.
pub(in crate::compute) mod end {
    use crate::compute::aws::Aws;
    use crate::error::Result;
    use crate::machine::instance::InstanceRequest;

    /// Refuses.
    pub(in crate::compute) async fn terminate(_aws: &Aws, _instance: &str) -> Result<()> {
        Err(super::refused())
    }

    /// Refuses.
    pub(in crate::compute) async fn end_asked(
        _aws: &Aws,
        _request: &InstanceRequest,
    ) -> Result<()> {
        Err(super::refused())
    }
}

/// ECR.
pub(in crate::compute) mod registry {
    use crate::error::Result;
    use crate::machine::access::Access;
    use crate::runner::containers::Secret;
    use crate::state::shared::Shared;
    use crate::ui::Ui;

    /// Refuses.
    pub(in crate::compute) async fn token(
        _access: &Access,
        _region: &str,
        _shared: &Shared,
        _ui: Ui,
    ) -> Result<Secret> {
        Err(super::refused())
    }
}

/// Watching.
pub(in crate::compute) mod watch {
    use tokio::sync::Notify;

    use crate::error::Error;
    use crate::machine::instance::Ec2Place;
    use crate::state::shared::Shared;

    /// Never resolves: a lost connection has its own limit.
    pub(in crate::compute) async fn gone(
        _place: &Ec2Place,
        _lost: &Notify,
        _shared: &Shared,
    ) -> Error {
        std::future::pending().await
    }
}

use crate::error::{Error, Kind};

/// Builds the error for what this build cannot do.
pub(in crate::compute) fn refused() -> Error {
    Error::new(
        Kind::NotYet,
        "this build cannot deal with instances: it was made without the feature ec2",
    )
    .hint("Use the packaged driver.")
}
