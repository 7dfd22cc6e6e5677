//! The agent as a program: reads its options and its launch's parameters, listens, serves until told to end.
//!
//! As the command of somebody else's container it is called by an entrypoint that nobody here knows, which may drop its
//! arguments or add some. So all that a launch says is in the environment, and a bare path is enough.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use gitlab_aws_agent::{
    END_CONTAINER, HostKey, Launch, Listen, Listeners, PORT, Parameters, Settings, choose_home,
    dial, end_container, install, lead, own_program, say, serve,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The hidden command that makes a process the leader of its own session.
const LEAD: &str = "lead";

/// What the first argument may be for the arguments to mean anything, where the parameters come by the environment.
const COMMANDS: [&str; 7] = [
    "serve",
    "install",
    "dial",
    "help",
    "--help",
    "--version",
    END_CONTAINER,
];

/// Serve SSH on a job machine: one key may log in and run commands, nothing else
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  \
        SSH_PUBLIC_KEY=\"$(cat job.pub)\" gitlab-aws-agent --listen 127.0.0.1:2222\n  \
        ssh -i job -p 2222 127.0.0.1 'echo from the machine'"
)]
struct Options {
    #[command(subcommand)]
    command: Option<Task>,

    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Serve; this is also what happens without a command
    Serve(Serve),

    /// Copy this program into a directory, for containers whose image does not have it
    Install {
        /// Directory of the copy; made where it is missing
        #[arg(value_name = "DIR")]
        directory: PathBuf,

        /// Directory that all users may write to; made where it is missing
        #[arg(long, value_name = "PATH")]
        open: Vec<PathBuf>,
    },

    /// Carry stdin and stdout to a server and back, as a ProxyCommand does
    Dial {
        /// ADDRESS:PORT, or the path of a socket
        #[arg(value_name = "SERVER")]
        server: String,
    },

    /// See to the end of a container
    #[command(name = END_CONTAINER, hide = true)]
    EndContainer {
        #[arg(value_name = "PID.START")]
        ancestors: Vec<OsString>,
    },
}

#[derive(Debug, Default, Args)]
struct Serve {
    /// Address and port to listen on [default: port 2222 of all addresses, IPv6 and IPv4]
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

    /// Program that runs each command, given -c and the command [default: /bin/sh, else a shell that is found]
    #[arg(long, value_name = "FILE")]
    shell: Option<PathBuf>,

    /// Directory in which commands start [default: HOME, else the user's own, if it can be entered]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

/// A sentence for the person who started the program.
type Complaint = String;

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    // This is on the way of every script, and becomes another program: nothing of the following is for it.
    if words.get(1).is_some_and(|word| word == LEAD) {
        let error = lead(&words[2..]);
        say(&format!("error: failed to start the command: {error}"));
        return ExitCode::FAILURE;
    }
    match start(&mut words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            say(&format!("error: {complaint}"));
            ExitCode::FAILURE
        }
    }
}

/// The signals that end the program.
struct Signals([Signal; 2]);

impl Signals {
    fn watch() -> Result<Self, Complaint> {
        let watch =
            |kind| signal(kind).map_err(|error| format!("failed to watch for signals: {error}"));
        Ok(Self([
            watch(SignalKind::terminate())?,
            watch(SignalKind::interrupt())?,
        ]))
    }

