//! What a job asks for by CI/CD variable, and the result together with the flags, the file and its limits.
//!
//! A flag overrides the job's choice, which overrides the file; an empty value chooses nothing. `[limits]` bounds what a job may
//! choose (`limits`). A file of the Go driver has no limits: it takes the variables of that driver, and no others. A rung that
//! cannot give what the job asks for is left out (`rungs`), and a job without any rung left is refused.

mod limits;
mod rungs;
mod session_tags;
pub mod sizes;

use self::limits::Permitted;
use super::overwrites::session_tags::SessionVariable;
use crate::config::arn;
use crate::config::overrides::Overrides;
use crate::config::settings::{Architecture, Rung, Settings, Style};
use crate::error::{Error, Kind, Result};
use crate::machine::task::TaskSize;
use crate::runner::Environment;
use crate::runner::payload::Payload;

/// The job's task definition, by the Go driver's name.
const GO_TASK_DEFINITION: &str = "FARGATE_TASK_DEFINITION";
/// The job's platform version.
const PLATFORM_VERSION: &str = "FARGATE_PLATFORM_VERSION";
/// The role that the job's machine is launched with, by the Go driver's name.
const GO_ROLE: &str = "ROLE_ARN";

const TASK_DEFINITION: &str = "AWS_DRIVER_TASK_DEFINITION";
const ROLE: &str = "AWS_DRIVER_ROLE";
const CPU: &str = "AWS_DRIVER_CPU";
const MEMORY: &str = "AWS_DRIVER_MEMORY";
const DISK: &str = "AWS_DRIVER_DISK";
const ARCHITECTURE: &str = "AWS_DRIVER_ARCHITECTURE";
const MACHINE_IMAGE: &str = "AWS_DRIVER_MACHINE_IMAGE";
const INSTANCE_TYPE: &str = "AWS_DRIVER_INSTANCE_TYPE";
const CAPACITY: &str = "AWS_DRIVER_CAPACITY";

/// How much of a value a message repeats.
const SHOWN: usize = 200;

/// What a job asks for, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overwrites {
    /// By either name.
    task_definition: [Option<Overwrite>; 2],
    platform_version: Option<Overwrite>,
    /// By either name.
    role: [Option<Overwrite>; 2],
    session: Vec<SessionVariable>,
    cpu: Option<Overwrite>,
    memory: Option<Overwrite>,
    disk: Option<Overwrite>,
    architecture: Option<Overwrite>,
    machine_image: Option<Overwrite>,
    instance_type: Option<Overwrite>,
    capacity: Option<Overwrite>,
    image: Option<Overwrite>,
    services: Vec<Overwrite>,
}

/// One thing that a job asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Overwrite {
    /// The variable, or the keyword of the pipeline, that asks for it.
    by: &'static str,
    value: String,
}

impl Overwrite {
    /// Returns the beginning of each message about it.
    fn description(&self) -> String {
        format!("the job asks for {:?} by {}", clip(&self.value), self.by)
    }

    fn refuse(&self, why: &str, hint: impl Into<String>) -> Error {
        Error::new(Kind::Limit, format!("{}, {why}", self.description())).hint(hint)
    }
}

/// The effective choices for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The rungs, in order; empty: the cluster's default strategy.
    pub rungs: Vec<Rung>,
    /// Rungs that cannot give what the job asks for, and why.
    pub left_out: Vec<(Rung, String)>,
    /// Why AWS may refuse what the job asks for, if only AWS knows.
    pub doubt: Option<String>,
    /// The choices for a task; `None`: no rung has tasks.
    pub task: Option<SettledTask>,
    /// The choices for an instance; `None`: no rung has instances.
    pub instance: Option<SettledInstance>,
}

/// The effective choices for a job's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledTask {
    /// Family, family:revision or ARN.
    pub task_definition: String,
    /// Fargate platform version; `None`: AWS's latest.
    pub platform_version: Option<String>,
    /// The role to take on for all calls about the task; `None`: the host's own credentials.
    pub role: Option<SettledRole>,
    /// The size on Fargate, if the job asks for one.
    pub on_fargate: TaskSize,
    /// The size on another capacity provider, if the job asks for one.
    pub elsewhere: TaskSize,
}

/// The effective choices for a job's instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledInstance {
    /// An AMI's id or the name of an SSM parameter; `None`: the launch template's.
    pub image: Option<String>,
    /// Types, in any order.
    pub types: Vec<String>,
    /// The least that the type must have, in thousandths of a vCPU.
    pub min_cpu_millis: Option<u32>,
    /// The least that the type must have, in bytes.
    pub min_memory: Option<u64>,
    /// Of the root volume, bytes; `None`: the image's own.
    pub disk: Option<u64>,
    /// The role to take on for all calls about the instance; `None`: the host's own credentials.
    pub role: Option<SettledRole>,
}

