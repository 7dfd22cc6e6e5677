//! What a job shall be like: the choices that a test has, each with the ordinary one as default.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::super::aws::Account;
use super::super::docker::Docker;
use super::super::proxy::Proxy;
use super::super::servers::Kind;
use super::super::servers::Login;
use super::super::servers::ServerBuilder;
use super::super::stage::Keep;
use super::super::tools;
use super::super::write_program;
use super::Runner;

/// Job ids, so that no two jobs of this process share one.
static NEXT_JOB: AtomicU64 = AtomicU64::new(1_000);

/// Which of AWS's services the job's machines are of, where it is on AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Fargate,
    Ec2,
}

/// What a job shall be like.
pub(crate) struct RunnerBuilder {
    pub(super) machine: Option<ServerBuilder>,
    pub(super) container: Option<InContainer>,
    pub(super) account: Option<Arc<Account>>,
    pub(super) service: Service,
    pub(super) capacity: Option<Vec<String>>,
    pub(super) image: BTreeMap<String, String>,
    pub(super) through_proxy: bool,
    pub(super) exit_codes: (String, String),
    pub(super) exit_code_file: bool,
    pub(super) payload: bool,
    pub(super) payload_fields: Vec<(String, serde_json::Value)>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) job_timeout: u64,
    pub(super) environment: BTreeMap<String, Option<String>>,
    pub(super) path_first: Vec<PathBuf>,
    pub(super) ec2_lines: Vec<String>,
    pub(super) connect_timeout: String,
    pub(super) reconnect_timeout: String,
    pub(super) top: String,
    pub(super) tables: String,
    pub(super) state_directory: Option<PathBuf>,
    pub(super) keep: Keep,
    pub(super) driver: PathBuf,
}

/// The container that a job's machine is.
pub(super) struct InContainer {
    pub(super) image: String,
    options: Vec<String>,
}

impl InContainer {
    /// Writes a `docker` that adds the options to the job's own container, and a variable by which its processes are found;
    /// returns its directory.
    fn shim(&self, root: &Path) -> PathBuf {
        let folder = root.join("docker");
        std::fs::create_dir(&folder).expect("a writable directory");
        let (docker, root) = (tools::program("docker"), root.display());
        let options = self.options.join(" ");
        let text = format!(
            "#!/bin/sh\n\
             case \"$*\" in\n\
             *--env=GITLAB_AWS_AGENT*) shift; set -- run --volume={root}:{root} --env=LAB_ROOT={root} {options} \"$@\" ;;\n\
             esac\n\
             exec {} \"$@\"\n",
            docker.display()
        );
        write_program(&folder.join("docker"), &text);
        folder
    }
}

impl RunnerBuilder {
    /// Returns an ordinary job on the driver's own server.
    pub(super) fn new() -> Self {
        // Another build of the driver, an installed package say, can be tested in its place.
        let driver = std::env::var_os("GAD_DRIVER")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_gitlab-aws-driver").into());
        Self {
            machine: None,
            container: None,
            account: None,
            service: Service::Fargate,
            capacity: None,
            image: BTreeMap::new(),
            through_proxy: false,
            exit_codes: ("1".to_owned(), "2".to_owned()),
            exit_code_file: true,
            payload: true,
            payload_fields: Vec::new(),
            variables: BTreeMap::new(),
            job_timeout: 3600,
            environment: BTreeMap::new(),
            path_first: Vec::new(),
            ec2_lines: Vec::new(),
            connect_timeout: "30s".to_owned(),
            reconnect_timeout: "1m".to_owned(),
            top: String::new(),
            tables: String::new(),
            state_directory: None,
            keep: Keep::All,
            driver: driver.into(),
        }
    }

    /// Runs the job on a real server, which the driver starts as `[local] command`; otherwise the
    /// driver starts its own.
    #[must_use]
    pub(crate) fn machine(mut self, machine: ServerBuilder) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Runs the job in a container of that image, of the docker engine that all tests share. A machine that is given by
    /// [`Self::machine`] has no part in it.
    #[must_use]
    pub(crate) fn in_container(mut self, image: fn(&Docker) -> String) -> Self {
        let docker = Docker::shared();
        self.container = Some(InContainer {
            image: image(docker),
            options: Vec::new(),
        });
        self.environment("DOCKER_HOST", Some(&docker.host()))
    }

