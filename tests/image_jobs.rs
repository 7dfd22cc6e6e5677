//! Jobs in containers of any image, by the agent: which images serve, and what is said of those that do not; what a job sees of
//! the agent there; that nothing of a container outlives its job.

use std::path::Path;

use serde_json::json;

use crate::lab::PATIENCE;
use crate::lab::docker::Docker;
use crate::lab::images;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::stage::Call;
use crate::lab::stage::Output;
use crate::lab::tools;
use crate::lab::traces::until;
use crate::lab::tree::Tree;
use crate::scripts::record;

type Image = fn(&Docker) -> String;

/// What happens to a job's machine.
type Harm = fn(&Runner);

fn job(image: Image) -> RunnerBuilder {
    Runner::builder().in_container(image)
}

/// Runs a script in a new job, and returns what it printed.
#[track_caller]
fn ran(builder: RunnerBuilder, script: &str) -> String {
    let runner = builder.build();
    runner.start();
    let output = runner.run("build_script", script).assert_success();
    assert!(output.stderr.is_empty(), "{output}");
    output.stdout_text()
}

#[test]
fn a_job_runs_in_its_image_with_bash_or_without() {
    let script = "[ -n \"$BASH_VERSION\" ] && echo bash || echo sh\npwd\necho \"$0\" >&2\n";
    for (image, shell) in [
        (images::debian as Image, "bash"),
        (images::busybox, "sh"),
        (images::with_volume, "sh"),
    ] {
        let said = ran(job(image), script);
        assert_eq!(said.lines().next(), Some(shell), "{said}");
    }
}

#[test]
fn a_user_without_a_name_or_a_home_runs_scripts() {
    let script = "id -u; umask; : >\"$CI_TEST_FILE\" && echo made\n";
    let script = format!("CI_TEST_FILE=/builds/file\n{script}");
    let said = ran(job(images::nameless), &script);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], images::NAMELESS.to_string(), "{said}");
    assert_eq!(lines[2], "made", "{said}");
}

#[test]
fn a_job_may_choose_the_user_and_have_no_entrypoint() {
    let image = json!({
        "name": images::dropping_entrypoint(Docker::shared()),
        "entrypoint": [""],
        "executor_opts": {"docker": {"user": "1234:4321"}},
    });
    let builder = job(images::busybox)
        .payload_field("image", image)
        .config_tables("[limits]\nimages = [\"**\"]\n");
    assert_eq!(ran(builder, "id -u; id -g"), "1234\n4321\n");
}

#[test]
fn a_read_only_root_with_a_tmpfs_serves() {
    let builder = job(images::busybox)
        .container_option("--read-only")
        .container_option("--tmpfs=/tmp");
    let script = "touch /no 2>/dev/null || echo 'read only'; seq 1 20000 | tail -n 1\n";
    assert_eq!(ran(builder, script), "read only\n20000\n");
}

#[test]
fn what_an_entrypoint_sets_up_is_there() {
    let (name, value) = images::EXPORTED;
    let said = ran(
        job(images::exporting_entrypoint),
        &format!("echo \"${name}\"\n"),
    );
    assert_eq!(said, format!("{value}\n"));
    for image in [
        images::becoming_entrypoint as Image,
        images::trapping_entrypoint,
        images::staying_entrypoint,
    ] {
        assert_eq!(ran(job(image), "echo here"), "here\n");
    }
}

