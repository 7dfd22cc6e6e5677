//! The first command on a container machine, after `prepare`'s first login: brings back process 1's environment, and
//! sets the watchdog that ends the machine at its deadline, whether this host is still there then or not.
//!
//! `first_command.sh` is the far side; `watchdog.sh` is what it leaves running. It may be sent again, after a cut: the
//! watchdog of the first time stays the only one.

use std::time::Duration;

use memchr::memmem;
use tokio::time::timeout;

use super::Nonce;
use super::failures;
use super::shorten::shortened;
use crate::error::{Error, Kind, Result, one_line};
use crate::machine::environment::{self, ContainerEnvironment, Missing};
use crate::script::silent_login;
use crate::shell::quote;
use crate::ssh::first_line::{LINE, TAKE, is_astray};
use crate::ssh::session::{Event, Session};

pub(super) const FIRST_COMMAND: &str = include_str!("first_command.sh");
pub(super) const WATCHDOG: &str = include_str!("watchdog.sh");

/// A connection on which this takes longer is lost.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// What a login shell's start-up files may print, beside what is asked for.
const NOISE_LIMIT: usize = 1 << 20;
/// What is kept of its words for a message.
const SAID_LIMIT: usize = 1024;

/// What the first command brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// The container's environment, or why there is none.
    pub environment: std::result::Result<ContainerEnvironment, Missing>,
    /// Whether the machine ends by itself.
    pub watchdog: Watchdog,
    /// The login's user id.
    pub uid: u32,
}

/// Whether the machine ends at its deadline by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// It does.
    Set,
    /// It does, by a watchdog that was set before.
    Running,
    /// It does not.
    Cannot(Unable),
}

/// Why a machine cannot be ended from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unable {
    /// The container shares the host's processes.
    Host,
    /// It shares its processes with another container.
    Shared,
    /// Process 1 belongs to another user.
    Denied,
    /// Nothing can outlive the connection: no `setsid` here.
    Detached,
    /// Process 1 (its name) takes no signal and waits for nothing that could be ended.
    Stubborn(String),
    /// It did not start.
    Failed,
}

impl Watchdog {
    /// Says on one line that the machine does not end by itself, and why; `None` where it does.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self::Cannot(unable) = self else {
            return None;
        };
        let why = match unable {
            Unable::Host => "it shares the host's processes".to_owned(),
            Unable::Shared => {
                "it shares its processes with another container (`pidMode`)".to_owned()
            }
            Unable::Denied => "the login may not end process 1; root may".to_owned(),
            Unable::Detached => "the image has no `setsid`".to_owned(),
            Unable::Stubborn(name) => {
                format!("process 1, `{name}`, takes no signal; `initProcessEnabled` or tini would")
            }
            Unable::Failed => "its watchdog did not start".to_owned(),
        };
        Some(format!(
            "this machine cannot be ended from inside ({why}); `reap` ends it after its deadline"
        ))
    }
}

/// Sends the first command; the machine shall end so long from now.
///
/// # Errors
/// Of the kind [`Kind::Unreachable`] where the connection is lost meanwhile: another one may be made, and this sent
/// again. Otherwise where the machine cannot run it.
pub async fn run_first_command(session: &Session, deadline: Duration) -> Result<FirstAnswer> {
    let nonce = Nonce::draw("")?;
    let lost = || {
        Error::new(
            Kind::Unreachable,
            "the connection to the machine was lost on its first command",
        )
    };
    match timeout(TIME_LIMIT, exchange(session, &nonce, deadline)).await {
        Ok(Ok(Some(welcome))) => Ok(welcome),
        Ok(Err(error)) => Err(error),
        Ok(Ok(None)) => Err(lost()),
        Err(_) => Err(silent_login::error(TIME_LIMIT)),
    }
}

