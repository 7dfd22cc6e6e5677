//! What manual pages have beside the command line: files, exit codes, environment, and where to read on. Paths and codes are
//! the program's own constants; a test compares the variables with those that the program reads.

use clap_mangen::roff::{Roff, bold, roman};

use crate::compute::aws::metadata::Metadata;
use crate::config::{DEFAULT_PATHS, STATE_DIRECTORY};
use crate::ops::manual::PAGES;
use crate::ops::try_job::{EXIT_CANCELLED, EXIT_SYSTEM, EXIT_TIMEOUT};
use crate::ops::{FAILURE, USAGE};
use crate::runner::exit::SYSTEM_FAILURE;
use crate::runner::note;

/// Where the packages put the pages that this one names.
const PAGES_ON_DISK: &str = "/usr/share/doc/gitlab-aws-driver/docs";

/// Something with a name, and what is to be said of it.
type Entry = (String, &'static str);

const COLOUR: (&str, &str) = (
    "NO_COLOR",
    "Where it is set, nothing is written in colours.",
);

/// What the AWS SDK for Rust reads; it knows more, of which these matter here.
const OF_AWS: &[(&str, &str)] = &[
    (
        "AWS_REGION, AWS_DEFAULT_REGION",
        "The region, where the configuration names none.",
    ),
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
        "Credentials. Without them those of a profile, of a web identity, of the container or of the instance are taken, \
         in this order.",
    ),
    (
        "AWS_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE",
        "The profile, and the files that it is looked for in.",
    ),
    (
        "AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME, AWS_WEB_IDENTITY_TOKEN_FILE",
        "Credentials by a web identity.",
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN, \
         AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "Credentials of the container that the program runs in.",
    ),
    (
        Metadata::DISABLED,
        "Where it is true, the metadata of this host's instance are not asked for, neither for credentials nor for which \
         instance this is.",
    ),
    (
        "HOME",
        "Where .aws/config and .aws/credentials are, and what ~/ means in the path of a bundle of certificates.",
    ),
    (
        "AWS_ENDPOINT_URL",
        "Where all calls go, in place of AWS's own address.",
    ),
    (
        "AWS_CA_BUNDLE",
        "A file of certificates (PEM): whom calls believe, in place of this host's own authorities.",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "The proxy that calls go through, and where they go past it; in small letters too.",
    ),
];

/// What GitLab Runner tells each stage.
const OF_THE_RUNNER: &[(&str, &str)] = &[
    (
        "BUILD_FAILURE_EXIT_CODE, SYSTEM_FAILURE_EXIT_CODE",
        "The codes to end with where the job's script failed, and where the machinery did.",
    ),
    (
        "BUILD_EXIT_CODE_FILE",
        "The file for the script's own exit code; GitLab Runner sets it from 17.9 on.",
    ),
    (
        "JOB_RESPONSE_FILE",
        "The job as GitLab sent it. It says which job this is.",
    ),
    (
        "TMPDIR",
        "GitLab Runner's own directory for this try of the job.",
    ),
    (
        "CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN",
        "Stands in the name under which the job is known.",
    ),
    (
        "CUSTOM_ENV_AWS_DRIVER_TASK_DEFINITION, CUSTOM_ENV_AWS_DRIVER_ROLE, CUSTOM_ENV_AWS_DRIVER_CPU, \
         CUSTOM_ENV_AWS_DRIVER_MEMORY, CUSTOM_ENV_AWS_DRIVER_DISK, CUSTOM_ENV_AWS_DRIVER_ARCHITECTURE, \
         CUSTOM_ENV_AWS_DRIVER_MACHINE_IMAGE, CUSTOM_ENV_AWS_DRIVER_INSTANCE_TYPE, CUSTOM_ENV_AWS_DRIVER_CAPACITY",
        "What the job asks for, by the variables AWS_DRIVER_... in its pipeline file; job-variables.md has them all.",
    ),
    (
        "CUSTOM_ENV_FARGATE_TASK_DEFINITION, CUSTOM_ENV_FARGATE_PLATFORM_VERSION, CUSTOM_ENV_ROLE_ARN, \
         CUSTOM_ENV_SESSION_VARS",
        "The same by the Go driver's names.",
    ),
    (
        "CUSTOM_ENV_DOCKER_AUTH_CONFIG",
        "Credentials of the job for registries.",
    ),
    (
        "CUSTOM_ENV_*",
        "All other variables of the job: those that the job's containers and the role's session are told.",
    ),
];

/// What one page says.
#[derive(Debug, Default)]
pub(super) struct Sections {
    files: Vec<Entry>,
    exits: Vec<Entry>,
    environment: Vec<(&'static str, &'static str)>,
    /// Further reading beside the other pages: files, units, programs.
    further: Vec<String>,
}

