//! Diagnostics, for whoever asked for them: the Go driver's levels, formats and file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::settings::{Log, LogFormat, LogLevel};
use crate::error::{Error, Kind, Result};

/// Starts logging.
///
/// # Errors
/// Where the log file cannot be written.
pub(crate) fn start(log: &Log) -> Result<()> {
    let writer = match &log.file {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)
                .map_err(|e| {
                    Error::new(
                        Kind::Config,
                        format!("cannot write the log file {}", path.display()),
                    )
                    .because(e)
                    .hint(
                        "Set log_file to a file that GitLab Runner's user can write, or remove it.",
                    )
                })?;
            BoxMakeWriter::new(Mutex::new(file))
        }
    };
    let level = match log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let base = fmt()
        .with_max_level(level)
        .with_writer(writer)
        .with_ansi(false);
    // The AWS SDK warns of every refused call, which is told in the job log already, in a line that people can read.
    let others = match level {
        tracing::Level::TRACE => LevelFilter::TRACE,
        tracing::Level::DEBUG => LevelFilter::WARN,
        _ => LevelFilter::ERROR,
    };
    // russh tells of every packet, of some as a warning or an error: 50 lines a sub-stage, in the job log of whoever has the Go
    // driver's `LogLevel = "debug"`; and as many as it likes from a machine that sends such packets without end.
    let russh = match level {
        tracing::Level::TRACE => LevelFilter::TRACE,
        _ => LevelFilter::OFF,
    };
    let ours = Targets::new()
        .with_default(others)
        .with_target("russh", russh)
        .with_target("gitlab_aws", level);
    let started = match log.format {
        LogFormat::Text => base.finish().with(ours).try_init(),
        LogFormat::TextSimple => {
            let base = base.without_time().with_target(false);
            base.finish().with(ours).try_init()
        }
        LogFormat::Json => base.json().finish().with(ours).try_init(),
    };
    started.map_err(|e| Error::new(Kind::Config, "cannot start logging").because(e.to_string()))
}
