//! The first contact with an agent: what it tells of itself and of where it runs, and the host key that is agreed on.
//!
//! The launch hands over a host key that others can read: in process 1's environment, or by DescribeTasks. It serves for one
//! contact. On it the agent tells another key, which it has drawn in its memory, and shows only that one from `pin` on.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::error::{Error, Kind, Result, one_line};
use crate::script::silent_login;
use crate::ssh::session::{Event, Receiver, Sender, Session};

/// The agent's subsystem for it.
const SUBSYSTEM: &str = "gad-greeting";
/// The protocol of scripts that this driver speaks.
const PROTOCOL: &str = "1";
/// How long an agent may take to say all of it.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How much it may say.
const SIZE_LIMIT: usize = 64 << 10;

/// What an agent tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Its version.
    pub agent: String,
    /// The protocol of scripts that it speaks.
    pub protocol: String,
    /// What it can do, a word each.
    pub can: Vec<String>,
    /// The host key that it shows from `pin` on, as an OpenSSH line.
    pub host_key: String,
    /// The number of its user, as told.
    pub uid: String,
    /// The directory in which it was started.
    pub directory: String,
    /// What process 1 runs; `None` where it is process 1 itself.
    pub process_1: Option<String>,
    /// What its parent runs, where it has one there.
    pub below: Option<String>,
    /// Whether a TERM for the container reaches it, so that it can hold back the end while a script runs.
    pub holds_term: bool,
    /// The shell that scripts get.
    pub shell: Option<String>,
}

impl Greeting {
    /// Reads the lines before the empty one. Names that it does not know are a later agent's.
    fn parse(text: &str) -> Self {
        let mut greeting = Self::default();
        let some = |value: &str| (value != "-").then(|| value.to_owned());
        for line in text.lines() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            match name {
                "agent" => greeting.agent = value.to_owned(),
                "protocol" => greeting.protocol = value.to_owned(),
                "can" => greeting.can = value.split(' ').map(str::to_owned).collect(),
                "host-key" => greeting.host_key = value.to_owned(),
                "uid" => greeting.uid = value.to_owned(),
                "directory" => greeting.directory = value.to_owned(),
                "process-1" => greeting.process_1 = some(value).filter(|value| value != "yes"),
                "below" => greeting.below = some(value),
                "holds-term" => greeting.holds_term = value == "yes",
                "shell" => greeting.shell = some(value),
                _ => {}
            }
        }
        greeting
    }

    /// Refuses an agent that cannot run this driver's scripts, and an image in which nobody can.
    fn check(&self) -> Result<()> {
        let version = one_line(&self.agent);
        let ours = env!("CARGO_PKG_VERSION");
        let hint = format!("Use an agent of this driver's version, {ours}.");
        if self.host_key.is_empty() {
            let what = "the agent did not tell its host key";
            return Err(Error::new(Kind::Protocol, what).hint(hint));
        }
        if self.protocol != PROTOCOL {
            let theirs = one_line(&self.protocol);
            let what = format!(
                "the agent {version} speaks version {theirs} of the script protocol, and this driver version {PROTOCOL}"
            );
            return Err(Error::new(Kind::Protocol, what).hint(hint));
        }
        if let Some(lacks) = NEEDED
            .iter()
            .find(|word| !self.can.iter().any(|can| can == **word))
        {
            let what =
                format!("the agent {version} is too old for this driver: it does not know {lacks}");
            return Err(Error::new(Kind::Protocol, what).hint(hint));
        }
        if self.shell.is_none() {
            return Err(no_shell());
        }
        Ok(())
    }
}

/// What this driver asks of every agent.
const NEEDED: [&str; 2] = ["script", "umask"];

/// The error of an image in which no script runs.
pub(super) fn no_shell() -> Error {
    Error::new(
        Kind::Launch,
        "the job's image has no shell: no bash or sh in /usr/local/bin, /usr/bin, /bin or on its PATH, and no busybox",
    )
    .hint("Scripts need one: take a variant of the image that has a shell (often tagged `debug`), or another image.")
}

/// How far a contact came.
#[derive(Debug)]
pub enum Contact {
    /// The key is agreed on.
    Agreed(Greeting),
    /// The connection was lost. The key that may be the agent's from now on, if it was asked to show only that.
    Lost(Option<String>),
}

