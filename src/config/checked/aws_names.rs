//! Checks names of AWS's under `[fargate]` by the same rules as under `[ec2]`. The Go driver took anything there, so in its
//! files a wrong name is only a warning, and in others an error.

use std::time::Duration;

use super::super::file::Keys;
use super::super::settings::{Rung, Style};
use super::super::values::{
    parse_cluster, parse_platform_version, parse_region, parse_security_group, parse_subnet,
    parse_task_definition,
};
use super::{Check, Findings};

type Parse = fn(&str) -> Result<String, String>;

impl Check<'_> {
    /// Checks each name under `[fargate]`.
    pub(super) fn names(self, keys: &Keys, style: Style, found: &mut Findings) {
        let Some(fargate) = &keys.fargate else { return };
        let one: [(&str, &Option<String>, Parse); 7] = [
            ("region", &fargate.region, parse_region),
            ("cluster", &fargate.cluster, parse_cluster),
            (
                "task_definition",
                &fargate.task_definition,
                parse_task_definition,
            ),
            (
                "task_definition_arm64",
                &fargate.task_definition_arm64,
                parse_task_definition,
            ),
            (
                "platform_version",
                &fargate.platform_version,
                parse_platform_version,
            ),
            ("subnet", &fargate.subnet, parse_subnet),
            (
                "securitygroup",
                &fargate.securitygroup,
                parse_security_group,
            ),
        ];
        let many: [(&str, &Option<Vec<String>>, Parse); 2] = [
            ("subnets", &fargate.subnets, parse_subnet),
            (
                "security_groups",
                &fargate.security_groups,
                parse_security_group,
            ),
        ];
        let one = one
            .iter()
            .map(|(key, value, parse)| (*key, value.as_slice(), *parse));
        let many = many
            .iter()
            .map(|(key, values, parse)| (*key, values.as_deref().unwrap_or_default(), *parse));
        for (key, values, parse) in one.chain(many) {
            let path = format!("fargate.{key}");
            for cause in values.iter().filter_map(|value| parse(value).err()) {
                match style {
                    Style::New => found.wrong(self.problem(&path, &cause)),
                    Style::GoDriver => {
                        let shown = self
                            .location(&path)
                            .map_or(path.as_str(), |location| &location.shown);
                        found.odd(self.at_line(&path, &format!("{shown}: {cause}")));
                    }
                }
            }
        }
    }

    /// Refuses a `rung_wait` that is longer than `capacity_wait`: no rung after the first would ever be tried.
    pub(super) fn waits(self, keys: &Keys, all: Duration, found: &mut Findings) {
        let broken = self
            .paths("capacity_wait")
            .any(|path| self.locations.is_broken(&path));
        let alone = keys.capacity.as_deref() == Some(&[Rung::Local]);
        if let Some(one) = keys.rung_wait
            && one > all
            && !broken
            && !alone
        {
            let time = |wait| humantime::format_duration(wait).to_string();
            // It may be far away: in a profile, say, while the other is at the top of the file.
            let location = self.location("capacity_wait");
            let line = location.map_or_else(String::new, |location| {
                format!(" (line {})", self.source.line(location.key.start))
            });
            let cause = format!(
                "{} for one rung is more than the {} that capacity_wait{line} leaves for all of them",
                time(one),
                time(all)
            );
            let problem = self.plain_problem("rung_wait", &cause);
            found.wrong(problem.hint("Shorten rung_wait, or raise capacity_wait."));
        }
    }
}
