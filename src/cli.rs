//! The commands, as they are typed.
//!
//! The Go driver's command lines are taken as they are: its aliases, its flags before the command, and the
//! spellings that Go's flag parser knows ([`go_spellings`]).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::settings::{Log, LogFormat, LogLevel, Settings};
use crate::ops::{check, reap, try_job};

/// Runs each GitLab CI job on compute of its own on AWS, as GitLab Runner's custom executor.
#[derive(Debug, Parser)]
#[command(
    name = "gitlab-aws-driver",
    version,
    propagate_version = true,
    after_help = EXAMPLES,
    // As with the Go driver, the last of several counts.
    args_override_self = true
)]
pub struct Cli {
    /// Configuration file [default: /etc/gitlab-runner/aws-driver.toml, then /etc/gitlab-runner/fargate.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What stands above the file
    #[command(flatten)]
    pub overrides: Overrides,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gitlab-aws-driver try -- echo hello          run one job here and now, through all stages
  gitlab-aws-driver --config my.toml check     what a configuration means, and what is wrong with it

In GitLab Runner's config.toml:
  [runners.custom]
    config_exec  = \"/opt/gitlab-runner/gitlab-aws-driver\"
    config_args  = [\"custom\", \"config\"]
    prepare_exec = \"/opt/gitlab-runner/gitlab-aws-driver\"
    prepare_args = [\"custom\", \"prepare\"]
    run_exec     = \"/opt/gitlab-runner/gitlab-aws-driver\"
    run_args     = [\"custom\", \"run\"]
    cleanup_exec = \"/opt/gitlab-runner/gitlab-aws-driver\"
    cleanup_args = [\"custom\", \"cleanup\"]";

/// The Go driver's flags, which stand before the command and above the file. One that is empty is as good as
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(
    next_help_heading = "Flags of the Go driver, before the command; they stand above the file"
)]
pub struct Overrides {
    /// Write all diagnostics up to level debug, whatever --log-level says
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool)]
    pub debug: bool,
    /// The most detailed diagnostics that are written: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// A file to append diagnostics to
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// The format of diagnostics: text, text-simple, json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The task definition of every job: family, family:revision or ARN
    #[arg(long = "task-def", value_name = "NAME")]
    pub task_definition: Option<String>,
    /// The Fargate platform version of every job
    #[arg(long, value_name = "VERSION")]
    pub platform_version: Option<String>,
}

impl Overrides {
    /// Puts what the flags say of diagnostics in place of what the file says.
    pub fn apply_to_log(&self, log: &mut Log) {
        if let Some(level) = self.log_level {
            log.level = level;
        }
        if self.debug {
            log.level = LogLevel::Debug;
        }
        if let Some(format) = self.log_format {
            log.format = format;
        }
        if let Some(file) = &self.log_file {
            log.file = Some(file.clone());
        }
    }

    /// Puts all that the flags say in place of what the file says, to show it. Stages need to know which of
    /// the two said it: between them stands the job.
    pub fn apply(&self, settings: &mut Settings) {
        self.apply_to_log(&mut settings.log);
        if self.task_definition.is_some() || self.platform_version.is_some() {
            let fargate = settings.fargate.get_or_insert_default();
            if let Some(name) = &self.task_definition {
                fargate.task_definition = Some(name.clone());
            }
            if let Some(version) = &self.platform_version {
                fargate.platform_version = Some(version.clone());
            }
        }
    }

    /// Returns the flags again, for processes of this program that are to get the same.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if self.debug {
            words.push("--debug".into());
        }
        let mut add = |name: &str, value: Option<&OsStr>| {
            if let Some(value) = value {
                let mut word = OsString::from(format!("--{name}="));
                word.push(value);
                words.push(word);
            }
        };
        add("log-level", self.log_level.map(|l| l.name().as_ref()));
        add("log-file", self.log_file.as_deref().map(AsRef::as_ref));
        add("log-format", self.log_format.map(|f| f.name().as_ref()));
        add(
            "task-def",
            self.task_definition.as_deref().map(AsRef::as_ref),
        );
        add(
            "platform-version",
            self.platform_version.as_deref().map(AsRef::as_ref),
        );
        words
    }
}

/// The flags that may stand before the command, by the Go driver's names, and whether each takes a value.
const GLOBAL_FLAGS: [(&str, bool); 7] = [
    ("config", true),
    ("debug", false),
    ("log-level", true),
    ("log-file", true),
    ("log-format", true),
    ("task-def", true),
    ("platform-version", true),
];

