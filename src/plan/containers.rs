//! The containers of a job on an instance: which ones it gets, and which images `[limits]` allows.

use std::time::Duration;

use crate::config::settings::{EcrLogin, Limits, Settings};
use crate::error::{Error, Kind, Result};
use crate::image::{self, Reference};
use crate::machine::local::LocalContainer;
use crate::runner::Call;
use crate::runner::containers::{Containers, Image, Service};
use crate::state::deadline::Deadline;

/// How much of a malformed image name a message repeats.
const SHOWN: usize = 200;

/// All the containers of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPlan {
    /// What the job asks for, with its credentials.
    pub job: Containers,
    /// The image of the job's own container.
    pub image: Image,
    /// Directories that the containers share with the machine, at the same path.
    pub shared: Vec<String>,
    /// Whether the containers are privileged.
    pub privileged: bool,
    /// Whether the job's own container gets the machine's docker socket.
    pub docker_socket: bool,
    /// Whose role logs in to ECR: the driver's or the instance's.
    pub ecr_login: EcrLogin,
    /// How long all services together may take to answer.
    pub services_timeout: Duration,
    /// The prefix of all names of containers and networks.
    pub names: String,
}

impl ContainerPlan {
    /// Plans the containers of a job on an instance; `None` if such jobs run without containers. Whether it may have its images was
    /// checked before.
    #[must_use]
    pub fn new(settings: &Settings, call: &Call) -> Option<Self> {
        let ec2 = settings.ec2.as_ref().filter(|ec2| ec2.container)?;
        let job = call.containers.clone();
        let usual = || ec2.container_image.as_deref().map(Image::named);
        Some(Self {
            image: job.image.clone().or_else(usual)?,
            shared: [&settings.builds_dir, &settings.cache_dir]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            privileged: ec2.privileged,
            docker_socket: ec2.docker_socket,
            ecr_login: ec2.ecr_login,
            services_timeout: ec2.services_timeout,
            names: format!("job-{}", call.identity.job_id),
            job,
        })
    }

    /// Returns the name of the job's own container.
    #[must_use]
    pub fn build(&self) -> String {
        format!("{}-build", self.names)
    }

    /// Returns the name of a service's container.
    #[must_use]
    pub fn service(&self, number: usize) -> String {
        format!("{}-service-{}", self.names, number + 1)
    }

    /// Returns the name of the job's network, if it has services.
    #[must_use]
    pub fn network(&self) -> Option<&str> {
        (!self.job.services.is_empty()).then_some(&*self.names)
    }

    /// Returns the host names of a service on the network: those of its image, and those that the job sets.
    #[must_use]
    pub fn aliases(service: &Service) -> Vec<String> {
        let mut all = image::aliases(&service.image.name);
        all.extend(service.aliases.iter().cloned());
        all
    }
}

/// Returns the container of a job on this host; `None` if such jobs run without one. Whether it may have its image was checked
/// before.
#[must_use]
pub fn on_this_host(settings: &Settings, call: &Call, until: Deadline) -> Option<LocalContainer> {
    let local = &settings.local;
    let usual = || local.container_image.as_deref().map(Image::named);
    let asked = call.containers.image.clone();
    let image = asked.or_else(usual).filter(|_| local.container)?;
    Some(LocalContainer {
        image: image.name,
        entrypoint: image.entrypoint,
        user: image.user,
        platform: image.platform,
        pull: image.pull_policy.first().map(|policy| {
            let word = match &**policy {
                "if-not-present" => "missing",
                other => other,
            };
            word.to_owned()
        }),
        agent: local.agent.clone(),
        until: until.unix(),
    })
}

/// Refuses an image that is not the one in the file and that no pattern of `[limits] images` fits.
///
/// # Errors
/// The message names the image, the key of the job that asks for it, and the bound.
pub fn allow_image(name: &str, key: &str, own: Option<&str>, limits: &Limits) -> Result<()> {
    let image = Reference::parse(name).map_err(|why| {
        let shown: String = name.chars().take(SHOWN).collect();
        Error::new(
            Kind::Limit,
            format!("the job asks for {shown:?} by {key}, which is no image's name: {why}"),
        )
        .hint(format!("Correct `{key}` in the job."))
    })?;
    match own == Some(name) {
        true => Ok(()),
        false => allow(name, &image, key, &limits.images),
    }
}

/// Refuses an image that no pattern of `[limits] images` fits.
fn allow(name: &str, image: &Reference, key: &str, patterns: &[String]) -> Result<()> {
    if patterns.iter().any(|pattern| image.fits(pattern)) {
        return Ok(());
    }
    let bound = if patterns.is_empty() {
        "allows none".to_owned()
    } else {
        format!("allows only {}", patterns.join(", "))
    };
    Err(Error::new(
        Kind::Limit,
        format!("the job asks for the image {name} by {key}, and [limits] images {bound}"),
    )
    .hint(format!(
        "Use another image in `{key}`, or have an administrator add a pattern to images under [limits]."
    )))
}
