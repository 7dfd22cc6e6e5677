//! A docker engine of this host: Debian's `dockerd` with everything of it in a folder of its own, for what podman plays too kindly.
//!
//! It takes a second to start, so all tests of one process share one: its images are named by [`super::images`] or by a test's own
//! name, and containers and volumes get names that nobody else has. Ports are not shared either, since each container has
//! a network namespace of its own unless a test asks for this host's.
//!
//! It ends with the process of the tests, however that ends: a guard (`docker/guard.sh`) waits for that, and takes
//! away containers, mounts, cgroups and the folder. What is left where the guard was killed too, the next engine clears.
//!
//! docker lets every user bind the ports below 1024 in a container, and ECS does not, so [`Container`]s get the limit of ECS. In the
//! network of this host the limit is this host's, which is the same unless somebody changed it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::fs::FlockOperation;
use rustix::fs::flock;
use rustix::process::Pid;
use rustix::process::Signal;

use super::PATIENCE;
use super::tools;
use super::tree::Tree;

/// What an engine's folder is called on this host, up to a part of its own.
const FOLDERS: &str = "gad-docker-";

/// The file in it that is locked for as long as its guard lives.
const OWNER: &str = "owner";

/// What sees to an engine's end.
const GUARD: &str = include_str!("docker/guard.sh");

/// ECS leaves the kernel's limit as it is; docker takes it away.
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start=1024";

/// A docker engine.
pub(crate) struct Docker {
    folder: PathBuf,
    images: Mutex<HashSet<String>>,
    names: AtomicU64,
    /// The guard waits for the end of its standard input, and so for this process's.
    _guard: Child,
    _life: ChildStdin,
}

impl Docker {
    /// Returns the engine of this process, which the first caller starts.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Docker> = LazyLock::new(Docker::start);
        &SHARED
    }

    /// Starts an engine.
    pub(crate) fn start() -> Self {
        tools::need_root();
        clear_ownerless();
        let folder = tempfile::Builder::new()
            .prefix(FOLDERS)
            .tempdir()
            .expect("a temporary directory")
            // Its guard takes it away.
            .keep();
        let at = |name: &str| folder.join(name);
        // This host's own settings and its user's logins have no part in it.
        std::fs::write(at("daemon.json"), "{}").expect("a writable directory");
        std::fs::create_dir(at("client")).expect("a writable directory");
        let ready = UnixDatagram::bind(at("ready")).expect("a new socket");
        ready
            .set_read_timeout(Some(PATIENCE))
            .expect("a limit above zero");
        let mut guard = Command::new(tools::program("setsid"))
            .args(["sh", "-c", GUARD, "guard", "run"])
            .arg(&folder)
            .arg(tools::program("dockerd"))
            .env("NOTIFY_SOCKET", at("ready"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let life = guard.stdin.take().expect("a pipe");
        let mut said = [0; 64];
        let heard = ready.recv(&mut said).map(|length| &said[..length]);
        assert!(
            heard
                .as_ref()
                .is_ok_and(|word| word.starts_with(b"READY=1")),
            "dockerd did not start ({heard:?}):\n{}",
            std::fs::read_to_string(at("log")).unwrap_or_default()
        );
        Self {
            folder,
            images: Mutex::default(),
            names: AtomicU64::new(0),
            _guard: guard,
            _life: life,
        }
    }

    /// Returns what `DOCKER_HOST` has to be for a client of it.
    pub(crate) fn host(&self) -> String {
        host(&self.folder)
    }

    /// Returns the folder that all of it is in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns a client of this engine: `docker`, without arguments.
    pub(crate) fn client(&self) -> Command {
        self.reached_by(Command::new(tools::program("docker")))
    }

    /// Returns a client that is ended after a while, and writes all that it has to say to standard output.
    fn patient_client(&self, args: &[&str]) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec timeout \"$0\" \"$@\" 2>&1"])
            .arg(PATIENCE.as_secs().to_string())
            .arg(tools::program("docker"))
            .args(args);
        self.reached_by(shell)
    }

    fn reached_by(&self, mut client: Command) -> Command {
        client
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.folder.join("client"))
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null());
        client
    }

    /// Runs a command of docker's and returns what came of it.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.client().args(args).output().expect("docker starts")
    }

    /// Runs a command of docker's, which must succeed; returns what it printed, without the last line's end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let done = self.output(args);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "docker {args:?}: {said}");
        String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
    }

    /// Makes an image, unless there is one of that name already; returns the name.
    pub(crate) fn image(&self, name: &str, tree: &Tree) -> String {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if !images.contains(name) {
            let archive = self.folder.join("image.tar");
            tree.archive(&archive);
            let mut args = vec!["import"];
            for line in tree.lines() {
                args.extend(["-c", line]);
            }
            args.extend([archive.to_str().expect("a path of the lab"), name]);
            self.run(&args);
            std::fs::remove_file(&archive).expect("own file");
            images.insert(name.to_owned());
        }
        name.to_owned()
    }

    /// Makes an empty volume.
    pub(crate) fn volume(&self) -> Volume<'_> {
        let name = self.name("volume");
        self.run(&["volume", "create", &name]);
        Volume { docker: self, name }
    }

    /// Describes a container of an image; without network, unless told otherwise.
    pub(crate) fn container(&self, image: &str) -> ContainerBuilder<'_> {
        ContainerBuilder {
            docker: self,
            image: image.to_owned(),
            network: "none".to_owned(),
            options: Vec::new(),
            command: Vec::new(),
        }
    }

    /// Returns a name that nothing else of this engine has.
    fn name(&self, kind: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{number}")
    }

    /// Leaves everything as a process of tests does that is killed together with its guard; returns the folder.
    pub(crate) fn abandon(self) -> PathBuf {
        for process in super::processes::of(&self.folder) {
            process.kill();
        }
        // Until then the guard has its lock.
        super::processes::wait_none(&self.folder, PATIENCE);
        self.folder
    }
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}

