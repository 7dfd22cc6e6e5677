//! Whom this host takes for AWS: its own certificate authorities, or the bundle that AWS's settings name in their place.
//!
//! AWS's other tools know `AWS_CA_BUNDLE` and the profile's `ca_bundle`; the SDK for Rust reads neither. A bundle replaces the
//! host's own authorities, and holds for every call: those of the services, and those that get credentials.

use std::io;
use std::path::{Path, PathBuf};

use aws_config::profile;
use aws_sdk_ecs::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use base64ct::{Base64, Encoding as _};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::proxy;
use crate::files;
use crate::machine::verdict::{Verdict, Why};

/// The variable that names a bundle; it stands above the profile.
const VARIABLE: &str = "AWS_CA_BUNDLE";
/// The key of a profile that names one.
const KEY: &str = "ca_bundle";
/// The largest bundle that is read; that of a whole Linux distribution has a quarter of a mebibyte.
const LARGEST: u64 = 8 << 20;

/// A bundle that takes the place of the host's own authorities.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    /// What names it, and where it is.
    name: Name,
    /// Its certificates, in PEM.
    pem: String,
}

/// What names a bundle, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    said_by: String,
    path: PathBuf,
}

impl Bundle {
    /// Reads the bundle that AWS's settings name; nothing where they name none.
    ///
    /// # Errors
    /// Where it cannot be used: no call would be told from somebody else's then.
    pub(super) async fn read() -> Result<Option<Self>, Verdict> {
        match Name::find().await {
            None => Ok(None),
            Some(name) => match name.certificates() {
                Ok(pem) => Ok(Some(Self { name, pem })),
                Err(problem) => Err(name.unusable(&problem)),
            },
        }
    }

    /// Says what names it, and where it is.
    pub(super) fn name(&self) -> String {
        self.name.to_string()
    }

    /// Returns the client that believes nobody else; in all other things it is as the SDK's own.
    ///
    /// # Errors
    /// Where there can be none.
    pub(super) fn client(&self) -> Result<SharedHttpClient, Verdict> {
        let store = TrustStore::empty().with_pem_certificate(self.pem.as_bytes());
        let context = TlsContext::builder().with_trust_store(store).build();
        let context = context.map_err(|e| self.name.unusable(&e.to_string()))?;
        Ok(
            Builder::new().build_with_connector_fn(move |settings, components| {
                let mut connector = Connector::builder()
                    .tls_provider(Provider::rustls(CryptoMode::AwsLc))
                    .tls_context(context.clone())
                    .proxy_config(ProxyConfig::from_env());
                connector.set_connector_settings(settings.cloned());
                if let Some(components) = components {
                    connector.set_sleep_impl(components.sleep_impl());
                }
                connector.build()
            }),
        )
    }
}

impl Name {
    async fn find() -> Option<Self> {
        if let Some(path) = proxy::sdk_setting(VARIABLE) {
            return Some(Self {
                said_by: VARIABLE.to_owned(),
                path: expanded(&path),
            });
        }
        // Files that cannot be read are the SDK's to tell of, where it looks for credentials in them.
        let (files, env, paths) = Default::default();
        let profiles = profile::load(&files, &env, &paths, None).await.ok()?;
        let path = profiles.get(KEY).filter(|path| !path.is_empty())?;
        Some(Self {
            said_by: format!("{KEY} of the AWS profile {}", profiles.selected_profile()),
            path: expanded(path),
        })
    }

    /// Returns the bundle's certificates, each in a form that TLS takes.
    fn certificates(&self) -> Result<String, String> {
        let bytes = files::read(&self.path, LARGEST).map_err(|e| unread(&self.path, &e))?;
        certificates(&bytes)
    }

    fn unusable(&self, problem: &str) -> Verdict {
        Verdict {
            why: Why::Barred,
            cause: format!("{self} cannot be used: {problem}"),
            remedy: format!(
                "Correct {} for the user and process of GitLab Runner: an absolute path of a file of certificates (PEM) which that user may \
                 read, with the CA of whatever opens TLS on the way to AWS. Without it this host's own CAs count.",
                self.said_by
            ),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.said_by)
    }
}

/// Puts the home directory in the place of a leading `~`: no shell has seen what a file or a unit says.
fn expanded(path: &str) -> PathBuf {
    let rest = path.strip_prefix("~/");
    match rest.zip(proxy::sdk_setting("HOME")) {
        Some((rest, home)) => Path::new(&home).join(rest),
        None => path.into(),
    }
}

fn unread(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if path.is_relative() => {
            format!("{error}, in the stage's own working directory: the path is no absolute one")
        }
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads the certificates of a bundle. One that is none for TLS is passed over as long as another is left: distributions' own
/// bundles hold such.
fn certificates(bytes: &[u8]) -> Result<String, String> {
    // Editors on Windows put it there; the first certificate would be none with it.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut pem, mut odd, mut roots) = (String::new(), None, RootCertStore::empty());
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        let certificate = certificate.map_err(|e| format!("its PEM is broken: {e}"))?;
        match roots.add(certificate.clone()) {
            Ok(()) => {
                let text = Base64::encode_string(&certificate);
                pem += &format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            }
            Err(error) => {
                tracing::debug!(%error, "a certificate of the bundle is passed over");
                odd = Some(error);
            }
        }
    }
    match (pem.is_empty(), odd) {
        (false, _) => Ok(pem),
        (true, Some(error)) => Err(format!("none of its certificates is one for TLS: {error}")),
        (true, None) if bytes.is_empty() => Err("the file is empty".to_owned()),
        (true, None) => Err("it holds no certificate in PEM form (BEGIN CERTIFICATE)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bundle_is_told_by_what_is_wrong() {
        for (bytes, problem) in [
            (&b""[..], "the file is empty"),
            (b"nonsense\n", "holds no certificate in PEM form"),
            (
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "holds no certificate in PEM form",
            ),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "none of its certificates is one for TLS",
            ),
            (
                b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "its PEM is broken",
            ),
        ] {
            let told = certificates(bytes).unwrap_err();
            assert!(told.contains(problem), "{told}");
        }
    }
}
