//! The agent as the command of containers whose images know nothing of it, on a real docker engine: what it says where it can be
//! reached, and what there is to name where it cannot.

mod greets;
mod silent;

use crate::lab::docker::ContainerBuilder;
use crate::lab::docker::Docker;
use crate::lab::docker::Volume;
use crate::lab::launch::Launch;
use crate::lab::launch::installed;

/// Runs a test with an engine, a volume that holds the agent, and keys.
fn with_agent(image: impl Fn(&Docker) -> String, test: impl Fn(&Job<'_>)) {
    let docker = Docker::shared();
    let volume = installed(docker);
    test(&Job {
        launch: Launch::new(),
        image: image(docker),
        docker,
        volume: &volume,
    });
}

/// What a job's container is made of.
struct Job<'a> {
    docker: &'a Docker,
    volume: &'a Volume<'a>,
    image: String,
    launch: Launch,
}

impl<'a> Job<'a> {
    fn container(&self) -> ContainerBuilder<'a> {
        self.launch.container(self.docker, &self.image, self.volume)
    }
}
