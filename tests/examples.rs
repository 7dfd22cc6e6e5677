//! `config-examples/`: each file is loaded and checked, by the driver itself where it is the driver's.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::port::Port;
use crate::lab::runner::Runner;
use crate::lab::tools;
use crate::lab::traces::until;

/// The largest managed policy that IAM takes, in characters without white space.
const POLICY_LIMIT: usize = 6144;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config-examples")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Returns the names of the files in a folder of the examples.
fn names(below: &str) -> BTreeSet<String> {
    fs::read_dir(folder().join(below))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Returns what `check --json` says of the driver's file.
fn check(name: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
        .arg("--config")
        .arg(folder().join(name))
        .args(["check", "--json"])
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {problem}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap_or_else(|| panic!("{value}"));
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    list.iter().map(text).collect()
}

#[test]
fn every_file_is_named_in_the_readme_and_known_here() {
    let known = [
        "README.md",
        "arm64.toml",
        "docker-builds.toml",
        "ec2-spot.toml",
        "fargate-spot.toml",
        "fargate-then-ec2.toml",
        "gitlab-runner-config.toml",
        "go-driver.toml",
        "local.toml",
        "public-egress.toml",
        "role-per-project.toml",
        "task-definition.json",
        "two-profiles.toml",
    ];
    assert_eq!(names(""), known.map(String::from).into());
    let readme = read("README.md");
    for name in names("").iter().filter(|name| *name != "README.md") {
        assert!(readme.contains(&format!("]({name})")), "{name}");
    }
    for name in names("iam") {
        assert!(readme.contains(&format!("](iam/{name})")), "{name}");
    }
}

#[test]
fn the_drivers_files_are_right_and_draw_no_warning() {
    let drivers = names("")
        .into_iter()
        .filter(|name| name.ends_with(".toml") && name != "gitlab-runner-config.toml");
    for name in drivers {
        let said = check(&name);
        let go = name == "go-driver.toml";
        assert_eq!(
            said["style"],
            if go { "go-driver" } else { "new" },
            "{name}"
        );
        let mut warnings = texts(&said["warnings"]);
        // Where its log goes is there on hosts with GitLab Runner alone.
        warnings.retain(|warning| !warning.contains("cannot write the log file"));
        if go {
            // The one that every user of the Go driver is to see.
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains("there is no [limits]"), "{warnings:?}");
        } else {
            assert_eq!(warnings, Vec::<String>::new(), "{name}");
        }
    }
}