/// A role to take on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRole {
    /// Its ARN.
    pub arn: String,
    /// The tags of its session, legal for STS.
    pub tags: Vec<(String, String)>,
}

impl Overwrites {
    /// Reads what the job asks for.
    ///
    /// Its choices come from its effective variables: the job may set them, and the checked value is the one that is used.
    /// *Who* the job is comes from the part of the payload that no variable can change.
    #[must_use]
    pub fn read(env: &Environment, payload: &Payload) -> Self {
        let overwrite =
            |by: &'static str| env.job_variable(by).map(|value| Overwrite { by, value });
        let image = |by: &'static str, value: &String| Overwrite {
            by,
            value: value.clone(),
        };
        Self {
            task_definition: [overwrite(TASK_DEFINITION), overwrite(GO_TASK_DEFINITION)],
            platform_version: overwrite(PLATFORM_VERSION),
            role: [overwrite(ROLE), overwrite(GO_ROLE)],
            session: session_tags::read(env, payload),
            cpu: overwrite(CPU),
            memory: overwrite(MEMORY),
            disk: overwrite(DISK),
            architecture: overwrite(ARCHITECTURE),
            machine_image: overwrite(MACHINE_IMAGE),
            instance_type: overwrite(INSTANCE_TYPE),
            capacity: overwrite(CAPACITY),
            image: payload.image.as_ref().map(|i| image("`image:`", &i.name)),
            services: payload
                .services
                .iter()
                .map(|s| image("`services:`", &s.image.name))
                .collect(),
        }
    }

    /// With a file of the Go driver and a role, returns which variables are left out of the role's session.
    #[must_use]
    pub fn left_out_of_session(&self, settings: &Settings, settled: &Settled) -> Option<String> {
        let role = settled.task.as_ref().and_then(|task| task.role.as_ref());
        match (role, &settings.limits) {
            (Some(_), None) => session_tags::left_out(&self.session),
            _ => None,
        }
    }

    /// Returns the roles with which the Go driver may have launched the job's task, the most likely first: the one that the
    /// job asked for (even if it may not have it now), the one in the file, and the host's own credentials.
    #[must_use]
    pub fn roles_of_go_driver(&self, of_file: Option<&String>) -> Vec<Option<SettledRole>> {
        let [_, asked] = &self.role;
        let asked = asked.iter().map(|overwrite| &overwrite.value);
        let mut roles: Vec<Option<SettledRole>> = Vec::new();
        for arn in asked.chain(of_file).filter(|arn| arn::is_role(arn)) {
            let role = SettledRole {
                arn: arn.clone(),
                tags: session_tags::fitting_tags(&self.session),
            };
            if !roles.contains(&Some(role.clone())) {
                roles.push(Some(role));
            }
        }
        roles.push(None);
        roles
    }

    /// Returns the overwrites that count with a file of the Go driver: that driver did not know the others.
    fn of_go_driver(&self) -> Self {
        let [new_task_definition, task_definition] = self.task_definition.clone();
        let [new_role, role] = self.role.clone();
        let others = [
            new_task_definition,
            new_role,
            self.cpu.clone(),
            self.memory.clone(),
            self.disk.clone(),
            self.architecture.clone(),
            self.machine_image.clone(),
            self.instance_type.clone(),
            self.capacity.clone(),
        ];
        for overwrite in others.into_iter().flatten() {
            tracing::debug!(
                variable = overwrite.by,
                "ignored: the configuration is a file of the Go driver, which has no such variable"
            );
        }
        Self {
            task_definition: [None, task_definition],
            platform_version: self.platform_version.clone(),
            role: [None, role],
            session: self.session.clone(),
            ..Self::default()
        }
    }
}

/// Returns the overwrite of two variables that mean the same. If both are set, they must agree.
fn one_of(two: &[Option<Overwrite>; 2]) -> Result<Option<&Overwrite>> {
    match two {
        [Some(a), Some(b)] if a.value != b.value => Err(a.refuse(
            &format!("and for {:?} by {}", clip(&b.value), b.by),
            format!("Set {} alone, or both alike.", a.by),
        )),
        [a, b] => Ok(a.as_ref().or(b.as_ref())),
    }
}

