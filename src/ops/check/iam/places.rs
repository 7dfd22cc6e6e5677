//! Where a file's calls go: partition, region, account, and what they name there, as ARNs.

use super::account_of;
use crate::config::arn;
use crate::config::settings::{Ec2, Fargate, Settings};
use crate::image::Reference;
use crate::pattern;

/// The region of the examples.
const REGION: &str = ":eu-west-1:";
/// The account of the examples.
const ACCOUNT: &str = "111122223333";
/// The partitions that are not AWS's first one, by what their regions begin with.
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("us-iso-", "aws-iso"),
    ("eu-isoe-", "aws-iso-e"),
    ("eusc-", "aws-eusc"),
];

/// One account and region, and what a file names there.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    partition: String,
    /// None: as AWS's own settings on the host say.
    pub(super) region: Option<String>,
    /// `*` where the file does not say it.
    pub(super) account: String,
    cluster: String,
    /// ARNs of task definitions that jobs may run.
    pub(super) definitions: Vec<String>,
    /// ARNs of SSM parameters that name images.
    pub(super) parameters: Vec<String>,
    /// ARNs of the roles of instance profiles.
    pub(super) instance_roles: Vec<String>,
    /// ARNs of repositories.
    pub(super) repositories: Vec<String>,
    images: Vec<String>,
}

impl Place {
    /// Returns where calls about a file's tasks go, made by that role.
    pub(super) fn of_tasks(settings: &Settings, role: Option<&str>) -> Self {
        let none = Fargate::default();
        let fargate = settings.fargate.as_ref().unwrap_or(&none);
        let cluster = fargate.cluster.as_deref().unwrap_or("default");
        let by_arn = arn::cluster(cluster);
        let definition = fargate.task_definition.as_deref();
        let account = by_arn
            .map(|(_, account, _)| account.to_owned())
            .or_else(|| definition.and_then(account_of))
            .or_else(|| role.and_then(account_of));
        let region = by_arn.map(|(region, ..)| region.to_owned());
        let region = region.or_else(|| fargate.region.clone());
        let mut place = Self::new(region, account, &[Some(cluster), definition, role]);
        place.cluster = by_arn.map_or(cluster, |(.., name)| name).to_owned();
        let patterns = settings.limits.as_ref().map(|l| l.task_definitions.clone());
        // Without [limits] a job may choose any.
        let patterns = patterns.unwrap_or_else(|| vec!["*".to_owned()]);
        let own = [definition, fargate.task_definition_arm64.as_deref()];
        let own = own.into_iter().flatten().filter(|name| {
            let covered = |one: &String| is_covered(one, name);
            !patterns.iter().any(covered)
        });
        let all = own.map(str::to_owned).chain(patterns.iter().cloned());
        place.definitions = unique(all.map(|name| place.definition(&name)));
        place
    }

    /// Returns where calls about a file's instances go, made by that role.
    pub(super) fn of_instances(settings: &Settings, role: Option<&str>) -> Self {
        let none = Ec2::default();
        let ec2 = settings.ec2.as_ref().unwrap_or(&none);
        let profile = ec2.instance_profile.as_deref();
        // Tasks and instances that the same caller asks for are in one account.
        let same_caller = settings
            .fargate
            .as_ref()
            .filter(|f| f.role_arn == ec2.role_arn);
        let beside = same_caller.and_then(|f| f.cluster.as_deref().and_then(account_of));
        let account = profile
            .and_then(account_of)
            .or_else(|| role.and_then(account_of))
            .or(beside);
        let mut place = Self::new(ec2.region.clone(), account, &[profile, role]);
        place.instance_roles = profile
            .map(|profile| place.role(role_name(profile)))
            .into_iter()
            .collect();
        let own = [ec2.image_id.as_ref(), ec2.image_id_arm64.as_ref()];
        let limits = settings.limits.iter();
        let chosen = limits.clone().flat_map(|limits| &limits.machine_images);
        let chosen: Vec<&String> = chosen.collect();
        let own = own
            .into_iter()
            .flatten()
            .filter(|name| !chosen.iter().any(|one| pattern::fits(one, name, &['/'])));
        let named = own
            .chain(chosen.iter().copied())
            .filter(|name| name.starts_with(['/', '*']));
        place.parameters = unique(named.map(|name| place.parameter(name)));
        place.images = limits
            .flat_map(|limits| limits.images.clone())
            .chain(ec2.container_image.clone())
            .collect();
        place
    }

