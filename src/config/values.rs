//! The values of keys: read from TOML and checked one by one.
//!
//! Each reader's error has an example of a right value, so that the message alone is enough
//! to correct the file. What depends on more than one value is checked later.

mod aws;
mod names;
mod texts;
mod visitors;

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserializer, Error, MapAccess, Visitor};

pub(crate) use self::aws::{
    parse_architecture, parse_instance_type, parse_machine_image, parse_rung,
};
use self::aws::{
    parse_arn_pattern, parse_container, parse_container_image, parse_ecr_login, parse_fleet,
    parse_instance_profile, parse_launch_template, parse_price, parse_role_arn, parse_tag_value,
    parse_volume_size, parse_volume_type,
};
pub(super) use self::names::{
    parse_cluster, parse_platform_version, parse_region, parse_security_group, parse_subnet,
    parse_task_definition,
};
use self::names::{parse_key_name, parse_pattern};
use self::visitors::{List, Most, Plain, Words};
use super::quantity::{parse_cpu, parse_duration, parse_size};
use super::settings::{Architecture, EcrLogin, LogFormat, LogLevel, Rung};
use super::values::texts::{
    no_nul, parse_absolute, parse_log_format, parse_log_level, parse_manager, parse_plain_fit,
    parse_profile_name, parse_project_fit, parse_ref_fit, parse_text, parse_username,
};

/// What a list of rungs looks like.
const RUNGS_WANTED: &str = "a list of rungs such as [\"fargate-spot\", \"fargate\"]";

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident -> $type:ty = $wanted:literal, $parse:expr;)*) => {$(
        $(#[$doc])*
        pub(super) fn $name<'de, D: Deserializer<'de>>(d: D) -> Result<Option<$type>, D::Error> {
            d.deserialize_str(Words { wanted: $wanted, parse: $parse }).map(Some)
        }
    )*};
}

words! {
    /// Reads text that must say something.
    text -> String = "text in quotes", parse_text;
    /// Reads a pattern of a project's path.
    project_fit -> String = "a pattern such as \"group/**\"", parse_project_fit;
    /// Reads a pattern of a branch or tag.
    ref_fit -> String = "a pattern such as \"release/*\"", parse_ref_fit;
    /// Reads a pattern of an image.
    image_fit -> String = "a pattern such as \"docker:*\"", parse_plain_fit;
    /// Reads a path.
    path -> PathBuf = "a path in quotes", |s| parse_text(s).map(PathBuf::from);
    /// Reads an absolute path of a file.
    file -> String = "an absolute path such as \"/usr/lib/agent\"", |s| parse_absolute(s);
    /// Reads an absolute directory for the Runner.
    directory -> String = "an absolute path such as \"/builds\"", |s| parse_absolute(s);
    /// Reads a login name.
    username -> String = "a login name such as \"root\"", parse_username;
    /// Reads a duration.
    wait -> Duration = "a duration such as \"90s\" or \"5m\"", parse_duration;
    /// Reads a size in bytes.
    size -> u64 = "a size such as \"8GiB\"", parse_size;
    /// Reads a number of vCPU, in thousandths.
    cpu -> u32 = "a number of vCPU in quotes such as \"4\" or \"0.5\"", parse_cpu;
    /// Reads a level.
    log_level -> LogLevel = "a level such as \"info\"", parse_log_level;
    /// Reads a format.
    log_format -> LogFormat = "a format such as \"text\"", parse_log_format;
    /// Reads a fleet's name.
    fleet -> String = "text in quotes", parse_fleet;
    /// Reads a region's name.
    region -> String = "a region such as \"eu-west-1\"", parse_region;
    /// Reads a key pair's name.
    key_name -> String = "text in quotes", parse_key_name;
    manager -> String = "a name such as \"ci-bastion\"", parse_manager;
    /// Reads a container's name.
    container -> String = "a container's name such as \"ci-coordinator\"", parse_container;
    /// Reads a role's ARN.
    role_arn -> String = "a role's ARN such as \"arn:aws:iam::111122223333:role/ci\"", parse_role_arn;
    /// Reads the name of a machine's image.
    machine_image -> String = "an AMI's id such as \"ami-0123456789abcdef0\"", parse_machine_image;
    /// Reads the image of a container.
    container_image -> String = "an image such as \"debian:12\"", parse_container_image;
    /// Reads whose role logs in to ECR.
    ecr_login -> EcrLogin = "\"instance\" or \"driver\"", parse_ecr_login;
    /// Reads the name of a launch template.
    launch_template -> String = "a launch template such as \"ci-job\"", parse_launch_template;
    /// Reads the name of an instance profile.
    instance_profile -> String = "an instance profile such as \"ci-job\"", parse_instance_profile;
    /// Reads the size of a volume in bytes.
    volume_size -> u64 = "a size such as \"50GiB\"", parse_volume_size;
    /// Reads the type of a volume.
    volume_type -> String = "a volume type such as \"gp3\"", parse_volume_type;
    /// Reads a price.
    price -> String = "dollars an hour in quotes such as \"0.05\"", parse_price;
    /// Reads a profile's name.
    profile_name -> String = "a name such as \"docker\"", parse_profile_name;
}

