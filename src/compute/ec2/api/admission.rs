//! EC2 Instance Connect: AWS itself vouches for the job's key, for a minute, to an instance whose user data hold none.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::compute::aws::Aws;
use crate::compute::aws::classify::Action;
use crate::compute::kind::{Admits, Refused};
use crate::error::{Error, Kind};
use crate::machine::Login;
use crate::machine::instance::InstanceRequest;
use crate::machine::verdict::Why;

/// For how long a key that was sent is relied on. AWS keeps it for 60 s, and the login that it is sent for may take 20.
const FRESH: Duration = Duration::from_secs(40);
/// One call, repeated within that time.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// How long the service may say that it does not know the instance, or not as a running one: its reads lag EC2's writes.
const LAG: Duration = Duration::from_secs(30);
/// Between two tries meanwhile.
const LAG_PAUSE: Duration = Duration::from_secs(1);

/// The way in for the job's key.
#[derive(Debug)]
pub struct Admission {
    aws: Aws,
    connect: aws_sdk_ec2instanceconnect::Client,
    instance: String,
    user: String,
    key: String,
    sent: Option<Instant>,
}

impl Admission {
    /// Makes that of a request; none where the key is in its user data.
    pub(super) fn new(
        aws: &Aws,
        request: &InstanceRequest,
        instance: &str,
        login: &Login,
    ) -> Option<Self> {
        let key = request.admitted.clone()?;
        let connect = aws_sdk_ec2instanceconnect::Client::from_conf(
            aws_sdk_ec2instanceconnect::config::Builder::from(&aws.config)
                .interceptor(aws.target.clone())
                .build(),
        );
        Some(Self {
            aws: aws.clone(),
            connect,
            instance: instance.to_owned(),
            user: login.user.clone(),
            key,
            sent: None,
        })
    }

    /// AWS answered, and not that it did it; the service has no such case so far.
    fn unsent(&self) -> Refused {
        let what = format!(
            "the job's key was not sent to the instance {}: EC2 Instance Connect does not say why",
            self.instance
        );
        Refused {
            error: Error::new(Kind::Launch, what).hint("Retry the job."),
            unanswered: false,
            hopeless: false,
        }
    }
}

impl Admits for Admission {
    /// Sends the key where the instance may not have it any more.
    async fn renew(&mut self, refused: bool) -> Result<(), Refused> {
        if !is_due(self.sent.map(|at| at.elapsed()), refused) {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            // AWS's minute may begin as soon as the call is on its way.
            let at = Instant::now();
            let call = async || {
                self.connect
                    .send_ssh_public_key()
                    .instance_id(&self.instance)
                    .instance_os_user(&self.user)
                    .ssh_public_key(&self.key)
                    .send()
                    .await
            };
            let answer = self.aws.call(Action::SendSshPublicKey, SEND_LIMIT, call);
            let verdict = match answer.await {
                Ok(answer) if answer.success() => {
                    self.sent = Some(at);
                    return Ok(());
                }
                Ok(_) => return Err(self.unsent()),
                Err(failure) => failure.verdict,
            };
            if verdict.why == Why::NotFound && began.elapsed() < LAG {
                sleep(LAG_PAUSE).await;
                continue;
            }
            let what = format!(
                "the job's key was not sent to the instance {}",
                self.instance
            );
            return Err(Refused {
                error: verdict.error(verdict.why.kind(), &what),
                unanswered: false,
                hopeless: verdict.why.is_final(),
            });
        }
    }
}

/// Whether the key has to be sent (again) before a login.
fn is_due(since: Option<Duration>, refused: bool) -> bool {
    refused || since.is_none_or(|since| since >= FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_again_once_it_is_old_or_was_refused() {
        let seconds = Duration::from_secs;
        assert!(is_due(None, false));
        assert!(!is_due(Some(seconds(0)), false));
        assert!(!is_due(Some(seconds(39)), false));
        assert!(is_due(Some(seconds(40)), false));
        assert!(is_due(Some(seconds(6)), true));
    }
}
