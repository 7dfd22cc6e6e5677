//! Packages, and bare roots to install them into.
//!
//! A bare root is a directory with busybox, the libraries that it and the driver need, and a package
//! database of its own. `dpkg` and `rpm` run the packages' scripts inside it by chroot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::OnceLock;

use crate::lab;
use crate::lab::tools;
use crate::lab::traces::long;

use super::LINK;
use super::plain;

/// The two families of packages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Family {
    Deb,
    Rpm,
}

/// Returns the families that are tested: the RPM package takes cargo-generate-rpm, which only the long form has.
pub(super) fn families() -> &'static [Family] {
    match long() {
        true => &[Family::Deb, Family::Rpm],
        false => &[Family::Deb],
    }
}

/// The packages that all tests here share: this version, and a later one with another example. In the long form they are
/// the ones that users get, else [`plain`] ones of this build.
pub(super) struct Packages {
    directory: PathBuf,
}

impl Packages {
    pub(super) fn get() -> &'static Self {
        static MADE: OnceLock<Packages> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        // Below cargo's own temporary directory, since nothing is dropped that a static holds.
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("packages-{}", std::process::id()));
        sweep(directory.parent().unwrap());
        fs::create_dir(&directory).unwrap();
        for (number, version) in [("1", env!("CARGO_PKG_VERSION")), ("2", "99.0.0")] {
            let tree = directory.join("tree");
            copy_tree(here, &tree);
            if number == "2" {
                let example = tree.join("config-examples/fargate-spot.toml");
                let text = fs::read_to_string(&example).unwrap();
                fs::write(&example, format!("# The later example.\n{text}")).unwrap();
            }
            let output = directory.join(number);
            match long() {
                false => plain::build(&tree, &output, version),
                // The first one is built as users get it, and the second one takes that binary.
                true if number == "1" => build(here, &output, &[]),
                true => {
                    let built = target().join("dist/gitlab-aws-driver");
                    let built = built.to_str().unwrap();
                    let from = ["--binary", built, "--version", version];
                    build(&tree, &output, &from);
                }
            }
            fs::remove_dir_all(&tree).unwrap();
        }
        Self { directory }
    }

    pub(super) fn file(&self, version: u32, family: Family) -> PathBuf {
        let suffix = match family {
            Family::Deb => ".deb",
            Family::Rpm => ".rpm",
        };
        let mut found = fs::read_dir(self.directory.join(version.to_string()))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(suffix));
        let file = found.next().expect("a package");
        assert_eq!(found.next(), None);
        file
    }
}

/// Removes what earlier runs of these tests left: the last one of a process cannot know that it is the last.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some(pid) = name.strip_prefix("packages-") {
            // This process has made nothing yet: its name was an earlier one's.
            if pid == std::process::id().to_string() || !Path::new("/proc").join(pid).exists() {
                drop(fs::remove_dir_all(path));
            }
        }
    }
}

/// Returns the directory that this build was made in.
fn target() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap().to_owned()
}

/// Makes both packages of the tree's files.
fn build(tree: &Path, output: &Path, from: &[&str]) {
    let path = format!("{}:{}", target().join("tools/bin").display(), path());
    for tool in ["cargo-deb", "cargo-generate-rpm"] {
        let there = path.split(':').any(|at| Path::new(at).join(tool).is_file());
        assert!(
            there,
            "this test needs {tool}: packaging/build --tools (tests/run --long calls that)"
        );
    }
    let shlibdeps = path
        .split(':')
        .any(|at| Path::new(at).join("dpkg-shlibdeps").is_file());
    assert!(
        shlibdeps,
        "this test needs `dpkg-shlibdeps`: apt-get install -y dpkg-dev"
    );
    let mut command = Command::new(tree.join("packaging/build"));
    command.arg("--fast").args(from);
    // Those that `packaging/build` left; in a copied tree they would be built anew.
    command.arg("--agents").arg(target().join("agents"));
    command.arg("--output").arg(output).env("PATH", path);
    run(&mut command);
}

/// Copies what packaging reads; links and what is built stay behind.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if ["target", ".git", "fuzz"].iter().any(|skip| name == *skip) {
            continue;
        }
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &to.join(name));
        } else if kind.is_file() {
            copy(&entry.path(), &to.join(name));
        }
    }
}

/// Copies a file; a program that this process itself has just written could be "busy" for a moment.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(Command::new("cp").arg("-L").arg(from).arg(to));
}

fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    path + ":/usr/local/sbin:/usr/sbin:/sbin"
}

