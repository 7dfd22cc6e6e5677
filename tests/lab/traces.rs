//! What a job's record says about where it leaves something, and looking there.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;

use super::PATIENCE;
use super::port;
use super::processes;

/// Everything by which the things of some jobs can be told from all others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces {
    tokens: Vec<String>,
    spools: Vec<String>,
    ports: Vec<u16>,
    /// Where the machine's own `/var/tmp` is, where it has one.
    var_tmp: Option<PathBuf>,
    /// This host's id of the process 1 of the machine's own PID namespace, where it has one.
    process_1: Option<Pid>,
}

/// Returns whether the tests shall take their time, for the full numbers.
pub(crate) fn long() -> bool {
    std::env::var_os("GAD_LONG").is_some_and(|value| value == "1")
}

/// Waits until something holds of which no event tells.
///
/// # Panics
///
/// When the deadline passes.
#[track_caller]
pub(crate) fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Traces {
    /// Reads the intents and records that lie in a state directory now.
    pub(crate) fn of(state: &Path) -> Self {
        let mut traces = Self::default();
        for job in list(&state.join("jobs")) {
            for name in ["intent.json", "record.json"] {
                let text = std::fs::read(job.join(name)).unwrap_or_default();
                if let Ok(value) = serde_json::from_slice(&text) {
                    traces.take(&value);
                }
            }
        }
        traces
    }

    /// Returns whether nothing was known of any job.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Leaves out a port on which somebody of the test's own listens: a proxy.
    pub(crate) fn without_port(mut self, port: u16) -> Self {
        self.ports.retain(|known| *known != port);
        self
    }

    /// Looks for what lies in `/var/tmp` in that directory instead.
    pub(crate) fn with_var_tmp(mut self, directory: Option<PathBuf>) -> Self {
        self.var_tmp = directory;
        self
    }

    /// Takes process ids that the machine tells for those of the PID namespace with that process 1.
    pub(crate) fn with_process_1(mut self, process: Option<Pid>) -> Self {
        self.process_1 = process;
        self
    }

    fn take(&mut self, value: &Value) {
        let (Value::Object(_) | Value::Array(_)) = value else {
            return;
        };
        for (name, inner) in value.as_object().into_iter().flatten() {
            match (name.as_str(), inner) {
                ("token", Value::String(token)) => self.tokens.push(token.clone()),
                ("spool", Value::String(spool)) => self.spools.push(spool.clone()),
                ("port", Value::Number(port)) => {
                    let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
                    // In an intent for the built-in server the port is a default that means nothing.
                    self.ports.extend(port.filter(|port| *port != 22));
                }
                _ => self.take(inner),
            }
        }
        for inner in value.as_array().into_iter().flatten() {
            self.take(inner);
        }
    }

    /// Returns the spool directories of all scripts of the jobs, on a machine that shares this host's
    /// `/var/tmp` or whose own is known.
    pub(crate) fn scripts(&self) -> Vec<PathBuf> {
        let all = self.spool_roots().into_iter().flat_map(|root| list(&root));
        all.filter(|path| path.join("sup").is_file()).collect()
    }

    fn spool_roots(&self) -> Vec<PathBuf> {
        let var_tmp = self.var_tmp.as_deref();
        let bases = [var_tmp.unwrap_or(Path::new("/var/tmp")), Path::new("/tmp")];
        let spools = self.spools.iter();
        spools
            .flat_map(|spool| bases.map(|base| base.join(format!(".gad-{spool}"))))
            .collect()
    }

    /// Returns the bytes that lie in the spools.
    pub(crate) fn spooled(&self) -> u64 {
        let files = self.scripts().into_iter().flat_map(|script| list(&script));
        files
            .filter_map(|file| std::fs::metadata(file).ok())
            .map(|file| file.len())
            .sum()
    }

    /// Kills the process whose pid stands in that file of the only script's directory.
    ///
    /// # Panics
    ///
    /// When there is no such script or process.
    pub(crate) fn kill(&self, file: &str) -> Pid {
        let mut killed = None;
        until(&format!("a pid in `{file}`"), PATIENCE, || {
            let scripts = self.scripts();
            assert!(scripts.len() < 2, "{scripts:?}");
            killed = scripts
                .first()
                .and_then(|script| std::fs::read_to_string(script.join(file)).ok())
                .and_then(|text| text.split_whitespace().next()?.parse().ok())
                .and_then(Pid::from_raw)
                .and_then(|pid| match self.process_1 {
                    Some(process_1) => processes::of_namespace(process_1, pid),
                    None => Some(pid),
                });
            killed.is_some()
        });
        let pid = killed.unwrap();
        rustix::process::kill_process(pid, Signal::KILL).expect("a live process");
        pid
    }

    /// Returns the live processes that carry the mark of the machines.
    pub(crate) fn marked(&self) -> Vec<String> {
        let marks: Vec<_> = self
            .tokens
            .iter()
            .map(|token| format!("GITLAB_AWS_DRIVER_MACHINE={token}").into_bytes())
            .collect();
        let carries = |process: &PathBuf| {
            let environ = std::fs::read(process.join("environ")).unwrap_or_default();
            environ
                .split(|byte| *byte == 0)
                .any(|variable| marks.iter().any(|mark| mark == variable))
        };
        list(Path::new("/proc"))
            .into_iter()
            .filter(carries)
            .map(|process| {
                let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                format!("{} {line:.200}", process.display())
            })
            .collect()
    }

    /// Checks that no process, port or far file of the jobs is left.
    ///
    /// # Panics
    ///
    /// With what is left.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        let mut left = self.marked();
        // Any other port the system may have given to another test's server meanwhile.
        let ports = self.ports.iter().filter(|port| port::RANGE.contains(*port));
        let ports = ports.filter(|port| port::is_listening(**port));
        left.extend(ports.map(|port| format!("somebody listens on port {port}")));
        // A machine's own disk is gone with it.
        let own = |root: &PathBuf| {
            self.var_tmp
                .as_ref()
                .is_some_and(|own| root.starts_with(own))
        };
        let roots = self.spool_roots().into_iter();
        let roots = roots.filter(|root| !own(root) && root.exists());
        left.extend(roots.map(|root| root.display().to_string()));
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

/// What outlives every job: who this is, what was learnt, and what keeps jobs within AWS's limits.
const LASTING: [&str; 4] = ["manager", "notes", "known", "shared"];

/// Checks that a state directory holds nothing but so many tombstones.
///
/// # Panics
///
/// With what else there is.
#[track_caller]
pub(crate) fn assert_only_tombstones(state: &Path, count: usize) {
    assert_eq!(tombstones(state), count);
}

/// Returns how many tombstones a state directory holds, beside which there must be nothing.
///
/// # Panics
///
/// With what else there is.
#[track_caller]
pub(crate) fn tombstones(state: &Path) -> usize {
    let mut files = Vec::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in list(&folder) {
            // A job's own folder must be gone even where it is empty.
            let of_a_job = folder.ends_with("jobs") || folder.ends_with("work");
            if folder == state
                && path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| LASTING.contains(&name))
            {
                continue;
            }
            if path.is_dir() && !of_a_job {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let tombstones = state.join("tombstones");
    let (right, wrong): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| {
        path.parent() == Some(&tombstones) && path.extension().is_some_and(|end| end == "json")
    });
    assert!(wrong.is_empty(), "left in the state directory: {wrong:?}");
    right.len()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}
