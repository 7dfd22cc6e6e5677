//! What a launch hands over to the agent: one environment variable, or a file that another one names.
//!
//! Words `name=value`, since an entrypoint may drop or change arguments but hands on the environment. Commands see neither
//! variable, and the file is removed once it was read.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};

use crate::HostKey;

/// The variable that holds the words.
pub const VARIABLE: &str = "GITLAB_AWS_AGENT";

/// The variable that names a file with more words.
pub(crate) const FILE_VARIABLE: &str = "GITLAB_AWS_AGENT_FILE";

/// The port that is listened on where none is named. Containers on AWS give no port below 1024 to a user that is not root.
pub const PORT: u16 = 2222;

/// How much of a file is read.
const FILE_MAX: u64 = 64 << 10;

/// What a launch hands over.
#[derive(Debug, Default)]
pub struct Parameters {
    /// The key to be known by until the first client has pinned another.
    pub host_key: Option<HostKey>,
    /// The key that may log in, as a line of `authorized_keys`.
    pub login: String,
    /// Where to listen for TCP connections.
    pub listen: Listen,
    /// The Unix socket to listen on.
    pub socket: Option<PathBuf>,
    /// What this agent is to its task.
    pub role: Option<String>,
    /// Roles whose clients are handed on, and the sockets of their agents.
    pub hand_on: Vec<(String, PathBuf)>,
    /// When all ends, in Unix time.
    pub until: Option<u64>,
    /// After how long without a client all ends.
    pub idle: Option<Duration>,
}

/// Where to listen for TCP connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// At this port of all addresses, IPv6 and IPv4.
    Port(u16),
    /// At this address.
    Address(SocketAddr),
    /// Nowhere.
    #[default]
    No,
}

/// What is wrong with parameters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// A name that this version does not know.
    #[error("{VARIABLE}: unknown word {0:?}")]
    Unknown(String),
    /// A value that cannot be used.
    #[error("{VARIABLE}: {name} is not {expected}")]
    Value {
        /// The word's name.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A word that can only be given once.
    #[error("{VARIABLE}: {0} is given twice")]
    Twice(&'static str),
    /// A word without which there is nothing to serve.
    #[error("{VARIABLE}: {0} is missing")]
    Missing(&'static str),
    /// The file could not be read.
    #[error("failed to read {}, which {FILE_VARIABLE} names", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The words are not text.
    #[error("{VARIABLE}: not UTF-8")]
    Text,
}

/// Tells whether a variable is for the agent alone.
#[must_use]
pub fn is_own(name: &OsStr) -> bool {
    name == VARIABLE || name == FILE_VARIABLE
}

impl Parameters {
    /// Reads what the environment holds; nothing where it has neither variable.
    ///
    /// # Errors
    ///
    /// Fails where a word is unknown or wrong, or the file cannot be read.
    pub fn from_environment(
        variables: &[(OsString, OsString)],
    ) -> Result<Option<Self>, ParameterError> {
        let value = |wanted: &str| {
            variables
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value)
        };
        let (words, file) = (value(VARIABLE), value(FILE_VARIABLE));
        if words.is_none() && file.is_none() {
            return Ok(None);
        }
        let mut text = words.map_or(Vec::new(), |words| words.as_bytes().to_vec());
        if let Some(file) = file {
            text.push(b'\n');
            text.extend(take(Path::new(file))?);
        }
        let text = String::from_utf8(text).map_err(|_| ParameterError::Text)?;
        Self::parse(&text).map(Some)
    }

    /// Reads words.
    fn parse(text: &str) -> Result<Self, ParameterError> {
        let mut found = Self::default();
        let (mut login, mut listen) = (None, None);
        for word in text.split_ascii_whitespace() {
            // The value of an unknown word may be a secret of a later version's.
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "host-key" => once(&mut found.host_key, "host-key", host_key(value)?)?,
                "login" => once(&mut login, "login", format!("ssh-ed25519 {value}"))?,
                "listen" => once(&mut listen, "listen", parse_listen(value)?)?,
                "socket" => once(&mut found.socket, "socket", path("socket", value)?)?,
                "role" => once(&mut found.role, "role", role("role", value)?)?,
                "hand-on" => {
                    let expected = "ROLE:PATH";
                    let (to, socket) = value.split_once(':').ok_or(ParameterError::Value {
                        name: "hand-on",
                        expected,
                    })?;
                    let entry = (role("hand-on", to)?, path("hand-on", socket)?);
                    if found.hand_on.iter().any(|(other, _)| *other == entry.0) {
                        return Err(ParameterError::Twice("hand-on"));
                    }
                    found.hand_on.push(entry);
                }
                "until" => once(&mut found.until, "until", number("until", value)?)?,
                "idle" => {
                    let idle = Duration::from_secs(number("idle", value)?);
                    once(&mut found.idle, "idle", idle)?;
                }
                _ => return Err(ParameterError::Unknown(name.to_owned())),
            }
        }
        found.login = login.ok_or(ParameterError::Missing("login"))?;
        found.listen = listen.unwrap_or(Listen::Port(PORT));
        if found.listen == Listen::No && found.socket.is_none() {
            return Err(ParameterError::Missing("socket"));
        }
        Ok(found)
    }
}

