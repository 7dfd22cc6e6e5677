//! Parses, dispatches, ends with the outcome's code; nothing else.

use std::process::ExitCode;

use gitlab_aws_driver::{app, cli, runner::Environment};

fn main() -> ExitCode {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the environment is read"
    )]
    let env = Environment::from_pairs(std::env::vars_os());
    let words = cli::go_driver_flags(std::env::args_os());
    match cli::parse(&words) {
        Ok(cli) => app::run(cli, &env),
        Err(error) => app::refuse(&error, &words, &env),
    }
}
