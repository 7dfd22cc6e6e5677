//! The real machines behind the instances, and what they make of user data.

use std::time::Duration;

use serde_json::json;

use super::Form;
use super::Lab;
use crate::lab::PATIENCE;
use crate::lab::aws::InstanceFate;
use crate::lab::port;
use crate::lab::processes;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;

/// Asks the metadata service of the machine that it runs on.
const METADATA: &str = r#"token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token")
get() { curl -s -w '%{http_code}' -H "X-aws-ec2-metadata-token: $token" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/$1"; echo; }
get instance-id; get spot/instance-action; curl -s -w '%{http_code}\n' "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/instance-id""#;

#[test]
fn user_data_bring_the_key_and_the_host_key() {
    for kind in [Kind::OpenSsh, Kind::Dropbear, Kind::Own] {
        let lab = Lab::with(kind);
        let (user_data, host_key) = lab.user_data();
        let instance = lab.launch(&lab.fleet_with(&user_data));
        lab.ssh(&instance, "echo in").assert_success();
        assert_eq!(scanned(&lab), host_key, "{kind:?}");
        lab.terminate(&instance.id);
        port::wait_listening(lab.server.as_ref().unwrap().port(), false, PATIENCE);
        let left = processes::of(lab.directory.path());
        assert!(left.is_empty(), "{kind:?}: {}", left[0]);
    }
}

#[test]
fn without_the_right_user_data_nobody_gets_in() {
    let (right, host_key) = Lab::bare().user_data();
    let no_config = right.replacen("#cloud-config", "#!/bin/sh", 1);
    let nobody = right.replace("name: root", "name: somebody");
    for (user_data, known) in [(no_config, false), (nobody, true), (String::new(), false)] {
        let lab = Lab::with(Kind::OpenSsh);
        let instance = lab.launch(&lab.fleet_with(&user_data));
        let output = lab.ssh(&instance, "true");
        assert_eq!(output.code(), Some(255), "{output}");
        assert!(
            output.stderr_text().contains("Permission denied"),
            "{output}"
        );
        assert_eq!(scanned(&lab) == host_key, known, "{user_data}");
        lab.terminate(&instance.id);
    }
}

#[test]
fn a_stock_image_bans_root_until_the_user_data_lift_it() {
    let drop_in = "write_files:\n  - path: /etc/ssh/sshd_config.d/01-job.conf\n    content: PermitRootLogin prohibit-password\n";
    for (lifted, file, stock, answer) in [
        // Let in by a forced command alone, which says where to go.
        (false, false, true, Some("Please login as the user")),
        (true, false, true, Some("")),
        (false, true, true, Some("Please login as the user")),
        (true, true, true, None),
        (false, false, false, None),
    ] {
        let lab = Lab::with(Kind::OpenSsh);
        let key = lab.client.public_key();
        let mut text = format!("#cloud-config\nssh_authorized_keys:\n  - {key}\n");
        text += if lifted { "disable_root: false\n" } else { "" };
        text += if file { drop_in } else { "" };
        let image = lab.account.add_image(&json!({ "Stock": stock }));
        let own = lab.template("own");
        let own = own.set("LaunchTemplateData.ImageId", &image);
        lab.ok("CreateLaunchTemplate", &own);
        let name = "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName";
        let instance = lab.launch(&lab.fleet_with(&text).set(name, "own"));
        let port = lab.server.as_ref().unwrap().port();
        port::wait_listening(port, true, PATIENCE);
        let ssh = lab.client.spawn_at(&instance.address, port, "echo in");
        match answer {
            None => {
                ssh.wait(PATIENCE).assert_stdout("in\n");
            }
            // sshd cuts off a root who has the right key and no command.
            Some("") => {
                let refused = ssh.wait(PATIENCE).assert_code(255);
                assert!(refused.stdout_text().is_empty(), "{refused}");
            }
            Some(words) => ssh.wait_output(words.as_bytes(), PATIENCE),
        }
        lab.terminate(&instance.id);
    }
}

#[test]
fn a_key_that_is_sent_is_good_for_its_user_and_its_minute() {
    let mut lab = Lab::bare();
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash).instance_connect();
    let server = machine.build(lab.directory.path());
    lab.account.machine_of_instances(None, &server);
    lab.server = Some(server);
    let (user_data, _) = lab.user_data();
    let key = lab.client.public_key();
    let nobody = user_data.replace("name: root", "name: somebody");
    let instance = lab.launch(&lab.fleet_with(&nobody));
    let denied = |what: &str| {
        let output = lab.ssh(&instance, "true").assert_code(255);
        assert!(output.contains("Permission denied"), "{what}: {output}");
    };
    denied("before");
    let send = |id: &str, user: &str, key: &str| {
        let body = json!({ "InstanceId": id, "InstanceOSUser": user, "SSHPublicKey": key });
        let service = "ec2-instance-connect";
        let answer = lab
            .account
            .call(service, "SendSSHPublicKey", &body)
            .unwrap();
        (answer.status, answer.text())
    };
    for (id, user, key, code) in [
        ("i-1", "root", key.as_str(), "InvalidArgsException"),
        (&instance.id, "ro ot", &key, "InvalidArgsException"),
        (
            &instance.id,
            "root",
            "ssh-ed25519 AAAA",
            "InvalidArgsException",
        ),
        (
            &instance.id,
            "root",
            &key.replace("ssh-ed25519", "ssh-dss"),
            "InvalidArgsException",
        ),
        (
            "i-0123456789abcdef0",
            "root",
            &key,
            "EC2InstanceNotFoundException",
        ),
    ] {
        let (status, text) = send(id, user, key);
        assert!(status == 400 && text.contains(code), "{code}: {text}");
    }
    assert_eq!(send(&instance.id, "somebody", &key).0, 200);
    denied("somebody's");
    assert_eq!(send(&instance.id, "root", &key).0, 200);
    lab.ssh(&instance, "true").assert_success();
    lab.account.expire_sent_keys();
    denied("a minute later");
    lab.account.stale_keys(1);
    assert_eq!(send(&instance.id, "root", &key).0, 200);
    denied("too late");

    lab.account.allow(&["ec2:*"]);
    let (status, text) = send(&instance.id, "root", &key);
    assert!(
        status == 400 && text.contains("AccessDeniedException"),
        "{text}"
    );
    lab.account.allow(&["*"]);
    lab.terminate(&instance.id);
    let (status, text) = send(&instance.id, "root", &key);
    let code = "EC2InstanceStateInvalidException";
    assert!(status == 400 && text.contains(code), "{text}");
}

