//! Whether the state directory can be trusted: only if nobody but root and GitLab Runner's user may put something into it, or
//! replace it.
//!
//! Its files say which job owns which machine, and which machines are ended because nobody owns them. Each file is checked when it
//! is read (`crate::files`). Here are the checks of directories: each on the path to the state directory, and those below it
//! on which decisions depend. `work` and `cache` belong to jobs, and no decision depends on them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Job, Store};
use crate::config::settings::Style;
use crate::error::{Error, Kind, Result};
use crate::files;

/// The directories below the state directory on which decisions depend.
const PARTS: [&str; 5] = ["jobs", "tombstones", "known", "notes", "shared"];
/// Directories with further directories.
const NESTED: [&str; 2] = ["shared", "shared/poll"];
/// The most links that Linux follows.
const MOST_LINKS: usize = 40;
/// The bit that lets only its owner rename or remove a file in a directory that others may write.
const STICKY: u32 = 0o1000;

/// What others may do in the state directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lenience {
    /// Nothing.
    None,
    /// All may make files in it, as long as they cannot touch other users' files, as in `/tmp`: users of the Go driver chose their
    /// directory when that did not matter. Files of other users do not count as the driver's own.
    Sticky,
}

impl Lenience {
    /// Returns what others may do in the state directory of such a file.
    #[must_use]
    pub fn of(style: Style) -> Self {
        match style {
            Style::GoDriver => Self::Sticky,
            Style::New => Self::None,
        }
    }
}

impl Store {
    /// Refuses a state directory that others may change. Jobs' own directories are [`Job::trust`]'s.
    ///
    /// # Errors
    /// If others may change it.
    pub fn trust(&self, lenience: Lenience) -> Result<()> {
        self.looked_at(files::me(), lenience).verdict()
    }

    /// Returns all that others may change, including jobs' directories, if the stages run as that user.
    #[must_use]
    pub fn distrusted(&self, lenience: Lenience, user: u32) -> Vec<Error> {
        let mut look = self.looked_at(user, lenience);
        for job in directories(&self.root.join("jobs")) {
            look.at(&job, false);
        }
        look.problems
    }

    /// Returns the user that the stages run as, as far as this process can tell: its own user; if that is root, the owner of the
    /// state directory.
    #[must_use]
    pub fn user(&self) -> u32 {
        match files::me() {
            0 => fs::metadata(&self.root).map_or(0, |seen| seen.uid()),
            me => me,
        }
    }

    fn looked_at(&self, user: u32, lenience: Lenience) -> Inspection {
        let mut look = Inspection::new(user);
        look.along(&self.root, lenience == Lenience::Sticky);
        for part in PARTS {
            look.at(&self.root.join(part), false);
        }
        for part in NESTED {
            for directory in directories(&self.root.join(part)) {
                look.at(&directory, false);
            }
        }
        look
    }
}

fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let all = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_file()));
    let mut all: Vec<PathBuf> = all.map(|entry| entry.path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    all
}

/// A check of directories, and its findings.
struct Inspection {
    user: u32,
    seen: BTreeSet<PathBuf>,
    links: usize,
    problems: Vec<Error>,
}

impl Job {
    /// Refuses a job's directory that others may change.
    ///
    /// # Errors
    /// If others may change it.
    pub fn trust(&self) -> Result<()> {
        let mut look = Inspection::new(files::me());
        look.at(&self.dir, false);
        look.verdict()
    }
}

impl Inspection {
    fn new(user: u32) -> Self {
        Self {
            user,
            seen: BTreeSet::new(),
            links: 0,
            problems: Vec::new(),
        }
    }

    fn verdict(self) -> Result<()> {
        self.problems.into_iter().next().map_or(Ok(()), Err)
    }

    /// Checks each directory of a path: a user who may write one of them may replace what is below it.
    fn along(&mut self, path: &Path, last_may_be_sticky: bool) {
        let mut at = PathBuf::new();
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            at.push(component);
            self.at(&at, components.peek().is_some() || last_may_be_sticky);
        }
    }

    /// Checks one, and its target if it is a link. A missing one will be made by the driver.
    fn at(&mut self, path: &Path, may_be_sticky: bool) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        let stranger = files::stranger(&metadata, self.user);
        if metadata.is_symlink() {
            if let Some(problem) = stranger {
                self.problems.push(foreign(path, &problem, self.user));
            }
            self.links += 1;
            if let (Ok(target), 0..MOST_LINKS) = (fs::read_link(path), self.links) {
                let from = path.parent().unwrap_or(path);
                self.along(&from.join(target), may_be_sticky);
            }
        } else if let Some(problem) = stranger {
            self.problems.push(foreign(path, &problem, self.user));
        } else if let Some(problem) = files::others(&metadata, self.user)
            && !(may_be_sticky && metadata.mode() & STICKY != 0)
        {
            self.problems.push(open(path, &problem));
        }
    }
}