pub(super) fn run(command: &mut Command) -> String {
    let output = output(command);
    let (out, err) = texts(&output);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}{err}",
        output.status
    );
    out + &err
}

pub(super) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

pub(super) fn texts(output: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A host with nothing on it but what the packages' scripts call.
pub(super) struct Root {
    family: Family,
    directory: tempfile::TempDir,
}

impl Root {
    pub(super) fn new(family: Family) -> Self {
        tools::need_root();
        let directory = lab::temp_dir();
        let root = Self { family, directory };
        let busybox = tools::program("busybox");
        let driver = Path::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"));
        for program in [busybox.as_path(), driver] {
            // A static busybox has none.
            let (libraries, _) = texts(&output(Command::new("ldd").arg(program)));
            for word in libraries.split_whitespace().filter(|w| w.starts_with('/')) {
                copy(Path::new(word), &root.at(word));
            }
        }
        copy(&busybox, &root.at("bin/busybox"));
        for applet in [
            "sh", "cat", "chmod", "chown", "cp", "id", "ln", "mkdir", "mv", "readlink", "rm",
            "rmdir", "sed", "tail",
        ] {
            symlink("busybox", root.at("bin").join(applet)).unwrap();
        }
        for folder in [
            "tmp",
            "usr/bin",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
        ] {
            fs::create_dir_all(root.at(folder)).unwrap();
        }
        root.write(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nrunner:x:4711:4711::/:/bin/sh\n",
        );
        root.write("etc/group", "root:x:0:\nrunner:x:4711:\n");
        // To be written to; a device could not be made in every container.
        root.write("dev/null", "");
        match family {
            Family::Deb => root.claim(&["libc6", "ca-certificates"]),
            Family::Rpm => {
                run(root.rpm().arg("--initdb"));
            }
        }
        root
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn there(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Says to dpkg that these are installed.
    pub(super) fn claim(&self, packages: &[&str]) {
        let architecture = run(Command::new("dpkg").arg("--print-architecture"));
        let mut status = String::new();
        for package in packages {
            self.write(&format!("var/lib/dpkg/info/{package}.list"), "/.\n");
            status += &format!(
                "Package: {package}\nStatus: install ok installed\nMaintainer: nobody\n\
                 Architecture: {}\nVersion: 9999\nDescription: a claim\n\n",
                architecture.trim()
            );
        }
        self.write("var/lib/dpkg/status", &status);
    }

    pub(super) fn dpkg(&self) -> Command {
        let mut command = Command::new(tools::program("dpkg"));
        // The host's own settings may leave out documentation; its log is none of ours.
        command
            .arg(format!("--root={}", self.directory.path().display()))
            .arg(format!("--log={}", self.at("dpkg.log").display()))
            .args(["--path-include=*", "--force-unsafe-io"])
            .env("PATH", path());
        command
    }

    pub(super) fn rpm(&self) -> Command {
        let mut command = Command::new(tools::program("rpm"));
        command
            .arg("--root")
            .arg(self.directory.path())
            .args(["--dbpath", "/var/lib/rpm"])
            // Debian's rpm keeps a database at home otherwise.
            .env("HOME", self.directory.path())
            .env("PATH", path());
        command
    }

    pub(super) fn install(&self, version: u32) -> String {
        let file = Packages::get().file(version, self.family);
        match self.family {
            Family::Deb => run(self.dpkg().args(["--force-confold", "--install"]).arg(file)),
            // A bare root has no packages of libraries.
            Family::Rpm => run(self.rpm().args(["--nodeps", "--upgrade"]).arg(file)),
        }
    }

    pub(super) fn remove(&self) -> String {
        match self.family {
            Family::Deb => run(self.dpkg().args(["--remove", "gitlab-aws-driver"])),
            Family::Rpm => run(self.rpm().args(["--erase", "gitlab-aws-driver"])),
        }
    }

    pub(super) fn inside(&self, command: &[&str]) -> String {
        let mut chroot = Command::new(tools::program("chroot"));
        chroot.arg(self.directory.path()).args(command);
        run(chroot.env("PATH", "/bin:/usr/bin"))
    }

    /// Puts a `systemctl` there that writes down how it is called.
    pub(super) fn with_systemctl(&self) {
        fs::create_dir_all(self.at("run/systemd/system")).unwrap();
        lab::write_program(
            &self.at("bin/systemctl"),
            "#!/bin/sh\necho \"$*\" >>/systemctl.log\n",
        );
    }

    pub(super) fn assert_link_is_ours(&self) {
        let to = fs::read_link(self.at(LINK)).expect("a link");
        assert_eq!(to, Path::new("gitlab-aws-driver"));
    }
}