    /// Adds an option of `docker run` to the job's container, in which the job's root is at the same place as on this host.
    #[must_use]
    pub(crate) fn container_option(mut self, option: &str) -> Self {
        let container = self.container.as_mut().expect("a job in a container");
        container.options.push(option.to_owned());
        self
    }

    /// Runs the job on a Fargate task, in an AWS account of its own: the machine given by [`Self::machine`] (without
    /// it, OpenSSH and bash) is behind the task's address.
    #[must_use]
    pub(crate) fn on_fargate(self) -> Self {
        self.on_account(&Arc::new(Account::new()))
    }

    /// Runs the job on a Fargate task in that account, with a task definition of its own.
    #[must_use]
    pub(crate) fn on_account(mut self, account: &Arc<Account>) -> Self {
        self.account = Some(Arc::clone(account));
        self
    }

    /// Runs the job on an EC2 instance, in an AWS account of its own: the machine given by [`Self::machine`] (without
    /// it, OpenSSH and bash) is behind the instance's address.
    #[must_use]
    pub(crate) fn on_ec2(self) -> Self {
        self.on_ec2_of(&Arc::new(Account::new()))
    }

    /// Runs the job on an EC2 instance in that account.
    #[must_use]
    pub(crate) fn on_ec2_of(mut self, account: &Arc<Account>) -> Self {
        self.service = Service::Ec2;
        self.on_account(account)
    }

    /// Adds lines to the table `[ec2]`; one that has the key already is replaced.
    #[must_use]
    pub(crate) fn ec2_line(mut self, line: &str) -> Self {
        self.ec2_lines.push(line.to_owned());
        self
    }

    /// Sets the rungs of a job on AWS.
    #[must_use]
    pub(crate) fn capacity(mut self, rungs: &[&str]) -> Self {
        self.capacity = Some(rungs.iter().copied().map(String::from).collect());
        self
    }

    /// Returns the rungs of a job on AWS.
    pub(super) fn rungs(&self) -> Vec<String> {
        let usual = match self.service {
            Service::Fargate => "fargate",
            Service::Ec2 => "ec2-spot",
        };
        let usual = || vec![usual.to_owned()];
        self.capacity.clone().unwrap_or_else(usual)
    }

    /// Returns the tables of the services that the rungs need.
    pub(super) fn service_tables(&self, account: &Account, family: &str) -> String {
        let rungs = self.rungs();
        let any = |name: &str| rungs.iter().any(|rung| rung.starts_with(name));
        let mut text = String::new();
        if any("fargate") || any("ecs:") {
            text += &account.table(family);
        }
        if any("ec2") {
            let keys: Vec<_> = self.ec2_lines.iter().map(|line| key_of(line)).collect();
            for line in account.ec2_table().lines() {
                if line.starts_with('[') || !keys.contains(&key_of(line)) {
                    text += &format!("{line}\n");
                }
            }
            for line in &self.ec2_lines {
                text += &format!("{line}\n");
            }
        }
        text
    }

