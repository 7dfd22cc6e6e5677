//! The proxy that calls go through: its name without what is secret of it, and what it says to one who asks for a tunnel.
//!
//! The SDK tells no more than that there was no tunnel. A proxy that forbids it stays so; one that is in trouble itself may make
//! the next. So it is asked once more, as plainly as the SDK asked, for its answer's first line.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_ecs::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_ecs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ecs::error::BoxError;
use base64ct::{Base64, Encoding as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::one_line;

/// The variables that name the proxy of calls over TLS, in the order in which they count.
const OF_TLS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// Those that name one.
const ALL: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// From the connection to the first line: a proxy that takes longer is one that may recover.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest first line that is read.
const LONGEST_LINE: u64 = 1024;

/// Where the last call went, as a tunnel is asked for: `HOST:PORT`; shared by all clients of a way to AWS.
#[derive(Clone, Debug, Default)]
pub(in crate::compute) struct Target(Arc<Mutex<Option<String>>>);

impl Target {
    /// Asks the proxy for a tunnel to where the last call went; returns status and words of its answer, where it gives one.
    pub(super) async fn ask(&self) -> Option<(u16, String)> {
        let target = self.0.lock().ok()?.clone()?;
        let proxy = Proxy::read(&OF_TLS.iter().find_map(|name| sdk_setting(name))?)?;
        timeout(LIMIT, proxy.ask(&target)).await.ok()?
    }
}

impl Intercept for Target {
    fn name(&self) -> &'static str {
        "Target"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Ok(mut target) = self.0.lock() {
            *target = authority(context.request().uri());
        }
        Ok(())
    }
}

/// Returns host and port of a URI over TLS.
fn authority(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("https://")?;
    let host = rest.split(['/', '?']).next()?;
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    Some(match has_port {
        true => host.to_owned(),
        false => format!("{host}:443"),
    })
}

/// A proxy that is reached without TLS.
#[derive(Debug, PartialEq, Eq)]
struct Proxy {
    address: String,
    authorization: Option<String>,
}

impl Proxy {
    fn read(url: &str) -> Option<Self> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return None,
            None => url,
        };
        let rest = rest.split('/').next()?;
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        Some(Self {
            address: match has_port {
                true => host.to_owned(),
                false => format!("{host}:80"),
            },
            authorization: user.map(|user| Base64::encode_string(&decoded(user))),
        })
    }

    async fn ask(&self, target: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).await.ok()?;
        let authorization = self.authorization.as_ref();
        let authorization = authorization.map_or_else(String::new, |user| {
            format!("Proxy-Authorization: Basic {user}\r\n")
        });
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut line = Vec::new();
        let mut answer = BufReader::new(stream.take(LONGEST_LINE));
        answer.read_until(b'\n', &mut line).await.ok()?;
        status(&String::from_utf8_lossy(&line))
    }
}

/// Reads the first line of an answer: the status, and it with its words.
fn status(line: &str) -> Option<(u16, String)> {
    let (version, said) = line.trim().split_once(' ')?;
    let number = said.split(' ').next()?.parse().ok()?;
    version
        .starts_with("HTTP/")
        .then(|| (number, one_line(said)))
}

/// Puts the bytes in the places of `%XX`.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| *byte == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// Names the proxies that calls of this process take; nothing where there are none.
pub(super) fn names() -> Option<String> {
    let set = |name: &&str| sdk_setting(name).map(|value| format!("{name} is {}", bare(&value)));
    let all: Vec<String> = ALL.iter().filter_map(set).collect();
    (!all.is_empty()).then(|| format!("{}.", all.join(", ")))
}

/// Takes user and password out of a proxy's URL.
fn bare(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    one_line(&format!("{scheme}{host}"))
}

/// Returns a variable that the SDK reads by itself, or should: what it goes by has to be known here, wherever the call comes from.
pub(super) fn sdk_setting(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the SDK reads its own variables itself, and these belong to them"
    )]
    let value = std::env::var_os(name)?;
    let value = value.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_password_is_not_told() {
        for (url, told) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://me:se@cret@proxy:3128/", "http://proxy:3128/"),
            ("me:secret@proxy:3128", "proxy:3128"),
        ] {
            assert_eq!(bare(url), told);
        }
    }

    #[test]
    fn a_proxy_is_asked_as_its_url_says() {
        let proxy = |address: &str, user: Option<&str>| Proxy {
            address: address.to_owned(),
            authorization: user.map(|user| Base64::encode_string(user.as_bytes())),
        };
        for (url, wanted) in [
            ("http://proxy:3128", Some(proxy("proxy:3128", None))),
            ("proxy", Some(proxy("proxy:80", None))),
            ("http://[::1]/", Some(proxy("[::1]:80", None))),
            (
                "http://me:p%40ss%@proxy:1/x",
                Some(proxy("proxy:1", Some("me:p@ss%"))),
            ),
            ("https://proxy:3128", None),
            ("socks5://proxy:1080", None),
        ] {
            assert_eq!(Proxy::read(url), wanted, "{url}");
        }
        for (uri, wanted) in [
            (
                "https://ecs.eu-west-1.amazonaws.com/",
                Some("ecs.eu-west-1.amazonaws.com:443"),
            ),
            ("https://127.0.0.1:8443/x?y", Some("127.0.0.1:8443")),
            ("https://[::1]", Some("[::1]:443")),
            ("http://127.0.0.1:1/", None),
        ] {
            assert_eq!(authority(uri).as_deref(), wanted, "{uri}");
        }
        for (line, wanted) in [
            ("HTTP/1.1 403 Forbidden\r\n", Some((403, "403 Forbidden"))),
            ("HTTP/1.0 503\r\n", Some((503, "503"))),
            ("SSH-2.0-x\r\n", None),
            ("", None),
        ] {
            let wanted = wanted.map(|(number, said)| (number, said.to_owned()));
            assert_eq!(status(line), wanted, "{line}");
        }
    }
}
