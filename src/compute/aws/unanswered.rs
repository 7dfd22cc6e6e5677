//! Calls that never reach AWS, and will not before somebody changes something: certificates that nobody believes, proxies that
//! refuse, a zone in the place of a region.
//!
//! They are told at once, as what they are. None of them says anything of what an earlier call has done, so nothing that is known
//! of a machine is given up for one. All else without an answer may pass by itself, and is repeated.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use super::classify::{Action, shortened};
use super::proxy;
use super::trust::Bundle;
use crate::config::zone;
use crate::error::one_line;
use crate::machine::verdict::{Verdict, Why};

/// For how long a call is repeated that a proxy does not let through: one that starts anew lets calls through in a moment, one
/// that refuses is told at once.
const PROXY_LIMIT: Duration = Duration::from_secs(2);
/// What to do about a proxy that forbids the tunnel.
const ALLOW: &str = "Have the proxy allow CONNECT to AWS's hosts (*.amazonaws.com, port 443), or name in NO_PROXY what is reached without it.";

/// Why a call cannot reach AWS, and for how long it is worth repeating.
pub(super) struct Barrier {
    /// What to tell.
    pub(super) verdict: Verdict,
    /// None: it is not repeated.
    pub(super) repeated: Option<Duration>,
}

impl Barrier {
    fn new(why: Why, cause: &str, remedy: String) -> Self {
        Self {
            verdict: Verdict {
                why,
                cause: shortened(&one_line(cause)),
                remedy,
            },
            repeated: None,
        }
    }

    /// Finds what bars the way below an error without an answer. `text` is the error in words.
    pub(super) fn find(
        error: &(dyn StdError + 'static),
        text: &str,
        bundle: Option<&Bundle>,
    ) -> Option<Self> {
        let tls = errors(error).find_map(|error| error.downcast_ref::<rustls::Error>());
        match tls {
            Some(tls) => tls_remedy(tls, bundle)
                .map(|remedy| Self::new(Why::Barred, &tls.to_string(), remedy)),
            None => of_proxy(text),
        }
    }

    /// Reads an answer that is none of AWS's by its HTTP status: a refusal of whatever stands on the way is no outage.
    pub(super) fn of_page(status: u16, text: &str) -> Option<Self> {
        // A server in trouble, one that was too slow or is asked too often may do better later.
        let passes = matches!(status, 200..300 | 408 | 425 | 429) || status >= 500;
        (!passes || status == 511).then(|| {
            let remedy = format!(
                "Something between this host and AWS answers in its place: have it let this host's calls through, or correct AWS_ENDPOINT_URL. {}",
                proxies()
            );
            Self::new(Why::Barred, text, remedy)
        })
    }
}

/// Returns why no call can go to that region: it is none.
pub(super) fn no_region(region: Option<&str>) -> Option<Verdict> {
    let name = region?;
    let region = zone::region(name)?;
    Some(Verdict {
        why: Why::Barred,
        cause: format!("{name:?} is a zone, and no region"),
        remedy: format!(
            "Write the region, {region:?}, in its place: `region` in the driver's configuration, else AWS_REGION or the AWS profile; zones are \
             chosen by the subnets."
        ),
    })
}

/// Says that nothing was sent at all.
pub(super) fn never_sent(verdict: &Verdict, action: Action) -> super::Failure {
    super::Failure {
        verdict: verdict.clone(),
        unanswered: false,
        action,
        reached: false,
        within: None,
        tags_refused: false,
    }
}

/// Goes through an error and its causes. What an `io::Error` carries is its cause; `source` passes over it.
fn errors<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

/// Says what to do about a connection that TLS refuses; nothing where the next one may do better.
fn tls_remedy(error: &rustls::Error, bundle: Option<&Bundle>) -> Option<String> {
    let remedy = match error {
        rustls::Error::InvalidCertificate(problem) => return Some(of_certificate(problem, bundle)),
        rustls::Error::AlertReceived(
            AlertDescription::InternalError
            | AlertDescription::CloseNotify
            | AlertDescription::UserCanceled,
        ) => return None,
        rustls::Error::AlertReceived(_)
        | rustls::Error::PeerIncompatible(_)
        | rustls::Error::NoApplicationProtocol
        | rustls::Error::NoCertificatesPresented => {
            "What answers in AWS's place speaks another TLS than AWS: it is a proxy, or what AWS_ENDPOINT_URL names."
        }
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
            "What answers in AWS's place speaks no TLS: correct AWS_ENDPOINT_URL (https:// for what is plain HTTP, say), or the proxy."
        }
        _ => return None,
    };
    Some(format!("{remedy} {}", proxies()))
}

fn of_certificate(problem: &CertificateError, bundle: Option<&Bundle>) -> String {
    use CertificateError as E;
    match (problem, bundle) {
        (
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. },
            _,
        ) => format!(
            "Set this host's clock where it is wrong (chronyc tracking); else whoever answers in AWS's place has to renew that certificate. {}",
            proxies()
        ),
        (E::NotValidForName | E::NotValidForNameContext { .. }, _) => format!(
            "Whoever answers is not who was called: correct AWS_ENDPOINT_URL (the host's name must stand in the certificate), this host's DNS, or \
             the proxy. {}",
            proxies()
        ),
        (_, Some(bundle)) => format!(
            "{} takes the place of this host's own CAs: add the CA that signs for whoever answers, or take the bundle away. {}",
            bundle.name(),
            proxies()
        ),
        (_, None) => format!(
            "No CA of this host signs for whoever answers. Where a proxy opens TLS, name its CA's file (PEM) by AWS_CA_BUNDLE for GitLab \
             Runner's process, or by ca_bundle in the profile of ~/.aws/config. {}",
            proxies()
        ),
    }
}

