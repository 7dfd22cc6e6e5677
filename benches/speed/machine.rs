//! The machine of all figures: an OpenSSH server that the driver starts as its `local` machine or that is behind the
//! address of an ECS task, and the plain `ssh` that is the driver's peer on it.
//!
//! The server runs in a mount namespace of its own, in which root's home is an empty directory: a login is then
//! the same everywhere, whatever root's start-up files do here.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::lab::aws::Account;
use crate::lab::write_program;
use crate::measure;

/// Longer than any start of the server that is worth a figure.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);

/// The driver's release binary.
const DRIVER: &str = env!("CARGO_BIN_EXE_gitlab-aws-driver");

const SSHD: &str = "/usr/sbin/sshd";

/// As many variables as GitLab gives an ordinary job.
const VARIABLES: usize = 120;

/// The task definition of all jobs on tasks.
const FAMILY: &str = "speed";

/// Where the address of this host's own machine is.
pub(crate) const HERE: &str = "127.0.0.1";

/// What `ssh` knows the machine by, whatever its address.
const ALIAS: &str = "speed";

/// Which kind of machine the jobs get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// OpenSSH as a process of this host.
    Local,
    /// The server that the driver brings itself, as a process of this host.
    Own,
    /// A task of the lab's ECS.
    Task,
}

/// Everything that the figures share.
pub(crate) struct Bench {
    directory: TempDir,
    port: u16,
    listening: Receiver<Instant>,
    /// The entrypoint ends its server when this is closed, however this process ended.
    _life: File,
    jobs: u64,
    /// Where the tasks are, for [`Place::Task`].
    account: Option<Account>,
    /// The peer's server, where it is not the machine's. It ends with `_life`.
    beside: Option<Child>,
}

/// One job with a machine, from `prepare` until it is dropped.
pub(crate) struct Job<'a> {
    bench: &'a Bench,
    number: u64,
    address: String,
    /// From the server's first sign of life to the end of `prepare`.
    pub(crate) login: Duration,
    ended: bool,
}

