//! The first command on a container machine: what it brings back, and the watchdog that it leaves.
//!
//! Every machine here runs in a process namespace of its own, by an init of its own: outside of one the watchdog
//! would end this host, which it refuses.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use gitlab_aws_driver::machine::Endpoint;
use gitlab_aws_driver::machine::FarSide;
use gitlab_aws_driver::machine::environment::Missing;
use gitlab_aws_driver::script::first_command::FirstAnswer;
use gitlab_aws_driver::script::first_command::Unable;
use gitlab_aws_driver::script::first_command::Watchdog;
use gitlab_aws_driver::script::first_command::run_first_command;
use gitlab_aws_driver::ssh::connect::connect;
use gitlab_aws_driver::ssh::keys::JobKey;
use gitlab_aws_driver::ssh::session::Event;
use gitlab_aws_driver::ssh::session::Session;

use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::servers;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::Server;
use crate::lab::servers::ServerBuilder;
use crate::lab::tools;
use crate::process_limit::Shell;
use crate::process_limit::bash_as_sh;
use crate::process_limit::cgroup::Group;

/// Later than any test ends.
const LATE: Duration = Duration::from_secs(3600);
/// From the deadline to the end of the most stubborn machine that can be ended.
const END_LIMIT: Duration = Duration::from_secs(40);

/// The server is process 1, as with `exec` at the end of an entrypoint.
const SERVER_IS_INIT: &str = "exec \"$1\"";
/// An entrypoint that waits for its server: no signal reaches it.
const SHELL_IS_INIT: &str = "\"$1\" & wait $!; echo waited";
/// The same, with something else to wait for afterwards.
const SHELL_WITH_MORE: &str = "\"$1\" & sleep 600; echo waited";
/// What tini does.
const TINI: &str = "trap 'kill $p' TERM; \"$1\" & p=$!; wait $p; wait $p";
/// Nothing that can be ended from inside ends it. The server listens only once process 1 is what it stays.
const STUBBORN: &str = "(until [ \"$(cat /proc/1/comm)\" = sleep ]; do sleep 0.01; done; exec \"$1\") & \
                        exec sleep 600";

/// A container: ends with all its processes when dropped.
struct Container {
    init: Option<Child>,
    server: Server,
    key: JobKey,
    _folder: tempfile::TempDir,
}

impl Container {
    fn start(machine: ServerBuilder, init: &str) -> Self {
        Self::start_by(machine, &["--mount-proc"], init)
    }

    fn start_by(machine: ServerBuilder, options: &[&str], init: &str) -> Self {
        let folder = crate::lab::temp_dir();
        let server = machine.build(folder.path());
        // A login that is not root has to come that far.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let key = JobKey::generate().unwrap();
        let child = Command::new(tools::program("unshare"))
            .args(["--fork", "--pid", "--mount", "--kill-child"])
            .args(options)
            .args(["/bin/sh", "-c", init, "sh"])
            .args(server.command())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SSH_PUBLIC_KEY", key.public_line().unwrap())
            .env("IMAGE", "of the 'task'\n")
            .env("odd.name", "too")
            .env("FOLDER", folder.path())
            .env("PORT", server.port().to_string())
            .env("AGENT", agent())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            init: Some(child),
            server,
            key,
            _folder: folder,
        }
    }

    /// Logs in and does something there.
    fn session<T>(&self, act: impl AsyncFnOnce(&Session) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint {
                roles: Vec::new(),
                host: "127.0.0.1".into(),
                port: self.server.port(),
                user: "root".into(),
                host_key: None,
                inside: None,
                far_side: FarSide::Login,
                socket: None,
            };
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let session = connect(&endpoint, &self.key, || deadline).await.unwrap();
            let done = act(&session).await;
            session.hang_up().await;
            done
        })
    }

    fn welcome(&self, deadline: Duration) -> FirstAnswer {
        self.session(async |session| run_first_command(session, deadline).await.unwrap())
    }

    /// Runs a command and returns its standard output, without what the login shell says before.
    fn run(&self, command: &str) -> String {
        let command = format!("echo; echo it begins; {command}");
        self.session(async |session| {
            let (_sender, mut receiver) = session.exec(command.into_bytes()).await.unwrap();
            let mut output = Vec::new();
            loop {
                match receiver.next().await {
                    Event::Out(data) => output.extend_from_slice(&data),
                    Event::Err(_) => {}
                    Event::Ended | Event::Lost => break,
                }
            }
            let text = String::from_utf8_lossy(&output);
            // One that ends its own login may be too quick for its output.
            let own = text.split_once("it begins\n");
            own.map(|(_, own)| own.to_owned()).unwrap_or_default()
        })
    }

    /// Returns the directories in /proc of the watchdogs.
    fn watchdogs(&self) -> Vec<String> {
        let found = self.run("grep -ls 'gad-watch[d]og' /proc/[0-9]*/cmdline");
        let found = found.lines().filter_map(|l| l.strip_suffix("/cmdline"));
        found.map(String::from).collect()
    }

    /// Waits until there is one watchdog: while it starts its sleep there seem to be two.
    fn watchdog(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match &self.watchdogs()[..] {
                [one] => return one.clone(),
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
        }
    }

    /// Waits for the container's end.
    fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let (tell, told) = mpsc::channel();
        let mut child = self.init.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let waiter: JoinHandle<()> = std::thread::spawn(move || {
            tell.send(child.wait().unwrap()).ok();
        });
        let status = told.recv_timeout(within).ok();
        if status.is_none() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        waiter.join().unwrap();
        status
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(mut child) = self.init.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn agent() -> std::path::PathBuf {
    Path::new(env!("CARGO_BIN_EXE_gitlab-aws-driver")).with_file_name("gitlab-aws-agent")
}

