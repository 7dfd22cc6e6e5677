//! Plays whole jobs against a fake driver.

mod playing;
mod quoting;
mod stopping;
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::child::Grace;
use super::job::Job;
use super::log::JobLog;
use super::player::{Limits, Plan, Player};
use super::report::Report;
use super::verdict::Failure;

/// Far more than anything here takes; only a hang gets there.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// What has been written so far.
type Seen = watch::Receiver<Vec<u8>>;

/// A directory with a fake driver in it.
struct Theatre {
    directory: tempfile::TempDir,
}

/// A job that was played.
struct Played {
    report: Report,
    log: Vec<u8>,
    console: Vec<u8>,
}

/// Keeps what is written and tells those who wait for it.
struct Recorder(watch::Sender<Vec<u8>>);

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|all| all.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Theatre {
    fn new() -> Self {
        let theatre = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(theatre.file("fake"), include_str!("tests/fake-driver.sh")).unwrap();
        fs::write(theatre.file("calls"), "").unwrap();
        fs::create_dir(theatre.file("temp")).unwrap();
        theatre
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes the fake driver do something else first; `$here` is its directory.
    fn on(&self, stage: &str, text: &str) -> &Self {
        fs::write(self.file(&format!("on-{stage}")), text).unwrap();
        self
    }

    fn plan(&self, script: impl AsRef<[u8]>) -> Plan {
        let program = [
            "bash".into(),
            self.file("fake").into(),
            "--config".into(),
            "x".into(),
        ];
        Plan {
            program: program.into(),
            configuration: None,
            forget: Vec::new(),
            job: Job::new(script.as_ref().to_vec(), LONG).unwrap(),
            attempts: 1,
            timeout: LONG,
            builds_dir: self.file("builds"),
            temp: self.file("temp"),
            limits: Limits {
                prepare_pause: SHORT,
                sources_pause: SHORT,
                stage: LONG,
                after_script: LONG,
                cleanup_wait: LONG,
                grace: Grace {
                    term: LONG,
                    kill: LONG,
                },
            },
        }
    }

    fn play(&self, plan: Plan) -> Played {
        self.play_with(plan, async |_, _, _| {})
    }

    /// Plays while somebody who sees the job's log and the Runner's may cancel.
    fn play_with(
        &self,
        plan: Plan,
        somebody: impl AsyncFnOnce(&watch::Sender<u32>, Seen, Seen),
    ) -> Played {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let played = runtime.block_on(async {
            let (seen, mut log) = watch::channel(Vec::new());
            let (noted, mut console) = watch::channel(Vec::new());
            let (cancel, cancels) = watch::channel(0);
            let (to_log, writer) = JobLog::start(Recorder(seen), false);
            let (to_console, notes) = JobLog::start(Recorder(noted), false);
            let player = Player::new(plan, to_log, to_console, cancels);
            let (report, ()) = tokio::join!(
                player.play(),
                somebody(&cancel, log.clone(), console.clone())
            );
            writer.await.unwrap();
            notes.await.unwrap();
            Played {
                report,
                log: log.borrow_and_update().clone(),
                console: console.borrow_and_update().clone(),
            }
        });
        assert_eq!(
            fs::read_dir(self.file("temp")).unwrap().count(),
            0,
            "temporary files stay"
        );
        played
    }

    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.file("calls"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Returns the environment of a call, counted from 1.
    fn env(&self, number: usize) -> BTreeMap<String, String> {
        let all = fs::read_to_string(self.file(&format!("env-{number}"))).unwrap();
        all.split_terminator('\0')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn statuses(&self) -> Vec<(String, String)> {
        let calls = self.calls().into_iter().enumerate();
        calls
            .map(|(i, call)| (call, self.env(i + 1)["CUSTOM_ENV_CI_JOB_STATUS"].clone()))
            .collect()
    }

    /// Returns the status that `cleanup` was told.
    fn last_status(&self) -> String {
        let (call, status) = self.statuses().pop().unwrap();
        assert_eq!(call, "cleanup");
        status
    }
}

/// Returns the failure of a script that ended with a code, as the Runner tells it.
fn script(code: i64) -> Failure {
    Failure::Script {
        code,
        said: format!("exit status {code}"),
    }
}

impl Played {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }
}
