//! The packages: installed into a bare root, upgraded, removed, and a job run through what they installed.
//!
//! The long form builds and takes those that users get, Debian's and RPM; else it is a Debian package made of the same list
//! and scripts.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::lab;
use crate::lab::runner::Runner;
use crate::lab::tools;
use crate::lab::traces::long;

mod plain;
mod root;

use root::Family;
use root::Packages;
use root::Root;
use root::families;
use root::output;
use root::run;
use root::texts;

const DRIVER: &str = "opt/gitlab-runner/gitlab-aws-driver";
const LINK: &str = "opt/gitlab-runner/fargate";
const ASIDE: &str = "opt/gitlab-runner/fargate.go-driver";
const STATE: &str = "var/lib/gitlab-aws-driver";
const EXAMPLE: &str = "etc/gitlab-runner/aws-driver.toml.example";
const SETUP: &str = "usr/lib/gitlab-aws-driver/setup";

/// The agent for containers of this host's architecture; others come along where they were built.
const AGENT: &str = if cfg!(target_arch = "aarch64") {
    "usr/lib/gitlab-aws-driver/gitlab-aws-agent-aarch64"
} else {
    "usr/lib/gitlab-aws-driver/gitlab-aws-agent-x86_64"
};

/// What both packages hold; the completions of zsh have a place of their own in each family.
const FILES: [&str; 18] = [
    DRIVER,
    SETUP,
    AGENT,
    EXAMPLE,
    "usr/lib/systemd/system/gitlab-aws-driver-reap.service",
    "usr/lib/systemd/system/gitlab-aws-driver-reap.timer",
    "usr/share/man/man1/gitlab-aws-driver.1.gz",
    "usr/share/bash-completion/completions/gitlab-aws-driver",
    "usr/share/fish/vendor_completions.d/gitlab-aws-driver.fish",
    "usr/share/doc/gitlab-aws-driver/README.md",
    "usr/share/doc/gitlab-aws-driver/CHANGELOG.md",
    "usr/share/doc/gitlab-aws-driver/LICENSE-MIT",
    "usr/share/doc/gitlab-aws-driver/LICENSE-APACHE",
    "usr/share/doc/gitlab-aws-driver/THIRD-PARTY.md",
    "usr/share/doc/gitlab-aws-driver/docs/migrating-from-the-go-driver.md",
    "usr/share/doc/gitlab-aws-driver/docs/install.md",
    "usr/share/doc/gitlab-aws-driver/config-examples/go-driver.toml",
    "usr/share/doc/gitlab-aws-driver/config-examples/iam/bastion.json",
];

#[test]
fn both_families_hold_the_same() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut debian = plain::deb_assets(tree);
    for asset in &mut debian {
        asset.dest = asset
            .dest
            .replace("/vendor-completions/", "/site-functions/");
    }
    assert_eq!(debian, plain::rpm_assets(tree));
}

#[test]
fn an_installed_package_holds_all_and_its_programs_run() {
    for &family in families() {
        let root = Root::new(family);
        root.install(1);
        for file in FILES {
            let there = root.at(file).metadata();
            let there = there.unwrap_or_else(|e| panic!("{family:?}: {file}: {e}"));
            assert!(there.is_file() && there.len() > 0, "{family:?}: {file}");
        }
        let zsh = match family {
            Family::Deb => "usr/share/zsh/vendor-completions/_gitlab-aws-driver",
            Family::Rpm => "usr/share/zsh/site-functions/_gitlab-aws-driver",
        };
        assert!(root.there(zsh), "{family:?}");
        let version = format!("gitlab-aws-driver {}\n", env!("CARGO_PKG_VERSION"));
        for program in [
            "/opt/gitlab-runner/gitlab-aws-driver",
            "/opt/gitlab-runner/fargate",
            "/usr/bin/gitlab-aws-driver",
        ] {
            assert_eq!(root.inside(&[program, "--version"]), version, "{program}");
        }
        let version = format!("gitlab-aws-agent {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(root.inside(&[&format!("/{AGENT}"), "--version"]), version);
        let state = root.at(STATE).metadata().unwrap();
        assert_eq!((state.mode() & 0o7777, state.uid()), (0o700, 0));
        // An active file would be taken before the one of a Go-driver user.
        assert!(!root.there("etc/gitlab-runner/aws-driver.toml"));
        assert_every_link_of_the_pages_leads_somewhere(&root);
    }
}

/// What the pages on disk refer to is installed where they say.
fn assert_every_link_of_the_pages_leads_somewhere(root: &Root) {
    let top = root.at("usr/share/doc/gitlab-aws-driver");
    let mut pages = vec![top.join("README.md")];
    for entry in fs::read_dir(top.join("docs")).unwrap() {
        pages.push(entry.unwrap().path());
    }
    // For those who work on the driver, not for those who run it.
    let not_packaged = ["CONTRIBUTING.md", "src/", "tests/", "packaging/"];
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            let elsewhere = link.is_empty() || link.contains("://");
            let from_top = link.trim_start_matches("../");
            if elsewhere || not_packaged.iter().any(|it| from_top.starts_with(it)) {
                continue;
            }
            let to = page.parent().unwrap().join(link);
            assert!(to.exists(), "{}: {link}", page.display());
        }
    }
}

