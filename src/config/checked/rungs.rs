//! The rules between rungs and other keys: `local` is the only rung, and each rung has the keys that its machines need.

use super::super::file::Keys;
use super::super::settings::{EcrLogin, Rung};
use super::{Check, Findings};

/// Why `local` is refused.
const LOCAL_IS_OPEN: &str =
    "it runs jobs as the Runner's own user, beside its keys and its token, and isolates nothing";
/// What to do about it.
const LOCAL_REMEDY: &str = "Take \"local\" out; or, on a host that is there to run jobs itself, write capacity = [\"local\"] and allow_jobs_on_this_host = true.";

/// Said where no job in a container can run.
const NO_IMAGE: &str = "jobs run in containers, and there is no image for them: no container_image, and [limits] images allows none";

impl Check<'_> {
    /// Refuses `local` unless it is the only rung and the file allows it.
    pub(super) fn local(self, keys: &Keys, found: &mut Findings) {
        let base = keys.capacity.as_deref().unwrap_or_default();
        let allowed = keys.allow_jobs_on_this_host == Some(true);
        if base.contains(&Rung::Local) {
            let missing = if base.len() > 1 {
                "\"local\" cannot stand beside other rungs"
            } else if !allowed && !self.locations.is_broken("allow_jobs_on_this_host") {
                "\"local\" is refused without allow_jobs_on_this_host = true"
            } else {
                ""
            };
            if !missing.is_empty() {
                let cause = format!("{missing}: {LOCAL_IS_OPEN}");
                found.wrong(self.problem("capacity", &cause).hint(LOCAL_REMEDY));
            }
        } else if allowed {
            let warning = "allow_jobs_on_this_host changes nothing: capacity is not [\"local\"]";
            found.odd(self.at_line("allow_jobs_on_this_host", warning));
        }
        if self.locations.is_broken("capacity") {
            return;
        }
        for (i, profile) in keys.profile.iter().enumerate() {
            let Some(rungs) = &profile.capacity else {
                continue;
            };
            let cause = match (base == [Rung::Local], rungs.contains(&Rung::Local)) {
                (false, true) => {
                    format!("a profile cannot bring \"local\" beside other rungs: {LOCAL_IS_OPEN}")
                }
                (true, _) if *rungs != [Rung::Local] => {
                    format!(
                        "no other rung can stand beside the file's capacity = [\"local\"]: {LOCAL_IS_OPEN}"
                    )
                }
                _ => continue,
            };
            let problem = self.problem(&format!("profile[{i}].capacity"), &cause);
            found.wrong(problem.hint(LOCAL_REMEDY));
        }
    }

    /// Checks that rungs have what their machines need, also those that a job may choose.
    pub(super) fn rungs(self, keys: &Keys, found: &mut Findings) {
        let all = keys.capacity.as_deref().unwrap_or_default();
        let limits = keys.limits.as_ref();
        let choice = limits
            .and_then(|limits| limits.capacity.as_deref())
            .unwrap_or_default();
        if choice.contains(&Rung::Local) {
            let cause = format!("no job may choose \"local\": {LOCAL_IS_OPEN}");
            let problem = self.plain_problem("limits.capacity", &cause);
            found.wrong(problem.hint("Take \"local\" out of the list."));
        } else if all == [Rung::Local] && !choice.is_empty() {
            let cause = "jobs cannot choose another rung where capacity = [\"local\"]";
            let problem = self.plain_problem("limits.capacity", cause);
            found.wrong(problem.hint("Leave it out, or take \"local\" out of capacity."));
        }
        self.needs("capacity", all, keys, found);
        self.needs("limits.capacity", choice, keys, found);
        self.template(keys, found);
    }

    /// Refuses keys that an administrator's own launch template sets: they would change nothing.
    fn template(self, keys: &Keys, found: &mut Findings) {
        let Some(ec2) = keys.ec2.as_ref().filter(|e| e.launch_template.is_some()) else {
            return;
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
                let cause = "it stands in launch_template, which the file names as well";
                let problem = self.plain_problem(&format!("ec2.{key}"), cause);
                found.wrong(problem.hint(format!(
                    "Set it in the launch template and take {key} out, or take launch_template out."
                )));
            }
        }
    }

    /// Checks that the rungs of a list have what their machines need.
    fn needs(self, path: &str, rungs: &[Rung], keys: &Keys, found: &mut Findings) {
        let mut missing = |rung: &Rung, table: &str, key: &str, example: &str| {
            let cause = format!("the rung \"{rung}\" needs [{table}] {key}, which is not there");
            let problem = self
                .plain_problem(path, &cause)
                .hint(format!("For example, under [{table}]: {key} = {example}"));
            self.missing(table, key, problem, found);
        };
        let fargate = keys.fargate.clone().unwrap_or_default();
        if let Some(rung) = rungs.iter().find(|rung| rung.is_task()) {
            if fargate.task_definition.is_none() {
                missing(rung, "fargate", "task_definition", "\"ci-job\"");
            }
            let subnet = self.paths("fargate.subnet");
            let has_subnet = fargate.subnet.is_some() || fargate.subnets.is_some();
            if !has_subnet
                && !subnet
                    .into_iter()
                    .any(|path| self.locations.is_broken(&path))
            {
                missing(rung, "fargate", "subnets", "[\"subnet-0a1b2c3d\"]");
            }
        }
        let ec2 = keys.ec2.clone().unwrap_or_default();
        if let Some(rung) = rungs.iter().find(|rung| rung.is_instance()) {
            // An administrator's own launch template may set all of it.
            let mut templates = self.paths("ec2.launch_template");
            let template = ec2.launch_template.is_some()
                || templates.any(|path| self.locations.is_broken(&path));
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
                    missing(rung, "ec2", key, example);
                }
            }
        }
    }

    /// Checks the keys of containers on this host.
    pub(super) fn local_container(self, keys: &Keys, found: &mut Findings) {
        let local = &keys.local;
        if local.container != Some(true) {
            for (key, set) in [
                ("container_image", local.container_image.is_some()),
                ("agent", local.agent.is_some()),
            ] {
                if set {
                    let cause = "it is for jobs in containers, and container = true is not there";
                    let problem = self.plain_problem(&format!("local.{key}"), cause);
                    let hint = format!("Add container = true under [local], or take {key} out.");
                    self.missing("local", "container", problem.hint(hint), found);
                }
            }
            return;
        }
        if local.command.is_some() {
            let cause = "the machine is a container, and no program takes its place";
            let problem = self.plain_problem("local.command", cause);
            found.wrong(problem.hint("Take command or container out."));
        }
        let images = keys.limits.as_ref().and_then(|l| l.images.as_ref());
        if local.container_image.is_none() && images.is_none_or(Vec::is_empty) {
            found.odd(self.at_line("local.container", NO_IMAGE));
        }
    }

    /// Checks keys that only matter for jobs in containers.
    pub(super) fn container(self, keys: &Keys, found: &mut Findings) {
        let Some(ec2) = &keys.ec2 else { return };
        if ec2.container != Some(true) {
            for (key, set) in [
                ("privileged", ec2.privileged == Some(true)),
                ("docker_socket", ec2.docker_socket == Some(true)),
                ("ecr_login", ec2.ecr_login == Some(EcrLogin::Driver)),
                ("services_timeout", ec2.services_timeout.is_some()),
            ] {
                if set {
                    let cause = "it is for jobs in containers, and container = true is not there";
                    let problem = self
                        .plain_problem(&format!("ec2.{key}"), cause)
                        .hint(format!(
                            "Add container = true under [ec2], or take {key} out."
                        ));
                    self.missing("ec2", "container", problem, found);
                }
            }
            return;
        }
        let images = keys.limits.as_ref().and_then(|l| l.images.as_ref());
        if ec2.container_image.is_none() && images.is_none_or(Vec::is_empty) {
            found.odd(self.at_line("ec2.container", NO_IMAGE));
        }
    }
}
