//! One login over a byte stream: the key exchange, the host key, the job's key.

use std::sync::{Arc, Mutex};

use russh::MethodKind;
use russh::client::{self, AuthResult, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey};
use tokio::time::timeout;

use super::bounded::Bounded;
use super::client::{Client, Observed, config};
use super::failure::{Failure, LOGIN_TIMEOUT, Unauthorised, methods};
use super::keys::{self, JobKey, Pair};
use super::lines_before_version::TurnedAway;
use super::memory_limit::MemoryLimit;
use super::rsa::{self, Hash, NotSigned, RsaKey};
use super::session::Session;
use super::stream::Stream;
use crate::machine::Endpoint;

/// Why there is no session, and what the server said with it.
pub(super) struct Refusal {
    pub(super) why: Failure,
    pub(super) words: String,
}

impl From<Failure> for Refusal {
    fn from(why: Failure) -> Self {
        let words = String::new();
        Self { why, words }
    }
}

/// Logs in over a stream. The server must show this host key, or any on first contact.
pub(super) async fn log_in(
    endpoint: &Endpoint,
    key: &JobKey,
    expected: Option<&PublicKey>,
    stream: Box<dyn Stream>,
    memory_limit: &MemoryLimit,
) -> Result<Session, Refusal> {
    let (stream, hold) = Bounded::new(stream, memory_limit);
    let observed = Arc::new(Mutex::new(Observed::default()));
    let login = Login {
        endpoint,
        key,
        expected,
        observed: Arc::clone(&observed),
    };
    let done = match timeout(LOGIN_TIMEOUT, login.run(stream)).await {
        Ok(done) => done,
        Err(_) => Err(Failure::Silent),
    };
    let observed = observed
        .lock()
        .map(|mut observed| std::mem::take(&mut *observed));
    let observed = observed.unwrap_or_default();
    match done {
        Err(why) => Err(Refusal {
            why,
            words: observed.words,
        }),
        Ok(handle) => {
            let line = observed.host_key.as_ref().map(keys::line).transpose();
            Ok(Session::new(handle, line.map_err(Failure::Local)?, hold))
        }
    }
}

struct Login<'a> {
    endpoint: &'a Endpoint,
    key: &'a JobKey,
    expected: Option<&'a PublicKey>,
    observed: Arc<Mutex<Observed>>,
}

impl Login<'_> {
    async fn run(self, stream: Bounded<Box<dyn Stream>>) -> Result<Handle<Client>, Failure> {
        let client = Client::new(self.expected.cloned(), Arc::clone(&self.observed));
        let mut handle =
            client::connect_stream(config(self.expected, self.endpoint), stream, client)
                .await
                .map_err(|e| self.classify(e))?;
        match self.authenticate(&mut handle).await? {
            AuthResult::Success => Ok(handle),
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                // Also if the connection ended before the answer: the session says how.
                if remaining_methods.is_empty() && !partial_success {
                    return Err(match handle.await {
                        Err(russh::Error::NoAuthMethod) => self.unauthorised(),
                        Err(error) => Failure::Closed(Some(error)),
                        Ok(()) => Failure::Closed(None),
                    });
                }
                // After a goodbye the server does not count an unfinished login in addition to the refused key.
                drop(
                    handle
                        .disconnect(russh::Disconnect::ByApplication, "", "en")
                        .await,
                );
                let ways = || methods(&remaining_methods);
                Err(match partial_success {
                    true => Failure::MoreSteps(ways()),
                    false if remaining_methods.contains(&MethodKind::PublicKey) => {
                        self.unauthorised()
                    }
                    false => Failure::NoKeys(ways()),
                })
            }
        }
    }

    async fn authenticate(&self, handle: &mut Handle<Client>) -> Result<AuthResult, Failure> {
        let user = &*self.endpoint.user;
        let closed = |error| Failure::Closed(Some(error));
        let key = match &self.key.0 {
            Pair::Rsa(key) => key,
            Pair::Ed25519(key) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
                #[expect(clippy::disallowed_methods, reason = "it is an ed25519 key")]
                let done = handle.authenticate_publickey(user, key).await;
                return done.map_err(closed);
            }
        };
        let said = handle.best_supported_rsa_hash().await.map_err(closed)?;
        let [first, second] = Hash::to_try(said);
        match self.sign(handle, key, first).await? {
            AuthResult::Failure {
                remaining_methods,
                partial_success: false,
            } if remaining_methods.contains(&MethodKind::PublicKey) => {
                self.sign(handle, key, second).await
            }
            done => Ok(done),
        }
    }

    async fn sign(
        &self,
        handle: &mut Handle<Client>,
        key: &RsaKey,
        hash: Hash,
    ) -> Result<AuthResult, Failure> {
        let mut signer = rsa::Login { key, hash };
        let (user, public, hash) = (&*self.endpoint.user, key.public().clone(), hash.alg());
        let done = handle.authenticate_publickey_with(user, public, Some(hash), &mut signer);
        done.await.map_err(|error| match error {
            NotSigned::Lost => Failure::Closed(None),
            NotSigned::Refused => self.unauthorised(),
        })
    }

    fn unauthorised(&self) -> Failure {
        let is_without = |observed: &Observed| observed.no_curve25519;
        let fips = self
            .observed
            .lock()
            .is_ok_and(|observed| is_without(&observed));
        Failure::Unauthorised(match (self.key.is_rsa(), fips) {
            (true, _) => Unauthorised::Rsa,
            (false, true) => Unauthorised::Ed25519OfFips,
            (false, false) => Unauthorised::Ed25519,
        })
    }

    fn classify(&self, error: russh::Error) -> Failure {
        match error {
            russh::Error::UnknownKey => self.unknown_key(),
            russh::Error::NoCommonAlgo { kind, ours, theirs } => {
                Failure::incompatible(kind, &ours, &theirs)
            }
            russh::Error::WrongServerSig => Failure::Unproven,
            russh::Error::Version => Failure::Version,
            other => Failure::Closed(self.unless_turned_away(other)),
        }
    }

    /// Notes what the server said in place of its version; returns any other error.
    fn unless_turned_away(&self, error: russh::Error) -> Option<russh::Error> {
        let russh::Error::IO(io) = &error else {
            return Some(error);
        };
        let source = io.get_ref().and_then(|source| source.downcast_ref());
        let Some(TurnedAway(words)) = source else {
            return Some(error);
        };
        if let Ok(mut observed) = self.observed.lock() {
            observed.hear(words);
        }
        None
    }

    /// Returns why a host key was refused.
    fn unknown_key(&self) -> Failure {
        let observed = self.observed.lock().ok();
        let Some(observed) = &observed else {
            return Failure::Closed(None);
        };
        match (&observed.host_key, self.expected) {
            (Some(found), Some(expected)) if found.key_data() != expected.key_data() => {
                Failure::HostKey {
                    found: keys::fingerprint(found),
                    expected: keys::fingerprint(expected),
                }
            }
            _ => observed
                .weak
                .map_or(Failure::Closed(None), Failure::WeakKey),
        }
    }
}
