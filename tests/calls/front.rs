//! What stands between the driver and AWS: TLS with all that can be wrong with it, and proxies.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use crate::lab::aws::Account;
use crate::lab::aws::python;

/// TLS before the lab's AWS, and the files of two CAs; ended when dropped.
pub(super) struct Tls {
    process: Child,
    ports: BTreeMap<String, u16>,
    folder: tempfile::TempDir,
}

impl Tls {
    pub(super) fn before(account: &Account) -> Self {
        let folder = crate::lab::temp_dir();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/aws/tls.py");
        let mut process = Command::new(python())
            .arg(script)
            .arg(endpoint(account).to_string())
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Self {
            ports: serde_json::from_str(&line).unwrap(),
            process,
            folder,
        }
    }

    /// Returns where AWS is behind a certificate of that kind.
    pub(super) fn url(&self, kind: &str) -> String {
        format!("https://127.0.0.1:{}", self.ports[kind])
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

/// Returns where the account's AWS is.
pub(super) fn endpoint(account: &Account) -> SocketAddr {
    let [(_, url), ..] = account.environment();
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// What a proxy does about a CONNECT.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// It makes the tunnel.
    Tunnel,
    /// It says this, and hangs up.
    Says(&'static str),
    /// It says this so many times, and then makes tunnels.
    After(usize, &'static str),
}

/// A proxy that takes CONNECT, and notes what it was asked.
pub(super) struct HttpProxy {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl HttpProxy {
    pub(super) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || drop(serve(client, answer, &noted)));
            }
        });
        Self { address, asked }
    }

    /// Returns the lines that asked for a tunnel.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, answer: Answer, noted: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let to = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let count = {
        let mut noted = noted.lock().unwrap();
        noted.push(line);
        noted.len()
    };
    let refusal = match answer {
        Answer::Says(status) => Some(status),
        Answer::After(times, status) => (count <= times).then_some(status),
        Answer::Tunnel => None,
    };
    match refusal {
        Some(status) => write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
        None => {
            let mut server = TcpStream::connect(to)?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            let (mut from, mut back) = (client.try_clone()?, server.try_clone()?);
            std::thread::spawn(move || drop(std::io::copy(&mut back, &mut client)));
            std::io::copy(&mut from, &mut server)?;
            server.shutdown(std::net::Shutdown::Write)
        }
    }
}