#[test]
fn the_packages_name_what_they_need() {
    if !long() {
        return eprintln!("left out, as it takes the packages that users get: GAD_LONG=1 runs it");
    }
    let deb = Packages::get().file(1, Family::Deb);
    let field = |name: &str| {
        let mut command = Command::new("dpkg-deb");
        run(command.arg("--field").arg(&deb).arg(name))
    };
    let depends = field("Depends");
    assert!(depends.contains("ca-certificates"), "{depends}");
    assert!(depends.contains("libc6 (>="), "{depends}");
    assert_eq!(field("Recommends").trim(), "gitlab-runner");

    let rpm = |query: &str| {
        let home = lab::temp_dir();
        let mut command = Command::new(tools::program("rpm"));
        command.args(["--query", "--package", query]);
        command.arg(Packages::get().file(1, Family::Rpm));
        run(command.env("HOME", home.path()))
    };
    let requires = rpm("--requires");
    for want in ["ca-certificates", "/bin/sh", "libc.so.6(GLIBC_"] {
        assert!(requires.contains(want), "{want}: {requires}");
    }
    assert_eq!(rpm("--recommends").trim(), "gitlab-runner");
    assert_eq!(rpm("--configfiles").trim(), format!("/{EXAMPLE}"));
}

/// Without them no call to AWS could be made.
#[test]
fn nothing_is_installed_without_root_certificates() {
    let deb = Packages::get().file(1, Family::Deb);
    let root = Root::new(Family::Deb);
    root.claim(&["libc6"]);
    let refused = output(root.dpkg().arg("--install").arg(&deb));
    let (_, err) = texts(&refused);
    assert!(!refused.status.success());
    assert!(err.contains("depends on ca-certificates"), "{err}");
}

#[test]
fn an_upgrade_keeps_what_was_edited_and_what_runs() {
    for &family in families() {
        let root = Root::new(family);
        root.with_systemctl();
        root.install(1);
        root.write(EXAMPLE, "# edited\n");
        let active = "etc/gitlab-runner/aws-driver.toml";
        root.write(active, "capacity = [\"fargate\"]\n");
        root.write(&format!("{STATE}/jobs/one/record.json"), "{}");
        fs::remove_file(root.at("systemctl.log")).unwrap();

        root.install(2);
        assert_eq!(root.read(EXAMPLE), "# edited\n");
        let offered = match family {
            Family::Deb => format!("{EXAMPLE}.dpkg-dist"),
            Family::Rpm => format!("{EXAMPLE}.rpmnew"),
        };
        assert!(root.read(&offered).starts_with("# The later example.\n"));
        assert_eq!(root.read(active), "capacity = [\"fargate\"]\n");
        assert_eq!(root.read(&format!("{STATE}/jobs/one/record.json")), "{}");
        root.assert_link_is_ours();
        assert!(root.there("usr/bin/gitlab-aws-driver"));
        // Whoever disabled the timer meant it: nothing is enabled, stopped or disabled.
        assert_eq!(
            root.read("systemctl.log"),
            "daemon-reload\ntry-restart gitlab-aws-driver-reap.timer\n",
            "{family:?}"
        );
    }
}

#[test]
fn removing_gives_the_go_driver_back_and_keeps_the_state() {
    for &family in families() {
        let root = Root::new(family);
        root.write(LINK, "the Go driver");
        let said = root.install(1);
        assert!(said.contains("setup restore-go-driver"), "{said}");
        root.assert_link_is_ours();
        assert_eq!(root.read(ASIDE), "the Go driver");
        root.write(&format!("{STATE}/manager"), "id");

        root.remove();
        assert_eq!(root.read(LINK), "the Go driver");
        for gone in [ASIDE, DRIVER, SETUP, "usr/bin/gitlab-aws-driver"] {
            assert!(!root.there(gone), "{family:?}: {gone}");
        }
        assert_eq!(root.read(&format!("{STATE}/manager")), "id");

        // A second installation is a first one again.
        root.install(1);
        root.assert_link_is_ours();
        assert_eq!(root.read(ASIDE), "the Go driver");
        root.remove();

        if family == Family::Deb {
            run(root.dpkg().args(["--purge", "gitlab-aws-driver"]));
            assert!(!root.there(STATE));
            assert!(!root.there(EXAMPLE));
        }
        assert_eq!(root.read(LINK), "the Go driver");
    }
}

