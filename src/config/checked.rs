//! From the file as written to checked settings: defaults, and what only holds between keys.

mod matching;
mod rungs;
mod tables;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::Keys;
use super::keys::TAG;
use super::place::Place;
use super::settings::{
    Limits, Local, Log, LogFormat, LogLevel, Match, Profile, Rung, Settings, Style,
};
use super::tags;
use super::tree::{Misspelt, Spot, Spots};
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

/// Makes settings of what the file says.
pub(super) fn settings(
    keys: &Keys,
    style: Style,
    spots: &Spots,
    place: Place<'_>,
    warnings: &mut Vec<String>,
) -> Result<Settings> {
    let file = Check {
        spots,
        place,
        profile: None,
    };
    file.local(keys, warnings)?;
    let mut settings = file.settings(keys.clone(), style, warnings)?;
    for (i, profile) in keys.profile.iter().enumerate() {
        let (name, matches) = file.name_and_match(i, profile, &keys.profile[..i])?;
        // What holds for its jobs has to be right as a whole, and long before one of them comes.
        let merged = Check {
            profile: Some(i),
            ..file
        };
        let mut said = Vec::new();
        let own = merged.settings(keys.overlaid(profile), style, &mut said)?;
        for warning in said {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let mut overrides = profile.clone();
        (overrides.name, overrides.matches) = (None, None);
        settings.profiles.push(Profile {
            name,
            matches,
            overrides,
            settings: own,
        });
    }
    Ok(settings)
}

/// What stands where.
#[derive(Clone, Copy)]
struct Check<'a> {
    spots: &'a Spots,
    place: Place<'a>,
    /// The profile that is laid over the file: its keys are looked for first.
    profile: Option<usize>,
}

impl Check<'_> {
    /// Makes settings of keys that are the file's own, or a profile's over them.
    fn settings(self, keys: Keys, style: Style, warnings: &mut Vec<String>) -> Result<Settings> {
        self.tags(keys.tags.as_deref())?;
        if style == Style::New {
            self.rungs(&keys)?;
            self.container(&keys, warnings)?;
        }
        let own = style == Style::New;
        let state_directory =
            self.state_directory(keys.state.directory, keys.taskmetadata.directory, warnings)?;
        let limits = match keys.limits {
            Some(limits) => Some(limits.into()),
            None if own => Some(Limits::default()),
            None => {
                warnings.push(format!(
                    "{}: there is no [limits], so any job may choose any task definition and any role (FARGATE_TASK_DEFINITION, ROLE_ARN), as with the Go driver; list what they may choose under [limits]",
                    self.place.path.display()
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
            profiles: Vec::new(),
        })
    }

    /// Returns where a key stands: in the profile at hand, else in the file itself.
    fn spot(&self, path: &str) -> Option<&Spot> {
        let own = self
            .profile
            .and_then(|i| self.spots.get(&format!("profile[{i}].{path}")));
        own.or_else(|| self.spots.get(path))
    }

    /// Returns an error at a key; one that the file does not have is reported at its top.
    fn error(self, path: &str, message: &str) -> Error {
        match self.spot(path) {
            Some(spot) => spot.error(self.place, message),
            None => self.place.error(0, message),
        }
    }

    /// Returns an error at a key whose remedy is elsewhere.
    fn plain_error(self, path: &str, message: &str) -> Error {
        match self.spot(path) {
            Some(spot) => spot.plain_error(self.place, message),
            None => self.place.error(0, message),
        }
    }

    /// Returns the error that something is not there, or, where the file has it under a name that nobody knows, the error
    /// that this is no key: its warning would not be seen beside the error.
    fn missing(self, table: &str, key: &str, error: Error) -> Error {
        let path = format!("{table}.{key}");
        let own = self.profile.map(|i| format!("profile[{i}]."));
        let prefixes = own.iter().map(String::as_str).chain([""]);
        let misspelt = prefixes
            .flat_map(|prefix| [format!("{prefix}{path}"), format!("{prefix}{table}")])
            .find_map(|path| self.spots.meant(&path));
        match misspelt {
            Some(Misspelt { shown, advice, key }) => {
                let message = format!("{shown}: there is no such key; {advice}");
                self.place.error(*key, &message).hint(error.to_string())
            }
            None => error,
        }
    }

    /// Checks the administrator's own tags: AWS would refuse a whole launch for one of them.
    fn tags(self, all: Option<&[(String, String)]>) -> Result<()> {
        let all = all.unwrap_or_default();
        for (key, _) in all {
            let problem = tags::key_problem(key);
            if let (Some(problem), Some(spot)) = (problem, self.spot(&format!("tags.{key}"))) {
                return Err(spot.error_at_key(self.place, &problem, Some(TAG)));
            }
        }
        if all.len() > tags::OWN {
            let message = format!(
                "the table holds {} tags; AWS takes 50 on a task, and {} of them are left beside the driver's",
                all.len(),
                tags::OWN
            );
            return Err(match self.spot("tags") {
                Some(spot) => spot.error_at_key(self.place, &message, None),
                None => self.place.error(0, &message),
            });
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

    /// Returns what a profile is called and which jobs it is for.
    fn name_and_match(self, i: usize, profile: &Keys, before: &[Keys]) -> Result<(String, Match)> {
        let path = format!("profile[{i}]");
        let Some(name) = profile.name.clone() else {
            let message = format!("{path}: the profile has no name");
            let error = self
                .nameless(i, &message)
                .hint("For example, under [[profile]]: name = \"docker\"");
            return Err(self.missing(&path, "name", error));
        };
        let same = |other: &Keys| other.name.as_ref() == Some(&name);
        if let Some(first) = before.iter().position(same) {
            let line = self
                .spots
                .get(&format!("profile[{first}].name"))
                .map_or(1, |spot| self.place.line(spot.key.start));
            let message = format!("the profile of line {line} is called {name:?} too");
            return Err(self
                .error(&format!("{path}.name"), &message)
                .hint("Give each profile a name of its own."));
        }
        let matches = Match::from(profile.matches.clone().unwrap_or_default());
        if matches == Match::default() {
            let message = format!(
                "{path}: the profile {name:?} has no match, so it would hold for every job"
            );
            let error = self
                .nameless(i, &message)
                .hint("For example, under [[profile]]: match = { job_name = \"docker-*\" }");
            return Err(self.missing(&path, "match", error));
        }
        self.variables(&path, &matches)?;
        Ok((name, matches))
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
