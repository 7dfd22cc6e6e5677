//! What a job may have: each wish is read, and held against the bound that `[limits]` sets for it.
//!
//! How a pattern fits what a job asks for:
//!
//! - `ci-*`, `ci-job`: the family alone, whatever the revision; never an ARN, which may name another account.
//! - `ci-*:*`, `ci-job:7`: a family *with* a revision.
//! - `arn:…`: an ARN, of a task definition or a role; without a revision it fits every revision.
//!
//! There `*` stops at `:` and `/`; in patterns of machine images and instance types it stops at `/` alone. `**`
//! never stops. What the file has anyway may be asked for in any case.

use super::{Wish, Wishes, clip, one_of};
use crate::cli::Overrides;
use crate::config::settings::{Architecture, Limits, Rung, Settings};
use crate::config::{
    arn, parse_architecture, parse_cpu, parse_instance_type, parse_machine_image, parse_rung,
    parse_size, pattern, shown,
};
use crate::container;
use crate::error::{Error, Result};

/// What parts the names of machine images, and so ends what one `*` may stand for.
const OF_PATHS: &[char] = &['/'];

/// How a wish is read.
type Parse<T> = fn(&str) -> std::result::Result<T, String>;

/// What a job asks for, read and found to be within its limits.
#[derive(Debug, Default)]
pub(super) struct Within {
    pub(super) cpu: Option<u32>,
    pub(super) memory: Option<u64>,
    pub(super) disk: Option<u64>,
    pub(super) architecture: Option<Architecture>,
    pub(super) capacity: Option<Vec<Rung>>,
}

/// Reads all wishes and holds them against their limits, but for the role: which of them the file has anyway depends on
/// the kind of machine. Without limits all is open.
pub(super) fn check(settings: &Settings, overrides: &Overrides, wishes: &Wishes) -> Result<Within> {
    let task_definition = one_of(&wishes.task_definition)?;
    let Some(limits) = &settings.limits else {
        return Ok(Within::default());
    };
    let fargate = settings.fargate.clone().unwrap_or_default();
    let ec2 = settings.ec2.clone().unwrap_or_default();
    // What a flag overrides is not asked for, so it cannot be too much.
    if let Some(wish) = task_definition
        && overrides.task_definition.is_none()
        && ![&fargate.task_definition, &fargate.task_definition_arm64]
            .contains(&&Some(wish.value.clone()))
    {
        allow_task_definition(wish, limits)?;
    }
    if let Some(wish) = &wishes.platform_version
        && overrides.platform_version.is_none()
        && fargate.platform_version.as_ref() != Some(&wish.value)
    {
        allow_platform_version(wish)?;
    }
    if let Some(wish) = &wishes.machine_image {
        read(wish, parse_machine_image)?;
        let own = [ec2.image_id, ec2.image_id_arm64];
        let own: Vec<String> = own.into_iter().flatten().collect();
        allow(wish, "machine_images", &limits.machine_images, &own)?;
    }
    if let Some(wish) = &wishes.instance_type {
        read(wish, parse_instance_type)?;
        let own = [ec2.instance_types, ec2.instance_types_arm64].concat();
        allow(wish, "instance_types", &limits.instance_types, &own)?;
    }
    // Where no job runs in its image there is nothing to bound: such a job is refused for that.
    if ec2.container {
        for wish in wishes.image.iter().chain(&wishes.services) {
            let key = wish.by.trim_matches('`');
            container::allow_image(&wish.value, key, ec2.container_image.as_deref(), limits)?;
        }
    }
    Ok(Within {
        cpu: at_most(
            wishes.cpu.as_ref(),
            "max_cpu",
            limits.max_cpu_millis,
            parse_cpu,
            |millis| shown::vcpu(u64::from(millis)),
        )?,
        memory: at_most(
            wishes.memory.as_ref(),
            "max_memory",
            limits.max_memory,
            parse_size,
            shown::size,
        )?,
        disk: at_most(
            wishes.disk.as_ref(),
            "max_disk",
            limits.max_disk,
            parse_size,
            shown::size,
        )?,
        architecture: architecture(wishes.architecture.as_ref(), limits)?,
        capacity: capacity(wishes.capacity.as_ref(), limits, &settings.capacity)?,
    })
}

/// Reads a wish, or says why it is none.
fn read<T>(wish: &Wish, parse: Parse<T>) -> Result<T> {
    parse(&wish.value).map_err(|problem| {
        wish.refuse(
            &format!("and {}", clip(&problem)),
            format!("Correct {} in the job, or remove it.", wish.by),
        )
    })
}