    /// Waits for one of them. Those that come later do nothing.
    async fn come(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn start(words: &mut Vec<OsString>) -> Result<(), Complaint> {
    // Before all else, so that a signal during the start ends us properly, even as a container's first process, which has no
    // default dispositions: one that comes too early is lost, and the container lives until somebody kills it.
    let signals = Signals::watch()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read once, here"
    )]
    let environment: Vec<_> = std::env::vars_os().collect();
    let is_launched = environment
        .iter()
        .any(|(name, _)| gitlab_aws_agent::is_own(name));
    if is_launched {
        // What a launch hands over is in this process's environment for good. This closes its files in /proc to all that may
        // not trace any process. A plain server has nothing to hide, and may be process 1, whose environment is an image's.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
    let first = words.get(1).and_then(|word| word.to_str());
    if is_launched && words.len() > 1 && !first.is_some_and(|word| COMMANDS.contains(&word)) {
        say(&format!(
            "ignores {} argument(s): its parameters come by the environment",
            words.len() - 1
        ));
        words.truncate(1);
    }
    let options = Options::parse_from(&*words);
    match options.command.unwrap_or(Task::Serve(options.serve)) {
        Task::Serve(options) => {
            let parameters =
                Parameters::from_environment(&environment).map_err(|error| chain(&error))?;
            let home = value(&environment, "HOME").map(PathBuf::from);
            match parameters {
                Some(parameters) => launched(parameters, options, home.as_deref(), signals).await,
                None => plain(options, home.as_deref(), signals).await,
            }
        }
        Task::Install { directory, open } => {
            let program = own_program(words.first().map(OsString::as_os_str));
            let copy = install(&program, &directory, &open).map_err(|error| chain(&error))?;
            say(&format!("installed {}", copy.display()));
            Ok(())
        }
        Task::Dial { server } => dial(&server)
            .await
            .map_err(|error| format!("failed to reach {server}: {error}")),
        Task::EndContainer { ancestors } => {
            end_container(&ancestors).await;
            Ok(())
        }
    }
}

fn value<'a>(environment: &'a [(OsString, OsString)], wanted: &str) -> Option<&'a OsStr> {
    environment
        .iter()
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.as_os_str())
}

/// Serves as a person starts it.
async fn plain(options: Serve, home: Option<&Path>, signals: Signals) -> Result<(), Complaint> {
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
    let settings = Settings {
        authorized_key,
        host_key,
        shell: options.shell,
        home: options.home.or_else(|| choose_home(home)),
        leader: leader(),
        env: Vec::new(),
        launch: Launch::default(),
    };
    let listen = options.listen.map_or(Listen::Port(PORT), Listen::Address);
    run(settings, listen, None, signals).await
}

/// Serves as a container's process.
async fn launched(
    parameters: Parameters,
    options: Serve,
    home: Option<&Path>,
    signals: Signals,
) -> Result<(), Complaint> {
    let one_use_host_key = parameters.host_key.is_some();
    let host_key = match parameters.host_key {
        Some(key) => key,
        None => HostKey::generate().map_err(|error| chain(&error))?,
    };
    let settings = Settings {
        authorized_key: parameters.login,
        host_key,
        shell: options.shell,
        home: options.home.or_else(|| choose_home(home)),
        leader: leader(),
        env: Vec::new(),
        launch: Launch {
            one_use_host_key,
            waits_for_scripts: true,
            ends_container: true,
            until: parameters.until,
            idle: parameters.idle,
            role: parameters.role,
            hand_on: parameters.hand_on,
        },
    };
    let socket = parameters.socket.as_deref();
    run(settings, parameters.listen, socket, signals).await
}

async fn run(
    settings: Settings,
    listen: Listen,
    socket: Option<&Path>,
    mut signals: Signals,
) -> Result<(), Complaint> {
    settings.check().map_err(|error| chain(&error))?;
    let listeners = Listeners::open(&listen.addresses(), socket)
        .await
        .map_err(|error| chain(&error))?;
    let fingerprint = settings.host_key.fingerprint();
    let places = listeners
        .places()
        .map_err(|error| format!("failed to read the listening address: {error}"))?;
    for place in places {
        say(&format!("listening on {place}, host key {fingerprint}"));
    }
    serve(listeners, settings, signals.come())
        .await
        .map_err(|error| chain(&error))
}

fn leader() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), LEAD.into()]
}

fn read(path: &Path) -> Result<String, Complaint> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("failed to read {}: {error}", path.display()))
}

/// Returns an error with all its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
