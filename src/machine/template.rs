//! Launch templates: what all launches of the same settings have in common.
//!
//! CreateFleet takes nothing but a template and a few overrides. The driver makes one for each distinct setting, named by
//! its digest: whoever needs it names it, and makes it where AWS does not know it. A job's own (its user data, its tags) goes
//! with the request.

use serde::{Deserialize, Serialize};

use super::instance::{Dial, Market};
use crate::error::{Error, Kind, Result};
use crate::hash::sha256_hex;

/// What the names of the driver's own templates begin with.
pub const PREFIX: &str = "gitlab-aws-driver-";
/// Hexadecimal digits of a setting's digest that its name has.
const DIGEST: usize = 24;
/// Security groups of one network interface.
const MAX_SECURITY_GROUPS: usize = 16;

/// The administrator's own template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Its name or id.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// All that a template of the driver's own holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// An image's id, or the name of an SSM parameter that holds one.
    pub image: String,
    /// Whose capacity: tags of Spot requests stand in templates for Spot alone, and fail any other launch.
    pub market: Market,
    /// The instance profile, by name or ARN.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_profile: Option<String>,
    /// A key pair for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_name: Option<String>,
    /// Security groups.
    pub security_groups: Vec<String>,
    /// Asks for a public address.
    pub public_ip: bool,
    /// Asks for an IPv6 address.
    pub ipv6: bool,
    /// The root volume, where it is not to be the image's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<Root>,
    /// Tags of the template itself, and of what only a template can give tags to.
    pub tags: Vec<(String, String)>,
}

/// What a root volume shall be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The image's own name of it: under any other it would be a second volume, which outlives the instance.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// Bytes; none: the image's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Its type.
    pub kind: String,
}

impl Given {
    /// Reads `NAME` or `lt-ID`, with `:VERSION` where it is not the default one.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let (name, version) = text.rsplit_once(':').unwrap_or((text, "$Default"));
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
        }
    }

    /// Whether it is named by its id.
    #[must_use]
    pub fn is_id(&self) -> bool {
        self.name
            .strip_prefix("lt-")
            .is_some_and(|id| id.len() >= 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

impl Setting {
    /// Returns the name of the template that holds just this.
    #[must_use]
    pub fn name(&self) -> String {
        // A struct's fields always come in the same order.
        let text = serde_json::to_string(self).unwrap_or_default();
        let digest = sha256_hex(text.as_bytes());
        format!("{PREFIX}{}", &digest[..DIGEST])
    }

    /// Returns the same without a root volume of its own.
    #[must_use]
    pub fn plain(&self) -> Self {
        Self {
            root: None,
            ..self.clone()
        }
    }

    /// Refuses what AWS would refuse in any account, or take for something else.
    pub fn check(&self, dial: Dial) -> Result<()> {
        let wrong = |what: &str, hint: &str| Err(Error::new(Kind::Config, what).hint(hint));
        if self.image.trim().is_empty() {
            return wrong(
                "`image_id` under [ec2] is missing",
                "Set it to an AMI's id, or to the name of an SSM parameter that holds one.",
            );
        }
        if self.security_groups.len() > MAX_SECURITY_GROUPS {
            return wrong(
                "`security_groups` under [ec2] names more than 16",
                "Leave at most 16.",
            );
        }
        if dial == Dial::Public && !self.public_ip {
            return wrong(
                "`use_public_ip` under [ec2] asks to dial a public address, and `public_ip` gives none",
                "Set `public_ip = true` as well, or `use_public_ip = false`.",
            );
        }
        if self.root.as_ref().is_some_and(|root| root.device.is_none()) {
            return Err(Error::new(
                Kind::Bug,
                "the image's own name of its root volume was not looked up",
            ));
        }
        Ok(())
    }
}

/// Whether a template's name is one that the driver gives, which nobody can give another template afterwards.
#[must_use]
pub fn is_own_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digest| {
        digest.len() == DIGEST && digest.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Returns an image as a template names it.
#[must_use]
pub fn image_reference(image: &str) -> String {
    match is_parameter(image) {
        true => format!("resolve:ssm:{image}"),
        false => image.to_owned(),
    }
}

/// Whether an image is named by an SSM parameter.
#[must_use]
pub fn is_parameter(image: &str) -> bool {
    !image.starts_with("ami-")
}
