//! `check`: what the configuration means, what is odd about it, or what is wrong with it.
//!
//! Reads nothing but the file: no state, no network, no account.

mod json;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::print;
use crate::cli::Overrides;
use crate::config::file::Keys;
use crate::config::settings::{
    CONTAINER, Ec2, Fargate, Limits, Log, Profile, Rung, Settings, Ssh, Style,
};
use crate::config::{self, Loaded};
use crate::error::Result;
use crate::ui::Ui;

/// Explain the configuration and say what is wrong with it
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Print one JSON object for programs, warnings included
    #[arg(long)]
    pub json: bool,
}

/// Prints what the configuration means, under the flags that stand above it; its warnings go to standard error.
///
/// # Errors
///
/// Fails when there is no configuration, when it is wrong, and when nothing can be printed.
pub fn run(args: &Args, config: Option<&Path>, overrides: &Overrides, ui: Ui) -> Result<()> {
    let mut loaded = config::load(config)?;
    overrides.apply(&mut loaded.settings);
    if args.json {
        return print(format!("{:#}\n", json::object(&loaded)).as_bytes());
    }
    for warning in &loaded.warnings {
        ui.warn(warning);
    }
    print(as_text(&loaded).as_bytes())
}

/// Returns whether this version can run jobs on the rung.
fn is_here(rung: &Rung) -> bool {
    match rung {
        Rung::Local | Rung::FargateSpot | Rung::Fargate | Rung::Ecs(_) => true,
        Rung::Ec2Spot | Rung::Ec2 => false,
    }
}

