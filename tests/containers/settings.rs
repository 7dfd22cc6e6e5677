//! What the payload and the administrator's file say of a job's containers, and how far each may go: users, entrypoints,
//! privileges, services; and an instance whose docker or whose time is not what the job hopes for.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::instances::local;
use super::instances::on_instance;
use crate::lab::PATIENCE;
use crate::lab::engine::Engine;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::tree::Tree;

/// What docker's client says where nothing answers it.
const NO_DAEMON: &str = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
/// How the job log tells of Spot's notice.
const NOTICE: &str = "Spot takes this machine back in ";
/// Says what a script may do to the machine.
const RIGHTS: &str = "[ -e /var/run/docker.sock ] && echo socket; caps=$(grep CapEff /proc/self/status); \
                      [ $((0x0${caps##*[!0-9a-f]} >> 21 & 1)) = 1 ] && echo admin; echo end";

/// The image of a job, with more said of it.
fn image(more: &Value) -> Value {
    let mut image = local("localhost/lab/app:1");
    for (key, value) in more.as_object().unwrap() {
        image[key] = value.clone();
    }
    image
}

/// A job in the engine's `lab/app:1`.
fn in_app(engine: &Engine) -> RunnerBuilder {
    on_instance(engine).payload_field("image", image(&json!({})))
}

fn end(runner: &Runner) {
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn docker_that_comes_up_after_the_login_is_waited_for() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::small());
    engine.fail_with(NO_DAEMON);
    let runner = in_app(&engine).build();
    runner.config().assert_success();
    let preparing = runner.spawn_prepare();
    preparing.wait_output(b"Waiting for docker on the instance", PATIENCE);
    engine.heal();
    preparing.wait(PATIENCE).assert_success();
    runner
        .run("build_script", "[ ! -e /usr ] && echo inside")
        .assert_success()
        .assert_stdout("inside\n");
    end(&runner);
}

#[test]
fn docker_that_never_comes_up_is_a_system_failure_with_its_remedy() {
    let engine = Engine::new();
    engine.fail_with(NO_DAEMON);
    let runner = in_app(&engine).build();
    runner.config().assert_success();
    let failed = runner.spawn_prepare().wait(3 * PATIENCE).assert_code(2);
    for words in [
        "ERROR: docker cannot be used on the instance: its daemon does not run",
        "systemctl enable docker",
    ] {
        assert!(failed.contains(words), "{failed}");
    }
    end(&runner);
}

#[test]
fn a_service_that_never_answers_is_one_warning_and_the_job_goes_on() {
    let engine = Engine::with_network();
    let silent = Tree::small()
        .file("/silent", "#!/bin/sh\necho no disk yet\nexec sleep 86400\n")
        .line("EXPOSE 8080")
        .line("CMD [\"/silent\"]");
    engine.image("lab/silent:1", &silent);
    engine.image("lab/app:1", &Tree::small());
    let runner = in_app(&engine)
        .ec2_line("services_timeout = \"10s\"")
        .payload_field("services", json!([local("localhost/lab/silent:1")]))
        .build();
    runner.config().assert_success();
    let prepared = runner.prepare().assert_success();
    let log = prepared.stderr_text();
    let warning = "the service localhost/lab/silent:1 probably did not start properly: none of its ports answered within 10s";
    assert_eq!(log.matches("WARNING").count(), 1, "{log}");
    assert!(log.contains(warning), "{log}");
    assert!(
        log.contains("  localhost/lab/silent:1: no disk yet\n"),
        "{log}"
    );
    runner
        .run("build_script", "echo on")
        .assert_success()
        .assert_stdout("on\n");
    end(&runner);
}

#[test]
fn scripts_run_as_the_user_that_the_job_names() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::with_bash());
    let user = json!({ "executor_opts": { "docker": { "user": "app" } } });
    let runner = on_instance(&engine)
        .payload_field("image", image(&user))
        .build();
    runner.start();
    let builds = runner.root().join("builds");
    let builds = builds.display();
    runner
        .run("get_sources", format!("id -u; echo source >{builds}/made"))
        .assert_success()
        .assert_stdout("0\n");
    runner
        .run(
            "build_script",
            format!("id -un; id -u; cat {builds}/made; echo own >{builds}/own; exit 3"),
        )
        .assert_code(1)
        .assert_stdout("app\n1001\nsource\n");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    end(&runner);
}

