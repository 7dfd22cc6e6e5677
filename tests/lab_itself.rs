//! The lab's own parts, tested without the driver: machines, git server, helper, the Runner's part.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::git::GitServer;
use crate::lab::helper;
use crate::lab::helper::Helper;
use crate::lab::port;
use crate::lab::processes;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Proxy;
use crate::lab::runner::Runner;
use crate::lab::servers;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::ssh::Client;
use crate::lab::stage::Keep;

/// What a login sees: home, shell, PATH.
const LOOK: &str =
    "echo \"home=$HOME\"; echo \"exe=$(readlink /proc/$$/exe)\"; echo \"path=$PATH\"";

#[test]
fn every_server_and_shell_accepts_a_login() {
    for (kind, login) in servers::ALL {
        accepts_a_login(kind, login);
    }
}

fn accepts_a_login(kind: Kind, login: Login) {
    let directory = lab::temp_dir();
    let client = Client::new(directory.path());
    let server = ServerBuilder::new(kind, login).build(directory.path());
    let running = server.start(&client.public_key());
    assert_eq!(server.authorised_key(), client.public_key());
    let seen = client.spawn(server.port(), LOOK).wait(PATIENCE);
    let seen = seen.assert_success();
    let shell = match login {
        Login::Bash => "bash",
        Login::Dash => "dash",
        Login::Busybox => "busybox",
    };
    let text = seen.stdout_text();
    let home = format!("home={}\n", server.home().display());
    assert!(text.contains(&home), "{kind:?} {login:?}: {seen}");
    assert!(
        text.lines()
            .any(|line| line.starts_with("exe=") && line.ends_with(shell)),
        "{kind:?} {login:?}: {seen}"
    );
    assert!(seen.stderr.is_empty(), "{kind:?} {login:?}: {seen}");
    if kind != Kind::Own {
        assert_eq!(server.logins(), 1, "{}", server.log());
    }
    running.end();
    port::wait_listening(server.port(), false, PATIENCE);
    let left = processes::of(directory.path());
    assert!(left.is_empty(), "{}", left[0]);
}

#[test]
fn a_noisy_login_is_noisy_on_every_shell() {
    const NOISE: &str = "it's a \"noisy\" $HOME\n";
    for (kind, login) in servers::ALL {
        let directory = lab::temp_dir();
        let client = Client::new(directory.path());
        let server = ServerBuilder::new(kind, login).noise(NOISE);
        let server = server.build(directory.path());
        let _running = server.start(&client.public_key());
        let seen = client.spawn(server.port(), "echo done").wait(PATIENCE);
        let seen = seen.assert_success();
        let expected = NOISE.to_owned() + "done\n";
        assert_eq!(seen.stdout_text(), expected, "{kind:?} {login:?}");
        assert_eq!(seen.stderr_text(), NOISE, "{kind:?} {login:?}");
    }
}

#[test]
fn a_busybox_only_machine_has_busybox_tools() {
    for (kind, login) in servers::ALL {
        let directory = lab::temp_dir();
        let client = Client::new(directory.path());
        let server = ServerBuilder::new(kind, login)
            .busybox_only()
            .build(directory.path());
        let _running = server.start(&client.public_key());
        let command = "for tool in tail dd setsid; do readlink -f \"$(command -v $tool)\"; done; \
                       command -v bash; command -v perl || echo none";
        let seen = client.spawn(server.port(), command).wait(PATIENCE);
        let seen = seen.assert_success();
        let text = seen.stdout_text();
        let tools = text.lines().filter(|line| line.ends_with("/busybox"));
        // busybox `sh` may run its applets without looking at PATH.
        if login != Login::Busybox {
            assert_eq!(tools.count(), 3, "{kind:?} {login:?}: {seen}");
        }
        assert!(text.contains("/bash\nnone"), "{kind:?} {login:?}: {seen}");
    }
}

#[test]
fn a_late_machine_is_late() {
    let directory = lab::temp_dir();
    let client = Client::new(directory.path());
    let late = Duration::from_millis(1_500);
    let server = ServerBuilder::new(Kind::OpenSsh, Login::Dash)
        .listen_late(late)
        .build(directory.path());
    let began = Instant::now();
    let running = server.start(&client.public_key());
    assert!(began.elapsed() >= late);
    running.end();

    let server = ServerBuilder::new(Kind::Dropbear, Login::Dash)
        .authorise_late(Duration::from_secs(8))
        .build(directory.path());
    let running = server.start(&client.public_key());
    let refused = client.spawn(server.port(), "echo in").wait(PATIENCE);
    refused
        .assert_code(255)
        .assert_contains("Permission denied");
    let deadline = Instant::now() + PATIENCE;
    while !client
        .spawn(server.port(), "echo in")
        .wait(PATIENCE)
        .contains("in\n")
    {
        assert!(Instant::now() < deadline, "{}", server.log());
    }
    assert_eq!(server.logins(), 1);
    server.wait_log("auth succeeded", 1, PATIENCE);
    running.end();
}

