//! Puts a copy of the running program into a directory, for containers whose images do not have it.
//!
//! The image that the copy comes from has this program and nothing else: no shell, no `cp`, no `chmod`.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The name of the copy.
pub(crate) const NAME: &str = "gitlab-aws-agent";

/// What could not be done to which path.
#[derive(Debug, thiserror::Error)]
#[error("failed to {act} {}", path.display())]
pub struct InstallError {
    act: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError {
        act,
        path: path.to_owned(),
        source,
    }
}

/// Copies the running program into `directory`, and makes each path of `open` a directory that all may write to.
///
/// # Errors
///
/// Fails with the path that could not be made or written.
pub fn install(
    program: &Path,
    directory: &Path,
    open: &[PathBuf],
) -> Result<PathBuf, InstallError> {
    make(directory, 0o755)?;
    let copy = place(program, directory)?;
    for path in open {
        make(path, 0o777)?;
        set_mode(path, 0o777)?;
    }
    Ok(copy)
}

/// Makes a directory, with all above it, if it is not there. Only what is made is given a mode: the directory may be another
/// user's.
fn make(path: &Path, mode: u32) -> Result<(), InstallError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make(parent, 0o755)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => set_mode(path, mode),
        // Somebody else was quicker, or something else is there.
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(failed("make the directory", path)(error)),
    }
}

/// Sets a mode, whatever the umask has made of it.
fn set_mode(path: &Path, mode: u32) -> Result<(), InstallError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(failed("set the mode of", path))
}

/// Writes the copy beside its place and moves it there whole: another container may look at any time.
fn place(program: &Path, directory: &Path) -> Result<PathBuf, InstallError> {
    let copy = directory.join(NAME);
    let beside = directory.join(format!(".{NAME}.{}", std::process::id()));
    let written = write(program, &beside)
        .and_then(|()| std::fs::rename(&beside, &copy).map_err(failed("move the copy to", &copy)));
    if let Err(error) = written {
        // What is left would be in nobody's way.
        drop(std::fs::remove_file(&beside));
        return Err(error);
    }
    // Some filesystems cannot do this to a directory; the copy is there all the same.
    if let Ok(directory) = File::open(directory) {
        drop(directory.sync_all());
    }
    Ok(copy)
}

fn write(program: &Path, beside: &Path) -> Result<(), InstallError> {
    let mut from = File::open(program).map_err(failed("read", program))?;
    // What an earlier run under the same number has left, which the next line refuses.
    drop(std::fs::remove_file(beside));
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(beside)
        .map_err(failed("create", beside))?;
    io::copy(&mut from, &mut to).map_err(failed("write", beside))?;
    to.set_permissions(Permissions::from_mode(0o755))
        .map_err(failed("set the mode of", beside))?;
    to.sync_all().map_err(failed("write", beside))
}

/// Returns the path of the running program, by which it can be read even where it has been removed.
#[must_use]
pub fn own_program(first_word: Option<&std::ffi::OsStr>) -> PathBuf {
    let own = Path::new("/proc/self/exe");
    match first_word {
        Some(word) if File::open(own).is_err() => PathBuf::from(word),
        _ => own.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_copy_is_whole_and_for_all() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("program");
        std::fs::write(&program, "first").unwrap();
        let directory = root.path().join("a/b");
        let open = [root.path().join("c/d"), directory.clone()];
        let copy = install(&program, &directory, &open[..1]).unwrap();
        assert_eq!(copy, directory.join(NAME));
        assert_eq!((mode(&copy), mode(&directory)), (0o755, 0o755));
        assert_eq!(mode(&open[0]), 0o777);
        assert_eq!(mode(&root.path().join("c")), 0o755);
        // Again, over what is there, with a directory that was there before.
        std::fs::write(&program, "second").unwrap();
        install(&program, &directory, &open).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), b"second");
        assert_eq!(mode(&directory), 0o777);
        let names = directory.read_dir().unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    fn failures_name_the_path() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let below = file.join("below");
        let error = install(&file, &below, &[]).unwrap_err();
        assert!(
            error.to_string().contains(file.to_str().unwrap()),
            "{error}"
        );
        let missing = root.path().join("missing");
        let error = install(&missing, root.path(), &[]).unwrap_err();
        assert!(
            error.to_string().contains(missing.to_str().unwrap()),
            "{error}"
        );
        let taken = root.path().join(NAME);
        std::fs::create_dir(&taken).unwrap();
        let error = install(&file, root.path(), &[]).unwrap_err();
        assert!(
            error.to_string().contains(taken.to_str().unwrap()),
            "{error}"
        );
        assert_eq!(root.path().read_dir().unwrap().count(), 2);
    }
}
