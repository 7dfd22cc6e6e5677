//! Diagnostics, for whoever asked for them: the Go driver's levels, formats and file.
//!
//! Nothing depends on them: where the file cannot be written that is told once, as a warning, and the command goes on
//! without them. A `cleanup` that ended for a full log would leave its machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{OFlags, fstat};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::settings::{Log, LogFormat, LogLevel};
use crate::error::{Error, Kind, Result};
use crate::ui::Ui;

/// Starts logging. A file that cannot be written is told as a warning, and nothing is written then.
///
/// # Errors
/// Where logging was started before.
pub(crate) fn start(log: &Log, ui: Ui) -> Result<()> {
    let writer = match &log.file {
        None => BoxMakeWriter::new(io::stderr),
        Some(path) => match open(path, true) {
            Ok(Some(file)) => BoxMakeWriter::new(Mutex::new(LogFile {
                file: Some(file),
                path: path.clone(),
                ui,
            })),
            Ok(None) => BoxMakeWriter::new(io::stderr),
            Err(error) => {
                ui.warn(&unwritable(path, &error));
                BoxMakeWriter::new(io::sink)
            }
        },
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

/// Says what is wrong with the log file, if anything is, and leaves it as it is: whoever checks a configuration may be another
/// user than the one that will write.
pub(crate) fn trouble(log: &Log) -> Option<String> {
    let path = log.file.as_deref()?;
    let opened = match open(path, false) {
        // It will be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_place(path) => Ok(None),
        opened => opened,
    };
    opened.err().map(|error| unwritable(path, &error))
}

fn has_place(path: &Path) -> bool {
    path.parent()
        .is_some_and(|parent| parent.as_os_str().is_empty() || parent.is_dir())
}

/// Opens the log file; none where it is standard output, on which no diagnostics belong: what a command answers stands there,
/// and GitLab Runner reads that of `config`.
fn open(path: &Path, create: bool) -> io::Result<Option<File>> {
    // Whoever opens a pipe waits for its reader, and a reader that is slow would be waited for too.
    let file = OpenOptions::new()
        .append(true)
        .create(create)
        .mode(0o600)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let is = file.metadata()?;
    let is_stdout =
        fstat(io::stdout()).is_ok_and(|out| (out.st_dev, out.st_ino) == (is.dev(), is.ino()));
    // A device may be there for any number of purposes: /dev/null.
    if is_stdout && !is.file_type().is_char_device() {
        return Ok(None);
    }
    // A device that takes nothing says so of no bytes at all.
    rustix::io::write(&file, &[])?;
    Ok(Some(file))
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!(
        "there are no diagnostics: cannot write the log file {}: {error}. Set log_file to a file that GitLab Runner's user can \
         write, or remove it.",
        path.display()
    )
}

/// The log file, until it can be written no more.
struct LogFile {
    file: Option<File>,
    path: PathBuf,
    ui: Ui,
}

impl Write for LogFile {
    /// Takes everything: what writes diagnostics has nobody to tell of a failure but the job log, in words of its own.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
            // A pipe whose reader is slow loses a line and no more.
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.file = None;
            self.ui.warn(&unwritable(&self.path, &error));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
