//! What only holds between rungs and other keys: `local` stands alone, and each rung has what its machines need.

use super::super::file::Keys;
use super::super::settings::{EcrLogin, Rung};
use super::Check;
use crate::error::Result;

/// Why `local` is refused.
const LOCAL_IS_OPEN: &str =
    "it runs jobs as the Runner's own user, beside its keys and its token, and isolates nothing";
/// What to do about it.
const LOCAL_REMEDY: &str = "Take \"local\" out; or, on a host that is there to run jobs itself, write capacity = [\"local\"] and allow_jobs_on_this_host = true.";

impl Check<'_> {
    /// Refuses `local` unless the whole file is about it and says so.
    pub(super) fn local(self, keys: &Keys, warnings: &mut Vec<String>) -> Result<()> {
        let base = keys.capacity.as_deref().unwrap_or_default();
        let allowed = keys.allow_jobs_on_this_host == Some(true);
        if base.contains(&Rung::Local) {
            let missing = if base.len() > 1 {
                "\"local\" cannot stand beside other rungs"
            } else if !allowed {
                "\"local\" is refused without allow_jobs_on_this_host = true"
            } else {
                ""
            };
            if !missing.is_empty() {
                let message = format!("{missing}: {LOCAL_IS_OPEN}");
                return Err(self.error("capacity", &message).hint(LOCAL_REMEDY));
            }
        } else if allowed {
            let line = self
                .spots
                .get("allow_jobs_on_this_host")
                .map_or(1, |spot| self.place.line(spot.key.start));
            warnings.push(format!(
                "{}:{line}: allow_jobs_on_this_host changes nothing: capacity is not [\"local\"]",
                self.place.path.display()
            ));
        }
        for (i, profile) in keys.profile.iter().enumerate() {
            let Some(rungs) = &profile.capacity else {
                continue;
            };
            let path = format!("profile[{i}].capacity");
            match (base == [Rung::Local], rungs.contains(&Rung::Local)) {
                (false, true) => {
                    let message = format!(
                        "a profile cannot bring \"local\" beside other rungs: {LOCAL_IS_OPEN}"
                    );
                    return Err(self.error(&path, &message).hint(LOCAL_REMEDY));
                }
                (true, _) if *rungs != [Rung::Local] => {
                    let message = format!(
                        "no other rung can stand beside the file's capacity = [\"local\"]: {LOCAL_IS_OPEN}"
                    );
                    return Err(self.error(&path, &message).hint(LOCAL_REMEDY));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that rungs have what their machines need, also those that a job may choose.
    pub(super) fn rungs(self, keys: &Keys) -> Result<()> {
        let all = keys.capacity.as_deref().unwrap_or_default();
        let limits = keys.limits.as_ref();
        let choice = limits
            .and_then(|limits| limits.capacity.as_deref())
            .unwrap_or_default();
        if choice.contains(&Rung::Local) {
            let message = format!("no job may choose \"local\": {LOCAL_IS_OPEN}");
            return Err(self
                .plain_error("limits.capacity", &message)
                .hint("Take \"local\" out of the list."));
        }
        if all == [Rung::Local] && !choice.is_empty() {
            let message = "jobs cannot choose another rung where capacity = [\"local\"]";
            return Err(self
                .plain_error("limits.capacity", message)
                .hint("Leave it out, or take \"local\" out of capacity."));
        }
        self.needs("capacity", all, keys)?;
        self.needs("limits.capacity", choice, keys)?;
        self.template(keys)
    }

    /// Refuses keys that say what a launch template of the administrator's own says: they would change nothing.
    fn template(self, keys: &Keys) -> Result<()> {
        let Some(ec2) = keys.ec2.as_ref().filter(|e| e.launch_template.is_some()) else {
            return Ok(());
        };
        for (key, set) in [
            ("security_groups", ec2.security_groups.is_some()),
            ("instance_profile", ec2.instance_profile.is_some()),
            ("key_name", ec2.key_name.is_some()),
            ("volume_size", ec2.volume_size.is_some()),
            ("volume_type", ec2.volume_type.is_some()),
            ("public_ip", ec2.public_ip.is_some()),
        ] {
            if set {
                let message = "it stands in launch_template, which the file names as well";
                return Err(self
                    .plain_error(&format!("ec2.{key}"), message)
                    .hint(format!(
                        "Set it in the launch template and take {key} out, or take launch_template out."
                    )));
            }
        }
        Ok(())
    }

    /// Checks that the rungs of a list have what their machines need.
    fn needs(self, path: &str, rungs: &[Rung], keys: &Keys) -> Result<()> {
        let missing = |rung: &Rung, table: &str, key: &str, example: &str| {
            let message = format!("the rung \"{rung}\" needs [{table}] {key}, which is not there");
            let error = self
                .plain_error(path, &message)
                .hint(format!("For example, under [{table}]: {key} = {example}"));
            Err(self.missing(table, key, error))
        };
        let fargate = keys.fargate.clone().unwrap_or_default();
        if let Some(rung) = rungs.iter().find(|rung| rung.is_task()) {
            if fargate.task_definition.is_none() {
                return missing(rung, "fargate", "task_definition", "\"ci-job\"");
            }
            if fargate.subnet.is_none() && fargate.subnets.is_none() {
                return missing(rung, "fargate", "subnets", "[\"subnet-0a1b2c3d\"]");
            }
        }
        let ec2 = keys.ec2.clone().unwrap_or_default();
        if let Some(rung) = rungs.iter().find(|rung| rung.is_instance()) {
            // A launch template of the administrator's own may say all of it.
            let template = ec2.launch_template.is_some();
            for (key, example, there) in [
                (
                    "image_id",
                    "\"ami-0123456789abcdef0\"",
                    ec2.image_id.is_some(),
                ),
                (
                    "instance_types",
                    "[\"c7i.large\", \"m7i.large\"]",
                    ec2.instance_types.is_some(),
                ),
                ("subnets", "[\"subnet-0a1b2c3d\"]", ec2.subnets.is_some()),
            ] {
                if !there && !template {
                    return missing(rung, "ec2", key, example);
                }
            }
        }
        Ok(())
    }

    /// Checks what only means something for jobs in containers.
    pub(super) fn container(self, keys: &Keys, warnings: &mut Vec<String>) -> Result<()> {
        let Some(ec2) = &keys.ec2 else { return Ok(()) };
        if ec2.container != Some(true) {
            for (key, set) in [
                ("privileged", ec2.privileged == Some(true)),
                ("docker_socket", ec2.docker_socket == Some(true)),
                ("ecr_login", ec2.ecr_login == Some(EcrLogin::Driver)),
                ("services_timeout", ec2.services_timeout.is_some()),
            ] {
                if set {
                    let message = "it is for jobs in containers, and container = true is not there";
                    let error = self
                        .plain_error(&format!("ec2.{key}"), message)
                        .hint(format!(
                            "Add container = true under [ec2], or take {key} out."
                        ));
                    return Err(self.missing("ec2", "container", error));
                }
            }
            return Ok(());
        }
        let images = keys.limits.as_ref().and_then(|l| l.images.as_ref());
        if ec2.container_image.is_none() && images.is_none_or(Vec::is_empty) {
            let line = self
                .spot("ec2.container")
                .map_or(1, |spot| self.place.line(spot.key.start));
            warnings.push(format!(
                "{}:{line}: jobs run in containers, and there is no image for them: no container_image, and [limits] images allows none",
                self.place.path.display()
            ));
        }
        Ok(())
    }
}