/// Reads the words of a tunnel that a proxy did not make; they have no type that others may name.
fn of_proxy(text: &str) -> Option<Barrier> {
    let (_, said) = text.split_once("tunnel error: ")?;
    let proxies = proxies();
    if said.starts_with("proxy authorization required") {
        let remedy = format!(
            "The proxy wants to know who calls: write its user and password into the variable (http://USER:PASSWORD@HOST:PORT) for GitLab \
             Runner's process. {proxies}"
        );
        let cause = "the proxy answered 407 (authorization required)";
        return Some(Barrier::new(Why::Barred, cause, remedy));
    }
    let (cause, remedy) = match said.starts_with("unsuccessful") {
        true => ("the proxy refused the tunnel to AWS".to_owned(), ALLOW),
        false => (
            format!("the proxy made no tunnel to AWS: {said}"),
            "See whether the proxy runs and takes connections from this host, or name in NO_PROXY what is reached without it.",
        ),
    };
    Some(Barrier {
        repeated: Some(PROXY_LIMIT),
        // It may be in trouble itself: the next try of the job asks it anew.
        ..Barrier::new(Why::Outage, &cause, format!("{remedy} {proxies}"))
    })
}

/// Reads what the proxy says to one who asks again for the tunnel that it did not make. Nothing: it says nothing new.
pub(super) fn of_answer(status: u16, said: &str) -> Option<Barrier> {
    if (200..300).contains(&status) {
        return None;
    }
    let cause = format!("the proxy made no tunnel to AWS: it answered {said}");
    Some(match Barrier::of_page(status, "") {
        Some(_) if status == 407 => return of_proxy("tunnel error: proxy authorization required"),
        Some(_) => Barrier::new(Why::Barred, &cause, format!("{ALLOW} {}", proxies())),
        None => {
            let remedy = format!(
                "The proxy is in trouble, or reaches nobody itself: see its log. {}",
                proxies()
            );
            Barrier::new(Why::Outage, &cause, remedy)
        }
    })
}

/// Names the proxies beside what to do about a call that came nowhere, where there are any.
pub(super) fn with_proxies(mut verdict: Verdict) -> Verdict {
    if let Some(names) = proxy::names() {
        verdict.remedy = format!("{} {names}", verdict.remedy);
    }
    verdict
}

fn proxies() -> String {
    let none = || "No proxy is set for this process (HTTPS_PROXY).".to_owned();
    proxy::names().unwrap_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_error_is_found_wherever_it_lies() {
        let tls = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let inner = io::Error::new(io::ErrorKind::InvalidData, tls());
        let found = Barrier::find(&io::Error::other(inner), "x", None).unwrap();
        assert_eq!(found.verdict.why, Why::Barred);
        assert!(found.repeated.is_none());
        assert!(found.verdict.cause.contains("UnknownIssuer"));
        assert!(found.verdict.remedy.contains("AWS_CA_BUNDLE"));
        // What may pass is no barrier.
        for passing in [
            rustls::Error::AlertReceived(AlertDescription::InternalError),
            rustls::Error::General("x".into()),
        ] {
            assert!(Barrier::find(&passing, "x", None).is_none(), "{passing}");
        }
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(Barrier::find(&refused, "tcp connect error", None).is_none());
    }

    #[test]
    fn a_proxy_that_refuses_is_told_from_one_that_may_recover() {
        let refused = |text: &str| of_proxy(&format!("client error (Connect): {text}"));
        let wants = refused("tunnel error: proxy authorization required").unwrap();
        assert_eq!(
            (wants.verdict.why, wants.repeated.is_none()),
            (Why::Barred, true)
        );
        for (text, cause) in [
            ("tunnel error: unsuccessful", "refused the tunnel"),
            (
                "tunnel error: failed to create underlying connection: refused",
                "made no tunnel to AWS: failed",
            ),
        ] {
            let barrier = refused(text).unwrap();
            assert!(barrier.verdict.cause.contains(cause), "{text}");
            assert_eq!(barrier.repeated, Some(PROXY_LIMIT));
            assert_eq!(barrier.verdict.why, Why::Outage);
        }
        assert!(refused("dns error: no such host").is_none());
    }

    #[test]
    fn what_bars_the_way_is_no_refusal_of_awss() {
        use crate::error::Kind;
        for why in [Why::Barred, Why::Outage] {
            assert_eq!(why.kind(), Kind::Throttled, "{why:?}");
        }
    }

    #[test]
    fn what_a_proxy_answers_says_whether_it_stays_so() {
        for (status, why) in [
            (403, Why::Barred),
            (407, Why::Barred),
            (405, Why::Barred),
            (502, Why::Outage),
            (503, Why::Outage),
            (429, Why::Outage),
        ] {
            let barrier = of_answer(status, "503 Busy").unwrap();
            assert_eq!(
                (barrier.verdict.why, barrier.repeated),
                (why, None),
                "{status}"
            );
        }
        assert!(of_answer(200, "200 OK").is_none());
    }

    #[test]
    fn pages_that_refuse_are_told_from_those_that_pass() {
        for status in [301, 401, 403, 404, 407, 451, 511] {
            let page = Barrier::of_page(status, "x").unwrap();
            assert!(page.verdict.why.is_final(), "{status}");
        }
        for status in [200, 408, 429, 500, 502, 503, 504] {
            assert!(Barrier::of_page(status, "x").is_none(), "{status}");
        }
    }
}
