//! From the file as written to checked settings: defaults, and what only holds between keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, Keys};
use super::keys::TAG;
use super::place::Place;
use super::settings::{
    CONTAINER, Ec2, Fargate, Limits, Local, Log, LogFormat, LogLevel, Match, Profile, Rung,
    Settings, Ssh, Style,
};
use super::tags;
use super::tree::Spots;
use crate::error::{Error, Result};

/// Where state lives unless the file says otherwise.
const STATE_DIRECTORY: &str = "/var/lib/gitlab-aws-driver";
/// What machines are told from others by unless the file says otherwise.
const FLEET: &str = "gitlab-aws-driver";
/// How long one rung may keep a task waiting.
const RUNG_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long a job may wait for any rung.
const CAPACITY_WAIT: Duration = Duration::from_secs(10 * 60);
/// What a machine may live beyond its job's own time limit.
const DEADLINE_MARGIN: Duration = Duration::from_secs(30 * 60);
/// From a running machine to the first login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// How long a running script may be out of reach.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Why `local` is refused.
const LOCAL_IS_OPEN: &str =
    "it runs jobs as the Runner's own user, beside its keys and its token, and isolates nothing";
/// What to do about it.
const LOCAL_REMEDY: &str = "Take \"local\" out; or, on a host that is there to run jobs itself, write capacity = [\"local\"] and allow_jobs_on_this_host = true.";

/// Makes settings of what the file says.
pub(super) fn settings(
    keys: Keys,
    style: Style,
    spots: &Spots,
    place: Place<'_>,
    warnings: &mut Vec<String>,
) -> Result<Settings> {
    let check = Check { spots, place };
    check.local(&keys, warnings)?;
    check.tags(keys.tags.as_deref(), "tags")?;
    for (i, profile) in keys.profile.iter().enumerate() {
        check.tags(profile.tags.as_deref(), &format!("profile[{i}].tags"))?;
    }
    if style == Style::New {
        check.tasks(&keys)?;
    }
    let profiles = check.profiles(keys.profile)?;
    let own = style == Style::New;
    let state_directory =
        check.state_directory(keys.state.directory, keys.taskmetadata.directory, warnings)?;
    let limits = match keys.limits {
        Some(limits) => Some(limits.into()),
        None if own => Some(Limits::default()),
        None => {
            warnings.push(format!(
                "{}: there is no [limits], so any job may choose any task definition and any role (FARGATE_TASK_DEFINITION, ROLE_ARN), as with the Go driver; list what they may choose under [limits]",
                place.path.display()
            ));
            None
        }
    };
    let capacity = keys.capacity.unwrap_or_default();
    // A machine of its own may have them anywhere; jobs that share this host get directories by the stages.
    let own_places = own && capacity != [Rung::Local];
    Ok(Settings {
        style,
        capacity,
        rung_wait: keys.rung_wait.unwrap_or(RUNG_WAIT),
        capacity_wait: keys.capacity_wait.unwrap_or(CAPACITY_WAIT),
        deadline_margin: keys.deadline_margin.unwrap_or(DEADLINE_MARGIN),
        allow_jobs_on_this_host: keys.allow_jobs_on_this_host.unwrap_or(false),
        builds_dir: keys.builds_dir.or(own_places.then(|| "/builds".to_owned())),
        cache_dir: keys.cache_dir.or(own_places.then(|| "/cache".to_owned())),
        log: Log {
            level: keys
                .log_level
                .unwrap_or(if own { LogLevel::Warn } else { LogLevel::Info }),
            format: keys.log_format.unwrap_or(LogFormat::Text),
            file: keys.log_file,
        },
        state_directory,
        fleet: keys.fleet.unwrap_or_else(|| FLEET.to_owned()),
        tags: keys.tags.unwrap_or_default(),
        ssh: keys.ssh.into(),
        local: Local {
            command: keys.local.command.unwrap_or_default(),
        },
        fargate: keys.fargate.map(Into::into),
        ec2: keys.ec2.map(Into::into),
        limits,
        profiles,
    })
}

/// What stands where.
#[derive(Clone, Copy)]
struct Check<'a> {
    spots: &'a Spots,
    place: Place<'a>,
}

