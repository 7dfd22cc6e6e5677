//! The pids limit of a container, which counts root's processes as well: with nothing left not even the SSH server can start
//! one for a connection.

use std::path::Path;
use std::path::PathBuf;

use super::Shell;
use super::at_once;
use super::bash_as_sh;
use super::leave;
use super::works_or_is_told;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::traces::until;

/// A control group of its own with a limit of processes; gone when dropped, once nothing runs in it.
pub(crate) struct Group(PathBuf);

impl Group {
    /// Makes one where this host lets: version 1, or version 2 whose root has the controller switched on. The name is no other's.
    pub(crate) fn make(name: &str) -> Option<Self> {
        let name = format!("gad-lab-{}-{name}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let first = root.join("pids");
        let second = std::fs::read_to_string(root.join("cgroup.subtree_control"));
        let parent = match second.is_ok_and(|on| on.split_whitespace().any(|c| c == "pids")) {
            true => root,
            false => &first,
        };
        let path = parent.join(name);
        std::fs::create_dir(&path).ok()?;
        let group = Self(path);
        group.0.join("pids.max").exists().then_some(group)
    }

    /// Returns the command by which a shell enters it.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ >{}/cgroup.procs", self.0.display())
    }

    /// Lets it have so many processes.
    pub(crate) fn limit(&self, count: usize) {
        std::fs::write(self.0.join("pids.max"), count.to_string()).unwrap();
    }

    /// Returns how many it has.
    pub(crate) fn count(&self) -> usize {
        let text = std::fs::read_to_string(self.0.join("pids.current")).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It may still hold what is just being collected.
        until("the control group's end", PATIENCE, || {
            std::fs::remove_dir(&self.0).is_ok()
        });
    }
}

#[test]
fn a_container_without_a_process_left_is_told() {
    let Some(probe) = Group::make("probe") else {
        eprintln!("skipped: this host lets nobody make control groups that limit processes");
        return;
    };
    drop(probe);
    let all = [
        (0, Kind::OpenSsh, Shell::Dash),
        (1, Kind::OpenSsh, Shell::Dash),
        (2, Kind::OpenSsh, Shell::Busybox),
        (3, Kind::OpenSsh, Shell::Bash),
        (4, Kind::OpenSsh, Shell::Dash),
        (0, Kind::Dropbear, Shell::Dash),
        (0, Kind::Own, Shell::Dash),
        (1, Kind::Own, Shell::Bash),
        (40, Kind::Own, Shell::Busybox),
    ];
    let all = all.into_iter().zip(1..);
    at_once(all, |((free, kind, shell), number)| {
        let group = Group::make(&format!("job-{number}")).unwrap();
        let folder = crate::lab::temp_dir();
        let machine = shell.machine(kind, &bash_as_sh(folder.path()));
        let runner = Runner::builder()
            .machine(machine.first(&group.enter()))
            .exit_codes("70", "71")
            .build();
        runner.start();
        leave(&runner, 3);
        // The server is alone with what was left, once the stage's connection is gone.
        let idle = 1 + 4;
        until("the connection's end", PATIENCE, || {
            group.count() <= idle || kind == Kind::Own
        });
        group.limit(group.count() + free);
        let what = format!("{kind:?}, {shell:?}, {free} free of the container's");
        let worked = works_or_is_told(&runner, &what);
        assert_eq!(worked, free == 40, "{what}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
        drop(runner);
    });
}
