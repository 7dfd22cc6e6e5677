//! Accounts that a server lets in by no key, not by the key alone, or not now.

use std::time::Duration;

use crate::PLACE;
use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::Nologin;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;

fn open_ssh() -> ServerBuilder {
    ServerBuilder::new(Kind::OpenSsh, Login::Bash).user("ci")
}

/// Prepares a job on a machine that lets nobody in; waits for so long.
fn refused(machine: ServerBuilder, connect_timeout: &str) -> Output {
    eprintln!("{machine:?}");
    let runner = PLACE
        .job()
        .machine(machine)
        .connect_timeout(connect_timeout);
    let runner = runner.build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    ends(&runner);
    output
}

fn ends(runner: &Runner) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_locked_account_is_named_as_what_may_be_behind_a_refused_key() {
    for field in ["!", "!!", "!*"] {
        let output = refused(open_ssh().password(field), "1s");
        let output = output.assert_contains("it does not accept the job's key");
        output.assert_contains(
            "An account that is locked (`!` in /etc/shadow; `usermod -p '*' ci` mends it)",
        );
    }
}

#[test]
fn a_login_in_two_steps_is_told_at_once_with_what_is_still_asked_for() {
    for (methods, way, asked) in [
        (
            "publickey,keyboard-interactive",
            "KbdInteractiveAuthentication yes",
            "keyboard-interactive",
        ),
        (
            "publickey,password",
            "PasswordAuthentication yes",
            "password",
        ),
        (
            "publickey,publickey",
            "PubkeyAuthentication yes",
            "publickey",
        ),
    ] {
        let machine = open_ssh().option(&format!("AuthenticationMethods {methods}"));
        let output = refused(machine.option(way), "10m");
        let told = format!("it accepts the job's key and then asks for more: {asked}");
        let output = output.assert_contains(&told);
        output.assert_contains("AuthenticationMethods publickey");
    }
}

#[test]
fn a_server_that_takes_no_keys_at_all_is_told() {
    let machine = open_ssh()
        .option("PubkeyAuthentication no")
        .option("PasswordAuthentication yes");
    let output = refused(machine, "1s");
    let output = output.assert_contains("it lets nobody in by a key, only by password");
    output.assert_contains("PubkeyAuthentication yes");
}

/// As systemd says it.
const WORDS: &str = "System is booting up. Unprivileged users are not permitted to log in yet.\n";

#[test]
fn a_machine_that_turns_all_but_root_away_while_it_boots_is_knocked_on_again() {
    let machine = open_ssh().nologin(Nologin::Pam, WORDS);
    let runner = PLACE.job().machine(machine).connect_timeout("2m").build();
    runner.config().assert_success();
    let prepare = runner.spawn_prepare();
    let denied = "Access denied for user ci by PAM account configuration";
    runner.server().wait_log(denied, 2, PATIENCE);
    std::fs::remove_file(runner.server().nologin()).unwrap();
    prepare.wait(PATIENCE).assert_success();
    let ended = runner.run("build_script", "echo here");
    ended.assert_success().assert_stdout("here\n");
    ends(&runner);
}

#[test]
fn what_a_machine_says_that_turns_all_but_root_away_is_told() {
    let words = WORDS.trim();
    let output = refused(open_ssh().nologin(Nologin::Pam, WORDS), "2s");
    assert!(output.duration >= Duration::from_secs(2), "{output}");
    let told = format!("it accepted the connection and closed it (it says: {words})");
    output
        .assert_contains(&told)
        .assert_contains("/run/nologin");

    // Without PAM, OpenSSH lets in and runs nothing.
    let machine = open_ssh().nologin(Nologin::Server, "Closed for\nmaintenance.\n");
    let runner = PLACE.job().machine(machine).build();
    runner.start();
    let output = runner.run("build_script", "echo never").assert_code(2);
    let output = output.assert_contains("Closed for maintenance.");
    output.assert_contains("while /etc/nologin is there, OpenSSH runs commands of root alone");
    ends(&runner);
}