/// Reads a file and removes it. It may have to stay: on a read-only volume, say.
fn take(path: &Path) -> Result<Vec<u8>, ParameterError> {
    let fail = |source| ParameterError::File {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    let taken = file
        .take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if taken as u64 > FILE_MAX {
        return Err(fail(io::ErrorKind::FileTooLarge.into()));
    }
    drop(std::fs::remove_file(path));
    Ok(bytes)
}

fn once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), ParameterError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParameterError::Twice(name)),
    }
}

fn host_key(value: &str) -> Result<HostKey, ParameterError> {
    let mut seed = [0; 32];
    match Base64::decode(value, &mut seed) {
        Ok(bytes) if bytes.len() == 32 => Ok(HostKey::from_seed(&seed)),
        _ => Err(ParameterError::Value {
            name: "host-key",
            expected: "the base64 of 32 bytes",
        }),
    }
}

fn parse_listen(value: &str) -> Result<Listen, ParameterError> {
    if value == "-" {
        return Ok(Listen::No);
    }
    if let Ok(port) = value.parse() {
        return Ok(Listen::Port(port));
    }
    value
        .parse()
        .map(Listen::Address)
        .map_err(|_| ParameterError::Value {
            name: "listen",
            expected: "PORT, ADDRESS:PORT or -",
        })
}

fn path(name: &'static str, value: &str) -> Result<PathBuf, ParameterError> {
    if value.starts_with('/') {
        Ok(PathBuf::from(value))
    } else {
        Err(ParameterError::Value {
            name,
            expected: "an absolute path",
        })
    }
}

fn role(name: &'static str, value: &str) -> Result<String, ParameterError> {
    if matches!(value, "build" | "helper") {
        Ok(value.to_owned())
    } else {
        Err(ParameterError::Value {
            name,
            expected: "build or helper",
        })
    }
}

fn number(name: &'static str, value: &str) -> Result<u64, ParameterError> {
    value.parse().map_err(|_| ParameterError::Value {
        name,
        expected: "a number of seconds",
    })
}