#[test]
fn the_drivers_files_mean_what_they_say() {
    let egress = &check("public-egress.toml")["settings"];
    assert_eq!(egress["fargate"]["enable_public_ip"], true);
    assert_eq!(egress["fargate"]["use_public_ip"], false);
    assert_eq!(texts(&egress["limits"]["roles"]), Vec::<String>::new());

    let roles = &check("role-per-project.toml")["settings"];
    assert_eq!(
        texts(&roles["limits"]["roles"]),
        ["arn:aws:iam::*:role/ci-*"]
    );

    let rungs = |name: &str| texts(&check(name)["settings"]["capacity"]);
    assert_eq!(rungs("ec2-spot.toml"), ["ec2-spot", "ec2"]);
    let ladder = ["fargate-spot", "ec2-spot", "fargate", "ec2"];
    assert_eq!(rungs("fargate-then-ec2.toml"), ladder);
    let builds = &check("docker-builds.toml")["settings"];
    assert_eq!(builds["ec2"]["container"], true);
    assert_eq!(builds["ec2"]["docker_socket"], true);
    assert_eq!(texts(&builds["limits"]["images"])[0], "docker:*");
    let arm = &check("arm64.toml")["settings"];
    assert_eq!(texts(&arm["limits"]["architectures"]), ["x86_64", "arm64"]);
    let profiles = &check("two-profiles.toml")["settings"]["profiles"];
    let names = profiles.as_array().unwrap().iter().map(|p| &p["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["release", "docker"]);
}

#[test]
fn the_runners_file_calls_the_stages_and_gives_them_time() {
    let text = read("gitlab-runner-config.toml");
    let file: toml::Table = text.parse().unwrap();
    let runner = &file["runners"].as_array().unwrap()[0];
    assert_eq!(runner["executor"].as_str(), Some("custom"));
    // A key of [[runners]]: further down the Runner would not see it.
    assert_eq!(runner["safe_directory_checkout"].as_bool(), Some(true));
    let custom = &runner["custom"];
    for stage in ["config", "prepare", "run", "cleanup"] {
        let program = custom[&format!("{stage}_exec")].as_str();
        assert_eq!(program, Some("/opt/gitlab-runner/gitlab-aws-driver"));
        let args = custom[&format!("{stage}_args")].as_array().unwrap();
        let args: Vec<_> = args.iter().map(|arg| arg.as_str().unwrap()).collect();
        let file = "/etc/gitlab-runner/aws-driver.toml";
        assert_eq!(args, ["--config", file, "custom", stage]);
        // The driver knows these words.
        let output = Command::new(env!("CARGO_BIN_EXE_gitlab-aws-driver"))
            .args(args)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{stage}");
    }
    let seconds = |key: &str| custom[key].as_integer().unwrap() as f64;
    let settings = &check("fargate-spot.toml")["settings"];
    let wait = settings["capacity_wait_seconds"].as_f64().unwrap()
        + settings["ssh"]["connect_timeout_seconds"].as_f64().unwrap();
    assert!(seconds("prepare_exec_timeout") > wait + 60.0);
    // A stage gives itself 30 s after SIGTERM.
    assert!(seconds("graceful_kill_timeout") > 30.0);
    assert!(file["shutdown_timeout"].as_integer().unwrap() > 30);
}

fn policy(name: &str) -> Vec<Value> {
    let text = read(&format!("iam/{name}"));
    let length = text.chars().filter(|c| !c.is_whitespace()).count();
    assert!(length < POLICY_LIMIT, "{name}: {length}");
    let policy: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(policy["Version"], "2012-10-17", "{name}");
    policy["Statement"].as_array().unwrap().clone()
}

fn actions(statements: &[Value]) -> BTreeSet<String> {
    let all = statements.iter().flat_map(|s| texts(&s["Action"]));
    all.collect()
}

#[test]
fn every_policy_is_well_formed_and_allows_no_more_than_it_must() {
    for name in names("iam") {
        let trust = name.ends_with("-trust.json");
        let mut ids = BTreeSet::new();
        for statement in policy(&name) {
            let id = statement["Sid"].as_str().unwrap().to_owned();
            let at = format!("{name}: {id}");
            // IAM takes letters and digits only.
            assert!(id.chars().all(|c| c.is_ascii_alphanumeric()), "{at}");
            assert!(ids.insert(id), "{at}");
            let keys: BTreeSet<_> = statement.as_object().unwrap().keys().cloned().collect();
            let known = [
                "Sid",
                "Effect",
                "Principal",
                "Action",
                "Resource",
                "Condition",
            ];
            assert!(keys.iter().all(|k| known.contains(&k.as_str())), "{at}");
            assert_eq!(keys.contains("Principal"), trust, "{at}");
            assert_eq!(keys.contains("Resource"), !trust, "{at}");
            assert_eq!(statement["Effect"], "Allow", "{at}");
            for action in texts(&statement["Action"]) {
                assert!(action.contains(':') && !action.contains('*'), "{at}");
            }
            if trust {
                assert!(statement["Condition"].is_object(), "{at}");
                continue;
            }
            for resource in texts(&statement["Resource"]) {
                if resource == "*" {
                    // For actions that know no resource; then something else has to bound them.
                    assert!(statement["Condition"].is_object(), "{at}");
                } else {
                    assert!(resource.starts_with("arn:aws:"), "{at}: {resource}");
                }
            }
            let actions = texts(&statement["Action"]);
            let condition = |operator: &str, key: &str| {
                statement["Condition"][operator][key]
                    .as_str()
                    .map(String::from)
            };
            for action in &actions {
                let bounded = match action.as_str() {
                    "iam:PassRole" => {
                        condition("StringEquals", "iam:PassedToService").is_some_and(|service| {
                            ["ecs-tasks.amazonaws.com", "ec2.amazonaws.com"].contains(&&*service)
                        })
                    }
                    "ec2:CreateTags" => {
                        statement["Condition"]["StringEquals"]["ec2:CreateAction"].is_array()
                    }
                    "ec2:TerminateInstances" => {
                        let tag = "aws:ResourceTag/gitlab-aws-driver:fleet";
                        condition("StringEquals", tag).is_some()
                    }
                    "ecs:TagResource" => condition("StringEquals", "ecs:CreateAction")
                        .is_some_and(|action| action == "RunTask"),
                    action if action.starts_with("ecs:") => condition("ArnEquals", "ecs:cluster")
                        .is_some_and(|c| c.contains(":cluster/")),
                    _ => true,
                };
                assert!(bounded, "{at}: {action}");
            }
        }
    }
}

#[test]
fn the_bastions_policies_hold_what_the_driver_calls() {
    let minimal = actions(&policy("bastion-go-driver.json"));
    let want = [
        "ecs:DescribeTasks",
        "ecs:RunTask",
        "ecs:StopTask",
        "iam:PassRole",
    ];
    assert_eq!(minimal, want.map(String::from).into());
    let full = policy("bastion.json");
    let added: BTreeSet<_> = actions(&full).difference(&minimal).cloned().collect();
    let want = [
        "ec2:DescribeNetworkInterfaces",
        "ecs:ListTasks",
        "ecs:TagResource",
        "sts:AssumeRole",
        "sts:TagSession",
    ];
    assert_eq!(added, want.map(String::from).into());
    // Both say the same of what both have.
    for statement in policy("bastion-go-driver.json") {
        assert!(full.contains(&statement), "{statement}");
    }
    // What the README says may be left out is there.
    let readme = read("README.md");
    for statement in &full {
        let id = statement["Sid"].as_str().unwrap();
        let needed = actions(std::slice::from_ref(statement)).is_subset(&minimal);
        assert!(needed || readme.contains(&format!("| `{id}` |")), "{id}");
    }
}

#[test]
fn the_policy_for_instances_holds_what_the_driver_calls() {
    let statements = policy("bastion-ec2.json");
    let want = [
        "ec2-instance-connect:SendSSHPublicKey",
        "ec2:CancelSpotInstanceRequests",
        "ec2:CreateFleet",
        "ec2:CreateLaunchTemplate",
        "ec2:CreateTags",
        "ec2:DeleteLaunchTemplate",
        "ec2:DeleteVolume",
        "ec2:DescribeImages",
        "ec2:DescribeInstances",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeLaunchTemplates",
        "ec2:DescribeSpotInstanceRequests",
        "ec2:DescribeSubnets",
        "ec2:DescribeVolumes",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "iam:PassRole",
        "ssm:GetParameters",
    ];
    assert_eq!(actions(&statements), want.map(String::from).into());
}

#[test]
fn the_task_definition_is_one_for_the_driver() {
    let text = read("task-definition.json");
    let definition: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(definition["networkMode"], "awsvpc");
    assert_eq!(texts(&definition["requiresCompatibilities"]), ["FARGATE"]);
    let role = definition["executionRoleArn"].as_str().unwrap();
    let passed = policy("bastion.json");
    let passed = passed.iter().find(|s| s["Sid"] == "PassRolesToTasks");
    let passed = texts(&passed.unwrap()["Resource"]);
    assert!(passed.iter().any(|arn| arn == role));
    assert!(passed.contains(&definition["taskRoleArn"].as_str().unwrap().to_owned()));
    let containers = definition["containerDefinitions"].as_array().unwrap();
    let job = containers.iter().find(|c| c["name"] == "ci-coordinator");
    let job = job.expect("the container that the driver looks for");
    assert_eq!(job["essential"], true);
    // The most that Fargate gives.
    assert_eq!(job["stopTimeout"], 120);
    // These would replace the image's entrypoint, and with it the SSH server.
    assert!(job.get("entryPoint").is_none() && job.get("command").is_none());
    let log = job["logConfiguration"]["options"]["awslogs-group"].as_str();
    let execution = read("iam/execution-role.json");
    assert!(execution.contains(&format!("log-group:{}:*", log.unwrap())));
}

#[test]
fn the_dockerfiles_hold_what_a_job_needs() {
    let want = [
        "Dockerfile.alpine",
        "Dockerfile.debian",
        "README.md",
        "entrypoint.sh",
    ];
    assert_eq!(names("image"), want.map(String::from).into());
    for name in ["Dockerfile.debian", "Dockerfile.alpine"] {
        let text = read(&format!("image/{name}"));
        let mut continued = false;
        for line in text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let first = line.split_whitespace().next().unwrap();
            let known = ["ARG", "FROM", "RUN", "COPY", "ENTRYPOINT", "EXPOSE"];
            assert!(continued || known.contains(&first), "{name}: {line}");
            continued = line.ends_with('\\');
            if let Some(words) = line.strip_prefix("ENTRYPOINT ") {
                let words: Vec<String> = serde_json::from_str(words).unwrap();
                assert!(words[0].ends_with("/tini"), "{name}: {line}");
                assert!(
                    text.contains(&format!("COPY entrypoint.sh {}\n", words[2])),
                    "{name}"
                );
            }
        }
        let installed = text.lines().find(|l| l.contains(" tini")).unwrap();
        for package in ["bash", "ca-certificates", "git", "openssh-server"] {
            assert!(
                installed.contains(&format!(" {package} ")),
                "{name}: {package}"
            );
        }
        assert!(text.contains(" /usr/local/bin/gitlab-runner\n"), "{name}");
    }
    // As the images get it.
    let mode = fs::metadata(folder().join("image/entrypoint.sh")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o111,
        0o111
    );
}

/// Returns a command that runs the entrypoint under a shell as in a container: root's home and sshd's keys are its own.
fn entrypoint(shell: &str, port: u16) -> Vec<String> {
    tools::need_root();
    tools::program("sshd");
    let script = folder().join("image/entrypoint.sh");
    let inside = format!(
        "mount -t tmpfs -o mode=700 none /root && mount -t tmpfs -o mode=755 none /etc/ssh && \
         exec {shell} {} -p {port} -o ListenAddress=127.0.0.1",
        script.display()
    );
    let unshare = tools::program("unshare").display().to_string();
    let words = [unshare.as_str(), "--mount", "/bin/sh", "-c", &inside];
    words.map(String::from).to_vec()
}

#[test]
fn a_job_runs_in_what_the_entrypoint_starts() {
    for shell in ["dash", "busybox sh", "bash"] {
        tools::program(shell.split(' ').next().unwrap());
        let port = Port::reserve();
        let number = port.number();
        let runner = Runner::builder().build();
        let mut text = runner.default_config();
        text = text.replace("[ssh]\n", &format!("[ssh]\nport = {number}\n"));
        let command = entrypoint(shell, number);
        runner.write_config(&format!("{text}\n[local]\ncommand = {command:?}\n"));
        runner.start();
        let script = "umask; ls -a ~/.ssh; git --version; exit 3\n";
        let output = runner.run("build_script", script);
        let said = output.stdout_text();
        assert_eq!(
            output.code(),
            Some(1),
            "{shell}: {said}{}",
            output.stderr_text()
        );
        assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]), "{shell}");
        for want in ["0022\n", "authorized_keys\n", "git version"] {
            assert!(said.contains(want), "{shell}: {want}: {said}");
        }
        assert_eq!(runner.cleanup().code(), Some(0), "{shell}");
    }
}

