//! Spot takes an instance back: before the job could log in, while a script runs that ends in time, while one runs that
//! does not; and the far side that hears of it beforehand.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use gitlab_aws_driver::script::notice;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::InstanceFate;
use crate::lab::proxy::Cut;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::tools;

const TOLD: &str = "Spot takes this machine back in ";
const REMEDY: &str = "`retry: when: runner_system_failure`";
/// Within which a job is told of its machine's end, from when AWS knows.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

fn job() -> RunnerBuilder {
    Runner::builder().on_ec2()
}

fn only_instance(runner: &Runner) -> String {
    let alive = runner.account().instances_alive();
    assert_eq!(alive.len(), 1, "{alive:#?}");
    alive[0].id.clone()
}

/// Returns the seconds that the one line of a job log tells.
#[track_caller]
fn seconds_told(log: &str) -> u64 {
    let mut parts = log.split(TOLD);
    parts.next();
    let rest = parts.next().unwrap_or_else(|| panic!("not told:\n{log}"));
    assert!(parts.next().is_none(), "told twice:\n{log}");
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn before_the_login_the_next_rung_has_its_turn() {
    let late = ServerBuilder::new(Kind::OpenSsh, Login::Bash).listen_late(Duration::from_secs(6));
    let runner = job().machine(late).capacity(&["ec2-spot", "ec2"]).build();
    let fate = InstanceFate::spot_interruption(Duration::ZERO, Duration::from_secs(2));
    runner.account().instance_fate(&fate.on_market("spot"));
    runner.config().assert_success();
    let prepared = runner.prepare().assert_success();
    let log = prepared.stderr_text();
    assert!(log.contains("No room on ec2-spot: "), "{log}");
    assert!(log.contains("Server.SpotInstanceTermination"), "{log}");
    runner
        .run("build_script", "echo runs")
        .assert_success()
        .assert_stdout("runs\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_script_that_ends_in_time_keeps_its_result() {
    let runner = job().build();
    runner.start();
    let go = runner.root().join("go");
    // Bytes that no frame may mix with.
    let script = format!(
        "printf 'begun \\036'; until [ -e '{}' ]; do sleep 0.1; done; printf 'ended'; exit $CODE",
        go.display()
    );
    let running = runner.spawn_run("build_script", format!("CODE=0; {script}"));
    running.wait_output(b"begun", PATIENCE);
    runner
        .account()
        .notice(&only_instance(&runner), Duration::from_secs(60));
    running.wait_output(TOLD.as_bytes(), PATIENCE);
    std::fs::write(&go, "").unwrap();
    let ended = running.wait(PATIENCE).assert_success();
    assert_eq!(ended.stdout, b"begun \x1eended", "{ended}");
    let left = seconds_told(&ended.stderr_text());
    assert!((30..60).contains(&left), "{left}");

    // A later script's own failure stays its own.
    let ended = runner
        .run("after_script", format!("CODE=7; {script}"))
        .assert_code(1);
    assert!(!ended.contains(TOLD), "{ended}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn the_notice_is_told_once_a_job_and_known_to_its_later_scripts() {
    // Due by the time the second script ends, and the machine is there until then.
    let notice = Duration::from_secs(18);
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let runner = job().machine(machine).through_proxy().build();
    runner.start();
    let go = runner.root().join("go");
    let script = format!(
        "echo begun; until [ -e '{}' ]; do sleep 0.1; done; echo ended",
        go.display()
    );
    let running = runner.spawn_run("build_script", script);
    running.wait_output(b"begun", PATIENCE);
    let instance = only_instance(&runner);
    runner.account().notice(&instance, notice);
    running.wait_output(TOLD.as_bytes(), PATIENCE);
    let asked = || runner.account().instances()[0].metadata_asked.len();
    let asked_before = asked();
    let connections = runner.proxy().counts().connections;
    runner.proxy().cut(Cut::Reset);
    runner.proxy().wait_connections(connections + 1, PATIENCE);
    std::fs::write(&go, "").unwrap();
    let ended = running.wait(PATIENCE).assert_success();
    assert_eq!(ended.stdout, b"begun\nended\n", "{ended}");
    seconds_told(&ended.stderr_text());

    // What kills a script now is the machine's end, though this script was never told: it outlives the time that one which
    // asks anew would have asked in.
    let ended = runner
        .run("after_script", "sleep 3; kill -TERM $$")
        .assert_code(2);
    assert!(ended.contains("Spot capacity was taken back"), "{ended}");
    assert!(!ended.contains(TOLD), "{ended}");
    assert_eq!(asked(), asked_before);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_script_that_does_not_end_in_time_is_a_system_failure() {
    let notice = Duration::from_secs(12);
    let runner = job().build();
    runner.start();
    let running = runner.spawn_run("build_script", "echo begun; sleep 600");
    running.wait_output(b"begun", PATIENCE);
    let noticed = Instant::now();
    runner.account().notice(&only_instance(&runner), notice);
    let ended = running.wait(PATIENCE).assert_code(2);
    assert!(noticed.elapsed() < notice + TOLD_WITHIN, "{ended}");
    let log = ended.stderr_text();
    assert!(seconds_told(&log) <= 12, "{log}");
    assert_eq!(
        log.matches("ERROR: Spot capacity was taken back").count(),
        1,
        "{log}"
    );
    assert!(log.contains(REMEDY), "{log}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn small_images_without_curl_hear_of_it() {
    for login in [Login::Busybox, Login::Bash] {
        let small = ServerBuilder::new(Kind::OpenSsh, login).busybox_only();
        let runner = job().machine(small).build();
        if login == Login::Busybox {
            // Busybox and nothing else: `nc` is all that there is to ask with.
            let log = runner.server().log_file();
            std::fs::remove_file(log.with_file_name("busybox").join("bash")).unwrap();
        }
        runner.start();
        let go = runner.root().join("go");
        let script = format!(
            "echo begun; until [ -e '{}' ]; do sleep 0.1; done",
            go.display()
        );
        let running = runner.spawn_run("build_script", script);
        running.wait_output(b"begun", PATIENCE);
        runner
            .account()
            .notice(&only_instance(&runner), Duration::from_secs(60));
        running.wait_output(TOLD.as_bytes(), PATIENCE);
        std::fs::write(&go, "").unwrap();
        running.wait(PATIENCE).assert_success();
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn on_demand_instances_are_not_asked() {
    let runner = job().capacity(&["ec2"]).build();
    runner.start();
    runner.run("build_script", "sleep 4").assert_success();
    let asked = &runner.account().instances()[0].metadata_asked;
    assert!(asked.is_empty(), "{asked:?}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

// The far side alone, with each shell and each program that it may find.

/// Metadata of version 2, with a notice once there is to be one. The first token is refused, as right after boot.
struct Metadata {
    url: String,
    noticed: Arc<AtomicBool>,
    asked: mpsc::Receiver<String>,
}

impl Metadata {
    fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let noticed = Arc::new(AtomicBool::new(false));
        let (tell, asked) = mpsc::channel();
        let is_noticed = Arc::clone(&noticed);
        std::thread::spawn(move || {
            let mut tokens = 0;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                // Whoever was not answered in time is gone, and asks again.
                let Some(Ok(first)) = lines.next() else {
                    continue;
                };
                let headers: Vec<_> = lines
                    .map_while(Result::ok)
                    .take_while(|l| !l.is_empty())
                    .collect();
                let has = |text: &str| headers.iter().any(|l| l.eq_ignore_ascii_case(text));
                let answer = if first.starts_with("PUT /latest/api/token ") {
                    assert!(
                        has("X-aws-ec2-metadata-token-ttl-seconds: 600"),
                        "{headers:?}"
                    );
                    tokens += 1;
                    if tokens > 1 { Some("a-token==") } else { None }
                } else {
                    assert!(
                        first.starts_with("GET /latest/meta-data/spot/instance-action "),
                        "{first}"
                    );
                    assert!(has("X-aws-ec2-metadata-token: a-token=="), "{headers:?}");
                    let notice = "{\n  \"action\": \"terminate\",\n  \"time\": \"2017-09-18T08:22:00Z\"\n}\n";
                    is_noticed.load(Ordering::SeqCst).then_some(notice)
                };
                let (status, body) = match answer {
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", "<html>Not Found</html>"),
                };
                let length = body.len();
                drop(write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                ));
                // Nobody listens once the test is over.
                drop(tell.send(first));
            }
        });
        Self {
            url,
            noticed,
            asked,
        }
    }
}

/// The far side, run by a shell that finds only some programs.
struct FarSide {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

const NONCE: &str = "00112233445566778899aabbccddeeff";

impl FarSide {
    fn start(folder: &Path, shell: &str, programs: &[&str], url: &str) -> Self {
        for program in ["cat", "sleep", "grep"].iter().chain(programs) {
            // There are several programs of that name; busybox has one of its own.
            let found = if *program == "nc" { "busybox" } else { program };
            symlink(tools::program(found), folder.join(program)).unwrap();
        }
        let sh = format!("#!/bin/sh\nexec {shell} \"$@\"\n");
        lab::write_program(&folder.join("sh"), &sh);
        let mut child = Command::new(folder.join("sh"))
            .arg("-c")
            .arg(String::from_utf8(notice::command(NONCE)).unwrap())
            .env_clear()
            .env("PATH", folder)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
            // What a job's image says about its own way out does not concern the instance's metadata.
            .env("http_proxy", "http://127.0.0.1:9")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take();
        Self {
            child,
            input,
            output,
        }
    }

    /// Ends the connection; returns what else was said, once nothing holds it open any more.
    fn hang_up(mut self) -> (Vec<u8>, String, Option<i32>) {
        let began = Instant::now();
        drop(self.input.take());
        let (mut out, mut error) = (Vec::new(), String::new());
        self.output.read_to_end(&mut out).unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut error)
            .unwrap();
        let code = self.child.wait().unwrap().code();
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it outlives its connection"
        );
        (out, error, code)
    }
}

#[test]
fn every_shell_and_program_hears_of_it_once() {
    let busybox = format!("{} sh", tools::program("busybox").display());
    std::thread::scope(|scope| {
        for shell in ["/bin/dash", "/bin/bash", &busybox] {
            // busybox takes its own wget, which cannot PUT.
            let programs: &[&str] = match shell == busybox {
                true => &["curl", "bash", "nc"],
                false => &["curl", "wget", "bash", "nc"],
            };
            for program in programs {
                scope.spawn(move || hears(shell, program));
            }
        }
    });
}

fn hears(shell: &str, program: &str) {
    let folder = lab::temp_dir();
    let metadata = Metadata::serve();
    let mut far = FarSide::start(folder.path(), shell, &[program], &metadata.url);
    let asked = || metadata.asked.recv_timeout(PATIENCE).unwrap();
    // No token at first: one that comes late is asked for once more.
    let first = std::iter::repeat_with(asked).take(10);
    let tokens = first.take_while(|asked| asked.starts_with("PUT")).count();
    assert!(tokens >= 2, "{shell} {program}: {tokens}");
    // Then no notice, and no further token.
    let again = asked();
    assert!(again.starts_with("GET"), "{shell} {program}: {again}");
    metadata.noticed.store(true, Ordering::SeqCst);
    let mut line = String::new();
    far.output.read_line(&mut line).unwrap();
    let answer = line.strip_prefix(&format!("\x1e{NONCE} notice ")).unwrap();
    assert!(
        notice::Notice::read(answer).is_some(),
        "{shell} {program}: {line:?}"
    );
    let (rest, error, _) = far.hang_up();
    assert!(
        rest.is_empty() && error.is_empty(),
        "{shell} {program}: {rest:?} {error:?}"
    );
}

#[test]
fn it_ends_with_its_connection_and_without_a_word_where_it_cannot_ask() {
    let metadata = Metadata::serve();
    let folder = lab::temp_dir();
    let far = FarSide::start(folder.path(), "/bin/dash", &["curl"], &metadata.url);
    for _ in 0..3 {
        metadata.asked.recv_timeout(PATIENCE).unwrap();
    }
    let (out, error, _) = far.hang_up();
    assert!(out.is_empty() && error.is_empty(), "{out:?} {error:?}");

    let busybox = format!("{} sh", tools::program("busybox").display());
    // One that has an nc of its own can ask.
    let cannot = match tools::busybox_needs_no_path() {
        true => &["/bin/dash"][..],
        false => &["/bin/dash", &busybox],
    };
    for shell in cannot {
        let folder = lab::temp_dir();
        let far = FarSide::start(folder.path(), shell, &[], &metadata.url);
        let (out, error, code) = far.hang_up();
        assert_eq!((out.as_slice(), code), (&b""[..], Some(1)), "{error}");
        assert!(error.contains("no bash and no nc"), "{error}");
    }
}