/// The image's program is given the agent's path as its first argument: busybox takes it for an applet's name, cat for a file.
#[test]
fn an_entrypoint_that_does_not_run_its_command_is_named() {
    for image in [
        images::dropping_entrypoint as Image,
        images::tool,
        images::printing_tool,
    ] {
        let runner = job(image).connect_timeout("5s").build();
        runner.config().assert_success();
        let output = runner.prepare().assert_code(2);
        assert!(output.contains("ENTRYPOINT"), "{output}");
        assert!(output.contains("entrypoint: [\"\"]"), "{output}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn an_image_without_a_shell_is_refused_by_name() {
    let runner = job(images::shell_less).build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains("has no shell"), "{output}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// Its exit code would be nobody's: a shell without its loader, or of another architecture, is no failure of the script.
#[test]
fn a_shell_that_does_not_start_is_no_failure_of_the_script() {
    let image: Image = |docker| {
        let tree = Tree::small().file("/usr/local/bin/bash", "#!/nowhere/loader\n");
        docker.image("broken-shell", &tree)
    };
    let runner = job(image).build();
    runner.start();
    let output = runner.run("build_script", "echo never").assert_code(2);
    assert!(
        output.contains("shell cannot be started: /usr/local/bin/bash"),
        "{output}"
    );
    assert!(output.contains("No such file or directory"), "{output}");
    assert_eq!(runner.exit_file(), None);
}

#[test]
fn an_image_that_is_not_there_is_told_in_dockers_words() {
    let image = json!({"name": "127.0.0.1:1/no/such:image"});
    let runner = job(images::busybox)
        .payload_field("image", image)
        .config_tables("[limits]\nimages = [\"**\"]\n")
        .build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains("127.0.0.1:1/no/such:image"), "{output}");
    assert!(
        output.contains("docker did not bring the agent"),
        "{output}"
    );
    assert!(output.contains("127.0.0.1:1"), "{output}");
}

#[test]
fn an_image_outside_the_limits_is_refused() {
    let runner = job(images::busybox)
        .payload_field("image", json!({"name": "elsewhere/thing:1"}))
        .build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains("[limits] images"), "{output}");
}

#[test]
fn docker_that_is_not_there_is_told() {
    let none = crate::lab::temp_dir();
    let runner = job(images::busybox)
        .environment("PATH", none.path().to_str())
        .build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains("docker"), "{output}");
    runner.cleanup().assert_success();
}

/// What the launch handed over proves nothing any more, and nothing else of the agent is in anybody's reach.
#[test]
fn a_script_finds_no_key_of_the_agent() {
    for (image, stays) in [
        (images::debian as Image, false),
        (images::staying_entrypoint, true),
    ] {
        let runner = job(image).build();
        runner.start();
        let script = "env\nfor p in /proc/[0-9]*; do\nfor f in environ cmdline; do cat $p/$f 2>/dev/null; echo; done\nls -l $p/fd 2>/dev/null\ndone\n";
        let seen = runner.run("build_script", script).stdout_text();
        let open = "for p in /proc/[0-9]*; do\ncase $(readlink $p/exe) in *gitlab-aws-agent) echo open $p ;; esac\n\
                    read -r name <$p/comm; if [ \"$name\" = gitlab-aws-agen ] && (: <$p/mem); then echo mem $p; fi\ndone 2>/dev/null\n";
        let open = runner
            .run("build_script", open)
            .assert_success()
            .stdout_text();
        assert_eq!(open, "");
        assert!(!seen.contains("PRIVATE KEY"), "{seen}");
        let record = record(&runner);
        let pinned = record["machine"]["endpoints"][0]["host_key"]
            .as_str()
            .unwrap();
        let pinned = pinned.split(' ').nth(1).unwrap();
        assert!(!seen.contains(pinned), "{seen}");
        // An entrypoint that stays keeps the environment that it was started with.
        assert_eq!(
            seen.matches("host-key=").count(),
            usize::from(stays),
            "{seen}"
        );
        let own = runner.run("build_script", "env").stdout_text();
        assert!(!own.contains("GITLAB_AWS_AGENT"), "{own}");
    }
}

/// Kills processes on this host that belong to the job's machine by a word of their command line.
fn kill_those(runner: &Runner, word: &str) {
    let all = runner.processes();
    let mut killed = 0;
    for process in all {
        if process.to_string().contains(word) {
            process.kill();
            killed += 1;
        }
    }
    assert!(killed > 0, "no process has {word}");
}

#[test]
fn nothing_of_a_container_outlives_its_job() {
    let ends: [(&str, Harm); 3] = [
        ("nothing was killed", |_| {}),
        ("docker's client was killed", |runner| {
            kill_those(runner, "run --volume");
        }),
        (
            "all that is the machine on this host was killed",
            |runner| {
                kill_those(runner, "local-machine");
            },
        ),
    ];
    for (what, end) in ends {
        let runner = job(images::busybox).build();
        runner.start();
        let name = runner.container_name();
        end(&runner);
        let output = runner.cleanup();
        assert_eq!(output.code(), Some(0), "{what}: {output}");
        let docker = Docker::shared();
        for words in [
            &["ps", "--all", "--quiet", "--filter"][..],
            &["volume", "ls", "--quiet", "--filter"],
        ] {
            let mut words = words.to_vec();
            let filter = format!("name={name}");
            words.push(&filter);
            assert_eq!(docker.run(&words), "", "{what}");
        }
        runner.assert_nothing_left();
    }
}

