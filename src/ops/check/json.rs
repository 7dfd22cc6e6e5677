//! What `check --json` prints.

use serde_json::{Map, Value, json};

use super::{missing, overridden};
use crate::config::Loaded;
use crate::config::settings::{Limits, Match, Profile, Rung, Settings, Style};

/// Returns the object that `--json` prints; its keys stay as they are.
pub(super) fn object(loaded: &Loaded) -> Value {
    json!({
        "path": loaded.path.display().to_string(),
        "style": match loaded.settings.style {
            Style::GoDriver => "go-driver",
            Style::New => "new",
        },
        "warnings": loaded.warnings,
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
        "state": { "directory": settings.state_directory.display().to_string() },
        "fleet": settings.fleet,
        "tags": settings.tags.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect::<Map<_, _>>(),
        "ssh": {
            "username": settings.ssh.username,
            "port": settings.ssh.port,
            "connect_timeout_seconds": settings.ssh.connect_timeout.as_secs_f64(),
            "reconnect_timeout_seconds": settings.ssh.reconnect_timeout.as_secs_f64(),
        },
        "local": { "command": settings.local.command },
        "fargate": settings.fargate.as_ref().map(|f| json!({
            "region": f.region,
            "cluster": f.cluster,
            "task_definition": f.task_definition,
            "subnets": f.subnets,
            "security_groups": f.security_groups,
            "enable_public_ip": f.enable_public_ip,
            "use_public_ip": f.use_public_ip,
            "platform_version": f.platform_version,
            "enable_execute_command": f.enable_execute_command,
            "container": f.container,
            "role_arn": f.role_arn,
            "propagate_tags": f.propagate_tags,
        })),
        "ec2": settings.ec2.as_ref().map(|e| json!({
            "region": e.region,
            "image_id": e.image_id,
            "instance_types": e.instance_types,
            "subnets": e.subnets,
            "security_groups": e.security_groups,
        })),
        "limits": settings.limits.as_ref().map(limits_json),
        "profiles": settings.profiles.iter().map(profile_json).collect::<Vec<_>>(),
    })
}

fn limits_json(limits: &Limits) -> Value {
    json!({
        "task_definitions": limits.task_definitions,
        "roles": limits.roles,
        "images": limits.images,
        "max_cpu_millis": limits.max_cpu_millis,
        "max_memory_bytes": limits.max_memory,
    })
}

fn profile_json(profile: &Profile) -> Value {
    let Match {
        job_name,
        project,
        protected,
    } = &profile.matches;
    json!({
        "name": profile.name,
        "match": { "job_name": job_name, "project": project, "protected": protected },
        "overrides": overridden(&profile.overrides),
        "capacity": profile.overrides.capacity.as_deref().map(rungs),
    })
}

fn rungs(rungs: &[Rung]) -> Vec<String> {
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
        let json = object(&loaded(include_str!(
            "../../../config-examples/fargate-spot.toml"
        )));
        assert_eq!(json["path"], "f.toml");
        assert_eq!(json["style"], "new");
        assert_eq!(json["warnings"], json!([]));
        let settings = &json["settings"];
        assert_eq!(settings["capacity"], json!(["fargate-spot", "fargate"]));
        assert_eq!(settings["rung_wait_seconds"], 300.0);
        assert_eq!(settings["ssh"]["port"], 22);
        assert_eq!(settings["limits"]["max_memory_bytes"], 16_u64 << 30);
        let profile = "capacity = [\"fargate\"]\n[fargate]\nsubnets = [\"subnet-1\"]\ntask_definition = \"a\"\n\
                       [[profile]]\nname = \"x\"\nmatch = { protected = true }\ncapacity = [\"fargate\"]";
        let profile = object(&loaded(profile));
        assert_eq!(
            profile["settings"]["profiles"][0]["overrides"][0],
            "capacity"
        );
        let go = object(&loaded("[Fargate]\nCluster = \"a\""));
        assert_eq!(go["style"], "go-driver");
        assert_eq!(go["settings"]["limits"], Value::Null);
        assert_eq!(go["warnings"].as_array().map(Vec::len), Some(1));
    }
}
