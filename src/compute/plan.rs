//! From what the administrator allows and the job asks for to the requests that a ladder may send. Pure.

use std::time::{Duration, SystemTime};

use super::aws::access::{Access, Role};
use super::aws::tags::{self, Owner};
use super::fargate::request::{Capacity, TaskRequest};
use super::local::LocalRequest;
use super::{Login, Request};
use crate::cli::Overrides;
use crate::config::settings::{Fargate, Rung, Settings, Style};
use crate::error::{Error, Kind, Result};
use crate::hash;
use crate::runner::wishes::{Settled, SettledRole, settle};
use crate::runner::{Call, profile};
use crate::ui::Ui;

/// What CloudTrail shows of a session of an assumed role.
const SESSION_NAME: &str = "gitlab-aws-driver";

/// All that a plan is made of.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The checked configuration.
    pub settings: &'a Settings,
    /// What GitLab Runner said.
    pub call: &'a Call,
    /// What the command line says in place of the configuration.
    pub overrides: &'a Overrides,
    /// The name that all this bastion launches carries.
    pub manager: &'a str,
    /// The job's public key, as an OpenSSH line.
    pub public_key: String,
    /// When nothing of the job may live any more.
    pub deadline: SystemTime,
    /// The job log.
    pub ui: Ui,
}

/// Where a job may run, rung by rung.
#[derive(Debug)]
pub struct Plan {
    /// The rungs, in order.
    pub steps: Vec<Step>,
    /// How the machines are logged in to.
    pub login: Login,
    /// How long one rung may keep a task waiting.
    pub rung_wait: Duration,
    manager: String,
    key: String,
    attempt: String,
}

/// One rung, and what would be asked for on it.
#[derive(Debug)]
pub struct Step {
    /// The rung as the file names it.
    pub name: String,
    /// Whether it is only there for the case that the one before it cannot be used at all.
    pub fallback: bool,
    template: Request,
}

impl Plan {
    /// Returns the request of a rung; each launch of an attempt has a number, and so a token, of its own.
    #[must_use]
    pub fn request(&self, step: usize, number: usize, untagged: bool) -> Request {
        match &self.steps[step].template {
            Request::Local(request) => Request::Local(request.clone()),
            Request::Ecs(request) => {
                let number = number.to_string();
                let token = tags::client_token(&[&self.manager, &self.key, &self.attempt, &number]);
                Request::Ecs(match untagged {
                    true => Box::new(request.without_tags(token)),
                    false => Box::new(TaskRequest {
                        token,
                        ..(**request).clone()
                    }),
                })
            }
        }
    }

    /// Returns the note under which it stands that a cluster has no default strategy, for a rung that asks for it: without
    /// one each job would ask in vain first.
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

/// Makes the plan of a job, or says what this version cannot do.
///
/// # Errors
/// Where the job asks for what no rung has, or the settings lack what a rung needs.
pub fn plan(asked: &Asked<'_>) -> Result<Plan> {
    let settings = asked.settings;
    let payload = &asked.call.payload;
    if let Some(profile) = profile::first(settings, payload) {
        let name = &profile.name;
        return Err(Error::new(
            Kind::NotYet,
            format!("the profile {name:?} holds for this job, and this version does not apply profiles yet"),
        )
        .hint("Take the profile out of the configuration, or send this job to another runner by its tags."));
    }
    if settings.capacity == [Rung::Local] {
        refuse_images(asked)?;
        let request = LocalRequest::new(settings, asked.public_key.clone())?;
        return Ok(asked.with(vec![Step {
            name: Rung::Local.to_string(),
            fallback: false,
            template: Request::Local(request),
        }]));
    }
    heed_images(asked)?;
    let settled = settle(settings, asked.overrides, &asked.call.wishes)?;
    let mut steps = Vec::new();
    for rung in &settings.capacity {
        let capacity = match rung {
            Rung::FargateSpot => Capacity::fargate_spot(),
            Rung::Fargate => Capacity::LaunchTypeFargate,
            Rung::Ecs(provider) => Capacity::Provider(provider.clone()),
            Rung::Ec2Spot | Rung::Ec2 | Rung::Local => {
                return Err(Error::new(
                    Kind::NotYet,
                    format!("this version cannot run jobs on the rung {rung} yet"),
                )
                .hint("Take it out of capacity; fargate-spot, fargate and ecs:NAME work."));
            }
        };
        steps.push(asked.step(&settled, rung.to_string(), false, capacity)?);
    }
    // A Go-driver file: the cluster's own strategy decides, as it did, and where there is none plain Fargate.
    if steps.is_empty() {
        let name = "the cluster's default".to_owned();
        steps.push(asked.step(&settled, name, false, Capacity::ClusterDefault)?);
        let name = Rung::Fargate.to_string();
        steps.push(asked.step(&settled, name, true, Capacity::LaunchTypeFargate)?);
    }
    tracing::debug!(job = payload.id, steps = steps.len(), "planned");
    Ok(asked.with(steps))
}

impl Asked<'_> {
    fn with(&self, steps: Vec<Step>) -> Plan {
        let ssh = &self.settings.ssh;
        Plan {
            steps,
            login: Login {
                user: ssh.username.clone(),
                port: ssh.port,
            },
            rung_wait: self.settings.rung_wait,
            manager: self.manager.to_owned(),
            key: self.call.identity.key.clone(),
            attempt: self.call.attempt.clone(),
        }
    }