#[test]
fn machines_can_be_deaf_impostors_or_dead() {
    let lab = Lab::with(Kind::OpenSsh);
    let (user_data, host_key) = lab.user_data();
    lab.account.instance_fate(&InstanceFate::never_listens());
    let instance = lab.launch(&lab.fleet_with(&user_data));
    lab.wait_state(&instance.id, "running");
    lab.terminate(&instance.id);
    assert!(lab.account.instances()[0].metadata_endpoint.is_none());

    lab.account.instance_fate(&InstanceFate::other_host_key());
    let instance = lab.launch(&lab.fleet_with(&user_data));
    lab.ssh(&instance, "true").assert_success();
    assert_ne!(scanned(&lab), host_key);
    lab.terminate(&instance.id);

    lab.account.instance_fate(&InstanceFate::dies_booting());
    let instance = lab.launch(&lab.fleet_with(&user_data));
    let ended = lab.wait_state(&instance.id, "terminated");
    assert_eq!(ended.reason.unwrap(), "Client.InstanceInitiatedShutdown");
}

#[test]
fn metadata_tell_of_an_interruption_before_it_comes() {
    let lab = Lab::with(Kind::OpenSsh);
    let (user_data, _) = lab.user_data();
    let instance = lab.launch(&lab.fleet_with(&user_data));
    let seen = lab.ssh(&instance, METADATA).assert_success();
    let lines: Vec<_> = seen.stdout_text().lines().map(String::from).collect();
    assert_eq!(
        lines,
        [format!("{}200", instance.id), "404".into(), "401".into()]
    );
    lab.account.notice(&instance.id, Duration::from_secs(600));
    lab.account.wait("noticed", |state| {
        state.spot_requests[0].status == "marked-for-termination"
    });
    let seen = lab.ssh(&instance, METADATA).assert_success();
    let text = seen.stdout_text();
    assert!(
        text.contains(r#"{"action": "terminate", "time": "20"#),
        "{text}"
    );
    let told = lab.account.instances().remove(0);
    assert_eq!(told.state, "running");
    let asked = told.metadata_asked;
    assert!(
        asked.contains(&"meta-data/spot/instance-action".to_owned()),
        "{asked:?}"
    );
    lab.account.notice(&instance.id, Duration::ZERO);
    let ended = lab.wait_state(&instance.id, "terminated");
    assert_eq!(ended.reason.unwrap(), "Server.SpotInstanceTermination");
    let told = lab.describe(&instance.id);
    assert!(
        told.contains("<code>Server.SpotInstanceTermination</code>"),
        "{told}"
    );
    let request = Form::default().set("SpotInstanceRequestId.1", &ended.spot_request.unwrap());
    let told = lab.ok("DescribeSpotInstanceRequests", &request).text();
    assert!(told.contains("instance-terminated-no-capacity"), "{told}");
}

/// Returns type and key of the host key that the server shows.
fn scanned(lab: &Lab) -> String {
    let instance = lab.account.instances().pop().unwrap();
    let port = lab.server.as_ref().unwrap().port();
    port::wait_listening(port, true, PATIENCE);
    let done = std::process::Command::new("ssh-keyscan")
        .args(["-T", "60", "-t", "ed25519", "-p", &port.to_string()])
        .arg(&instance.address)
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let words: Vec<_> = text.trim_end().split(' ').skip(1).take(2).collect();
    words.join(" ")
}
