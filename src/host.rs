//! Which host this is, as far as it differs from every copy of its disk: an image of a bastion, or a backup of one, carries
//! the same files, and must not be taken for the bastion itself.
//!
//! An EC2 instance has an id of its own, which its firmware tells on Nitro (`board_asset_tag`) and its metadata everywhere.
//! Elsewhere `/etc/machine-id` (machine-id(5)) has to do, and where there is none, as in many containers, the boot. On EC2
//! it will not do: cloud-init does not renew it in a copy of an image.

use std::path::Path;

use crate::hash::sha256_hex;

/// What the firmware tells.
const DMI: &str = "/sys/class/dmi/id";
/// A Xen guest's own id, which differs from all others.
const HYPERVISOR_UUID: &str = "/sys/hypervisor/uuid";
const MACHINE_ID: &str = "/etc/machine-id";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Hexadecimal digits of a host's digest.
const DIGEST: usize = 32;

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A digest of what it is known by; that itself is nobody's business.
    pub digest: String,
    /// The instance that it is, on EC2.
    pub instance: Option<String>,
}

/// What can be told without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The host.
    Known(Host),
    /// It is or may be an instance, whose id its metadata tell; else it is taken for this one.
    Instance(Host),
}

impl Host {
    /// Returns the host that is an EC2 instance.
    #[must_use]
    pub fn instance(id: &str) -> Self {
        Self {
            instance: Some(id.to_owned()),
            ..Self::known_by("instance", id)
        }
    }

    fn known_by(what: &str, id: &str) -> Self {
        let mut digest = sha256_hex(format!("gitlab-aws-driver {what} {id}").as_bytes());
        digest.truncate(DIGEST);
        Self {
            digest,
            instance: None,
        }
    }
}

/// What a host's files say; empty is what is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Signs {
    firmware: bool,
    asset_tag: String,
    vendor: String,
    bios: String,
    uuids: [String; 2],
    machine_id: String,
    boot_id: String,
}

/// Looks at the host's files.
#[must_use]
pub fn look() -> Seen {
    let read = |path: &Path| {
        let text = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_ascii_lowercase()
    };
    let dmi = |name: &str| read(&Path::new(DMI).join(name));
    let signs = Signs {
        firmware: Path::new(DMI).is_dir(),
        asset_tag: dmi("board_asset_tag"),
        vendor: dmi("sys_vendor"),
        bios: dmi("bios_version"),
        uuids: [read(Path::new(HYPERVISOR_UUID)), dmi("product_uuid")],
        machine_id: read(Path::new(MACHINE_ID)),
        boot_id: read(Path::new(BOOT_ID)),
    };
    settle(&signs)
}

fn settle(signs: &Signs) -> Seen {
    if is_instance_id(&signs.asset_tag) {
        return Seen::Known(Host::instance(&signs.asset_tag));
    }
    let uuid = signs.uuids.iter().find(|uuid| uuid.starts_with("ec2"));
    let boot = || Host::known_by("boot", &signs.boot_id);
    if uuid.is_some() || signs.vendor == "amazon ec2" || signs.bios.contains("amazon") {
        // Not its machine-id, which a copy of its image has too.
        let otherwise = uuid.map_or_else(boot, |uuid| Host::known_by("uuid", uuid));
        return Seen::Instance(otherwise);
    }
    let machine = match is_machine_id(&signs.machine_id) {
        true => Host::known_by("machine", &signs.machine_id),
        false => boot(),
    };
    match signs.firmware {
        true => Seen::Known(machine),
        // A container that may not see it, perhaps on an instance.
        false => Seen::Instance(machine),
    }
}

/// Whether a text is an instance's id, and so fit for calls and messages.
#[must_use]
pub fn is_instance_id(text: &str) -> bool {
    let digits = text.strip_prefix("i-");
    digits.is_some_and(|digits| {
        (8..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// An image's may be empty or `uninitialized`, and some tools leave nothing but zeros.
fn is_machine_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|b| b.is_ascii_hexdigit())
        && text.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4";

    fn signs() -> Signs {
        Signs {
            firmware: true,
            machine_id: MACHINE.into(),
            boot_id: "b".into(),
            ..Signs::default()
        }
    }

    #[test]
    fn an_instance_is_known_by_its_id_whatever_its_machine_id() {
        let id = "i-0af01c0123456789a";
        for machine in [MACHINE, ""] {
            let seen = settle(&Signs {
                asset_tag: id.into(),
                machine_id: machine.into(),
                ..signs()
            });
            assert_eq!(seen, Seen::Known(Host::instance(id)));
        }
    }

    #[test]
    fn on_ec2_a_machine_id_is_never_enough() {
        let ec2 = [
            Signs {
                uuids: ["ec2e1916-9099".into(), String::new()],
                ..signs()
            },
            Signs {
                uuids: [String::new(), "ec2e1916-9099".into()],
                ..signs()
            },
            Signs {
                vendor: "amazon ec2".into(),
                ..signs()
            },
            Signs {
                bios: "4.11.amazon".into(),
                ..signs()
            },
        ];
        for one in ec2 {
            let Seen::Instance(otherwise) = settle(&one) else {
                panic!("{one:?}");
            };
            assert_ne!(otherwise, Host::known_by("machine", MACHINE), "{one:?}");
        }
    }

    #[test]
    fn elsewhere_it_is_the_machine_id_and_without_one_the_boot() {
        let machine = Host::known_by("machine", MACHINE);
        assert_eq!(settle(&signs()), Seen::Known(machine.clone()));
        let hidden = Signs {
            firmware: false,
            ..signs()
        };
        assert_eq!(settle(&hidden), Seen::Instance(machine));
        for none in [
            "",
            "uninitialized",
            &"0".repeat(32),
            "3d12",
            &"x".repeat(32),
        ] {
            let seen = settle(&Signs {
                machine_id: none.into(),
                ..signs()
            });
            assert_eq!(seen, Seen::Known(Host::known_by("boot", "b")), "{none}");
        }
        // Of a machine that is none of EC2's the tag may say anything.
        for tag in [
            "",
            "none",
            "i-",
            "i-xyz",
            "i-0123456789abcdef; rm",
            "default string",
        ] {
            let seen = settle(&Signs {
                asset_tag: tag.into(),
                ..signs()
            });
            assert!(
                matches!(seen, Seen::Known(Host { instance: None, .. })),
                "{tag}"
            );
        }
    }

    #[test]
    fn this_host_is_the_same_at_each_look() {
        assert_eq!(look(), look());
    }
}
