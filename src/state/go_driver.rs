//! The file that the Go driver leaves for each job that it prepared: `DIRECTORY/KEY.json`.
//!
//! With it this driver runs and ends such a job after the binary was replaced. The directory is the `[TaskMetadata] Directory`
//! of its configuration, which is our state directory. A relative one meant a working directory that is gone, so it is not
//! searched. KEY is our own key of the job.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use serde_json::Value;

use super::files::problem;
use crate::error::{Error, Kind, Result};
use crate::files::read_own;

/// The most that is read; a file with an RSA-4096 key has some 5 KiB.
const LIMIT: u64 = 64 * 1024;

/// The line that opens an RSA key (PKCS#1).
const RSA: &str = "-----BEGIN RSA PRIVATE KEY-----";
/// The lines around a key in OpenSSH's format.
const OPENSSH: (&str, &str) = (
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----END OPENSSH PRIVATE KEY-----",
);
/// What a key in OpenSSH's format begins with (PROTOCOL.key in OpenSSH's source).
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A job that the Go driver prepared.
#[derive(Clone, PartialEq, Eq)]
pub struct GoJob {
    /// Its task.
    pub task_arn: String,
    /// The address to connect to, if the file names one.
    pub container_ip: Option<String>,
    /// The job's key.
    pub private_key: GoKey,
    path: PathBuf,
}

/// Its key, if this driver can use it.
#[derive(Clone, PartialEq, Eq)]
pub enum GoKey {
    /// An ed25519 key, as PEM.
    Ed25519(String),
    /// An RSA key, as PEM (PKCS#1).
    Rsa(String),
    /// The reason why no key can be read. Such a job can only be ended.
    Unusable(String),
}

impl std::fmt::Debug for GoJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GoJob")
            .field("task_arn", &self.task_arn)
            .field("container_ip", &self.container_ip)
            .field("private_key", &self.private_key)
            .field("path", &self.path)
            .finish()
    }
}

impl std::fmt::Debug for GoKey {
    /// Does not print the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ed25519(_) => f.write_str("Ed25519(..)"),
            Self::Rsa(_) => f.write_str("Rsa(..)"),
            Self::Unusable(why) => write!(f, "Unusable({why:?})"),
        }
    }
}

impl GoJob {
    /// Reads a job's file. Returns `None` if it is missing, or if the directory is relative.
    ///
    /// # Errors
    /// If it cannot be read, or does not name the task.
    pub fn read(directory: &Path, key: &str) -> Result<Option<Self>> {
        if !directory.is_absolute() {
            return Ok(None);
        }
        let path = directory.join(format!("{key}.json"));
        match read_own(&path, LIMIT) {
            Ok(bytes) => Self::parse(&bytes, path).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                Err(damaged(&path, "it is larger than 64 KiB"))
            }
            Err(e) => Err(problem("read", &path, e)),
        }
    }

    fn parse(bytes: &[u8], path: PathBuf) -> Result<Self> {
        let json: Value = match serde_json::from_slice(bytes) {
            Ok(json) => json,
            Err(e) => return Err(damaged(&path, &e.to_string())),
        };
        let Some(task_arn) = text(&json, "TaskARN") else {
            return Err(damaged(&path, "it names no TaskARN"));
        };
        let private_key = match text(&json, "PrivateKey") {
            Some(encoded) => key(encoded),
            None => GoKey::Unusable("it holds no PrivateKey".to_owned()),
        };
        Ok(Self {
            task_arn: task_arn.to_owned(),
            container_ip: text(&json, "ContainerIP").map(str::to_owned),
            private_key,
            path,
        })
    }

    /// Returns where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, once nothing is left of the job. It may be gone already.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(problem("remove", &self.path, e)),
            _ => Ok(()),
        }
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    let what = format!("the Go driver's file {} is damaged", path.display());
    Error::new(Kind::State, what).because(why.to_owned()).hint(
        "It is left as it is. End the job's task by hand (`aws ecs stop-task`), then remove the file.",
    )
}

/// Where a task is, as far as its ARN says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskPlace<'a> {
    /// The region.
    pub region: Option<&'a str>,
    /// The account's number.
    pub account: Option<&'a str>,
    /// The cluster's name; older ARNs of tasks do not have it.
    pub cluster: Option<&'a str>,
}

