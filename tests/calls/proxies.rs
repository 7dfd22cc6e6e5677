//! Proxies on the way to AWS.

use std::sync::Arc;
use std::time::Duration;

use super::front::Answer;
use super::front::HttpProxy;
use super::front::TLS;
use super::front::endpoint;
use super::front::forward;
use super::refused;
use super::refused_again;
use crate::fargate_failures::out_of_reach::behind_pages;
use crate::lab::aws::Account;
use crate::lab::port::Port;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;

fn through(account: &Arc<Account>, proxy: &str) -> RunnerBuilder {
    Runner::builder()
        .on_account(account)
        .environment("AWS_ENDPOINT_URL", Some(&TLS.url("good")))
        .environment("AWS_CA_BUNDLE", Some(TLS.file("ca.pem").to_str().unwrap()))
        .environment("HTTPS_PROXY", Some(proxy))
}

#[test]
fn a_job_runs_through_a_proxy_with_a_bundle() {
    let account = Arc::new(Account::new());
    let proxy = HttpProxy::start(Answer::Tunnel);
    let runner = through(&account, &format!("http://{}", proxy.address)).build();
    runner.start();
    runner.assert_runs_and_ends();
    let to = TLS.url("good").replace("https://", "CONNECT ");
    assert!(proxy.asked().iter().all(|line| line.starts_with(&to)));
    assert!(!proxy.asked().is_empty());
}

#[test]
fn a_proxy_that_refuses_is_told_at_once_by_its_name() {
    let account = Arc::new(Account::new());
    for (status, cause, remedy) in [
        (
            "407 Proxy Authentication Required",
            "the proxy answered 407",
            "write its user and password into the variable",
        ),
        (
            "403 Forbidden",
            "the proxy made no tunnel to AWS: it answered 403 Forbidden",
            "allow CONNECT",
        ),
    ] {
        let proxy = HttpProxy::start(Answer::Says(status));
        let url = format!("http://me:secret@{}", proxy.address);
        let runner = through(&account, &url).build();
        let output = refused(&runner, cause, remedy);
        let named = format!("HTTPS_PROXY is http://{}.", proxy.address);
        assert!(output.contains(&named), "{output}");
        assert!(!output.contains("secret"), "{output}");
        let asked = proxy.asked().len();
        assert!(asked <= 2, "{:?}", proxy.asked());
        refused_again(&runner, &output);
        assert_eq!(proxy.asked().len(), asked);
    }
    // Nobody listens there.
    let port = Port::reserve();
    let url = format!("http://127.0.0.1:{}", port.number());
    let runner = through(&account, &url).build();
    let output = refused(
        &runner,
        "the proxy made no tunnel to AWS",
        "See whether the proxy runs",
    );
    assert!(
        output.contains(&format!("HTTPS_PROXY is {url}.")),
        "{output}"
    );
    runner.cleanup().assert_success();
    assert!(account.calls("*").is_empty());
}

#[test]
fn a_proxy_in_trouble_is_waited_for() {
    let account = Arc::new(Account::new());
    let proxy = HttpProxy::start(Answer::After(2, "503 Service Unavailable"));
    let runner = through(&account, &format!("http://{}", proxy.address)).build();
    runner.start();
    assert!(proxy.asked().len() > 2);
    runner.assert_runs_and_ends();
}

#[test]
fn a_proxys_page_that_refuses_is_told_at_once() {
    for status in [
        "403 Forbidden",
        "407 Proxy Authentication Required",
        "302 Found",
    ] {
        let runner = behind_pages(1, status);
        let cause = format!("HTTP {} with an answer that is not AWS's: ", &status[..3]);
        refused(&runner, &cause, "have it let this host's calls through");
        // The page may have come in place of AWS's answer: what was asked for is looked for.
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn whoever_gives_credentials_is_waited_for_as_aws_is() {
    let account = Arc::new(Account::new());
    let port = Port::reserve();
    let role = account.role("ci-job", None);
    let sts = format!("http://127.0.0.1:{}", port.number());
    let runner = Runner::builder()
        .on_account(&account)
        .config_tables(&format!("[limits]\nroles = [\"{role}\"]\n"))
        .variable("ROLE_ARN", &role)
        .environment("AWS_ENDPOINT_URL_STS", Some(&sts))
        .build();
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    let told =
        b"Waiting for AWS to take ecs:RunTask: an error occurred while loading credentials: ";
    prepare.wait_output(told, Duration::from_secs(30));
    forward(port.number(), endpoint(&account));
    prepare.wait(crate::lab::PATIENCE).assert_success();
    runner.assert_runs_and_ends();
}

#[test]
fn what_may_pass_by_itself_is_still_waited_out() {
    let account = Arc::new(Account::new());
    let port = Port::reserve();
    let runner = Runner::builder()
        .on_account(&account)
        .environment(
            "AWS_ENDPOINT_URL",
            Some(&format!("http://127.0.0.1:{}", port.number())),
        )
        .build();
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    let told = b"Waiting for AWS to take ecs:RunTask: ";
    prepare.wait_output(told, Duration::from_secs(30));
    forward(port.number(), endpoint(&account));
    prepare.wait(crate::lab::PATIENCE).assert_success();
    runner.assert_runs_and_ends();
}
