//! Connections that are cut while a job's containers are made, and while its script runs in one.

use std::time::Duration;
use std::time::Instant;

use gitlab_aws_driver::runner::containers::Image;
use gitlab_aws_driver::runner::containers::Service;

use super::Job;
use super::named;
use crate::lab::PATIENCE;
use crate::lab::engine::Engine;
use crate::lab::proxy::Cut;
use crate::lab::tree::Tree;

#[test]
fn output_is_exact_to_the_byte_and_survives_cuts() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::small());
    let job = Job::start(&engine);
    job.make(&job.plan(Image {
        pull_policy: vec!["if-not-present".into()],
        ..named("localhost/lab/app:1")
    }))
    .unwrap();
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(1 << 20).collect();
    let file = job.runner.root().join("builds/bytes");
    std::fs::write(&file, &bytes).unwrap();
    let show = file.display();
    let script = format!(
        "cat {show}; echo middle; until [ -e {show}.go ]; do sleep 0.1; done; cat {show} >&2; exit 3"
    );
    let stage = job.runner.spawn_run("build_script", &script);
    stage.wait_stdout_len(bytes.len() as u64 + 7, PATIENCE);
    for cut in [Cut::Reset, Cut::Close] {
        let connections = job.runner.proxy().counts().connections;
        job.runner.proxy().cut(cut);
        job.runner
            .proxy()
            .wait_connections(connections + 1, PATIENCE);
    }
    std::fs::write(format!("{show}.go"), "").unwrap();
    let expected = [&bytes[..], b"middle\n", &bytes[..]].concat();
    stage.wait(PATIENCE).assert_code(1).assert_stdout(expected);
    assert_eq!(job.runner.exit_file().as_deref(), Some(&b"3"[..]));
}

#[test]
fn a_cut_while_the_containers_are_made_costs_nothing() {
    let engine = Engine::with_network();
    engine.image("lab/app:1", &Tree::small());
    let job = Job::start(&engine);
    let go = job.runner.root().join("builds/go");
    let local = Image {
        pull_policy: vec!["never".into()],
        ..named("localhost/lab/app:1")
    };
    let serve = format!(
        "until [ -e '{}' ]; do sleep 0.1; done; exec httpd -f -p 8080 -h /etc",
        go.display()
    );
    let mut plan = job.plan(local.clone());
    plan.services_timeout = PATIENCE;
    plan.job.services = vec![Service {
        image: local,
        command: vec!["sh".into(), "-c".into(), serve],
        variables: vec![("HEALTHCHECK_TCP_PORT".into(), "8080".into())],
        ..Service::default()
    }];
    std::thread::scope(|scope| {
        let making = scope.spawn(|| job.make(&plan));
        let deadline = Instant::now() + PATIENCE;
        // It is asked for until it answers.
        while !engine.calls().contains(".State.Running") {
            assert!(Instant::now() < deadline, "{}", engine.calls());
            // Another process' line in a file is no event that could be waited for.
            std::thread::sleep(Duration::from_millis(10));
        }
        let connections = job.runner.proxy().counts().connections;
        job.runner.proxy().cut(Cut::Reset);
        job.runner
            .proxy()
            .wait_connections(connections + 1, PATIENCE);
        std::fs::write(&go, "").unwrap();
        making.join().unwrap().unwrap();
    });
    let started = format!("--name {} ", plan.service(0));
    let calls = engine.calls();
    assert_eq!(calls.matches(&started).count(), 1, "{calls}");
    job.runner
        .run(
            "build_script",
            "wget -qO - http://localhost__lab__app:8080/passwd | wc -l",
        )
        .assert_success()
        .assert_stdout("2\n");
}
