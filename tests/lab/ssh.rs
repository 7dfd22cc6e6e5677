//! The real `ssh` client, for what the driver is compared with and for the lab's own tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::stage::Call;
use super::stage::Stage;
use super::tools;

/// A key and the client that uses it.
pub(crate) struct Client {
    directory: PathBuf,
    key: PathBuf,
}

impl Client {
    /// Makes a new ed25519 key in the directory.
    pub(crate) fn new(directory: &Path) -> Self {
        let key = directory.join("client_key");
        generate_key(&key);
        Self {
            directory: directory.to_owned(),
            key,
        }
    }

    /// Returns the line for `authorized_keys`.
    pub(crate) fn public_key(&self) -> String {
        let text = std::fs::read_to_string(self.key.with_extension("pub")).expect("own file");
        text.trim_end().to_owned()
    }

    /// Starts a command on the server at the port of 127.0.0.1.
    pub(crate) fn spawn(&self, port: u16, command: &str) -> Stage {
        self.spawn_at("127.0.0.1", port, command)
    }

    /// Starts a command on the server at the address and port.
    pub(crate) fn spawn_at(&self, address: &str, port: u16, command: &str) -> Stage {
        let mut args: Vec<String> = ["-F", "none", "-T", "-p"].map(String::from).into();
        args.push(port.to_string());
        args.push("-i".into());
        args.push(self.key.display().to_string());
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=20",
            // The default post-quantum exchange takes most of a login's time.
            "KexAlgorithms=curve25519-sha256",
        ] {
            args.push("-o".into());
            args.push(option.into());
        }
        args.extend([&format!("root@{address}"), "--", command].map(String::from));
        Call {
            name: format!("ssh {command}"),
            program: tools::program("ssh"),
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::from([("HOME".into(), self.directory.clone().into())]),
            directory: self.directory.clone(),
            ..Call::default()
        }
        .spawn()
    }
}

/// Writes a new ed25519 key pair at the path, in place of one that is there.
pub(crate) fn generate_key(path: &Path) {
    generate(path, "ed25519", 256);
}

/// As [`generate_key`], of a kind and with so many bits; RSA keys as Go writes them (PKCS#1).
pub(crate) fn generate(path: &Path, kind: &str, bits: u32) {
    for old in [path.to_owned(), path.with_extension("pub")] {
        drop(std::fs::remove_file(old));
    }
    let bits = bits.to_string();
    let done = Command::new(tools::program("ssh-keygen"))
        .args(["-q", "-t", kind, "-b", &bits, "-N", "", "-C", "lab"])
        .args(["-m", if kind == "rsa" { "PEM" } else { "RFC4716" }, "-f"])
        .arg(path)
        .output()
        .expect("ssh-keygen starts");
    assert!(done.status.success(), "ssh-keygen: {done:?}");
}
