//! Processes that wait for an answer from AWS, and the one that asks for all of them.
//!
//! The process with the lock leads: it asks, and gives each of the others its answer. Each waiting process has a FIFO whose name
//! says what it waits for. The answer wakes its reader. If nobody reads a FIFO any more, its process died. The leader may die at
//! any moment: its lock ends with it, and the others look for the lock again and again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, mknodat};
use tokio::net::unix::pipe;

use super::make_directory;
use super::prune::lock_existing;
use crate::files::open_own;
use crate::state::lock::LockFile;
use crate::state::prune::entries;

/// The largest answer: what a pipe's buffer takes.
const LIMIT: usize = 64 << 10;
/// The name of the lock.
const LOCK: &str = "lock";
/// The longest name to wait for: it is part of a file name.
const LONGEST_NAME: usize = 100;

/// The processes that wait for answers of one kind.
#[derive(Clone, Debug)]
pub struct Queue {
    directory: PathBuf,
}

/// The lock of the one that asks.
#[derive(Debug)]
pub struct Lead {
    directory: PathBuf,
    _lock: LockFile,
}

/// A waiting process, as the leader sees it.
#[derive(Debug)]
pub struct Waiting {
    /// What it waits for.
    pub name: String,
    pipe: File,
}

/// This process's place in the queue; removed when dropped.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    receiver: pipe::Receiver,
    got: Vec<u8>,
}

impl Queue {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Takes the lead, unless another process has it.
    ///
    /// # Errors
    /// Where the directory cannot be used.
    pub fn lead(&self) -> io::Result<Option<Lead>> {
        let path = self.directory.join(LOCK);
        let open = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            open_own(options.mode(0o600), &path)
        };
        loop {
            let lock = LockFile::new(self.made(open)?);
            if !lock.take(FlockOperation::NonBlockingLockExclusive)? {
                return Ok(None);
            }
            // The file may have been pruned in between.
            if lock.is_at(&path) {
                return Ok(Some(Lead {
                    directory: self.directory.clone(),
                    _lock: lock,
                }));
            }
        }
    }

    /// Does something in the directory, and makes the directory if it is missing.
    fn made<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match act() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_directory(&self.directory)?;
                act()
            }
            done => done,
        }
    }

    /// Joins the queue for the answer about a name.
    ///
    /// # Errors
    /// Where there can be no place for it.
    pub fn join(&self, name: &str) -> io::Result<Place> {
        if !is_fit(name) {
            return Err(io::Error::other("not fit for a file name"));
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let pid = std::process::id();
        // Sorted by time of arrival; nanoseconds tell the places of this process apart.
        let file = format!("{:020}.{pid}.{name}", since.as_nanos());
        let own = self.directory.join(format!(".{file}"));
        // A prune may have just removed the directory, because nobody waited in it.
        self.made(|| {
            let mode = Mode::RUSR | Mode::WUSR;
            Ok(mknodat(CWD, &own, FileType::Fifo, mode, 0)?)
        })?;
        // It gets its name only once it has a reader: before, it would look like a dead process's.
        let opened = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&own)
            .and_then(|receiver| {
                let path = self.directory.join(&file);
                fs::rename(&own, &path)?;
                Ok(Place {
                    path,
                    receiver,
                    got: Vec::new(),
                })
            });
        if opened.is_err() {
            drop(fs::remove_file(&own));
        }
        opened
    }
}

impl Lead {
    /// Returns the waiting processes, the longest first. Removes those that died.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        let mut files: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        files.sort();
        let waiting = files.iter().filter_map(|file| self.open(file));
        waiting.collect()
    }

    fn open(&self, file: &str) -> Option<Waiting> {
        let path = self.directory.join(file);
        let mut parts = file.trim_start_matches('.').splitn(3, '.');
        let (_, pid, name) = (parts.next()?, parts.next()?, parts.next()?);
        if file.starts_with('.') {
            // It is not ready yet, unless its process was killed in between.
            let pid = pid.parse().ok()?;
            if crate::process::Process::of(pid).is_none() {
                drop(fs::remove_file(path));
            }
            return None;
        }
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        match OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(&path)
        {
            Ok(pipe) => Some(Waiting {
                name: name.to_owned(),
                pipe,
            }),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                drop(fs::remove_file(path));
                None
            }
            Err(_) => None,
        }
    }
}

