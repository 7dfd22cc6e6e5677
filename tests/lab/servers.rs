//! Job machines: real SSH servers, each with an account, a login shell and a home of its own.
//!
//! A server is an *entrypoint*, a generated shell script of the kind that job images have: it takes the
//! public key from `SSH_PUBLIC_KEY` and serves SSH in the foreground. The driver starts it as
//! `[local] command`; tests of the lab start it by [`Server::start`]. It runs in a private mount
//! namespace in which `root` has the wanted shell and a home in the test's directory; the home of this
//! host's root, and what its start-up files do, is never seen.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use super::PATIENCE;
use super::port;
use super::port::Port;
use super::processes;
use super::ssh;
use super::stage::Call;
use super::stage::Stage;
use super::tools;

mod files;

/// The PATH of a login on an ordinary machine.
const ORDINARY_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which SSH server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// OpenSSH's sshd.
    OpenSsh,
    /// dropbear.
    Dropbear,
    /// The project's own.
    Own,
}

/// Which login shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// bash.
    Bash,
    /// dash.
    Dash,
    /// busybox `sh`.
    Busybox,
}

/// All servers and shells, for tests that go through them.
pub(crate) const ALL: [(Kind, Login); 9] = [
    (Kind::OpenSsh, Login::Bash),
    (Kind::OpenSsh, Login::Dash),
    (Kind::OpenSsh, Login::Busybox),
    (Kind::Dropbear, Login::Bash),
    (Kind::Dropbear, Login::Dash),
    (Kind::Dropbear, Login::Busybox),
    (Kind::Own, Login::Bash),
    (Kind::Own, Login::Dash),
    (Kind::Own, Login::Busybox),
];

/// Returns the servers of a kind, with each shell.
pub(crate) fn of(kind: Kind) -> impl Iterator<Item = (Kind, Login)> {
    ALL.into_iter().filter(move |(known, _)| *known == kind)
}

/// What a machine shall be like.
#[derive(Clone, Debug)]
pub(crate) struct ServerBuilder {
    kind: Kind,
    login: Login,
    user: Option<String>,
    noise: Option<String>,
    listen_late: Option<Duration>,
    authorise_late: Option<Duration>,
    busybox_only: bool,
    shells_elsewhere: bool,
    small_disk: Option<u32>,
    init: bool,
    instance_connect: bool,
    own_var_tmp: bool,
    path_first: Vec<PathBuf>,
    first: String,
    options: Vec<String>,
    host_key: (&'static str, u32),
    password: &'static str,
    start_up: Option<String>,
    nologin: Option<(Nologin, &'static str)>,
}

/// Who reads the file that keeps all but root out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nologin {
    /// OpenSSH itself, after the login: `/etc/nologin`.
    Server,
    /// PAM, before it; the machine's own file, [`Server::nologin`].
    Pam,
}

impl ServerBuilder {
    /// Returns an ordinary machine with that server and login shell.
    pub(crate) fn new(kind: Kind, login: Login) -> Self {
        Self {
            kind,
            login,
            user: None,
            noise: None,
            listen_late: None,
            authorise_late: None,
            busybox_only: false,
            shells_elsewhere: false,
            small_disk: None,
            init: false,
            instance_connect: false,
            own_var_tmp: false,
            path_first: Vec::new(),
            first: String::new(),
            options: Vec::new(),
            host_key: ("ed25519", 256),
            password: "*",
            start_up: None,
            nologin: None,
        }
    }

    /// Gives the server a host key of that kind, with so many bits; OpenSSH and dropbear only.
    #[must_use]
    pub(crate) fn host_key(mut self, kind: &'static str, bits: u32) -> Self {
        self.host_key = (kind, bits);
        self
    }

    /// Has the account's password field in `/etc/shadow` hold this.
    #[must_use]
    pub(crate) fn password(mut self, field: &'static str) -> Self {
        self.password = field;
        self
    }

    /// Has the login shell run these lines first: by bash's `.bashrc` (not with the project's own server).
    #[must_use]
    pub(crate) fn start_up(mut self, lines: &str) -> Self {
        self.start_up = Some(lines.to_owned());
        self
    }

    /// Keeps all but root out, with these words; OpenSSH only.
    #[must_use]
    pub(crate) fn nologin(mut self, reader: Nologin, words: &'static str) -> Self {
        self.nologin = Some((reader, words));
        self
    }

    /// Lets in an ordinary user of that name instead of `root`; OpenSSH and dropbear only.
    #[must_use]
    pub(crate) fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    /// Has the login shell's start-up write this to standard output and standard error: by bash's
    /// `.bashrc`, or by a wrapper around a shell that reads no file then.
    #[must_use]
    pub(crate) fn noise(mut self, text: &str) -> Self {
        self.noise = Some(text.to_owned());
        self
    }

