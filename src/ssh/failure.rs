//! Why an attempt to log in failed, and what helps.

use std::io;
use std::time::Duration;

use russh::{AlgorithmKind, MethodKind};

use super::memory_limit::Crossed;
use crate::error::{Error, Kind, one_line};
use crate::machine::{Endpoint, FarSide};

/// Waiting longer for a TCP connection does not help; in a VPC it takes milliseconds.
pub(super) const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// From TCP to the login. OpenSSH itself gives a client 120 s; a server that has said nothing for this long is
/// stuck, and a fresh connection has the better chance.
pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How many of a server's algorithms a message shows: more than any server has.
const NAMES: usize = 40;
/// How long each name may be (RFC 4251, section 6).
const NAME: usize = 64;

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing listens.
    #[error("connection refused")]
    Refused,
    /// No answer to the connection.
    #[error("no answer to the connection within {} s", TCP_TIMEOUT.as_secs())]
    TimedOut,
    /// The network reported an error.
    #[error("{0}")]
    Network(#[source] io::Error),
    /// It accepted and said nothing.
    #[error("it accepted the connection but no login was possible within {} s", LOGIN_TIMEOUT.as_secs())]
    Silent,
    /// It accepted and closed: not ready yet, or locking us out.
    #[error("it accepted the connection and closed it")]
    Closed(#[source] Option<russh::Error>),
    /// The key is not accepted (yet).
    #[error("it does not accept the job's key")]
    Unauthorised(Unauthorised),
    /// No key is accepted at all (yet).
    #[error("it lets nobody in by a key, only by {0}")]
    NoKeys(String),
    /// The key is accepted, and is not enough.
    #[error("it accepts the job's key and then asks for more: {0}")]
    MoreSteps(String),
    /// Another host key.
    #[error("it shows the host key {found}, not {expected}")]
    HostKey {
        /// What it showed.
        found: String,
        /// The expected one.
        expected: String,
    },
    /// A host key that proves nothing.
    #[error("its RSA host key has {0} bits, which anybody can break")]
    WeakKey(u32),
    /// The server cannot prove that it has the host key that it shows, or the key cannot be verified.
    #[error("its signature by its host key does not verify")]
    Unproven,
    /// The two sides have no common algorithm.
    #[error("it has no {} that this driver uses, only {theirs}", name(.kind))]
    Incompatible {
        /// The purpose of the algorithm.
        kind: AlgorithmKind,
        /// What the driver offers.
        ours: String,
        /// What the server does.
        theirs: String,
    },
    /// Another version of the protocol.
    #[error("the SSH versions do not agree")]
    Version,
    /// The record's host key cannot be read.
    #[error(transparent)]
    Local(Error),
    /// Its data exceeded the memory limit.
    #[error(transparent)]
    Crossed(Crossed),
}

/// What is known of a refused key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unauthorised {
    /// It is the ed25519 key of a job.
    Ed25519,
    /// The same, and the server seems to be in FIPS mode.
    Ed25519OfFips,
    /// It is the Go driver's RSA key.
    Rsa,
}

/// A failure, and what the server said with it.
#[derive(Debug, thiserror::Error)]
#[error("{why} (it says: {words})")]
struct Said {
    #[source]
    why: Failure,
    words: String,
}

impl Failure {
    /// Returns a failure of a key exchange that found nothing in common.
    pub(super) fn incompatible(kind: AlgorithmKind, ours: &[String], theirs: &[String]) -> Self {
        Self::Incompatible {
            kind,
            ours: ours.join(", "),
            theirs: shown(theirs),
        }
    }

    /// Returns the error for the job log, with all that the server said.
    pub(super) fn give_up(self, endpoint: &Endpoint, words: &str, after: Duration) -> Error {
        if let Self::Crossed(crossed) = self {
            return crossed.error();
        }
        let Endpoint { port, user, .. } = endpoint;
        let (kind, hint) = match (endpoint.far_side, &self) {
            (FarSide::Agent, Self::Refused) => (Kind::Unreachable, NO_AGENT.to_owned()),
            _ => self.remedy(user, *port),
        };
        let (seconds, address) = (after.as_secs(), endpoint.address());
        let what = format!("no SSH session with {user}@{address} after {seconds} s");
        let error = Error::new(kind, what).hint(hint);
        match one_line(words) {
            words if words.is_empty() => error.because(self),
            words => error.because(Said { why: self, words }),
        }
    }