#[test]
fn an_entrypoint_is_kept_cleared_or_the_jobs_own() {
    let engine = Engine::new();
    let tree = Tree::small()
        .file(
            "/images",
            "#!/bin/sh\n[ -z \"$REFUSE\" ] || exit 7\nexport BY=image\nexec \"$@\"\n",
        )
        .file(
            "/own",
            "#!/bin/sh\nexport BY=\"own $1 $2 $3\"\nshift\nexec \"$@\"\n",
        )
        .line("ENTRYPOINT [\"/images\"]");
    engine.image("lab/app:1", &tree);
    for (refuse, more, by) in [
        ("", json!({}), "image"),
        // GitLab sends an empty list where the job says nothing.
        ("", json!({ "entrypoint": [] }), "image"),
        ("yes", json!({ "entrypoint": [""] }), ""),
        (
            "yes",
            json!({ "entrypoint": ["/own", "--flag"] }),
            "own --flag sh -c",
        ),
    ] {
        let runner = on_instance(&engine)
            .variable("REFUSE", refuse)
            .payload_field("image", image(&more))
            .build();
        runner.start();
        runner
            .run("build_script", "echo \"by $BY\"")
            .assert_success()
            .assert_stdout(format!("by {by}\n"));
        end(&runner);
    }
}

#[test]
fn privileges_and_the_socket_are_the_administrators_to_give() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::small());
    let wants = || {
        let overwrite = json!({
            "privileged": true, "docker_socket": true,
            "executor_opts": { "docker": { "privileged": true, "docker_socket": true } },
        });
        on_instance(&engine)
            .variable("AWS_DRIVER_PRIVILEGED", "true")
            .variable("DOCKER_PRIVILEGED", "true")
            .payload_field("image", image(&overwrite))
    };
    let given = || {
        wants()
            .ec2_line("privileged = true")
            .ec2_line("docker_socket = true")
    };
    for (runner, rights) in [
        (wants().build(), "end\n"),
        (given().build(), "socket\nadmin\nend\n"),
    ] {
        runner.start();
        runner
            .run("build_script", RIGHTS)
            .assert_success()
            .assert_stdout(rights);
        end(&runner);
    }
}

/// What `docker:dind` does but for its daemon: it leaves certificates, and the job finds them and it.
#[test]
fn docker_in_docker_shares_its_certificates_with_the_job() {
    let engine = Engine::with_network();
    let dind = Tree::small()
        .file(
            "/serve",
            "#!/bin/sh\necho \"for $DOCKER_TLS_CERTDIR\" >\"$DOCKER_TLS_CERTDIR/client/ca.pem\"\n\
             mkdir /www\ngrep CapEff /proc/self/status >/www/caps\nexec httpd -f -p 2376 -h /www\n",
        )
        .line("EXPOSE 2376")
        .line("CMD [\"/serve\"]");
    engine.image("lab/dind:1", &dind);
    engine.image("lab/app:1", &Tree::small());
    let mut service = local("localhost/lab/dind:1");
    service["alias"] = json!("docker");
    let runner = in_app(&engine)
        .ec2_line("privileged = true")
        .variable("DOCKER_TLS_CERTDIR", "/certs")
        .variable("DOCKER_HOST", "tcp://docker:2376")
        .payload_field("services", json!([service]))
        .build();
    runner.config().assert_success();
    let prepared = runner.prepare().assert_success();
    assert!(!prepared.contains("WARNING"), "{prepared}");
    let script = "cat \"$DOCKER_TLS_CERTDIR/client/ca.pem\"; h=${DOCKER_HOST#tcp://}; \
                  [ \"$(wget -qO - http://$h/caps)\" = \"$(grep CapEff /proc/self/status)\" ] && echo as privileged";
    runner
        .run("build_script", script)
        .assert_success()
        .assert_stdout("for /certs\nas privileged\n");
    end(&runner);
}

#[test]
fn spots_notice_is_told_once_while_a_job_runs_in_its_container() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::small());
    let runner = in_app(&engine).build();
    runner.start();
    let go = runner.root().join("builds/go");
    let script = format!(
        "[ ! -e /usr ] && echo inside; until [ -e '{}' ]; do sleep 0.1; done; echo ended",
        go.display()
    );
    let running = runner.spawn_run("build_script", script);
    running.wait_output(b"inside", PATIENCE);
    let instance = runner.account().instances_alive()[0].id.clone();
    runner.account().notice(&instance, Duration::from_secs(110));
    running.wait_output(NOTICE.as_bytes(), PATIENCE);
    std::fs::write(&go, "").unwrap();
    let ended = running.wait(PATIENCE).assert_success();
    assert_eq!(ended.stdout_text(), "inside\nended\n", "{ended}");
    assert_eq!(ended.stderr_text().matches(NOTICE).count(), 1, "{ended}");
    for stage in ["after_script", "archive_cache"] {
        let ended = runner.run(stage, "sleep 4; exit 5").assert_code(1);
        assert!(!ended.contains(NOTICE), "{ended}");
    }
    end(&runner);
}
