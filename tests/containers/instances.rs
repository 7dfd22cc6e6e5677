//! The same on instances, with the real binary from its configuration and payload on.

use serde_json::Value;
use serde_json::json;

use crate::lab::PATIENCE;
use crate::lab::engine::Engine;
use crate::lab::engine::Registry;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::tree::Tree;

/// A job on an instance with that engine, which may use images of the lab's alone.
pub(super) fn on_instance(engine: &Engine) -> RunnerBuilder {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash).path_first(&engine.path());
    Runner::builder()
        .on_ec2()
        .machine(machine)
        .ec2_line("container = true")
        .config_tables("[limits]\nimages = [\"localhost/lab/*\", \"127.0.0.1:*/group/**\"]\n")
}

pub(super) fn local(name: &str) -> Value {
    json!({ "name": name, "pull_policy": "never" })
}

#[test]
fn a_job_with_image_and_services_runs_in_a_container_on_its_instance() {
    let engine = Engine::with_network();
    let serve = "#!/bin/sh\nmkdir -p /www\necho \"$OWN\" >/www/x\nexec httpd -f -p 8080 -h /www\n";
    let tree = Tree::small()
        .file("/serve", serve)
        .line("EXPOSE 8080")
        .line("CMD [\"/serve\"]");
    engine.image("lab/web:1", &tree);
    let entrypoint =
        "#!/bin/sh\necho from the entrypoint\nexport OF_ENTRYPOINT=$CI_JOB_NAME\nexec \"$@\"\n";
    let tree = Tree::with_bash()
        .file("/entrypoint", entrypoint)
        .line("ENTRYPOINT [\"/entrypoint\"]");
    let registry = Registry::start(&engine);
    engine.image("lab/app:1", &tree);
    let app = registry.take(&engine, "lab/app:1", "group/app:1");
    let credentials = json!([{
        "type": "registry", "url": registry.address(), "username": "lab", "password": "secret",
    }]);
    let service = json!({
        "name": "localhost/lab/web:1", "pull_policy": ["never"], "alias": "db",
        "variables": [{ "key": "OWN", "value": "for $CI_JOB_NAME" }],
    });
    let runner = on_instance(&engine)
        .payload_field("image", json!({ "name": app }))
        .payload_field("services", json!([service]))
        .payload_field("credentials", credentials)
        .build();
    runner.config().assert_success();
    let prepared = runner.prepare().assert_success();
    for line in [
        "Starting service localhost/lab/web:1...",
        &format!(
            "Pulling image {app} with the job's credentials for {}...",
            registry.address()
        ),
        &format!("Image {app} is there after "),
        "from the entrypoint\n",
    ] {
        assert!(prepared.contains(line), "{line}: {prepared}");
    }
    assert!(!prepared.contains("secret"), "{prepared}");
    let builds = runner.root().join("builds");
    let builds = builds.display();
    runner
        .run("get_sources", format!("echo source >{builds}/made"))
        .assert_success();
    runner
        .run(
            "build_script",
            format!(
                "cat {builds}/made; echo \"$OF_ENTRYPOINT\"; wget -qO - http://db:8080/x; exit 9"
            ),
        )
        .assert_code(1)
        .assert_stdout("source\nlab\nfor lab\n");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"9"[..]));
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn an_image_beyond_the_limits_is_refused_before_anything_is_launched() {
    let engine = Engine::new();
    for (field, value) in [
        ("image", local("docker.io/library/ruby:3")),
        ("services", json!([local("postgres")])),
    ] {
        let runner = on_instance(&engine)
            .ec2_line("container_image = \"localhost/lab/app:1\"")
            .payload_field(field, value)
            .build();
        runner.config().assert_success();
        let refused = runner.prepare().assert_code(2);
        assert!(
            refused.contains("[limits] images allows only localhost/lab/*"),
            "{refused}"
        );
        runner.cleanup().assert_success();
    }
    assert_eq!(engine.calls(), "");
}

#[test]
fn a_job_without_an_image_gets_the_administrators_or_a_clear_word() {
    let engine = Engine::new();
    let runner = on_instance(&engine).build();
    runner.config().assert_success();
    let refused = runner.prepare().assert_code(2);
    assert!(refused.contains("container_image"), "{refused}");
    runner.cleanup().assert_success();

    engine.image("lab/app:1", &Tree::small());
    // A registry is asked each time unless the job says otherwise, and this one is not there.
    let runner = on_instance(&engine)
        .ec2_line("container_image = \"127.0.0.1:1/lab/app:1\"")
        .build();
    runner.config().assert_success();
    let output = runner.spawn_prepare().wait(2 * PATIENCE).assert_code(2);
    assert!(output.contains("trying again in 5 s"), "{output}");
    assert!(
        output.contains("127.0.0.1:1/lab/app:1 cannot be pulled: "),
        "{output}"
    );
    runner.cleanup().assert_success();
}

#[test]
fn a_job_with_an_image_uses_the_rungs_that_run_images() {
    let engine = Engine::with_network();
    engine.image("lab/app:1", &Tree::small().line("EXPOSE 8080"));
    // A service that ends is told with its own words, and does not stop the job.
    let mut dead = local("localhost/lab/app:1");
    dead["command"] = json!(["sh", "-c", "echo no licence; exit 4"]);
    let runner = on_instance(&engine)
        .capacity(&["fargate", "ec2"])
        .payload_field("image", local("localhost/lab/app:1"))
        .payload_field("services", json!([dead]))
        .build();
    runner.config().assert_success();
    let prepared = runner.prepare().assert_success();
    for line in [
        "fargate is left out: the job asks for",
        "the service localhost/lab/app:1 probably did not start properly: its container ended",
        "  localhost/lab/app:1: no licence\n",
    ] {
        assert!(prepared.contains(line), "{line}: {prepared}");
    }
    runner
        .run(
            "build_script",
            "[ -e /bin/busybox ] && [ ! -e /usr ] && echo inside",
        )
        .assert_success()
        .assert_stdout("inside\n");
}