/// Greets an agent, and has it show only its own host key from now on and end at that Unix time.
///
/// # Errors
/// Where the agent or its image cannot run scripts, or it answers otherwise than it was asked.
pub async fn agree(session: &Session, until: Option<u64>) -> Result<Contact> {
    let mut in_doubt = None;
    match timeout(TIME_LIMIT, converse(session, until, &mut in_doubt)).await {
        Ok(Ok(Some(greeting))) => Ok(Contact::Agreed(greeting)),
        Ok(Ok(None)) => Ok(Contact::Lost(in_doubt)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(silent_login::error(TIME_LIMIT)),
    }
}

async fn converse(
    session: &Session,
    until: Option<u64>,
    in_doubt: &mut Option<String>,
) -> Result<Option<Greeting>> {
    let Some((sender, receiver)) = session.subsystem(SUBSYSTEM).await else {
        return Ok(None);
    };
    let mut line = Conversation {
        sender,
        receiver,
        buffer: BytesMut::new(),
        said: 0,
    };
    let hello = format!("hello {}\n", env!("CARGO_PKG_VERSION"));
    let mut text = String::new();
    if !line.say(hello).await {
        return Ok(None);
    }
    loop {
        match line.hear().await? {
            None => return Ok(None),
            Some(end) if end.is_empty() => break,
            Some(more) => text += &format!("{more}\n"),
        }
    }
    let greeting = Greeting::parse(&text);
    greeting.check()?;
    let orders = [
        until.map(|at| (format!("until {at}"), format!("until {at}"))),
        Some(("pin".to_owned(), "pinned".to_owned())),
    ];
    for (order, answer) in orders.into_iter().flatten() {
        if order == "pin" {
            *in_doubt = Some(greeting.host_key.clone());
        }
        if !line.say(format!("{order}\n")).await {
            return Ok(None);
        }
        match line.hear().await? {
            None => return Ok(None),
            Some(said) if said == answer => {}
            Some(said) => return Err(odd(&format!("{order} with {}", one_line(&said)))),
        }
    }
    Ok(Some(greeting))
}

fn odd(what: &str) -> Error {
    let ours = env!("CARGO_PKG_VERSION");
    Error::new(Kind::Protocol, format!("the agent answers {what}"))
        .hint(format!("Use an agent of this driver's version, {ours}."))
}

/// Lines both ways.
struct Conversation {
    sender: Sender,
    receiver: Receiver,
    buffer: BytesMut,
    said: usize,
}

impl Conversation {
    async fn say(&self, line: String) -> bool {
        self.sender.send(line.into()).await
    }

    /// Returns the next line; `None` where the connection is lost.
    async fn hear(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.receiver.next().await {
                Event::Out(data) => {
                    self.said += data.len();
                    if self.said > SIZE_LIMIT {
                        return Err(odd("without end"));
                    }
                    self.buffer.extend_from_slice(&data);
                }
                Event::Err(_) => {}
                Event::Ended if self.said == 0 => {
                    return Err(odd("nothing: it is too old, or no agent"));
                }
                Event::Lost | Event::Ended => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Greeting {
        Greeting::parse(
            "agent 0.1.0\nprotocol 1\ncan script umask terminal\nhost-key ssh-ed25519 AAAA\nuid 12\ndirectory /a b\nprocess-1 tini\n\
             below tini\nholds-term yes\nshell /bin/sh\nlater word\nodd\n",
        )
    }

    #[test]
    fn lines_are_read_and_later_ones_skipped() {
        let greeting = whole();
        assert!(greeting.check().is_ok());
        assert_eq!(greeting.directory, "/a b");
        assert_eq!(greeting.process_1.as_deref(), Some("tini"));
        assert!(greeting.holds_term);
        assert_eq!(Greeting::parse("process-1 yes\n").process_1, None);
    }

    #[test]
    fn what_an_agent_cannot_do_is_named() {
        let told = |change: fn(&mut Greeting)| {
            let mut greeting = whole();
            change(&mut greeting);
            greeting.check().unwrap_err().to_string()
        };
        assert!(told(|g| g.protocol = "2".into()).contains("speaks version 2"));
        assert!(told(|g| g.can = vec!["script".into()]).contains("does not know umask"));
        assert!(told(|g| g.host_key.clear()).contains("did not tell its host key"));
        assert!(told(|g| g.shell = None).contains("no shell"));
    }
}
