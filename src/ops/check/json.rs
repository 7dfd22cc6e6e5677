//! What `check --json` prints.

use serde_json::{Map, Value, json};

use super::page::{missing, overridden};
use super::verdict::Verdict;
use crate::config::Loaded;
use crate::config::settings::{Ec2, Limits, Match, Profile, Rung, Settings, Style};

/// Returns the object that `--json` prints; its keys stay as they are.
pub(super) fn object(loaded: &Loaded, verdict: &Verdict) -> Value {
    json!({
        "path": loaded.path.display().to_string(),
        "style": match loaded.settings.style {
            Style::GoDriver => "go-driver",
            Style::New => "new",
        },
        "errors": verdict.errors_json(),
        "warnings": loaded.warnings,
        "verdict": verdict.verdict_json(),
        "not_in_this_version": missing(&loaded.settings),
        "settings": settings_json(&loaded.settings),
    })
}

fn settings_json(settings: &Settings) -> Value {
    json!({
        "capacity": rungs(&settings.capacity),
        "rung_wait_seconds": settings.rung_wait.as_secs_f64(),
        "capacity_wait_seconds": settings.capacity_wait.as_secs_f64(),
        "deadline_margin_seconds": settings.deadline_margin.as_secs_f64(),
        "allow_jobs_on_this_host": settings.allow_jobs_on_this_host,
        "builds_dir": settings.builds_dir,
        "cache_dir": settings.cache_dir,
        "log_level": settings.log.level.name(),
        "log_format": settings.log.format.name(),
        "log_file": settings.log.file.as_ref().map(|file| file.display().to_string()),
        "state": {
            "directory": settings.state_directory.display().to_string(),
            "manager": settings.manager,
        },
        "fleet": settings.fleet,
        "tags": table(&settings.tags),
        "ssh": {
            "username": settings.ssh.username,
            "port": settings.ssh.port,
            "connect_timeout_seconds": settings.ssh.connect_timeout.as_secs_f64(),
            "reconnect_timeout_seconds": settings.ssh.reconnect_timeout.as_secs_f64(),
        },
        "local": {
            "command": settings.local.command,
            "container": settings.local.container,
            "container_image": settings.local.container_image,
            "agent": settings.local.agent,
        },
        "fargate": settings.fargate.as_ref().map(|f| json!({
            "region": f.region,
            "cluster": f.cluster,
            "task_definition": f.task_definition,
            "task_definition_arm64": f.task_definition_arm64,
            "subnets": f.subnets,
            "security_groups": f.security_groups,
            "enable_public_ip": f.enable_public_ip,
            "use_public_ip": f.use_public_ip,
            "platform_version": f.platform_version,
            "enable_execute_command": f.enable_execute_command,
            "container": f.container,
            "role_arn": f.role_arn,
            "propagate_tags": f.propagate_tags,
            "username": f.username,
            "port": f.port,
        })),
        "ec2": settings.ec2.as_ref().map(ec2_json),
        "limits": settings.limits.as_ref().map(limits_json),
        "profiles": settings.profiles.iter().map(profile_json).collect::<Vec<_>>(),
    })
}

fn ec2_json(ec2: &Ec2) -> Value {
    json!({
        "region": ec2.region,
        "image_id": ec2.image_id,
        "instance_types": ec2.instance_types,
        "image_id_arm64": ec2.image_id_arm64,
        "instance_types_arm64": ec2.instance_types_arm64,
        "subnets": ec2.subnets,
        "security_groups": ec2.security_groups,
        "role_arn": ec2.role_arn,
        "launch_template": ec2.launch_template,
        "instance_profile": ec2.instance_profile,
        "key_name": ec2.key_name,
        "volume_size_bytes": ec2.volume_size,
        "volume_type": ec2.volume_type,
        "max_price": ec2.max_price,
        "public_ip": ec2.public_ip,
        "use_public_ip": ec2.use_public_ip,
        "use_ipv6": ec2.use_ipv6,
        "instance_connect": ec2.instance_connect,
        "container": ec2.container,
        "container_image": ec2.container_image,
        "privileged": ec2.privileged,
        "docker_socket": ec2.docker_socket,
        "ecr_login": ec2.ecr_login.name(),
        "services_timeout_seconds": ec2.services_timeout.as_secs_f64(),
        "username": ec2.username,
        "port": ec2.port,
    })
}

fn limits_json(limits: &Limits) -> Value {
    let architectures = limits.architectures.iter();
    json!({
        "task_definitions": limits.task_definitions,
        "roles": limits.roles,
        "images": limits.images,
        "max_cpu_millis": limits.max_cpu_millis,
        "max_memory_bytes": limits.max_memory,
        "max_disk_bytes": limits.max_disk,
        "architectures": architectures.map(ToString::to_string).collect::<Vec<_>>(),
        "machine_images": limits.machine_images,
        "instance_types": limits.instance_types,
        "capacity": rungs(&limits.capacity),
    })
}

fn profile_json(profile: &Profile) -> Value {
    let Match {
        job_name,
        project,
        reference,
        protected,
        image,
        variables,
    } = &profile.matches;
    json!({
        "name": profile.name,
        "match": {
            "job_name": job_name, "project": project, "ref": reference, "protected": protected, "image": image,
            "variables": table(variables),
        },
        "overrides": overridden(&profile.overrides),
        "capacity": profile.overrides.capacity.as_deref().map(rungs),
    })
}

pub(super) fn table(pairs: &[(String, String)]) -> Map<String, Value> {
    let pairs = pairs.iter();
    pairs.map(|(k, v)| (k.clone(), v.clone().into())).collect()
}

pub(super) fn rungs(rungs: &[Rung]) -> Vec<String> {
    rungs.iter().map(Rung::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn loaded(text: &str) -> Loaded {
        config::parse(text, Path::new("f.toml")).expect("right")
    }

    #[test]
    fn json_keeps_its_keys() {
        let shown = |text| {
            let loaded = loaded(text);
            let verdict = Verdict::right(&loaded.warnings, Vec::new(), false);
            object(&loaded, &verdict)
        };
        let json = shown(include_str!("../../../config-examples/fargate-spot.toml"));
        assert_eq!(json["path"], "f.toml");
        assert_eq!(json["style"], "new");
        assert_eq!(json["warnings"], json!([]));
        assert_eq!(json["errors"], json!([]));
        assert_eq!(json["verdict"]["good"], true);
        let settings = &json["settings"];
        assert_eq!(settings["capacity"], json!(["fargate-spot", "fargate"]));
        assert_eq!(settings["rung_wait_seconds"], 300.0);
        assert_eq!(settings["ssh"]["port"], 22);
        assert_eq!(settings["limits"]["max_memory_bytes"], 16_u64 << 30);
        let profile = "capacity = [\"fargate\"]\n[fargate]\nsubnets = [\"subnet-1\"]\ntask_definition = \"a\"\n\
                       [[profile]]\nname = \"x\"\nmatch = { protected = true }\ncapacity = [\"fargate\"]";
        let profile = shown(profile);
        assert_eq!(
            profile["settings"]["profiles"][0]["overrides"][0],
            "capacity"
        );
        let go = shown("[Fargate]\nCluster = \"a\"");
        assert_eq!(go["style"], "go-driver");
        assert_eq!(go["settings"]["limits"], Value::Null);
        assert_eq!(go["warnings"].as_array().map(Vec::len), Some(1));
    }
}