    fn remedy(&self, user: &str, port: u16) -> (Kind, String) {
        let hint = match self {
            Self::Local(_) | Self::Crossed(_) => {
                let hint = "End the job's machine with `cleanup` and retry the job.";
                return (Kind::State, hint.to_owned());
            }
            Self::HostKey { .. } => {
                let hint = "Another machine answers at this address: a replaced task, a reused address, or somebody in between. \
                            Retry the job; if it happens again, find out who answers there.";
                return (Kind::HostKey, hint.to_owned());
            }
            Self::Refused => format!(
                "Nothing listens there. Does the image start an SSH server on port {port}, and is `port` under [fargate], [ec2] or [ssh] right?"
            ),
            Self::TimedOut | Self::Network(_) => {
                "Check that the machine's security group and the route between let this host in.".to_owned()
            }
            Self::Silent | Self::Closed(_) => format!(
                "The SSH server there is stuck, not ready, locks this address out (OpenSSH's PerSourcePenalties or MaxStartups), or \
                 turns {user} away by PAM (/etc/nologin or /run/nologin while it boots, an account that expired): see its log."
            ),
            Self::Unauthorised(key) => unauthorised(*key, user),
            Self::NoKeys(_) => {
                "Set `PubkeyAuthentication yes` in the server's sshd_config, and AuthenticationMethods to nothing or to publickey."
                    .to_owned()
            }
            Self::MoreSteps(_) => format!(
                "A job has its key and nothing else: let {user} in by that alone (`AuthenticationMethods publickey` in the server's \
                 sshd_config)."
            ),
            Self::WeakKey(_) => {
                "Have the image make a longer one, or an ed25519 one (`ssh-keygen -A`, `dropbearkey -t ed25519`).".to_owned()
            }
            Self::Unproven => {
                "Somebody may stand in between, or it is an RSA key of more than 8192 bits: have the image make an ed25519 one \
                 (`ssh-keygen -A`, `dropbearkey -t ed25519`)."
                    .to_owned()
            }
            Self::Incompatible { kind, ours, theirs } => incompatible(kind, ours, theirs),
            Self::Version => "What listens there has to speak SSH 2.0; is `port` under [fargate], [ec2] or [ssh] right?".to_owned(),
        };
        (Kind::Unreachable, hint)
    }
}

/// What helps if no agent listens.
const NO_AGENT: &str = "The agent does not run there, or not yet. Does the image's ENTRYPOINT run the command that it is given? \
                        `image: entrypoint: [\"\"]` leaves the ENTRYPOINT out.";

fn unauthorised(key: Unauthorised, user: &str) -> String {
    let first = match key {
        Unauthorised::Ed25519 => String::new(),
        Unauthorised::Ed25519OfFips => {
            "It has no curve25519, so it may be in FIPS mode and take no ed25519 keys, of which the job's is one: allow them \
             (PubkeyAcceptedAlgorithms), or take a server that is not. Else: "
                .to_owned()
        }
        Unauthorised::Rsa => {
            "The Go driver's RSA key needs rsa-sha2-256 or rsa-sha2-512 (OpenSSH 7.2, dropbear 2020.79 and later). Else: "
                .to_owned()
        }
    };
    format!(
        "{first}The image's entrypoint has to write SSH_PUBLIC_KEY to the authorized_keys of {user} (an instance's cloud-init has to \
         run, or with `instance_connect` its package ec2-instance-connect has to be there), and `username` under [fargate], [ec2] or [ssh] has to be that user. \
         An account that is locked (`!` in /etc/shadow; `usermod -p '*' {user}` mends it) or whose shell does not exist is refused \
         as well; the server's log says which."
    )
}

