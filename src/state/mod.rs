//! What outlives a process: intents, records and tombstones, with a directory for each job.
//!
//! ```text
//! DIRECTORY/jobs/KEY/intent.json    written before a launch: the exact request
//! DIRECTORY/jobs/KEY/record.json    written after it: the machine, its key, the Runner that owns the job
//! DIRECTORY/jobs/KEY/notice.json    that the job log has Spot's notice, for the scripts that follow
//! DIRECTORY/tombstones/KEY.json     left by cleanup for a while
//! DIRECTORY/manager                 the seed of the bastion's name, which marks everything that it launches
//! DIRECTORY/notes/NAME              facts that not every job shall find out again
//! DIRECTORY/known/NAME              AWS's answers about things that seldom change
//! DIRECTORY/shared                  what all jobs share: AWS's limits, and which host may use a configured name
//! ```
//!
//! Files are written beside their place, fsynced and renamed, mode 0600, and carry a version. A job's
//! directory is locked (flock) around each change, never during a launch: `cleanup` may come at any time.

mod aws_cache;
pub mod deadline;
mod files;
pub mod go_driver;
mod job_directory;
pub mod lease;
mod lock;
pub mod manager;
pub mod owner;
mod prune;
pub mod record;
pub mod shared;
mod spot_notice;
mod stage_lock;
pub mod trust;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, OFlags};

use crate::error::{Error, Kind, Result};
use crate::files::open_own;
use go_driver::GoJob;
use lock::LockFile;
use record::{Intent, Record, Tombstone};
use shared::Shared;

pub use self::job_directory::JobDirectory;
pub use self::stage_lock::StageLock;

/// The pause between two looks at a lock that another stage has.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How long a note is valid: a missing permission may have been granted by then.
const NOTE_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long to wait for another stage's lock: none keeps it longer than it takes to end a machine.
const LOCK_LIMIT: Duration = Duration::from_secs(120);

/// The state directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// One job's part of it.
#[derive(Clone, Debug)]
pub struct Job {
    key: String,
    dir: PathBuf,
    tombstone: PathBuf,
    stages: PathBuf,
}

/// A locked job: the only way to read or change its files. Dropping it unlocks.
#[derive(Debug)]
pub struct Locked<'a> {
    job: &'a Job,
    _lock: LockFile,
}

impl Store {
    /// Names the state directory. Does not touch it yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns one job's part.
    #[must_use]
    pub fn job(&self, key: &str) -> Job {
        Job {
            key: key.to_owned(),
            dir: self.root.join("jobs").join(key),
            tombstone: self.root.join("tombstones").join(format!("{key}.json")),
            stages: self
                .root
                .join(shared::NAME)
                .join(stage_lock::NAME)
                .join(key),
        }
    }

    /// Returns where a `local` machine keeps a job's builds.
    #[must_use]
    pub fn work_directory(&self, key: &str) -> PathBuf {
        self.root.join("work").join(key)
    }

    /// Returns where `local` machines keep what outlives a job.
    #[must_use]
    pub fn cache_directory(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Returns the Go driver's file of a job, if that driver prepared it.
    ///
    /// # Errors
    /// Where its file cannot be read or understood.
    pub fn go_job(&self, key: &str) -> Result<Option<GoJob>> {
        GoJob::read(&self.root, key)
    }

    /// Returns the part that all jobs share.
    #[must_use]
    pub fn shared(&self) -> Shared {
        Shared::new(self.root.join(shared::NAME))
    }

    /// Returns whether something was noted within the last day.
    #[must_use]
    pub fn is_noted(&self, name: &str) -> bool {
        let noted = fs::metadata(self.root.join("notes").join(name)).and_then(|m| m.modified());
        noted
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .is_some_and(|age| age < NOTE_AGE)
    }

    /// Notes something for a day. If that fails, the next job finds it out again.
    pub fn note(&self, name: &str) {
        let directory = self.root.join("notes");
        if make_directory(&directory).is_ok() {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            drop(open_own(&mut options, &directory.join(name)));
        }
    }

    /// Returns every job of which something is known.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let directory = self.root.join("jobs");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(files::problem("read", &directory, e)),
        };
        let names = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        Ok(names.map(|name| self.job(&name)).collect())
    }
}