impl Sections {
    /// Returns those of a command's page; the program's own has no name.
    pub(super) fn of(command: Option<&str>) -> Self {
        match command {
            None => Self::of_the_program(),
            Some("custom") => Self::of_the_stages(),
            Some("try") => Self::of_try(),
            Some("check") => Self {
                files: configurations(),
                exits: exits("The file can be used.", "It cannot, or a warning counts."),
                environment: vec![COLOUR],
                further: pages(&["configuration.md"]),
            },
            Some("reap") => Self {
                files: [configurations(), state()].concat(),
                exits: exits(
                    "Nothing is left that should not be.",
                    "Something may be left: an error says what.",
                ),
                environment: [&[COLOUR], OF_AWS].concat(),
                further: [
                    vec!["gitlab-aws-driver-reap.timer".to_owned()],
                    pages(&["install.md", "troubleshooting.md"]),
                ]
                .concat(),
            },
            Some(_) => Self {
                exits: exits("It was printed.", "It could not be printed."),
                environment: vec![COLOUR],
                ..Self::default()
            },
        }
    }

    fn of_the_program() -> Self {
        Self {
            files: [configurations(), state()].concat(),
            exits: exits(
                "All went well.",
                "The command failed; try and custom have codes of their own.",
            ),
            environment: [&[COLOUR], OF_AWS].concat(),
            further: [
                vec!["gitlab-runner".to_owned()],
                pages(&[
                    "configuration.md",
                    "install.md",
                    "migrating-from-the-go-driver.md",
                    "troubleshooting.md",
                ]),
            ]
            .concat(),
        }
    }

    fn of_the_stages() -> Self {
        let note: Entry = (
            format!("$TMPDIR/{}", note::NAME),
            "What the stages of one try of a job leave for each other.",
        );
        Self {
            files: [configurations(), state(), vec![note]].concat(),
            exits: vec![
                ("0".to_owned(), "The stage did what it should."),
                (
                    "$BUILD_FAILURE_EXIT_CODE".to_owned(),
                    "The job's script failed. Its own code stands in $BUILD_EXIT_CODE_FILE.",
                ),
                (
                    format!("$SYSTEM_FAILURE_EXIT_CODE, or {SYSTEM_FAILURE} where that is not set"),
                    "The machinery failed, or the command line is wrong.",
                ),
            ],
            environment: [OF_THE_RUNNER, &[COLOUR], OF_AWS].concat(),
            further: [
                vec!["gitlab-runner".to_owned()],
                pages(&["job-variables.md", "troubleshooting.md"]),
            ]
            .concat(),
        }
    }

    fn of_try() -> Self {
        Self {
            files: Vec::new(),
            exits: vec![
                ("0".to_owned(), "The job succeeded."),
                (
                    USAGE.to_string(),
                    "The command line is wrong, or the script ended with that.",
                ),
                (EXIT_TIMEOUT.to_string(), "The job's time was over."),
                (
                    EXIT_SYSTEM.to_string(),
                    "The machinery failed, or nothing could begin.",
                ),
                (EXIT_CANCELLED.to_string(), "The job was cancelled."),
                (
                    "any other".to_owned(),
                    "The script failed with that code; it may use the codes above too.",
                ),
            ],
            environment: [
                &[
                    (
                        "TMPDIR",
                        "Where the job's temporary directory is made; /tmp without it.",
                    ),
                    COLOUR,
                ],
                OF_AWS,
            ]
            .concat(),
            further: pages(&["try.md"]),
        }
    }

    /// Renders them, with the other pages to see.
    pub(super) fn render(&self, program: &str, command: Option<&str>) -> Roff {
        let mut roff = Roff::new();
        let files = self.files.iter().map(|(name, text)| (name.as_str(), *text));
        list(&mut roff, "FILES", files);
        let exits = self.exits.iter().map(|(name, text)| (name.as_str(), *text));
        list(&mut roff, "EXIT STATUS", exits);
        list(&mut roff, "ENVIRONMENT", self.environment.iter().copied());
        roff.control("SH", ["SEE ALSO"]);
        let others = PAGES.iter().filter(|name| Some(**name) != command);
        let mut all: Vec<String> = others
            .map(|name| format!("{program}-{name}(1)"))
            .chain(self.further.iter().cloned())
            .collect();
        if command.is_some() {
            all.insert(0, format!("{program}(1)"));
        }
        roff.text([roman(all.join(", "))]);
        roff
    }
}

fn list<'a>(roff: &mut Roff, heading: &str, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    roff.control("SH", [heading]);
    for (name, text) in entries {
        roff.control("TP", []).text([bold(name)]);
        roff.text([roman(text)]);
    }
}

fn configurations() -> Vec<Entry> {
    let [own, of_the_go_driver] = DEFAULT_PATHS;
    vec![
        (own.to_owned(), "The configuration."),
        (
            of_the_go_driver.to_owned(),
            "The Go driver's configuration, which is read where the other is not there.",
        ),
    ]
}

fn state() -> Vec<Entry> {
    vec![(
        STATE_DIRECTORY.to_owned(),
        "What is known of jobs, unless the configuration names another directory.",
    )]
}

fn exits(good: &'static str, bad: &'static str) -> Vec<Entry> {
    vec![
        ("0".to_owned(), good),
        (FAILURE.to_string(), bad),
        (USAGE.to_string(), "The command line is wrong."),
    ]
}

fn pages(names: &[&str]) -> Vec<String> {
    let there = names.iter().map(|name| format!("{PAGES_ON_DISK}/{name}"));
    there.collect()
}

#[cfg(test)]
mod tests;
