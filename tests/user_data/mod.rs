//! What an instance is told at its first boot, shown right by the real cloud-init, sshd and systemd.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use gitlab_aws_driver::error::Error;
use gitlab_aws_driver::error::Kind;
use gitlab_aws_driver::machine::Endpoint;
use gitlab_aws_driver::machine::FarSide;
use gitlab_aws_driver::plan::user_data::UserData;
use gitlab_aws_driver::ssh::connect::connect;
use gitlab_aws_driver::ssh::keys::JobKey;
use gitlab_aws_driver::ssh::session::Event;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::port::Port;
use crate::lab::stage::Call;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::tools;

/// The name of the tree's own user, as Debian's images call theirs.
const IMAGES_OWN: &str = "admin";
/// A directory whose name no quoting may spoil.
const ODD: &str = "/o'd\"d $(id)\\n `é😀\t";
/// Short enough to wait for.
const LIFETIME: Duration = Duration::from_secs(6);
/// Long enough for a whole boot on a busy host.
const LONG_LIFETIME: Duration = Duration::from_secs(30);

/// An instance's keys and what it is told of them.
struct Told {
    job: JobKey,
    host: JobKey,
    text: String,
}

impl Told {
    fn new(login: &str, lifetime: Duration) -> Self {
        let [job, host] = [(); 2].map(|()| JobKey::generate().unwrap());
        let text = UserData {
            login,
            public_key: Some(&job.public_line().unwrap()),
            host_key: &host.to_pem().unwrap(),
            lifetime,
            directories: &["/builds", ODD],
        }
        .render()
        .unwrap();
        Self { job, host, text }
    }
}

#[test]
fn cloud_inits_schema_takes_it_for_every_login() {
    let folder = lab::temp_dir();
    let path = folder.path().join("user-data");
    let schema = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Command::new(tools::program("cloud-init"))
            .args(["schema", "--config-file"])
            .arg(&path)
            .output()
            .unwrap()
    };
    for login in ["root", "admin", "ubuntu", "ec2-user", "_", "Build.Bot_1-"] {
        let done = schema(&Told::new(login, LIFETIME).text);
        assert!(done.status.success(), "{login}: {done:?}");
    }
    // It looks at more than the syntax.
    let wrong = Told::new("root", LIFETIME)
        .text
        .replace("ssh_deletekeys: true", "ssh_deletekeys: 5");
    assert!(!schema(&wrong).status.success());
}

#[test]
fn after_the_first_boot_the_job_gets_in_and_nobody_else() {
    let before = this_host();
    // Three machines at once: they wait for each other's disks more than they compute.
    std::thread::scope(|scope| {
        for login in ["root", IMAGES_OWN, "build.bot-1"] {
            scope.spawn(move || first_boot(login));
        }
    });
    assert_eq!(this_host(), before);
}

fn first_boot(login: &str) {
    let told = Told::new(login, LIFETIME);
    let folder = lab::temp_dir();
    let port = Port::reserve();
    let machine = boot(folder.path(), "stages", &told.text, Some(&port));
    let stage = machine.0.as_ref().unwrap();
    stage.wait_output(b"Server listening", 3 * PATIENCE);

    // Root makes its own directories.
    let make = match login {
        "root" => "mkdir /builds",
        _ => "touch \"$ODD/b\"",
    };
    let odd = ODD.replace('\'', "'\\''");
    let script = format!(
        "ODD='{odd}'; id -un; {make} && touch /builds/a && ls /etc/ssh/ssh_host_* && \
         until [ -s /run/poweroff ]; do sleep 0.1; done && cat /run/poweroff"
    );
    // No other host key is left of the image's or made anew; without systemd a process is the last limit.
    let rest = "/etc/ssh/ssh_host_ed25519_key\n/etc/ssh/ssh_host_ed25519_key.pub\npoweroff -f\n";
    assert_eq!(
        run(&port, login, &told, &script),
        format!("{login}\n{rest}")
    );

    let wrong_host = login_error(&port, login, &told.job, &told.job);
    assert_eq!(wrong_host.kind(), Kind::HostKey, "{wrong_host}");
    let wrong_job = login_error(&port, login, &told.host, &told.host);
    assert_eq!(wrong_job.kind(), Kind::Unreachable, "{wrong_job}");
    assert!(
        wrong_job
            .to_string()
            .contains("does not accept the job's key"),
        "{wrong_job}"
    );

    let sudoers = std::fs::read_to_string(folder.path().join("sudoers")).unwrap();
    let mine = format!("{login} ALL=(ALL) NOPASSWD:ALL");
    assert_eq!(sudoers.contains(&mine), login != "root", "{sudoers}");
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("network config is disabled"), "{log}");
    assert!(!log.contains("Traceback"), "{log}");
}

