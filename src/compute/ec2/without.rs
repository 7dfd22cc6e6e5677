//! Instances, in a build without the feature `ec2`: nothing that such a build launches is one, but a record of another build
//! may name one.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Notify;

use super::instance::{Instance, Phase};
use super::leftover::{Kind as LeftoverKind, Leftover};
use crate::compute::aws::Aws;
use crate::compute::kind::{ComingUp, Launched, MachineKind, News, Refused, Settled};
use crate::error::{Error, Kind};
use crate::machine::Login;
use crate::machine::access::Access;
use crate::machine::instance::{Ec2Place, InstanceRequest};
use crate::runner::containers::Secret;
use crate::state::shared::Shared;
use crate::state::{Job, Store};
use crate::ui::Ui;

/// The way to EC2: there is none.
#[derive(Clone, Debug)]
pub enum Api {}

impl Api {
    /// Returns nothing.
    pub async fn open(_access: &Access, _ui: Ui, _shared: &Shared) -> Option<Self> {
        None
    }

    /// Never called.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn of_fleet(&self, _fleet: &str) -> Result<Vec<Instance>, Error> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn phase_of(&self, _instance: &str) -> Result<Option<Phase>, Error> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn terminate(&self, _instance: &str) -> Result<(), Error> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn leftovers(
        &self,
        _kind: LeftoverKind,
        _fleet: &str,
    ) -> Result<Vec<Leftover>, Error> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn remove(&self, _leftover: &Leftover) -> Result<(), Error> {
        match *self {}
    }
}

/// Whoever knows public addresses of network interfaces: nobody.
#[derive(Debug)]
pub struct PublicAddresses;

impl PublicAddresses {
    /// Makes nothing.
    pub(in crate::compute) fn new(_aws: &Aws) -> Self {
        Self
    }

    /// Refuses.
    pub(in crate::compute) async fn of(&self, _interface: &str) -> Result<Option<String>, Error> {
        Err(Error::new(
            Kind::NotYet,
            "this build cannot find out public addresses: it was made without the feature ec2",
        )
        .hint("Use the packaged driver, or dial the private address: use_public_ip = false under [fargate]."))
    }
}

/// EC2 instances.
#[derive(Debug)]
pub enum Instances {}

/// An instance on its way up: never.
#[derive(Debug)]
pub enum Coming {}

impl MachineKind for Instances {
    type Request = InstanceRequest;
    type Place = Ec2Place;
    type Coming = Coming;

    const HERE: bool = false;

    async fn settle(
        _request: &mut InstanceRequest,
        _store: &Store,
        _ui: Ui,
    ) -> Result<Settled, Refused> {
        Err(refused().into())
    }

    async fn launch(
        _request: &InstanceRequest,
        _job: &Job,
        _login: &Login,
        _rung_wait: Duration,
        _store: &Store,
        _ui: Ui,
    ) -> Result<Launched<Coming>, Refused> {
        Err(refused().into())
    }

    /// This build makes no template.
    async fn withdraw(_request: &InstanceRequest, _store: &Store, _ui: Ui) {}

    async fn end_launch(
        _request: &InstanceRequest,
        _name: Option<&str>,
        _reason: &str,
        _shared: &Shared,
        _ui: Ui,
    ) -> Result<(), Error> {
        Err(refused())
    }

    async fn end_machine(
        _place: &Ec2Place,
        _reason: &str,
        _shared: &Shared,
        _ui: Ui,
    ) -> Result<(), Error> {
        Err(refused())
    }

    /// Never resolves: a lost connection has its own limit.
    async fn gone(_place: &Ec2Place, _lost: &Notify, _shared: &Shared) -> Error {
        std::future::pending().await
    }

    async fn registry_token(
        _place: &Ec2Place,
        _region: &str,
        _shared: &Shared,
        _ui: Ui,
    ) -> Result<Secret, Error> {
        Err(refused())
    }
}

impl ComingUp for Coming {
    type Admission = Infallible;

    fn name(&self) -> Option<&str> {
        match *self {}
    }

    fn admission(&mut self) -> Option<Infallible> {
        match *self {}
    }

    fn entered(&mut self) {
        match *self {}
    }

    async fn next(&mut self) -> Result<News, Error> {
        match *self {}
    }
}

/// Builds the error for what this build cannot do.
fn refused() -> Error {
    Error::new(
        Kind::NotYet,
        "this build cannot deal with instances: it was made without the feature ec2",
    )
    .hint("Use the packaged driver.")
}
