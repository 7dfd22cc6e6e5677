//! A container engine of a test's own: podman under the name of `docker`, which a job machine finds first on its PATH,
//! with images made here and, where a test asks for one, a registry to pull from.
//!
//! Storage, networks and addresses are the test's own; all containers are below the machine that started them and end
//! with it. What the shim translates is where podman differs: the place of credentials, and how a network is made. What a
//! test that was killed left on this host, bridges and rules among it, the next engine clears away.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use rustix::fs::FlockOperation;
use rustix::fs::flock;

use super::PATIENCE;
use super::port;
use super::port::Port;
use super::stage::Call;
use super::stage::Stage;
use super::tools;
use super::tree::Tree;
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

/// Users of the test registry, one of them ECR's, and the password's bcrypt hash.
const HTPASSWD: &str = "lab:$2b$05$J0IfI5LBSBxqvUsqvFBlLOFidVdE/KHZSny.uLtIzThGQPn9DCQfC\nAWS:$2b$05$J0IfI5LBSBxqvUsqvFBlLOFidVdE/KHZSny.uLtIzThGQPn9DCQfC\n";

/// What an engine's folder is called on this host, up to a part of its own.
const FOLDERS: &str = "gad-eng-";

/// The file in it that is locked for as long as the engine's test lives, and holds its number.
const OWNER: &str = "owner";

/// An engine with its images. Its networks go when it is dropped.
pub(crate) struct Engine {
    folder: tempfile::TempDir,
    /// One of podman's networks at a time: what it makes of rules is this host's.
    lock: Option<File>,
    abandoned: bool,
    /// Its number is nobody else's on this host, and so is the network's that is made of it.
    number: Port,
    /// Let go after the folder is gone.
    owner: File,
}

impl Engine {
    /// Makes an engine without any image.
    pub(crate) fn new() -> Self {
        tools::need_root();
        clear_ownerless();
        let folder = tempfile::Builder::new()
            .prefix(FOLDERS)
            .tempdir()
            .expect("a temporary directory");
        let number = Port::reserve();
        let engine = Self {
            owner: own(folder.path(), number.number()),
            folder,
            lock: None,
            abandoned: false,
            number,
        };
        let root = engine.root();
        std::fs::write(root.join("containers.conf"), CONTAINERS_CONF)
            .expect("a writable directory");
        for empty in ["registries.conf", "logins", "docker.sock"] {
            std::fs::write(root.join(empty), "").expect("a writable directory");
        }
        for folder in ["bin", "networks"] {
            std::fs::create_dir(root.join(folder)).expect("a writable directory");
        }
        // The machine has mounts of its own; this host's are left alone.
        let mounts = std::fs::read_link("/proc/self/ns/mnt").expect("Linux's /proc");
        let mut shim = String::from("#!/bin/sh\n");
        write!(
            shim,
            "r={root}\n\
             export CONTAINERS_CONF=$r/containers.conf CONTAINERS_REGISTRIES_CONF=$r/registries.conf\n\
             [ \"$1\" != --config ] || {{\n\
             while read -r k t; do sed -i \"s|\\\"$k\\\"|\\\"$t\\\"|\" \"$2/config.json\"; done <$r/logins\n\
             export REGISTRY_AUTH_FILE=\"$2/config.json\"; shift 2; }}\n\
             if [ -e $r/fails ]; then cat $r/fails >&2; exit 1; fi\n\
             echo \"$*\" >>$r/calls\n\
             n=/run/containers/networks\n\
             if [ \"$(readlink /proc/self/ns/mnt)\" != '{mounts}' ] && [ ! -e $n/own ]; then\n\
             mkdir -p $n && mount --bind $r/networks $n && : >$n/own || exit 1\n\
             fi\n\
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
            mounts = mounts.display(),
            bridge = bridge(engine.number.number()),
            subnet = subnet(engine.number.number()),
            podman = tools::program("podman").display(),
        )
        .expect("a string");
        write_program(&root.join("bin/docker"), &shim);
        engine
    }

    /// Makes an engine whose containers may talk to each other; one at a time has that on this host.
    pub(crate) fn with_network() -> Self {
        let path = std::env::temp_dir().join("gitlab-aws-driver-test-engine");
        let lock = File::create(path).expect("a lock file");
        flock(&lock, FlockOperation::LockExclusive).expect("a lock");
        let mut engine = Self::new();
        engine.lock = Some(lock);
        engine
    }

