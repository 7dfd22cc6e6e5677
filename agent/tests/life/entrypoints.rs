//! Entrypoints of images, which nobody here has written.

use rustix::process::{Pid, Signal, kill_process};

use crate::launch::{Launch, NAMESPACE};

/// Launches below an entrypoint, and compares what the greeting says of process 1, of the parent, and of TERM.
async fn stands(launch: Launch, expected: [&str; 3]) -> crate::launch::Launched {
    let agent = launch.start();
    let (_greeter, facts) = agent.greet().await;
    let told = ["process-1", "below", "holds-term"].map(|name| facts[name].clone());
    assert_eq!(told, expected);
    agent
}

#[tokio::test]
async fn the_tool_itself() {
    // Process 1 has no parent in its namespace.
    stands(Launch::new().under(&NAMESPACE), ["yes", "-", "yes"]).await;
}

#[tokio::test]
async fn one_that_execs() {
    stands(Launch::new().entrypoint("exec \"$0\""), ["yes", "-", "yes"]).await;
}

#[tokio::test]
async fn one_that_exports_and_execs() {
    let script = "export FROM_THE_ENTRYPOINT='a  value'; cd /usr; umask 027; exec \"$0\"";
    let agent = stands(
        Launch::new()
            .env("HOME", Some("/nowhere"))
            .entrypoint(script),
        ["yes", "-", "yes"],
    )
    .await;
    let (said, _, _) = agent.run("echo \"$FROM_THE_ENTRYPOINT\"; umask").await;
    assert_eq!(said, "a  value\n0027\n");
    assert_eq!(agent.greet().await.1["directory"], "/usr");
}

#[tokio::test]
async fn one_that_does_not_exec() {
    let agent = stands(
        Launch::new().entrypoint("\"$0\"; exit 7"),
        ["sh", "sh", "no"],
    )
    .await;
    let (mut greeter, _) = agent.greet().await;
    assert_eq!(greeter.order("end").await, "ending");
    // It goes on to its own end.
    assert_eq!(agent.end().0, Some(7));
}

#[tokio::test]
async fn one_that_does_not_exec_twice() {
    let agent = stands(
        Launch::new().entrypoint("bash -c '\"$0\"; true' \"$0\"; exit 8"),
        ["sh", "bash", "no"],
    )
    .await;
    let (mut greeter, _) = agent.greet().await;
    assert_eq!(greeter.order("end").await, "ending");
    assert_eq!(agent.end().0, Some(8));
}

#[tokio::test]
async fn one_that_traps_term() {
    let script = "trap 'echo trapped >&2; exit 9' TERM; \"$0\" & wait";
    let agent = stands(Launch::new().entrypoint(script), ["sh", "sh", "no"]).await;
    let first = Pid::from_raw(agent.first_pid()).unwrap();
    kill_process(first, Signal::TERM).unwrap();
    agent.line("trapped");
    // The container takes the agent with it.
    assert_eq!(agent.end().0, Some(9));
}

#[tokio::test]
async fn one_that_traps_term_hears_of_the_end() {
    let script = "trap 'exit 9' TERM; \"$0\" & wait; while :; do wait; sleep 1 & wait $!; done";
    let agent = stands(Launch::new().entrypoint(script), ["sh", "sh", "no"]).await;
    let (mut greeter, _) = agent.greet().await;
    assert_eq!(greeter.order("end").await, "ending");
    assert_eq!(agent.end().0, Some(9));
}

#[tokio::test]
async fn an_init_that_forwards() {
    // By name: a real one does the same.
    let root = tempfile::tempdir().unwrap();
    let init = root.path().join("tini");
    std::fs::write(
        &init,
        "#!/bin/sh\ntrap 'kill -TERM $child' TERM\n\"$@\" & child=$!\n\
         wait $child; wait $child; exit $?\n",
    )
    .unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&init, mode).unwrap();
    let launch = Launch::new()
        .under(&NAMESPACE)
        .under(&[init.to_str().unwrap(), "--"][..1]);
    let agent = stands(launch, ["tini", "tini", "yes"]).await;
    let first = Pid::from_raw(agent.first_pid()).unwrap();
    kill_process(first, Signal::TERM).unwrap();
    agent.line("told by a signal");
    assert_eq!(agent.end().0, Some(0));
}

#[tokio::test]
async fn one_that_drops_arguments() {
    let agent = Launch::new()
        .under(&NAMESPACE)
        .under(&["sh", "-c"])
        .arguments(&["serve", "--lost"]);
    let agent = agent.start();
    // Some shells become the last command, and some do not.
    let (_greeter, facts) = agent.greet().await;
    assert!(matches!(facts["process-1"].as_str(), "yes" | "sh"));
}

#[tokio::test]
async fn one_that_adds_arguments() {
    for script in [
        "exec \"$0\" --verbose start",
        "exec \"$0\" sh -c 'sleep 5'",
        "exec \"$0\" ''",
    ] {
        let agent = Launch::new().entrypoint(script).spawn();
        agent.line("ignores");
        agent.line("listening on 127.0.0.1:");
    }
    // A command that is meant is done.
    let agent = Launch::new().entrypoint("exec \"$0\" serve").spawn();
    agent.line("listening on 127.0.0.1:");
    let agent = Launch::new().entrypoint("exec \"$0\" --version").spawn();
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn without_parameters_nothing_is_served() {
    let agent = Launch::new()
        .env("GITLAB_AWS_AGENT", None)
        .entrypoint("exec \"$0\"");
    let (code, said) = agent.spawn().end();
    assert_eq!(code, Some(1));
    assert!(said.contains("no key may log in"), "{said}");
}