    fn step(
        &self,
        settled: &Settled,
        name: String,
        fallback: bool,
        capacity: Capacity,
    ) -> Result<Step> {
        let request = self.task_request(settled, capacity)?;
        Ok(Step {
            name,
            fallback,
            template: Request::Ecs(Box::new(request)),
        })
    }

    fn task_request(&self, settled: &Settled, capacity: Capacity) -> Result<TaskRequest> {
        if let Some(problem) = self.settings.fargate_problem() {
            return Err(problem);
        }
        let fargate = self.settings.fargate.clone().unwrap_or_default();
        // Without a public address there is none to dial, whatever use_public_ip says.
        let dial_public = fargate.enable_public_ip && fargate.use_public_ip.unwrap_or(true);
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
            deadline: Some(self.deadline),
        };
        tags::all(&owner, &self.settings.tags).tags
    }
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

/// `local` runs no images, and says so rather than ignore them.
fn refuse_images(asked: &Asked<'_>) -> Result<()> {
    match Wanted::first(asked) {
        None => Ok(()),
        Some(wanted) => Err(wanted.refuse(&format!("`local` runs no {}", wanted.kinds))),
    }
}

/// The Go driver ignored `image:` and `services:`, so its users' pipelines have them: with its file they are still ignored,
/// but not in silence. Whoever writes a new file learns it at once.
fn heed_images(asked: &Asked<'_>) -> Result<()> {
    match Wanted::first(asked) {
        None => Ok(()),
        Some(wanted) if asked.settings.style == Style::GoDriver => {
            asked.ui.warn(&format!(
                "the job asks for the {}, which is ignored, as by the Go driver: it runs in its task definition's own image",
                wanted.what
            ));
            Ok(())
        }
        Some(wanted) => {
            Err(wanted.refuse("this version runs jobs only in their task definition's own image"))
        }
    }
}

/// The first image that a job asks for.
struct Wanted {
    key: &'static str,
    kinds: &'static str,
    what: String,
}

impl Wanted {
    fn first(asked: &Asked<'_>) -> Option<Self> {
        let payload = &asked.call.payload;
        let image = payload.image.iter().map(|image| Self {
            key: "image:",
            kinds: "images",
            what: format!("image {image}"),
        });
        let services = payload.services.iter().map(|service| Self {
            key: "services:",
            kinds: "services",
            what: format!("service {service}"),
        });
        image.chain(services).next()
    }

    fn refuse(&self, why: &str) -> Error {
        Error::new(
            Kind::NotYet,
            format!("the job asks for the {}, and {why}", self.what),
        )
        .hint(format!(
            "Remove `{}` from this job, or send it to another runner by its tags.",
            self.key
        ))
    }
}
