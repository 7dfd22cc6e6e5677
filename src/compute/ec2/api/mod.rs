//! Instances, in a build that can call EC2.

mod address;
mod admission;
mod coming;
mod describe;
mod end;
mod ended;
mod fleet;
mod launch;
mod list;
mod made;
mod pools;
mod registry;
mod request;
mod settle;
mod sweep;
mod template;
mod watch;

use std::time::Duration;

use tokio::sync::Notify;

use crate::compute::aws::Aws;
use crate::compute::kind::{Launched, MachineKind, Refused, Settled};
use crate::error::Error;
use crate::machine::Login;
use crate::machine::access::Access;
use crate::machine::instance::{Ec2Place, InstanceRequest};
use crate::runner::containers::Secret;
use crate::state::shared::Shared;
use crate::state::{Job, Store};
use crate::ui::Ui;
pub use address::PublicAddresses;
use coming::Coming;

/// The way to EC2 for one role and region.
#[derive(Clone, Debug)]
pub struct Api {
    aws: Aws,
    ec2: aws_sdk_ec2::Client,
}

impl Api {
    async fn new(access: &Access, ui: Option<Ui>, shared: &Shared) -> Self {
        let aws = Aws::new(access, ui, shared).await;
        Self {
            ec2: ec2(&aws),
            aws,
        }
    }

    /// Makes the client, where this build has one; AWS is not called yet.
    pub async fn open(access: &Access, ui: Ui, shared: &Shared) -> Option<Self> {
        Some(Self::new(access, Some(ui), shared).await)
    }

    /// Returns by how many seconds this host's clock is ahead of AWS's; nothing while no answer has said a time.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.aws.clock_ahead()
    }
}

/// Makes EC2's client.
fn ec2(aws: &Aws) -> aws_sdk_ec2::Client {
    aws_sdk_ec2::Client::from_conf(
        aws_sdk_ec2::config::Builder::from(&aws.config)
            .interceptor(aws.date.clone())
            .interceptor(aws.target.clone())
            .build(),
    )
}

/// EC2 instances.
#[derive(Debug)]
pub enum Instances {}

impl MachineKind for Instances {
    type Request = InstanceRequest;
    type Place = Ec2Place;
    type Coming = Coming;

    async fn settle(
        request: &mut InstanceRequest,
        store: &Store,
        ui: Ui,
    ) -> Result<Settled, Refused> {
        let api = Api::new(&request.access, Some(ui), &store.shared()).await;
        settle::settle(&api, request, store).await
    }

    async fn launch(
        request: &InstanceRequest,
        _job: &Job,
        login: &Login,
        rung_wait: Duration,
        store: &Store,
        ui: Ui,
    ) -> Result<Launched<Coming>, Refused> {
        let api = Api::new(&request.access, Some(ui), &store.shared()).await;
        let launched = launch::launch(&api, request, store).await?;
        if let Launched::Coming((_, surplus)) = &launched {
            for other in surplus {
                if let Err(error) = api.terminate(other).await {
                    ui.warn(&format!("{error}; `reap` will try again"));
                }
            }
        }
        Ok(launched.map(|(id, _)| Coming::new(api, request, id, login.clone(), rung_wait)))
    }

    async fn withdraw(request: &InstanceRequest, store: &Store, ui: Ui) {
        let api = Api::new(&request.access, Some(ui), &store.shared()).await;
        made::withdraw(&api, request, store).await;
    }

    async fn end_launch(
        request: &InstanceRequest,
        name: Option<&str>,
        _reason: &str,
        shared: &Shared,
        ui: Ui,
    ) -> Result<(), Error> {
        let api = Api::new(&request.access, Some(ui), shared).await;
        match name {
            Some(instance) => api.terminate(instance).await,
            None => api.end_asked(request).await,
        }
    }

    async fn end_machine(
        place: &Ec2Place,
        _reason: &str,
        shared: &Shared,
        ui: Ui,
    ) -> Result<(), Error> {
        let api = Api::new(&place.access, Some(ui), shared).await;
        api.terminate(&place.instance).await
    }

    async fn gone(place: &Ec2Place, lost: &Notify, shared: &Shared) -> Error {
        watch::gone(place, lost, shared).await
    }

    async fn registry_token(
        place: &Ec2Place,
        region: &str,
        shared: &Shared,
        ui: Ui,
    ) -> Result<Secret, Error> {
        registry::token(&place.access, region, shared, ui).await
    }
}
