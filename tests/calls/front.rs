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
use std::sync::LazyLock;
use std::sync::Mutex;

use crate::lab::aws::Account;
use crate::lab::aws::python;

/// TLS before the lab's AWS, and the files of two CAs; it ends with this process.
pub(super) struct Tls {
    ports: BTreeMap<String, u16>,
    folder: PathBuf,
    _process: Child,
}

/// One for all tests: what it serves is whatever account calls.
pub(super) static TLS: LazyLock<Tls> = LazyLock::new(Tls::start);

impl Tls {
    fn start() -> Self {
        // The server removes it.
        let folder = crate::lab::temp_dir().keep();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/aws/tls.py");
        let mut process = Command::new(python())
            .arg(script)
            .arg(endpoint(&Account::new()).to_string())
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Self {
            ports: serde_json::from_str(&line).unwrap(),
            folder,
            _process: process,
        }
    }

    /// Returns where AWS is behind a certificate of that kind.
    pub(super) fn url(&self, kind: &str) -> String {
        format!("https://127.0.0.1:{}", self.ports[kind])
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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
            let server = TcpStream::connect(to)?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            splice(client, server)
        }
    }
}

fn splice(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    let (mut from, mut back) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || drop(std::io::copy(&mut back, &mut client)));
    std::io::copy(&mut from, &mut server)?;
    server.shutdown(std::net::Shutdown::Write)
}

/// Has somebody listen at a port, from now on, who hands all on.
pub(super) fn forward(port: u16, to: SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let server = TcpStream::connect(to).unwrap();
                drop(splice(client, server));
            });
        }
    });
}
