//! The command line: commands and flags.
//!
//! It takes the Go driver's command lines unchanged: its aliases, its flags before the command, and the spellings of Go's flag
//! parser ([`go_driver_flags`]).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::config::overrides::Overrides;
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
pub struct Cli<C: Subcommand = Command> {
    /// Configuration file [default: /etc/gitlab-runner/aws-driver.toml, then /etc/gitlab-runner/fargate.toml; `try` has none]
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// What stands above the file
    #[command(flatten)]
    pub overrides: Overrides,
    /// What to do
    #[command(subcommand)]
    pub command: C,
}

/// The program for help, completions and manual pages: without the commands by which it starts itself.
pub type VisibleCli = Cli<UserCommand>;

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

/// The flags that may come before the command, by the Go driver's names, and whether each takes a value.
const GLOBAL_FLAGS: [(&str, bool); 7] = [
    ("config", true),
    ("debug", false),
    ("log-level", true),
    ("log-file", true),
    ("log-format", true),
    ("task-def", true),
    ("platform-version", true),
];

/// Rewrites the flags before the command to the one spelling that is parsed here.
///
/// Go's flag parser takes `-flag` for `--flag`, takes whatever word follows for a flag's value, and knows
/// `-v`. A flag with an empty value is removed: wrapper scripts write "none" like this. From the first word that is not one of
/// these flags, everything stays unchanged.
#[must_use]
pub fn go_driver_flags(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
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
            // `--config` with an empty value is never meant, so it stays and is refused.
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

/// Parses the result of [`go_driver_flags`]. Error messages name no internal command.
///
/// # Errors
/// If they are wrong, and if they ask for help.
pub fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let name = command_name(words).and_then(OsStr::to_str);
    if name.is_some_and(Internal::has_subcommand) {
        return Cli::try_parse_from(words);
    }
    let shown = VisibleCli::try_parse_from(words)?;
    Ok(Cli {
        config: shown.config,
        overrides: shown.overrides,
        command: Command::UserCommand(shown.command),
    })
}

/// Whether words that cannot be parsed ask for JSON all the same.
#[must_use]
pub fn asks_for_json(words: &[OsString]) -> bool {
    // What follows is a job's.
    let own = words.iter().take_while(|word| *word != "--");
    own.skip(1)
        .any(|word| word == "--json" || word.as_bytes().starts_with(b"--json="))
}

/// Returns the command's name from words that may not parse: the first that is not a flag. Those before it have been through
/// [`go_driver_flags`], so none of them has its value in the next word.
#[must_use]
pub fn command_name(words: &[OsString]) -> Option<&OsStr> {
    let is_flag = |word: &&OsString| word.as_bytes().starts_with(b"-");
    let found = words.iter().skip(1).find(|word| !is_flag(word));
    found.map(OsString::as_os_str)
}

/// Splits `-name`, `--name`, `-name=value` or `--name=value` into name and value.
fn flag(word: &OsStr) -> Option<(&[u8], Option<&[u8]>)> {
    let bytes = word.as_bytes();
    let rest = bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-"))?;
    match rest.iter().position(|b| *b == b'=') {
        Some(at) => Some((&rest[..at], Some(&rest[at + 1..]))),
        None => Some((rest, None)),
    }
    .filter(|(name, _)| !name.is_empty() && !name.starts_with(b"-"))
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One that somebody calls
    #[command(flatten)]
    UserCommand(UserCommand),
    /// One that the program calls itself
    #[command(flatten)]
    Internal(Internal),
}

/// The commands for GitLab Runner and for people.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
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
}

/// The commands by which the program starts processes of its own. Nobody is shown them.
#[derive(Debug, Subcommand)]
pub enum Internal {
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
    /// A command of a `local` machine, as the leader of a session; started by its server
    #[command(hide = true)]
    LocalLead {
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
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
        #[arg(value_hint = ValueHint::FilePath)]
        script: PathBuf,
        /// The sub-stage's name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
    },
    /// Ends the machine
    #[command(visible_alias = "cl")]
    Cleanup,
}

#[cfg(test)]
mod tests;