/// Ends the watch, also where what is watched fails: the scope would wait for its thread for ever.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn at_every_moment_there_is_a_driver_to_be_started() {
    for &family in families() {
        let root = Root::new(family);
        root.write(LINK, "the Go driver");
        let link = root.at(LINK);
        let over = AtomicBool::new(false);
        let looks = std::thread::scope(|scope| {
            // As the Runner would, which starts stages of running jobs whenever it wants to.
            let watcher = scope.spawn(|| {
                let mut looks = 0;
                while !over.load(Ordering::SeqCst) {
                    if let Err(e) = fs::metadata(&link) {
                        return Err(format!("after {looks} looks: {e}"));
                    }
                    looks += 1;
                    // Shorter than a gap between two commands, and yet not a processor's whole time.
                    std::thread::sleep(Duration::from_micros(100));
                }
                Ok(looks)
            });
            let end = End(&over);
            root.install(1);
            root.install(2);
            root.remove();
            drop(end);
            watcher.join().unwrap()
        });
        assert!(
            looks.clone().is_ok_and(|looks: u64| looks > 0),
            "{family:?}: {looks:?}"
        );
        assert_eq!(root.read(LINK), "the Go driver");
    }
}

#[test]
fn a_link_that_nothing_was_behind_goes_with_the_package() {
    for &family in families() {
        let root = Root::new(family);
        root.install(1);
        root.assert_link_is_ours();
        root.remove();
        assert!(!root.there(LINK), "{family:?}");
    }
}

#[test]
fn whoever_goes_back_to_the_go_driver_stays_there() {
    for &family in families() {
        let root = Root::new(family);
        // As some install it: a link to the version.
        root.write("opt/gitlab-runner/fargate-0.5.1", "the Go driver");
        symlink("fargate-0.5.1", root.at(LINK)).unwrap();
        root.install(1);
        root.assert_link_is_ours();
        root.inside(&["/usr/lib/gitlab-aws-driver/setup", "restore-go-driver"]);
        assert_eq!(
            fs::read_link(root.at(LINK)).unwrap(),
            Path::new("fargate-0.5.1")
        );
        assert!(!root.there(ASIDE));

        root.install(2);
        assert_eq!(root.read(LINK), "the Go driver", "{family:?}: upgraded");
        root.inside(&["/usr/lib/gitlab-aws-driver/setup", "replace-go-driver"]);
        root.assert_link_is_ours();
        root.remove();
        assert_eq!(root.read(LINK), "the Go driver", "{family:?}: removed");
    }
}

#[test]
fn the_go_driver_stays_where_that_is_asked_for_or_unclear() {
    for &family in families() {
        // Asked for.
        let root = Root::new(family);
        root.write(LINK, "the Go driver");
        root.write("opt/gitlab-runner/fargate.keep", "");
        root.install(1);
        assert_eq!(root.read(LINK), "the Go driver");
        assert!(!root.there(ASIDE));
        root.remove();
        assert_eq!(root.read(LINK), "the Go driver");

        // Two of them: neither may be lost.
        let root = Root::new(family);
        root.write(LINK, "the Go driver");
        root.write(ASIDE, "an older one");
        let said = root.install(1);
        assert!(said.contains("both are left alone"), "{said}");
        root.remove();
        assert_eq!(root.read(LINK), "the Go driver");
        assert_eq!(root.read(ASIDE), "an older one");

        // Both names for one file: an earlier installation was interrupted in between, so this one goes on.
        let root = Root::new(family);
        root.write(LINK, "the Go driver");
        fs::hard_link(root.at(LINK), root.at(ASIDE)).unwrap();
        root.install(1);
        root.assert_link_is_ours();
        root.remove();
        assert_eq!(root.read(LINK), "the Go driver");
    }
}

/// Whoever owns the directory of the programs may put links in the way of what the packages' scripts write there.
#[test]
fn a_link_in_a_directory_that_is_not_roots_leads_root_nowhere() {
    // What the first installation writes there, in this version or the one before, and where its owner would have it go.
    let cases = [
        [
            ("fargate.new", "etc/directory"),
            (".gitlab-aws-driver.new", "etc/file"),
        ],
        [
            ("fargate.new", "etc/file"),
            (".gitlab-aws-driver.new", "etc/nothing"),
        ],
        [
            ("fargate.go-driver", "etc/directory"),
            ("fargate.new", "etc/nothing"),
        ],
    ];
    for &family in families() {
        for links in cases {
            let root = Root::new(family);
            root.write("etc/file", "root's");
            fs::create_dir(root.at("etc/directory")).unwrap();
            root.write(LINK, "the Go driver");
            let programs = root.at("opt/gitlab-runner");
            for (name, target) in links {
                symlink(format!("/{target}"), programs.join(name)).unwrap();
            }
            chown(&programs, Some(4711), Some(4711)).unwrap();
            root.install(1);
            // What lies where the Go driver would be kept may be somebody's own.
            match links.iter().any(|(name, _)| ASIDE.ends_with(name)) {
                true => assert_eq!(root.read(LINK), "the Go driver"),
                false => root.assert_link_is_ours(),
            }
            root.remove();
            assert_eq!(root.read(LINK), "the Go driver", "{family:?}: {links:?}");
            assert_eq!(root.read("etc/file"), "root's", "{family:?}: {links:?}");
            assert!(!root.there("etc/nothing"), "{family:?}: {links:?}");
            let inside = fs::read_dir(root.at("etc/directory")).unwrap().count();
            assert_eq!(inside, 0, "{family:?}: {links:?}");
        }
    }
}

