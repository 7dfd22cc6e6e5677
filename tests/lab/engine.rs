//! A container engine of a test's own: podman under the name of `docker`, which a job machine finds first on its PATH,
//! with images made here and, where a test asks for one, a registry to pull from.
//!
//! Storage, networks and addresses are the test's own; all containers are below the machine that started them and end
//! with it. What the shim translates is where podman differs: the place of credentials, and how a network is made.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use super::PATIENCE;
use super::port;
use super::port::Port;
use super::stage::Call;
use super::stage::Stage;
use super::tools;
use super::write_program;

/// What works in a container that may do everything but has no systemd.
const CONTAINERS_CONF: &str = "\
[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=4000:4000\"]
[engine]
cgroup_manager = \"cgroupfs\"
runtime = \"runc\"
events_logger = \"file\"
";

/// The applets that the driver's far side and ordinary scripts need.
const APPLETS: [&str; 35] = [
    "sh", "cat", "dd", "echo", "env", "expr", "false", "grep", "head", "httpd", "id", "kill", "ls",
    "mkdir", "mkfifo", "mv", "nc", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "seq",
    "setsid", "sleep", "sort", "stat", "tail", "test", "touch", "true", "uniq", "wc", "wget",
];

/// Users of the test registry, one of them ECR's, and the password's bcrypt hash.
const HTPASSWD: &str = "lab:$2b$05$J0IfI5LBSBxqvUsqvFBlLOFidVdE/KHZSny.uLtIzThGQPn9DCQfC\nAWS:$2b$05$J0IfI5LBSBxqvUsqvFBlLOFidVdE/KHZSny.uLtIzThGQPn9DCQfC\n";

/// An engine with its images. Its networks go when it is dropped.
pub(crate) struct Engine {
    folder: tempfile::TempDir,
    bridge: String,
    subnet: String,
    /// Two of podman's networks with name servers get in each other's way on one host.
    lock: Option<std::fs::File>,
    /// Its number is nobody else's on this host, and so is the network's that is made of it.
    _number: Port,
}

/// What an image is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    programs: Vec<PathBuf>,
    applets: bool,
    files: Vec<(String, String)>,
    changes: Vec<String>,
}

impl Tree {
    /// An image with busybox and nothing else.
    pub(crate) fn small() -> Self {
        Self {
            applets: true,
            programs: vec![tools::program("busybox")],
            ..Self::default()
        }
    }

    /// The same with bash.
    pub(crate) fn with_bash() -> Self {
        Self::small().program("bash")
    }

    /// An image with no shell at all, but a program that goes on for ever.
    pub(crate) fn without_shell() -> Self {
        Self::default().program("sleep")
    }

    /// Adds a program of this host and its libraries.
    #[must_use]
    pub(crate) fn program(mut self, name: &str) -> Self {
        self.programs.push(tools::program(name));
        self
    }

    /// Adds an executable file.
    #[must_use]
    pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Adds a line as of a Dockerfile: `ENV`, `ENTRYPOINT`, `EXPOSE`, `USER`.
    #[must_use]
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.changes.push(line.to_owned());
        self
    }

    fn build(&self, root: &Path) {
        for folder in ["bin", "tmp", "var/tmp", "root", "etc"] {
            std::fs::create_dir_all(root.join(folder)).expect("a writable directory");
        }
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1001:1001::/tmp:/bin/sh\n",
        )
        .expect("a writable directory");
        for program in &self.programs {
            copy(
                program,
                &root
                    .join("bin")
                    .join(program.file_name().expect("a program")),
            );
            let told = Command::new("ldd")
                .arg(program)
                .output()
                .expect("ldd starts");
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            for library in told.split_whitespace().filter(|word| word.starts_with('/')) {
                let to = root.join(library.trim_start_matches('/'));
                std::fs::create_dir_all(to.parent().expect("below a root"))
                    .expect("a writable directory");
                copy(Path::new(library), &to);
            }
        }
        if self.applets {
            for applet in APPLETS {
                std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))
                    .expect("a new name");
            }
        }
        for (path, text) in &self.files {
            let path = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().expect("below a root"))
                .expect("a writable directory");
            write_program(&path, text);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("a file of this host");
}

