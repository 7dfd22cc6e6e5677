//! AWS on loopback: one server for this test binary, an account with addresses of its own for each test.
//!
//! The server is `aws/server.py` (moto, extended), made ready by `tests/run`, or by `tests/lab/aws/setup.sh` alone. It
//! ends when this process does, with all that it started. How to use it from a test that drives the driver:
//!
//! ```ignore
//! let runner = Runner::builder()
//!     .on_fargate()                                             // an account, cluster and task definition of its own
//!     .machine(ServerBuilder::new(Kind::OpenSsh, Login::Bash))  // behind every task's address; this is the default
//!     .capacity(&["fargate-spot", "fargate"])                   // the default: fargate
//!     .build();                                                 // `through_proxy()` works as well
//! let account = runner.account();
//! account.fault(&Fault::lost_answer("RunTask"));                // what goes wrong with calls
//! account.fate(&Fate::failed_to_start("CannotPullContainerError: no such image")); // and with tasks
//! account.timings(&[("pending", 2.0)]);                         // how long a task stays in a state
//! runner.start();
//! assert_eq!(account.calls("RunTask").len(), 2);                // the log of calls
//! let task = account.wait_task("running", |task| task.status == "RUNNING");
//! ```
//!
//! Several jobs share one account by [`RunnerBuilder::on_account`](super::runner::RunnerBuilder::on_account). Task
//! addresses are in 127/8 and are the machine's own: real `sshd`, dropbear or the project's agent, which is process 1
//! of a PID namespace, and whose environment is what ECS would give it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::GONE_WITHIN;
use super::PATIENCE;
use super::servers;

pub(crate) mod ec2;
mod faults;
pub(crate) mod http;
pub(crate) mod overdue;
mod seen;
mod server;
mod waits;

pub(crate) use ec2::InstanceFate;
pub(crate) use ec2::Shortage;
pub(crate) use faults::Fate;
pub(crate) use faults::Fault;
pub(crate) use faults::Meanwhile;
pub(crate) use seen::Called;
pub(crate) use seen::Instance;
pub(crate) use seen::State;
pub(crate) use seen::Task;
pub(crate) use server::Server;
pub(crate) use server::python;

/// The cluster that every account has.
pub(crate) const CLUSTER: &str = "ci";

/// The container of a job, as the Go driver has it.
pub(crate) const CONTAINER: &str = "ci-coordinator";

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// An AWS account in one region, with a network of its own in 127/8; ended when dropped, with all that is in it.
pub(crate) struct Account {
    server: SocketAddr,
    id: String,
    region: String,
    access_key: String,
    secret_key: String,
    vpc: String,
    subnets: Vec<String>,
    cidrs: Vec<String>,
    security_group: String,
    image: String,
    user: String,
    forgiving: AtomicBool,
    by_hand: AtomicBool,
}

impl Account {
    /// Makes an account with two subnets and the cluster [`CLUSTER`], whose providers are `FARGATE` and
    /// `FARGATE_SPOT`, without a default strategy.
    pub(crate) fn new() -> Self {
        Self::on(&SERVER)
    }

    /// Makes an account on a server of its own.
    pub(crate) fn on(server: &Server) -> Self {
        let server = server.address();
        let info = control(server, "POST", "/lab/accounts", &json!({}));
        let text = |name: &str| info[name].as_str().expect("a text").to_owned();
        let texts = |name: &str| {
            serde_json::from_value::<Vec<String>>(info[name].clone()).expect("a list of texts")
        };
        let account = Self {
            server,
            id: text("account"),
            region: text("region"),
            access_key: text("access_key"),
            secret_key: text("secret_key"),
            vpc: text("vpc"),
            subnets: texts("subnets"),
            cidrs: texts("cidrs"),
            security_group: text("security_group"),
            image: text("image"),
            user: text("user"),
            forgiving: AtomicBool::new(false),
            by_hand: AtomicBool::new(false),
        };
        account.cluster(CLUSTER, &["FARGATE", "FARGATE_SPOT"], &[]);
        account
    }

