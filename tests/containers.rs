//! Jobs in a container of their image on the machine's docker, by a real container engine: podman stands in.
//!
//! The machine is one of this host. Its containers are made by the same code that makes them on an instance, over the
//! same SSH; what comes after is the ordinary stages.

use std::time::Duration;

use gitlab_aws_driver::config::settings::EcrLogin;
use gitlab_aws_driver::container::Tokens;
use gitlab_aws_driver::container::trouble::Trouble;
use gitlab_aws_driver::machine::Endpoint;
use gitlab_aws_driver::plan::containers::ContainerPlan;
use gitlab_aws_driver::runner::containers::Containers;
use gitlab_aws_driver::runner::containers::Credential;
use gitlab_aws_driver::runner::containers::Image;
use gitlab_aws_driver::runner::containers::Secret;
use gitlab_aws_driver::runner::containers::Service;
use gitlab_aws_driver::ssh::connect::connect;
use gitlab_aws_driver::ssh::keys::JobKey;
use gitlab_aws_driver::stage::containers::SetUp;
use gitlab_aws_driver::ui::Ui;

use crate::lab::PATIENCE;
use crate::lab::engine::Engine;
use crate::lab::engine::Registry;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::traces::until;
use crate::lab::tree::Tree;
use crate::lab::write_program;
use crate::scripts::record;
use crate::scripts::record_file;

mod cuts;
mod ecr;
mod instances;
mod settings;

/// A job whose machine is up and has docker.
struct Job {
    runner: Runner,
}

impl Job {
    fn start(engine: &Engine) -> Self {
        Self::on(engine, Kind::OpenSsh, Login::Bash)
    }

    fn on(engine: &Engine, kind: Kind, login: Login) -> Self {
        let machine = ServerBuilder::new(kind, login)
            .path_first(&engine.path())
            .noise("welcome to the machine\nno newline at the end");
        let runner = Runner::behind_proxy(machine);
        runner.start();
        Self { runner }
    }

    fn plan(&self, image: Image) -> ContainerPlan {
        let root = self.runner.root().display();
        ContainerPlan {
            image,
            shared: vec![format!("{root}/builds"), format!("{root}/cache")],
            privileged: false,
            docker_socket: false,
            ecr_login: EcrLogin::Instance,
            services_timeout: Duration::from_secs(30),
            names: format!("job-{}", self.runner.job()),
            job: Containers::default(),
        }
    }