impl Bench {
    /// Lays out keys, the server's configuration and the driver's.
    pub(crate) fn new(place: Place) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(
                "wants root: the job's machine is an OpenSSH server with a namespace of its own"
                    .into(),
            );
        }
        for program in [
            SSHD,
            "/usr/bin/ssh",
            "/usr/bin/ssh-keygen",
            "/usr/bin/unshare",
        ] {
            if !Path::new(program).exists() {
                return Err(format!(
                    "{program} is missing (packages openssh-server, openssh-client, util-linux)"
                )
                .into());
            }
        }
        let directory = tempfile::Builder::new().prefix("gad-speed-").tempdir()?;
        // sshd's own: root's home and keys may not be in a directory that others can write.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        // Free until the server takes it, which is soon.
        let port = TcpListener::bind((HERE, 0))?.local_addr()?.port();
        fs::create_dir_all("/run/sshd")?;
        let at = |name: &str| directory.path().join(name);
        for name in ["home", "state", "tmp"] {
            fs::create_dir(at(name))?;
        }
        for name in ["host", "peer"] {
            keygen(&at(name))?;
        }
        for name in ["life", "said"] {
            rustix::fs::mkfifoat(
                rustix::fs::CWD,
                at(name),
                rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            )?;
        }
        let life = measure::both_ends(&at("life"))?;
        let listening = listen(measure::both_ends(&at("said"))?);
        let host = fs::read_to_string(at("host.pub"))?;
        fs::write(at("known_hosts"), format!("{ALIAS} {host}"))?;
        fs::write(at("passwd"), passwd(&at("home"))?)?;
        fs::write(at("sshd_config"), sshd_config(directory.path(), port))?;
        write_program(&at("entrypoint"), &entrypoint(directory.path()));
        let account = (place == Place::Task).then(Account::new);
        let machine = match &account {
            None if place == Place::Own => own(),
            None => local(&at("entrypoint")),
            Some(account) => {
                account.task_definition(FAMILY);
                account.machine_program(FAMILY, &at("entrypoint"));
                tasks(account)
            }
        };
        let config = driver_config(&machine, directory.path(), port);
        fs::write(at("driver.toml"), config)?;
        fs::write(at("delay"), "0")?;
        let beside = match place {
            Place::Own => {
                let server = Command::new(at("entrypoint"))
                    .env("SSH_PUBLIC_KEY", "")
                    .stdin(Stdio::null())
                    .spawn()?;
                listening.recv_timeout(LISTEN_LIMIT)?;
                Some(server)
            }
            Place::Local | Place::Task => None,
        };
        Ok(Self {
            beside,
            directory,
            port,
            listening,
            _life: life,
            jobs: 0,
            account,
        })
    }

    /// Tells whether the machines' server is the driver's own.
    pub(crate) fn is_own(&self) -> bool {
        self.beside.is_some()
    }

    /// Returns the account whose tasks the machines are, if they are tasks.
    pub(crate) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Returns a path in the bench's own directory.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a script for `run`.
    pub(crate) fn script(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.at(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Sets how long the entrypoint of the next machine waits before its server starts.
    pub(crate) fn delay(&self, seconds: f64) -> Result<()> {
        Ok(fs::write(self.at("delay"), format!("{seconds:.3}"))?)
    }

    /// Returns a job that is not prepared: enough for `config`.
    pub(crate) fn new_job(&mut self) -> Result<u64> {
        self.jobs += 1;
        let variables: Vec<String> = (0..VARIABLES)
            .map(|n| {
                format!(
                    r#"{{"key":"CI_BENCH_{n}","value":"{}","public":true}}"#,
                    "v".repeat(60)
                )
            })
            .collect();
        let payload = format!(
            r#"{{"id":{},"job_info":{{"name":"speed","pipeline_id":1}},"variables":[{}]}}"#,
            self.jobs,
            variables.join(",")
        );
        fs::write(self.at("payload.json"), payload)?;
        Ok(self.jobs)
    }

    /// Returns a stage of a job, as GitLab Runner would start it.
    pub(crate) fn stage(&self, job: u64, stage: &str) -> Command {
        let mut command = Command::new(DRIVER);
        command
            .arg("--config")
            .arg(self.at("driver.toml"))
            .args(["custom", stage])
            .env_clear();
        for n in 0..VARIABLES {
            command.env(format!("CUSTOM_ENV_CI_BENCH_{n}"), "v".repeat(60));
        }
        command
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.at("home"))
            .env("BUILD_FAILURE_EXIT_CODE", "1")
            .env("SYSTEM_FAILURE_EXIT_CODE", "2")
            .env("BUILD_EXIT_CODE_FILE", self.at("tmp/code"))
            .env("TMPDIR", self.at("tmp"))
            .env("JOB_RESPONSE_FILE", self.at("payload.json"))
            .env("CUSTOM_ENV_CI_JOB_ID", job.to_string())
            .process_group(0);
        if let Some(account) = &self.account {
            command.envs(account.environment());
        }
        command
    }

    /// Returns plain `ssh` to a server; of an option that is given twice, the first counts.
    pub(crate) fn ssh(
        &self,
        address: &str,
        port: u16,
        options: &[&str],
        command: &[&str],
    ) -> Command {
        let mut ssh = Command::new("ssh");
        let alias = format!("HostKeyAlias={ALIAS}");
        let known_hosts = format!("UserKnownHostsFile={}", self.at("known_hosts").display());
        let all = [
            "KexAlgorithms=curve25519-sha256",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            &alias,
            &known_hosts,
        ];
        ssh.args(["-F", "none"])
            .args(options)
            .args(all.iter().flat_map(|o| ["-o", o]));
        ssh.arg("-i")
            .arg(self.at("peer"))
            .arg("-p")
            .arg(port.to_string())
            .arg(format!("root@{address}"))
            .args(command);
        ssh.env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.at("home"));
        ssh
    }

    /// Prepares a job.
    pub(crate) fn prepare(&mut self) -> Result<Job<'_>> {
        let number = self.new_job()?;
        while self.listening.try_recv().is_ok() {}
        // From here on: what `prepare` left half done is cleaned up too.
        let mut job = Job {
            bench: self,
            number,
            address: HERE.to_owned(),
            login: Duration::ZERO,
            ended: false,
        };
        measure::wall(&mut self.stage(number, "prepare"))?;
        let ready = Instant::now();
        if !self.is_own() {
            let listened = self.listening.recv_timeout(LISTEN_LIMIT)?;
            job.login = ready.saturating_duration_since(listened);
        }
        if let Some(account) = &self.account {
            let task = account.alive().pop().ok_or("no task is alive")?;
            job.address = task.address.ok_or("the task has no address")?;
        }
        Ok(job)
    }
}