#[test]
fn an_installation_that_comes_to_nothing_leaves_no_mark() {
    let root = Root::new(Family::Deb);
    // Something that is in the way of a file of the package.
    root.write(&format!("{EXAMPLE}/in/the/way"), "");
    let file = Packages::get().file(1, Family::Deb);
    let failed = output(root.dpkg().arg("--install").arg(file));
    assert!(!failed.status.success());
    assert!(!root.there("usr/lib/gitlab-aws-driver"));
}

#[test]
fn the_timer_is_enabled_once_and_goes_with_the_package() {
    for &family in families() {
        let root = Root::new(family);
        root.with_systemctl();
        root.install(1);
        assert_eq!(
            root.read("systemctl.log"),
            "enable --quiet gitlab-aws-driver-reap.timer\ndaemon-reload\n\
             start gitlab-aws-driver-reap.timer\n"
        );
        fs::remove_file(root.at("systemctl.log")).unwrap();
        root.remove();
        assert_eq!(
            root.read("systemctl.log"),
            "stop gitlab-aws-driver-reap.timer gitlab-aws-driver-reap.service\n\
             disable --quiet gitlab-aws-driver-reap.timer\ndaemon-reload\n",
            "{family:?}"
        );
    }
}

#[test]
fn state_and_reap_belong_to_the_user_that_the_runner_runs_as() {
    for &family in families() {
        let root = Root::new(family);
        let unit = "etc/systemd/system/gitlab-runner.service";
        root.write(unit, "[Service]\nExecStart=/usr/bin/gitlab-runner run\n");
        let changed = format!("{unit}.d/user.conf");
        root.write(&changed, "[Service]\nUser=runner\n");
        root.install(1);
        let state = root.at(STATE).metadata().unwrap();
        assert_eq!((state.mode() & 0o7777, state.uid()), (0o700, 4711));
        let dropin = "etc/systemd/system/gitlab-aws-driver-reap.service.d/runner-user.conf";
        assert!(root.read(dropin).ends_with("[Service]\nUser=runner\n"));
        root.remove();
        assert!(!root.there("etc/systemd/system/gitlab-aws-driver-reap.service.d"));
    }
}

#[test]
fn the_units_are_right() {
    let root = Root::new(Family::Deb);
    root.install(1);
    let units = root.at("usr/lib/systemd/system");
    let service = "usr/lib/systemd/system/gitlab-aws-driver-reap.service";
    let text = root.read(service);
    assert!(text.contains(&format!("\nExecStart=/{DRIVER} reap\n")));
    // Whatever hides the state or other processes makes live jobs look dead.
    for never in [
        "\nPrivateTmp=",
        "\nProtectProc=",
        "\nProcSubset=",
        "\nPrivateUsers=",
    ] {
        assert!(!text.contains(never), "{never}");
    }
    // It has to be the program's own word on its own files, where there is one.
    match Command::new("systemd-analyze").arg("--version").output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            eprintln!("systemd-analyze is not here: the units were not verified");
        }
        _ => {
            for name in ["service", "timer"] {
                let unit = units.join(format!("gitlab-aws-driver-reap.{name}"));
                // The program is not where the unit says on this host.
                let driver = root.at(DRIVER);
                let text = fs::read_to_string(&unit).unwrap();
                let text = text.replace(&format!("/{DRIVER}"), driver.to_str().unwrap());
                fs::write(&unit, text).unwrap();
                let mut verify = Command::new("systemd-analyze");
                run(verify.args(["--man=no", "verify"]).arg(&unit));
            }
        }
    }
}

#[test]
fn a_job_runs_through_what_was_installed() {
    for &family in families() {
        let root = Root::new(family);
        root.write(LINK, "the Go driver");
        root.install(1);
        let runner = Runner::builder().driver(&root.at(LINK)).build();
        runner.start();
        let output = runner.run("build_script", "echo installed; exit 42\n");
        assert_eq!(output.code(), Some(1));
        assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
        assert!(output.stdout_text().contains("installed"));
        assert_eq!(runner.cleanup().code(), Some(0));
    }
}
