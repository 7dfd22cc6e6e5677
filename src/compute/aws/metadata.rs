//! What an instance's own metadata service says: which instance this host is, where its firmware does not tell.

use std::time::Duration;

use aws_config::imds::Client;

use crate::host::{self, Host, Seen};

/// One connection: the service is on the same host, or nowhere.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// All that is asked, by a host that is busy.
const LIMIT: Duration = Duration::from_secs(3);

/// Whether this host's metadata service may be asked, as AWS's own tools are told by a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// It may.
    Asked,
    /// `AWS_EC2_METADATA_DISABLED` says that it may not.
    Disabled,
}

impl Metadata {
    /// The variable that says it.
    pub const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";

    /// Reads the variable's value.
    #[must_use]
    pub fn read(disabled: Option<&str>) -> Self {
        match disabled {
            Some(value) if value.eq_ignore_ascii_case("true") => Self::Disabled,
            _ => Self::Asked,
        }
    }

    /// Returns which host this is.
    pub async fn this_host(self) -> Host {
        match (host::look(), self) {
            (Seen::Known(host), _) | (Seen::Instance(host), Self::Disabled) => host,
            (Seen::Instance(otherwise), Self::Asked) => instance_id()
                .await
                .map_or(otherwise, |id| Host::instance(&id)),
        }
    }
}

async fn instance_id() -> Option<String> {
    let client = Client::builder()
        .max_attempts(1)
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(LIMIT)
        .operation_attempt_timeout(LIMIT)
        .operation_timeout(LIMIT)
        .build();
    let id = client.get("/latest/meta-data/instance-id").await.ok()?;
    let id = id.as_ref().trim().to_ascii_lowercase();
    host::is_instance_id(&id).then_some(id)
}
