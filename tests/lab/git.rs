//! A git repository served over HTTP on loopback, as a job's `get_sources` wants it.
//!
//! Git's own `http-backend` does the work; the few lines of HTTP and CGI around it are here.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::tools;

/// What the repository's `build.sh` prints.
pub(crate) const BUILD_OUTPUT: &str = "building\n";

/// The files of the one commit. The build leaves a result and a place for what is cached.
const FILES: [(&str, &str); 2] = [
    (
        "build.sh",
        "echo building\nmkdir -p out vendor\necho \"result of job $CI_JOB_ID\" > out/result.txt\n",
    ),
    ("README.md", "A project to run jobs of.\n"),
];

/// A server with one repository, `g/p.git`, with one commit on `main`; ended when dropped.
pub(crate) struct GitServer {
    _directory: tempfile::TempDir,
    repository: PathBuf,
    port: u16,
    sha: String,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    root: PathBuf,
    /// Requests still to be answered by an error.
    failures: AtomicU64,
    requests: AtomicU64,
    ended: AtomicBool,
}

impl GitServer {
    /// Makes the repository and starts serving it.
    pub(crate) fn start() -> Self {
        let directory = super::temp_dir();
        let root = directory.path().to_owned();
        let tree = root.join("tree");
        std::fs::create_dir_all(&tree).expect("a writable directory");
        for (name, text) in FILES {
            std::fs::write(tree.join(name), text).expect("a writable directory");
        }
        let repository = root.join("g/p.git");
        git(&tree, &["init", "-q", "-b", "main"]);
        git(&tree, &["add", "."]);
        git(&tree, &["commit", "-q", "-m", "a commit"]);
        let sha = git(&tree, &["rev-parse", "HEAD"]);
        let target = repository.display().to_string();
        git(&tree, &["clone", "-q", "--bare", ".", &target]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            root,
            ..Shared::default()
        });
        let thread_shared = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if thread_shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&thread_shared);
                std::thread::spawn(move || {
                    // A client that goes away is its own affair.
                    drop(serve(&shared, stream));
                });
            }
        });
        Self {
            _directory: directory,
            repository,
            port,
            sha,
            shared,
            thread: Some(thread),
        }
    }

    /// Returns the port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the repository's address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/g/p.git", self.port)
    }

    /// Returns the full name of the commit.
    pub(crate) fn sha(&self) -> &str {
        &self.sha
    }

    /// Answers so many of the next requests by an error; one `git fetch` makes one request then.
    pub(crate) fn fail_next(&self, requests: u64) {
        self.shared.failures.store(requests, Ordering::SeqCst);
    }

    /// Returns how many requests have come.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Clones the repository to a directory, as an earlier job would have.
    pub(crate) fn clone_to(&self, target: &Path) {
        let parent = target.parent().expect("a directory in another");
        std::fs::create_dir_all(parent).expect("a writable directory");
        let source = self.repository.display().to_string();
        let target = target.display().to_string();
        git(parent, &["clone", "-q", &source, &target]);
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Runs git with nothing of this host's configuration; returns its output.
fn git(directory: &Path, args: &[&str]) -> String {
    let done = Command::new(tools::program("git"))
        .args(args)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "lab")
        .env("GIT_AUTHOR_EMAIL", "lab@example.com")
        .env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z")
        .env("GIT_COMMITTER_NAME", "lab")
        .env("GIT_COMMITTER_EMAIL", "lab@example.com")
        .env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z")
        .output()
        .expect("git starts");
    assert!(done.status.success(), "git {args:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| {
        let found = headers.iter().find(|(key, _)| key == name);
        found.map_or(String::new(), |(_, value)| value.clone())
    };
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let fails = shared
        .failures
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
    if fails.is_ok() {
        return stream.write_all(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    if header("expect").eq_ignore_ascii_case("100-continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = read_body(
        &mut reader,
        &header("content-length"),
        &header("transfer-encoding"),
    )?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut child = Command::new(tools::program("git"))
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &shared.root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        drop(input.write_all(&body));
    }
    let mut answer = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut answer)?;
    }
    child.wait()?;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").map_or(0, |at| at + 2);
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len().saturating_sub(2)
    )?;
    stream.write_all(body.get(2..).unwrap_or_default())
}

fn read_body(
    reader: &mut impl std::io::BufRead,
    length: &str,
    encoding: &str,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if !encoding.eq_ignore_ascii_case("chunked") {
        let length = length.parse().unwrap_or(0);
        reader.take(length).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
        reader.by_ref().take(size).read_to_end(&mut body)?;
        let mut end = String::new();
        reader.read_line(&mut end)?;
        if size == 0 {
            return Ok(body);
        }
    }
}
