//! Diagnostics, for whoever asked for them: the Go driver's levels, formats and file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

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
    let started = match log.format {
        LogFormat::Text => base.try_init(),
        LogFormat::TextSimple => base.without_time().with_target(false).try_init(),
        LogFormat::Json => base.json().try_init(),
    };
    started.map_err(|e| Error::new(Kind::Config, "cannot start logging").because(e.to_string()))
}
