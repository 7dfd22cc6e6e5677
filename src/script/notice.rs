//! Spot's notice that it takes an instance back, watched on the instance while a script runs there.
//!
//! `notice.sh` asks the instance's metadata, in a second channel of the connection on which the script is followed,
//! so that nothing of it can mix with the script's output. On the instance, also where the script runs in a
//! container of it. Told once a job: what a script was told the later ones know.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use memchr::memmem;
use serde::Deserialize;
use tokio::time::sleep;

use super::shorten::shortened;
use crate::error::{Error, Kind};
use crate::shell::quote;
use crate::ssh::session::{Event, Session};
use crate::state::Job;
use crate::ui::Ui;

/// The far side, as written.
pub(super) const NOTICE: &str = include_str!("notice.sh");
/// Most sub-stages are over before: they need no second channel.
const AFTER: Duration = Duration::from_secs(2);
/// A login shell's start-up files may print before the far side speaks.
const NOISE_LIMIT: usize = 1 << 16;
/// The end may come a little before the time that was told; one that comes long before has another cause.
const DUE: Duration = Duration::from_secs(15);
/// The exit codes of scripts that a signal killed, as shells tell them: 128 and its number, of which there are 64. A program that
/// ends with 255 was not killed.
const SIGNALS: RangeInclusive<u8> = 129..=192;

/// When Spot takes the instance back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    at: SystemTime,
}

/// Returns whether an exit code is that of a script which a signal killed.
pub(super) fn is_a_signals(code: u8) -> bool {
    SIGNALS.contains(&code)
}

impl Notice {
    /// Reads what the metadata say under `spot/instance-action`; `None` where that is no notice.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Action {
            time: String,
        }
        let action: Action = serde_json::from_str(text).ok()?;
        let at = humantime::parse_rfc3339(&action.time).ok()?;
        Some(Self { at })
    }

    fn left(self) -> Duration {
        self.at
            .duration_since(SystemTime::now())
            .unwrap_or_default()
    }

    fn is_due(self) -> bool {
        self.left() <= DUE
    }

    fn told(self) -> String {
        format!(
            "Spot takes this machine back in {} s. A script that ends before counts; one that does not ends the job \
             as a system failure.",
            self.left().as_secs()
        )
    }
}

/// Finds the far side's one frame among what a login shell may print before.
#[derive(Debug)]
struct Listener {
    begin: String,
    heard: Vec<u8>,
}

impl Listener {
    fn new(nonce: &str) -> Self {
        Self {
            begin: format!("\x1e{nonce} notice "),
            heard: Vec::new(),
        }
    }

    /// Takes what came; returns the notice once it is whole.
    fn hear(&mut self, data: &[u8]) -> Option<Notice> {
        if self.heard.len() < NOISE_LIMIT {
            self.heard.extend_from_slice(data);
        }
        let at = memmem::find(&self.heard, self.begin.as_bytes())?;
        let rest = &self.heard[at + self.begin.len()..];
        let end = memchr::memchr(b'\n', rest)?;
        Notice::read(&String::from_utf8_lossy(&rest[..end]))
    }
}

/// Returns the far side's command.
#[must_use]
pub fn command(nonce: &str) -> Vec<u8> {
    let (half, other) = nonce.split_at(nonce.len() / 2);
    let text = quote(&shortened(NOTICE));
    format!("exec sh -c {text} gad {half} {other}").into_bytes()
}

/// Waits for the notice; for ever where the instance cannot tell. Nothing depends on it.
async fn watch(session: Rc<Session>) -> Notice {
    sleep(AFTER).await;
    match listen(&session).await {
        Some(notice) => notice,
        None => std::future::pending().await,
    }
}

async fn listen(session: &Session) -> Option<Notice> {
    let nonce = crate::hash::random_hex().ok()?;
    let mut listener = Listener::new(&nonce);
    // The sender has nothing to send: that its end comes with the connection is what ends the far side.
    let (_sender, mut receiver) = session.exec(command(&nonce)).await?;
    loop {
        match receiver.next().await {
            Event::Out(data) => {
                if let Some(notice) = listener.hear(&data) {
                    return Some(notice);
                }
            }
            Event::Err(data) => {
                let said = crate::error::one_line(&String::from_utf8_lossy(&data));
                tracing::debug!(said, "the watch for Spot's notice");
            }
            Event::Ended | Event::Lost => {
                tracing::debug!("Spot's notice is not watched for on the machine any more");
                return None;
            }
        }
    }
}

/// Where it is told, and who remembers that it was.
struct Telling {
    ui: Ui,
    job: Job,
    attempt: String,
}

impl Telling {
    /// Tells it first: one that is told twice is better than one that is not told.
    fn tell(&self, notice: Notice) {
        self.ui.warn(&notice.told());
        self.job.note_spot_notice(&self.attempt, notice.at);
    }
}

/// What is known of the notice, over all connections of one script and from the job's scripts before.
#[derive(Default)]
pub(super) struct Notices {
    /// `None` on machines that Spot does not take back.
    telling: Option<Telling>,
    watch: Option<Pin<Box<dyn Future<Output = Notice>>>>,
    known: Option<Notice>,
}

impl Notices {
    /// Returns the notices of a Spot instance, which that try of the job's `prepare` made.
    pub(super) fn of_spot(ui: Ui, job: &Job, attempt: &str) -> Self {
        Self {
            known: job.spot_notice(attempt).map(|at| Notice { at }),
            telling: Some(Telling {
                ui,
                job: job.clone(),
                attempt: attempt.to_owned(),
            }),
            watch: None,
        }
    }

