//! What a launch hands over to the agent in a container, and a client that uses it: OpenSSH, which comes in by the agent's own
//! `dial` or by a socket, so no container needs a network.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64ct::Base64;
use base64ct::Encoding as _;

use super::docker::Container;
use super::docker::ContainerBuilder;
use super::docker::Docker;
use super::docker::Volume;
use super::ssh;
use super::tools;

/// The agent in a job's container. It is the container's whole command.
pub(crate) const AGENT: &str = "/agent/gitlab-aws-agent";

/// Where the volume with the agent is.
const PLACE: &str = "/agent";

/// Where an init container finds the agent that it installs.
const BROUGHT: &str = "/brought/gitlab-aws-agent";

/// The variable that holds all that a launch hands over.
pub(crate) const VARIABLE: &str = "GITLAB_AWS_AGENT";

/// Where the agent listens.
const LISTENS: &str = "127.0.0.1:2222";

/// What the agent writes once it can be reached.
const READY: &str = "listening on";

/// The name that the client knows all agents by.
const ALIAS: &str = "agent";

/// Makes a volume that holds the agent, as an init container does: the agent copies itself.
#[track_caller]
pub(crate) fn installed(docker: &Docker) -> Volume<'_> {
    let volume = docker.volume();
    let init = docker
        // The agent has to do without anything of an image.
        .container(&super::images::shell_less(docker))
        .option("--user=0")
        .option(&format!("--entrypoint={BROUGHT}"))
        .mount(tools::static_agent(), &format!("{BROUGHT}:ro"))
        .mount(volume.name(), PLACE)
        .command(&["install", PLACE])
        .start();
    assert_eq!(init.wait(), 0, "{}", init.logs());
    volume
}

/// The keys of one launch.
pub(crate) struct Launch {
    directory: tempfile::TempDir,
    seed: [u8; 32],
}

/// What an agent says of itself, and its answers to what it was told.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// By name.
    pub(crate) lines: BTreeMap<String, String>,
    /// In the order of the questions.
    pub(crate) answers: Vec<String>,
}

impl Greeting {
    /// Returns the value of that name.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> &str {
        self.lines
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

impl Launch {
    /// Draws the keys.
    pub(crate) fn new() -> Self {
        let directory = super::temp_dir();
        ssh::generate_key(&directory.path().join("login"));
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).expect("random bytes");
        let launch = Self { directory, seed };
        launch.trust(&launch.host_key());
        launch
    }

    /// Has the client take this key, and no other, for the agent's.
    pub(crate) fn trust(&self, key: &str) {
        std::fs::write(self.known_hosts(), format!("{ALIAS} {key}\n")).expect("own directory");
    }

    fn known_hosts(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    /// Returns the one-use host key as a line of `known_hosts` has it.
    pub(crate) fn host_key(&self) -> String {
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed).expect("32 bytes");
        let mut blob = Vec::new();
        for part in [b"ssh-ed25519".as_slice(), pair.public_key().as_ref()] {
            let length = u32::try_from(part.len()).expect("a short name");
            blob.extend(length.to_be_bytes());
            blob.extend(part);
        }
        format!("ssh-ed25519 {}", Base64::encode_string(&blob))
    }

    /// Returns the value of [`VARIABLE`], with more words.
    pub(crate) fn words(&self, more: &str) -> String {
        let path = self.directory.path().join("login.pub");
        let line = std::fs::read_to_string(path).expect("own file");
        let login = line.split(' ').nth(1).expect("a public key");
        let seed = Base64::encode_string(&self.seed);
        format!("host-key={seed} login={login} {more}")
            .trim_end()
            .to_owned()
    }

    /// Returns the container of a job, whose command is the agent of that volume.
    pub(crate) fn container<'a>(
        &self,
        docker: &'a Docker,
        image: &str,
        agent: &Volume<'_>,
    ) -> ContainerBuilder<'a> {
        docker
            .container(image)
            .mount(agent.name(), PLACE)
            .env(VARIABLE, &self.words(&format!("listen={LISTENS}")))
            .command(&[AGENT])
    }

    /// Returns OpenSSH to the agent in a container, without what is to be run there.
    pub(crate) fn ssh(&self, container: &Container<'_>) -> Command {
        let dial = container.exec(&[], &[AGENT, "dial", LISTENS]);
        let words = std::iter::once(dial.get_program()).chain(dial.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let mut ssh = self.client(&words.join(" "));
        for (name, value) in dial.get_envs() {
            match value {
                Some(value) => ssh.env(name, value),
                None => ssh.env_remove(name),
            };
        }
        ssh
    }

    /// Returns OpenSSH to an agent whose socket is a file of this host.
    pub(crate) fn ssh_to_socket(&self, socket: &Path) -> Command {
        let agent = tools::static_agent().display();
        self.client(&format!("{agent} dial {}", socket.display()))
    }

    fn client(&self, proxy: &str) -> Command {
        let mut ssh = Command::new(tools::program("ssh"));
        ssh.args(["-F", "none", "-T", "-i"])
            .arg(self.directory.path().join("login"));
        let known_hosts = self.known_hosts();
        for option in [
            &format!("ProxyCommand={proxy}"),
            &format!("HostKeyAlias={ALIAS}"),
            &format!("UserKnownHostsFile={}", known_hosts.display()),
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            "KexAlgorithms=curve25519-sha256",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.stdin(Stdio::null());
        ssh
    }

    /// Runs a command in a container and returns what came of it.
    pub(crate) fn output(&self, container: &Container<'_>, command: &str) -> Output {
        let mut ssh = self.ssh(container);
        ssh.args(["job@agent", "--", command]);
        ssh.output().expect("ssh starts")
    }

    /// Asks the agent in a container to say what it is, and then tells it more.
    ///
    /// # Errors
    ///
    /// With what the client said, where there is no greeting.
    pub(crate) fn greet(
        &self,
        container: &Container<'_>,
        orders: &[&str],
    ) -> Result<Greeting, String> {
        greet(self.ssh(container), orders)
    }

    /// Waits until the agent in a container listens, and asks it to say what it is.
    #[track_caller]
    pub(crate) fn greeting(&self, container: &Container<'_>) -> Greeting {
        if let Err(logs) = container.wait_logs(READY) {
            panic!("no agent listens: {logs}");
        }
        let greeting = self.greet(container, &[]);
        greeting.unwrap_or_else(|said| panic!("{said}\n{}", container.logs()))
    }
}

/// Speaks the greeting over a client.
pub(crate) fn greet(mut client: Command, orders: &[&str]) -> Result<Greeting, String> {
    client
        .args(["-s", "job@agent", "gad-greeting"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = client.spawn().expect("ssh starts");
    let mut input = running.stdin.take().expect("a pipe");
    let mut text = format!("hello {}\n", env!("CARGO_PKG_VERSION"));
    for order in orders {
        text += &format!("{order}\n");
    }
    // Where the client has ended, what it said is worth more.
    drop(input.write_all(text.as_bytes()));
    drop(input);
    let done = running.wait_with_output().expect("own child");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let Some((lines, answers)) = said.split_once("\n\n") else {
        let complaint = String::from_utf8_lossy(&done.stderr);
        return Err(format!("no greeting: {said:?} {complaint:?}"));
    };
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(Greeting {
        lines: lines.lines().map(pair).collect(),
        answers: answers.lines().map(str::to_owned).collect(),
    })
}
