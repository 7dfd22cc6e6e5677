//! What a job may have: each overwrite is read, and compared with its limit in `[limits]`.
//!
//! How patterns fit:
//!
//! - `ci-*`, `ci-job`: the family alone, whatever the revision; never an ARN, which may name another account.
//! - `ci-*:*`, `ci-job:7`: a family *with* a revision.
//! - `arn:…`: an ARN, of a task definition or a role; without a revision it fits every revision.
//!
//! There `*` stops at `:` and `/`; in patterns of machine images and instance types it stops at `/` alone. `**`
//! never stops. A job may always ask for what it would get without asking.

use super::{Overwrite, Overwrites, clip, one_of};
use crate::config::overrides::Overrides;
use crate::config::settings::{Architecture, Limits, Rung, Settings};
use crate::config::{
    arn, display, parse_architecture, parse_cpu, parse_instance_type, parse_machine_image,
    parse_rung, parse_size,
};
use crate::error::{Error, Result};
use crate::pattern;
use crate::plan::containers;

/// Separates the parts of machine images' names: one `*` does not match it.
const OF_PATHS: &[char] = &['/'];

/// Parses an overwrite.
type Parse<T> = fn(&str) -> std::result::Result<T, String>;

/// What a job asks for, parsed and found to be within its limits.
#[derive(Debug, Default)]
pub(super) struct Permitted {
    pub(super) cpu: Option<u32>,
    pub(super) memory: Option<u64>,
    pub(super) disk: Option<u64>,
    pub(super) architecture: Option<Architecture>,
    pub(super) capacity: Option<Vec<Rung>>,
}

/// Reads all overwrites and compares them with their limits, except the role: which role the file has depends on the kind of
/// machine. Without limits everything is allowed.
pub(super) fn check(
    settings: &Settings,
    overrides: &Overrides,
    overwrites: &Overwrites,
) -> Result<Permitted> {
    let task_definition = one_of(&overwrites.task_definition)?;
    let Some(limits) = &settings.limits else {
        return Ok(Permitted::default());
    };
    let fargate = settings.fargate.clone().unwrap_or_default();
    let ec2 = settings.ec2.clone().unwrap_or_default();
    // A flag overrides the job's choice, so that choice is not compared with the limit.
    if let Some(overwrite) = task_definition
        && overrides.task_definition.is_none()
        && ![&fargate.task_definition, &fargate.task_definition_arm64]
            .contains(&&Some(overwrite.value.clone()))
    {
        allow_task_definition(overwrite, limits)?;
    }
    if let Some(overwrite) = &overwrites.platform_version
        && overrides.platform_version.is_none()
        && fargate.platform_version.as_ref() != Some(&overwrite.value)
    {
        allow_platform_version(overwrite)?;
    }
    if let Some(overwrite) = &overwrites.machine_image {
        read(overwrite, parse_machine_image)?;
        let own = [ec2.image_id, ec2.image_id_arm64];
        let own: Vec<String> = own.into_iter().flatten().collect();
        allow(overwrite, "machine_images", &limits.machine_images, &own)?;
    }
    if let Some(overwrite) = &overwrites.instance_type {
        read(overwrite, parse_instance_type)?;
        let own = [ec2.instance_types, ec2.instance_types_arm64].concat();
        allow(overwrite, "instance_types", &limits.instance_types, &own)?;
    }
    // If jobs do not run in their image, the limit does not matter: a job with an image is refused for that.
    if ec2.container {
        for overwrite in overwrites.image.iter().chain(&overwrites.services) {
            let key = overwrite.by.trim_matches('`');
            containers::allow_image(
                &overwrite.value,
                key,
                ec2.container_image.as_deref(),
                limits,
            )?;
        }
    }
    if settings.local.container
        && settings.capacity == [Rung::Local]
        && let Some(overwrite) = &overwrites.image
    {
        let own = settings.local.container_image.as_deref();
        containers::allow_image(&overwrite.value, "image", own, limits)?;
    }
    Ok(Permitted {
        cpu: at_most(
            overwrites.cpu.as_ref(),
            "max_cpu",
            limits.max_cpu_millis,
            parse_cpu,
            |millis| display::vcpu(u64::from(millis)),
        )?,
        memory: at_most(
            overwrites.memory.as_ref(),
            "max_memory",
            limits.max_memory,
            parse_size,
            display::size,
        )?,
        disk: at_most(
            overwrites.disk.as_ref(),
            "max_disk",
            limits.max_disk,
            parse_size,
            display::size,
        )?,
        architecture: architecture(overwrites.architecture.as_ref(), limits)?,
        capacity: capacity(overwrites.capacity.as_ref(), limits, &settings.capacity)?,
    })
}

/// Parses an overwrite, or returns why it is malformed.
fn read<T>(overwrite: &Overwrite, parse: Parse<T>) -> Result<T> {
    parse(&overwrite.value).map_err(|problem| {
        overwrite.refuse(
            &format!("and {}", clip(&problem)),
            format!("Correct {} in the job, or remove it.", overwrite.by),
        )
    })
}