impl Check<'_> {
    /// Returns an error at a key; one that the file does not have is reported at its top.
    fn error(self, path: &str, message: &str) -> Error {
        match self.spots.get(path) {
            Some(spot) => spot.error(self.place, message),
            None => self.place.error(0, message),
        }
    }

    /// Refuses `local` unless the whole file is about it and says so.
    fn local(self, keys: &Keys, warnings: &mut Vec<String>) -> Result<()> {
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

    /// Checks the administrator's own tags: AWS would refuse a whole launch for one of them.
    fn tags(self, all: Option<&[(String, String)]>, table: &str) -> Result<()> {
        let all = all.unwrap_or_default();
        for (key, _) in all {
            let problem = tags::key_problem(key);
            if let (Some(problem), Some(spot)) =
                (problem, self.spots.get(&format!("{table}.{key}")))
            {
                return Err(spot.error_at_key(self.place, &problem, Some(TAG)));
            }
        }
        if all.len() > tags::OWN {
            let message = format!(
                "the table holds {} tags; AWS takes 50 on a task, and {} of them are left beside the driver's",
                all.len(),
                tags::OWN
            );
            return Err(match self.spots.get(table) {
                Some(spot) => spot.error_at_key(self.place, &message, None),
                None => self.place.error(0, &message),
            });
        }
        Ok(())
    }

    /// Checks that rungs which are tasks have what a task needs, for the file's own and each profile's.
    fn tasks(self, keys: &Keys) -> Result<()> {
        let base = keys.capacity.as_deref().unwrap_or_default();
        let found = |of: fn(&file::Fargate) -> bool, profile: Option<&Keys>| {
            let tables = [
                profile.and_then(|p| p.fargate.as_ref()),
                keys.fargate.as_ref(),
            ];
            tables.into_iter().flatten().any(of)
        };
        let profiles = keys
            .profile
            .iter()
            .enumerate()
            .map(|(i, p)| (Some(i), Some(p)));
        for (i, profile) in std::iter::once((None, None)).chain(profiles) {
            let (rungs, path) = match profile.and_then(|p| p.capacity.as_deref()) {
                Some(rungs) => (
                    rungs,
                    format!("profile[{}].capacity", i.unwrap_or_default()),
                ),
                None => (base, "capacity".to_owned()),
            };
            let Some(rung) = rungs.iter().find(|rung| rung.is_task()) else {
                continue;
            };
            for (key, example, there) in [
                (
                    "task_definition",
                    "\"ci-job\"",
                    found(|f| f.task_definition.is_some(), profile),
                ),
                (
                    "subnets",
                    "[\"subnet-0a1b2c3d\"]",
                    found(|f| f.subnet.is_some() || f.subnets.is_some(), profile),
                ),
            ] {
                if there {
                    continue;
                }
                let message =
                    format!("the rung \"{rung}\" needs [fargate] {key}, which is not there");
                let error = match self.spots.get(&path) {
                    Some(spot) => spot.plain_error(self.place, &message),
                    None => self.place.error(0, &message),
                };
                return Err(error.hint(format!("For example, under [fargate]: {key} = {example}")));
            }
        }
        Ok(())
    }

    fn state_directory(
        self,
        own: Option<PathBuf>,
        go: Option<PathBuf>,
        warnings: &mut Vec<String>,
    ) -> Result<PathBuf> {
        if let Some(directory) = own {
            if !directory.is_absolute() {
                let message = format!(
                    "{} is no absolute path, and every stage runs in another directory",
                    quoted(&directory)
                );
                return Err(self.error("state.directory", &message));
            }
            return Ok(directory);
        }
        match go {
            Some(directory) if directory.is_absolute() => Ok(directory),
            // The Go driver took it from its working directory, which under the Runner goes away with the job.
            Some(directory) => {
                let line = self
                    .spots
                    .get("taskmetadata.directory")
                    .map_or(1, |spot| self.place.line(spot.key.start));
                warnings.push(format!(
                    "{}:{line}: TaskMetadata.Directory {} is no absolute path; state goes to {STATE_DIRECTORY}",
                    self.place.path.display(),
                    quoted(&directory)
                ));
                Ok(PathBuf::from(STATE_DIRECTORY))
            }
            None => Ok(PathBuf::from(STATE_DIRECTORY)),
        }
    }

    fn profiles(self, all: Vec<Keys>) -> Result<Vec<Profile>> {
        let mut profiles: Vec<Profile> = Vec::with_capacity(all.len());
        for (i, mut keys) in all.into_iter().enumerate() {
            let path = format!("profile[{i}]");
            let Some(name) = keys.name.take() else {
                let message = format!("{path}: the profile has no name");
                return Err(self
                    .nameless(i, &message)
                    .hint("For example, under [[profile]]: name = \"docker\""));
            };
            if let Some(first) = profiles.iter().position(|p| p.name == name) {
                let line = self
                    .spots
                    .get(&format!("profile[{first}].name"))
                    .map_or(1, |spot| self.place.line(spot.key.start));
                let message = format!("the profile of line {line} is called {name:?} too");
                return Err(self
                    .error(&format!("{path}.name"), &message)
                    .hint("Give each profile a name of its own."));
            }
            let matches = Match::from(keys.matches.take().unwrap_or_default());
            if matches == Match::default() {
                let message = format!(
                    "{path}: the profile {name:?} has no match, so it would hold for every job"
                );
                return Err(self
                    .nameless(i, &message)
                    .hint("For example, under [[profile]]: match = { job_name = \"docker-*\" }"));
            }
            profiles.push(Profile {
                name,
                matches,
                overrides: keys,
            });
        }
        Ok(profiles)
    }

    /// Returns an error about a profile as a whole, at the first of its keys.
    fn nameless(self, i: usize, message: &str) -> Error {
        let offset = self.spots.first_below(&format!("profile[{i}]"));
        let offset = offset.or_else(|| self.spots.get("profile").map(|spot| spot.key.start));
        self.place.error(offset.unwrap_or(0), message)
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

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
            subnets: one_or_many(f.subnet, f.subnets),
            security_groups: one_or_many(f.securitygroup, f.security_groups),
            enable_public_ip: f.enable_public_ip.unwrap_or(false),
            use_public_ip: f.use_public_ip,
            platform_version: f.platform_version,
            enable_execute_command: f.enable_execute_command.unwrap_or(false),
            container: f.container.unwrap_or_else(|| CONTAINER.to_owned()),
            role_arn: f.role_arn,
            propagate_tags: f.propagate_tags.unwrap_or(false),
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
        }
    }
}

impl From<file::Match> for Match {
    fn from(m: file::Match) -> Self {
        Self {
            job_name: m.job_name,
            project: m.project,
            protected: m.protected,
        }
    }
}
