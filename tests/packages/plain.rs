//! A Debian package of what `Cargo.toml` lists, made without cargo-deb.
//!
//! Building cargo-deb and cargo-generate-rpm takes minutes, so only the long form tests the packages that users get. This one
//! has the same files and scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::root::copy;
use super::root::run;
use crate::lab::tools;

/// A line of a list: where its files are in the tree, where they go, and with which mode.
#[derive(Debug, PartialEq)]
pub(super) struct Asset {
    pub(super) source: String,
    pub(super) dest: String,
    pub(super) mode: String,
}

/// Returns the table `[package.metadata.NAME]` of `Cargo.toml`.
pub(super) fn metadata(tree: &Path, name: &str) -> toml::Table {
    let text = fs::read_to_string(tree.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest["package"]["metadata"][name]
        .as_table()
        .unwrap()
        .clone()
}

fn text(value: &toml::Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Returns cargo-deb's list.
pub(super) fn deb_assets(tree: &Path) -> Vec<Asset> {
    let list = metadata(tree, "deb")["assets"].as_array().unwrap().clone();
    let asset = |line: &toml::Value| Asset {
        source: text(&line[0]),
        dest: format!("/{}", text(&line[1])),
        mode: text(&line[2]),
    };
    list.iter().map(asset).collect()
}

/// Returns cargo-generate-rpm's list.
pub(super) fn rpm_assets(tree: &Path) -> Vec<Asset> {
    let list = metadata(tree, "generate-rpm");
    let list = list["assets"].as_array().unwrap();
    let asset = |line: &toml::Value| Asset {
        source: text(&line["source"]),
        dest: text(&line["dest"]),
        mode: text(&line["mode"]),
    };
    list.iter().map(asset).collect()
}

/// Returns the files that a pattern means, each with its path below the part without stars.
///
/// # Panics
///
/// Where it means none: cargo-deb would refuse that too.
fn files(tree: &Path, pattern: &str) -> Vec<(PathBuf, PathBuf)> {
    let Some((folder, name)) = pattern.split_once('*') else {
        let file = tree.join(pattern);
        assert!(file.is_file(), "{pattern}");
        let name = file.file_name().unwrap().into();
        return vec![(file, name)];
    };
    let folder = tree.join(folder);
    let (deep, ending) = match name.strip_prefix("*/*") {
        Some(ending) => (true, ending),
        None => (false, name),
    };
    let mut found = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|e| panic!("{pattern}: {e}")) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend(deep.then_some(path));
            } else if path.to_str().unwrap().ends_with(ending) {
                let below = path.strip_prefix(&folder).unwrap().to_owned();
                found.push((path, below));
            }
        }
    }
    assert!(!found.is_empty(), "{pattern}");
    found
}

/// Makes the package of the tree's files and of this build's driver.
pub(super) fn build(tree: &Path, output: &Path, version: &str) {
    // The tree may be a copy, in which all would be built anew.
    let agents = output.join("agents");
    let architecture = std::env::consts::ARCH;
    let agent = agents.join(format!("gitlab-aws-agent-{architecture}"));
    copy(tools::static_agent(), &agent);
    let mut stage = Command::new(tree.join("packaging/build"));
    stage.args([
        "--only-stage",
        "--binary",
        env!("CARGO_BIN_EXE_gitlab-aws-driver"),
        "--agents",
    ]);
    run(stage.arg(&agents));
    fs::remove_dir_all(agents).unwrap();

    let root = output.join("root");
    for asset in deb_assets(tree) {
        for (file, below) in files(tree, &asset.source) {
            let mut to = root.join(asset.dest.trim_start_matches('/'));
            if asset.dest.ends_with('/') {
                to.push(below);
            }
            copy(&file, &to);
            let mode = u32::from_str_radix(&asset.mode, 8).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    let metadata = metadata(tree, "deb");
    let control = root.join("DEBIAN");
    for entry in fs::read_dir(tree.join(text(&metadata["maintainer-scripts"]))).unwrap() {
        let script = entry.unwrap();
        copy(&script.path(), &control.join(script.file_name()));
    }
    // cargo-deb replaces `$auto` by the libraries that the binary needs.
    let depends = text(&metadata["depends"]).replace("$auto, ", "");
    let architecture = run(Command::new("dpkg").arg("--print-architecture"));
    let fields = format!(
        "Package: gitlab-aws-driver\nVersion: {version}-1\nArchitecture: {}\nMaintainer: {}\n\
         Depends: {depends}\nRecommends: {}\nDescription: made for the tests\n",
        architecture.trim(),
        text(&metadata["maintainer"]),
        text(&metadata["recommends"]),
    );
    fs::write(control.join("control"), fields).unwrap();
    // As cargo-deb does: an upgrade keeps what somebody has edited below /etc.
    let below_etc = |asset: &Asset| asset.dest.starts_with("/etc/");
    let edited: String = deb_assets(tree)
        .iter()
        .filter(|asset| below_etc(asset))
        .map(|asset| format!("{}\n", asset.dest))
        .collect();
    fs::write(control.join("conffiles"), edited).unwrap();
    // With a strict umask the folders would be closed to other users.
    run(Command::new("chmod").args(["-R", "u+rwX,go+rX"]).arg(&root));

    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Znone", "--build"]);
    pack.arg(&root).arg(output.join("plain.deb"));
    run(&mut pack);
    fs::remove_dir_all(root).unwrap();
}