#[test]
fn a_session_is_cut_under_real_ssh() {
    let directory = lab::temp_dir();
    let client = Client::new(directory.path());
    let server = ServerBuilder::new(Kind::OpenSsh, Login::Bash).build(directory.path());
    let _running = server.start(&client.public_key());
    let proxy = Proxy::start(server.port());
    let session = client.spawn(proxy.port(), "echo begun; exec sleep 600");
    session.wait_output(b"begun\n", PATIENCE);
    assert_eq!(proxy.cut(Cut::Reset), 1);
    session.wait(PATIENCE).assert_code(255);
    // Half-way, another machine with another host key.
    server.new_host_key();
    let second = ServerBuilder::new(Kind::OpenSsh, Login::Dash).build(directory.path());
    let _second = second.start(&server.authorised_key());
    proxy.set_upstream(second.port());
    let seen = client.spawn(proxy.port(), LOOK).wait(PATIENCE);
    seen.assert_success().assert_contains("/dash\n");
}

#[test]
fn the_git_server_serves_and_fails_on_cue() {
    let server = GitServer::start();
    let directory = lab::temp_dir();
    let clone = |name: &str| {
        Command::new("git")
            .args(["clone", "-q", &server.url(), name])
            .current_dir(directory.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .output()
            .unwrap()
    };
    server.fail_next(1);
    assert!(!clone("failed").status.success());
    assert_eq!(server.requests(), 1);
    let done = clone("cloned");
    assert!(done.status.success(), "{done:?}");
    server.clone_to(&directory.path().join("local"));
    for name in ["cloned", "local"] {
        let head = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(directory.path().join(name))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&head.stdout).trim(), server.sha());
    }
    assert!(server.url().contains(&server.port().to_string()));
}

#[test]
fn the_helper_packs_and_unpacks() {
    let directory = lab::temp_dir();
    let helper = Helper::new(directory.path());
    let call = |args: &[&str]| {
        Command::new(helper.bin().join("gitlab-runner"))
            .args(args)
            .current_dir(directory.path())
            .output()
            .unwrap()
            .status
            .success()
    };
    let cache = directory.path().join("cache/k1/cache.zip");
    let cache = cache.to_str().unwrap();
    assert!(call(&["--version"]));
    assert!(!call(&["cache-extractor", "--file", cache]));
    std::fs::create_dir(directory.path().join("out")).unwrap();
    std::fs::write(directory.path().join("out/x"), "x").unwrap();
    assert!(call(&["cache-archiver", "--file", cache, "--path", "out/"]));
    assert!(call(&["artifacts-uploader", "--id", "7", "--path", "out/"]));
    assert!(call(&["artifacts-uploader", "--id", "8", "--path", "none"]));
    std::fs::remove_dir_all(directory.path().join("out")).unwrap();
    assert!(call(&["cache-extractor", "--file", cache]));
    assert!(directory.path().join("out/x").exists());
    assert!(call(&["artifacts-downloader", "--id", "7"]));
    assert!(!call(&["artifacts-downloader", "--id", "8"]));
    assert_eq!(helper::packed(&helper.artifacts(7)), ["out/", "out/x"]);
    helper::pack(&helper.artifacts(9), "vendor/stamp", "1\n");
    assert!(call(&["artifacts-downloader", "--id", "9"]));
    assert!(directory.path().join("vendor/stamp").exists());
    assert_eq!(helper.calls().len(), 9);
}

/// A stand-in for the driver: runs scripts on the spot, and tells what it was given.
const STAND_IN: &str = r#"#!/bin/sh
shift 3
case $1 in
    config) env | sort; pwd; echo "stdin=$(wc -c)"; ps -o pgid= -p $$ ;;
    prepare) echo preparing >&2 ;;
    run) bash "$2" || { code=$?; printf %s "$code" > "$BUILD_EXIT_CODE_FILE"; exit "$BUILD_FAILURE_EXIT_CODE"; } ;;
    cleanup) echo cleaned ;;
esac
"#;

fn with_stand_in(directory: &Path) -> Runner {
    let program = directory.join("driver");
    lab::write_program(&program, STAND_IN);
    Runner::builder()
        .driver(&program)
        .exit_codes("11", "12")
        .variable("COLOUR", "red")
        .environment("EXTRA", Some("more"))
        .environment("LANG", None)
        .config_line("# a line")
        .config_tables("# a table")
        .connect_timeout("5s")
        .reconnect_timeout("6s")
        .path_first(directory)
        .build()
}

