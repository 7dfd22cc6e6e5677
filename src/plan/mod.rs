//! Makes the plan of a job: from what the administrator allows and the job asks for, a request for each rung. Pure.

pub mod containers;
mod instance;
pub mod overwrites;
pub mod profile;
pub mod user_data;

use std::time::Duration;

use crate::config::overrides::Overrides;
use crate::config::settings::{Fargate, Rung, Settings, Style};
use crate::error::{Error, Kind, Result};
use crate::hash;
use crate::machine::access::{Access, Role};
use crate::machine::instance::Market;
use crate::machine::local::LocalRequest;
use crate::machine::tags::{self, Owner};
use crate::machine::task::{Capacity, TaskRequest};
use crate::machine::{Login, Request, proof};
use crate::runner::Call;
use crate::state::deadline::Deadline;
use crate::ui::Ui;
use containers::ContainerPlan;
use instance::Common;
use overwrites::{Overwrites, Settled, SettledRole, SettledTask, settle};

pub use instance::access as access_to_instances;

/// The name of an assumed role's session, as CloudTrail shows it.
const SESSION_NAME: &str = "gitlab-aws-driver";

/// The input of a plan.
#[derive(Debug)]
pub struct PlanInput<'a> {
    /// The checked configuration.
    pub settings: &'a Settings,
    /// What GitLab Runner handed over.
    pub call: &'a Call,
    /// What the job overwrites.
    pub overwrites: &'a Overwrites,
    /// The flags that override the configuration.
    pub overrides: &'a Overrides,
    /// The name by which everything that this bastion launches is marked.
    pub manager: &'a str,
    /// The job's public key, as an OpenSSH line.
    pub public_key: String,
    /// The time after which nothing of the job may live.
    pub until: Deadline,
    /// Whether this build can launch instances.
    pub instances: bool,
    /// The job log.
    pub ui: Ui,
}

/// Where a job may run, rung by rung.
#[derive(Debug)]
pub struct Plan {
    /// The rungs, in order.
    pub steps: Vec<Step>,
    /// How long one rung may keep a task waiting.
    pub rung_wait: Duration,
    /// The containers that the job runs in, if it runs on an instance.
    pub containers: Option<ContainerPlan>,
    manager: String,
    key: String,
    attempt: String,
    common: Common,
}

/// The parts of a request that differ from launch to launch.
pub struct Attempt {
    /// The number of the launch in this attempt of `prepare`.
    pub number: usize,
    /// Whether the role lacks the permission to tag tasks.
    pub untagged: bool,
    /// The private half of a host key that no other machine has, in OpenSSH's format.
    pub host_key: String,
    /// The public half, as an OpenSSH line.
    pub host_key_line: String,
    /// How long the machine may live.
    pub lifetime: Duration,
}

/// One rung, and the request for it.
#[derive(Debug)]
pub struct Step {
    /// The rung as the file names it.
    pub name: String,
    /// Whether it is only used if the one before it cannot be used at all.
    pub fallback: bool,
    /// The login to its machines.
    pub login: Login,
    template: Request,
}

impl Step {
    /// Returns the image of the container that is the machine, on this host.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        match &self.template {
            Request::Local(request) => Some(&request.container.as_ref()?.image),
            Request::Ecs(_) | Request::Ec2(_) => None,
        }
    }

    /// Returns a name for the rung's capacity: the same for all jobs that use the same capacity.
    #[must_use]
    pub fn capacity(&self) -> Option<String> {
        self.template.capacity()
    }
}

impl Plan {
    /// Returns the request of a rung; each launch of an attempt has a number, and so a token, of its own.
    ///
    /// # Errors
    /// If the user data of a machine cannot be written.
    pub fn request(&self, step: usize, attempt: &Attempt) -> Result<Request> {
        let number = attempt.number.to_string();
        let parts = [&*self.manager, &*self.key, &*self.attempt, &*number];
        Ok(match &self.steps[step].template {
            Request::Local(request) => Request::Local(request.clone()),
            Request::Ecs(request) => Request::Ecs(match attempt.untagged {
                true => Box::new(request.without_tags(tags::client_token(&parts))),
                false => {
                    let token = proof::token(&parts, &request.tags);
                    Box::new(TaskRequest {
                        tags: proof::sealed(&token, &request.tags),
                        token,
                        ..(**request).clone()
                    })
                }
            }),
            Request::Ec2(request) => {
                let token = proof::token(&parts, &request.tags);
                let request = instance::launch(request, &self.common, token, attempt)?;
                Request::Ec2(Box::new(request))
            }
        })
    }