    /// Makes the containers, and has the record tell of them.
    fn make(&self, plan: &ContainerPlan) -> Result<(), Trouble> {
        let record = record(&self.runner);
        let key = JobKey::from_pem(record["private_key"].as_str().unwrap()).unwrap();
        let endpoint: Endpoint =
            serde_json::from_value(record["machine"]["endpoints"][0].clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let made = runtime.block_on(async {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let session = connect(&endpoint, &key, || deadline).await.unwrap();
            let set_up = SetUp {
                endpoint: &endpoint,
                key: &key,
                plan,
                tokens: &Tokens::new(),
                connect_timeout: PATIENCE,
                ui: Ui::for_job_log(true),
            };
            set_up.run(session).await
        })?;
        let mut record = record;
        record["machine"]["endpoints"] = serde_json::to_value(made.endpoints).unwrap();
        record["environment"] = serde_json::to_value(made.environment).unwrap();
        std::fs::write(record_file(&self.runner), record.to_string()).unwrap();
        Ok(())
    }

    fn trouble(&self, plan: &ContainerPlan) -> (String, Trouble) {
        let trouble = self.make(plan).unwrap_err();
        let remedy = trouble.error.remedy().unwrap_or_default();
        (format!("{}\n{remedy}", trouble.error), trouble)
    }
}

fn named(name: &str) -> Image {
    Image::named(name)
}

/// An entrypoint as images have them: it exports something and runs what it is given.
const ENTRYPOINT: &str =
    "#!/bin/sh\nexport FROM_ENTRYPOINT=\"it's set\" PATH=/opt/tool:$PATH\nexec \"$@\"\n";

#[test]
fn a_job_runs_in_its_image_and_helper_scripts_beside_it() {
    let engine = Engine::new();
    let tree = Tree::with_bash()
        .line("ENV OF_IMAGE=yes")
        .line("ENTRYPOINT [\"/entrypoint\"]")
        .file("/entrypoint", ENTRYPOINT)
        .file("/opt/tool/tool", "#!/bin/sh\necho the tool\n");
    engine.image("lab/app:1", &tree);
    for (kind, login) in [
        (Kind::OpenSsh, Login::Bash),
        (Kind::Dropbear, Login::Dash),
        (Kind::Own, Login::Busybox),
    ] {
        let job = Job::on(&engine, kind, login);
        let mut plan = job.plan(Image {
            pull_policy: vec!["never".into()],
            ..named("localhost/lab/app:1")
        });
        plan.job.variables = vec![("LONG".to_owned(), "x".repeat(20_000))];
        job.make(&plan).unwrap();
        let builds = job.runner.root().join("builds");
        let made = format!(
            "cd {}; umask; echo source >made; [ -e /entrypoint ] || echo beside",
            builds.display()
        );
        job.runner
            .run("get_sources", &made)
            .assert_success()
            .assert_stdout("0000\nbeside\n");
        let script = format!(
            "cd {}; cat made; echo \"$OF_IMAGE $FROM_ENTRYPOINT ${{#LONG}}\"; tool; echo \"$BASH\" $'q\\x41'; \
             [ -e /entrypoint ] && exit 37",
            builds.display()
        );
        job.runner
            .run("build_script", &script)
            .assert_code(1)
            .assert_stdout("source\nyes it's set 20000\nthe tool\n/bin/bash qA\n");
        assert_eq!(job.runner.exit_file().as_deref(), Some(&b"37"[..]));
    }
}

#[test]
fn services_answer_by_their_aliases_before_the_job_begins() {
    let engine = Engine::with_network();
    let slow = "#!/bin/sh\nsleep 1\nmkdir -p /www\necho \"$OWN $SHARED\" >/www/x\nexec httpd -f -p 8080 -h /www\n";
    let tree = Tree::small()
        .file("/serve", slow)
        .line("EXPOSE 8080")
        .line("CMD [\"/serve\"]");
    engine.image("lab/web:1", &tree);
    engine.image("lab/app:1", &Tree::small());
    let job = Job::start(&engine);
    let local = |name: &str| Image {
        pull_policy: vec!["never".into()],
        ..named(name)
    };
    let mut plan = job.plan(local("localhost/lab/app:1"));
    let service = |aliases: &[&str], own: &str| Service {
        image: local("localhost/lab/web:1"),
        aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
        variables: vec![("OWN".into(), own.into())],
        ..Service::default()
    };
    plan.job.services = vec![
        service(&["db"], "first"),
        service(&["other", "more"], "second"),
    ];
    plan.job.variables = vec![("SHARED".into(), "of the job".into())];
    job.make(&plan).unwrap();
    let script = "for h in db localhost__lab__web other more; do wget -qO - http://$h:8080/x; done | sort -u";
    job.runner
        .run("build_script", script)
        .assert_success()
        .assert_stdout("first of the job\nsecond of the job\n");
}

/// A job with a service that it talks to by its name.
fn talks(engine: &Engine) -> Job {
    let tree = Tree::small()
        .line("EXPOSE 8080")
        .line("CMD [\"httpd\",\"-f\",\"-p\",\"8080\",\"-h\",\"/etc\"]");
    engine.image("lab/web:1", &tree);
    let local = Image {
        pull_policy: vec!["never".into()],
        ..named("localhost/lab/web:1")
    };
    let job = Job::start(engine);
    let mut plan = job.plan(local.clone());
    plan.job.services = vec![Service {
        image: local,
        ..Service::default()
    }];
    job.make(&plan).unwrap();
    job.runner
        .run(
            "build_script",
            "wget -qO - http://localhost__lab__web:8080/passwd | wc -l",
        )
        .assert_success()
        .assert_stdout("2\n");
    job
}

#[test]
fn what_a_killed_test_left_is_cleared_away_and_disturbs_no_later_one() {
    let engine = Engine::with_network();
    let _job = talks(&engine);
    let (folder, bridge) = engine.abandon();
    assert!(bridge.exists());
    let engine = Engine::with_network();
    // Another test's engine may have been first and be at it.
    until("cleared", PATIENCE, || !bridge.exists() && !folder.exists());
    until("ended", PATIENCE, || processes::of(&folder).is_empty());
    talks(&engine);
}

#[test]
fn a_private_registry_is_read_with_the_jobs_credentials_and_keeps_none_on_the_machine() {
    let engine = Engine::new();
    let registry = Registry::start(&engine);
    engine.image("lab/app:1", &Tree::small());
    let name = registry.take(&engine, "lab/app:1", "group/app:1");
    let job = Job::start(&engine);
    let mut plan = job.plan(named(&name));

    let (text, trouble) = job.trouble(&plan);
    assert!(
        trouble.hopeless && text.contains(&name) && text.contains("DOCKER_AUTH_CONFIG"),
        "{text}"
    );

    let credential = |password: &str| Credential {
        registry: format!("https://{}", registry.address()),
        username: "lab".into(),
        password: Secret(password.to_owned()),
    };
    plan.job.credentials = vec![credential("wrong")];
    let (text, trouble) = job.trouble(&plan);
    assert!(trouble.hopeless && !text.contains("wrong"), "{text}");

    // What GitLab gives does, and DOCKER_AUTH_CONFIG comes before it.
    plan.job.credentials = vec![credential("secret")];
    job.make(&plan).unwrap();
    engine.docker(&["rm", "-f", &plan.build()]);
    engine.docker(&["rmi", "-f", &name]);
    let config = |auth: &str| {
        let json = serde_json::json!({ "auths": { registry.address(): { "auth": auth } } });
        Some(Secret(json.to_string()))
    };
    plan.job.auth_config = config("bGFiOndyb25n");
    assert!(job.make(&plan).is_err());
    plan.job.auth_config = config("bGFiOnNlY3JldA==");
    plan.job.credentials = vec![credential("wrong")];
    job.make(&plan).unwrap();

    let missing = ContainerPlan {
        image: named(&name.replace("app:1", "app:2")),
        ..plan.clone()
    };
    let (text, trouble) = job.trouble(&missing);
    assert!(
        trouble.hopeless && text.contains("manifest unknown"),
        "{text}"
    );

    assert!(!engine.calls().contains("bGFiOn") && !engine.calls().contains("secret"));
    for place in ["/dev/shm", "/tmp"] {
        for entry in std::fs::read_dir(place).unwrap().flatten() {
            let path = entry.path().join("config.json");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            assert!(!text.contains(registry.address()), "{:?}", entry.path());
        }
    }
    job.runner
        .run(
            "build_script",
            "cat /root/.docker/config.json /dev/shm/*/config.json; echo done",
        )
        .assert_success()
        .assert_contains("done");
}

#[test]
fn ecr_is_read_by_the_instances_role() {
    let engine = Engine::new();
    let registry = Registry::start(&engine);
    engine.image("lab/app:1", &Tree::small());
    registry.take(&engine, "lab/app:1", "group/app:1");
    let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    engine.redirect(ecr, registry.address());
    let job = Job::start(&engine);
    let mut plan = job.plan(named(&format!("{ecr}/group/app:1")));
    let (text, trouble) = job.trouble(&plan);
    assert!(
        trouble.hopeless && text.contains("ecr:GetAuthorizationToken"),
        "{text}"
    );
    // The user that AWS's passwords are for is the registry's here.
    let aws = "#!/bin/sh\necho \"$*\" >\"$0.said\"\n[ -e \"$0.allows\" ] || { echo 'Unable to locate credentials' >&2; exit 253; }\necho secret\n";
    let program = engine.path().join("aws");
    write_program(&program, aws);
    let (text, trouble) = job.trouble(&plan);
    assert!(
        trouble.hopeless && text.contains("Unable to locate credentials"),
        "{text}"
    );
    std::fs::write(engine.path().join("aws.allows"), "").unwrap();
    job.make(&plan).unwrap();
    let said = std::fs::read_to_string(engine.path().join("aws.said")).unwrap();
    assert_eq!(said, "ecr get-login-password --region eu-west-1\n");
    plan.image.pull_policy = vec!["never".into()];
    job.make(&plan).unwrap();
}

#[test]
fn a_cancel_ends_the_script_in_its_container() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::small());
    let job = Job::start(&engine);
    let plan = job.plan(Image {
        pull_policy: vec!["never".into()],
        ..named("localhost/lab/app:1")
    });
    job.make(&plan).unwrap();
    let stage = job.runner.spawn_run(
        "build_script",
        "trap 'echo heard; exit 7' TERM; (exec sleep 7654) & echo ready; while :; do sleep 0.1; done",
    );
    stage.wait_output(b"ready\n", PATIENCE);
    let processes = || engine.docker(&["exec", &plan.build(), "ps"]);
    until("the sleep", PATIENCE, || processes().contains("sleep 7654"));
    stage.signal(rustix::process::Signal::TERM);
    let output = stage.wait(Duration::from_secs(40)).assert_code(1);
    assert!(output.contains("heard\n"), "{output}");
    assert_eq!(job.runner.exit_file().as_deref(), Some(&b"7"[..]));
    let left = processes();
    assert!(
        !left.contains("sleep 7654") && !left.contains("build_script"),
        "{left}"
    );
    // The next script, after_script say, finds the container as it was.
    job.runner
        .run("after_script", "echo there")
        .assert_success()
        .assert_stdout("there\n");
}