impl Waiting {
    /// Gives the process its answer. If that fails, the process asks for itself.
    pub fn tell(mut self, answer: &[u8]) {
        let told = self.pipe.write_all(&[answer, b"\n"].concat());
        if let Err(error) = told {
            tracing::debug!(name = self.name, %error, "an answer was not taken");
        }
    }
}

impl Place {
    /// Waits for the answer. Cancel-safe.
    pub async fn answer(&mut self) -> Vec<u8> {
        loop {
            if self.receiver.readable().await.is_err() {
                // No answer will come.
                std::future::pending::<()>().await;
            }
            if let Some(answer) = self.answer_now() {
                return answer;
            }
        }
    }

    /// Returns the answer if it is there already.
    pub fn answer_now(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; LIMIT];
        while let Ok(length @ 1..) = self.receiver.try_read(&mut bytes) {
            self.got.extend_from_slice(&bytes[..length]);
        }
        match self.got.last() {
            Some(b'\n') => Some(std::mem::take(&mut self.got)),
            _ => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Removes the directory of a queue in which nobody leads and nobody waits.
pub(super) fn remove_unused(directory: &Path) {
    let path = directory.join(LOCK);
    let lead = match lock_existing(&path) {
        Ok(Some(lock)) => Lead {
            directory: directory.to_owned(),
            _lock: lock,
        },
        _ => return,
    };
    if !lead.waiting().is_empty() {
        return;
    }
    // A process may join at this moment. Then the directory is not empty, and only its lock is made again.
    if entries(directory).all(|entry| entry.file_name() == LOCK) {
        drop(fs::remove_file(path));
        drop(fs::remove_dir(directory));
    }
}

/// Whether a name can be part of a file's.
fn is_fit(name: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[tokio::test]
    async fn each_gets_its_answer_and_who_died_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path().join("x"));
        let lead = queue.lead().unwrap().unwrap();
        assert!(queue.lead().unwrap().is_none());
        let mut places = [queue.join("a").unwrap(), queue.join("b").unwrap()];
        assert!(queue.join("../c").is_err());
        // What a killed process leaves: a FIFO without a reader, with its name or before it has one.
        let dead = [
            "00000000000000000001.999999999.c",
            ".00000000000000000002.999999999.d",
        ];
        for dead in dead {
            let path = queue.directory.join(dead);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        let waiting = lead.waiting();
        assert_eq!(files(&queue.directory), 3);
        let names: Vec<_> = waiting.iter().map(|w| w.name.clone()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(places[0].answer_now(), None);
        for waiting in waiting {
            let answer = waiting.name.repeat(9000);
            waiting.tell(answer.as_bytes());
        }
        for (place, name) in places.iter_mut().zip(["a", "b"]) {
            assert_eq!(
                place.answer().await,
                format!("{}\n", name.repeat(9000)).as_bytes()
            );
        }
        drop(places);
        assert_eq!(files(&queue.directory), 1);
        drop(lead);
        assert!(queue.lead().unwrap().is_some());
    }

    #[tokio::test]
    async fn strange_files_and_readers_that_left_hinder_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path().to_owned());
        let lead = queue.lead().unwrap().unwrap();
        for strange in ["x", "1.2", ".x", ".1.x.y"] {
            fs::write(dir.path().join(strange), "").unwrap();
        }
        fs::create_dir(dir.path().join("1.2.directory")).unwrap();
        let place = queue.join("a").unwrap();
        let mut waiting = lead.waiting();
        drop(place);
        assert_eq!(waiting.len(), 1);
        waiting.remove(0).tell(b"x");
        assert!(lead.waiting().is_empty());
    }
}
