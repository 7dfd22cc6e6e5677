//! The commands, as they are typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::ops::{check, try_job};

/// Runs each GitLab CI job on compute of its own on AWS, as GitLab Runner's custom executor.
#[derive(Debug, Parser)]
#[command(name = "gitlab-aws-driver", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Configuration file [default: /etc/gitlab-runner/aws-driver.toml, then /etc/gitlab-runner/fargate.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
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

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The stages that GitLab Runner calls
    Custom {
        /// Which one
        #[command(subcommand)]
        stage: Stage,
    },
    /// Plays GitLab Runner: one job through all stages, with its real output and exit code
    Try(try_job::Args),
    /// Says what the configuration means and what is wrong with it
    Check(check::Args),
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
    Config,
    /// Starts the job's machine
    Prepare,
    /// Runs one script on it
    Run {
        /// The script that GitLab Runner wrote
        script: PathBuf,
        /// The sub-stage's name
        name: String,
    },
    /// Ends the machine
    Cleanup,
}