/// Ends what engines have left whose guard is no more.
pub(crate) fn clear_ownerless() {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let all = std::fs::read_dir(std::env::temp_dir()).expect("a temporary directory");
    for entry in all.flatten() {
        let folder = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(FOLDERS);
        let Some(owner) = ours.then(|| File::open(folder.join(OWNER)).ok()).flatten() else {
            continue;
        };
        if flock(&owner, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Not the copy in the folder, which goes.
            let mut clear = Command::new("sh");
            clear.args(["-c", GUARD, "guard", "clear"]).arg(&folder);
            drop(clear.stdin(Stdio::null()).output());
        }
    }
}

/// A volume, gone when it is dropped; what it is mounted in has to be gone before.
pub(crate) struct Volume<'a> {
    docker: &'a Docker,
    name: String,
}

impl Volume<'_> {
    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns where this host has it.
    pub(crate) fn path(&self) -> PathBuf {
        let format = "{{.Mountpoint}}";
        PathBuf::from(
            self.docker
                .run(&["volume", "inspect", "-f", format, &self.name]),
        )
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        drop(self.docker.output(&["volume", "rm", "-f", &self.name]));
    }
}

/// What a container shall be like.
#[derive(Clone)]
pub(crate) struct ContainerBuilder<'a> {
    docker: &'a Docker,
    image: String,
    network: String,
    options: Vec<String>,
    command: Vec<String>,
}

impl<'a> ContainerBuilder<'a> {
    /// Gives it another network than none: `host`, or `container:NAME`.
    #[must_use]
    pub(crate) fn network(mut self, network: &str) -> Self {
        network.clone_into(&mut self.network);
        self
    }

