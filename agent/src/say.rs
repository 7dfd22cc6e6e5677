//! Lines for the log of whoever started the agent.

use std::io::Write as _;

/// Writes a line to stderr, with the program's name; when that is gone there is nobody to tell.
pub fn say(line: &str) {
    // One write, so that lines of several processes do not mix.
    let line = format!("gitlab-aws-agent: {line}\n");
    drop(std::io::stderr().write_all(line.as_bytes()));
}