    /// Returns the place of a region and an account. Among the names there may be ARNs, which say the partition.
    fn new(region: Option<String>, account: Option<String>, names: &[Option<&str>]) -> Self {
        let begins = |region: &str| {
            PARTITIONS
                .iter()
                .find(|(begin, _)| region.starts_with(begin))
        };
        let of_region = region.as_deref().and_then(begins).map(|(_, name)| *name);
        let named = names.iter().flatten().find_map(|name| partition_of(name));
        Self {
            partition: named.or(of_region).unwrap_or("aws").to_owned(),
            region,
            account: account.unwrap_or_else(|| "*".to_owned()),
            ..Self::default()
        }
    }

    /// Puts this place into an ARN of the examples.
    pub(super) fn resource(&self, example: &str) -> String {
        let region = format!(":{}:", self.region());
        example
            .replace("arn:aws:", &format!("arn:{}:", self.partition))
            .replace(REGION, &region)
            .replace(ACCOUNT, &self.account)
            .replace(":task/ci/", &format!(":task/{}/", self.cluster))
    }

    /// Returns the names by which a service takes on roles there, by the one that it has elsewhere.
    pub(super) fn principals(&self, service: &str) -> Vec<String> {
        let elsewhere = service.to_owned();
        // In China EC2 has a name of its own; ECS has not.
        match self.partition == "aws-cn" && service.starts_with("ec2.") {
            true => vec![elsewhere, format!("{service}.cn")],
            false => vec![elsewhere],
        }
    }

    /// Returns the ARN of its cluster.
    pub(super) fn cluster_arn(&self) -> String {
        self.arn("ecs", &format!("cluster/{}", self.cluster))
    }

    /// Returns the ARN of a role there.
    pub(super) fn role(&self, name: &str) -> String {
        format!("arn:{}:iam::{}:role/{name}", self.partition, self.account)
    }

    /// Returns the places of the registries that images may come from: one at least.
    pub(super) fn registries(&self) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for image in &self.images {
            let Some((account, region, path)) = of_ecr(image) else {
                continue;
            };
            let mut place = Self::new(Some(region.to_owned()), Some(account.to_owned()), &[]);
            place.repositories = vec![place.repository(path)];
            found.push(place);
        }
        if found.is_empty() {
            let mut place = self.clone();
            place.repositories = vec![place.repository("*")];
            found.push(place);
        }
        found
    }

    fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("*")
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        format!(
            "arn:{}:{service}:{}:{}:{resource}",
            self.partition,
            self.region(),
            self.account
        )
    }

    /// Returns the ARN of a task definition, or of all that a pattern fits.
    fn definition(&self, name: &str) -> String {
        let name = name.replace("**", "*");
        let whole = match name.starts_with("arn:") {
            true => name,
            false => self.arn("ecs", &format!("task-definition/{name}")),
        };
        let last = whole.rsplit('/').next().unwrap_or_default();
        match last.contains(':') {
            true => whole,
            false => format!("{whole}:*"),
        }
    }

    /// Returns the ARN of a parameter; AWS's own belong to no account.
    fn parameter(&self, name: &str) -> String {
        let name = name.replace("**", "*");
        let name = name.trim_start_matches('/');
        match name.starts_with("aws/") {
            true => format!(
                "arn:{}:ssm:{}::parameter/{name}",
                self.partition,
                self.region()
            ),
            false => self.arn("ssm", &format!("parameter/{name}")),
        }
    }

    fn repository(&self, path: &str) -> String {
        self.arn("ecr", &format!("repository/{}", path.replace("**", "*")))
    }
}

/// Returns the partition that an ARN names.
fn partition_of(text: &str) -> Option<&str> {
    let (partition, _) = text.strip_prefix("arn:")?.split_once(':')?;
    partition.starts_with("aws").then_some(partition)
}

/// Whether a pattern fits all that a name means, whatever its revision.
fn is_covered(pattern: &str, name: &str) -> bool {
    let bare = |text: &str| !text.contains(':');
    pattern == "*"
        || (bare(pattern) && bare(name) && pattern::fits(pattern, name, pattern::OF_ARNS))
}

/// Returns the name of an instance profile, with its path; its role mostly has the same.
fn role_name(profile: &str) -> &str {
    let (_, name) = profile
        .split_once(":instance-profile/")
        .unwrap_or(("", profile));
    name
}

/// Takes an image of ECR, or a pattern of such, apart: account, region, repository.
fn of_ecr(image: &str) -> Option<(&str, &str, &str)> {
    let (host, path) = image.split_once('/')?;
    let (account, rest) = host.split_once(".dkr.ecr.")?;
    let (region, _) = rest.split_once(".amazonaws.com")?;
    let path = path.split(['@', ':']).next()?;
    // One that no image can have is no more than a pattern.
    let known = arn::is_account(account) || account == "*";
    (known && (Reference::parse(image).is_ok() || image.contains('*')))
        .then_some((account, region, path))
}

/// Leaves out duplicates.
pub(super) fn unique(all: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for one in all {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}