fn foreign(path: &Path, problem: &str, user: u32) -> Error {
    refused(path, problem).hint(format!(
        "It has to belong to root or to the user that GitLab Runner runs as, who is user {user} here: run this as that user, or \
         `chown -h {user} {}`.",
        path.display()
    ))
}

fn open(path: &Path, problem: &str) -> Error {
    refused(path, problem).hint(format!(
        "Whoever may write there may have another job's machine ended, or keep one: `chmod go-w {}`.",
        path.display()
    ))
}

fn refused(path: &Path, problem: &str) -> Error {
    let what = format!("the jobs' state cannot be trusted to {}", path.display());
    Error::new(Kind::State, what).because(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A state directory as the driver makes it, two levels down.
    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("above/state");
        for part in ["jobs/k", "shared/poll/x", "notes", "work/k"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        for part in [
            "..",
            "",
            "jobs",
            "jobs/k",
            "shared",
            "shared/poll",
            "shared/poll/x",
            "notes",
            "work",
        ] {
            mode(&root.join(part), 0o700);
        }
        (dir, Store::new(root))
    }

    fn refusal(store: &Store) -> Option<String> {
        let trusted = store.trust(Lenience::None);
        trusted
            .and_then(|()| store.job("k").trust())
            .err()
            .map(|e| {
                assert_eq!(e.kind(), Kind::State);
                format!("{e} {}", e.remedy().unwrap_or_default())
            })
    }

    #[test]
    fn what_others_may_write_is_refused_by_its_name() {
        let (_dir, store) = store();
        assert_eq!(refusal(&store), None);
        for part in [
            "..",
            "",
            "jobs",
            "jobs/k",
            "shared",
            "shared/poll",
            "shared/poll/x",
            "notes",
        ] {
            let path = store.root.join(part);
            for bits in [0o770, 0o777, 0o720, 0o702] {
                mode(&path, bits);
                let said = refusal(&store).unwrap_or_else(|| panic!("{part} {bits:o}"));
                let want = format!("mode {bits:04o}");
                assert!(
                    said.contains(&want) && said.contains("chmod go-w"),
                    "{said}"
                );
                assert_eq!(store.distrusted(Lenience::None, files::me()).len(), 1);
            }
            for bits in [0o700, 0o755] {
                mode(&path, bits);
                assert_eq!(refusal(&store), None, "{part} {bits:o}");
            }
        }
        mode(&store.root.join("work"), 0o777);
        assert_eq!(refusal(&store), None);
    }

    #[test]
    fn a_sticky_directory_is_taken_above_and_for_the_go_drivers_users() {
        let (_dir, store) = store();
        mode(store.root.parent().unwrap(), 0o1777);
        assert_eq!(refusal(&store), None);
        mode(&store.root, 0o1777);
        assert!(refusal(&store).is_some());
        assert!(store.trust(Lenience::Sticky).is_ok());
        mode(&store.root.join("jobs"), 0o1777);
        assert!(store.trust(Lenience::Sticky).is_err());
    }

    #[test]
    fn a_link_is_as_good_as_the_way_it_leads() {
        let (dir, store) = store();
        let way = dir.path().join("way");
        fs::create_dir(&way).unwrap();
        symlink("../above", way.join("link")).unwrap();
        symlink(way.join("link/state"), dir.path().join("state")).unwrap();
        let linked = Store::new(dir.path().join("state"));
        assert_eq!(refusal(&linked), None);
        mode(&way, 0o777);
        assert!(refusal(&linked).unwrap().contains("/way"));
        mode(&way, 0o755);
        mode(&store.root, 0o777);
        assert!(refusal(&linked).is_some());
        mode(&store.root, 0o700);
        // Below the state directory as well.
        fs::remove_dir(store.root.join("notes")).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        mode(&elsewhere, 0o777);
        symlink(&elsewhere, store.root.join("notes")).unwrap();
        assert!(refusal(&store).unwrap().contains("/elsewhere"));
        // One that leads to itself leads nowhere.
        let circle = dir.path().join("circle");
        symlink(&circle, &circle).unwrap();
        assert_eq!(refusal(&Store::new(circle.join("state"))), None);
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let (_dir, store) = store();
        let me = files::me();
        if me != 0 {
            // Only root can give something away.
            return;
        }
        let jobs = store.root.join("jobs");
        chown(&jobs, Some(4711), None).unwrap();
        let said = refusal(&store).unwrap();
        assert!(
            said.contains("it belongs to user 4711") && said.contains("chown"),
            "{said}"
        );
        // Where all of it is that user's, the stages are meant to run as that user.
        chown(&store.root, Some(4711), None).unwrap();
        assert_eq!(store.user(), 4711);
        assert!(store.distrusted(Lenience::None, 4711).is_empty());
        assert_eq!(store.distrusted(Lenience::None, 0).len(), 2);
    }

    #[test]
    fn what_is_not_there_is_not_held_against_anybody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(refusal(&Store::new(dir.path().join("a/b"))), None);
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(refusal(&Store::new(dir.path().join("file/b"))), None);
    }
}
