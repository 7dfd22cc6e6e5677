//! The request of an `ec2` rung, from the settings.

use super::overwrites::{SettledInstance, SettledRole};
use crate::config::settings::Ec2;
use crate::error::{Error, Kind, Result};
use crate::machine::access::{Access, Role};
use crate::machine::instance::{Dial, InstanceRequest, Least, Market, Subnet, Template};
use crate::machine::proof;
use crate::machine::tags::{self, Owner};
use crate::machine::template::{Given, Root, Setting};
use crate::plan::user_data::UserData;
use crate::plan::{Attempt, PlanInput, SESSION_NAME};

/// The root volume's type, if only its size is set.
const VOLUME_TYPE: &str = "gp3";
/// EC2 measures memory in MiB.
const MIB: u64 = 1 << 20;

/// The part of the user data that is the same for every launch of a plan.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) login: String,
    pub(super) public_key: String,
    pub(super) directories: Vec<String>,
}

impl PlanInput<'_> {
    /// Returns the request of an instance, without the parts that differ from launch to launch.
    pub(super) fn instance_request(
        &self,
        settled: &SettledInstance,
        market: Market,
    ) -> Result<InstanceRequest> {
        let Some(ec2) = &self.settings.ec2 else {
            return Err(Error::new(
                Kind::Config,
                "the configuration has no [ec2], and an instance needs it",
            )
            .hint("It names at least image_id, instance_types and subnets."));
        };
        let template = match &ec2.launch_template {
            Some(named) => Template::Given(Given::read(named)),
            None => Template::Own(Box::new(self.setting(ec2, settled, market))),
        };
        let given = ec2.launch_template.is_some();
        Ok(InstanceRequest {
            access: access(ec2, settled.role.as_ref()),
            market,
            template,
            image: settled.image.clone().filter(|_| given),
            instance_types: settled.types.clone(),
            least: Least {
                cpu: settled.min_cpu_millis.map(|millis| millis.div_ceil(1000)),
                memory: settled.min_memory.map(|bytes| bytes.div_ceil(MIB)),
            },
            subnets: ec2.subnets.iter().map(|id| subnet(id)).collect(),
            max_price: ec2.max_price.clone(),
            dial: dial(ec2),
            user_data: String::new(),
            host_key: String::new(),
            admitted: ec2.instance_connect.then(|| self.public_key.clone()),
            token: String::new(),
            tags: self.tags(),
        })
    }

    fn setting(&self, ec2: &Ec2, settled: &SettledInstance, market: Market) -> Setting {
        let root = (settled.disk.is_some() || ec2.volume_type.is_some()).then(|| Root {
            device: None,
            size: settled.disk,
            kind: ec2
                .volume_type
                .clone()
                .unwrap_or_else(|| VOLUME_TYPE.to_owned()),
        });
        let owner = Owner {
            fleet: &self.settings.fleet,
            manager: self.manager,
            ..Owner::default()
        };
        let tags = tags::all(&owner, &self.settings.tags).tags;
        // The same for all launches of the setting: the template's name is a digest of it.
        let token = proof::token(&[self.manager, "template"], &tags);
        Setting {
            image: settled.image.clone().unwrap_or_default(),
            market,
            instance_profile: ec2.instance_profile.clone(),
            key_name: ec2.key_name.clone(),
            security_groups: ec2.security_groups.clone(),
            public_ip: ec2.public_ip,
            ipv6: ec2.use_ipv6,
            root,
            tags: proof::sealed(&token, &tags),
        }
    }
}

/// Returns the request of one launch: its own parts beside those of the rung.
pub(super) fn launch(
    request: &InstanceRequest,
    common: &Common,
    token: String,
    attempt: &Attempt,
) -> Result<InstanceRequest> {
    let directories: Vec<&str> = common.directories.iter().map(String::as_str).collect();
    let user_data = UserData {
        login: &common.login,
        public_key: match request.admitted {
            Some(_) => None,
            None => Some(&common.public_key),
        },
        host_key: &attempt.host_key,
        lifetime: attempt.lifetime,
        directories: &directories,
    };
    // With it a launch is found whose answer was lost.
    let tags = proof::sealed(&token, &request.tags);
    Ok(InstanceRequest {
        user_data: user_data.render()?,
        host_key: attempt.host_key_line.clone(),
        token,
        tags,
        ..request.clone()
    })
}

/// Returns where calls about instances go, and as whom.
#[must_use]
pub fn access(ec2: &Ec2, role: Option<&SettledRole>) -> Access {
    Access {
        region: ec2.region.clone(),
        role: role.map(|role| Role {
            arn: role.arn.clone(),
            session_name: tags::session_name(SESSION_NAME),
            tags: role.tags.clone(),
        }),
    }
}

fn subnet(id: &str) -> Subnet {
    Subnet {
        id: id.to_owned(),
        zone: None,
    }
}

/// With the driver's own template there is a public address if `public_ip` asks for one. With an administrator's template that is
/// unknown.
fn dial(ec2: &Ec2) -> Dial {
    match (ec2.use_ipv6, ec2.use_public_ip.unwrap_or(ec2.public_ip)) {
        (true, _) => Dial::Ipv6,
        (false, true) => Dial::Public,
        (false, false) => Dial::Private,
    }
}
