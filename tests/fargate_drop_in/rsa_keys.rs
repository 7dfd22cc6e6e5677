//! Jobs whose key is an RSA one: older Go drivers made no other.

use std::path::Path;

use super::Place;
use super::prepared_jobs::Inherited;
use crate::lab;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::scripts::record;

/// Makes an RSA key as the Go driver does; returns its public line and its text.
fn rsa_key(bits: u32) -> (String, String) {
    let folder = lab::temp_dir();
    let file = folder.path().join("key");
    lab::ssh::generate(&file, "rsa", bits);
    let read = |file: &Path| std::fs::read_to_string(file).unwrap();
    (
        read(&file.with_extension("pub")).trim_end().to_owned(),
        read(&file),
    )
}

#[test]
fn a_job_with_an_rsa_key_of_the_go_driver_runs_and_ends() {
    let open_ssh = || ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let takes = |name: &str| open_ssh().option(&format!("PubkeyAcceptedAlgorithms {name}"));
    let machines = [
        // What old images have, and no other host key either.
        (4096, open_ssh().host_key("rsa", 2048)),
        (2048, takes("rsa-sha2-256")),
        (2048, takes("rsa-sha2-512")),
        (2048, ServerBuilder::new(Kind::Dropbear, Login::Dash)),
    ];
    for (bits, machine) in machines {
        eprintln!("{bits} bits, {machine:?}");
        let (public, private) = rsa_key(bits);
        let place = Place::new();
        let builder = place.builder().machine(machine);
        let job = Inherited::on(place, builder, &public, &private);
        let ended = job.runner.run("build_script", "echo built; exit 42");
        ended.assert_code(1).assert_stdout("built\n");
        assert_eq!(job.runner.exit_file().as_deref(), Some(&b"42"[..]));
        // By the record from now on.
        job.runner
            .run("after_script", "echo after")
            .assert_success()
            .assert_stdout("after\n");
        assert_eq!(record(&job.runner)["private_key"], private);
        job.assert_ended();
    }
}

#[test]
fn an_rsa_key_of_the_go_driver_that_is_of_no_use_is_told_and_its_job_ended() {
    // Of 1024 bits, which no Go driver made.
    let (public, short) = rsa_key(1024);
    let cut = "-----BEGIN RSA PRIVATE KEY-----\nMIIJ\n-----END RSA PRIVATE KEY-----\n";
    for private in [&*short, cut] {
        let job = Inherited::new(&public, private);
        let failed = job.runner.run("build_script", "echo never").assert_code(2);
        let failed =
            failed.assert_contains("the Go driver prepared this job, and its key is of no use");
        let failed = failed.assert_contains("RSA key of 2048 to 8192 bits");
        let failed = failed.assert_contains("retry the job");
        assert!(failed.stdout.is_empty(), "{failed}");
        job.assert_ended();
    }
}

#[test]
fn a_server_that_takes_rsa_with_sha_1_alone_is_told() {
    let (public, private) = rsa_key(2048);
    let place = Place::new();
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let machine = machine.option("PubkeyAcceptedAlgorithms ssh-rsa");
    let builder = place.builder().machine(machine).reconnect_timeout("1s");
    let job = Inherited::on(place, builder, &public, &private);
    job.runner.write_config(&job.runner.default_config());
    let failed = job.runner.run("build_script", "echo never").assert_code(2);
    let failed = failed.assert_contains("it does not accept the job's key");
    failed.assert_contains("needs rsa-sha2-256 or rsa-sha2-512");
    job.assert_ended();
}
