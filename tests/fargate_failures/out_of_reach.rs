//! AWS that cannot be reached: endpoints, regions, credentials, proxies.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fails;
use super::job;
use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::assert_once;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::port::Port;
use crate::lab::runner::Runner;

#[test]
fn an_endpoint_that_does_not_answer_fails_within_a_minute() {
    let closed = Port::reserve();
    let endpoint = format!("http://127.0.0.1:{}", closed.number());
    let runner = job()
        .environment("AWS_ENDPOINT_URL", Some(&endpoint))
        .build();
    let output = fails(
        &runner,
        "the job's task was not started: tcp connect error: Connection refused",
        "This host does not reach AWS for ecs:RunTask",
    );
    assert!(output.duration < Duration::from_secs(58), "{output}");
    assert_once(&output, "Waiting for AWS to take ecs:RunTask: ");
    // What was never sent needs no end.
    let output = runner.cleanup().assert_success();
    assert!(output.duration < Duration::from_secs(15), "{output}");
}

#[test]
fn a_region_that_is_none_fails_within_a_minute() {
    let runner = job()
        .environment("AWS_ENDPOINT_URL", Some("http://ecs.eu-nowhere-1.invalid"))
        .build();
    let output = fails(&runner, "dns error", "that `region` under [fargate] exists");
    assert!(output.duration < Duration::from_secs(58), "{output}");
    let output = runner.cleanup().assert_success();
    assert!(output.duration < Duration::from_secs(15), "{output}");
}

#[test]
fn a_host_without_credentials_is_told_at_once() {
    let runner = job()
        .environment("AWS_ACCESS_KEY_ID", None)
        .environment("AWS_SECRET_ACCESS_KEY", None)
        .build();
    let output = fails(
        &runner,
        "credential",
        "Give the driver credentials: an instance profile",
    );
    assert!(output.duration < Duration::from_secs(10), "{output}");
    runner.cleanup().assert_success();
    assert!(runner.account().calls("*").is_empty());
}

#[test]
fn credentials_that_are_wrong_are_told_at_once() {
    let runner = job()
        .environment("AWS_ACCESS_KEY_ID", Some("AKIAWRONG"))
        .build();
    let output = fails(
        &runner,
        "The security token included in the request is invalid",
        "valid credentials",
    );
    assert!(output.duration < Duration::from_secs(15), "{output}");
    runner.cleanup().assert_success();
}

#[test]
fn a_host_without_a_region_is_told_at_once() {
    let runner = job().environment("AWS_REGION", None).build();
    let config = runner.default_config();
    let region = format!("region = \"{}\"\n", runner.account().region());
    runner.write_config(&config.replace(&region, ""));
    runner.config().assert_success();
    let output = runner.prepare();
    assert!(output.duration < Duration::from_secs(15), "{output}");
    assert_failure(output, "egion", "Set `region` under [fargate]");
    runner.cleanup().assert_success();
    assert!(runner.account().calls("*").is_empty());
}

#[test]
fn a_service_that_breaks_down_for_a_moment_costs_no_job() {
    let runner = job().build();
    let account = runner.account();
    account.fault(
        &Fault::error(
            "RunTask",
            500,
            "ServerException",
            "Service Unavailable. Please try again later.",
        )
        .times(2),
    );
    account.fault(&Fault::error("DescribeTasks", 500, "InternalFailure", "").times(2));
    account.fault(&Fault::error("StopTask", 503, "ServiceUnavailable", "").times(2));
    runner.start();
    runner
        .run("build_script", "echo on\n")
        .assert_stdout("on\n");
    runner.cleanup().assert_success();
    assert_eq!(account.tasks().len(), 1);
    assert_eq!(account.calls("RunTask").len(), 3);
    assert_eq!(account.calls("StopTask").len(), 3);
    runner.assert_nothing_left();
}

/// Stands before AWS and answers so many calls by itself, with a page.
fn pages(behind: SocketAddr, count: usize, status: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicUsize::new(count));
    let counted = Arc::clone(&left);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let took =
                counted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            std::thread::spawn(move || match took {
                Ok(_) => drop(answer_page(client, status)),
                Err(_) => splice(client, TcpStream::connect(behind).unwrap()),
            });
        }
    });
    (address, left)
}

fn answer_page(mut client: TcpStream, status: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    std::io::Read::read_exact(&mut reader, &mut vec![0; length])?;
    let page = "<html><head><title>Squid: access control</title></head>\n<body>no</body></html>";
    let length = page.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}

fn splice(client: TcpStream, server: TcpStream) {
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(std::net::Shutdown::Write));
    });
    let (mut from_server, mut to_client) = (server, client);
    drop(std::io::copy(&mut from_server, &mut to_client));
    drop(to_client.shutdown(std::net::Shutdown::Both));
}

pub(crate) fn behind_pages(count: usize, status: &'static str) -> Runner {
    let account = Arc::new(Account::new());
    let [(_, endpoint), ..] = account.environment();
    let behind = endpoint.trim_start_matches("http://").parse().unwrap();
    let (front, _) = pages(behind, count, status);
    Runner::builder()
        .on_account(&account)
        .environment("AWS_ENDPOINT_URL", Some(&format!("http://{front}")))
        .build()
}

#[test]
fn a_proxys_page_in_place_of_an_answer_is_waited_out() {
    for status in ["502 Bad Gateway", "200 OK", "429 Too Many Requests"] {
        let runner = behind_pages(5, status);
        runner.config().assert_success();
        let output = runner.prepare().assert_success();
        let told = assert_once(&output, "Waiting for AWS to take ecs:RunTask: ");
        assert!(
            told.contains(&status[..3]) && told.contains("Squid: access control"),
            "{told}"
        );
        assert_eq!(runner.account().tasks().len(), 1);
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}