impl Job {
    /// Returns the name that the state is kept under.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the directory, where a machine on this host keeps what belongs to it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Locks the job and makes its directory. Blocks this thread while another process has the lock.
    ///
    /// # Errors
    /// Where the state directory cannot be written.
    pub fn lock(&self) -> Result<Locked<'_>> {
        loop {
            self.make_directory()?;
            if let Some(locked) = self.lock_existing()? {
                return Ok(locked);
            }
        }
    }

    /// Locks the job and makes its directory. Waits for another stage's lock, but not for ever. Cancel-safe.
    ///
    /// # Errors
    /// If the state directory cannot be written, or another process keeps the lock.
    pub async fn lock_when_free(&self) -> Result<Locked<'_>> {
        loop {
            self.make_directory()?;
            if let Some(locked) = self.lock_existing_when_free().await? {
                return Ok(locked);
            }
        }
    }

    /// Locks the job if anything is known of it. Waits for another stage's lock, but not for ever. Cancel-safe.
    ///
    /// # Errors
    /// If the state directory cannot be read, or another process keeps the lock.
    pub async fn lock_existing_when_free(&self) -> Result<Option<Locked<'_>>> {
        let deadline = tokio::time::Instant::now() + LOCK_LIMIT;
        loop {
            let Some(lock) = self.open_lock()? else {
                return Ok(None);
            };
            while !self.take(&lock, FlockOperation::NonBlockingLockExclusive)? {
                if tokio::time::Instant::now() >= deadline {
                    return Err(self.busy());
                }
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            if let Some(locked) = self.confirm(lock) {
                return Ok(Some(locked));
            }
        }
    }

    /// Returns the error for a lock that another process keeps.
    fn busy(&self) -> Error {
        let inode = fs::metadata(&self.dir).map_or(0, |m| m.ino());
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let holder = match lock_holder(&locks, inode) {
            Some(pid) => format!("process {pid}"),
            None => "another process".to_owned(),
        };
        Error::new(
            Kind::State,
            format!(
                "{holder} has kept the lock on {} for {} s",
                self.dir.display(),
                LOCK_LIMIT.as_secs()
            ),
        )
        .hint("What is known of the job is kept for the next `cleanup`. If that process hangs, end it.")
    }

    /// Locks the job if anything is known of it. Blocks this thread while another process has the lock.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub fn lock_existing(&self) -> Result<Option<Locked<'_>>> {
        loop {
            let Some(lock) = self.open_lock()? else {
                return Ok(None);
            };
            if self.take(&lock, FlockOperation::LockExclusive)?
                && let Some(locked) = self.confirm(lock)
            {
                return Ok(Some(locked));
            }
        }
    }

    fn make_directory(&self) -> Result<()> {
        make_directory(&self.dir)
    }

    fn open_lock(&self) -> Result<Option<LockFile>> {
        // Opening a named pipe in its place would block.
        let flags = OFlags::DIRECTORY | OFlags::NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags.bits().cast_signed());
        match options.open(&self.dir) {
            Ok(dir) => Ok(Some(LockFile::new(dir))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(files::problem("open", &self.dir, e)),
        }
    }

    /// Returns whether the lock was taken.
    fn take(&self, lock: &LockFile, operation: FlockOperation) -> Result<bool> {
        let taken = lock.take(operation);
        taken.map_err(|e| files::problem("lock", &self.dir, e))
    }

    /// The process that had the lock may have removed the directory; there may be another in its place.
    fn confirm(&self, lock: LockFile) -> Option<Locked<'_>> {
        lock.is_at(&self.dir).then_some(Locked {
            job: self,
            _lock: lock,
        })
    }

    /// Reads the record without the lock: it is replaced as a whole, never changed.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn record(&self) -> Result<Option<Record>> {
        files::read(&self.dir.join("record.json"))
    }

    /// Reads the intent without the lock: it is replaced as a whole, never changed.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn intent(&self) -> Result<Option<Intent>> {
        files::read(&self.dir.join("intent.json"))
    }

    /// Reads the tombstone of an earlier attempt.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn tombstone(&self) -> Result<Option<Tombstone>> {
        files::read(&self.tombstone)
    }

    /// Leaves a tombstone for later attempts.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn bury(&self, tombstone: &Tombstone) -> Result<()> {
        if let Some(dir) = self.tombstone.parent() {
            make_directory(dir)?;
        }
        files::write(&self.tombstone, tombstone)
    }
}

impl Locked<'_> {
    /// Reads the intent.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn intent(&self) -> Result<Option<Intent>> {
        self.job.intent()
    }

    /// Writes the intent; it is on disk when this returns.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_intent(&self, intent: &Intent) -> Result<()> {
        files::write(&self.job.dir.join("intent.json"), intent)
    }

    /// Writes the intent again, unless that of its attempt is gone or ending: then a `cleanup` came in between.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn update_intent(&self, intent: &Intent) -> Result<bool> {
        let same = |old: Intent| old.attempt == intent.attempt && !old.ending;
        if !self.intent()?.is_some_and(same) {
            return Ok(false);
        }
        self.write_intent(intent).map(|()| true)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn record(&self) -> Result<Option<Record>> {
        self.job.record()
    }

    /// Writes the record, unless the intent of that attempt is gone or ending: then a `cleanup` came in between, and
    /// nobody owns what was launched.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_record(&self, record: &Record) -> Result<bool> {
        match self.intent()? {
            Some(intent) if intent.attempt == record.attempt && !intent.ending => {
                files::write(&self.job.dir.join("record.json"), record)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Removes the job's files.
    ///
    /// # Errors
    /// Where files cannot be removed.
    pub fn remove(self) -> Result<()> {
        let dir = &self.job.dir;
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(files::problem("remove", dir, e))
            }
            _ => {
                self.job.forget_stages();
                Ok(())
            }
        }
    }
}

pub(in crate::state) fn make_directory(directory: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| files::problem("make", directory, e))
}

/// Returns which process has a lock, from `/proc/locks`: `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`; who only
/// waits has an arrow after the number.
fn lock_holder(locks: &str, inode: u64) -> Option<i32> {
    let ours = format!(":{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, pid, file, ..] if file.ends_with(&ours) => pid.parse().ok(),
            _ => None,
        }
    })
}

/// Returns the error for a job of which nothing is known.
pub(crate) fn unknown(job: &Job) -> Error {
    Error::new(
        Kind::State,
        format!("nothing is known of this job: {} is missing", job.dir.join("record.json").display()),
    )
    .hint(
        "`prepare` leaves it. Check that all stages use the same [state] directory, and that nothing clears it \
         while jobs run.",
    )
}

#[cfg(test)]
mod tests;
