//! Names of things in AWS. A reader only refuses what can never be such a name, since only AWS knows which exist.

use super::super::keys::closest;
use super::super::quantity::parse_size;
use super::super::settings::{Architecture, EcrLogin, Rung};
use super::super::{arn, tags};
use super::names::{has_id, parse_plain, slip};
use super::texts::{one_of, parse_text};
use crate::image::Reference;

/// The largest volume that there is, in bytes.
const LARGEST_VOLUME: u64 = 64 << 40;
/// A root volume's size is a whole number of these.
const GIB: u64 = 1 << 30;

pub(super) fn parse_tag_value(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    match tags::value_problem(&text) {
        Some(problem) => Err(problem),
        None => Ok(text),
    }
}

/// Reads the fleet's name: a typing error here makes another fleet.
pub(super) fn parse_fleet(text: &str) -> Result<String, String> {
    let text = parse_tag_value(text)?;
    match slip(&text) {
        Some(slip) => Err(format!("{text:?} is no fleet's name: {slip}")),
        None => Ok(text),
    }
}

pub(super) fn parse_container(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.len() > 255 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is no container's name: up to 255 letters, digits, '-' and '_'"
        ));
    }
    Ok(text)
}

pub(super) fn parse_role_arn(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    // The name may hold a comma.
    if let Some(slip) = slip(&text) {
        return Err(format!("{text:?} is no role's ARN: {slip}"));
    }
    if !arn::is_role(&text) {
        return Err(format!(
            "{text:?} is no role's ARN: they read arn:aws:iam::ACCOUNT:role/NAME"
        ));
    }
    Ok(text)
}

pub(super) fn parse_arn_pattern(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    if let Some(slip) = slip(&text) {
        return Err(format!("{text:?} fits no role: {slip}"));
    }
    if !text.starts_with("arn:") {
        return Err(format!(
            "{text:?} fits no role: a role is named by its ARN, so a pattern begins with \"arn:\""
        ));
    }
    Ok(text)
}

/// The rungs that have a fixed name.
const RUNGS: [(&str, Rung); 5] = [
    ("fargate-spot", Rung::FargateSpot),
    ("fargate", Rung::Fargate),
    ("ec2-spot", Rung::Ec2Spot),
    ("ec2", Rung::Ec2),
    ("local", Rung::Local),
];

/// Reads a rung by its name.
pub(crate) fn parse_rung(text: &str) -> Result<Rung, String> {
    if let Some((_, rung)) = RUNGS.iter().find(|(name, _)| *name == text) {
        return Ok(rung.clone());
    }
    if let Some(name) = text.strip_prefix("ecs:") {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 255 || !name.chars().all(fits) {
            return Err(format!(
                "{text:?} names no capacity provider: write its name after the colon, such as \"ecs:my-provider\""
            ));
        }
        return match name.to_ascii_uppercase().as_str() {
            "FARGATE" => Err(format!("{text:?} is the rung \"fargate\"")),
            "FARGATE_SPOT" => Err(format!("{text:?} is the rung \"fargate-spot\"")),
            _ => Ok(Rung::Ecs(name.to_owned())),
        };
    }
    Err(match closest(text, RUNGS.iter().map(|(name, _)| *name)) {
        Some(name) => format!("{text:?} is no rung; did you mean \"{name}\"?"),
        None => {
            format!("{text:?} is no rung: there are fargate-spot, fargate, ecs:NAME, ec2-spot, ec2")
        }
    })
}

/// The architectures, by AWS's names.
const ARCHITECTURES: [(&str, Architecture); 2] = [
    ("x86_64", Architecture::X86_64),
    ("arm64", Architecture::Arm64),
];

/// Reads an architecture.
pub(crate) fn parse_architecture(text: &str) -> Result<Architecture, String> {
    one_of(text, "architecture", &ARCHITECTURES, "x86_64, arm64")
}

/// Reads what a machine's image is named by: an AMI's id, or the name of an SSM parameter with one.
pub(crate) fn parse_machine_image(text: &str) -> Result<String, String> {
    let text = parse_plain(text, "machine image")?;
    let of_parameter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    let is_parameter = text.len() > 1
        && text.len() <= 1011
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.chars().all(of_parameter);
    if is_parameter || has_id(&text, "ami-") {
        return Ok(text);
    }
    Err(format!(
        "{text:?} is no machine image: write an AMI's id (ami-…) or the name of an SSM parameter, which begins with /"
    ))
}

