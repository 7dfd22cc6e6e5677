//! Tasks whose SSH server lets in an ordinary user: the job runs, and what root alone could do is said.

use std::time::Duration;

use rustix::process::Signal;

use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;

const SERVERS: [(Kind, Login); 2] = [(Kind::OpenSsh, Login::Bash), (Kind::Dropbear, Login::Dash)];

/// What is said once, when the machine is there.
const WARNINGS: [&str; 2] = [
    "WARNING: this machine cannot be ended from inside (the login may not end process 1; root may); `reap` ends it \
     after its deadline",
    "WARNING: scripts do not get the container's environment (variables of the image and of the task, credentials of \
     its role): process 1 shows it to root only; remedy: have the image's SSH server let in root, and set `username` \
     under [fargate] or [ssh]",
];

fn warnings(output: &Output) -> Vec<String> {
    let text = output.stderr_text();
    let start = |line: &str| line.find("WARNING").map(|at| line[at..].to_owned());
    text.lines()
        .filter_map(start)
        .map(|line| line.trim_end_matches("\x1b[0;m").to_owned())
        .collect()
}

/// Prepares a job of a user whose image has a variable.
fn start(kind: Kind, login: Login, change: impl Fn(ServerBuilder) -> ServerBuilder) -> Runner {
    let machine = change(ServerBuilder::new(kind, login).user("ci"));
    let runner = Runner::builder()
        .on_fargate()
        .machine(machine)
        .image_variable("OF_THE_IMAGE", "a secret of root's")
        .build();
    let prepared = runner.prepare().assert_success();
    assert_eq!(warnings(&prepared), WARNINGS, "{prepared}");
    runner
}

#[test]
fn a_job_of_an_ordinary_user_runs_and_is_told_what_it_lacks() {
    for (kind, login) in SERVERS {
        for init in [true, false] {
            eprintln!("{kind:?} {login:?}, init {init}");
            let runner = start(kind, login, |machine| match init {
                true => machine.init(),
                false => machine,
            });
            let script = "id -un; echo \"$HOME\"; touch \"$HOME/own\"; echo \"${OF_THE_IMAGE-none}\"; exit 3";
            let output = runner.run("build_script", script).assert_code(1);
            let home = runner.server().home();
            let wanted = format!("ci\n{}\nnone\n", home.display());
            assert_eq!(output.stdout_text(), wanted, "{output}");
            assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
            assert!(home.join("own").exists());
            // The warnings are the first command's alone.
            let after = runner.run("after_script", "echo after").assert_success();
            after.assert_stdout("after\n");
            assert!(runner.traces().scripts().is_empty());
            runner.cleanup().assert_success();
            runner.assert_nothing_left();
        }
    }
}

#[test]
fn a_script_of_an_ordinary_user_is_cancelled() {
    let runner = start(Kind::OpenSsh, Login::Bash, ServerBuilder::init);
    let script = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let run = runner.spawn_run("build_script", script);
    run.wait_output(b"ready\n", PATIENCE);
    run.signal(Signal::TERM);
    let output = run.wait(Duration::from_secs(26)).assert_code(1);
    // The shell's own word on the `sleep` that died may stand between.
    let text = output.stdout_text();
    assert!(
        text.starts_with("ready\n") && text.ends_with("heard\n"),
        "{output}"
    );
    assert_eq!(runner.exit_file().as_deref(), Some(&b"5"[..]));
    runner
        .run("after_script", "echo after")
        .assert_stdout("after\n");
}

#[test]
fn a_login_that_refuses_is_told_in_its_own_words() {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash);
    let runner = Runner::builder().on_fargate().machine(machine).build();
    let start_up = runner.server().home().join(".bashrc");
    std::fs::write(
        start_up,
        "echo 'This account is currently not available.'\nexit 1\n",
    )
    .unwrap();
    let output = runner.prepare().assert_code(2);
    let output = output.assert_contains(
        "the machine cannot run the driver's first command: it ended without an answer: This account is currently \
         not available.",
    );
    output.assert_contains("The image needs a POSIX login shell");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