async fn exchange(
    session: &Session,
    nonce: &Nonce,
    deadline: Duration,
) -> Result<Option<FirstAnswer>> {
    // No more is sent on it, but dropping it may tell the far side so too early.
    let Some((sender, mut receiver)) = session.exec(command(nonce, deadline)).await else {
        return Ok(None);
    };
    if !sender.send(LINE.into()).await {
        return Ok(None);
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match receiver.next().await {
            Event::Lost => return Ok(None),
            Event::Err(data) => {
                err.extend_from_slice(&data);
                let excess = err.len().saturating_sub(SAID_LIMIT);
                err.drain(..excess);
                if is_astray(&err, &[]) {
                    return Err(failures::astray());
                }
            }
            Event::Out(data) => {
                out.extend_from_slice(&data);
                if let Some(what) = lacks(&out, nonce.as_str()) {
                    return Err(failures::lacks(&what));
                }
                if let Some(said) = Said::parse(&out, nonce.as_str()) {
                    return said.understand().map(Some).ok_or_else(|| {
                        unusable("it answers otherwise than it was asked", &[], &[])
                    });
                }
                if is_astray(&[], &out[out.len().saturating_sub(SAID_LIMIT)..]) {
                    return Err(failures::astray());
                }
                if out.len() > NOISE_LIMIT + environment::LIMIT + 4096 {
                    return Err(unusable("its login shell prints without end", &err, &[]));
                }
            }
            Event::Ended => return Err(unusable("it ended without an answer", &err, &out)),
        }
    }
}

fn unusable(what: &str, stderr: &[u8], stdout: &[u8]) -> Error {
    let start = &stdout[..stdout.len().min(SAID_LIMIT)];
    let what = match failures::said(stderr, start) {
        Some(said) => format!("{what}: {said}"),
        None => what.to_owned(),
    };
    Error::new(
        Kind::Protocol,
        format!("the machine cannot run the driver's first command: {what}"),
    )
    .hint(
        "The image needs a POSIX login shell, and what else docs/protocol.md names, on the PATH of a login; while /etc/nologin is \
         there, OpenSSH runs commands of root alone.",
    )
}

fn command(nonce: &Nonce, deadline: Duration) -> Vec<u8> {
    let (half, other) = nonce.as_str().split_at(nonce.as_str().len() / 2);
    format!(
        "{TAKE}set -- {} {}; exec sh -c \"$1\" gad \"$2\" {half} {other} {} {}",
        quote(&shortened(FIRST_COMMAND)),
        quote(&shortened(WATCHDOG)),
        deadline.as_secs(),
        // One more tells that there is more.
        environment::LIMIT + 1,
    )
    .into_bytes()
}

/// Returns what the machine said that it lacks, in place of all else.
fn lacks(bytes: &[u8], nonce: &str) -> Option<String> {
    let start = format!("\x1e{nonce} lacks ");
    let rest = &bytes[memmem::find(bytes, start.as_bytes())? + start.len()..];
    let end = memchr::memchr(b'\n', rest)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// What the far side said, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Said<'a> {
    uid: &'a [u8],
    process: &'a [u8],
    watchdog: &'a [u8],
    environ: &'a [u8],
    code: &'a [u8],
}

impl<'a> Said<'a> {
    /// Takes it apart, once it is complete; whatever comes before and after is noise.
    fn parse(bytes: &'a [u8], nonce: &str) -> Option<Self> {
        let mark = format!("\x1e{nonce} ");
        let mut rest = bytes;
        // Returns the bytes before the next frame with that word, and its argument.
        let mut frame = |word: &str| {
            let start = format!("{mark}{word}");
            let at = memmem::find(rest, start.as_bytes())?;
            let (before, found) = (&rest[..at], &rest[at + start.len()..]);
            let end = memchr::memchr(b'\n', found)?;
            rest = &found[end + 1..];
            Some((before, found[..end].trim_ascii_start()))
        };
        let (_, uid) = frame("uid")?;
        let (_, process) = frame("process")?;
        let (_, watchdog) = frame("watchdog")?;
        frame("environ")?;
        let (environ, code) = frame("end")?;
        Some(Self {
            uid,
            process,
            watchdog,
            environ,
            code,
        })
    }