/// Decides what a job gets: by a flag, else by the job's own choice within `[limits]`, else by the file.
///
/// # Errors
/// If the job asks for something that it may not have or that no rung has ([`Kind::Limit`]), and if there is no task definition
/// ([`Kind::Config`]).
pub fn settle(
    settings: &Settings,
    overrides: &Overrides,
    overwrites: &Overwrites,
) -> Result<Settled> {
    let of_go_driver;
    let overwrites = match settings.limits {
        Some(_) => overwrites,
        None => {
            of_go_driver = overwrites.of_go_driver();
            &of_go_driver
        }
    };
    let permitted = limits::check(settings, overrides, overwrites)?;
    let asked = permitted.capacity.as_ref().unwrap_or(&settings.capacity);
    let rungs::Choice {
        rungs,
        left_out,
        doubt,
    } = rungs::choose(settings, overrides, overwrites, &permitted, asked)?;
    let task = match rungs.iter().any(Rung::is_task) || rungs.is_empty() {
        true => Some(settle_task(settings, overrides, overwrites, &permitted)?),
        false => None,
    };
    let instance = match rungs.iter().any(Rung::is_instance) {
        true => Some(settle_instance(settings, overwrites, &permitted)?),
        false => None,
    };
    Ok(Settled {
        rungs,
        left_out,
        doubt,
        task,
        instance,
    })
}

fn settle_task(
    settings: &Settings,
    overrides: &Overrides,
    overwrites: &Overwrites,
    permitted: &Permitted,
) -> Result<SettledTask> {
    let file = settings.fargate.clone().unwrap_or_default();
    let of_file = match permitted.architecture {
        Some(Architecture::Arm64) => file.task_definition_arm64,
        Some(Architecture::X86_64) | None => file.task_definition,
    };
    let of_job = one_of(&overwrites.task_definition)?.map(|overwrite| overwrite.value.clone());
    let Some(task_definition) = overrides.task_definition.clone().or(of_job).or(of_file) else {
        return Err(no_task_definition(settings.style));
    };
    let of_job = overwrites
        .platform_version
        .as_ref()
        .map(|overwrite| overwrite.value.clone());
    let platform_version = overrides.platform_version.clone().or(of_job);
    Ok(SettledTask {
        task_definition,
        platform_version: platform_version.or(file.platform_version),
        role: settle_role(file.role_arn.as_ref(), settings, overwrites)?,
        // If Fargate does not have such a disk, its rungs are left out.
        on_fargate: sizes::on_fargate(permitted.cpu, permitted.memory, permitted.disk)
            .map_or_else(|_| TaskSize::default(), |sized| sized.size),
        elsewhere: sizes::elsewhere(permitted.cpu, permitted.memory),
    })
}

fn settle_instance(
    settings: &Settings,
    overwrites: &Overwrites,
    permitted: &Permitted,
) -> Result<SettledInstance> {
    let file = settings.ec2.clone().unwrap_or_default();
    let (image, types) = match permitted.architecture {
        Some(Architecture::Arm64) => (file.image_id_arm64, file.instance_types_arm64),
        Some(Architecture::X86_64) | None => (file.image_id, file.instance_types),
    };
    let value =
        |overwrite: &Option<Overwrite>| overwrite.as_ref().map(|overwrite| overwrite.value.clone());
    Ok(SettledInstance {
        image: value(&overwrites.machine_image).or(image),
        types: value(&overwrites.instance_type).map_or(types, |one| vec![one]),
        min_cpu_millis: permitted.cpu,
        min_memory: permitted.memory,
        disk: permitted.disk.map(sizes::whole_gib).or(file.volume_size),
        role: settle_role(file.role_arn.as_ref(), settings, overwrites)?,
    })
}

/// Decides only the role, from the job's and the one that the file names for this kind of machine. That is enough to look at a
/// machine, and to end it.
///
/// # Errors
/// If the job asks for a role that it may not have ([`Kind::Limit`]).
pub fn settle_role(
    of_file: Option<&String>,
    settings: &Settings,
    overwrites: &Overwrites,
) -> Result<Option<SettledRole>> {
    let of_go_driver;
    let (overwrites, file) = match &settings.limits {
        Some(limits) => {
            if let Some(overwrite) = one_of(&overwrites.role)?
                && of_file != Some(&overwrite.value)
            {
                limits::allow_role(overwrite, limits)?;
            }
            (overwrites, session_tags::File::Own)
        }
        None => {
            of_go_driver = overwrites.of_go_driver();
            (&of_go_driver, session_tags::File::GoDriver)
        }
    };
    match one_of(&overwrites.role)?
        .map(|overwrite| &overwrite.value)
        .or(of_file)
    {
        Some(arn) => Ok(Some(SettledRole {
            arn: arn.clone(),
            tags: session_tags::tags(&overwrites.session, file)?,
        })),
        None => Ok(None),
    }
}

fn no_task_definition(style: Style) -> Error {
    let (table, key) = match style {
        Style::GoDriver => ("[Fargate]", "TaskDefinition"),
        Style::New => ("[fargate]", "task_definition"),
    };
    Error::new(
        Kind::Config,
        format!("nobody names a task definition: neither the configuration nor --task-def nor the job's {GO_TASK_DEFINITION}"),
    )
    .hint(format!("For example, under {table}: {key} = \"ci-job\""))
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