#[test]
fn the_runner_keeps_the_contract() {
    let directory = lab::temp_dir();
    let runner = with_stand_in(directory.path());
    let config = runner.spawn_config();
    let pid = config.pid().as_raw_nonzero().to_string();
    let output = config.wait(PATIENCE).assert_success();
    let text = output.stdout_text();
    let attempt = runner.attempt().display().to_string();
    for line in [
        "BUILD_FAILURE_EXIT_CODE=11",
        "SYSTEM_FAILURE_EXIT_CODE=12",
        "CUSTOM_ENV_COLOUR=red",
        "EXTRA=more",
        &format!("TMPDIR={attempt}"),
        &format!("CUSTOM_ENV_CI_JOB_ID={}", runner.job()),
        &attempt,
        "stdin=0",
        // A process group of its own.
        &pid,
    ] {
        assert!(
            text.lines().any(|seen| seen.trim() == line),
            "{line}: {output}"
        );
    }
    assert!(!text.contains("\nLANG="), "{output}");
    let text = std::fs::read_to_string(runner.config_file()).unwrap();
    for part in ["# a line", "# a table", "\"5s\"", "\"6s\""] {
        assert!(text.contains(part), "{text}");
    }
    runner
        .prepare()
        .assert_success()
        .assert_contains("preparing");

    let output = runner.run("build_script", "printf 'a\\377'; exit 42");
    let output = output.assert_code(11).assert_stdout(b"a\xff");
    assert_eq!(output.to_string().lines().nth(1), Some("a\u{fffd}[EOF]"));
    assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
    runner.next_attempt();
    assert_ne!(runner.attempt().display().to_string(), attempt);
    assert_eq!(runner.exit_file(), None);
    runner.set_status("failed");
    let status = &runner.stage_environment()[std::ffi::OsStr::new("CUSTOM_ENV_CI_JOB_STATUS")];
    assert_eq!(status, "failed");
    runner.cleanup().assert_stdout("cleaned\n");
    runner.assert_nothing_left();
    assert_eq!(runner.state_directory(), runner.root().join("state"));
}

#[test]
fn stages_are_signalled_and_waited_for() {
    let directory = lab::temp_dir();
    let runner = with_stand_in(directory.path());
    let stage = runner.spawn_run("build_script", "echo begun; exec sleep 600");
    stage.wait_output(b"begun", PATIENCE);
    stage.wait_stdout_len(6, PATIENCE);
    assert!(!stage.is_over());
    assert!(stage.so_far().to_string().contains("[still running"));
    assert!(!runner.processes().is_empty());
    stage.signal(Signal::TERM);
    let output = stage.wait(PATIENCE);
    assert_eq!((output.code(), output.signal()), (None, Some(15)));
    assert!(output.duration < PATIENCE);

    // What is left behind with the output open hangs the stage, as it does on the real Runner.
    let stage = runner.spawn_run("build_script", "setsid sleep 600 & echo left");
    stage.wait_output(b"left", PATIENCE);
    stage.wait_ended(PATIENCE);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stage.wait(Duration::from_millis(200))
    }));
    let message = died.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("holds its output open"), "{message}");
    let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runner.assert_nothing_left();
    }));
    let message = left.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("sleep 600"), "{message}");
    runner.forgive_leftovers();
}

#[test]
fn outputs_too_large_to_keep_are_digested() {
    let directory = lab::temp_dir();
    let program = directory.path().join("driver");
    lab::write_program(&program, STAND_IN);
    let state = directory.path().join("shared state");
    let runner = Runner::builder()
        .driver(&program)
        .keep(Keep::Digest)
        .without_payload()
        .without_exit_code_file()
        .state_directory(&state)
        .build();
    let env = runner.stage_environment();
    for name in ["JOB_RESPONSE_FILE", "BUILD_EXIT_CODE_FILE"] {
        assert!(!env.contains_key(std::ffi::OsStr::new(name)));
    }
    assert_eq!(runner.state_directory(), state);
    let output = runner.run("build_script", "head -c 1000000 /dev/zero");
    assert_eq!(output.stdout_len, 1_000_000);
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[0; 1_000_000]);
    assert_eq!(output.stdout_digest.unwrap(), expected.as_ref());
    assert!(output.stdout.len() < 100_000);
}

#[test]
fn the_runner_puts_a_proxy_before_the_machine() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash).option("Banner none");
    let runner = Runner::behind_proxy(machine);
    let config = std::fs::read_to_string(runner.config_file()).unwrap();
    let [entrypoint] = &runner.server().command()[..] else {
        panic!("one program and no arguments");
    };
    let port = format!("port = {}\n", runner.proxy().port());
    assert!(
        config.contains(&port) && config.contains(entrypoint),
        "{config}"
    );
    assert_ne!(runner.proxy().port(), runner.server().port());
    let client = Client::new(runner.root());
    let running = runner.server().start(&client.public_key());
    let seen = client
        .spawn(runner.proxy().port(), "echo in")
        .wait(PATIENCE);
    seen.assert_stdout("in\n");
    running.end();
    let counts = runner.proxy().counts();
    assert_eq!((counts.connections, counts.cut), (1, 0));
}