/// Reads an instance type.
pub(crate) fn parse_instance_type(text: &str) -> Result<String, String> {
    let text = parse_plain(text, "instance type")?;
    let part = |s: &str| {
        !s.is_empty()
            && s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match text.split_once('.') {
        Some((family, size))
            if text.len() <= 64
                && part(family)
                && part(size)
                && text.starts_with(|c: char| c.is_ascii_lowercase()) =>
        {
            Ok(text)
        }
        _ => Err(format!(
            "{text:?} is no instance type: they read FAMILY.SIZE, such as \"m7i.large\""
        )),
    }
}

/// Reads an image of a container as `docker pull` takes it.
pub(super) fn parse_container_image(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    match Reference::parse(&text) {
        Ok(_) => Ok(text),
        Err(why) => Err(format!(
            "{text:?} is no image ({why}): they read NAME:TAG or HOST/PATH:TAG, such as \"debian:12\""
        )),
    }
}

/// Reads whose role logs in to ECR.
pub(super) fn parse_ecr_login(text: &str) -> Result<EcrLogin, String> {
    let all = [
        ("instance", EcrLogin::Instance),
        ("driver", EcrLogin::Driver),
    ];
    one_of(text, "way to log in to ECR", &all, "instance, driver")
}

pub(super) fn parse_launch_template(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let (name, version) = match text.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (&*text, None),
    };
    let of_name =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '(' | ')' | '.' | '-' | '/' | '_');
    if let Some(slip) = slip(name) {
        return Err(format!("{text:?} names no launch template: {slip}"));
    }
    let named = (3..=128).contains(&name.len()) && name.chars().all(of_name);
    let versioned = version.is_none_or(|v| {
        matches!(v, "$Default" | "$Latest")
            || (!v.is_empty() && v.len() < 19 && v.bytes().all(|b| b.is_ascii_digit()))
    });
    if named && versioned {
        return Ok(text);
    }
    Err(format!(
        "{text:?} names no launch template: write its name or id (lt-…), and after a colon a version's number, $Default or $Latest"
    ))
}

pub(super) fn parse_instance_profile(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    // The name may hold a comma.
    if let Some(slip) = slip(&text) {
        return Err(format!("{text:?} is no instance profile: {slip}"));
    }
    let of_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    let is_arn = text.starts_with("arn:") && text.contains(":instance-profile/");
    if is_arn || (text.len() <= 128 && text.chars().all(of_name)) {
        return Ok(text);
    }
    Err(format!(
        "{text:?} is no instance profile: write its name, or its ARN, which reads arn:aws:iam::ACCOUNT:instance-profile/NAME"
    ))
}

/// Reads the size of a volume, which AWS counts in GiB.
pub(super) fn parse_volume_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes % GIB != 0 {
        return Err(format!(
            "{text:?} is no whole number of GiB, in which AWS counts volumes"
        ));
    }
    if bytes > LARGEST_VOLUME {
        return Err(format!(
            "{text:?} is more than the 64TiB of the largest volume"
        ));
    }
    Ok(bytes)
}

pub(super) fn parse_volume_type(text: &str) -> Result<String, String> {
    match text {
        "gp3" | "gp2" | "standard" => Ok(text.to_owned()),
        "io1" | "io2" => Err(format!(
            "{text:?} needs a number of IOPS as well: describe such a volume in a launch template of your own"
        )),
        "st1" | "sc1" => Err(format!("{text:?} cannot be a root volume; gp3 can")),
        _ => Err(format!(
            "{text:?} is no type of a root volume: there are gp3, gp2, standard"
        )),
    }
}

pub(super) fn parse_price(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let digits = |s: &str| !s.is_empty() && s.len() <= 10 && s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let something = text.bytes().any(|b| (b'1'..=b'9').contains(&b));
    if digits(whole) && digits(fraction) && something {
        return Ok(text);
    }
    Err(format!(
        "{text:?} is no price: write dollars an hour as a decimal number, such as \"0.05\""
    ))
}