/// The agent ends by itself when its time is over, whatever became of this host.
#[test]
fn a_container_ends_at_its_time_by_itself() {
    let runner = job(images::busybox)
        .job_timeout(12)
        .config_line("deadline_margin = \"1s\"")
        .build();
    runner.start();
    let name = runner.container_name();
    kill_those(&runner, "local-machine");
    until("the container ends", PATIENCE, || {
        let filter = format!("name={name}");
        let words = ["ps", "--quiet", "--filter", &filter];
        Docker::shared().run(&words).is_empty()
    });
}

/// A killed container fails the stage: its script's result is not known.
#[test]
fn a_container_that_is_killed_fails_the_script() {
    let runner = job(images::busybox).build();
    runner.start();
    let stage = runner.spawn_run("build_script", "echo begun; sleep 600");
    stage.wait_output(b"begun\n", PATIENCE);
    Docker::shared().run(&["kill", &runner.container_name()]);
    let output = stage.wait(PATIENCE).assert_code(2);
    assert!(output.contains("the machine is gone"), "{output}");
}

/// The stop of a container waits for the script that runs, where the agent is told of it.
#[test]
fn a_stop_of_the_container_waits_for_the_script() {
    let runner = job(images::busybox).build();
    runner.start();
    let gate = crate::scripts::Gate::new(runner.root());
    let script = format!("echo begun; read -r line <{gate}; echo \"$line\"");
    let stage = runner.spawn_run("build_script", script);
    stage.wait_output(b"begun\n", PATIENCE);
    let stop = Call {
        name: "docker stop".to_owned(),
        program: tools::program("docker"),
        args: ["stop", "--time=600", &runner.container_name()]
            .map(Into::into)
            .into(),
        env: [("DOCKER_HOST".into(), Docker::shared().host().into())].into(),
        directory: runner.root().to_owned(),
        ..Call::default()
    }
    .spawn();
    let name = runner.container_name();
    until("the agent holds its end back", PATIENCE, || {
        let log = Docker::shared().output(&["logs", &name]);
        String::from_utf8_lossy(&log.stderr).contains("waits")
    });
    gate.open("went on");
    let output = stage.wait(PATIENCE).assert_success();
    assert_eq!(output.stdout_text(), "begun\nwent on\n");
    stop.wait(PATIENCE).assert_success();
}

/// Runs `try` as a user would, with these arguments.
fn try_it(args: &[&str], folder: &Path) -> Output {
    let agent = tools::static_agent();
    let docker = tools::program("docker");
    let path = format!("{}:/usr/bin:/bin", docker.parent().unwrap().display());
    let env = [
        ("PATH", path.as_str()),
        ("HOME", folder.to_str().unwrap()),
        ("TMPDIR", folder.to_str().unwrap()),
        ("DOCKER_HOST", &Docker::shared().host()),
    ];
    let mut words = vec!["try", "--agent", agent.to_str().unwrap()];
    words.extend(args);
    Call {
        name: "try".to_owned(),
        program: env!("CARGO_BIN_EXE_gitlab-aws-driver").into(),
        args: words.into_iter().map(Into::into).collect(),
        env: env.map(|(name, value)| (name.into(), value.into())).into(),
        directory: folder.to_owned(),
        ..Call::default()
    }
    .spawn()
    .wait(PATIENCE)
}

#[test]
fn try_runs_a_job_in_an_image_without_aws() {
    let folder = crate::lab::temp_dir();
    let image = images::debian(Docker::shared());
    let script = "echo in $BASH; exit 7";
    let output = try_it(
        &["--image", &image, "--", "sh", "-c", script],
        folder.path(),
    );
    let output = output.assert_code(7);
    assert!(
        output.contains("in a container of this host's docker"),
        "{output}"
    );
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "{output}");
}

#[test]
fn try_tells_what_keeps_an_image_from_running() {
    let folder = crate::lab::temp_dir();
    let image = images::shell_less(Docker::shared());
    let output = try_it(&["--image", &image, "--", "true"], folder.path());
    assert!(output.assert_code(125).contains("has no shell"));
}

/// An agent's file that needs libraries would fail in most images, with words that name something else.
#[test]
fn a_dynamic_agent_is_refused() {
    let own = env!("CARGO_BIN_EXE_gitlab-aws-driver");
    let runner = Runner::builder()
        .config_tables(&format!(
            "[local]\ncontainer = true\ncontainer_image = \"x\"\nagent = {own:?}\n"
        ))
        .build();
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains("linked dynamically"), "{output}");
    // There is no container, so it needs no docker.
    runner.cleanup().assert_success();
}
