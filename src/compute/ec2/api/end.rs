//! TerminateInstances: for what a record names, and for whatever a bare intent may have started.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::Api;
use super::launch::{Replayed, replay};
use crate::compute::aws::LAG;
use crate::compute::aws::classify::Action;
use crate::error::Result;
use crate::machine::instance::InstanceRequest;
use crate::machine::verdict::Why;

/// How long AWS is asked before what is known stays for the next `cleanup` or `reap`.
const END_LIMIT: Duration = Duration::from_secs(90);

impl Api {
    /// Ends an instance. One that has ended, or that nobody knows, is as good. One that ended long ago takes a few seconds more,
    /// which nobody waits for.
    ///
    /// # Errors
    /// Where it may still be alive.
    pub async fn terminate(&self, instance: &str) -> Result<()> {
        let mut pauses = LAG.iter();
        loop {
            let call = async || {
                self.ec2
                    .terminate_instances()
                    .instance_ids(instance)
                    .send()
                    .await
            };
            let Err(failure) = self
                .aws
                .call(Action::TerminateInstances, END_LIMIT, call)
                .await
            else {
                return Ok(());
            };
            if failure.verdict.why != Why::NotFound {
                return Err(failure.verdict.error(
                    failure.verdict.why.kind(),
                    &format!("the instance {instance} could not be terminated and may still run"),
                ));
            }
            match pauses.next() {
                Some(pause) => sleep(*pause).await,
                None => return Ok(()),
            }
        }
    }

    /// Ends whatever a request has started: the same request with the same token names the instance of an answer that was
    /// lost or is still on its way, or starts one that can then be ended; and what carries the token as its tag is looked for.
    ///
    /// # Errors
    /// Where something of it may still be alive.
    pub(super) async fn end_asked(&self, request: &InstanceRequest) -> Result<()> {
        let replayed = replay(self, request, END_LIMIT).await;
        let mut all = BTreeSet::new();
        if let Ok(Replayed::Instances(ids)) = &replayed {
            all.extend(ids.iter().cloned());
        }
        let mut found = self.of_launch(&request.token).await;
        // Something was started by the token, and only its tag can name it.
        if let Ok(Replayed::Conflict) = replayed {
            for pause in LAG {
                if !matches!(&found, Ok(none) if none.is_empty()) {
                    break;
                }
                sleep(pause).await;
                found = self.of_launch(&request.token).await;
            }
        }
        if let Ok(found) = &found {
            all.extend(found.iter().map(|i| i.id.clone()));
        }
        let mut done = Ok(());
        for instance in &all {
            done = done.and(self.terminate(instance).await);
        }
        // Whatever could not be asked may hide one more.
        done.and(replayed.map(drop)).and(found.map(drop))
    }
}