    /// Gives the image of a job on Fargate a variable (`ENV`).
    #[must_use]
    pub(crate) fn image_variable(mut self, name: &str, value: &str) -> Self {
        self.image.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Puts a proxy between the driver and the machine (one that is given by [`Self::machine`]).
    #[must_use]
    pub(crate) fn through_proxy(mut self) -> Self {
        self.through_proxy = true;
        self
    }

    /// Sets `BUILD_FAILURE_EXIT_CODE` and `SYSTEM_FAILURE_EXIT_CODE`.
    #[must_use]
    pub(crate) fn exit_codes(mut self, build: &str, system: &str) -> Self {
        self.exit_codes = (build.to_owned(), system.to_owned());
        self
    }

    /// Gives no `BUILD_EXIT_CODE_FILE`, as Runners before 17.9.
    #[must_use]
    pub(crate) fn without_exit_code_file(mut self) -> Self {
        self.exit_code_file = false;
        self
    }

    /// Gives no `JOB_RESPONSE_FILE`, as Runners before 14.1.
    #[must_use]
    pub(crate) fn without_payload(mut self) -> Self {
        self.payload = false;
        self
    }

    /// Sets a field of the payload, `image` say.
    #[must_use]
    pub(crate) fn payload_field(mut self, name: &str, value: serde_json::Value) -> Self {
        self.payload_fields.push((name.to_owned(), value));
        self
    }

    /// Sets how many seconds the job may take.
    #[must_use]
    pub(crate) fn job_timeout(mut self, seconds: u64) -> Self {
        self.job_timeout = seconds;
        self
    }

    /// Sets a CI/CD variable of the job.
    #[must_use]
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a variable of the stages' own environment, or removes one.
    #[must_use]
    pub(crate) fn environment(mut self, name: &str, value: Option<&str>) -> Self {
        let value = value.map(String::from);
        self.environment.insert(name.to_owned(), value);
        self
    }

    /// Puts a directory at the front of PATH, the machine's included.
    #[must_use]
    pub(crate) fn path_first(mut self, directory: &Path) -> Self {
        self.path_first.push(directory.to_owned());
        self
    }

    /// Sets `[ssh] connect_timeout`.
    #[must_use]
    pub(crate) fn connect_timeout(mut self, timeout: &str) -> Self {
        self.connect_timeout = timeout.to_owned();
        self
    }

    /// Sets `[ssh] reconnect_timeout`.
    #[must_use]
    pub(crate) fn reconnect_timeout(mut self, timeout: &str) -> Self {
        self.reconnect_timeout = timeout.to_owned();
        self
    }

    /// Adds a line to the configuration, before its tables.
    #[must_use]
    pub(crate) fn config_line(mut self, line: &str) -> Self {
        self.top += &format!("{line}\n");
        self
    }

    /// Adds tables to the end of the configuration.
    #[must_use]
    pub(crate) fn config_tables(mut self, text: &str) -> Self {
        self.tables += text;
        self
    }

    /// Shares a state directory with other jobs.
    #[must_use]
    pub(crate) fn state_directory(mut self, directory: &Path) -> Self {
        self.state_directory = Some(directory.to_owned());
        self
    }

    /// Keeps only a digest of the stages' outputs.
    #[must_use]
    pub(crate) fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Runs another program in the driver's place.
    #[must_use]
    pub(crate) fn driver(mut self, program: &Path) -> Self {
        self.driver = program.to_owned();
        self
    }

    /// Makes the job's directories, configuration and machine; starts nothing of the driver yet.
    pub(crate) fn build(self) -> Runner {
        let directory = super::super::temp_dir();
        let root = directory.path();
        for folder in ["builds", "cache", "home"] {
            std::fs::create_dir(root.join(folder)).expect("a writable directory");
        }
        let machine = self.machine.clone().filter(|_| self.container.is_none());
        let machine = machine.or_else(|| {
            let usual = || ServerBuilder::new(Kind::OpenSsh, Login::Bash);
            self.account.is_some().then(usual)
        });
        let server = machine.map(|mut machine| {
            if self.account.is_some() {
                machine = machine.own_var_tmp();
            }
            for folder in &self.path_first {
                machine = machine.path_first(folder);
            }
            machine.build(root)
        });
        let mut builder = self;
        if let Some(container) = &builder.container {
            let shim = container.shim(root);
            builder = builder.path_first(&shim);
        }
        let proxy = builder
            .through_proxy
            .then(|| match (&server, &builder.account) {
                (Some(server), Some(_)) => Proxy::start_before_all(server.port()),
                (Some(server), None) => Proxy::start(server.port()),
                // Where it leads is known when the machine is up.
                (None, _) => Proxy::start(0),
            });
        let state = builder.state_directory.clone();
        let runner = Runner {
            job: NEXT_JOB.fetch_add(1, Ordering::Relaxed),
            state: state.unwrap_or_else(|| root.join("state")),
            attempt: Mutex::new(PathBuf::new()),
            count: AtomicU64::new(0),
            status: Mutex::new("running".to_owned()),
            prepared: AtomicBool::new(false),
            forgiving: AtomicBool::new(false),
            server,
            proxy,
            builder,
            directory,
            container: Mutex::default(),
        };
        if let (Some(account), Some(server)) = (&runner.builder.account, &runner.server) {
            account.task_definition(&runner.family());
            account.machine(&runner.family(), server, &runner.builder.image);
            account.machine_of_instances(Some(runner.job), server);
        }
        runner.write_config(&runner.default_config());
        runner.next_attempt();
        runner
    }
}

/// Returns the key of a line of a TOML table.
fn key_of(line: &str) -> &str {
    line.split_once('=').map_or(line, |(key, _)| key.trim())
}
