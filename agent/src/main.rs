//! The SSH server of job machines as a program: reads its options, listens, serves until told to end.

use std::error::Error as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use gitlab_aws_agent::{HostKey, Settings, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The port of all SSH servers.
const PORT: u16 = 22;

/// Serve SSH on a job machine: one key may log in and run commands, nothing else
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  \
        SSH_PUBLIC_KEY=\"$(cat job.pub)\" gitlab-aws-agent --listen 127.0.0.1:2222\n  \
        ssh -i job -p 2222 127.0.0.1 'echo from the machine'"
)]
struct Options {
    /// Address and port to listen on [default: port 22 of all addresses, IPv6 and IPv4]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// The ed25519 public key that may log in, as a line of authorized_keys
    #[arg(
        long,
        value_name = "LINE",
        env = "SSH_PUBLIC_KEY",
        hide_env_values = true
    )]
    public_key: Option<String>,

    /// File that holds the public key that may log in; wins over the line
    #[arg(long, value_name = "FILE")]
    authorized_key: Option<PathBuf>,

    /// OpenSSH private key to be known by; a new one is made at each start otherwise
    #[arg(long, value_name = "FILE")]
    host_key: Option<PathBuf>,

    /// Program that runs each command, given -c and the command
    #[arg(long, value_name = "FILE", default_value = "/bin/sh")]
    shell: PathBuf,

    /// Directory in which commands start
    #[arg(long, value_name = "DIR", env = "HOME", default_value = "/")]
    home: PathBuf,
}

/// The hidden command that makes a process the leader of a session.
const LEAD: &str = "lead";

/// A sentence for the person who started the server.
type Complaint = String;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((_, command)) = words.split_first().filter(|(word, _)| *word == LEAD) {
        let error = gitlab_aws_agent::lead(command);
        say(&format!("error: cannot start a script: {error}"));
        return ExitCode::FAILURE;
    }
    let options = Options::parse();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            say(&format!("error: {complaint}"));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(options: Options) -> Result<(), Complaint> {
    // Before all else, so that a signal during the start ends us properly, even as a container's first
    // process, which has no default dispositions.
    let mut signals = [
        watch(SignalKind::terminate())?,
        watch(SignalKind::interrupt())?,
    ];
    let host_key = match &options.host_key {
        Some(path) => HostKey::from_openssh(&read(path)?)
            .map_err(|error| format!("{}: {}", path.display(), chain(&error)))?,
        None => HostKey::generate().map_err(|error| chain(&error))?,
    };
    let authorized_key = match (&options.authorized_key, options.public_key) {
        (Some(path), _) => read(path)?,
        (None, Some(line)) => line,
        (None, None) => {
            return Err(
                "no key may log in: set SSH_PUBLIC_KEY or give --authorized-key FILE".to_owned(),
            );
        }
    };
    let fingerprint = host_key.fingerprint();
    let settings = Settings {
        authorized_key,
        host_key,
        shell: options.shell,
        home: options.home,
        leader: vec!["/proc/self/exe".into(), LEAD.into()],
        env: Vec::new(),
    };
    settings.check().map_err(|error| chain(&error))?;
    let listener = listen(options.listen).await?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("failed to read the listening address: {error}"))?;
    say(&format!(
        "gitlab-aws-agent: listening on {address}, host key {fingerprint}"
    ));
    let [terminate, interrupt] = &mut signals;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(listener, settings, shutdown)
        .await
        .map_err(|error| chain(&error))
}

fn watch(kind: SignalKind) -> Result<Signal, Complaint> {
    signal(kind).map_err(|error| format!("failed to watch for signals: {error}"))
}

fn read(path: &Path) -> Result<String, Complaint> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("failed to read {}: {error}", path.display()))
}

async fn listen(address: Option<SocketAddr>) -> Result<TcpListener, Complaint> {
    let complain = |address: SocketAddr| {
        move |error: std::io::Error| format!("failed to listen on {address}: {error}")
    };
    if let Some(address) = address {
        return TcpListener::bind(address).await.map_err(complain(address));
    }
    // The IPv6 socket takes IPv4 too; a kernel without IPv6 has only the other.
    if let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await {
        return Ok(listener);
    }
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    TcpListener::bind(address).await.map_err(complain(address))
}

/// Returns an error with all its causes, on one line.
fn chain(error: &gitlab_aws_agent::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Writes a line to stderr; when that is gone there is nobody to tell.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
