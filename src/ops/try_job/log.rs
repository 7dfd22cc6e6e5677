//! The job log: what GitLab would show, in the order in which it came.
//!
//! One writer takes everything from a short queue, so that a slow reader delays the job's output,
//! as a plain pipe would, and never the signals.

use std::io::Write;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const RESET: &str = "\x1b[0;m";

/// How `try`'s own lines look; GitLab's own colours.
#[derive(Clone, Copy, Debug)]
pub(super) enum LineStyle {
    Plain,
    Heading,
    Good,
    Warning,
    Error,
}

impl LineStyle {
    fn colour(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "\x1b[36;1m",
            Self::Good => "\x1b[32;1m",
            Self::Warning => "\x1b[0;33m",
            Self::Error => "\x1b[31;1m",
        }
    }
}

/// A handle on the job log; the writer ends when all of them are gone.
#[derive(Clone, Debug)]
pub(super) struct JobLog {
    queue: mpsc::Sender<Vec<u8>>,
    colour: bool,
}

impl JobLog {
    /// Starts the writer.
    pub(super) fn start(
        mut to: impl Write + Send + 'static,
        colour: bool,
    ) -> (Self, JoinHandle<()>) {
        let (queue, mut waiting) = mpsc::channel::<Vec<u8>>(8);
        let writer = tokio::task::spawn_blocking(move || {
            let mut reader_there = true;
            while let Some(bytes) = waiting.blocking_recv() {
                // A reader that went away does not end the job: the rest is read and dropped.
                reader_there =
                    reader_there && to.write_all(&bytes).and_then(|()| to.flush()).is_ok();
            }
        });
        (Self { queue, colour }, writer)
    }

    /// Returns whether lines are coloured.
    pub(super) fn colour(&self) -> bool {
        self.colour
    }

    /// Appends bytes as they are.
    pub(super) async fn bytes(&self, bytes: Vec<u8>) {
        drop(self.queue.send(bytes).await);
    }

    /// Appends one line of `try`'s own.
    pub(super) async fn line(&self, style: LineStyle, text: &str) {
        let text = crate::error::one_line(text);
        let colour = style.colour();
        let line = if self.colour && !colour.is_empty() {
            format!("{colour}{text}{RESET}\n")
        } else {
            format!("{text}\n")
        };
        self.bytes(line.into_bytes()).await;
    }
}
