//! `docs/quick-start.md`: its commands are run in their order, as a reader would paste them, by the AWS CLI against the
//! lab's AWS. What is not AWS's (docker, the bastion's `sudo`) is played by a program that does nothing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use crate::lab;
use crate::lab::aws::Account;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::python;
use crate::lab::runner::Runner;

/// What the lab's AWS cannot answer, and why. Of these commands only the form is checked: whether the CLI would send them.
const FORM_ALONE: [(&str, &str); 8] = [
    (
        "ec2 describe-vpcs",
        "the lab's network is not its account's default one",
    ),
    (
        "ec2 terminate-instances",
        "the lab knows instances of fleets alone",
    ),
    ("ec2 wait", "as above, and images are there at once"),
    (
        "iam attach-role-policy",
        "moto has AWS's own policies only where it is told to load them",
    ),
    ("iam detach-role-policy", "as above"),
    (
        "service-quotas get-service-quota",
        "moto has the quotas of VPC alone",
    ),
    (
        "service-quotas request-service-quota-increase",
        "moto does not have it",
    ),
    ("ssm start-session", "it ends in a shell on the instance"),
];

/// Programs that the page calls and that are not there.
const PLAYED: [&str; 4] = ["curl", "docker", "session-manager-plugin", "sudo"];

/// A block of shell code, and the heading that it stands below.
struct Block {
    heading: String,
    code: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/quick-start.md")).unwrap()
}

/// Returns the page's blocks of shell code.
fn blocks() -> Vec<Block> {
    let page = page();
    let mut blocks = Vec::new();
    let mut heading = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut heading);
        }
        if line == "```sh" {
            let code: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block {
                heading: heading.clone(),
                code: code.join("\n") + "\n",
            });
        }
    }
    blocks
}

/// Returns the code of the blocks below the headings that begin so.
fn below(headings: &[&str]) -> String {
    let chosen = blocks().into_iter().filter(|block| {
        let mut headings = headings.iter();
        headings.any(|heading| block.heading.starts_with(heading))
    });
    let code: String = chosen.map(|block| block.code).collect();
    assert!(!code.is_empty(), "{headings:?}");
    code
}

/// Returns the first two words of each `aws` command in a piece of shell code.
fn commands(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in code.split("aws ").skip(1) {
        let words: Vec<_> = part.split_whitespace().take(2).collect();
        found.insert(words.join(" "));
    }
    found
}

/// Returns the variables that a piece of shell code sets.
fn variables(code: &str) -> Vec<&str> {
    let set = code
        .lines()
        .flat_map(|line| match line.strip_prefix("export ") {
            Some(several) => several.split(' ').collect(),
            None => vec![line],
        });
    let names = set.filter_map(|part| part.split_once('='));
    let capitals = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    names.map(|(name, _)| name).filter(capitals).collect()
}

/// A clone of the repository on a workstation, whose commands go to an account of the lab.
struct Workstation {
    account: Arc<Account>,
    directory: tempfile::TempDir,
}