/// Returns what the file asks for and this version does not have.
fn missing(settings: &Settings) -> Vec<String> {
    let mut missing = Vec::new();
    let profiles = settings.profiles.iter();
    let rungs = profiles.filter_map(|p| p.overrides.capacity.as_deref());
    for rung in settings.capacity.iter().chain(rungs.flatten()) {
        let name = rung.to_string();
        if !is_here(rung) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    if !settings.profiles.is_empty() {
        missing.push("profile".to_owned());
    }
    missing
}

/// The explanation: a word on the left, what it means on the right.
struct Page(String);

impl Page {
    fn heading(&mut self, text: &str) {
        self.0.push('\n');
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn line(&mut self, what: &str, meaning: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {what:<18} {meaning}");
    }
}

fn as_text(loaded: &Loaded) -> String {
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
    }
    if let Some(ec2) = &settings.ec2 {
        page.heading("EC2");
        ec2_lines(&mut page, ec2);
    }

    page.heading("How a machine is logged in to");
    ssh_lines(&mut page, &settings.ssh);
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
        page.heading("Profiles, the first that fits a job (not in this version: jobs that one fits are refused)");
        for profile in &settings.profiles {
            page.line(&profile.name, &profile_line(profile));
        }
    }

    page.heading("How machines are told from others");
    page.line("fleet", &settings.fleet);
    for (key, value) in &settings.tags {
        page.line("tag", &format!("{key} = {value}"));
    }

    page.heading("On this host");
    page.line("state", &settings.state_directory.display().to_string());
    page.line("diagnostics", &log_line(&settings.log));
    let told = |dir: &Option<String>| {
        dir.clone()
            .unwrap_or_else(|| match settings.capacity.as_slice() {
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
    for (i, rung) in settings.capacity.iter().enumerate() {
        let what = match rung {
            Rung::FargateSpot => "a task on Fargate Spot".to_owned(),
            Rung::Fargate => "a task on Fargate, on demand".to_owned(),
            Rung::Ecs(name) => format!("a task on the cluster's capacity provider {name}"),
            Rung::Ec2Spot => "a Spot instance of EC2".to_owned(),
            Rung::Ec2 => "an instance of EC2, on demand".to_owned(),
            Rung::Local => "this host, as the Runner's own user: isolates nothing".to_owned(),
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
    let missing = || "-".to_owned();
    page.line("region", &ec2.region.clone().unwrap_or_else(missing));
    page.line("image", &ec2.image_id.clone().unwrap_or_else(missing));
    page.line("instance types", &list(&ec2.instance_types, "-"));
    page.line("subnets", &list(&ec2.subnets, "-"));
    page.line("security groups", &list(&ec2.security_groups, "-"));
}

fn ssh_lines(page: &mut Page, ssh: &Ssh) {
    page.line("as", &format!("{} on port {}", ssh.username, ssh.port));
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
    page.line("task definitions", &list(&limits.task_definitions, "none"));
    page.line("roles", &list(&limits.roles, "none"));
    page.line("images", &list(&limits.images, "none"));
    let cpu = limits
        .max_cpu_millis
        .map_or("as the task definition says".to_owned(), |millis| {
            format!("up to {} vCPU", vcpu(millis))
        });
    let memory = limits
        .max_memory
        .map_or("as the task definition says".to_owned(), |bytes| {
            format!("up to {}", size(bytes))
        });
    page.line("cpu", &cpu);
    page.line("memory", &memory);
}

fn profile_line(profile: &Profile) -> String {
    let mut when = Vec::new();
    if let Some(pattern) = &profile.matches.job_name {
        when.push(format!("job {pattern}"));
    }
    if let Some(pattern) = &profile.matches.project {
        when.push(format!("project {pattern}"));
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
fn overridden(keys: &Keys) -> Vec<String> {
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

fn list(items: &[String], none: &str) -> String {
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

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn vcpu(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the size in the largest unit that needs no fraction.
fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift << shift == bytes && bytes >> shift > 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Loaded {
        config::parse(text, Path::new("f.toml")).expect("right")
    }

    #[test]
    fn a_spot_file_is_explained() {
        let profile = "[[profile]]\nname = \"deploy\"\nmatch = { job_name = \"deploy-*\", protected = true }\n\
                       capacity = [\"fargate\"]\nfargate.task_definition = \"ci-deploy\"\n";
        let example = include_str!("../../config-examples/fargate-spot.toml");
        let text = as_text(&loaded(&format!("{example}\n{profile}")));
        let want = "\
f.toml: a file of this driver

Where jobs run
  1. fargate-spot    a task on Fargate Spot
  2. fargate         a task on Fargate, on demand
  waiting            up to 5m for one of these, 10m in all

Fargate and ECS
  region             eu-west-1
  cluster            ci
  task definition    ci-job
  subnets            subnet-0a1b2c3d, subnet-4e5f6a7b
  security groups    sg-0a1b2c3d
  address            private

How a machine is logged in to
  as                 root on port 22
  first login        within 3m of the machine's start
  lost connection    tried again for 10m while the script runs on

What a job may choose
  task definitions   ci-*
  roles              none
  images             none
  cpu                up to 4 vCPU
  memory             up to 16GiB

Profiles, the first that fits a job (not in this version: jobs that one fits are refused)
  deploy             for job deploy-*, protected ref: changes capacity, fargate

How machines are told from others
  fleet              gitlab-aws-driver

On this host
  state              /var/lib/gitlab-aws-driver
  diagnostics        level warn, format text, to standard error
  builds             /builds
  cache              /cache

profile: not in this version
";
        assert_eq!(text, want);
    }

    #[test]
    fn a_go_driver_file_is_explained() {
        let text = as_text(&loaded(include_str!(
            "../../config-examples/go-driver.toml"
        )));
        for want in [
            "a file of GitLab's Go Fargate driver",
            "default capacity provider strategy decides",
            "public for outbound traffic; the private one is dialled",
            "any task definition, any role",
            "as config.toml says",
            "/opt/gitlab-runner/metadata",
            "level info, format text, to /var/log/gitlab-runner/fargate.log",
        ] {
            assert!(text.contains(want), "{want}\n{text}");
        }
    }

    #[test]
    fn what_machines_carry_is_explained() {
        let text = as_text(&loaded(
            "[tags]\nteam = \"a b\"\n[fargate]\ncontainer = \"job\"\nrole_arn = \"arn:aws:iam::111122223333:role/x\"\npropagate_tags = true",
        ));
        for want in [
            "  tag                team = a b\n",
            "  container          job\n",
            "  role               arn:aws:iam::111122223333:role/x\n",
            "  task's tags        those of its task definition too\n",
            "  region             as AWS's own settings on this host say\n",
            "  security groups    the VPC's default one\n",
        ] {
            assert!(text.contains(want), "{want}\n{text}");
        }
    }

    #[test]
    fn local_is_there_and_lacks_nothing() {
        let loaded = loaded(include_str!("../../config-examples/local.toml"));
        let text = as_text(&loaded);
        assert!(text.contains("1. local           this host, as the Runner's own user"));
        assert!(!text.contains("not in this version"), "{text}");
        assert_eq!(missing(&loaded.settings), Vec::<String>::new());
    }

    #[test]
    fn sizes_and_cpu_read_as_they_are_written() {
        assert_eq!(size(16 << 30), "16GiB");
        assert_eq!(size(1_000), "1000 bytes");
        assert_eq!(size(3 << 29), "1536MiB");
        assert_eq!(vcpu(4000), "4");
        assert_eq!(vcpu(500), "0.5");
        assert_eq!(vcpu(10_250), "10.25");
    }
}