    /// Listens only after a while.
    #[must_use]
    pub(crate) fn listen_late(mut self, by: Duration) -> Self {
        self.listen_late = Some(by);
        self
    }

    /// Listens at once but accepts the key only after a while.
    #[must_use]
    pub(crate) fn authorise_late(mut self, by: Duration) -> Self {
        self.authorise_late = Some(by);
        self
    }

    /// Leaves nothing on the login's PATH but busybox's applets and bash, as in small images.
    #[must_use]
    pub(crate) fn busybox_only(mut self) -> Self {
        self.busybox_only = true;
        self
    }

    /// Whether that was asked for.
    pub(crate) fn is_busybox_only(&self) -> bool {
        self.busybox_only
    }

    /// Takes bash and `sh` away from where images usually have them; OpenSSH with busybox only, which comes with the login's
    /// PATH.
    #[must_use]
    pub(crate) fn shells_elsewhere(mut self) -> Self {
        self.shells_elsewhere = true;
        self.busybox_only()
    }

    /// Gives the machine's `/var/tmp`, `/tmp` and the login's home together so many MiB, on a disk of their own.
    #[must_use]
    pub(crate) fn small_disk(mut self, megabytes: u32) -> Self {
        self.small_disk = Some(megabytes);
        self
    }

    /// Makes a little init the machine's first process, where otherwise that is the server itself.
    #[must_use]
    pub(crate) fn init(mut self) -> Self {
        self.init = true;
        self
    }

    /// Has the machine's sshd ask the instance's metadata service for keys, as the package ec2-instance-connect does;
    /// OpenSSH only.
    #[must_use]
    pub(crate) fn instance_connect(mut self) -> Self {
        self.instance_connect = true;
        self
    }

    /// Gives the machine a `/var/tmp` that is not this host's, as a task's machine has one that goes with it.
    #[must_use]
    pub(crate) fn own_var_tmp(mut self) -> Self {
        self.own_var_tmp = true;
        self
    }

    /// Puts a directory at the front of the login's PATH.
    #[must_use]
    pub(crate) fn path_first(mut self, directory: &Path) -> Self {
        self.path_first.push(directory.to_owned());
        self
    }

    /// Has the machine's first process run a command of a shell before it is one, in its own mount namespace.
    #[must_use]
    pub(crate) fn first(mut self, command: &str) -> Self {
        self.first += &format!("{command}\n");
        self
    }

    /// Puts a line before the others of `sshd_config`, so that it counts, or adds an argument to the other servers' command
    /// lines.
    #[must_use]
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Prepares the machine in a directory of its own below the given one; starts nothing.
    pub(crate) fn build(self, parent: &Path) -> Server {
        tools::need_root();
        assert!(
            self.kind != Kind::Own || self.authorise_late.is_none(),
            "the project's own server knows its key from its start on"
        );
        assert!(
            self.kind != Kind::Own || self.user.is_none(),
            "the project's own server is its user's"
        );
        assert!(
            self.kind == Kind::OpenSsh || !self.instance_connect,
            "only OpenSSH asks others for keys"
        );
        assert!(
            !self.shells_elsewhere || (self.kind, self.login) == (Kind::OpenSsh, Login::Busybox),
            "only busybox is still a shell"
        );
        assert!(
            self.kind != Kind::Own || self.host_key.0 == "ed25519",
            "the project's own server has ed25519 alone"
        );
        assert!(
            self.kind == Kind::OpenSsh || self.nologin.is_none(),
            "only OpenSSH reads it"
        );
        let port = Port::reserve();
        let directory = parent.join(format!("machine-{}", port.number()));
        let home = directory.join("home");
        std::fs::create_dir_all(home.join(".ssh")).expect("a writable directory");
        let server = Server {
            builder: self,
            port,
            directory,
            home,
        };
        if server.builder.user.is_some() {
            server.open_to_all(parent);
        }
        server.write_accounts();
        server.write_entrypoint();
        server.new_host_key();
        server
    }
}

/// A prepared machine.
#[derive(Debug)]
pub(crate) struct Server {
    builder: ServerBuilder,
    port: Port,
    directory: PathBuf,
    home: PathBuf,
}

impl Server {
    /// Returns the program that is the machine: what `[local] command` shall be, and what an image would start
    /// (with the addresses to serve at as arguments; without any, 127.0.0.1).
    pub(crate) fn command(&self) -> Vec<String> {
        vec![self.directory.join("entrypoint").display().to_string()]
    }

    /// Returns whom the server lets in.
    pub(crate) fn user(&self) -> &str {
        self.builder.user.as_deref().unwrap_or("root")
    }

    /// Returns the number of an ordinary user who is let in: no other machine's, so that its processes are counted alone.
    fn uid(&self) -> u32 {
        100_000 + u32::from(self.port.number())
    }