impl Workstation {
    fn new() -> Self {
        let workstation = Self {
            account: Arc::new(Account::new()),
            directory: lab::temp_dir(),
        };
        workstation.account.called_by_hand();
        for folder in [
            "bin",
            "page",
            "packaging",
            "target/packaging",
            "target/packages",
        ] {
            fs::create_dir_all(workstation.at(folder)).unwrap();
        }
        // Says that it was called; reads a password, has a version, and no more.
        let played = "#!/bin/sh\necho \"${0##*/}\" >>\"$PAGE/played\"\n\
                      case \"${0##*/} $1\" in 'docker login') cat >/dev/null ;; *' --version') echo 1.2.764.0 ;; esac\n";
        for name in PLAYED {
            workstation.program(&format!("bin/{name}"), played);
        }
        // What `packaging/build` would leave: the driver itself, and a package.
        workstation.program("packaging/build", "#!/bin/sh\n");
        let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
        symlink(driver, workstation.at("target/packaging/gitlab-aws-driver")).unwrap();
        let package = "target/packages/gitlab-aws-driver-0.1.0-1.x86_64.rpm";
        fs::write(workstation.at(package), "a package").unwrap();
        symlink(
            root().join("config-examples"),
            workstation.at("config-examples"),
        )
        .unwrap();
        workstation
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn program(&self, path: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(self.at(path), text).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs shell code in the clone. Each of its commands has to succeed.
    fn run(&self, code: &str) {
        fs::write(self.at("script"), code).unwrap();
        let lab = root().join("tests/lab/aws/page.py");
        let mut command = Command::new(python());
        command.arg(lab).arg("script").arg(self.at("page"));
        command.current_dir(self.directory.path()).env_clear();
        command.envs(self.account.environment());
        let path = format!("{}:/usr/bin:/bin", self.at("bin").display());
        command.env("PATH", path).env("HOME", self.directory.path());
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        serde_json::to_writer(process.stdin.take().unwrap(), &self.answers()).unwrap();
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let last = self.calls().pop();
        assert!(output.status.success(), "{said}\nthe last one: {last:?}");
    }

    /// Returns the answers to what the lab cannot answer.
    fn answers(&self) -> Value {
        let none = |(name, _): &(&str, &str)| ((*name).to_owned(), "".into());
        let mut answers: BTreeMap<_, _> = FORM_ALONE.iter().map(none).collect();
        answers.insert(
            "ec2 describe-vpcs".to_owned(),
            self.account.vpc().to_owned(),
        );
        json!(answers)
    }

    /// Returns the exit code and the words of each `aws` command that was run.
    fn calls(&self) -> Vec<(i64, Vec<String>)> {
        let calls = fs::read_to_string(self.at("page/calls")).unwrap_or_default();
        let read = |line: &str| {
            let call: Value = serde_json::from_str(line).unwrap();
            let words = serde_json::from_value(call["words"].clone()).unwrap();
            (call["code"].as_i64().unwrap(), words)
        };
        calls.lines().map(read).collect()
    }

    /// Runs a job by the driver's file that the page wrote, but for what the lab has otherwise: ports and directories. The
    /// driver may do what the page's policy allows, and no more.
    fn assert_a_job_runs(&self, file: &str, policy: &str) {
        let runner = Runner::builder().on_account(&self.account).build();
        let usual = runner.default_config();
        let from = usual.find("[state]").unwrap();
        let to = usual.find("[fargate]").unwrap();
        let top: String = usual
            .lines()
            .filter(|line| line.starts_with("builds_dir") || line.starts_with("cache_dir"))
            .map(|line| format!("{line}\n"))
            .collect();
        runner.write_config(&format!("{top}{}\n{}", self.read(file), &usual[from..to]));
        let policy: Value = serde_json::from_str(&self.read(policy)).unwrap();
        self.account.policy(&policy);
        runner.start();
        runner.assert_runs_and_ends();
        self.account.policy(&Value::Null);
        let task = self.account.tasks().pop().unwrap();
        assert_eq!(task.family, "ci-job");
        assert_eq!(task.provider.as_deref(), Some("FARGATE_SPOT"));
    }
}

#[test]
fn every_command_of_the_page_works_in_its_order() {
    const LAST: &str = "Remove everything";
    let workstation = Workstation::new();
    let all = blocks();
    let (steps, removal): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|block| !block.heading.starts_with(LAST));
    let mut script = String::new();
    for block in &steps {
        script += &block.code;
        // A later step writes these anew.
        if block.heading.starts_with("10.") {
            script += "cp aws-driver.toml fargate.toml; cp policy.json fargate-policy.json\n";
        }
    }
    let kept = variables(&script).join(" ");
    script += &format!("declare -p {kept} >variables\n");
    workstation.run(&script);

    workstation.assert_a_job_runs("fargate.toml", "fargate-policy.json");
    let policy = workstation.read("policy.json");
    assert!(policy.contains("ec2:CreateFleet"), "{policy}");
    let played = workstation.read("page/played");
    let played: BTreeSet<_> = played.lines().collect();
    assert!(played.is_subset(&PLAYED.into()), "{played:?}");

    let removal: String = removal.iter().map(|block| block.code.as_str()).collect();
    workstation.run(&format!(". ./variables\n{removal}"));

    // No command was passed over, and the closed list has nothing that the page does not use.
    let calls = workstation.calls();
    assert!(calls.iter().all(|(code, _)| *code == 0), "{calls:?}");
    let called: BTreeSet<_> = calls
        .iter()
        .map(|(_, words)| words[..2].join(" "))
        .collect();
    assert_eq!(called, commands(&(script + &removal)));
    for (name, _) in FORM_ALONE {
        assert!(called.contains(name), "{name} is not on the page");
    }
}

#[test]
fn a_cluster_keeps_its_capacity_providers_and_its_default_strategy() {
    let workstation = Workstation::new();
    workstation.account.provider("mine");
    workstation
        .account
        .cluster(CLUSTER, &["FARGATE", "mine"], &["mine"]);
    let cluster = below(&["3."]);
    let (_, second) = cluster.split_once("PROVIDERS=").unwrap();
    let names = below(&["1."]);
    workstation.run(&format!(
        "{names}PROVIDERS={second}aws ecs describe-clusters --clusters {CLUSTER} >after.json\n"
    ));
    let after: Value = serde_json::from_str(&workstation.read("after.json")).unwrap();
    let after = &after["clusters"][0];
    let want = json!(["FARGATE", "FARGATE_SPOT", "mine"]);
    assert_eq!(after["capacityProviders"], want);
    assert_eq!(
        after["defaultCapacityProviderStrategy"],
        json!([{ "capacityProvider": "mine", "weight": 1, "base": 0 }])
    );
}

/// The tests above would pass over everything if a wrong command passed.
#[test]
fn a_wrong_command_fails_whether_it_is_sent_or_not() {
    let wrong = [
        "aws ecs describe-cluster --clusters ci",
        "aws ecs describe-clusters --cluster-names ci",
        "aws ecs delete-cluster --cluster not-there",
        "aws ec2 wait instance-stopped --instances i-1",
        "aws ec2 terminate-instances",
        "aws service-quotas get-service-quota --service-code fargate",
        "aws ssm start-session --target",
    ];
    let workstation = Workstation::new();
    let exports = below(&["1."]);
    let mut script = format!("{}\n", exports.lines().next().unwrap());
    for code in wrong {
        script += &format!("if {code}; then echo '{code}' >>passed; fi\n");
    }
    workstation.run(&script);
    let passed = fs::read_to_string(workstation.at("passed"));
    assert!(passed.is_err(), "{passed:?}");
    assert_eq!(workstation.calls().len(), wrong.len());
}