    fn understand(&self) -> Option<FirstAnswer> {
        let uid = str::from_utf8(self.uid).ok()?.parse().ok()?;
        let process = one_line(&String::from_utf8_lossy(self.process));
        let watchdog = match self.watchdog {
            b"set" => Watchdog::Set,
            b"running" => Watchdog::Running,
            b"host" => Watchdog::Cannot(Unable::Host),
            b"shared" => Watchdog::Cannot(Unable::Shared),
            b"denied" => Watchdog::Cannot(Unable::Denied),
            b"detached" => Watchdog::Cannot(Unable::Detached),
            b"stubborn" => Watchdog::Cannot(Unable::Stubborn(process.clone())),
            b"failed" => Watchdog::Cannot(Unable::Failed),
            _ => return None,
        };
        let environment = match self.code {
            b"foreign" => Err(Missing::Foreign),
            b"0" => ContainerEnvironment::read(self.environ, &process),
            _ => Err(Missing::Unreadable { root: uid == 0 }),
        };
        Some(FirstAnswer {
            environment,
            watchdog,
            uid,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::script::COMMAND_LIMIT;
    use crate::script::first_command::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    fn answer(uid: &str, watchdog: &str, environ: &[u8], code: &str) -> Vec<u8> {
        let frame = |text: &str| format!("\x1e{NONCE} {text}\n").into_bytes();
        let mut all = format!("Welcome to \x1e{NONCE}\n").into_bytes();
        for text in [
            &format!("uid {uid}"),
            "process entry point",
            &format!("watchdog {watchdog}"),
            "environ",
        ] {
            all.extend(frame(text));
        }
        all.extend(environ);
        all.extend(frame(&format!("end {code}")));
        all
    }

    fn understood(answer: &[u8]) -> Option<FirstAnswer> {
        Said::parse(answer, NONCE).unwrap().understand()
    }

    #[test]
    fn the_command_fits_every_server() {
        let nonce = Nonce::draw("").unwrap();
        let command = command(&nonce, Duration::MAX);
        assert!(command.len() < COMMAND_LIMIT, "{} bytes", command.len());
        let text = String::from_utf8(command).unwrap();
        assert!(!text.contains(nonce.as_str()));
        // What is looked for among all processes must not be found in this one.
        assert!(!text.contains("gad-watchdog"));
    }

    #[test]
    fn an_answer_is_taken_apart_when_it_is_whole() {
        let whole = answer("0", "set", b"A=\x1e\nb\0B=c\0", "0");
        for length in 0..whole.len() {
            assert_eq!(Said::parse(&whole[..length], NONCE), None);
        }
        let welcome = understood(&whole).unwrap();
        assert_eq!((welcome.uid, welcome.watchdog), (0, Watchdog::Set));
        assert_eq!(welcome.environment.unwrap().len(), 2);
    }

    #[test]
    fn what_is_missing_is_told() {
        let missing = |uid, code| {
            understood(&answer(uid, "set", b"", code))
                .unwrap()
                .environment
                .unwrap_err()
        };
        assert_eq!(missing("1000", "1"), Missing::Unreadable { root: false });
        assert_eq!(missing("0", "1"), Missing::Unreadable { root: true });
        assert_eq!(missing("0", "foreign"), Missing::Foreign);
        assert_eq!(missing("0", "0"), Missing::Empty);
        assert_eq!(understood(&answer("root", "set", b"", "0")), None);
        assert_eq!(understood(&answer("0", "asleep", b"", "0")), None);
    }

    #[test]
    fn a_machine_that_does_not_end_by_itself_is_told() {
        let told = |word| {
            understood(&answer("0", word, b"A=b\0", "0"))
                .unwrap()
                .watchdog
                .warning()
        };
        assert_eq!((told("set"), told("running")), (None, None));
        for (word, reason) in [
            ("host", "host's"),
            ("shared", "pidMode"),
            ("denied", "root"),
            ("detached", "setsid"),
            ("stubborn", "`entry point`"),
            ("failed", "did not start"),
        ] {
            let line = told(word).unwrap();
            assert!(line.contains(reason) && line.contains("`reap`"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(bytes: Vec<u8>, code: String) {
            assert_eq!(Said::parse(&bytes, NONCE), None);
            Said::parse(&answer("0", "set", &bytes, &code), NONCE).and_then(|said| said.understand());
        }
    }
}
