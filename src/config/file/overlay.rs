//! A profile over the file: a key in the profile overrides the same key in the file.

use super::{Directory, Ec2, Fargate, Keys, Limits, Local, Ssh, State};

/// Takes each key from `$over` if it is there, and else from `$base`. All keys of the struct have to be
/// named, so that none can be forgotten.
macro_rules! lay {
    ($type:ident, $base:expr, $over:expr, $($key:ident),* $(,)?) => {{
        let ($type { $($key),* }, base) = ($over.clone(), $base.clone());
        $type { $($key: $key.or(base.$key)),* }
    }};
}

impl Keys {
    /// Returns these keys with a profile's over them. Keys that only the file may have stay as they are.
    pub(in crate::config) fn overlaid(&self, profile: &Self) -> Self {
        let base = self.clone();
        let Self {
            capacity,
            rung_wait,
            capacity_wait,
            builds_dir,
            cache_dir,
            tags,
            ssh,
            fargate,
            ec2,
            limits,
            // A profile's own, and what none may set.
            name: _,
            matches: _,
            deadline_margin: _,
            allow_jobs_on_this_host: _,
            log_level: _,
            log_format: _,
            log_file: _,
            state: State {
                directory: _,
                manager: _,
            },
            taskmetadata: Directory { directory: _ },
            fleet: _,
            local:
                Local {
                    command: _,
                    container: _,
                    container_image: _,
                    agent: _,
                },
            profile: _,
        } = profile;
        Self {
            capacity: capacity.clone().or(base.capacity),
            rung_wait: rung_wait.or(base.rung_wait),
            capacity_wait: capacity_wait.or(base.capacity_wait),
            builds_dir: builds_dir.clone().or(base.builds_dir),
            cache_dir: cache_dir.clone().or(base.cache_dir),
            tags: match (base.tags, tags) {
                (Some(base), Some(over)) => Some(pairs(&base, over)),
                (base, over) => over.clone().or(base),
            },
            ssh: base.ssh.overlaid(ssh),
            fargate: both(base.fargate, fargate, Fargate::overlaid),
            ec2: both(base.ec2, ec2, Ec2::overlaid),
            limits: both(base.limits, limits, Limits::overlaid),
            profile: Vec::new(),
            name: None,
            matches: None,
            ..base
        }
    }
}

/// Puts one table over another, if both are there.
fn both<T: Clone>(base: Option<T>, over: &Option<T>, lay: fn(&T, &T) -> T) -> Option<T> {
    match (base, over) {
        (Some(base), Some(over)) => Some(lay(&base, over)),
        (base, over) => over.clone().or(base),
    }
}

fn pairs(base: &[(String, String)], over: &[(String, String)]) -> Vec<(String, String)> {
    let kept = base
        .iter()
        .filter(|(key, _)| over.iter().all(|(other, _)| other != key));
    kept.chain(over).cloned().collect()
}

impl Ssh {
    fn overlaid(&self, over: &Self) -> Self {
        lay!(
            Ssh,
            self,
            over,
            username,
            port,
            connect_timeout,
            reconnect_timeout
        )
    }
}

impl Fargate {
    fn overlaid(&self, over: &Self) -> Self {
        let mut base = self.clone();
        // Two spellings of one thing: the one in the profile replaces both.
        if over.subnet.is_some() || over.subnets.is_some() {
            (base.subnet, base.subnets) = (None, None);
        }
        if over.securitygroup.is_some() || over.security_groups.is_some() {
            (base.securitygroup, base.security_groups) = (None, None);
        }
        lay!(
            Fargate,
            base,
            over,
            region,
            cluster,
            task_definition,
            task_definition_arm64,
            subnet,
            subnets,
            securitygroup,
            security_groups,
            enable_public_ip,
            use_public_ip,
            platform_version,
            enable_execute_command,
            container,
            role_arn,
            propagate_tags,
            username,
            port,
        )
    }
}

impl Ec2 {
    fn overlaid(&self, over: &Self) -> Self {
        lay!(
            Ec2,
            self,
            over,
            region,
            image_id,
            instance_types,
            image_id_arm64,
            instance_types_arm64,
            subnets,
            security_groups,
            role_arn,
            launch_template,
            instance_profile,
            key_name,
            volume_size,
            volume_type,
            max_price,
            public_ip,
            use_public_ip,
            use_ipv6,
            instance_connect,
            container,
            container_image,
            privileged,
            docker_socket,
            ecr_login,
            services_timeout,
            username,
            port,
        )
    }
}

impl Limits {
    fn overlaid(&self, over: &Self) -> Self {
        lay!(
            Limits,
            self,
            over,
            task_definitions,
            roles,
            images,
            max_cpu,
            max_memory,
            max_disk,
            architectures,
            machine_images,
            instance_types,
            capacity,
        )
    }
}