#[test]
fn an_instance_powers_off_by_itself_whatever_its_job_kills() {
    let folder = lab::temp_dir();
    let began = Instant::now();
    let told = Told::new("admin", LONG_LIFETIME);
    let machine = boot(folder.path(), "systemd", &told.text, None);
    let ended = machine.wait();
    let took = began.elapsed();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("the job kills"), "{ended}\n{log}");
    // 128 and SIGINT: so a process namespace is told that its machine powered off, and not that it crashed.
    assert_eq!(ended.code(), Some(130), "{ended}\n{log}");
    assert!(took >= LONG_LIFETIME, "after {took:?}");
}

/// A machine; ended when dropped.
struct Machine(Option<Stage>);

impl Machine {
    fn wait(mut self) -> Output {
        self.0.take().unwrap().wait(3 * PATIENCE)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(stage) = &self.0 {
            stage.signal(Signal::KILL);
        }
    }
}

fn boot(folder: &Path, how: &str, user_data: &str, port: Option<&Port>) -> Machine {
    tools::need_root();
    for program in ["cloud-init", "systemd-run", "unshare", "sshd"] {
        tools::program(program);
    }
    std::fs::write(folder.join("user-data"), user_data).unwrap();
    let mut args = vec![how.into(), folder.into()];
    args.extend(port.map(|port| port.number().to_string().into()));
    let stage = Call {
        name: format!("tree.sh {how}"),
        program: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/user_data/tree.sh"),
        args,
        env: BTreeMap::from([("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())]),
        directory: folder.to_owned(),
        ..Call::default()
    }
    .spawn();
    Machine(Some(stage))
}

fn endpoint(port: &Port, login: &str, host: &JobKey) -> Endpoint {
    Endpoint {
        roles: Vec::new(),
        host: "127.0.0.1".into(),
        port: port.number(),
        user: login.into(),
        host_key: Some(host.public_line().unwrap()),
        inside: None,
        far_side: FarSide::Login,
        socket: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Logs in as the driver does, to the host key that was sent, and returns what a command says.
fn run(port: &Port, login: &str, told: &Told, command: &str) -> String {
    runtime().block_on(async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let endpoint = endpoint(port, login, &told.host);
        let session = connect(&endpoint, &told.job, || deadline).await.unwrap();
        let (_sender, mut receiver) = session.exec(command.into()).await.unwrap();
        let mut said = Vec::new();
        while let Event::Out(data) | Event::Err(data) = receiver.next().await {
            said.extend_from_slice(&data);
        }
        session.hang_up().await;
        String::from_utf8(said).unwrap()
    })
}

fn login_error(port: &Port, login: &str, host: &JobKey, key: &JobKey) -> Error {
    runtime().block_on(async {
        let at_once = tokio::time::Instant::now();
        let endpoint = endpoint(port, login, host);
        connect(&endpoint, key, || at_once).await.unwrap_err()
    })
}

/// What a first boot changes, as this host has it.
fn this_host() -> BTreeMap<String, Vec<u8>> {
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    let mut found: BTreeMap<_, _> = ["passwd", "shadow", "group", "hostname", "hosts", "fstab"]
        .map(|name| format!("/etc/{name}"))
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect();
    for folder in [
        "/etc/ssh",
        "/etc/ssh/sshd_config.d",
        "/root/.ssh",
        "/etc/sudoers.d",
        "/etc/apt/apt.conf.d",
    ] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path().display().to_string();
            found.insert(path.clone(), read(&path));
        }
    }
    let name = rustix::system::uname().nodename().to_bytes().to_vec();
    found.insert("its name".to_owned(), name);
    for absent in ["/builds", ODD, "/var/lib/cloud/instance"] {
        found.insert(
            absent.to_owned(),
            vec![u8::from(Path::new(absent).exists())],
        );
    }
    found
}
