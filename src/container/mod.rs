//! A job inside a container of its image, on a machine with a `docker` command: what there shall be, the shell texts that
//! bring it about, and what to make of what docker says. Pure; `stage::containers` is the edge that runs them.

pub mod auth;
pub mod commands;
pub mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use auth::Login;

use crate::config::settings::EcrLogin;
use crate::plan::containers::ContainerPlan;
use crate::runner::containers::Secret;

/// What logs in to ECR, by region, as docker's configuration has it.
pub type Tokens = BTreeMap<String, Secret>;

impl ContainerPlan {
    /// Returns the regions of ECR for which the driver has to have a token, so that all images can be pulled.
    #[must_use]
    pub fn token_regions(&self) -> BTreeSet<String> {
        if self.ecr_login != EcrLogin::Driver {
            return BTreeSet::new();
        }
        let services = self.job.services.iter().map(|service| &service.image);
        let images = services.chain([&self.image]);
        let images = images.filter(|image| image.pull_policy != ["never"]);
        let logins = images.map(|image| auth::login(&image.name, &self.job));
        let regions = logins.filter_map(|login| match login {
            Login::Ecr { region, .. } => Some(region),
            _ => None,
        });
        regions.collect()
    }
}

#[cfg(test)]
mod tests;
