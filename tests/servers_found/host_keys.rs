//! RSA host keys, servers in FIPS mode, and those that have nothing in common with the driver.

use std::process::Command;
use std::time::Duration;

use crate::PLACE;
use crate::connecting::assert_system_failure;
use crate::lab;
use crate::lab::proxy::Cut;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;
use crate::lab::traces::long;
use crate::scripts::record;

/// Far less than `connect_timeout`.
const AT_ONCE: Duration = Duration::from_secs(30);

fn open_ssh() -> ServerBuilder {
    ServerBuilder::new(Kind::OpenSsh, Login::Bash)
}

/// Runs a job on a machine; returns which kind of host key it is known by.
fn host_key_of_a_job(machine: ServerBuilder) -> String {
    eprintln!("{machine:?}");
    let runner = PLACE.job().machine(machine).build();
    runner.start();
    let ended = runner.run("build_script", "echo here; exit 42");
    ended.assert_code(1).assert_stdout("here\n");
    let line = record(&runner)["machine"]["endpoints"][0]["host_key"].clone();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    let line = line.as_str().unwrap();
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn rsa_host_keys_are_verified() {
    let dropbear = ServerBuilder::new(Kind::Dropbear, Login::Dash);
    let sha_256 = open_ssh().option("HostKeyAlgorithms rsa-sha2-256");
    let mut machines = vec![
        open_ssh().host_key("rsa", 3072),
        sha_256.host_key("rsa", 2048),
        open_ssh().host_key("rsa", 1024),
        dropbear.host_key("rsa", 2048),
    ];
    if long() {
        // Half a minute goes by until it is made.
        machines.push(open_ssh().host_key("rsa", 8192));
    }
    for machine in machines {
        assert_eq!(host_key_of_a_job(machine), "ssh-rsa");
    }
}

#[test]
fn an_rsa_host_key_is_pinned_and_asked_for_again_where_there_are_others_by_then() {
    let machine = open_ssh().host_key("rsa", 2048);
    let runner = PLACE.job().machine(machine).through_proxy().build();
    runner.start();
    let known = runner.server().home().with_file_name("host_key");
    let authorised = runner.server().authorised_key();
    let folder = lab::temp_dir();
    // The machine has made itself another key, which would be preferred.
    let same = open_ssh().option(&format!("HostKey {}", known.display()));
    let same = same.build(folder.path());
    let other = open_ssh().host_key("rsa", 2048).build(folder.path());
    let addresses = runner.machine_addresses();
    let running = [&same, &other].map(|server| server.start_at(&addresses, &authorised));
    let proxy = runner.proxy();
    proxy.set_upstream(same.port());
    proxy.cut(Cut::Reset);
    let ended = runner.run("build_script", "echo here");
    ended.assert_success().assert_stdout("here\n");
    proxy.set_upstream(other.port());
    let refused = runner.run("after_script", "echo never");
    assert_eq!(refused.stderr_text().matches("SHA256:").count(), 2);
    assert_system_failure(&runner, refused, "it shows the host key");
    drop(running);
    proxy.set_upstream(runner.server().port());
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn other_host_keys_are_preferred_to_rsa() {
    let folder = lab::temp_dir();
    let rsa = folder.path().join("rsa");
    lab::ssh::generate(&rsa, "rsa", 2048);
    let also_rsa = format!("HostKey {}", rsa.display());
    for (kind, bits, wanted) in [
        ("ed25519", 256, "ssh-ed25519"),
        ("ecdsa", 384, "ecdsa-sha2-nistp384"),
    ] {
        let machine = open_ssh().option(&also_rsa).host_key(kind, bits);
        assert_eq!(host_key_of_a_job(machine), wanted);
    }
}

/// Prepares a job on a machine that can never be used; returns what is said, which must be soon.
fn refused(machine: ServerBuilder) -> Output {
    eprintln!("{machine:?}");
    let runner = PLACE.job().machine(machine).build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.duration < AT_ONCE, "{output}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    output
}

#[test]
fn servers_without_anything_in_common_are_told_at_once_with_what_they_have() {
    let sha_1 = open_ssh()
        .host_key("rsa", 2048)
        .option("HostKeyAlgorithms ssh-rsa");
    let output = refused(sha_1);
    let output =
        output.assert_contains("it has no host key algorithm that this driver uses, only ssh-rsa");
    output
        .assert_contains("SHA-1")
        .assert_contains("ssh-keygen -A");
    for (lines, what, own) in [
        (
            &["KexAlgorithms diffie-hellman-group14-sha1"][..],
            "it has no key exchange that this driver uses, only diffie-hellman-group14-sha1",
            "KexAlgorithms",
        ),
        (
            &["Ciphers aes256-cbc,3des-cbc"],
            "it has no cipher that this driver uses, only aes256-cbc, 3des-cbc",
            "Ciphers",
        ),
        (
            &["Ciphers aes256-ctr", "MACs hmac-sha1"],
            "it has no MAC that this driver uses, only hmac-sha1",
            "MACs",
        ),
    ] {
        let machine = lines.iter().fold(open_ssh(), |all, line| all.option(line));
        refused(machine).assert_contains(what).assert_contains(own);
    }
}

/// What sshd is told by crypto policies of servers in FIPS mode, beside its own host key.
fn fips(kex: &str, cipher: &str, mac: &str) -> ServerBuilder {
    open_ssh()
        .option(&format!("KexAlgorithms {kex}"))
        .option(&format!("Ciphers {cipher}"))
        .option(&format!("MACs {mac}"))
}

#[test]
fn servers_with_nist_curves_and_groups_alone_run_jobs() {
    for (machine, wanted) in [
        (
            fips(
                "ecdh-sha2-nistp256,ecdh-sha2-nistp384",
                "aes256-gcm@openssh.com,aes256-ctr",
                "hmac-sha2-256",
            )
            .host_key("ecdsa", 256),
            "ecdsa-sha2-nistp256",
        ),
        (
            fips("ecdh-sha2-nistp384", "aes256-ctr", "hmac-sha2-512").host_key("ecdsa", 384),
            "ecdsa-sha2-nistp384",
        ),
        (
            fips("ecdh-sha2-nistp521", "aes192-ctr", "hmac-sha2-256").host_key("ecdsa", 521),
            "ecdsa-sha2-nistp521",
        ),
        (
            fips(
                "diffie-hellman-group-exchange-sha256",
                "aes128-ctr",
                "hmac-sha2-256-etm@openssh.com",
            )
            .host_key("rsa", 2048),
            "ssh-rsa",
        ),
        (
            fips(
                "diffie-hellman-group16-sha512",
                "aes128-gcm@openssh.com",
                "umac-64@openssh.com",
            )
            .host_key("rsa", 2048),
            "ssh-rsa",
        ),
    ] {
        assert_eq!(host_key_of_a_job(machine), wanted);
    }
}

#[test]
fn a_server_in_fips_mode_that_takes_no_ed25519_keys_is_named_as_such() {
    let machine = fips(
        "ecdh-sha2-nistp256",
        "aes256-gcm@openssh.com",
        "hmac-sha2-256",
    )
    .host_key("ecdsa", 256)
    .option("PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,rsa-sha2-512");
    let runner = PLACE.job().machine(machine).connect_timeout("1s").build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    let output = output.assert_contains("it does not accept the job's key");
    output.assert_contains("FIPS mode and take no ed25519 keys");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// The crates that one of this workspace's links.
fn linked(package: &str) -> Vec<String> {
    let done = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let names = String::from_utf8(done.stdout).unwrap();
    let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    names.lines().map(first).collect()
}

#[test]
fn the_agent_is_built_without_rsa() {
    let has = |package, name: &str| linked(package).iter().any(|linked| linked == name);
    assert!(has("gitlab-aws-driver", "rsa"));
    assert!(has("gitlab-aws-agent", "russh"));
    assert!(!has("gitlab-aws-agent", "rsa"));
}