/// Does something for each, all at once: it is mostly waiting.
fn at_once<T: Send + 'static>(
    all: impl IntoIterator<Item = T>,
    act: impl Fn(T) + Clone + Send + 'static,
) {
    let started = all.into_iter().map(|one| {
        let act = act.clone();
        std::thread::spawn(move || act(one))
    });
    for thread in started.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

/// Machines of all servers and shells, with much and with little on PATH.
fn machines() -> Vec<ServerBuilder> {
    let ordinary = servers::ALL.map(|(kind, login)| ServerBuilder::new(kind, login));
    let small = [Login::Bash, Login::Dash, Login::Busybox].map(|login| {
        let machine = ServerBuilder::new(Kind::OpenSsh, login);
        machine.busybox_only().noise("FirstAnswer!\nno end")
    });
    ordinary.into_iter().chain(small).collect()
}

#[test]
fn a_container_is_welcomed() {
    at_once(machines(), |machine| {
        let container = Container::start(machine, SHELL_IS_INIT);
        let first = container.welcome(LATE);
        assert_eq!((first.uid, first.watchdog), (0, Watchdog::Set));
        let environment = first.environment.unwrap();
        let prelude = String::from_utf8(environment.prelude()).unwrap();
        assert!(
            prelude.contains("export IMAGE='of the '\\''task'\\''\n'\n"),
            "{prelude}"
        );
        assert!(prelude.contains("odd.name=too"), "{prelude}");
        assert!(!prelude.contains("SSH_PUBLIC_KEY"), "{prelude}");
        let watchdog = container.watchdog();
        // Once more, after a cut: it stays the only one.
        let second = container.welcome(Duration::from_secs(1));
        assert_eq!(second.watchdog, Watchdog::Running);
        assert_eq!(second.environment.unwrap(), environment);
        assert_eq!(container.watchdog(), watchdog);
        // Nothing of the connection, or of the disk, is held.
        let open = container.run(&format!(
            "cd {watchdog}; for i in cwd fd/0 fd/1 fd/2 fd/3 fd/4 fd/5; do readlink $i; done; \
             for i in fd/*; do readlink $i; done | grep /tmp"
        ));
        assert_eq!(open, "/\n/dev/null\n/dev/null\n/dev/null\n");
        // A script's cleaning does not mean it.
        container.run("kill 0");
        container
            .run("pkill sleep; pkill -HUP sh; pkill -P 1 sleep; kill -HUP 0; sleep 600 & kill 0");
        assert_eq!(container.watchdog(), watchdog);
    });
}

#[test]
fn a_server_that_is_process_1_may_have_overwritten_the_environment() {
    let container = Container::start(
        ServerBuilder::new(Kind::OpenSsh, Login::Bash),
        SERVER_IS_INIT,
    );
    let welcome = container.welcome(LATE);
    let missing = Missing::Overwritten("sshd".into());
    assert_eq!(welcome.environment, Err(missing));
    assert_eq!(welcome.watchdog, Watchdog::Set);
    let container = Container::start(
        ServerBuilder::new(Kind::Dropbear, Login::Dash),
        SERVER_IS_INIT,
    );
    assert!(!container.welcome(LATE).environment.unwrap().is_empty());
}

#[test]
fn the_watchdog_ends_the_machine_at_its_deadline() {
    let small = ServerBuilder::new(Kind::OpenSsh, Login::Busybox).busybox_only();
    let bash = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let dropbear = ServerBuilder::new(Kind::Dropbear, Login::Dash);
    let own = ServerBuilder::new(Kind::Own, Login::Dash);
    let mut all = Vec::new();
    for machine in [small, bash, dropbear, own] {
        for init in [SERVER_IS_INIT, SHELL_IS_INIT, SHELL_WITH_MORE, TINI] {
            all.push((machine.clone(), init));
        }
    }
    at_once(all, |(machine, init)| {
        let mut container = Container::start(machine, init);
        // A job that does not end, and does not want to. First: the machine has its time from the welcome on.
        container.run("trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 600; done' </dev/null >/dev/null 2>&1 &");
        let began = Instant::now();
        let deadline = Duration::from_secs(10);
        let welcome = container.welcome(deadline);
        assert_eq!(welcome.watchdog, Watchdog::Set, "{init}");
        let status = container.wait(deadline + END_LIMIT + PATIENCE / 2);
        // In whole seconds of uptime, the second that had begun included.
        assert!(
            began.elapsed() >= deadline - Duration::from_secs(1),
            "{init}"
        );
        let status = status.unwrap_or_else(|| panic!("{init} lives on"));
        assert_ne!(status.signal(), Some(9), "{init}: {status}");
    });
}

#[test]
fn what_cannot_be_ended_from_inside_is_told() {
    let machine = || ServerBuilder::new(Kind::OpenSsh, Login::Dash);
    let watchdog = |container: &Container| container.welcome(LATE).watchdog;
    let container = Container::start(machine(), STUBBORN);
    let unable = Unable::Stubborn("sleep".into());
    assert_eq!(watchdog(&container), Watchdog::Cannot(unable));
    assert!(container.watchdogs().is_empty());

    // A /proc of another namespace names other processes by the same pids.
    let container = Container::start_by(machine(), &[], SHELL_IS_INIT);
    assert_eq!(watchdog(&container), Watchdog::Cannot(Unable::Host));

    let container = Container::start(machine().busybox_only(), SHELL_IS_INIT);
    container.server.remove_applet("setsid");
    assert_eq!(watchdog(&container), Watchdog::Cannot(Unable::Detached));
}

#[test]
fn a_login_that_is_not_root_is_told_so() {
    let init = "cp \"$AGENT\" \"$FOLDER/agent\"; \
                setpriv --reuid 65534 --regid 65534 --clear-groups \"$FOLDER/agent\" --home / \
                --listen 127.0.0.1:\"$PORT\" & wait $!";
    let container = Container::start(ServerBuilder::new(Kind::Own, Login::Dash), init);
    let welcome = container.welcome(LATE);
    assert_eq!(welcome.uid, 65534);
    let missing = Missing::Unreadable { root: false };
    assert_eq!(welcome.environment, Err(missing));
    assert_eq!(welcome.watchdog, Watchdog::Cannot(Unable::Denied));
}

/// A task whose containers share their processes: process 1 is not this container's.
#[test]
fn another_containers_process_1_is_left_alone() {
    let init = "mount -t tmpfs lab /mnt && cd /mnt && \
                for d in bin sbin lib lib64 usr etc dev proc tmp sys root var run home opt work; do \
                [ ! -d /$d ] || { mkdir -p /mnt/$d && mount --rbind /$d /mnt/$d; }; done; \
                chroot /mnt \"$1\" & wait $!";
    let container = Container::start(ServerBuilder::new(Kind::OpenSsh, Login::Dash), init);
    let welcome = container.welcome(LATE);
    assert_eq!(welcome.environment, Err(Missing::Foreign));
    assert_eq!(welcome.watchdog, Watchdog::Cannot(Unable::Shared));
}

/// A chroot, or a container that was hardened too much: it is told, in seconds, by whoever looks first.
#[test]
fn a_machine_without_proc_is_told() {
    at_once(
        [Login::Bash, Login::Dash, Login::Busybox]
            .into_iter()
            .flat_map(|login| [(login, false), (login, true)]),
        |(login, task)| {
            let machine = ServerBuilder::new(Kind::OpenSsh, login);
            let machine = match login {
                Login::Busybox => machine.busybox_only(),
                Login::Bash | Login::Dash => machine,
            };
            let runner = match task {
                true => Runner::builder().on_fargate(),
                false => Runner::builder(),
            };
            let runner = runner
                .machine(machine.first("while umount -l /proc 2>/dev/null; do :; done"))
                .build();
            runner.config().assert_success();
            let output = runner.prepare();
            let output = match task {
                true => output,
                false => {
                    output.assert_success();
                    runner.run("build_script", "echo runs")
                }
            };
            let output = output.assert_code(2);
            assert!(output.stdout.is_empty(), "{output}");
            let output = output.assert_contains("ERROR: the machine has no /proc");
            assert!(output.duration < PATIENCE / 3, "{output}");
            runner.cleanup().assert_success();
            runner.assert_nothing_left();
        },
    );
}

#[test]
fn a_watchdog_without_a_process_left_ends_the_machine() {
    if Group::make("watchdog-probe").is_none() {
        eprintln!("skipped: this host lets nobody make control groups that limit processes");
        return;
    }
    at_once([Shell::Dash, Shell::Bash, Shell::Busybox], |shell| {
        let folder = crate::lab::temp_dir();
        let group = Group::make(&format!("watchdog-{shell:?}")).unwrap();
        let machine = shell.machine(Kind::OpenSsh, &bash_as_sh(folder.path()));
        let machine = machine.first(&group.enter());
        let mut container = Container::start(machine, SHELL_IS_INIT);
        container.run("setsid sh -c 'trap \"\" TERM; while :; do sleep 600; done' </dev/null >/dev/null 2>&1 &");
        let deadline = Duration::from_secs(5);
        assert_eq!(container.welcome(deadline).watchdog, Watchdog::Set);
        container.watchdog();
        // Fewer than there are: none more.
        group.limit(1);
        let status = container.wait(deadline + END_LIMIT + PATIENCE / 2);
        status.unwrap_or_else(|| panic!("{shell:?} lives on"));
    });
}