/// Puts what stands before the command into the one spelling that is parsed here.
///
/// Go's flag parser takes `-flag` for `--flag`, takes whatever word follows for a flag's value, and knows
/// `-v`. A flag whose value is empty goes away: that is how a wrapper script spells "none". From the first word
/// on that is none of these flags, everything stays as it is.
#[must_use]
pub fn go_spellings(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: VecDeque<OsString> = words.into_iter().collect();
    let mut out: Vec<OsString> = words.pop_front().into_iter().collect();
    while let Some(word) = words.pop_front() {
        let Some((name, inline)) = flag(&word) else {
            out.push(word);
            break;
        };
        let takes_value = GLOBAL_FLAGS
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|(_, takes_value)| *takes_value);
        let value = match (takes_value, inline) {
            (Some(_), Some(value)) => Some(value.to_owned()),
            (Some(true), None) => words.pop_front().map(OsStringExt::into_vec),
            (Some(false), None) => None,
            (None, None) if matches!(name, b"h" | b"help") => {
                out.push("--help".into());
                continue;
            }
            (None, None) if matches!(name, b"v" | b"version") => {
                out.push("--version".into());
                continue;
            }
            (None, _) => {
                out.push(word);
                break;
            }
        };
        let mut plain = [b"--", name].concat();
        if let Some(value) = value {
            // No configuration at all is never what was meant, so that one is left to be refused.
            if value.is_empty() && name != b"config" {
                continue;
            }
            plain.push(b'=');
            plain.extend(value);
        }
        out.push(OsString::from_vec(plain));
    }
    out.extend(words);
    out
}

/// Whether words that cannot be parsed ask for JSON all the same.
#[must_use]
pub fn asks_for_json(words: &[OsString]) -> bool {
    // What follows is a job's.
    let own = words.iter().take_while(|word| *word != "--");
    own.skip(1)
        .any(|word| word == "--json" || word.as_bytes().starts_with(b"--json="))
}

/// Returns the command's name among words that cannot be parsed: the first that is no flag. Those before it have been through
/// [`go_spellings`], so none of them has its value in the next word.
#[must_use]
pub fn command_name(words: &[OsString]) -> Option<&OsStr> {
    let is_flag = |word: &&OsString| word.as_bytes().starts_with(b"-");
    let found = words.iter().skip(1).find(|word| !is_flag(word));
    found.map(OsString::as_os_str)
}

/// Takes `-name`, `--name`, `-name=value` or `--name=value` apart.
fn flag(word: &OsStr) -> Option<(&[u8], Option<&[u8]>)> {
    let bytes = word.as_bytes();
    let rest = bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-"))?;
    match rest.iter().position(|b| *b == b'=') {
        Some(at) => Some((&rest[..at], Some(&rest[at + 1..]))),
        None => Some((rest, None)),
    }
    .filter(|(name, _)| !name.is_empty() && !name.starts_with(b"-"))
}

/// Reads yes or no as Go writes it.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The stages that GitLab Runner calls
    #[command(visible_alias = "c")]
    Custom {
        /// Which one
        #[command(subcommand)]
        stage: Stage,
    },
    /// Plays GitLab Runner: one job through all stages, with its real output and exit code
    Try(try_job::Args),
    /// Says what the configuration means and what is wrong with it
    Check(check::Args),
    /// Ends what no live job owns
    Reap(reap::Args),
    /// Prints completions for a shell
    Completions {
        /// Which one
        shell: Shell,
    },
    /// Prints the manual page
    Man {
        /// The page of this command alone
        #[arg(value_name = "COMMAND")]
        name: Option<String>,
    },
    /// The process that is a `local` machine; started by `prepare`
    #[command(hide = true)]
    LocalMachine {
        /// The job's state
        directory: PathBuf,
        /// The launch
        token: String,
    },
    /// The second process of a `local` machine; started by it
    #[command(hide = true)]
    LocalGuard {
        /// The job's state
        directory: PathBuf,
        /// The launch
        token: String,
    },
    /// The SSH server of a `local` machine; started by it
    #[command(hide = true)]
    LocalServer {
        /// The machine's first process
        keeper: i32,
    },
}