fn incompatible(kind: &AlgorithmKind, ours: &str, theirs: &str) -> String {
    let own = match kind {
        AlgorithmKind::Kex => "KexAlgorithms",
        AlgorithmKind::Key
            if theirs
                .split(", ")
                .all(|name| name == "ssh-rsa" || name == "ssh-dss") =>
        {
            return "These prove a host key with SHA-1, which can be forged: have the image make an ed25519 or ECDSA host key \
                    (`ssh-keygen -A`, `dropbearkey -t ecdsa`), or take an SSH server that proves RSA with SHA-2 (OpenSSH 7.2, dropbear \
                    2020.79 and later)."
                .to_owned();
        }
        AlgorithmKind::Key => "HostKeyAlgorithms",
        AlgorithmKind::Cipher => "Ciphers",
        AlgorithmKind::Mac => "MACs",
        AlgorithmKind::Compression => "Compression",
    };
    format!(
        "Have it offer one of {ours} as well ({own} in OpenSSH's sshd_config), or take a newer SSH server."
    )
}

fn name(kind: &AlgorithmKind) -> &'static str {
    match kind {
        AlgorithmKind::Kex => "key exchange",
        AlgorithmKind::Key => "host key algorithm",
        AlgorithmKind::Cipher => "cipher",
        AlgorithmKind::Compression => "compression",
        AlgorithmKind::Mac => "MAC",
    }
}

/// Returns a server's algorithm names, shortened for a message.
fn shown(names: &[String]) -> String {
    let all = names.iter().take(NAMES);
    let short = all.map(|name| one_line(&name.chars().take(NAME).collect::<String>()));
    match short.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "none".to_owned(),
        names => names,
    }
}

/// Returns authentication methods, as they are written in configurations.
pub(super) fn methods(methods: &[MethodKind]) -> String {
    let names: Vec<&str> = methods.iter().map(Into::into).collect();
    match names.is_empty() {
        true => "ways that this driver does not know".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: Failure, words: &str) -> (String, String) {
        let endpoint = Endpoint {
            roles: Vec::new(),
            host: "10.0.0.7".to_owned(),
            port: 22,
            user: "ci".to_owned(),
            host_key: None,
            inside: None,
            far_side: FarSide::Login,
            socket: None,
        };
        let error = failure.give_up(&endpoint, words, Duration::from_secs(1));
        (error.to_string(), error.remedy().unwrap().to_owned())
    }

    #[test]
    fn what_a_server_offers_is_shown_within_bounds() {
        let long = vec!["x\u{1b}[31m".repeat(4096); 1000];
        let failure = Failure::incompatible(AlgorithmKind::Mac, &["a".to_owned()], &long);
        let (what, hint) = told(failure, "");
        assert!(what.len() < 4096 && !what.contains('\u{1b}'), "{what}");
        assert!(
            hint.contains("one of a ") && hint.contains("MACs"),
            "{hint}"
        );
        let none = Failure::incompatible(AlgorithmKind::Kex, &[], &[]);
        assert!(
            told(none, "")
                .0
                .contains("no key exchange that this driver uses, only none")
        );
    }

    #[test]
    fn host_keys_of_sha_1_are_named_as_such() {
        let theirs = ["ssh-rsa".to_owned(), "ssh-dss".to_owned()];
        let failure = Failure::incompatible(AlgorithmKind::Key, &[], &theirs);
        let (what, hint) = told(failure, "");
        assert!(what.contains("only ssh-rsa, ssh-dss"), "{what}");
        assert!(hint.contains("SHA-1"), "{hint}");
        let other = Failure::incompatible(AlgorithmKind::Key, &[], &["ssh-ed448".to_owned()]);
        assert!(told(other, "").1.contains("HostKeyAlgorithms"));
    }

    #[test]
    fn what_a_server_says_to_it_is_told() {
        let (what, _) = told(Failure::Closed(None), "System is\r\n booting up.\n");
        let end = "closed it (it says: System is booting up.)";
        assert!(what.ends_with(end), "{what}");
    }
}