impl Engine {
    /// Makes an engine without any image.
    pub(crate) fn new() -> Self {
        tools::need_root();
        let folder = tempfile::Builder::new()
            .prefix("gad-eng-")
            .tempdir()
            .expect("a temporary directory");
        let port = Port::reserve();
        let number = port.number();
        let engine = Self {
            folder,
            bridge: format!("gad{number}"),
            subnet: format!(
                "10.{}.{}.0/24",
                // The lower half has podman's own default network, 10.88.0.0/16.
                128 | (number / 256),
                number % 256
            ),
            lock: None,
            _number: port,
        };
        let root = engine.root();
        std::fs::write(root.join("containers.conf"), CONTAINERS_CONF)
            .expect("a writable directory");
        for empty in ["registries.conf", "logins", "docker.sock"] {
            std::fs::write(root.join(empty), "").expect("a writable directory");
        }
        std::fs::create_dir(root.join("bin")).expect("a writable directory");
        let mut shim = String::from("#!/bin/sh\n");
        write!(
            shim,
            "r={root}\n\
             export CONTAINERS_CONF=$r/containers.conf CONTAINERS_REGISTRIES_CONF=$r/registries.conf\n\
             [ \"$1\" != --config ] || {{ export REGISTRY_AUTH_FILE=\"$2/config.json\"; shift 2; }}\n\
             if [ -e $r/fails ]; then cat $r/fails >&2; exit 1; fi\n\
             echo \"$*\" >>$r/calls\n\
             c=$1\n\
             [ \"$1\" != network ] || c=\"$1 $2\"\n\
             case $c in\n\
             version) echo 20.10.0; exit ;;\n\
             login) t=$(sed -n \"s|^$5 ||p\" $r/logins); set -- \"$1\" \"$2\" \"$3\" \"$4\" \"${{t:-$5}}\" ;;\n\
             run)\n\
             shift\n\
             for w; do\n\
             case $w in /var/run/docker.sock:*) w=$r/docker.sock:${{w#*:}} ;; esac\n\
             set -- \"$@\" \"$w\"\n\
             shift\n\
             done\n\
             case \" $* \" in *\" --network \"*) ;; *) set -- --network none \"$@\" ;; esac\n\
             set -- run --pids-limit 0 \"$@\" ;;\n\
             'network create')\n\
             $0 network make --subnet {subnet} \"$3\" || exit 1\n\
             sed -i 's/\"network_interface\": *\"[^\"]*\"/\"network_interface\": \"{bridge}\"/' \"$r/n/$3.json\"\n\
             exit ;;\n\
             'network make') shift 2; set -- network create \"$@\" ;;\n\
             esac\n\
             exec {podman} --log-level=error --root $r/s --runroot $r/r --network-config-dir $r/n --tmpdir $r/t \"$@\"\n",
            root = root.display(),
            bridge = engine.bridge,
            subnet = engine.subnet,
            podman = tools::program("podman").display(),
        )
        .expect("a string");
        write_program(&root.join("bin/docker"), &shim);
        engine
    }