/// The stages.
#[derive(Debug, Subcommand)]
pub enum Stage {
    /// Answers where builds go and what this driver is
    #[command(visible_alias = "co")]
    Config,
    /// Starts the job's machine
    #[command(visible_alias = "p")]
    Prepare,
    /// Runs one script on it
    #[command(visible_alias = "r")]
    Run {
        /// The script that GitLab Runner wrote
        script: PathBuf,
        /// The sub-stage's name
        name: String,
    },
    /// Ends the machine
    #[command(visible_alias = "cl")]
    Cleanup,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        let words = ["fargate"].iter().chain(words).map(OsString::from);
        Cli::try_parse_from(go_spellings(words))
    }

    fn overrides(words: &[&str]) -> Overrides {
        let all = [words, &["custom", "prepare"]].concat();
        parse(&all).unwrap_or_else(|e| panic!("{e}")).overrides
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_go_drivers_aliases_are_taken() {
        for (custom, stage) in [
            ("custom", ["config", "prepare", "cleanup"]),
            ("c", ["co", "p", "cl"]),
        ] {
            for stage in stage {
                assert!(parse(&[custom, stage]).is_ok(), "{custom} {stage}");
            }
        }
        for run in ["run", "r"] {
            let cli = parse(&["--config", "f", "c", run, "/tmp/s", "build_script"]).unwrap();
            let Command::Custom {
                stage: Stage::Run { script, name },
            } = cli.command
            else {
                panic!("{run}")
            };
            assert_eq!((script, name), ("/tmp/s".into(), "build_script".to_owned()));
        }
    }

    #[test]
    fn every_go_spelling_of_a_flag_means_the_same() {
        for words in [
            &["--task-def", "ci:1", "--log-level", "warn"][..],
            &["-task-def", "ci:1", "-log-level", "warn"],
            &["--task-def=ci:1", "--log-level=warn"],
            &["-task-def=ci:1", "-log-level=WARN"],
            &[
                "--task-def",
                "x",
                "--task-def",
                "ci:1",
                "--log-level=warning",
            ],
            &[
                "--task-def=ci:1",
                "--log-file",
                "",
                "--log-level=warn",
                "--platform-version=",
            ],
        ] {
            let given = overrides(words);
            assert_eq!(given.task_definition.as_deref(), Some("ci:1"), "{words:?}");
            assert_eq!(given.log_level, Some(LogLevel::Warn), "{words:?}");
            assert_eq!((given.log_file, given.platform_version), (None, None));
        }
        for (word, debug) in [
            ("--debug", true),
            ("-debug", true),
            ("-debug=true", true),
            ("--debug=T", true),
            ("--debug=0", false),
            ("--debug=", false),
        ] {
            assert_eq!(overrides(&[word]).debug, debug, "{word}");
        }
        // As in Go, whatever follows is the value.
        let odd = overrides(&["--task-def", "-debug", "-config", "--x"]);
        assert_eq!(odd.task_definition.as_deref(), Some("-debug"));
        assert!(!odd.debug);
    }

    #[test]
    fn flags_after_the_command_and_unknown_ones_are_refused() {
        for words in [
            &["--config"][..],
            &["--config=", "custom", "prepare"],
            &["--log-level", "loud", "custom", "prepare"],
            &["--log-format=xml", "custom", "prepare"],
            &["--debug=maybe", "custom", "prepare"],
            &["--no-such", "custom", "prepare"],
            &["-x", "custom", "prepare"],
            &["custom", "prepare", "--task-def", "x"],
            &["custom", "-debug", "prepare"],
            &[],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_follows_the_first_word_stays_as_it_is() {
        let words = [
            "x",
            "-debug",
            "try",
            "-log-level",
            "",
            "--",
            "-v",
            "=",
            "-",
            "--=",
        ];
        let got = go_spellings(words.map(OsString::from));
        assert_eq!(got[1], "--debug");
        assert_eq!(got[2..], words[2..]);
        for help in ["-h", "-help", "--help", "-v", "-version", "--version"] {
            let error = parse(&[help]).err().unwrap();
            assert!(!error.use_stderr(), "{help}");
        }
        assert_eq!(go_spellings([]), Vec::<OsString>::new());
        assert_eq!(
            go_spellings(["x", "--task-def"].map(OsString::from)).len(),
            2
        );
    }

    #[test]
    fn flags_stand_above_the_file_and_can_be_passed_on() {
        let given = overrides(&[
            "--debug",
            "--log-level",
            "error",
            "--log-file",
            "/f",
            "--log-format",
            "json",
            "--task-def",
            "a:1",
            "--platform-version",
            "1.4.0",
        ]);
        let mut settings = crate::config::parse("", "f".as_ref()).unwrap().settings;
        given.apply(&mut settings);
        assert_eq!(settings.log.level, LogLevel::Debug);
        assert_eq!(settings.log.format, LogFormat::Json);
        assert_eq!(settings.log.file.as_deref(), Some("/f".as_ref()));
        let fargate = settings.fargate.as_ref().unwrap();
        assert_eq!(fargate.task_definition.as_deref(), Some("a:1"));
        assert_eq!(fargate.platform_version.as_deref(), Some("1.4.0"));
        let words = given.words();
        let words: Vec<&str> = words.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(overrides(&words), given);

        let mut same = settings.clone();
        Overrides::default().apply(&mut same);
        assert_eq!(same, settings);
        assert!(Overrides::default().words().is_empty());
    }
}
