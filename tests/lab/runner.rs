//! Plays GitLab Runner for one job: the contract's environment, files, processes and order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::process::Pid;
use rustix::process::Signal;

use super::GONE_WITHIN;
use super::PATIENCE;
use super::aws::Account;
use super::aws::CLUSTER;
use super::aws::Instance;
use super::docker::Docker;
use super::processes;
use super::proxy::Proxy;
use super::servers::Server;
use super::servers::ServerBuilder;
use super::stage::Call;
use super::stage::Output;
use super::stage::Stage;
use super::tools;
use super::traces::Traces;

mod builder;
mod contract;

pub(crate) use builder::RunnerBuilder;

/// GitLab Runner and its one job. When dropped it calls `cleanup`, where the job still needs one, and
/// fails the test if a process of the job is left.
pub(crate) struct Runner {
    builder: RunnerBuilder,
    job: u64,
    state: PathBuf,
    attempt: Mutex<PathBuf>,
    count: AtomicU64,
    status: Mutex<String>,
    prepared: AtomicBool,
    forgiving: AtomicBool,
    server: Option<Server>,
    proxy: Option<Proxy>,
    directory: tempfile::TempDir,
    /// The name of the job's container, once it was prepared.
    container: Mutex<Option<String>>,
}

impl Runner {
    /// Returns an ordinary job on the driver's own server.
    pub(crate) fn builder() -> RunnerBuilder {
        RunnerBuilder::new()
    }

    /// Returns an ordinary job on that machine, behind a proxy.
    pub(crate) fn behind_proxy(machine: ServerBuilder) -> Self {
        Self::builder().machine(machine).through_proxy().build()
    }