    /// Returns the name of the note that a cluster has no default strategy, for a rung that uses the default. Without the note each
    /// job would first ask in vain.
    #[must_use]
    pub fn if_default_is_missing(&self, step: usize) -> Option<String> {
        match &self.steps[step].template {
            Request::Ecs(request) if request.capacity == Capacity::ClusterDefault => {
                let region = request.access.region.as_deref().unwrap_or_default();
                let cluster = request.cluster.as_deref().unwrap_or_default();
                let hash = hash::sha256_hex(format!("{region} {cluster}").as_bytes());
                Some(format!("no-default-strategy-{hash}"))
            }
            _ => None,
        }
    }
}

/// Makes the plan of a job.
///
/// # Errors
/// If the job asks for something that no rung has, or the settings lack something that a rung needs.
pub fn plan(input: &PlanInput<'_>) -> Result<Plan> {
    let settings = input.settings;
    let payload = &input.call.payload;
    if settings.capacity == [Rung::Local] {
        settle(settings, input.overrides, input.overwrites)?;
        let request = input.local_request()?;
        return Ok(input.with(vec![Step {
            name: Rung::Local.to_string(),
            fallback: false,
            login: login((&settings.ssh.username, settings.ssh.port)),
            template: Request::Local(request),
        }]));
    }
    warn_of_ignored_images(input);
    let settled = settle(settings, input.overrides, input.overwrites)?;
    for (rung, why) in &settled.left_out {
        input.ui.progress(&format!("{rung} is left out: {why}."));
    }
    if let Some(doubt) = &settled.doubt {
        input
            .ui
            .warn(&format!("{doubt}; AWS is asked for it all the same"));
    }
    if let Some(told) = input.overwrites.left_out_of_session(settings, &settled) {
        input.ui.warn(&told);
    }
    let containers = match settled.rungs.iter().any(Rung::is_instance) {
        true => ContainerPlan::new(settings, input.call),
        false => None,
    };
    let mut steps = Vec::new();
    for rung in &settled.rungs {
        let capacity = match rung {
            Rung::FargateSpot => Capacity::fargate_spot(),
            Rung::Fargate => Capacity::LaunchTypeFargate,
            Rung::Ecs(provider) => Capacity::Provider(provider.clone()),
            Rung::Ec2Spot => {
                steps.push(input.instance_step(&settled, rung, Market::Spot)?);
                continue;
            }
            Rung::Ec2 => {
                steps.push(input.instance_step(&settled, rung, Market::OnDemand)?);
                continue;
            }
            Rung::Local => {
                return Err(
                    Error::new(Kind::Config, "the rung local cannot stand beside others")
                        .hint("Take it out of capacity."),
                );
            }
        };
        steps.push(input.step(&settled, rung.to_string(), false, capacity)?);
    }
    // A file of the Go driver: the cluster's default strategy decides, as with that driver; if it has none, plain Fargate.
    if steps.is_empty() {
        let name = "the cluster's default".to_owned();
        steps.push(input.step(&settled, name, false, Capacity::ClusterDefault)?);
        let name = Rung::Fargate.to_string();
        steps.push(input.step(&settled, name, true, Capacity::LaunchTypeFargate)?);
    }
    tracing::debug!(job = payload.id, steps = steps.len(), "planned");
    Ok(Plan {
        containers,
        ..input.with(steps)
    })
}