    /// Adds an option of `docker run`.
    #[must_use]
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Gives it a variable.
    #[must_use]
    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        self.option("--env").option(&format!("{name}={value}"))
    }

    /// Mounts a volume, or a directory of this host, there.
    #[must_use]
    pub(crate) fn mount(self, what: impl AsRef<Path>, at: &str) -> Self {
        let what = what.as_ref().display();
        self.option("--volume").option(&format!("{what}:{at}"))
    }

    /// Runs this, in place of what the image says.
    #[must_use]
    pub(crate) fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn start(&self) -> Container<'a> {
        self.try_start().unwrap_or_else(|said| panic!("{said}"))
    }

    /// Starts it, or returns what docker said.
    pub(crate) fn try_start(&self) -> Result<Container<'a>, String> {
        let name = self.docker.name("container");
        let mut client = self.docker.client();
        client.args([
            "run",
            "--detach",
            "--name",
            &name,
            "--network",
            &self.network,
        ]);
        // Of a namespace that is another's, docker refuses to set anything.
        if self.network == "none" {
            client.args(["--sysctl", UNPRIVILEGED_PORTS]);
        }
        client
            .args(&self.options)
            .arg(&self.image)
            .args(&self.command);
        let done = client.output().expect("docker starts");
        // Where it could not be started, it is there all the same.
        let container = Container {
            docker: self.docker,
            name,
        };
        if done.status.success() {
            Ok(container)
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }
}

/// A container that was started, gone when it is dropped.
pub(crate) struct Container<'a> {
    docker: &'a Docker,
    name: String,
}

impl Container<'_> {
    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns one thing that docker knows of it, as a template says.
    #[track_caller]
    pub(crate) fn inspect(&self, template: &str) -> String {
        self.docker
            .run(&["inspect", "--format", template, &self.name])
    }

    /// Returns this host's id of its first process, or 0 if it has ended.
    pub(crate) fn pid(&self) -> u32 {
        let pid = self.inspect("{{.State.Pid}}");
        pid.parse().expect("docker's number")
    }

    /// Returns a client that runs a command in it, whose standard input is open.
    pub(crate) fn exec(&self, options: &[&str], command: &[&str]) -> Command {
        let mut client = self.docker.client();
        client.args(["exec", "--interactive"]).args(options);
        client.arg(&self.name).args(command);
        client
    }

    /// Sends its first process a signal.
    pub(crate) fn signal(&self, signal: &str) {
        drop(
            self.docker
                .output(&["kill", "--signal", signal, &self.name]),
        );
    }

    /// Waits for its end, and returns the exit code of its first process.
    #[track_caller]
    pub(crate) fn wait(&self) -> i32 {
        let done = self.docker.patient_client(&["wait", &self.name]).output();
        let done = done.expect("a shell");
        let code = String::from_utf8_lossy(&done.stdout).trim().parse();
        code.unwrap_or_else(|_| panic!("{} does not end:\n{}", self.name, self.logs()))
    }

    /// Waits until it has written that; returns all that it wrote, where it ended without.
    pub(crate) fn wait_logs(&self, wanted: &str) -> Result<(), String> {
        let mut follower = self
            .docker
            .patient_client(&["logs", "--follow", &self.name])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut output = follower.stdout.take().expect("a pipe");
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        let found = loop {
            if memchr::memmem::find(&seen, wanted.as_bytes()).is_some() {
                break true;
            }
            match output.read(&mut piece).expect("own pipe") {
                0 => break false,
                length => seen.extend(&piece[..length]),
            }
        };
        // Not KILL: it ends its own child too.
        let follower_id = Pid::from_child(&follower);
        let _gone = rustix::process::kill_process(follower_id, Signal::TERM);
        follower.wait().expect("own child");
        if found {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&seen).into_owned())
        }
    }

    /// Returns what it has written so far, both outputs.
    pub(crate) fn logs(&self) -> String {
        let done = self.docker.output(&["logs", &self.name]);
        let mut text = String::new();
        for stream in [done.stdout, done.stderr] {
            write!(text, "{}", String::from_utf8_lossy(&stream)).expect("a string");
        }
        text
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // With the volumes that the image asked for.
        drop(
            self.docker
                .output(&["rm", "--force", "--volumes", &self.name]),
        );
    }
}