/// The entrypoint on its own; killed when the test is over.
struct Container {
    process: Child,
    port: Port,
}

impl Container {
    fn start(shell: &str) -> Self {
        let port = Port::reserve();
        let words = entrypoint(shell, port.number());
        let process = Command::new(&words[0])
            .args(&words[1..])
            .env("SSH_PUBLIC_KEY", "ssh-ed25519 AAAA test")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    /// Connects, and returns when the server has said who it is and the entrypoint waits for its end.
    fn connect(&self) -> BufReader<TcpStream> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port.number())) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                assert!(line.starts_with("SSH-2.0-"), "{line}");
                self.wait_heeds_term();
                return stream;
            }
            assert!(Instant::now() < until, "nothing listens");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the entrypoint has set its trap and sleeps: before that the signal would end it alone.
    fn wait_heeds_term(&self) {
        const TERM: u64 = 1 << (15 - 1);
        let path = format!("/proc/{}/status", self.process.id());
        until("the entrypoint handles SIGTERM", PATIENCE, || {
            let status = fs::read_to_string(&path).unwrap();
            let field =
                |name: &'static str| status.lines().find_map(|line| line.strip_prefix(name));
            let caught =
                field("SigCgt:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            let sleeps = field("State:").is_some_and(|state| state.trim().starts_with('S'));
            sleeps && caught.is_some_and(|mask| mask & TERM != 0)
        });
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until the entrypoint has noticed the signal.
    fn noticed(&mut self) {
        let mut errors = BufReader::new(self.process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("told to stop") {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "it ended");
        }
        // sshd writes there too, and must not meet a broken pipe.
        std::thread::spawn(move || drop(errors.read_to_end(&mut Vec::new())));
    }

    fn ended(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        // With nobody connected this ends the server as well.
        self.terminate();
        let until = Instant::now() + PATIENCE;
        while self.process.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > until {
                drop(self.process.kill());
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_entrypoint_ends_at_once_when_nobody_is_connected_and_else_when_they_have_gone() {
    for shell in ["dash", "busybox sh", "bash"] {
        let mut container = Container::start(shell);
        drop(container.connect());
        container.terminate();
        assert_eq!(container.ended(), 0, "{shell}");

        let mut container = Container::start(shell);
        let mut script = container.connect();
        container.terminate();
        container.noticed();
        // The connection lives on: the server answers.
        script.get_mut().write_all(b"SSH-2.0-test\r\n").unwrap();
        let mut answer = [0; 6];
        script.read_exact(&mut answer).unwrap();
        // A packet of type 20, KEXINIT, after its length and that of its padding.
        assert_eq!(answer[5], 20, "{shell}");
        assert!(container.process.try_wait().unwrap().is_none(), "{shell}");
        drop(script);
        assert_eq!(container.ended(), 0, "{shell}");
    }
}

#[test]
fn the_entrypoint_refuses_to_start_without_a_key() {
    let directory = lab::temp_dir();
    let output = Command::new("sh")
        .arg(folder().join("image/entrypoint.sh"))
        .current_dir(directory.path())
        .env_remove("SSH_PUBLIC_KEY")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("SSH_PUBLIC_KEY is not set"), "{said}");
}