/// Compares a quantity with its limit.
fn at_most<T: Copy + PartialOrd>(
    overwrite: Option<&Overwrite>,
    key: &str,
    limit: Option<T>,
    parse: Parse<T>,
    show: fn(T) -> String,
) -> Result<Option<T>> {
    let Some(overwrite) = overwrite else {
        return Ok(None);
    };
    let asked = read(overwrite, parse)?;
    let bound = match limit {
        Some(limit) if asked <= limit => return Ok(Some(asked)),
        Some(limit) => format!("allows {} at most", show(limit)),
        None => "is not set, so no job may ask for any".to_owned(),
    };
    Err(overwrite.refuse(
        &format!("and [limits] {key} {bound}"),
        format!(
            "Ask for less or remove {} from the job, or have an administrator raise {key} under [limits].",
            overwrite.by
        ),
    ))
}

fn architecture(overwrite: Option<&Overwrite>, limits: &Limits) -> Result<Option<Architecture>> {
    let Some(overwrite) = overwrite else {
        return Ok(None);
    };
    let asked = read(overwrite, parse_architecture)?;
    if limits.architectures.contains(&asked) {
        return Ok(Some(asked));
    }
    let names: Vec<_> = limits
        .architectures
        .iter()
        .map(ToString::to_string)
        .collect();
    Err(refused(overwrite, "architectures", &names))
}

/// Reads the rungs that a job chooses.
fn capacity(
    overwrite: Option<&Overwrite>,
    limits: &Limits,
    own: &[Rung],
) -> Result<Option<Vec<Rung>>> {
    let Some(overwrite) = overwrite else {
        return Ok(None);
    };
    let mut asked: Vec<Rung> = Vec::new();
    for name in overwrite
        .value
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
    {
        let one = Overwrite {
            value: name.to_owned(),
            ..overwrite.clone()
        };
        let rung = read(&one, parse_rung)?;
        if asked.contains(&rung) {
            return Err(one.refuse("which stands in the list twice", "Name each rung once."));
        }
        asked.push(rung);
    }
    if asked.is_empty() || asked == own {
        return Ok(None);
    }
    let names: Vec<_> = limits.capacity.iter().map(ToString::to_string).collect();
    match asked.iter().find(|rung| !limits.capacity.contains(rung)) {
        None => Ok(Some(asked)),
        Some(rung) => {
            let one = Overwrite {
                value: rung.to_string(),
                ..overwrite.clone()
            };
            Err(refused(&one, "capacity", &names))
        }
    }
}

/// Compares a name with patterns, and with the names in the file.
fn allow(overwrite: &Overwrite, key: &str, patterns: &[String], own: &[String]) -> Result<()> {
    let fits = |p: &String| pattern::fits(p, &overwrite.value, OF_PATHS);
    if own.contains(&overwrite.value) || patterns.iter().any(fits) {
        return Ok(());
    }
    Err(refused(overwrite, key, patterns))
}

fn allow_task_definition(overwrite: &Overwrite, limits: &Limits) -> Result<()> {
    let name = &*overwrite.value;
    let of_arn = arn::task_definition(name);
    let Some((_, revision)) = of_arn.or_else(|| arn::family(name)) else {
        let what = "no task definition's name: those are FAMILY, FAMILY:REVISION or an ARN";
        return Err(unfit(overwrite, what));
    };
    // The part that a pattern without a revision is compared with.
    let bare = match revision {
        Some(revision) => &name[..name.len() - revision.len() - 1],
        None => name,
    };
    let fits = |p: &String| {
        p.starts_with("arn:") == of_arn.is_some()
            && (pattern::fits(p, name, pattern::OF_ARNS)
                || pattern::fits(p, bare, pattern::OF_ARNS))
    };
    if limits.task_definitions.iter().any(fits) {
        return Ok(());
    }
    Err(refused(
        overwrite,
        "task_definitions",
        &limits.task_definitions,
    ))
}

/// `[limits]` has no key for it, as no version of AWS's gives a job more than another. It only has to be well-formed.
fn allow_platform_version(overwrite: &Overwrite) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.';
    if overwrite.value.len() <= 32 && overwrite.value.chars().all(fits) {
        return Ok(());
    }
    let what = "no platform version: those are LATEST or three numbers such as 1.4.0";
    Err(unfit(overwrite, what))
}

pub(super) fn allow_role(overwrite: &Overwrite, limits: &Limits) -> Result<()> {
    if !arn::is_role(&overwrite.value) {
        let what = "no role's ARN: those read arn:aws:iam::ACCOUNT:role/NAME";
        return Err(unfit(overwrite, what));
    }
    let fits =
        |p: &String| p.starts_with("arn:") && pattern::fits(p, &overwrite.value, pattern::OF_ARNS);
    if limits.roles.iter().any(fits) {
        return Ok(());
    }
    Err(refused(overwrite, "roles", &limits.roles))
}

fn unfit(overwrite: &Overwrite, what: &str) -> Error {
    overwrite.refuse(
        &format!("which is {what}"),
        format!("Correct {} in the job, or remove it.", overwrite.by),
    )
}

fn refused(overwrite: &Overwrite, key: &str, allowed: &[String]) -> Error {
    let bound = if allowed.is_empty() {
        "allows none".to_owned()
    } else {
        format!("allows only {}", clip(&allowed.join(", ")))
    };
    overwrite.refuse(
        &format!("and [limits] {key} {bound}"),
        format!(
            "Remove {} from the job, or have an administrator add it to {key} under [limits].",
            overwrite.by
        ),
    )
}