    /// Makes an engine whose containers may talk to each other; one at a time has that on this host.
    pub(crate) fn with_network() -> Self {
        let path = std::env::temp_dir().join("gitlab-aws-driver-test-engine");
        let lock = std::fs::File::create(path).expect("a lock file");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
        let mut engine = Self::new();
        engine.lock = Some(lock);
        engine
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the directory that holds `docker`.
    pub(crate) fn path(&self) -> PathBuf {
        self.root().join("bin")
    }

    /// Has every command of docker's fail with these words.
    pub(crate) fn fail_with(&self, words: &str) {
        std::fs::write(self.root().join("fails"), words).expect("a writable directory");
    }

    /// Returns the commands so far, a line each, but for those that fill a registry.
    pub(crate) fn calls(&self) -> String {
        let all = std::fs::read_to_string(self.root().join("calls")).unwrap_or_default();
        let kept = all.lines().filter(|line| !line.starts_with("push "));
        kept.flat_map(|line| [line, "\n"]).collect()
    }

    /// Makes an image.
    pub(crate) fn image(&self, name: &str, tree: &Tree) {
        let folder = super::temp_dir();
        tree.build(folder.path());
        let archive = self.root().join("image.tar");
        let done = Command::new("tar")
            .arg("-C")
            .arg(folder.path())
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .status();
        assert!(done.expect("tar starts").success());
        let mut args = vec!["import", "-q"];
        for change in &tree.changes {
            args.extend(["-c", change]);
        }
        args.extend([archive.to_str().expect("a path of the lab"), name]);
        self.docker(&args);
        std::fs::remove_file(&archive).expect("own file");
    }

    /// Runs a command of docker's; it must succeed.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        let done = Command::new(self.path().join("docker"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the shim starts");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "docker {args:?}: {said}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Has the engine look for images of a registry at another address.
    pub(crate) fn redirect(&self, registry: &str, to: &str) {
        let path = self.root().join("registries.conf");
        let mut text = std::fs::read_to_string(&path).expect("own file");
        write!(
            text,
            "[[registry]]\nprefix = \"{registry}\"\nlocation = \"{to}\"\ninsecure = true\n"
        )
        .expect("a string");
        std::fs::write(path, text).expect("a writable directory");
        let logins = self.root().join("logins");
        let mut text = std::fs::read_to_string(&logins).expect("own file");
        writeln!(text, "{registry} {to}").expect("a string");
        std::fs::write(logins, text).expect("a writable directory");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The containers are gone with their machine; bridge and rules are this host's.
        if self.lock.is_some() {
            let rules = "for t in filter nat; do iptables -t $t -S | grep -F \"$2\" | sed 's/^-A/-D/' | \
                         while read -r r; do echo \"$r\" | xargs iptables -t $t; done; done; ip link delete \"$1\"";
            let mut tidy = Command::new("sh");
            tidy.args(["-c", rules, "sh", &self.bridge, &self.subnet]);
            drop(tidy.output());
        }
        let root = self.root().display();
        let left = super::processes::of(self.root());
        for process in left {
            process.kill();
        }
        drop(
            Command::new("sh")
                .arg("-c")
                .arg(format!("umount {root}/s/overlay {root}/s 2>/dev/null"))
                .status(),
        );
    }
}

/// A registry that lets in `lab` with the password `secret`.
pub(crate) struct Registry {
    address: String,
    stage: Stage,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// Starts an empty one, which the engine knows.
    pub(crate) fn start(engine: &Engine) -> Self {
        let folder = super::temp_dir();
        let port = Port::reserve();
        let address = format!("127.0.0.1:{}", port.number());
        let root = folder.path().display();
        std::fs::write(folder.path().join("htpasswd"), HTPASSWD).expect("a writable directory");
        let config = folder.path().join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n\
                 http:\n  addr: {address}\nauth:\n  htpasswd:\n    realm: lab\n    path: {root}/htpasswd\n"
            ),
        )
        .expect("a writable directory");
        let stage = Call {
            name: "docker-registry".to_owned(),
            program: tools::program("docker-registry"),
            args: vec!["serve".into(), config.into_os_string()],
            directory: folder.path().to_owned(),
            ..Call::default()
        }
        .spawn();
        port::wait_listening(port.number(), true, PATIENCE);
        engine.redirect(&address, &address);
        Self {
            address,
            stage,
            _folder: folder,
        }
    }

    /// Returns host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Moves an image from the engine to the registry, under that path; returns its whole name.
    pub(crate) fn take(&self, engine: &Engine, image: &str, path: &str) -> String {
        let name = format!("{}/{path}", self.address);
        engine.docker(&["tag", image, &name]);
        engine.docker(&["push", "-q", "--creds", "lab:secret", &name]);
        engine.docker(&["rmi", "-f", image, &name]);
        name
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stage.signal(rustix::process::Signal::KILL);
    }
}
