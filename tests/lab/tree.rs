//! The root of a container's image, made of this host's own programs: no registry is asked for any.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::tools;
use super::write_program;

/// The applets that the driver's far side and ordinary scripts need.
const APPLETS: [&str; 46] = [
    "sh",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "echo",
    "env",
    "expr",
    "false",
    "grep",
    "head",
    "httpd",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "nc",
    "nohup",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "uniq",
    "wc",
    "wget",
];

/// What an image is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    programs: Vec<PathBuf>,
    applets: bool,
    links: Vec<(String, String)>,
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

    /// Adds another name of a program.
    #[must_use]
    pub(crate) fn link(mut self, name: &str, to: &str) -> Self {
        self.links.push((name.to_owned(), to.to_owned()));
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

    /// Returns the lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(String::as_str)
    }

    /// Writes the files as an archive, for `docker import`.
    pub(crate) fn archive(&self, to: &Path) {
        let folder = super::temp_dir();
        self.build(folder.path());
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder.path()).arg("-cf").arg(to).arg(".");
        let done = tar.status();
        assert!(done.expect("tar starts").success());
    }

    fn build(&self, root: &Path) {
        // Otherwise only root could look into the image.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(root, open).expect("own directory");
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
        for (name, to) in &self.links {
            std::os::unix::fs::symlink(to, root.join("bin").join(name)).expect("a new name");
        }
        for (path, text) in &self.files {
            let path = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().expect("below a root"))
                .expect("a writable directory");
            write_program(&path, text);
        }
        for folder in ["tmp", "var/tmp"] {
            let open = std::fs::Permissions::from_mode(0o1777);
            std::fs::set_permissions(root.join(folder), open).expect("own directory");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("a file of this host");
}
