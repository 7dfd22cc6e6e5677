//! The EC2 side of the lab's AWS, tested without the driver: a refusal that it fails to make, or a machine that lets
//! people in whatever the user data say, would make every test of the driver pass.

use serde_json::Value;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::Instance;
use crate::lab::aws::ec2::TYPES;
use crate::lab::aws::http;
use crate::lab::port;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::Server;
use crate::lab::servers::ServerBuilder;
use crate::lab::ssh;
use crate::lab::ssh::Client;

mod fleets;
mod life;
mod machines;

/// An account with a launch template, and a real machine where asked for.
struct Lab {
    account: Account,
    client: Client,
    server: Option<Server>,
    directory: tempfile::TempDir,
}

/// Parameters in EC2's query form.
#[derive(Clone, Default)]
struct Form(Vec<(String, String)>);

impl Form {
    fn set(mut self, name: &str, value: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, begins: &str) -> Self {
        self.0.retain(|(known, _)| !known.starts_with(begins));
        self
    }

    fn text(&self) -> String {
        let pairs = self.0.iter();
        let pairs: Vec<_> = pairs
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        pairs.join("&")
    }
}

impl Lab {
    /// Returns a lab whose instances are states and no more.
    fn bare() -> Self {
        let directory = lab::temp_dir();
        let lab = Self {
            account: Account::new(),
            client: Client::new(directory.path()),
            server: None,
            directory,
        };
        lab.ok("CreateLaunchTemplate", &lab.template("job"));
        lab
    }

    /// Returns a lab whose instances are a real machine.
    fn with(kind: Kind) -> Self {
        let mut lab = Self::bare();
        let server = ServerBuilder::new(kind, Login::Bash).build(lab.directory.path());
        lab.account.machine_of_instances(None, &server);
        lab.server = Some(server);
        lab
    }

    /// Returns what CreateLaunchTemplate takes.
    fn template(&self, name: &str) -> Form {
        Form::default()
            .set("LaunchTemplateName", name)
            .set("LaunchTemplateData.ImageId", self.account.image())
            .set(
                "LaunchTemplateData.InstanceInitiatedShutdownBehavior",
                "terminate",
            )
            .set(
                "LaunchTemplateData.SecurityGroupId.1",
                self.account.security_group(),
            )
    }

    /// Returns what CreateFleet takes, for one Spot instance of any type in any subnet.
    fn fleet(&self) -> Form {
        let mut form = Form::default()
            .set("Type", "instant")
            .set("TargetCapacitySpecification.TotalTargetCapacity", "1")
            .set(
                "TargetCapacitySpecification.DefaultTargetCapacityType",
                "spot",
            )
            .set(
                "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName",
                "job",
            )
            .set(
                "LaunchTemplateConfigs.1.LaunchTemplateSpecification.Version",
                "1",
            );
        let mut number = 0;
        for kind in TYPES {
            for subnet in self.account.subnets() {
                number += 1;
                let name = format!("LaunchTemplateConfigs.1.Overrides.{number}");
                form = form
                    .set(&format!("{name}.InstanceType"), kind)
                    .set(&format!("{name}.SubnetId"), subnet);
            }
        }
        form
    }

    /// Returns the fleet with user data.
    fn fleet_with(&self, user_data: &str) -> Form {
        self.fleet().set(
            "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateSpecificationUserData",
            &base64(user_data.as_bytes()),
        )
    }

    /// Returns user data that let this lab's client in, and the public half of the host key that they bring.
    fn user_data(&self) -> (String, String) {
        let path = self.directory.path().join("sent_host_key");
        ssh::generate_key(&path);
        let private = std::fs::read_to_string(&path).unwrap();
        let private: String = private
            .lines()
            .map(|line| format!("    {line}\n"))
            .collect();
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        let key = self.client.public_key();
        let text = format!(
            "#cloud-config\nssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {public}\
             disable_root: false\nusers:\n  - name: root\n    ssh_authorized_keys:\n      - {key}\n\
             write_files:\n  - path: /etc/ssh/sshd_config.d/01-job.conf\n    content: PermitRootLogin prohibit-password\n"
        );
        let public: Vec<_> = public.split(' ').take(2).collect();
        (text, public.join(" "))
    }

    fn ok(&self, action: &str, form: &Form) -> http::Answer {
        let answer = self.account.ec2(action, &form.text());
        assert_eq!(answer.status, 200, "{action}: {}", answer.text());
        answer
    }

    /// Makes a call that must be refused with that code; returns the text.
    fn refused(&self, action: &str, form: &Form, code: &str) -> String {
        let answer = self.account.ec2(action, &form.text());
        let text = answer.text();
        assert!(answer.status >= 400, "{action}: {text}");
        assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
        text
    }

    /// Launches one instance, and returns it as it is then.
    fn launch(&self, form: &Form) -> Instance {
        let answer = self.ok("CreateFleet", form).text();
        assert!(answer.contains("<errorSet/>"), "{answer}");
        let id = between(&answer, "<instanceIds><item>", "</item>").unwrap();
        let instances = self.account.instances().into_iter();
        instances.into_iter().find(|one| one.id == id).unwrap()
    }

    fn wait_state(&self, id: &str, state: &str) -> Instance {
        self.account
            .wait_instance(state, |one| one.id == id && one.state == state)
    }

    fn terminate(&self, id: &str) {
        self.ok(
            "TerminateInstances",
            &Form::default().set("InstanceId.1", id),
        );
        self.wait_state(id, "terminated");
    }

    fn describe(&self, id: &str) -> String {
        let form = Form::default().set("InstanceId.1", id);
        self.ok("DescribeInstances", &form).text()
    }

    /// Runs a command by real ssh on the instance, once that listens.
    fn ssh(&self, instance: &Instance, command: &str) -> lab::stage::Output {
        let port = self.server.as_ref().unwrap().port();
        port::wait_listening(port, true, PATIENCE);
        self.client
            .spawn_at(&instance.address, port, command)
            .wait(PATIENCE)
    }
}

/// Returns what stands between two texts, the first time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// Returns what the last call of an action asked for, as the log has it.
fn asked(account: &Account, action: &str) -> Value {
    let mut calls = account.calls(action);
    calls.pop().unwrap().parameters
}

fn encoded(text: &str) -> String {
    let bytes = text.bytes();
    let each = bytes.map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    each.collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() {
                '='
            } else {
                digit.into()
            });
        }
    }
    text
}