#[test]
fn a_container_that_cannot_take_the_job_says_why() {
    let engine = Engine::new();
    engine.image("lab/bare:1", &Tree::without_shell());
    engine.image("lab/app:1", &Tree::small());
    let job = Job::start(&engine);
    let plan = |name: &str, entrypoint: &[&str]| {
        let words: Vec<String> = entrypoint.iter().map(|w| (*w).to_owned()).collect();
        job.plan(Image {
            entrypoint: Some(words).filter(|w| !w.is_empty()),
            pull_policy: vec!["never".into()],
            ..named(name)
        })
    };
    for (name, entrypoint, words) in [
        ("localhost/lab/bare:1", &[][..], "has no `sh`"),
        (
            "localhost/lab/app:1",
            &["sh", "-c", "echo no licence; exit 5"],
            "code 5: no licence",
        ),
        ("localhost/lab/app:1", &["/nowhere/init"], "/nowhere/init"),
        ("localhost/lab/none:1", &[], "none:1"),
    ] {
        let (text, trouble) = job.trouble(&plan(name, entrypoint));
        assert!(trouble.hopeless && text.contains(words), "{text}");
        assert!(text.lines().count() == 2, "{text}");
        assert!(!text.contains("welcome"), "{text}");
    }
    // One that clears the entrypoint runs.
    job.make(&plan("localhost/lab/app:1", &[""])).unwrap();
}