/// Reads where a task is from its ARN, `arn:PARTITION:ecs:REGION:ACCOUNT:task/CLUSTER/ID` or `…:task/ID`.
#[must_use]
pub fn place_of(task_arn: &str) -> TaskPlace<'_> {
    let parts: Vec<&str> = task_arn.splitn(6, ':').collect();
    let ["arn", _, "ecs", region, account, resource] = parts[..] else {
        return TaskPlace::default();
    };
    let said = |text: &&str| !text.is_empty();
    TaskPlace {
        region: Some(region).filter(said),
        account: Some(account).filter(said),
        cluster: match resource.split('/').collect::<Vec<_>>()[..] {
            ["task", cluster, _] => Some(cluster).filter(said),
            _ => None,
        },
    }
}

/// Returns the text of a key, whose case does not matter, as in Go's own reader.
fn text<'a>(json: &'a Value, name: &str) -> Option<&'a str> {
    let object = json.as_object()?;
    let in_any_case = || {
        object
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let value = object
        .get(name)
        .or_else(|| in_any_case().map(|(_, value)| value))?;
    value.as_str().filter(|text| !text.is_empty())
}

/// Returns the kind of key in a PEM in base64.
fn key(encoded: &str) -> GoKey {
    let unusable = |why: &str| GoKey::Unusable(why.to_owned());
    let pem = Base64::decode_vec(encoded.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(pem) = pem else {
        return unusable("its PrivateKey is no PEM in base64");
    };
    if pem.trim_start().starts_with(RSA) {
        return GoKey::Rsa(pem);
    }
    match openssh_algorithm(&pem).as_deref() {
        Some(b"ssh-ed25519") => GoKey::Ed25519(pem),
        Some(_) => unusable("its PrivateKey is neither an RSA key as PKCS#1 nor an ed25519 key"),
        None => unusable("its PrivateKey is no key, or one with a passphrase"),
    }
}

/// Returns the algorithm of a key in OpenSSH's format that has no passphrase.
fn openssh_algorithm(pem: &str) -> Option<Vec<u8>> {
    let body = pem
        .trim()
        .strip_prefix(OPENSSH.0)?
        .strip_suffix(OPENSSH.1)?;
    let body: String = body.split_whitespace().collect();
    let bytes = Base64::decode_vec(&body).ok()?;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let cipher = field(&mut rest)?;
    let (_kdf, _options) = (field(&mut rest)?, field(&mut rest)?);
    if cipher != b"none" {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*count) != 1 {
        return None;
    }
    let mut public = field(&mut rest)?;
    field(&mut public).map(<[u8]>::to_vec)
}

/// Takes one length-prefixed field off the front (RFC 4251, section 5).
fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (field, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ssh::keys::JobKey;

    const ARN: &str = "arn:aws:ecs:eu-west-1:111122223333:task/ci/0123";

    fn encode(pem: &str) -> String {
        Base64::encode_string(pem.as_bytes())
    }

    fn read(text: &str) -> Result<Option<GoJob>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("k.json"), text).unwrap();
        GoJob::read(dir.path(), "k")
    }

    #[test]
    fn a_job_of_the_go_driver_is_read_and_its_key_can_be_used() {
        let key = JobKey::generate().unwrap();
        let pem = key.to_pem().unwrap();
        let text = format!(
            "{{\"TaskARN\":\"{ARN}\",\"ContainerIP\":\"10.0.0.7\",\"PrivateKey\":\"{}\",\"Other\":null}}\n",
            encode(&pem)
        );
        let job = read(&text).unwrap().unwrap();
        assert_eq!(job.task_arn, ARN);
        assert_eq!(job.container_ip.as_deref(), Some("10.0.0.7"));
        let GoKey::Ed25519(read_pem) = &job.private_key else {
            panic!("{job:?}")
        };
        let again = JobKey::from_pem(read_pem).unwrap();
        assert_eq!(again.public_line().unwrap(), key.public_line().unwrap());
        assert!(!format!("{job:?}").contains("PRIVATE"), "{job:?}");
        // Go reads its own keys in any case, and so do we.
        let job = read(
            &text
                .to_ascii_lowercase()
                .replace(&encode(&pem).to_ascii_lowercase(), &encode(&pem)),
        );
        assert!(matches!(
            job.unwrap().unwrap().private_key,
            GoKey::Ed25519(_)
        ));
    }

    #[test]
    fn what_cannot_be_used_to_log_in_can_still_be_ended() {
        let pkcs1 = "-----BEGIN RSA PRIVATE KEY-----\nMIIJ\n-----END RSA PRIVATE KEY-----\n";
        // Magic, no cipher, no kdf, no options, one key: ecdsa.
        let mut blob = MAGIC.to_vec();
        let mut add = |bytes: &[u8]| {
            blob.extend((bytes.len() as u32).to_be_bytes());
            blob.extend(bytes);
        };
        add(b"none");
        add(b"none");
        add(b"");
        let head = blob.clone();
        let openssh = |algorithm: &[u8]| {
            let mut blob = head.clone();
            blob.extend(1_u32.to_be_bytes());
            blob.extend((algorithm.len() as u32 + 4).to_be_bytes());
            blob.extend((algorithm.len() as u32).to_be_bytes());
            blob.extend(algorithm);
            let body = Base64::encode_string(&blob);
            encode(&format!("{}\n{body}\n{}\n", OPENSSH.0, OPENSSH.1))
        };
        for (key, want) in [
            (encode(pkcs1), GoKey::Rsa(pkcs1.to_owned())),
            (openssh(b"ssh-rsa"), GoKey::Unusable(String::new())),
            (
                openssh(b"ecdsa-sha2-nistp256"),
                GoKey::Unusable(String::new()),
            ),
            ("?".to_owned(), GoKey::Unusable(String::new())),
            (encode("no pem"), GoKey::Unusable(String::new())),
            (encode("\u{0}"), GoKey::Unusable(String::new())),
            (String::new(), GoKey::Unusable(String::new())),
        ] {
            let job = read(&format!(
                "{{\"TaskARN\":\"{ARN}\",\"PrivateKey\":\"{key}\"}}"
            ));
            let job = job.unwrap().unwrap();
            assert!(!format!("{job:?}").contains("MIIJ"), "{job:?}");
            assert_eq!((job.task_arn.as_str(), job.container_ip), (ARN, None));
            match (&job.private_key, &want) {
                (GoKey::Unusable(why), GoKey::Unusable(_)) => assert!(!why.is_empty()),
                (got, want) => assert_eq!(got, want),
            }
        }
    }

    #[test]
    fn a_tasks_name_says_where_it_is() {
        let whole = place_of(ARN);
        assert_eq!(whole.region, Some("eu-west-1"));
        assert_eq!(whole.account, Some("111122223333"));
        assert_eq!(whole.cluster, Some("ci"));
        let old = place_of("arn:aws-cn:ecs:cn-north-1:111122223333:task/0123");
        assert_eq!((old.region, old.cluster), (Some("cn-north-1"), None));
        for odd in [
            "",
            "0123",
            "arn:aws:ec2:a:b:task/c/d",
            "arn:aws:ecs:::task//d",
        ] {
            assert_eq!(place_of(odd), TaskPlace::default(), "{odd}");
        }
    }

    #[test]
    fn a_damaged_file_is_said_and_kept() {
        for (text, why) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("[]", "no TaskARN"),
            ("null", "no TaskARN"),
            ("{}", "no TaskARN"),
            ("{\"TaskARN\":null}", "no TaskARN"),
            ("{\"TaskARN\":\"\"}", "no TaskARN"),
            ("{\"TaskARN\":7}", "no TaskARN"),
            (&"x".repeat(70_000), "larger than"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), Kind::State);
            assert!(
                error.to_string().contains("the Go driver's file"),
                "{error}"
            );
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.remedy().is_some());
        }
    }

    #[test]
    fn it_is_looked_for_in_one_place_and_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(GoJob::read(dir.path(), "k").unwrap(), None);
        assert_eq!(GoJob::read(&dir.path().join("none"), "k").unwrap(), None);
        assert_eq!(GoJob::read(Path::new("."), "Cargo").unwrap(), None);
        let path = dir.path().join("k.json");
        fs::write(&path, format!("{{\"TaskARN\":\"{ARN}\"}}")).unwrap();
        let job = GoJob::read(dir.path(), "k").unwrap().unwrap();
        assert_eq!(job.path(), path);
        job.remove().unwrap();
        assert!(!path.exists());
        job.remove().unwrap();
        fs::create_dir(&path).unwrap();
        assert!(GoJob::read(dir.path(), "k").is_err());
        assert!(job.remove().is_err());
    }

    proptest! {
        #[test]
        fn any_key_is_taken_or_called_unusable(bytes: Vec<u8>, text: String) {
            drop(key(&text));
            drop(key(&Base64::encode_string(&bytes)));
            let body = Base64::encode_string(&[MAGIC, &bytes].concat());
            drop(openssh_algorithm(&format!("{}\n{body}\n{}", OPENSSH.0, OPENSSH.1)));
        }
    }
}