    /// Leaves everything as a test does that is killed; returns the folder and the bridge.
    pub(crate) fn abandon(mut self) -> (PathBuf, PathBuf) {
        self.folder.disable_cleanup(true);
        let bridge = Path::new("/sys/class/net").join(bridge(self.number.number()));
        let folder = self.root().to_owned();
        self.abandoned = true;
        // At once: a child that another thread is just starting holds a copy of the file.
        flock(&self.owner, FlockOperation::Unlock).expect("own lock");
        (folder, bridge)
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

    /// Has docker work again.
    pub(crate) fn heal(&self) {
        std::fs::remove_file(self.root().join("fails")).expect("it was failing");
    }

    /// Returns the commands so far, a line each, but for those that fill a registry.
    pub(crate) fn calls(&self) -> String {
        let all = std::fs::read_to_string(self.root().join("calls")).unwrap_or_default();
        let kept = all.lines().filter(|line| !line.starts_with("push "));
        kept.flat_map(|line| [line, "\n"]).collect()
    }

    /// Makes an image.
    pub(crate) fn image(&self, name: &str, tree: &Tree) {
        let archive = self.root().join("image.tar");
        tree.archive(&archive);
        let mut args = vec!["import", "-q"];
        for change in tree.lines() {
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
        if self.abandoned {
            return;
        }
        // The containers are gone with their machine; bridge and rules are this host's.
        if self.lock.is_some() {
            clear_network(self.number.number());
        }
        clear_folder(self.root());
    }
}

/// Returns the name of an engine's bridge.
fn bridge(number: u16) -> String {
    format!("gad{number}")
}

/// Returns the addresses of an engine's network.
fn subnet(number: u16) -> String {
    // The lower half has podman's own default network, 10.88.0.0/16.
    format!("10.{}.{}.0/24", 128 | (number / 256), number % 256)
}

/// Marks a folder as a living test's: it is locked before it has its name.
fn own(folder: &Path, number: u16) -> File {
    let unnamed = folder.join("owner.new");
    let mut owner = File::create(&unnamed).expect("a writable directory");
    write!(owner, "{number}").expect("room on the disk");
    flock(&owner, FlockOperation::LockExclusive).expect("a lock");
    std::fs::rename(unnamed, folder.join(OWNER)).expect("a writable directory");
    owner
}

/// Ends what engines have left whose tests are no more: killed, most likely.
fn clear_ownerless() {
    let all = std::fs::read_dir(std::env::temp_dir()).expect("a temporary directory");
    for entry in all.flatten() {
        if entry.file_name().to_string_lossy().starts_with(FOLDERS) {
            clear_if_ownerless(&entry.path());
        }
    }
}

fn clear_if_ownerless(folder: &Path) {
    let path = folder.join(OWNER);
    let Ok(owner) = File::open(&path) else { return };
    let number = std::fs::read_to_string(&path).unwrap_or_default();
    let (Ok(()), Ok(number)) = (
        flock(&owner, FlockOperation::NonBlockingLockExclusive),
        number.parse(),
    ) else {
        return;
    };
    drop(std::fs::remove_file(folder.join("fails")));
    let mut end = Command::new(folder.join("bin/docker"));
    drop(end.args(["rm", "-f", "-t", "0", "-a"]).output());
    clear_network(number);
    clear_folder(folder);
    super::processes::wait_none(folder, PATIENCE);
    drop(std::fs::remove_dir_all(folder));
}

/// Takes an engine's bridge away, and the rules about its addresses.
fn clear_network(number: u16) {
    let rules = "for t in filter nat; do iptables -t $t -S | grep -F \"$2\" | sed 's/^-A/-D/' | \
                 while read -r r; do echo \"$r\" | xargs iptables -t $t; done; done; ip link delete \"$1\"";
    let mut tidy = Command::new("sh");
    tidy.args(["-c", rules, "sh", &bridge(number), &subnet(number)]);
    drop(tidy.output());
}

/// Ends the processes that are of an engine's folder, its name server among them, and takes its mounts away.
fn clear_folder(folder: &Path) {
    for process in super::processes::of(folder) {
        process.kill();
    }
    let root = folder.display();
    let mut unmount = Command::new("sh");
    unmount
        .arg("-c")
        .arg(format!("umount {root}/s/overlay {root}/s 2>/dev/null"));
    drop(unmount.status());
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
