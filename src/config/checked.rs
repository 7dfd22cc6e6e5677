//! Makes checked settings of the file as written: defaults, and the rules between keys.

mod aws_names;
mod defaults;
mod profile_match;
mod rungs;
mod unreachable_profiles;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::Keys;
use super::key_locations::{KeyLocation, KeyLocations, Misspelt};
use super::keys::TAG;
use super::normalise::ignored;
use super::problem::Problem;
use super::settings::{
    Limits, Local, Log, LogFormat, LogLevel, Match, Profile, Rung, Settings, Style,
};
use super::source::Source;
use super::tags;

/// The default state directory.
pub(crate) const STATE_DIRECTORY: &str = "/var/lib/gitlab-aws-driver";
/// The default fleet.
const FLEET: &str = "gitlab-aws-driver";
/// How long one rung may keep a task waiting.
const RUNG_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long a job may wait for any rung.
const CAPACITY_WAIT: Duration = Duration::from_secs(10 * 60);
/// How much longer than the job's own time limit a machine may live.
const DEADLINE_MARGIN: Duration = Duration::from_secs(30 * 60);

/// The errors and warnings about a file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// What is odd.
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// Adds an error: only once, if several profiles have the same.
    fn wrong(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Adds an unknown key and the keys that are missing because of it: one error for all.
    fn misspelt(&mut self, problem: Problem, missing: &Problem, source: Source<'_>) {
        let is_same = |told: &&mut Problem| {
            (told.line, told.column, &told.cause) == (problem.line, problem.column, &problem.cause)
        };
        let Some(told) = self.problems.iter_mut().find(is_same) else {
            self.problems
                .push(problem.hint(missing.message(source.path)));
            return;
        };
        let remedy = told.remedy.get_or_insert_default();
        if !remedy.contains(&missing.cause) {
            remedy.push_str("; ");
            remedy.push_str(&missing.cause);
        }
    }

    /// Adds a warning: only once, if several profiles have the same.
    fn odd(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// Makes settings of the file. They are only valid if there is no error.
pub(super) fn settings(
    keys: &Keys,
    style: Style,
    locations: &KeyLocations,
    source: Source<'_>,
    found: &mut Findings,
) -> Settings {
    let file = Check {
        locations,
        source,
        profile: None,
    };
    file.local(keys, found);
    let mut settings = file.settings(keys.clone(), style, found);
    for (i, profile) in keys.profile.iter().enumerate() {
        let named = file.name_and_match(i, profile, &keys.profile[..i], found);
        // The settings of its jobs are checked as a whole now, long before such a job runs.
        let merged = Check {
            profile: Some(i),
            ..file
        };
        let own = merged.settings(keys.overlaid(profile), style, found);
        let Some((name, matches)) = named else {
            continue;
        };
        if let Some(above) = settings
            .profiles
            .iter()
            .find(|p| unreachable_profiles::covers(&p.matches, &matches))
        {
            found.odd(file.at_line(
                &format!("profile[{i}].name"),
                &format!(
                    "no job gets as far as the profile {name:?}: the profile {:?} above it fits whatever it fits",
                    above.name
                ),
            ));
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
    settings
}

/// The file's keys and their locations, for messages.
#[derive(Clone, Copy)]
struct Check<'a> {
    locations: &'a KeyLocations,
    source: Source<'a>,
    /// The profile that overrides the file: its keys are searched first.
    profile: Option<usize>,
}

impl Check<'_> {
    /// Makes settings of the file's own keys, or of those with a profile's over them.
    fn settings(self, keys: Keys, style: Style, found: &mut Findings) -> Settings {
        self.tags(keys.tags.as_deref(), found);
        self.names(&keys, style, found);
        let capacity_wait = keys.capacity_wait.unwrap_or(CAPACITY_WAIT);
        self.waits(&keys, capacity_wait, found);
        if style == Style::New {
            self.rungs(&keys, found);
            self.container(&keys, found);
            self.local_container(&keys, found);
        }
        let own = style == Style::New;
        let state_directory =
            self.state_directory(keys.state.directory, keys.taskmetadata.directory, found);
        let limits = match keys.limits {
            Some(limits) => Some(limits.into()),
            None if own => Some(Limits::default()),
            None => {
                found.odd(format!(
                    "{}: there is no [limits], so any job may choose any task definition and any role (FARGATE_TASK_DEFINITION, ROLE_ARN), as with the Go driver; list what they may choose under [limits]",
                    self.source.path.display()
                ));
                None
            }
        };
        let capacity = keys.capacity.unwrap_or_default();
        // On a machine of its own they may be anywhere; the stages set directories for jobs that share this host.
        let own_places = own && capacity != [Rung::Local];
        Settings {
            style,
            capacity,
            rung_wait: keys.rung_wait.unwrap_or(RUNG_WAIT),
            capacity_wait,
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
            manager: keys.state.manager,
            fleet: keys.fleet.unwrap_or_else(|| FLEET.to_owned()),
            tags: keys.tags.unwrap_or_default(),
            ssh: keys.ssh.into(),
            local: Local {
                command: keys.local.command.unwrap_or_default(),
                container: keys.local.container.unwrap_or(false),
                container_image: keys.local.container_image,
                agent: keys.local.agent.map(Into::into),
            },
            fargate: keys.fargate.map(Into::into),
            ec2: keys.ec2.map(Into::into),
            limits,
            profiles: Vec::new(),
        }
    }

    /// Returns a key's path in the profile at hand and in the file itself, in the order in which they count.
    fn paths(self, path: &str) -> impl Iterator<Item = String> {
        let own = self.profile.map(|i| format!("profile[{i}].{path}"));
        own.into_iter().chain([path.to_owned()])
    }

    /// Returns where a key is: in the profile at hand, else in the file itself.
    fn location(&self, path: &str) -> Option<&KeyLocation> {
        self.paths(path).find_map(|path| self.locations.get(&path))
    }

    /// Returns a problem with a key's value; of one that the file does not have it is told at the file's top.
    fn problem(self, path: &str, cause: &str) -> Problem {
        match self.location(path) {
            Some(location) => location.problem(self.source, cause),
            None => self.source.problem(0, None, cause),
        }
    }

    /// Returns a problem with a key's value whose remedy is elsewhere.
    fn plain_problem(self, path: &str, cause: &str) -> Problem {
        match self.location(path) {
            Some(location) => location.plain_problem(self.source, cause),
            None => self.source.problem(0, None, cause),
        }
    }

    /// Returns a warning that names the line of a key.
    fn at_line(self, path: &str, warning: &str) -> String {
        let line = self.location(path);
        let line = line.map_or(1, |location| self.source.line(location.key.start));
        format!("{}:{line}: {warning}", self.source.path.display())
    }

    /// Adds an error for a missing key. If the file has it under an unknown name, the error is that this name is unknown, once
    /// and in place of its warning. If the file's value was refused already, there is no second error.
    fn missing(self, table: &str, key: &str, problem: Problem, found: &mut Findings) {
        let path = format!("{table}.{key}");
        if self
            .paths(&path)
            .any(|path| self.locations.is_broken(&path))
        {
            return;
        }
        let meant = self.paths(&path).zip(self.paths(table));
        let misspelt = meant
            .flat_map(|(path, table)| [path, table])
            .find_map(|path| self.locations.meant(&path));
        match misspelt {
            Some(misspelt) if misspelt.refused => {}
            Some(Misspelt {
                shown, advice, key, ..
            }) => {
                let cause = format!("there is no such key; {advice}");
                let instead = self.source.problem(*key, Some(shown), &cause);
                found.misspelt(instead, &problem, self.source);
                let warning = ignored(self.source, *key, shown, Some(advice));
                found.warnings.retain(|told| *told != warning);
            }
            None => found.wrong(problem),
        }
    }

    /// Checks the administrator's own tags: AWS would refuse a whole launch for one of them.
    fn tags(self, all: Option<&[(String, String)]>, found: &mut Findings) {
        let all = all.unwrap_or_default();
        for (key, _) in all {
            let problem = tags::key_problem(key);
            if let (Some(problem), Some(location)) =
                (problem, self.location(&format!("tags.{key}")))
            {
                found.wrong(location.problem_at_key(self.source, &problem, Some(TAG)));
            }
        }
        if all.len() > tags::OWN {
            let cause = format!(
                "the table holds {} tags; AWS takes 50 on a task, and {} of them are left beside the driver's",
                all.len(),
                tags::OWN
            );
            found.wrong(match self.location("tags") {
                Some(location) => location.problem_at_key(self.source, &cause, None),
                None => self.source.problem(0, None, &cause),
            });
        }
    }

    fn state_directory(
        self,
        own: Option<PathBuf>,
        go: Option<PathBuf>,
        found: &mut Findings,
    ) -> PathBuf {
        if let Some(directory) = own {
            if !directory.is_absolute() {
                let cause = format!(
                    "{} is no absolute path, and every stage runs in another directory",
                    quoted(&directory)
                );
                found.wrong(self.problem("state.directory", &cause));
            }
            return directory;
        }
        match go {
            Some(directory) if directory.is_absolute() => directory,
            // The Go driver took it from its working directory, which under the Runner goes away with the job.
            Some(directory) => {
                let warning = format!(
                    "TaskMetadata.Directory {} is no absolute path; state goes to {STATE_DIRECTORY}",
                    quoted(&directory)
                );
                found.odd(self.at_line("taskmetadata.directory", &warning));
                PathBuf::from(STATE_DIRECTORY)
            }
            None => PathBuf::from(STATE_DIRECTORY),
        }
    }

    /// Returns a profile's name and match, if it has both.
    fn name_and_match(
        self,
        i: usize,
        profile: &Keys,
        before: &[Keys],
        found: &mut Findings,
    ) -> Option<(String, Match)> {
        let path = format!("profile[{i}]");
        if self.locations.is_broken(&path) {
            return None;
        }
        let name = profile.name.as_ref();
        if let Some(name) = name {
            let same = |other: &Keys| other.name.as_ref() == Some(name);
            if let Some(first) = before.iter().position(same) {
                let line = self
                    .locations
                    .get(&format!("profile[{first}].name"))
                    .map_or(1, |location| self.source.line(location.key.start));
                let cause = format!("the profile of line {line} is called {name:?} too");
                let problem = self.problem(&format!("{path}.name"), &cause);
                found.wrong(problem.hint("Give each profile a name of its own."));
            }
        } else {
            let problem = self
                .of_whole(i, "the profile has no name")
                .hint("For example, under [[profile]]: name = \"docker\"");
            self.missing(&path, "name", problem, found);
        }
        let matches = Match::from(profile.matches.clone().unwrap_or_default());
        let is_empty = matches == Match::default();
        if is_empty && !self.locations.has_broken_below(&format!("{path}.match")) {
            let what = name.map_or("the profile".to_owned(), |name| {
                format!("the profile {name:?}")
            });
            let problem = self
                .of_whole(
                    i,
                    &format!("{what} has no match, so it would hold for every job"),
                )
                .hint("For example, under [[profile]]: match = { job_name = \"docker-*\" }");
            self.missing(&path, "match", problem, found);
        }
        self.variables(&path, &matches, found);
        name.filter(|_| !is_empty)
            .map(|name| (name.clone(), matches))
    }

    /// Returns a problem with a profile as a whole, at the first of its keys.
    fn of_whole(self, i: usize, cause: &str) -> Problem {
        let path = format!("profile[{i}]");
        let offset = self.locations.first_below(&path);
        let offset =
            offset.or_else(|| self.locations.get(&path).map(|location| location.key.start));
        self.source.problem(offset.unwrap_or(0), Some(&path), cause)
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