impl Job<'_> {
    /// Returns a run of a script on the machine.
    pub(crate) fn run(&self, script: &Path) -> Command {
        let mut command = self.bench.stage(self.number, "run");
        command.arg(script).arg("build_script");
        command
    }

    /// Returns plain `ssh` to the same server, or to the one beside it.
    pub(crate) fn ssh(&self, options: &[&str], command: &[&str]) -> Command {
        let bench = self.bench;
        bench.ssh(&self.address, bench.port, options, command)
    }

    /// Returns the processor time that the keeper of a machine on this host has used, in seconds.
    pub(crate) fn keeper_cpu(&self) -> Result<f64> {
        let jobs = fs::read_dir(self.bench.at("state/jobs"))?;
        for job in jobs {
            let record: serde_json::Value =
                serde_json::from_slice(&fs::read(job?.path().join("record.json"))?)?;
            if let Some(pid) = find(&record, "keeper").and_then(|k| k["pid"].as_u64()) {
                return measure::cpu_of(pid);
            }
        }
        Err("no keeper in the record".into())
    }

    /// Returns the bench.
    pub(crate) fn bench(&self) -> &Bench {
        self.bench
    }

    /// Ends the job.
    pub(crate) fn cleanup(mut self) -> Result<f64> {
        self.ended = true;
        measure::wall(&mut self.bench.stage(self.number, "cleanup"))
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if !self.ended {
            drop(measure::wall(&mut self.bench.stage(self.number, "cleanup")));
        }
    }
}

fn find<'a>(value: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    let object = value.as_object()?;
    object
        .get(name)
        .or_else(|| object.values().find_map(|v| find(v, name)))
}

/// Passes on the moments at which the server says that it listens.
fn listen(said: File) -> Receiver<Instant> {
    let (tell, listening) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(said)
            .lines()
            .map_while(std::result::Result::ok)
        {
            if line.contains("Server listening") && tell.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    listening
}

fn keygen(path: &Path) -> Result<()> {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "speed", "-f"])
        .arg(path);
    measure::wall(&mut command).map(|_| ())
}

/// Returns this host's accounts with another home for root.
fn passwd(home: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in fs::read_to_string("/etc/passwd")?.lines() {
        if line.starts_with("root:") {
            writeln!(text, "root:x:0:0:root:{}:/bin/bash", home.display())?;
        } else {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

fn sshd_config(directory: &Path, port: u16) -> String {
    let directory = directory.display();
    format!(
        "Port {port}\n\
         HostKey {directory}/host\n\
         AuthorizedKeysFile {directory}/authorized_keys\n\
         PidFile none\n\
         UsePAM no\n\
         StrictModes no\n\
         MaxStartups 1000\n\
         PermitRootLogin yes\n\
         PasswordAuthentication no\n\
         UseDNS no\n\
         PrintMotd no\n\
         PrintLastLog no\n"
    )
}

/// Returns the program that is the machine: of this host without arguments, of a task with its addresses.
fn entrypoint(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "#!/bin/sh\n\
         set -eu\n\
         d='{directory}'\n\
         {{ printf '%s\\n' \"$SSH_PUBLIC_KEY\"; cat \"$d/peer.pub\"; }} >\"$d/authorized_keys\"\n\
         sleep \"$(cat \"$d/delay\")\"\n\
         serve='mount --bind \"$1/passwd\" /etc/passwd && \
         exec {SSHD} -D -e -f \"$1/sshd_config\" -o \"ListenAddress=$2\"'\n\
         # A task's machine has namespaces already, and is ended by whoever ends the task.\n\
         [ $# -eq 0 ] || exec sh -c \"$serve\" sh \"$d\" \"$1\" 2>\"$d/said\"\n\
         unshare --mount --propagation private sh -c \"$serve\" sh \"$d\" {HERE} 2>\"$d/said\" &\n\
         # Never written to: ends with the bench.\n\
         read -r _ <\"$d/life\" || :\n\
         kill $!\n"
    )
}

/// What a configuration says of its machines: its first lines and its last.
struct Machine {
    top: String,
    table: String,
}

fn local(entrypoint: &Path) -> Machine {
    Machine {
        top: "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n".to_owned(),
        table: format!("[local]\ncommand = [\"{}\"]\n", entrypoint.display()),
    }
}

fn own() -> Machine {
    Machine {
        top: "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n".to_owned(),
        table: String::new(),
    }
}

fn tasks(account: &Account) -> Machine {
    Machine {
        top: "capacity = [\"fargate\"]\n".to_owned(),
        table: account.table(FAMILY),
    }
}

fn driver_config(machine: &Machine, directory: &Path, port: u16) -> String {
    let Machine { top, table } = machine;
    let directory = directory.display();
    format!(
        "{top}\
         [state]\n\
         directory = \"{directory}/state\"\n\
         [ssh]\n\
         username = \"root\"\n\
         port = {port}\n\
         {table}"
    )
}