#[test]
fn a_container_that_ends_under_its_job_is_no_result_of_the_script() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::small());
    let job = Job::start(&engine);
    let plan = job.plan(Image {
        pull_policy: vec!["never".into()],
        ..named("localhost/lab/app:1")
    });
    job.make(&plan).unwrap();
    let stage = job
        .runner
        .spawn_run("build_script", "echo ready; sleep 600");
    stage.wait_output(b"ready\n", PATIENCE);
    engine.docker(&["kill", &plan.build()]);
    let output = stage.wait(PATIENCE).assert_code(2);
    assert!(output.contains("the job's container is gone"), "{output}");
    job.runner.run("after_script", "echo x").assert_code(2);
}

#[test]
fn a_machine_whose_docker_cannot_be_used_says_why() {
    let engine = Engine::new();
    let job = Job::start(&engine);
    let plan = job.plan(named("ruby"));
    engine.fail_with("permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock");
    let (text, trouble) = job.trouble(&plan);
    assert!(trouble.hopeless && text.contains("group docker"), "{text}");
    let bare = ServerBuilder::new(Kind::OpenSsh, Login::Bash).busybox_only();
    let runner = Runner::builder().machine(bare).build();
    runner.start();
    let job = Job { runner };
    let (text, trouble) = job.trouble(&plan);
    assert!(
        trouble.hopeless && text.contains("no `docker` command"),
        "{text}"
    );
}

#[test]
fn the_instance_is_shared_only_as_far_as_the_administrator_says() {
    let engine = Engine::new();
    engine.image("lab/app:1", &Tree::small());
    let job = Job::start(&engine);
    let mut plan = job.plan(Image {
        pull_policy: vec!["never".into()],
        ..named("localhost/lab/app:1")
    });
    let script = "[ -e /var/run/docker.sock ] && echo socket; caps=$(grep CapEff /proc/self/status); [ $((0x0${caps##*[!0-9a-f]} >> 21 & 1)) = 1 ] && echo admin; echo end";
    job.make(&plan).unwrap();
    job.runner
        .run("build_script", script)
        .assert_stdout("end\n");
    plan.docker_socket = true;
    plan.privileged = true;
    job.make(&plan).unwrap();
    job.runner
        .run("build_script", script)
        .assert_stdout("socket\nadmin\nend\n");
    let calls = engine.calls();
    assert!(
        calls.contains("--privileged") && calls.contains("docker.sock"),
        "{calls}"
    );
}