/// Reads the rungs.
pub(super) fn rungs<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<Rung>>, D::Error> {
    unique(each_by(d, RUNGS_WANTED, parse_rung, false)?)
}

/// Reads the rungs that a job may choose from.
pub(super) fn choice_of_rungs<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<Rung>>, D::Error> {
    unique(each_by(d, RUNGS_WANTED, parse_rung, true)?)
}

/// Reads the subnets of a task.
pub(super) fn task_subnets<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let why = "ECS takes at most";
    list(d, Most { number: 16, why })
}

/// Reads the security groups of a task.
pub(super) fn task_security_groups<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let why = "ECS takes at most";
    list(d, Most { number: 5, why })
}

/// Reads a list of patterns; an empty one allows nothing.
pub(super) fn patterns<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    let wanted = "a list such as [\"one\", \"two\"]";
    each_by(d, wanted, parse_pattern, true)
}

/// Reads a list of patterns of ARNs; any other could never fit.
pub(super) fn arn_patterns<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let wanted = "a list such as [\"arn:aws:iam::111122223333:role/ci-*\"]";
    each_by(d, wanted, parse_arn_pattern, true)
}

/// Reads the subnets of an instance.
pub(super) fn subnets<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    let wanted = "a list such as [\"subnet-0a1b2c3d\", \"subnet-4e5f6a7b\"]";
    each_by(d, wanted, parse_subnet, false)
}

/// Reads the security groups of an instance.
pub(super) fn security_groups<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let wanted = "a list such as [\"sg-0a1b2c3d\"]";
    each_by(d, wanted, parse_security_group, false)
}

/// Reads instance types.
pub(super) fn instance_types<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let wanted = "a list such as [\"c7i.large\", \"m7i.large\"]";
    let all = each_by(d, wanted, parse_instance_type, false)?;
    unique(all)
}

/// Reads architectures that a job may choose.
pub(super) fn architectures<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<Architecture>>, D::Error> {
    let wanted = "a list such as [\"x86_64\", \"arm64\"]";
    each_by(d, wanted, parse_architecture, true)
}

/// Refuses a value that is in a list twice.
fn unique<T: PartialEq + Display, E: Error>(all: Option<Vec<T>>) -> Result<Option<Vec<T>>, E> {
    let items = all.as_deref().unwrap_or_default();
    for (i, one) in items.iter().enumerate() {
        if items[..i].contains(one) {
            return Err(E::custom(format_args!(
                "\"{one}\" stands in the list twice"
            )));
        }
    }
    Ok(all)
}

/// Reads a list of the names that a parser knows.
fn each_by<'de, D: Deserializer<'de>, T>(
    d: D,
    wanted: &'static str,
    parse: fn(&str) -> Result<T, String>,
    may_be_empty: bool,
) -> Result<Option<Vec<T>>, D::Error> {
    let each = Words {
        wanted: "text in quotes",
        parse,
    };
    d.deserialize_seq(List {
        wanted,
        each,
        may_be_empty,
        most: None,
    })
    .map(Some)
}

fn list<'de, D: Deserializer<'de>>(d: D, most: Most) -> Result<Option<Vec<String>>, D::Error> {
    let each = Words {
        wanted: "text in quotes",
        parse: parse_text,
    };
    d.deserialize_seq(List {
        wanted: "a list such as [\"one\", \"two\"]",
        each,
        may_be_empty: false,
        most: Some(most),
    })
    .map(Some)
}

/// Reads a program and its arguments; the arguments may be empty.
pub(super) fn command<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    let each = Words {
        wanted: "text in quotes",
        parse: |s| no_nul(s).map(str::to_owned),
    };
    let all = d.deserialize_seq(List {
        wanted: "a program and its arguments such as [\"/usr/sbin/sshd\", \"-D\"]",
        each,
        may_be_empty: false,
        most: None,
    })?;
    if all.first().is_some_and(|program| program.trim().is_empty()) {
        return Err(D::Error::custom("the program's name is empty"));
    }
    Ok(Some(all))
}

/// Reads a table of the administrator's own keys; they are checked where their places are known.
pub(super) fn tags<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<(String, String)>>, D::Error> {
    pairs(d, parse_tag_value)
}

/// Reads patterns of variables, by their names.
pub(super) fn variables<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<(String, String)>>, D::Error> {
    pairs(d, parse_text)
}

fn pairs<'de, D: Deserializer<'de>>(
    d: D,
    parse: fn(&str) -> Result<String, String>,
) -> Result<Option<Vec<(String, String)>>, D::Error> {
    struct Pairs(fn(&str) -> Result<String, String>);

    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let value = Words {
                wanted: "text in quotes",
                parse: self.0,
            };
            let mut all = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                all.push((key, map.next_value_seed(value)?));
            }
            Ok(all)
        }
    }

    d.deserialize_map(Pairs(parse)).map(Some)
}

/// Reads a port.
pub(super) fn port<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    d.deserialize_i64(Plain::<u16> {
        wanted: "a TCP port without quotes such as 22",
        kind: PhantomData,
    })
    .map(Some)
}

/// Reads true or false.
pub(super) fn flag<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    d.deserialize_bool(Plain::<bool> {
        wanted: "true or false, without quotes",
        kind: PhantomData,
    })
    .map(Some)
}

#[cfg(test)]
mod tests;
