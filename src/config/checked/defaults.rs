//! Makes settings of tables as written, with the defaults.

use std::time::Duration;

use super::super::file;
use super::super::settings::{CONTAINER, Ec2, Fargate, Limits, Match, Ssh};

/// From a running machine to the first login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// As long as the docker executor waits for services.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a running script may be out of reach.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

impl From<file::Ssh> for Ssh {
    fn from(ssh: file::Ssh) -> Self {
        Self {
            username: ssh.username.unwrap_or_else(|| "root".to_owned()),
            port: ssh.port.unwrap_or(22),
            connect_timeout: ssh.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            reconnect_timeout: ssh.reconnect_timeout.unwrap_or(RECONNECT_TIMEOUT),
        }
    }
}

impl From<file::Fargate> for Fargate {
    fn from(f: file::Fargate) -> Self {
        Self {
            region: f.region,
            cluster: f.cluster,
            task_definition: f.task_definition,
            task_definition_arm64: f.task_definition_arm64,
            subnets: one_or_many(f.subnet, f.subnets),
            security_groups: one_or_many(f.securitygroup, f.security_groups),
            enable_public_ip: f.enable_public_ip.unwrap_or(false),
            use_public_ip: f.use_public_ip,
            platform_version: f.platform_version,
            enable_execute_command: f.enable_execute_command.unwrap_or(false),
            container: f.container.unwrap_or_else(|| CONTAINER.to_owned()),
            role_arn: f.role_arn,
            propagate_tags: f.propagate_tags.unwrap_or(false),
            username: f.username,
            port: f.port,
        }
    }
}

fn one_or_many(one: Option<String>, many: Option<Vec<String>>) -> Vec<String> {
    many.unwrap_or_else(|| one.into_iter().collect())
}

impl From<file::Ec2> for Ec2 {
    fn from(e: file::Ec2) -> Self {
        Self {
            region: e.region,
            image_id: e.image_id,
            instance_types: e.instance_types.unwrap_or_default(),
            image_id_arm64: e.image_id_arm64,
            instance_types_arm64: e.instance_types_arm64.unwrap_or_default(),
            subnets: e.subnets.unwrap_or_default(),
            security_groups: e.security_groups.unwrap_or_default(),
            role_arn: e.role_arn,
            launch_template: e.launch_template,
            instance_profile: e.instance_profile,
            key_name: e.key_name,
            volume_size: e.volume_size,
            volume_type: e.volume_type,
            max_price: e.max_price,
            public_ip: e.public_ip.unwrap_or(false),
            use_public_ip: e.use_public_ip,
            use_ipv6: e.use_ipv6.unwrap_or(false),
            instance_connect: e.instance_connect.unwrap_or(false),
            container: e.container.unwrap_or(false),
            container_image: e.container_image,
            privileged: e.privileged.unwrap_or(false),
            docker_socket: e.docker_socket.unwrap_or(false),
            ecr_login: e.ecr_login.unwrap_or_default(),
            services_timeout: e.services_timeout.unwrap_or(SERVICES_TIMEOUT),
            username: e.username,
            port: e.port,
        }
    }
}

impl From<file::Limits> for Limits {
    fn from(l: file::Limits) -> Self {
        Self {
            task_definitions: l.task_definitions.unwrap_or_default(),
            roles: l.roles.unwrap_or_default(),
            images: l.images.unwrap_or_default(),
            max_cpu_millis: l.max_cpu,
            max_memory: l.max_memory,
            max_disk: l.max_disk,
            architectures: l.architectures.unwrap_or_default(),
            machine_images: l.machine_images.unwrap_or_default(),
            instance_types: l.instance_types.unwrap_or_default(),
            capacity: l.capacity.unwrap_or_default(),
        }
    }
}

impl From<file::Match> for Match {
    fn from(m: file::Match) -> Self {
        Self {
            job_name: m.job_name,
            project: m.project,
            reference: m.reference,
            protected: m.protected,
            image: m.image,
            variables: m.variables.unwrap_or_default(),
        }
    }
}