impl PlanInput<'_> {
    fn with(&self, steps: Vec<Step>) -> Plan {
        Plan {
            steps,
            rung_wait: self.settings.rung_wait,
            containers: None,
            manager: self.manager.to_owned(),
            key: self.call.identity.key.clone(),
            attempt: self.call.attempt.clone(),
            common: Common {
                login: self.settings.login_of_instances().0.to_owned(),
                public_key: self.public_key.clone(),
                directories: [&self.settings.builds_dir, &self.settings.cache_dir]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            },
        }
    }

    /// Returns the request of a machine on this host.
    fn local_request(&self) -> Result<LocalRequest> {
        let settings = self.settings;
        let token = hash::random_hex()
            .map_err(|e| Error::new(Kind::Launch, "no randomness to be had").because(e))?;
        Ok(LocalRequest {
            token,
            command: settings.local.command.clone(),
            port: settings.ssh.port,
            user: settings.ssh.username.clone(),
            public_key: self.public_key.clone(),
            container: containers::on_this_host(settings, self.call, self.until).map(Box::new),
        })
    }

    fn instance_step(&self, settled: &Settled, rung: &Rung, market: Market) -> Result<Step> {
        if !self.instances {
            return Err(Error::new(
                Kind::NotYet,
                format!("this build cannot run jobs on the rung {rung}: it was made without the feature ec2"),
            )
            .hint("Use the packaged driver, or take the rung out of capacity."));
        }
        let Some(instance) = &settled.instance else {
            return Err(no_settings_for(&rung.to_string()));
        };
        let request = self.instance_request(instance, market)?;
        Ok(Step {
            name: rung.to_string(),
            fallback: false,
            login: login(self.settings.login_of_instances()),
            template: Request::Ec2(Box::new(request)),
        })
    }

    fn step(
        &self,
        settled: &Settled,
        name: String,
        fallback: bool,
        capacity: Capacity,
    ) -> Result<Step> {
        let Some(task) = &settled.task else {
            return Err(no_settings_for(&name));
        };
        let request = self.task_request(task, capacity)?;
        Ok(Step {
            name,
            fallback,
            login: login(self.settings.login_of_tasks()),
            template: Request::Ecs(Box::new(request)),
        })
    }

    fn task_request(&self, settled: &SettledTask, capacity: Capacity) -> Result<TaskRequest> {
        if let Some(problem) = self.settings.fargate_problem() {
            return Err(problem);
        }
        let fargate = self.settings.fargate.clone().unwrap_or_default();
        // Without a public address the driver cannot connect to one, whatever use_public_ip says.
        let dial_public = fargate.enable_public_ip && fargate.use_public_ip.unwrap_or(true);
        let size = match capacity.takes_fargate_settings() {
            true => settled.on_fargate,
            false => settled.elsewhere,
        };
        Ok(TaskRequest {
            access: access(&fargate, settled.role.as_ref()),
            cluster: fargate.cluster.clone(),
            task_definition: settled.task_definition.clone(),
            capacity,
            subnets: fargate.subnets.clone(),
            security_groups: fargate.security_groups.clone(),
            public_ip: fargate.enable_public_ip,
            dial_public,
            platform_version: settled.platform_version.clone(),
            execute_command: fargate.enable_execute_command,
            container: fargate.container.clone(),
            environment: vec![("SSH_PUBLIC_KEY".to_owned(), self.public_key.clone())],
            started_by: tags::started_by(self.manager),
            token: String::new(),
            tags: self.tags(),
            propagate_tags: fargate.propagate_tags,
            size,
            asked: 0,
        })
    }

    fn tags(&self) -> Vec<(String, String)> {
        let payload = &self.call.payload;
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let owner = Owner {
            fleet: &self.settings.fleet,
            manager: self.manager,
            runner: &self.call.identity.runner,
            project: payload.project_path.as_deref().unwrap_or_default(),
            pipeline: &number(payload.pipeline_id),
            job: &self.call.identity.job_id.to_string(),
            job_name: payload.job_name.as_deref().unwrap_or_default(),
            key: &self.call.identity.key,
            until: Some(self.until.unix()),
        };
        tags::all(&owner, &self.settings.tags).tags
    }
}

fn login((user, port): (&str, u16)) -> Login {
    Login {
        user: user.to_owned(),
        port,
    }
}

fn no_settings_for(name: &str) -> Error {
    Error::new(
        Kind::Bug,
        format!("nothing is settled about the machines of {name}"),
    )
}

/// Returns where calls about tasks go, and as whom.
#[must_use]
pub fn access(fargate: &Fargate, role: Option<&SettledRole>) -> Access {
    Access {
        region: fargate.region.clone(),
        role: role.map(|role| Role {
            arn: role.arn.clone(),
            session_name: tags::session_name(SESSION_NAME),
            tags: role.tags.clone(),
        }),
    }
}

/// The Go driver ignored `image:` and `services:`, so its users' pipelines have them: with its file they are still ignored,
/// but not in silence. With a new file they are overwrites like others.
fn warn_of_ignored_images(input: &PlanInput<'_>) {
    if input.settings.style != Style::GoDriver {
        return;
    }
    let payload = &input.call.payload;
    let image = payload
        .image
        .iter()
        .map(|image| format!("image {}", image.name));
    let services = payload
        .services
        .iter()
        .map(|s| format!("service {}", s.image.name));
    if let Some(what) = image.chain(services).next() {
        input.ui.warn(&format!(
            "the job asks for the {what}, which is ignored, as by the Go driver: it runs in its task definition's own image"
        ));
    }
}