    /// Returns the directory that holds all of this job: `builds`, `cache`, `home`, `state`.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.root().join("config.toml")
    }

    /// Replaces the configuration file.
    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.config_file(), text).expect("a writable directory");
    }

    /// Returns the configuration that the builder asked for.
    pub(crate) fn default_config(&self) -> String {
        let root = self.root().display();
        let place = match &self.builder.account {
            Some(_) => format!("capacity = {:?}\n", self.builder.rungs()),
            None => "capacity = [\"local\"]\nallow_jobs_on_this_host = true\n".to_owned(),
        };
        let mut text = format!(
            "{place}\
             builds_dir = \"{root}/builds\"\n\
             cache_dir = \"{root}/cache\"\n\
             {top}\n\
             [state]\n\
             directory = \"{state}\"\n\n\
             [ssh]\n\
             username = \"{user}\"\n\
             connect_timeout = \"{connect}\"\n\
             reconnect_timeout = \"{reconnect}\"\n",
            top = self.builder.top,
            user = self.server.as_ref().map_or("root", Server::user),
            state = self.state.display(),
            connect = self.builder.connect_timeout,
            reconnect = self.builder.reconnect_timeout,
        );
        if let Some(container) = &self.builder.container {
            let (image, agent) = (&container.image, tools::static_agent());
            text += &format!(
                "\n[local]\ncontainer = true\ncontainer_image = {image:?}\nagent = {agent:?}\n"
            );
        }
        if let Some(server) = &self.server {
            let port = self.proxy.as_ref().map_or(server.port(), Proxy::port);
            text += &format!("port = {port}\n\n");
            text += &match &self.builder.account {
                Some(account) => self.builder.service_tables(account, &self.family()),
                None => format!("[local]\ncommand = {:?}\n", server.command()),
            };
        }
        text + "\n" + &self.builder.tables
    }

    /// Returns a file as users of the Go driver have it, for this job on Fargate.
    pub(crate) fn go_driver_file(&self) -> String {
        let account = self.account();
        format!(
            "[Fargate]\n  Cluster = \"{CLUSTER}\"\n  Region = \"{}\"\n  Subnet = \"{}\"\n  SecurityGroup = \"{}\"\n  \
             TaskDefinition = \"{}\"\n[TaskMetadata]\n  Directory = \"{}\"\n[SSH]\n  Username = \"root\"\n  Port = {}\n",
            account.region(),
            account.subnets()[0],
            account.security_group(),
            self.family(),
            self.state_directory().display(),
            self.server().port(),
        )
    }

    /// Returns the job's id.
    pub(crate) fn job(&self) -> u64 {
        self.job
    }

    /// Returns the account of a job on AWS.
    pub(crate) fn account(&self) -> &Account {
        self.builder.account.as_ref().expect("a job on AWS")
    }

    /// Returns the instances of the job, ever.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        let job = self.job.to_string();
        let instances = self.account().instances().into_iter();
        instances
            .filter(|one| one.job() == Some(job.as_str()))
            .collect()
    }

    /// Returns the family of the task definition that is this job's own, on Fargate.
    pub(crate) fn family(&self) -> String {
        format!("ci-job-{}", self.job)
    }

    /// Returns the machine given by [`RunnerBuilder::machine`].
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("a machine was asked for")
    }

    /// Returns the addresses of the job's task; none for a machine of this host.
    pub(crate) fn machine_addresses(&self) -> Vec<String> {
        let tasks = self.builder.account.as_ref().map(|account| account.alive());
        let ours = tasks
            .into_iter()
            .flatten()
            .filter(|task| task.family == self.family());
        ours.filter_map(|task| task.address).collect()
    }

    /// Returns the proxy asked for by [`RunnerBuilder::through_proxy`].
    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a proxy was asked for")
    }

    /// Returns where the machine's `/var/tmp` and `/tmp` are on this host.
    pub(crate) fn far_temp(&self) -> [PathBuf; 2] {
        if self.builder.container.is_some() {
            let root = self.container_root();
            return [root.join("var/tmp"), root.join("tmp")];
        }
        let own = self.server.as_ref().and_then(Server::var_tmp);
        [own.unwrap_or_else(|| "/var/tmp".into()), "/tmp".into()]
    }

    /// Returns what the job leaves on its way; a proxy is not the job's.
    pub(crate) fn traces(&self) -> Traces {
        let mut traces = Traces::of(self.state_directory());
        if let Some(account) = &self.builder.account {
            let family = self.family();
            let tasks = account.alive().into_iter();
            let task = tasks
                .filter(|task| task.family == family)
                .find_map(|task| task.process);
            let instances = self.instances().into_iter();
            let instance = instances
                .filter(Instance::is_alive)
                .find_map(|one| one.process);
            let process = task.or(instance).and_then(Pid::from_raw);
            traces = traces
                .with_var_tmp(self.server().var_tmp())
                .with_process_1(process);
        }
        match &self.proxy {
            Some(proxy) => traces.without_port(proxy.port()),
            None => traces,
        }
    }

    /// Returns the state directory.
    pub(crate) fn state_directory(&self) -> &Path {
        &self.state
    }

    /// Returns the temporary directory of the current try.
    pub(crate) fn attempt(&self) -> PathBuf {
        self.attempt.lock().expect("no panics").clone()
    }

    /// Begins a new try: the stages get a fresh temporary directory from now on.
    pub(crate) fn next_attempt(&self) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let directory = self
            .root()
            .join(format!("tmp/custom-executor{}{count:02}", self.job));
        std::fs::create_dir_all(&directory).expect("a writable directory");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))
            .expect("own directory");
        if self.builder.payload {
            let text = self.payload().to_string();
            write_private(&directory.join("response.json"), text.as_bytes());
        }
        *self.attempt.lock().expect("no panics") = directory;
    }

    /// Sets `CI_JOB_STATUS` for the stages that follow.
    pub(crate) fn set_status(&self, status: &str) {
        status.clone_into(&mut self.status.lock().expect("no panics"));
    }

    /// Returns what `BUILD_EXIT_CODE_FILE` holds.
    pub(crate) fn exit_file(&self) -> Option<Vec<u8>> {
        std::fs::read(self.attempt().join("build_exit_code")).ok()
    }

    /// Runs `config`.
    pub(crate) fn config(&self) -> Output {
        self.spawn_config().wait(PATIENCE)
    }

    /// Runs `prepare`.
    pub(crate) fn prepare(&self) -> Output {
        self.spawn_prepare().wait(PATIENCE)
    }

    /// Runs a script as a sub-stage.
    pub(crate) fn run(&self, stage: &str, script: impl AsRef<[u8]>) -> Output {
        self.spawn_run(stage, script).wait(PATIENCE)
    }

    /// Runs `try` for a script, with this runner's configuration and AWS's variables alone.
    pub(crate) fn try_here(&self, script: &str) -> Output {
        let folder = super::temp_dir();
        let config = self.config_file();
        let try_it = ["try", "--", "sh", "-c", script].map(OsString::from);
        let mut env = self.stage_environment();
        env.retain(|name, _| {
            let name = name.to_string_lossy();
            name.starts_with("AWS_") || name == "PATH" || name == "HOME"
        });
        env.insert("TMPDIR".into(), folder.path().into());
        Call {
            name: format!("try {script}"),
            program: env!("CARGO_BIN_EXE_gitlab-aws-driver").into(),
            args: ["--config".into(), config.into()]
                .into_iter()
                .chain(try_it)
                .collect(),
            env,
            directory: folder.path().to_owned(),
            ..Call::default()
        }
        .spawn()
        .wait(PATIENCE)
    }

    /// Runs `cleanup`.
    pub(crate) fn cleanup(&self) -> Output {
        let output = self.spawn_cleanup().wait(PATIENCE);
        if output.code() == Some(0) {
            self.prepared.store(false, Ordering::SeqCst);
        }
        output
    }

    /// Runs `config` and `prepare`, which must both succeed.
    #[track_caller]
    pub(crate) fn start(&self) {
        self.config().assert_success();
        self.prepare().assert_success();
        if self.server.is_none() && (self.proxy.is_some() || self.builder.container.is_some()) {
            self.found();
        }
    }

    /// Notes where the driver's own machine is. A proxy is put before it, where one was asked for: nobody knew its port.
    fn found(&self) {
        let records = std::fs::read_dir(self.state_directory().join("jobs")).expect("jobs");
        let records = records.flatten().map(|job| job.path().join("record.json"));
        // Of several jobs the one that was prepared last.
        let written = |file: &PathBuf| {
            std::fs::metadata(file)
                .and_then(|file| file.modified())
                .ok()
        };
        let file = records.max_by_key(written).expect("a job");
        let text = std::fs::read(&file).expect("the job's record");
        let mut record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        if self.builder.container.is_some() {
            let token = record["machine"]["place"]["local"]["token"].as_str();
            let name = format!("gitlab-aws-driver-{}", token.expect("a token"));
            *self.container.lock().expect("no panics") = Some(name);
        }
        let Some(proxy) = &self.proxy else { return };
        let endpoint = &mut record["machine"]["endpoints"][0];
        match endpoint["socket"].as_str() {
            Some(socket) => proxy.set_upstream_socket(socket.into()),
            None => {
                let port = endpoint["port"].as_u64().expect("a port");
                proxy.set_upstream(port.try_into().expect("a port"));
            }
        }
        let endpoint = endpoint.as_object_mut().expect("an endpoint");
        endpoint.remove("socket");
        endpoint.insert("port".to_owned(), proxy.port().into());
        let text = serde_json::to_vec(&record).expect("JSON");
        write_private(&file, &text);
    }

    /// Returns the name of the job's container.
    pub(crate) fn container_name(&self) -> String {
        let name = self.container.lock().expect("no panics").clone();
        name.expect("a job in a container")
    }

    /// Returns where the root directory of the job's container is on this host.
    pub(crate) fn container_root(&self) -> PathBuf {
        self.container_process().join("root")
    }

    /// Returns the directory of the container's first process below this host's `/proc`.
    pub(crate) fn container_process(&self) -> PathBuf {
        let name = self.container_name();
        let pid = Docker::shared().run(&["inspect", "--format", "{{.State.Pid}}", &name]);
        PathBuf::from(format!("/proc/{pid}"))
    }

    /// Starts `config`.
    pub(crate) fn spawn_config(&self) -> Stage {
        self.spawn("config", &["config"])
    }

    /// Starts `prepare`.
    pub(crate) fn spawn_prepare(&self) -> Stage {
        self.prepared.store(true, Ordering::SeqCst);
        self.spawn("prepare", &["prepare"])
    }

    /// Starts a script as a sub-stage.
    pub(crate) fn spawn_run(&self, stage: &str, script: impl AsRef<[u8]>) -> Stage {
        let path = self.write_script(script);
        self.spawn_run_file(stage, &path)
    }

    /// Starts the script in a file as a sub-stage.
    pub(crate) fn spawn_run_file(&self, stage: &str, script: &Path) -> Stage {
        let script = script.to_str().expect("a path of the lab");
        self.spawn(&format!("run {stage}"), &["run", script, stage])
    }

    /// Starts `cleanup`.
    pub(crate) fn spawn_cleanup(&self) -> Stage {
        self.spawn("cleanup", &["cleanup"])
    }

    /// Starts `custom` with these arguments, the job's environment and the try's directory.
    pub(crate) fn spawn(&self, name: &str, args: &[&str]) -> Stage {
        let args = args.iter().map(Into::into).collect();
        self.spawn_in(name, args, self.stage_environment(), &self.attempt())
    }

    /// Starts `custom` with all of its own.
    pub(crate) fn spawn_in(
        &self,
        name: &str,
        args: Vec<OsString>,
        env: BTreeMap<OsString, OsString>,
        directory: &Path,
    ) -> Stage {
        let config = self.config_file().into_os_string();
        let mut all = vec!["--config".into(), config, "custom".into()];
        all.extend(args);
        Call {
            name: name.to_owned(),
            program: self.builder.driver.clone(),
            args: all,
            env,
            directory: directory.to_owned(),
            keep: self.builder.keep,
        }
        .spawn()
    }

    /// Runs the driver with a whole command line, the stages' environment and the try's directory.
    pub(crate) fn call(&self, args: &[&str]) -> Output {
        let call = Call {
            name: args.join(" "),
            program: self.builder.driver.clone(),
            args: args.iter().map(OsString::from).collect(),
            env: self.stage_environment(),
            directory: self.attempt(),
            keep: self.builder.keep,
        };
        call.spawn().wait(PATIENCE)
    }

    /// Kills `prepare` as soon as AWS has a call of that action.
    pub(crate) fn kill_prepare_at(&self, action: &str) {
        self.config().assert_success();
        let prepare = self.spawn_prepare();
        self.account().wait_calls(action, 1);
        prepare.signal(Signal::KILL);
        prepare.wait(PATIENCE);
    }

    /// Runs a script, cleans up and checks that nothing is left.
    #[track_caller]
    pub(crate) fn assert_runs_and_ends(&self) {
        self.run("build_script", "echo on\n").assert_stdout("on\n");
        self.cleanup().assert_success();
        self.assert_nothing_left();
    }

    /// Runs a command of the driver's own, with the job's configuration, as the Runner's user would by hand or timer.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        let config = self.config_file().into_os_string();
        let mut all = vec!["--config".into(), config];
        all.extend(args.iter().map(OsString::from));
        let call = Call {
            name: args.join(" "),
            program: self.builder.driver.clone(),
            args: all,
            env: self.stage_environment(),
            directory: self.root().to_owned(),
            keep: self.builder.keep,
        };
        call.spawn().wait(PATIENCE)
    }

    /// Writes a script as the Runner does, each into a new directory.
    pub(crate) fn write_script(&self, script: impl AsRef<[u8]>) -> PathBuf {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let folder = self.attempt().join(format!("script{count:09}"));
        std::fs::create_dir(&folder).expect("a writable directory");
        let path = folder.join("script");
        write_private(&path, script.as_ref());
        path
    }

    /// Returns the live processes of the job; those of the machine carry its directory too.
    pub(crate) fn processes(&self) -> Vec<processes::Process> {
        processes::of(self.root())
    }

    /// Checks that nothing of the job lives any more: no process, and nobody who listens.
    ///
    /// # Panics
    ///
    /// With what there is.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }

    /// Has the end of this runner not mind what the job left behind; it is ended all the same.
    pub(crate) fn forgive_leftovers(&self) {
        self.forgiving.store(true, Ordering::SeqCst);
        if let Some(account) = &self.builder.account {
            account.forgive_leftovers();
        }
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = processes::wait_none(self.root(), GONE_WITHIN)
            .iter()
            .map(ToString::to_string)
            .collect();
        if let Some(account) = &self.builder.account {
            let tasks = account.left(Some(&self.family()));
            left.extend(tasks.iter().map(|task| format!("{task:?}")));
            left.extend(account.ec2_left(Some(self.job)));
        }
        if let Some(name) = &*self.container.lock().expect("no panics") {
            let filter = format!("name={name}");
            let docker = Docker::shared();
            for words in [["ps", "--all"], ["volume", "ls"]] {
                let found = docker.run(&[words[0], words[1], "--quiet", "--filter", &filter]);
                left.extend(found.lines().map(|one| format!("{words:?}: {one}")));
            }
        }
        if let Some(server) = &self.server
            && super::port::is_listening(server.port())
        {
            left.push(format!("somebody listens on port {}", server.port()));
        }
        left
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        let cleanup = self.prepared.load(Ordering::SeqCst).then(|| {
            // The directory may be gone, where a test played that.
            drop(std::fs::create_dir_all(self.attempt()));
            // No panic here: this may be running because of one.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.cleanup()))
        });
        let forgiven = failing || self.forgiving.load(Ordering::SeqCst);
        // What is not minded is not waited for either.
        let left = match forgiven {
            true => Vec::new(),
            false => self.leftovers(),
        };
        for process in processes::of(self.root()) {
            if forgiven {
                eprintln!("left behind, ended now: {process}");
            }
            process.kill();
        }
        if forgiven {
            return;
        }
        let cleanup = cleanup.map(|output| output.expect("the cleanup at the test's end ends"));
        if let Some(output) = cleanup {
            output.assert_success();
        }
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .expect("a writable directory");
    file.write_all(bytes).expect("room on the disk");
}