    /// Returns the account's number.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the region.
    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// Says that others than the driver make calls here, which its example policies need not allow.
    pub(crate) fn called_by_hand(&self) {
        self.by_hand.store(true, Ordering::SeqCst);
    }

    /// Returns the network.
    pub(crate) fn vpc(&self) -> &str {
        &self.vpc
    }

    /// Returns the subnets.
    pub(crate) fn subnets(&self) -> &[String] {
        &self.subnets
    }

    /// Returns the subnets' ranges.
    pub(crate) fn cidrs(&self) -> &[String] {
        &self.cidrs
    }

    /// Returns the security group.
    pub(crate) fn security_group(&self) -> &str {
        &self.security_group
    }

    /// Returns the ARN of the user whose key the stages have.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Returns the variables by which the stages find the account.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.server)),
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("AWS_REGION", self.region.clone()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Returns the table `[fargate]` for a task definition, with both subnets.
    pub(crate) fn table(&self, task_definition: &str) -> String {
        format!(
            "[fargate]\nregion = \"{}\"\ncluster = \"{CLUSTER}\"\ntask_definition = \"{task_definition}\"\n\
             subnets = {:?}\nsecurity_groups = [\"{}\"]\n",
            self.region, self.subnets, self.security_group
        )
    }

    /// Makes a cluster with these capacity providers and this default strategy, or changes one.
    pub(crate) fn cluster(&self, name: &str, providers: &[&str], default: &[&str]) {
        self.post(
            "clusters",
            &json!({ "name": name, "providers": providers, "default": default }),
        );
    }

    /// Makes a capacity provider that is none of Fargate's; a cluster has to be given it as well.
    pub(crate) fn provider(&self, name: &str) {
        self.post("providers", &json!({ "name": name }));
    }

    /// Registers a task definition with the container [`CONTAINER`], which needs no role; returns its ARN.
    pub(crate) fn task_definition(&self, family: &str) -> String {
        let container = json!({ "name": CONTAINER, "image": "lab", "essential": true });
        self.register(&json!({ "family": family, "containerDefinitions": [container] }))
    }

    /// Registers a task definition as `RegisterTaskDefinition` would; returns its ARN.
    pub(crate) fn register(&self, definition: &Value) -> String {
        let answer = self.post("definitions", definition);
        answer["arn"].as_str().expect("an ARN").to_owned()
    }

    /// Puts a machine behind the addresses of all tasks of a family (`*`: of all others), with this environment
    /// of its image.
    pub(crate) fn machine(
        &self,
        family: &str,
        server: &servers::Server,
        image: &BTreeMap<String, String>,
    ) {
        let machine = json!({
            "family": family,
            "command": server.command(),
            "environment": image,
            "log": server.log_file(),
        });
        self.post("machines", &machine);
    }

    /// Makes any program the machine of a family's tasks; its arguments are the addresses.
    pub(crate) fn machine_program(&self, family: &str, program: &Path) {
        self.post(
            "machines",
            &json!({ "family": family, "command": [program] }),
        );
    }

    /// Allows the user exactly what a policy document allows.
    pub(crate) fn policy(&self, document: &Value) {
        self.patch(&json!({ "policy": document }));
    }

    /// Allows the user exactly these actions, on anything.
    pub(crate) fn allow(&self, actions: &[&str]) {
        self.policy(&allowing(actions));
    }

    /// Makes a role that may do what the document says (without one: anything); returns its ARN.
    pub(crate) fn role(&self, name: &str, document: Option<&Value>) -> String {
        let answer = self.post("roles", &json!({ "name": name, "policy": document }));
        answer["arn"].as_str().expect("an ARN").to_owned()
    }

    /// Has something go wrong with calls.
    pub(crate) fn fault(&self, fault: &Fault) {
        self.post("faults", &fault.0);
    }

    /// Has nothing go wrong with calls any more.
    pub(crate) fn no_faults(&self) {
        control(self.server, "DELETE", &self.path("faults"), &Value::Null);
    }

    /// Says what becomes of the next task that has no fate yet.
    pub(crate) fn fate(&self, fate: &Fate) {
        self.post("fates", &fate.0);
    }

    /// Has all tasks to come live an ordinary life again.
    pub(crate) fn no_fates(&self) {
        control(self.server, "DELETE", &self.path("fates"), &Value::Null);
    }

    /// Says what becomes of a task that is there, now (or so long from now).
    pub(crate) fn meet(&self, task: &str, fate: &Fate) {
        let mut order = fate.0.clone();
        order["task"] = task.into();
        self.post("meet", &order);
    }

    /// Sets how many seconds tasks stay in states: `provisioning`, `pending`, `activating`, `deactivating`,
    /// `deprovisioning`; and instances: `launching` (they are pending), `booting` (until `sshd` listens), `shutting-down`.
    pub(crate) fn timings(&self, timings: &[(&str, f64)]) {
        let timings: BTreeMap<_, _> = timings.iter().copied().collect();
        self.patch(&json!({ "timings": timings }));
    }

    /// Has new tasks be left out of `ListTasks`, and be `MISSING` for `DescribeTasks`, for so long; and new instances be
    /// left out of a `DescribeInstances` by tag, and be `NotFound` for one by id.
    pub(crate) fn lag(&self, list: Duration, describe: Duration) {
        self.patch(&json!({ "list_lag": list.as_secs_f64(), "missing": describe.as_secs_f64() }));
    }

    /// Has `StopTask` not know new tasks for so long.
    pub(crate) fn stop_lag(&self, lag: Duration) {
        self.patch(&json!({ "stop_lag": lag.as_secs_f64() }));
    }

    /// Starts machines in the state `ACTIVATING` or `RUNNING` (the default).
    pub(crate) fn machine_at(&self, state: &str) {
        self.patch(&json!({ "machine_at": state }));
    }

    /// Has AWS's answers say a time so many seconds later than this host's.
    pub(crate) fn clock(&self, seconds: i64) {
        self.patch(&json!({ "clock": seconds }));
    }

    /// Has AWS's answers say this in place of a time.
    pub(crate) fn clock_says(&self, text: &str) {
        self.patch(&json!({ "clock": text }));
    }

    /// Keeps AWS's documented request limits: who calls more often is throttled.
    pub(crate) fn documented_limits(&self) {
        self.patch(&json!({ "limits": "documented" }));
    }

    /// Sets what addresses tasks get: `ipv4` (the default), `dual`, `ipv6`.
    pub(crate) fn addresses(&self, kind: &str) {
        self.patch(&json!({ "addresses": kind }));
    }

    /// Sets how long process 1 has from SIGTERM to SIGKILL, where the task definition does not say (3 s; on AWS it is
    /// 30 s).
    pub(crate) fn stop_timeout(&self, timeout: Duration) {
        self.patch(&json!({ "stop_timeout": timeout.as_secs_f64() }));
    }

    /// Has the end of this account not mind tasks and instances that live; they are ended all the same.
    pub(crate) fn forgive_leftovers(&self) {
        self.forgiving.store(true, Ordering::SeqCst);
    }

    /// Makes a call of an AWS service that speaks JSON, as the account's user.
    pub(crate) fn call(
        &self,
        service: &str,
        action: &str,
        parameters: &Value,
    ) -> std::io::Result<http::Answer> {
        let target = match service {
            "ecs" => format!("AmazonEC2ContainerServiceV20141113.{action}"),
            _ => format!("{service}.{action}"),
        };
        let headers = [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", &target),
        ];
        self.send(service, &self.access_key, &headers, &parameters.to_string())
    }

    /// Makes a call of an AWS service that speaks forms and XML, with an access key and a session's token.
    pub(crate) fn query(
        &self,
        service: &str,
        key: Option<(&str, &str)>,
        form: &str,
    ) -> std::io::Result<http::Answer> {
        let (key, token) = key.unwrap_or((&self.access_key, ""));
        let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        if !token.is_empty() {
            headers.push(("X-Amz-Security-Token", token));
        }
        self.send(service, key, &headers, form)
    }

    fn send(
        &self,
        service: &str,
        key: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<http::Answer> {
        self.called_by_hand();
        // The lab does not check signatures, only who and for what they say to be.
        let signature = format!(
            "AWS4-HMAC-SHA256 Credential={key}/20260101/{}/{service}/aws4_request, SignedHeaders=host, Signature=0",
            self.region
        );
        let mut all = vec![("Authorization", signature.as_str())];
        all.extend(headers);
        http::request(self.server, "POST", "/", &all, body.as_bytes(), PATIENCE)
    }

    /// Returns what was called that no example policy of the bastion allows.
    fn calls_beyond_the_examples(&self) -> Vec<String> {
        let calls = self.calls("*").into_iter();
        let mut beyond: Vec<String> = calls
            .map(|call| format!("{}:{}", call.service, call.action))
            .filter(|action| !EXAMPLES.contains(action))
            .collect();
        beyond.dedup();
        beyond
    }

    fn path(&self, what: &str) -> String {
        format!("/lab/accounts/{}/{what}", self.id)
    }

    fn post(&self, what: &str, value: &Value) -> Value {
        control(self.server, "POST", &self.path(what), value)
    }

    fn patch(&self, value: &Value) {
        control(
            self.server,
            "PATCH",
            &format!("/lab/accounts/{}", self.id),
            value,
        );
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let quiet = std::thread::panicking() || self.forgiving.load(Ordering::SeqCst);
        let left = match quiet {
            true => Vec::new(),
            false => self.wait_none(GONE_WITHIN, State::alive),
        };
        // What the example policies do not name, nobody's role would have; a test's own calls are no driver's.
        let beyond = match quiet || self.by_hand.load(Ordering::SeqCst) {
            true => Vec::new(),
            false => self.calls_beyond_the_examples(),
        };
        let path = format!("/lab/accounts/{}", self.id);
        // An error means that the server is gone, and everything with it.
        drop(http::request(
            self.server,
            "DELETE",
            &path,
            &[],
            b"",
            PATIENCE,
        ));
        assert!(left.is_empty(), "left behind: {left:#?}");
        assert!(
            beyond.is_empty(),
            "config-examples/iam does not allow {beyond:?}"
        );
    }
}

/// The actions that the bastion's example policies allow.
static EXAMPLES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let policies = [
        include_str!("../../config-examples/iam/bastion.json"),
        include_str!("../../config-examples/iam/bastion-ec2.json"),
        include_str!("../../config-examples/iam/bastion-ecr.json"),
    ];
    let mut all = BTreeSet::new();
    for policy in policies {
        let policy: Value = serde_json::from_str(policy).expect("JSON");
        for statement in policy["Statement"].as_array().expect("statements") {
            let actions = statement["Action"].as_array().expect("actions").iter();
            all.extend(actions.map(|action| action.as_str().expect("a text").to_owned()));
        }
    }
    all
});

/// Returns a policy document that allows these actions on anything.
pub(crate) fn allowing(actions: &[&str]) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": actions, "Resource": "*" },
    ] })
}

/// Makes a request of the control API.
fn control(server: SocketAddr, method: &str, path: &str, value: &Value) -> Value {
    let body = value.to_string();
    let answer = http::request(server, method, path, &[], body.as_bytes(), PATIENCE)
        .expect("the lab's AWS lives");
    let answered = answer.json();
    assert_eq!(answer.status, 200, "{method} {path} {value}: {answered}");
    answered
}
