//! The containers of a job on an instance: what there shall be, and which images `[limits]` lets a job have.

use std::time::Duration;

use crate::config::settings::{EcrLogin, Limits, Settings};
use crate::error::{Error, Kind, Result};
use crate::image::{self, Reference};
use crate::runner::Call;
use crate::runner::containers::{Containers, Image, Service};

/// The most of what is no name that is repeated in a message.
const SHOWN: usize = 200;

/// All the containers of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPlan {
    /// What the job said; credentials among it.
    pub job: Containers,
    /// The image of the job's own container.
    pub image: Image,
    /// Directories of the machine that the containers share with it, at the same path.
    pub shared: Vec<String>,
    /// Whether the containers may do what the machine may.
    pub privileged: bool,
    /// Whether the job's own container gets the machine's docker socket.
    pub docker_socket: bool,
    /// Whose role logs in to ECR.
    pub ecr_login: EcrLogin,
    /// How long its services, all together, may take to answer.
    pub services_timeout: Duration,
    /// What the names of all that is made begin with.
    pub names: String,
}

impl ContainerPlan {
    /// Plans the containers of a job on an instance; `None` where such jobs run in none. That it may have its images is
    /// settled before.
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

    /// Returns the name of the job's network, which it has where there is anybody to talk to.
    #[must_use]
    pub fn network(&self) -> Option<&str> {
        (!self.job.services.is_empty()).then_some(&*self.names)
    }

    /// Returns the names under which a service is known on the network: of its image, and what the job gives it.
    #[must_use]
    pub fn aliases(service: &Service) -> Vec<String> {
        let mut all = image::aliases(&service.image.name);
        all.extend(service.aliases.iter().cloned());
        all
    }
}

/// Refuses an image that is not the file's own and that no pattern of `[limits] images` fits.
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