impl Listen {
    /// Returns the addresses to try, one after the other until one works.
    #[must_use]
    pub fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::No => Vec::new(),
            Self::Address(address) => vec![address],
            // The IPv6 socket takes IPv4 too; a kernel without IPv6 has only the other.
            Self::Port(port) => [
                IpAddr::from(Ipv6Addr::UNSPECIFIED),
                IpAddr::from([0, 0, 0, 0]),
            ]
            .map(|address| SocketAddr::new(address, port))
            .to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn refusal(text: &str) -> String {
        Parameters::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn all_words_are_read() {
        let text = format!(
            "host-key={SEED} login=AAAAx listen=127.0.0.1:1 socket=/s/build role=build \
             hand-on=helper:/s/helper\nuntil=1800000000\nidle=600"
        );
        let found = Parameters::parse(&text).unwrap();
        let seed: [u8; 32] = std::array::from_fn(|at| at as u8);
        let expected = HostKey::from_seed(&seed).fingerprint();
        assert_eq!(found.host_key.unwrap().fingerprint(), expected);
        assert_eq!(found.login, "ssh-ed25519 AAAAx");
        assert_eq!(
            found.listen,
            Listen::Address("127.0.0.1:1".parse().unwrap())
        );
        assert_eq!(found.socket.as_deref(), Some(Path::new("/s/build")));
        assert_eq!(found.role.as_deref(), Some("build"));
        assert_eq!(
            found.hand_on,
            [("helper".to_owned(), PathBuf::from("/s/helper"))]
        );
        assert_eq!(found.until, Some(1_800_000_000));
        assert_eq!(found.idle, Some(Duration::from_secs(600)));
    }

    #[test]
    fn a_port_is_had_without_a_word() {
        let found = Parameters::parse("login=A").unwrap();
        assert_eq!(found.listen, Listen::Port(2222));
        let found = Parameters::parse("login=A listen=4000").unwrap();
        assert_eq!(found.listen, Listen::Port(4000));
        let found = Parameters::parse("login=A listen=- socket=/s").unwrap();
        assert_eq!(found.listen.addresses(), []);
    }

    #[test]
    fn what_is_wrong_is_named_but_no_value() {
        for (text, expected) in [
            ("", "login is missing"),
            ("login=A secret-word=SECRET", "unknown word \"secret-word\""),
            ("login=A nonsense", "unknown word \"nonsense\""),
            ("login=A login=B", "login is given twice"),
            (
                "login=A host-key=c2hvcnQ=",
                "host-key is not the base64 of 32 bytes",
            ),
            ("login=A host-key=%", "host-key is not"),
            ("login=A listen=x", "listen is not PORT"),
            ("login=A listen=70000", "listen is not PORT"),
            ("login=A listen=-", "socket is missing"),
            ("login=A socket=s", "socket is not an absolute path"),
            ("login=A role=x", "role is not build or helper"),
            ("login=A hand-on=helper", "hand-on is not ROLE:PATH"),
            ("login=A hand-on=x:/s", "hand-on is not build or helper"),
            (
                "login=A hand-on=helper:/s hand-on=helper:/t",
                "hand-on is given twice",
            ),
            ("login=A until=-1", "until is not a number"),
            ("login=A idle=", "idle is not a number"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(expected), "{text}: {refusal}");
            assert!(!refusal.contains("SECRET"), "{refusal}");
        }
    }

    #[test]
    fn a_file_is_read_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("words");
        let variables = |text: Option<&str>| {
            let mut list = vec![(FILE_VARIABLE.into(), file.clone().into_os_string())];
            list.extend(text.map(|text| (VARIABLE.into(), text.into())));
            list
        };
        std::fs::write(&file, "idle=5\nuntil=6\n").unwrap();
        let found = Parameters::from_environment(&variables(Some("login=A")));
        assert_eq!(found.unwrap().unwrap().until, Some(6));
        assert!(!file.exists());
        std::fs::write(&file, "login=A\n").unwrap();
        assert!(Parameters::from_environment(&variables(None)).is_ok());
        // It is gone now.
        let refusal = Parameters::from_environment(&variables(None)).unwrap_err();
        assert!(refusal.to_string().contains(file.to_str().unwrap()));
        std::fs::write(&file, vec![b' '; FILE_MAX as usize + 1]).unwrap();
        assert!(Parameters::from_environment(&variables(Some("login=A"))).is_err());
        assert!(Parameters::from_environment(&[]).unwrap().is_none());
    }
}