    /// Watches by a connection, unless all is known already.
    pub(super) fn begin(&mut self, session: &Rc<Session>) {
        if self.telling.is_some() && self.known.is_none() {
            self.watch = Some(Box::pin(watch(Rc::clone(session))));
        }
    }

    /// Lets go of the connection.
    pub(super) fn end(&mut self) {
        self.watch = None;
    }

    /// Returns once the notice was heard and told. Cancel-safe.
    pub(super) async fn heard(&mut self) {
        let Some(watch) = &mut self.watch else {
            return std::future::pending().await;
        };
        let notice = watch.await;
        self.watch = None;
        self.known = Some(notice);
        if let Some(telling) = &self.telling {
            telling.tell(notice);
        }
    }

    /// Names Spot as the cause of an error that came when its time was up. What AWS says itself stands.
    pub(super) fn explain(&self, error: Error) -> Error {
        match self.known.filter(|notice| notice.is_due()) {
            Some(_) if error.kind() != Kind::TakenBack => taken_back().because(error),
            _ => error,
        }
    }

    /// Returns what really ended a script that was killed when Spot's time was up: the machine's own end kills
    /// what runs on it while the connection still stands.
    pub(super) fn ended(&self, code: u8) -> Option<Error> {
        self.known
            .filter(|notice| is_a_signals(code) && notice.is_due())
            .map(|_| {
                taken_back().because(format!(
                    "the script was killed with it (signal {})",
                    code - SIGNALS.start() + 1
                ))
            })
    }
}

fn taken_back() -> Error {
    Error::new(Kind::TakenBack, "Spot capacity was taken back").hint(
        "Let GitLab retry such jobs by themselves (`retry: when: runner_system_failure` in .gitlab-ci.yml); for jobs that \
         cannot bear this, put `ec2` before `ec2-spot`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    /// A notice that is due in so many seconds.
    fn notice(left: u64) -> Notice {
        Notice {
            at: SystemTime::now() + Duration::from_secs(left),
        }
    }

    fn known(left: u64) -> Notices {
        Notices {
            known: Some(notice(left)),
            ..Notices::default()
        }
    }

    #[test]
    fn the_metadatas_own_words_are_read() {
        let time = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(119));
        let text = format!(r#"{{"action": "terminate", "time": "{time}"}}"#);
        let left = Notice::read(&text).unwrap().left().as_secs();
        assert!((60..120).contains(&left), "{left}");
        let past = r#"{"action": "stop", "time": "2017-09-18T08:22:00Z"}"#;
        assert_eq!(Notice::read(past).unwrap().left(), Duration::ZERO);
        for none in [
            "",
            "{}",
            "<html>",
            r#"{"action": "hibernate"}"#,
            r#"{"time": "soon"}"#,
        ] {
            assert_eq!(Notice::read(none), None, "{none}");
        }
    }

    #[test]
    fn the_command_is_short_and_does_not_hold_the_nonce() {
        let command = String::from_utf8(command(NONCE)).unwrap();
        assert!(
            command.len() < super::super::COMMAND_LIMIT,
            "{}",
            command.len()
        );
        assert!(!command.contains(NONCE));
    }

    #[test]
    fn an_end_in_time_is_spots_and_an_earlier_one_is_not() {
        let error = || Error::new(Kind::Unreachable, "no answer");
        assert_eq!(known(3).explain(error()).kind(), Kind::TakenBack);
        assert!(known(3).explain(error()).to_string().contains("no answer"));
        assert_eq!(known(90).explain(error()).kind(), Kind::Unreachable);
        assert_eq!(
            Notices::default().explain(error()).kind(),
            Kind::Unreachable
        );
        let said = Error::new(Kind::TakenBack, "Spot capacity was taken back: AWS's words");
        assert_eq!(
            known(0).explain(said).to_string(),
            "Spot capacity was taken back: AWS's words"
        );
    }

    #[test]
    fn a_script_that_dies_with_its_machine_did_not_fail() {
        let told = known(0).ended(143).unwrap();
        assert_eq!(told.kind(), Kind::TakenBack);
        assert!(told.to_string().contains("signal 15"), "{told}");
        for (notices, code) in [
            (known(0), 1),
            (known(0), 0),
            (known(90), 143),
            (Notices::default(), 143),
        ] {
            assert!(notices.ended(code).is_none(), "{code}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_heard_however_it_is_cut_and_whatever_comes_before(
            noise in proptest::collection::vec(prop_oneof![Just(0x1eu8), Just(b'0'), Just(b'\n'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0usize..400, 0..10),
        ) {
            let mut all = noise;
            all.extend(format!("\x1e{NONCE} notice {{\"time\": \"2017-09-18T08:22:00Z\"}}\n").bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % all.len()).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let mut listener = Listener::new(NONCE);
            let mut heard = cuts.windows(2).filter_map(|w| listener.hear(&all[w[0]..w[1]]));
            prop_assert!(heard.next().is_some());
        }

        #[test]
        fn any_bytes_are_no_notice(pieces: Vec<Vec<u8>>) {
            let mut listener = Listener::new(NONCE);
            for piece in &pieces {
                prop_assert_eq!(listener.hear(piece), None);
            }
        }
    }
}
