//! Whom the driver takes for AWS.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use super::front::TLS;
use super::refused;
use super::refused_again;
use crate::fargate_capacity::assert_failure;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::reap::files;
use crate::reap::unix_now;

/// Returns a job whose AWS is behind TLS with a certificate of that kind.
fn behind(account: &Arc<Account>, kind: &str) -> RunnerBuilder {
    Runner::builder()
        .on_account(account)
        .environment("AWS_ENDPOINT_URL", Some(&TLS.url(kind)))
}

fn believing(builder: RunnerBuilder, bundle: &Path) -> RunnerBuilder {
    builder.environment("AWS_CA_BUNDLE", Some(bundle.to_str().unwrap()))
}

#[test]
fn a_bundle_holds_for_every_service_and_for_credentials() {
    let account = Arc::new(Account::new());
    let role = account.role("ci-job", None);
    let tasks = believing(behind(&account, "good"), &TLS.file("ca.pem"));
    // STS is asked for the role's credentials.
    let tasks = tasks
        .config_tables(&format!("[limits]\nroles = [\"{role}\"]\n"))
        .variable("ROLE_ARN", &role)
        .build();
    tasks.start();
    assert_eq!(account.state().sessions[0].role, role);
    tasks.assert_runs_and_ends();
    let instances = Runner::builder()
        .on_ec2_of(&account)
        .environment("AWS_ENDPOINT_URL", Some(&TLS.url("good")));
    let instances = believing(instances, &TLS.file("ca.pem")).build();
    instances.start();
    instances.assert_runs_and_ends();
}

#[test]
fn the_profile_names_a_bundle_where_the_environment_names_none() {
    let account = Arc::new(Account::new());
    let folder = crate::lab::temp_dir();
    let profiles = folder.path().join("config");
    let (right, wrong) = (TLS.file("ca.pem"), TLS.file("other.pem"));
    let text = format!(
        "[default]\nca_bundle = {}\n[profile ci]\nca_bundle = {}\n",
        wrong.display(),
        right.display()
    );
    std::fs::write(&profiles, text).unwrap();
    let of_profile = |name: &str| {
        behind(&account, "good")
            .environment("AWS_CONFIG_FILE", Some(profiles.to_str().unwrap()))
            .environment("AWS_PROFILE", Some(name))
    };
    let runner = of_profile("ci").build();
    runner.start();
    runner.assert_runs_and_ends();
    let runner = of_profile("default").build();
    let output = refused(
        &runner,
        "UnknownIssuer",
        "(ca_bundle of the AWS profile default) takes the place of this host's own CAs",
    );
    refused_again(&runner, &output);
    // No shell has put the home directory in. Links, other certificates, comments and what Windows adds are all the same.
    let bundle = |ca: &Path| std::fs::read_to_string(ca).unwrap().replace('\n', "\r\n");
    let both = format!(
        "\u{feff}{}\r\n# The other.\r\n\r\n{}",
        bundle(&right),
        bundle(&wrong)
    );
    std::fs::write(folder.path().join("both.pem"), both).unwrap();
    std::os::unix::fs::symlink("both.pem", folder.path().join("link.pem")).unwrap();
    std::fs::write(&profiles, "[default]\nca_bundle = ~/link.pem\n").unwrap();
    let at_home = of_profile("default").environment("HOME", Some(folder.path().to_str().unwrap()));
    let runner = at_home.build();
    runner.start();
    runner.assert_runs_and_ends();
    std::fs::write(
        &profiles,
        format!("[default]\nca_bundle = {}\n", wrong.display()),
    )
    .unwrap();
    // The variable stands above the profile.
    let runner = believing(of_profile("default"), &right).build();
    runner.start();
    runner.assert_runs_and_ends();
}

