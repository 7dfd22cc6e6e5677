//! The lab's AWS, tested without the driver: a fault that it fails to make, or a limit that it fails to keep, would
//! make every test of the driver's answer to it pass.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::CONTAINER;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::Server;
use crate::lab::servers::ServerBuilder;
use crate::lab::ssh::Client;

mod faults;
mod machines;
mod permissions;
mod tasks;

/// An account with one task definition, and a real machine where asked for.
struct Lab {
    account: Account,
    client: Client,
    server: Option<Server>,
    directory: tempfile::TempDir,
}

impl Lab {
    /// Returns a lab whose tasks are states and no more.
    fn bare() -> Self {
        let directory = lab::temp_dir();
        let account = Account::new();
        account.task_definition("job");
        Self {
            account,
            client: Client::new(directory.path()),
            server: None,
            directory,
        }
    }

    /// Returns a lab whose tasks are that machine.
    fn with(machine: ServerBuilder) -> Self {
        let mut lab = Self::bare();
        let server = machine.build(lab.directory.path());
        let image = BTreeMap::from([("IMAGE_SAYS".to_owned(), "a = \"b\"\nc".to_owned())]);
        lab.account.machine("job", &server, &image);
        lab.server = Some(server);
        lab
    }

    fn ordinary() -> Self {
        Self::with(ServerBuilder::new(Kind::OpenSsh, Login::Bash))
    }

    /// Returns what RunTask takes, for one task on Fargate.
    fn request(&self) -> Value {
        let key = json!({ "name": "SSH_PUBLIC_KEY", "value": self.client.public_key() });
        json!({
            "cluster": CLUSTER,
            "taskDefinition": "job",
            "launchType": "FARGATE",
            "networkConfiguration": { "awsvpcConfiguration": {
                "subnets": self.account.subnets(),
                "securityGroups": [self.account.security_group()],
            } },
            "overrides": { "containerOverrides": [{ "name": CONTAINER, "environment": [key] }] },
        })
    }

    fn ecs(&self, action: &str, parameters: &Value) -> Value {
        let answer = self.account.call("ecs", action, parameters).unwrap();
        let value = answer.json();
        assert_eq!(answer.status, 200, "{action}: {value}");
        value
    }

    /// Makes a call that must be refused; returns the error.
    fn refused(&self, action: &str, parameters: &Value) -> Value {
        let answer = self.account.call("ecs", action, parameters).unwrap();
        assert!(answer.status >= 400, "{action}: {}", answer.text());
        answer.json()
    }

    /// Starts one task; returns its ARN.
    fn run_task(&self, request: &Value) -> String {
        let answer = self.ecs("RunTask", request);
        assert_eq!(answer["failures"], json!([]), "{answer}");
        arn(&answer["tasks"][0])
    }

    fn describe(&self, task: &str) -> Value {
        let parameters = json!({ "cluster": CLUSTER, "tasks": [task], "include": ["TAGS"] });
        self.ecs("DescribeTasks", &parameters)["tasks"][0].clone()
    }

    fn stop(&self, task: &str, reason: &str) {
        self.ecs(
            "StopTask",
            &json!({ "cluster": CLUSTER, "task": task, "reason": reason }),
        );
    }

    fn wait_status(&self, task: &str, status: &str) -> Value {
        self.account.wait_task(status, |seen| {
            assert!(
                seen.arn != task || status == "STOPPED" || seen.status != "STOPPED",
                "{seen:?}"
            );
            seen.arn == task && seen.status == status
        });
        self.describe(task)
    }

    fn list(&self, parameters: &Value) -> Vec<String> {
        let answer = self.ecs("ListTasks", parameters);
        serde_json::from_value(answer["taskArns"].clone()).unwrap()
    }

    /// Runs a command by real ssh at an address of the machine, once that listens.
    fn ssh(&self, address: &str, command: &str) -> lab::stage::Output {
        let port = self.server.as_ref().unwrap().port();
        lab::port::wait_listening(port, true, PATIENCE);
        self.client
            .spawn_at(address, port, command)
            .wait(PATIENCE)
            .assert_success()
    }
}

fn arn(task: &Value) -> String {
    task["taskArn"].as_str().unwrap().to_owned()
}

/// Returns the value with a change: `null` takes the parameter away.
fn with(value: &Value, path: &str, change: Value) -> Value {
    let mut value = value.clone();
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = if parent.is_empty() {
        &mut value
    } else {
        value.pointer_mut(&format!("/{parent}")).unwrap()
    };
    if change.is_null() {
        parent.as_object_mut().unwrap().remove(name);
    } else {
        parent[name] = change;
    }
    value
}

/// Returns a detail of the task's attached interface.
fn detail(task: &Value, name: &str) -> Option<String> {
    let details = task["attachments"][0]["details"].as_array()?.iter();
    let found = details.clone().find(|detail| detail["name"] == name)?;
    Some(found["value"].as_str()?.to_owned())
}

/// Returns how long something took, and what it gave.
fn timed<T>(action: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = action();
    (began.elapsed(), result)
}
