//! The process that is the lab's AWS.

use std::io::BufRead as _;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use aws_lc_rs::digest;
use serde_json::Value;

/// A running server. It ends, with all that it started, when its standard input does: when this is dropped, or
/// this process ends in whatever way.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// Says what to do where its Python is missing.
    pub(crate) fn start() -> Self {
        super::super::tools::need_root();
        for program in ["unshare", "setpriv"] {
            super::super::tools::program(program);
        }
        let mut child = Command::new(python())
            .arg(directory().join("server.py"))
            .arg("--lab")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the lab's Python starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let told: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the lab's AWS did not start: {error}: {line:?}"));
        let url = told["url"].as_str().expect("an address");
        let address = url.strip_prefix("http://").expect("plain HTTP");
        Self {
            address: address.parse().expect("an address"),
            child,
        }
    }

    /// Returns where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the server, and it alone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("own child");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/aws")
}

/// Returns the Python with the pinned packages, which lies below the target directory.
pub(crate) fn python() -> PathBuf {
    let list = directory().join("requirements.txt");
    let list = std::fs::read(list).expect("the list of packages");
    let hash = digest::digest(&digest::SHA256, &list);
    let hash = hash.as_ref()[..8].iter();
    let hash: String = hash.map(|byte| format!("{byte:02x}")).collect();
    let name = format!("tools/lab-python-{hash}/bin/python");
    let built = Path::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"));
    let mut candidates = built.ancestors().map(|folder| folder.join(&name));
    candidates.find(|path| path.exists()).unwrap_or_else(|| {
        panic!(
            "this test needs the lab's Python (target/{name}): \
             tests/lab/aws/setup.sh makes it, and so does the test command of README.md"
        )
    })
}