#[test]
fn a_certificate_that_nobody_can_believe_is_told_at_once() {
    let account = Arc::new(Account::new());
    let ca = TLS.file("ca.pem");
    let other = TLS.file("other.pem");
    for (kind, bundle, cause, remedy) in [
        (
            "good",
            None,
            "UnknownIssuer",
            "name its CA's file (PEM) by AWS_CA_BUNDLE",
        ),
        (
            "good",
            Some(&other),
            "UnknownIssuer",
            "other.pem (AWS_CA_BUNDLE) takes the place of",
        ),
        (
            "name",
            Some(&ca),
            "certificate not valid for name",
            "correct AWS_ENDPOINT_URL",
        ),
        (
            "expired",
            Some(&ca),
            "certificate expired",
            "Set this host's clock",
        ),
        (
            "future",
            Some(&ca),
            "certificate not valid yet",
            "Set this host's clock",
        ),
    ] {
        let mut builder = behind(&account, kind);
        if let Some(bundle) = bundle {
            builder = believing(builder, bundle);
        }
        let runner = builder.build();
        let output = refused(&runner, cause, remedy);
        refused_again(&runner, &output);
    }
    // The same before instances, of which more is asked first.
    let runner = Runner::builder()
        .on_ec2_of(&account)
        .environment("AWS_ENDPOINT_URL", Some(&TLS.url("good")))
        .build();
    refused(&runner, "UnknownIssuer", "AWS_CA_BUNDLE");
    runner.cleanup().assert_success();
    // And where the role's credentials are what nobody can get.
    let runner = behind(&account, "good")
        .config_tables("[limits]\nroles = [\"arn:aws:iam::111122223333:role/ci\"]\n")
        .variable("ROLE_ARN", "arn:aws:iam::111122223333:role/ci")
        .build();
    let output = refused(&runner, "UnknownIssuer", "AWS_CA_BUNDLE");
    refused_again(&runner, &output);
    assert!(account.calls("*").is_empty());
}

#[test]
fn what_speaks_no_tls_is_told_at_once() {
    let account = Arc::new(Account::new());
    let plain = super::front::endpoint(&account);
    let runner = Runner::builder()
        .on_account(&account)
        .environment("AWS_ENDPOINT_URL", Some(&format!("https://{plain}")))
        .build();
    let output = refused(
        &runner,
        "received corrupt message",
        "speaks no TLS: correct AWS_ENDPOINT_URL",
    );
    refused_again(&runner, &output);
}

#[test]
fn a_bundle_that_cannot_be_used_is_told_with_its_file_and_key() {
    let account = Arc::new(Account::new());
    let folder = crate::lab::temp_dir();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    for (bundle, problem) in [
        (folder.path().join("none.pem"), "No such file or directory"),
        (folder.path().to_owned(), "it is a directory"),
        (write("empty.pem", ""), "the file is empty"),
        (
            write("text.pem", "nonsense\n"),
            "it holds no certificate in PEM form",
        ),
        (write("broken.pem", broken), "its PEM is broken"),
        ("ca.pem".into(), "the path is no absolute one"),
    ] {
        let runner = believing(behind(&account, "good"), &bundle).build();
        let cause = format!("{} (AWS_CA_BUNDLE) cannot be used: ", bundle.display());
        let output = refused(&runner, &cause, "Correct AWS_CA_BUNDLE");
        assert!(output.contains(problem), "{output}");
        refused_again(&runner, &output);
    }
    assert!(account.calls("*").is_empty());
}

#[test]
fn a_machine_is_not_given_up_because_nobody_believes_aws() {
    let account = Arc::new(Account::new());
    let folder = crate::lab::temp_dir();
    let bundle = folder.path().join("bundle.pem");
    let believe = |ca: &str| {
        std::fs::copy(TLS.file(ca), &bundle).unwrap();
    };
    let job = || believing(behind(&account, "good"), &bundle).build();
    // One that is known, and one of which only the intent knows.
    believe("ca.pem");
    let unknown = job();
    account.fault(&Fault::lost_answer("RunTask").forever());
    unknown.kill_prepare_at("RunTask");
    account.no_faults();
    let known = job();
    known.start();
    believe("other.pem");
    for (runner, what) in [
        (&known, "could not be stopped and may still run"),
        (
            &unknown,
            "whether the job's task was started cannot be found out",
        ),
    ] {
        assert_failure(
            runner.cleanup(),
            what,
            "takes the place of this host's own CAs",
        );
    }
    assert!(
        account
            .alive()
            .iter()
            .any(|task| task.family == known.family())
    );
    // Nor long after its time, when `reap` gives up what AWS itself refuses to end.
    for path in files(&known.state_directory().join("jobs")) {
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["owner"]["started"] = json!(1);
        value["deadline"] = json!(unix_now() - 25 * 3600);
        std::fs::write(path, value.to_string()).unwrap();
    }
    let output = known.command(&["reap"]).assert_code(1);
    assert!(output.contains("could not be stopped"), "{output}");
    assert!(!output.contains("is given up"), "{output}");
    assert_eq!(files(&known.state_directory().join("jobs")).len(), 2);
    believe("ca.pem");
    for runner in [&known, &unknown] {
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}
