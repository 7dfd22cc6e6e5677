//! A stand-in for the `gitlab-runner` command, as the scripts of a job call it for cache and artifacts.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::tools;
use super::write_program;

/// A directory for PATH with the command, and the store that it works on.
pub(crate) struct Helper {
    directory: PathBuf,
}

impl Helper {
    /// Writes the command below the directory.
    pub(crate) fn new(parent: &Path) -> Self {
        let directory = parent.join("helper");
        for folder in ["bin", "store"] {
            std::fs::create_dir_all(directory.join(folder)).expect("a writable directory");
        }
        let program = SCRIPT.replace("@STORE@", &directory.join("store").display().to_string());
        write_program(&directory.join("bin/gitlab-runner"), &program);
        Self { directory }
    }

    /// Returns the directory that PATH shall name.
    pub(crate) fn bin(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// Returns where the artifacts of a job are kept once they were uploaded: a tar file.
    pub(crate) fn artifacts(&self, job: u64) -> PathBuf {
        self.directory.join(format!("store/{job}.tar"))
    }

    /// Returns the calls that were made, a line each.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("store/calls"));
        text.unwrap_or_default().lines().map(String::from).collect()
    }
}

/// Writes a tar file with one file in it: a cache or artifacts of an earlier job.
pub(crate) fn pack(archive: &Path, name: &str, text: &str) {
    let scratch = super::temp_dir();
    let file = scratch.path().join(name);
    for folder in [archive.parent(), file.parent()].into_iter().flatten() {
        std::fs::create_dir_all(folder).expect("a writable directory");
    }
    std::fs::write(file, text).expect("a writable directory");
    let done = Command::new(tools::program("tar"))
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(scratch.path())
        .arg(name)
        .status()
        .expect("tar starts");
    assert!(done.success());
}

/// Returns the names in a tar file.
pub(crate) fn packed(archive: &Path) -> Vec<String> {
    let done = Command::new(tools::program("tar"))
        .arg("-tf")
        .arg(archive)
        .output()
        .expect("tar starts");
    assert!(done.status.success(), "{}: {done:?}", archive.display());
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    text.lines().map(String::from).collect()
}

/// Keeps tar files, whatever their names say; needs nothing that busybox has not.
const SCRIPT: &str = r#"#!/bin/sh
set -eu
store='@STORE@'
echo "$*" >> "$store/calls"
command=$1
shift
file= id= paths=
while [ $# -gt 0 ]; do
    case $1 in
        --file) file=$2; shift ;;
        --id) id=$2; shift ;;
        --path) paths="$paths $2"; shift ;;
    esac
    shift
done
pack() {
    there=
    for path in $paths; do
        if [ -e "$path" ]; then there="$there $path"; else echo "stand-in: nothing at $path" >&2; fi
    done
    if [ -z "$there" ]; then return 0; fi
    mkdir -p "$(dirname "$1")"
    tar -cf "$1.new" $there
    mv "$1.new" "$1"
    echo "stand-in: packed$there"
}
unpack() {
    if [ ! -f "$1" ]; then echo "stand-in: there is no $2" >&2; exit 1; fi
    tar -xf "$1"
    echo "stand-in: unpacked $2"
}
case $command in
    --version) echo 'gitlab-runner (stand-in of the test lab)' ;;
    cache-archiver) pack "$file" ;;
    cache-extractor) unpack "$file" cache ;;
    artifacts-uploader) pack "$store/$id.tar" ;;
    artifacts-downloader) unpack "$store/$id.tar" "artifacts of job $id" ;;
    *) echo "stand-in: cannot $command" >&2; exit 64 ;;
esac
"#;