    /// Returns the port that the server serves on.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Returns the home directory of the account.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Returns where the machine's own `/var/tmp` is seen on this host, where it has one.
    pub(crate) fn var_tmp(&self) -> Option<PathBuf> {
        let path = self.directory.join("var-tmp");
        self.builder.own_var_tmp.then_some(path)
    }

    /// Takes an applet from a machine that has nothing but busybox. Where busybox' shell would find it in itself, dash is its
    /// shell from now on.
    pub(crate) fn remove_applet(&self, name: &str) {
        let folder = self.directory.join("busybox");
        std::fs::remove_file(folder.join(name)).expect("an applet");
        if tools::busybox_needs_no_path() {
            for shell in [folder.join("sh"), self.directory.join("shell/sh")] {
                drop(std::fs::remove_file(&shell));
                symlink(tools::program("dash"), shell).expect("a writable directory");
            }
        }
    }

    /// Returns the file by which PAM keeps all but root out.
    pub(crate) fn nologin(&self) -> PathBuf {
        self.directory.join("nologin")
    }

    /// Returns the server's log file.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Returns what the server has logged.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns how many logins succeeded; OpenSSH and dropbear only.
    pub(crate) fn logins(&self) -> usize {
        assert_ne!(self.builder.kind, Kind::Own, "only real servers log logins");
        self.log().lines().filter(|line| is_login(line)).count()
    }

    /// Waits until it listens, by its log; OpenSSH and dropbear only.
    pub(crate) fn wait_listening(&self) {
        let word = match self.builder.kind {
            Kind::OpenSsh => "listening",
            Kind::Dropbear => "Not backgrounding",
            Kind::Own => panic!("only real servers log it"),
        };
        self.wait_log(word, 1, PATIENCE);
    }

    /// Waits until so many log lines hold the text.
    ///
    /// # Panics
    ///
    /// With the log when the deadline passes.
    pub(crate) fn wait_log(&self, text: &str, count: usize, within: Duration) {
        let deadline = Instant::now() + within;
        while self.log().matches(text).count() < count {
            assert!(
                Instant::now() < deadline,
                "the server has not logged {text:?} {count} times within {within:?}:\n{}",
                self.log()
            );
            // Another process' line in a file is no event that could be waited for.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the public key line that the machine has authorised: the running job's.
    pub(crate) fn authorised_key(&self) -> String {
        let path = self.home.join(".ssh/authorized_keys");
        let text = std::fs::read_to_string(path).expect("the server was started with a key");
        text.trim_end().to_owned()
    }

    /// Gives the machine another host key; it counts from its next start on.
    pub(crate) fn new_host_key(&self) {
        let path = self.directory.join("host_key");
        let (kind, bits) = self.builder.host_key;
        if self.builder.kind == Kind::Dropbear {
            drop(std::fs::remove_file(&path));
            let done = Command::new(tools::program("dropbearkey"))
                .args(["-t", kind, "-s", &bits.to_string(), "-f"])
                .arg(&path)
                .output()
                .expect("dropbearkey starts");
            assert!(done.status.success(), "dropbearkey: {done:?}");
        } else {
            ssh::generate(&path, kind, bits);
        }
    }

    /// Starts the machine as the driver would, for a key, and waits until it listens.
    pub(crate) fn start(&self, public_key: &str) -> Running {
        self.start_at(&[], public_key)
    }

    /// As [`Self::start`], at these addresses.
    pub(crate) fn start_at(&self, addresses: &[String], public_key: &str) -> Running {
        let stage = Call {
            name: format!("{:?}", self.builder.kind),
            program: self.directory.join("entrypoint"),
            args: addresses.iter().map(Into::into).collect(),
            env: BTreeMap::from([
                ("SSH_PUBLIC_KEY".into(), public_key.into()),
                ("PATH".into(), ORDINARY_PATH.into()),
            ]),
            directory: self.directory.clone(),
            ..Call::default()
        }
        .spawn();
        let running = Running {
            stage,
            directory: self.directory.clone(),
        };
        port::wait_listening(
            self.port(),
            true,
            PATIENCE + self.builder.listen_late.unwrap_or_default(),
        );
        running
    }
}

/// A machine that the lab itself started; ended when dropped.
pub(crate) struct Running {
    stage: Stage,
    directory: PathBuf,
}

impl Running {
    /// Ends the machine with all that it started, as if its power went.
    pub(crate) fn end(&self) {
        self.stage.signal(Signal::KILL);
        for process in processes::of(&self.directory) {
            process.kill();
        }
        processes::wait_none(&self.directory, PATIENCE);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells whether a line of a server's log reports a login that succeeded.
pub(crate) fn is_login(line: &str) -> bool {
    line.contains("Accepted publickey for") || line.contains("Pubkey auth succeeded for")
}
