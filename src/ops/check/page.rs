//! The explanation that `check` prints: a word on the left, what it means on the right.

use std::fmt::Write as _;
use std::time::Duration;

use crate::compute::ec2;
use crate::compute::kind::MachineKind;
use crate::config::file::Keys;
use crate::config::settings::{
    CONTAINER, Ec2, Fargate, Limits, Log, Profile, Rung, Settings, Style,
};
use crate::config::{Loaded, display};

/// Returns whether this build can run jobs on the rung.
fn is_here(rung: &Rung) -> bool {
    match rung {
        Rung::Local | Rung::FargateSpot | Rung::Fargate | Rung::Ecs(_) => true,
        Rung::Ec2Spot | Rung::Ec2 => ec2::Instances::HERE,
    }
}

/// Returns what the file asks for and this version does not have.
pub(super) fn missing(settings: &Settings) -> Vec<String> {
    let mut missing = Vec::new();
    for rung in settings.each().flat_map(|settings| &settings.capacity) {
        let name = rung.to_string();
        if !is_here(rung) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    missing
}

/// The explanation.
pub(super) struct Page(pub(super) String);

impl Page {
    pub(super) fn heading(&mut self, text: &str) {
        self.0.push('\n');
        self.0.push_str(text);
        self.0.push('\n');
    }

    pub(super) fn line(&mut self, what: &str, meaning: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {what:<18} {meaning}");
    }
}

pub(super) fn as_text(loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let mut page = Page(String::new());
    let style = match settings.style {
        Style::GoDriver => {
            "a file of GitLab's Go Fargate driver; it is taken as that driver took it"
        }
        Style::New => "a file of this driver",
    };
    let _ = writeln!(page.0, "{}: {style}", loaded.path.display());

    page.heading("Where jobs run");
    capacity(&mut page, settings);
    if let Some(fargate) = &settings.fargate {
        page.heading("Fargate and ECS");
        fargate_lines(&mut page, fargate);
        if fargate.username.is_some() || fargate.port.is_some() {
            page.line("login", &told(settings.login_of_tasks()));
        }
    }
    if let Some(ec2) = &settings.ec2 {
        page.heading("EC2");
        ec2_lines(&mut page, ec2);
        if ec2.username.is_some() || ec2.port.is_some() {
            page.line("login", &told(settings.login_of_instances()));
        }
    }

    page.heading("How a machine is logged in to");
    ssh_lines(&mut page, settings);
    if !settings.local.command.is_empty() {
        let words: Vec<_> = settings.local.command.iter().map(|w| word(w)).collect();
        page.line(
            "local server",
            &format!("{}, in place of the built-in one", words.join(" ")),
        );
    }

    page.heading("What a job may choose");
    match &settings.limits {
        None => page.line(
            "anything",
            "no [limits], as with the Go driver: any task definition, any role",
        ),
        Some(limits) => limit_lines(&mut page, limits),
    }

    if !settings.profiles.is_empty() {
        page.heading("Profiles, the first that fits a job");
        for profile in &settings.profiles {
            page.line(&profile.name, &profile_line(profile));
        }
    }

    page.heading("How machines are told from others");
    page.line("fleet", &settings.fleet);
    if settings.each().any(|s| s.ec2.is_some()) {
        page.line(
            "IAM",
            "the bastion's policy names the fleet: check --iam prints it",
        );
    }
    for (key, value) in &settings.tags {
        page.line("tag", &format!("{key} = {value}"));
    }

    page.heading("On this host");
    page.line("state", &settings.state_directory.display().to_string());
    if let Some(name) = &settings.manager {
        page.line("manager", name);
    }
    page.line("diagnostics", &log_line(&settings.log));
    let told = |dir: &Option<String>| {
        dir.clone()
            .unwrap_or_else(|| match settings.capacity.as_slice() {
                [Rung::Local] if settings.local.container => {
                    "in the job's container, and gone with it".to_owned()
                }
                [Rung::Local] => "below the state directory".to_owned(),
                _ => "as config.toml says".to_owned(),
            })
    };
    page.line("builds", &told(&settings.builds_dir));
    page.line("cache", &told(&settings.cache_dir));

    let missing = missing(settings);
    if !missing.is_empty() {
        page.0.push('\n');
        for what in missing {
            let _ = writeln!(page.0, "{what}: not in this version");
        }
    }
    page.0
}

fn capacity(page: &mut Page, settings: &Settings) {
    if settings.capacity.is_empty() {
        page.line(
            "the cluster's own",
            "default capacity provider strategy decides; Fargate where it has none",
        );
    }
    let here = match settings.local.container {
        true => "a container of this host's docker",
        false => "this host, as the Runner's own user: isolates nothing",
    };
    for (i, rung) in settings.capacity.iter().enumerate() {
        let what = match rung {
            Rung::FargateSpot => "a task on Fargate Spot".to_owned(),
            Rung::Fargate => "a task on Fargate, on demand".to_owned(),
            Rung::Ecs(name) => format!("a task on the cluster's capacity provider {name}"),
            Rung::Ec2Spot => "a Spot instance of EC2".to_owned(),
            Rung::Ec2 => "an instance of EC2, on demand".to_owned(),
            Rung::Local => here.to_owned(),
        };
        let not_yet = if is_here(rung) {
            ""
        } else {
            " (not in this version)"
        };
        page.line(&format!("{}. {rung}", i + 1), &format!("{what}{not_yet}"));
    }
    if settings.capacity != [Rung::Local] {
        page.line(
            "waiting",
            &format!(
                "up to {} for one of these, {} in all",
                time(settings.rung_wait),
                time(settings.capacity_wait)
            ),
        );
    }
}

fn fargate_lines(page: &mut Page, fargate: &Fargate) {
    let missing = || "-".to_owned();
    let or = |value: &Option<String>, what: &str| value.clone().unwrap_or_else(|| what.to_owned());
    page.line(
        "region",
        &or(&fargate.region, "as AWS's own settings on this host say"),
    );
    page.line("cluster", &or(&fargate.cluster, "the region's default one"));
    page.line(
        "task definition",
        &fargate.task_definition.clone().unwrap_or_else(missing),
    );
    if let Some(arm) = &fargate.task_definition_arm64 {
        page.line("arm64", arm);
    }
    if fargate.container != CONTAINER {
        page.line("container", &fargate.container);
    }
    page.line("subnets", &list(&fargate.subnets, "-"));
    page.line(
        "security groups",
        &list(&fargate.security_groups, "the VPC's default one"),
    );
    if let Some(version) = &fargate.platform_version {
        page.line("platform version", version);
    }
    let address = match (
        fargate.enable_public_ip,
        fargate.use_public_ip.unwrap_or(fargate.enable_public_ip),
    ) {
        (true, true) => "public, and dialled",
        (true, false) => "public for outbound traffic; the private one is dialled",
        (false, true) => "none is public; use_public_ip changes nothing without enable_public_ip",
        (false, false) => "private",
    };
    page.line("address", address);
    if fargate.enable_execute_command {
        page.line("ECS Exec", "on");
    }
    if let Some(role) = &fargate.role_arn {
        page.line("role", role);
    }
    if fargate.propagate_tags {
        page.line("task's tags", "those of its task definition too");
    }
}

fn ec2_lines(page: &mut Page, ec2: &Ec2) {
    let from_template = match ec2.launch_template {
        Some(_) => "as the launch template says",
        None => "-",
    };
    let or = |value: &Option<String>, what: &str| value.clone().unwrap_or_else(|| what.to_owned());
    page.line(
        "region",
        &or(&ec2.region, "as AWS's own settings on this host say"),
    );
    if let Some(template) = &ec2.launch_template {
        page.line("launch template", template);
    }
    page.line("image", &or(&ec2.image_id, from_template));
    page.line("instance types", &list(&ec2.instance_types, from_template));
    if ec2.image_id_arm64.is_some() || !ec2.instance_types_arm64.is_empty() {
        page.line("image, arm64", &or(&ec2.image_id_arm64, "-"));
        page.line("types, arm64", &list(&ec2.instance_types_arm64, "-"));
    }
    page.line("subnets", &list(&ec2.subnets, from_template));
    let groups = match ec2.launch_template {
        Some(_) => from_template,
        None => "the VPC's default one",
    };
    page.line("security groups", &list(&ec2.security_groups, groups));
    let disk = ec2.volume_size.map(display::size).into_iter();
    let disk: Vec<_> = disk.chain(ec2.volume_type.clone()).collect();
    if !disk.is_empty() {
        page.line("root volume", &disk.join(", "));
    }
    if let Some(price) = &ec2.max_price {
        page.line("Spot at most", &format!("{price} dollars an hour"));
    }
    let dialled = match (ec2.use_ipv6, ec2.use_public_ip.unwrap_or(ec2.public_ip)) {
        (true, _) => "the IPv6 one is dialled",
        (false, true) => "the public one is dialled",
        (false, false) => "the private one is dialled",
    };
    page.line("address", dialled);
    let key = match ec2.instance_connect {
        true => "by EC2 Instance Connect",
        false => "with the user data",
    };
    page.line("job's key", key);
    for (what, name) in [
        ("instance profile", &ec2.instance_profile),
        ("key pair", &ec2.key_name),
        ("role", &ec2.role_arn),
    ] {
        if let Some(name) = name {
            page.line(what, name);
        }
    }
    let jobs = match (ec2.container, ec2.privileged) {
        (false, _) => "run on the instance itself",
        (true, false) => "run in a container of their image",
        (true, true) => "run in a privileged container of their image",
    };
    page.line("jobs", jobs);
    if ec2.container {
        page.line("image of others", &or(&ec2.container_image, "-"));
        if ec2.docker_socket {
            page.line("docker socket", "handed into the container");
        }
        page.line(
            "login to ECR",
            &format!("by the {}'s role", ec2.ecr_login.name()),
        );
        page.line(
            "services",
            &format!("waited for, {} at most", time(ec2.services_timeout)),
        );
    }
}

fn told((user, port): (&str, u16)) -> String {
    format!("{user} on port {port}")
}

/// Says how the machines of these rungs are logged in to. The one of `local` that the driver brings itself is told both by the
/// driver.
pub(super) fn login(settings: &Settings, rungs: &[Rung]) -> String {
    if rungs == [Rung::Local] {
        if settings.local.container {
            return "the image's own user, by the agent's socket".to_owned();
        }
        return match settings.local.command.is_empty() {
            true => "GitLab Runner's own user, on a free port".to_owned(),
            false => told((&settings.ssh.username, settings.ssh.port)),
        };
    }
    let tasks = told(settings.login_of_tasks());
    let instances = told(settings.login_of_instances());
    let any_instance = rungs.iter().any(Rung::is_instance);
    match (rungs.iter().any(Rung::is_task), any_instance) {
        (true, true) if tasks != instances => format!("tasks: {tasks}; instances: {instances}"),
        (false, true) => instances,
        _ => tasks,
    }
}

fn ssh_lines(page: &mut Page, settings: &Settings) {
    let ssh = &settings.ssh;
    page.line("as", &login(settings, &settings.capacity));
    page.line(
        "first login",
        &format!(
            "within {} of the machine's start",
            time(ssh.connect_timeout)
        ),
    );
    page.line(
        "lost connection",
        &format!(
            "tried again for {} while the script runs on",
            time(ssh.reconnect_timeout)
        ),
    );
}

fn limit_lines(page: &mut Page, limits: &Limits) {
    let names = |all: &[String]| list(all, "none");
    let each = |all: Vec<String>| list(&all, "none");
    let up_to = |most: Option<String>| most.map_or("as it is".to_owned(), |m| format!("up to {m}"));
    page.line("task definitions", &names(&limits.task_definitions));
    page.line("roles", &names(&limits.roles));
    page.line("images", &names(&limits.images));
    let cpu = limits.max_cpu_millis;
    let cpu = cpu.map(|millis| format!("{} vCPU", display::vcpu(millis.into())));
    page.line("cpu", &up_to(cpu));
    page.line("memory", &up_to(limits.max_memory.map(display::size)));
    page.line("disk", &up_to(limits.max_disk.map(display::size)));
    let architectures = limits.architectures.iter();
    page.line(
        "architectures",
        &each(architectures.map(ToString::to_string).collect()),
    );
    page.line("machine images", &names(&limits.machine_images));
    page.line("instance types", &names(&limits.instance_types));
    let rungs = limits.capacity.iter();
    page.line("capacity", &each(rungs.map(ToString::to_string).collect()));
}

fn profile_line(profile: &Profile) -> String {
    let mut when = Vec::new();
    if let Some(pattern) = &profile.matches.job_name {
        when.push(format!("job {pattern}"));
    }
    if let Some(pattern) = &profile.matches.project {
        when.push(format!("project {pattern}"));
    }
    for (what, pattern) in [
        ("ref", &profile.matches.reference),
        ("image", &profile.matches.image),
    ] {
        if let Some(pattern) = pattern {
            when.push(format!("{what} {pattern}"));
        }
    }
    for (name, pattern) in &profile.matches.variables {
        when.push(format!("{name} = {pattern}"));
    }
    match profile.matches.protected {
        Some(true) => when.push("protected ref".to_owned()),
        Some(false) => when.push("ref not protected".to_owned()),
        None => {}
    }
    let changed = list(&overridden(&profile.overrides), "nothing");
    format!("for {}: changes {changed}", when.join(", "))
}

/// Returns the names of what a profile sets.
pub(super) fn overridden(keys: &Keys) -> Vec<String> {
    [
        ("capacity", keys.capacity.is_some()),
        ("rung_wait", keys.rung_wait.is_some()),
        ("capacity_wait", keys.capacity_wait.is_some()),
        ("builds_dir", keys.builds_dir.is_some()),
        ("cache_dir", keys.cache_dir.is_some()),
        ("tags", keys.tags.is_some()),
        ("ssh", keys.ssh != Default::default()),
        ("fargate", keys.fargate.is_some()),
        ("ec2", keys.ec2.is_some()),
        ("limits", keys.limits.is_some()),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .map(|(name, _)| name.to_owned())
    .collect()
}

fn log_line(log: &Log) -> String {
    let target = log
        .file
        .as_ref()
        .map_or("standard error".to_owned(), |file| {
            file.display().to_string()
        });
    let (level, format) = (log.level.name(), log.format.name());
    format!("level {level}, format {format}, to {target}")
}

pub(super) fn list(items: &[String], none: &str) -> String {
    if items.is_empty() {
        none.to_owned()
    } else {
        items.join(", ")
    }
}

/// Returns a word of a command, quoted where it could be read as more or less than one.
fn word(word: &str) -> String {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
        format!("{word:?}")
    } else {
        word.to_owned()
    }
}

pub(super) fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests;