/// Holds a quantity against its limit.
fn at_most<T: Copy + PartialOrd>(
    wish: Option<&Wish>,
    key: &str,
    limit: Option<T>,
    parse: Parse<T>,
    show: fn(T) -> String,
) -> Result<Option<T>> {
    let Some(wish) = wish else { return Ok(None) };
    let asked = read(wish, parse)?;
    let bound = match limit {
        Some(limit) if asked <= limit => return Ok(Some(asked)),
        Some(limit) => format!("allows {} at most", show(limit)),
        None => "is not set, so no job may ask for any".to_owned(),
    };
    Err(wish.refuse(
        &format!("and [limits] {key} {bound}"),
        format!(
            "Ask for less or remove {} from the job, or have an administrator raise {key} under [limits].",
            wish.by
        ),
    ))
}

fn architecture(wish: Option<&Wish>, limits: &Limits) -> Result<Option<Architecture>> {
    let Some(wish) = wish else { return Ok(None) };
    let asked = read(wish, parse_architecture)?;
    if limits.architectures.contains(&asked) {
        return Ok(Some(asked));
    }
    let names: Vec<_> = limits
        .architectures
        .iter()
        .map(ToString::to_string)
        .collect();
    Err(refused(wish, "architectures", &names))
}

/// Reads the rungs that a job chooses.
fn capacity(wish: Option<&Wish>, limits: &Limits, own: &[Rung]) -> Result<Option<Vec<Rung>>> {
    let Some(wish) = wish else { return Ok(None) };
    let mut asked: Vec<Rung> = Vec::new();
    for name in wish
        .value
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
    {
        let one = Wish {
            value: name.to_owned(),
            ..wish.clone()
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
            let one = Wish {
                value: rung.to_string(),
                ..wish.clone()
            };
            Err(refused(&one, "capacity", &names))
        }
    }
}

/// Holds a name against patterns, and against what the file has anyway.
fn allow(wish: &Wish, key: &str, patterns: &[String], own: &[String]) -> Result<()> {
    let fits = |p: &String| pattern::fits(p, &wish.value, OF_PATHS);
    if own.contains(&wish.value) || patterns.iter().any(fits) {
        return Ok(());
    }
    Err(refused(wish, key, patterns))
}

fn allow_task_definition(wish: &Wish, limits: &Limits) -> Result<()> {
    let name = &*wish.value;
    let of_arn = arn::task_definition(name);
    let Some((_, revision)) = of_arn.or_else(|| arn::family(name)) else {
        let what = "no task definition's name: those are FAMILY, FAMILY:REVISION or an ARN";
        return Err(unfit(wish, what));
    };
    // What a pattern that says nothing of revisions is held against.
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
    Err(refused(wish, "task_definitions", &limits.task_definitions))
}

/// `[limits]` knows no bound for it, as none of AWS's versions gives a job more than another; it only has to be one.
fn allow_platform_version(wish: &Wish) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.';
    if wish.value.len() <= 32 && wish.value.chars().all(fits) {
        return Ok(());
    }
    let what = "no platform version: those are LATEST or three numbers such as 1.4.0";
    Err(unfit(wish, what))
}

pub(super) fn allow_role(wish: &Wish, limits: &Limits) -> Result<()> {
    if !arn::is_role(&wish.value) {
        let what = "no role's ARN: those read arn:aws:iam::ACCOUNT:role/NAME";
        return Err(unfit(wish, what));
    }
    let fits =
        |p: &String| p.starts_with("arn:") && pattern::fits(p, &wish.value, pattern::OF_ARNS);
    if limits.roles.iter().any(fits) {
        return Ok(());
    }
    Err(refused(wish, "roles", &limits.roles))
}

fn unfit(wish: &Wish, what: &str) -> Error {
    wish.refuse(
        &format!("which is {what}"),
        format!("Correct {} in the job, or remove it.", wish.by),
    )
}

fn refused(wish: &Wish, key: &str, allowed: &[String]) -> Error {
    let bound = if allowed.is_empty() {
        "allows none".to_owned()
    } else {
        format!("allows only {}", clip(&allowed.join(", ")))
    };
    wish.refuse(
        &format!("and [limits] {key} {bound}"),
        format!(
            "Remove {} from the job, or have an administrator add it to {key} under [limits].",
            wish.by
        ),
    )
}
