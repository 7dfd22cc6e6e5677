//! One small file that many processes change: locked, read, written in place.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::make_directory;
use crate::files::open_own;
use crate::state::lock::LockFile;

/// The most that is read.
const LIMIT: usize = 8 << 10;
/// How long to wait for the lock. A process keeps it for microseconds, and for as long as it has to wait for a processor. One that
/// keeps it longer was stopped.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(2);

/// Changes a file's content, and returns the result of the change; `None` if the file cannot be opened or locked. Damaged content
/// counts as never written. The change must not wait for anything: it has the lock.
pub(super) async fn change<T, R>(path: &Path, change: impl FnOnce(T) -> (T, R)) -> Option<R>
where
    T: Default + Serialize + DeserializeOwned,
{
    match try_change(path, change).await {
        Ok(result) => Some(result),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "done without");
            None
        }
    }
}

async fn try_change<T, R>(path: &Path, change: impl FnOnce(T) -> (T, R)) -> io::Result<R>
where
    T: Default + Serialize + DeserializeOwned,
{
    let deadline = Instant::now() + PATIENCE;
    let file = loop {
        let file = open(path)?;
        lock(&file, deadline).await?;
        // The file may have been pruned meanwhile; then nobody else would see what is written to it.
        if file.is_at(path) {
            break file;
        }
    };
    let mut bytes = vec![0; LIMIT];
    let length = file.read_at(&mut bytes, 0)?;
    let old = serde_json::from_slice(&bytes[..length]).unwrap_or_default();
    let (new, result) = change(old);
    let bytes = serde_json::to_vec(&new)?;
    file.write_all_at(&bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    Ok(result)
}

fn open(path: &Path) -> io::Result<LockFile> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        open_own(options.mode(0o600), path)
    };
    let opened = match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(path);
            make_directory(parent)?;
            open()
        }
        opened => opened,
    };
    opened.map(LockFile::new)
}

async fn lock(file: &LockFile, deadline: Instant) -> io::Result<()> {
    while !file.take(FlockOperation::NonBlockingLockExclusive)? {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn add(path: &Path) -> Option<u32> {
        change(path, |n: u32| (n + 1, n)).await
    }

    #[tokio::test]
    async fn what_is_damaged_begins_anew_and_what_is_out_of_reach_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert_eq!(add(&path).await, Some(0));
        assert_eq!(add(&path).await, Some(1));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for damaged in [&b""[..], b"{", b"\xff\xfe", &[b'7'; 20000], b"null", b"-1"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(add(&path).await, Some(0), "{damaged:?}");
            assert_eq!(add(&path).await, Some(1));
        }
        // Shorter than what was there.
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(add(dir.path()).await, None);
        assert_eq!(add(&path.join("below a file")).await, None);
    }

    #[tokio::test]
    async fn a_lock_that_somebody_keeps_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let kept = open(&path).unwrap();
        lock(&kept, Instant::now() + PATIENCE).await.unwrap();
        let began = std::time::Instant::now();
        assert_eq!(add(&path).await, None);
        assert!(began.elapsed() < 4 * PATIENCE);
        drop(kept);
        assert_eq!(add(&path).await, Some(0));
    }

    #[tokio::test]
    async fn what_is_pruned_while_its_lock_is_waited_for_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert_eq!(add(&path).await, Some(0));
        let kept = open(&path).unwrap();
        lock(&kept, Instant::now() + PATIENCE).await.unwrap();
        let prune = async {
            sleep(PAUSE).await;
            std::fs::remove_file(&path).unwrap();
            drop(kept);
        };
        let (added, ()) = tokio::join!(add(&path), prune);
        assert_eq!(added, Some(0));
        assert_eq!(std::fs::read(&path).unwrap(), b"1");
    }
}
