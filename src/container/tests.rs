use super::*;
use crate::config::settings::Limits;
use crate::error::Kind;
use crate::plan::containers::allow_image;
use crate::runner::containers::{Containers, Image, Secret, Service};
use std::time::Duration;

fn plan(job: Containers) -> ContainerPlan {
    ContainerPlan {
        image: job.image.clone().unwrap_or_else(|| Image::named("ruby:3")),
        job,
        shared: vec!["/builds".to_owned(), "/cache".to_owned()],
        privileged: false,
        docker_socket: false,
        ecr_login: EcrLogin::Instance,
        services_timeout: Duration::from_secs(30),
        names: "job-7".to_owned(),
    }
}

fn database() -> Service {
    Service {
        image: Image {
            entrypoint: Some(vec!["/init".into(), "-x y".into()]),
            user: Some("db".into()),
            ..Image::named("r.example:5000/g/db:1")
        },
        aliases: vec!["db".into()],
        command: vec!["serve".into()],
        variables: vec![("P".into(), "it's".into())],
    }
}

#[test]
fn what_a_job_may_not_have_is_refused_with_the_bound() {
    let patterns = ["ruby:3*".to_owned(), "registry.example.com/**".to_owned()];
    let limits = |images: &[String]| Limits {
        images: images.to_vec(),
        ..Limits::default()
    };
    let allow = |name: &str, key: &str, images: &[String]| {
        allow_image(name, key, Some("own:1"), &limits(images))
    };
    assert!(allow("ruby:3.4", "image:", &patterns).is_ok());
    assert!(allow("own:1", "image:", &patterns).is_ok());
    let digest = format!("sha256:{}", "0".repeat(64));
    for name in [
        "own:2",
        "own",
        "EVIL/library/ruby:3.4",
        "EVIL/registry.example.com/a",
        &format!("ruby:3@{digest}"),
        &format!("ruby@{digest}"),
    ] {
        assert!(allow(name, "image:", &patterns).is_err(), "{name}");
    }
    let pinned = format!("registry.example.com/a:1@{digest}");
    assert!(allow(&pinned, "image:", &patterns).is_ok());
    let error = allow("docker.io/../x", "image", &patterns).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no image's name: a path has small"),
        "{error}"
    );
    let error = allow(&"x ".repeat(100_000), "image", &patterns).unwrap_err();
    assert!(error.to_string().len() < 500);
    let error = allow("python", "image:", &patterns).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert!(
        error
            .to_string()
            .contains("allows only ruby:3*, registry.example.com/**")
    );
    let none = Limits::default().images;
    assert!(
        allow("ruby", "services:", &none)
            .unwrap_err()
            .to_string()
            .contains("allows none")
    );
}

#[test]
fn a_service_has_all_its_names_and_words() {
    let job = Containers {
        services: vec![database()],
        variables: vec![("CI".into(), "true".into())],
        ..Containers::default()
    };
    let plan = plan(job);
    let text = commands::service(&plan, 0, "sha256:00");
    let run = text.lines().last().unwrap();
    for words in [
        "docker run -d '--name' 'job-7-service-1' '--network' 'job-7' '-v' '/builds:/builds' '-v' '/cache:/cache'",
        "'--network-alias' 'r.example__g__db' '--network-alias' 'r.example-g-db' '--network-alias' 'db'",
        "'-e' 'CI=true' '-e' 'P=it'\\''s'",
        "'--user' 'db' '--entrypoint' '/init' 'sha256:00' '-x y' 'serve' >/dev/null",
    ] {
        assert!(run.contains(words), "{run}");
    }
    assert!(!run.contains("privileged") && !run.contains("docker.sock"));
}

#[test]
fn privileges_and_the_socket_come_with_the_setting_alone() {
    let job = || Containers {
        image: Some(Image {
            entrypoint: Some(vec![String::new()]),
            user: Some("app".into()),
            ..Image::named("ruby")
        }),
        services: vec![database()],
        ..Containers::default()
    };
    let plain = commands::build(&plan(job()), "id");
    assert!(!plain.contains("privileged") && !plain.contains("docker.sock"));
    assert!(plain.contains("'--user' 'app'") && plain.contains("'--entrypoint' '' 'id' 'sh' '-c'"));
    let may = ContainerPlan {
        privileged: true,
        docker_socket: true,
        ..plan(job())
    };
    let build = commands::build(&may, "id");
    assert!(build.contains("'--privileged' '-v' 'job-7-certificates:/certs/client'"));
    assert!(build.contains("'-v' '/var/run/docker.sock:/var/run/docker.sock'"));
    let service = commands::service(&may, 0, "id");
    assert!(service.contains("'--privileged'") && !service.contains("docker.sock"));
}

#[test]
fn a_job_alone_needs_no_network() {
    let plan = plan(Containers::default());
    assert_eq!(plan.network(), None);
    assert!(!commands::build(&plan, "id").contains("--network"));
}

#[test]
fn what_an_image_is_is_read() {
    let said = "noise\n sha|x\nsha256:0a|{\"80/tcp\":{},\"53/udp\":{},\"22\":{}}|r/a@sha256:1 r/b@sha256:1\n";
    let looked = commands::look(said).unwrap();
    assert_eq!(
        (&*looked.id, &looked.ports[..]),
        ("sha256:0a", &[22, 80][..])
    );
    assert_eq!(looked.digest.as_deref(), Some("r/a@sha256:1"));
    let bare = commands::look("0a|null|\n").unwrap();
    assert_eq!((bare.ports.len(), bare.digest), (0, None));
    for said in ["", "x", "a|b", "$(x)|null|"] {
        assert_eq!(commands::look(said), None, "{said}");
    }
    let mut service = database();
    assert_eq!(commands::ports(&service, &looked), [22, 80]);
    service
        .variables
        .push(("HEALTHCHECK_TCP_PORT".into(), "8".into()));
    assert_eq!(commands::ports(&service, &looked), [8]);
}

#[test]
fn a_credential_is_in_a_file_of_the_pull_alone() {
    let login = Login::Config(Secret("{\"auths\":\"it's\"}".into()));
    let text = commands::pull(&Image::named("r.example/a"), &login);
    let docker = text.lines().filter(|line| line.contains("docker"));
    assert!(docker.clone().count() > 1);
    for line in docker {
        assert!(!line.contains("auths"), "{line}");
    }
    assert!(text.contains("umask 077") && text.contains("trap 'rm -rf \"$config\"' EXIT"));
}

#[test]
fn tokens_are_asked_for_where_the_driver_logs_in_and_nobody_else_can() {
    let ecr =
        |region: &str| Image::named(&format!("123456789012.dkr.ecr.{region}.amazonaws.com/a"));
    let mut job = Containers {
        image: Some(ecr("eu-west-1")),
        services: vec![database(), database()],
        ..Containers::default()
    };
    job.services[1].image = ecr("us-east-1");
    let mut asked = plan(job);
    assert!(asked.token_regions().is_empty());
    asked.ecr_login = EcrLogin::Driver;
    assert_eq!(
        asked.token_regions(),
        ["eu-west-1", "us-east-1"].map(String::from).into()
    );
    asked.job.services[1].image.pull_policy = vec!["never".into()];
    assert_eq!(asked.token_regions(), ["eu-west-1".to_owned()].into());
    asked.job.auth_config = Some(Secret(
        "{\"auths\":{\"123456789012.dkr.ecr.eu-west-1.amazonaws.com\":{\"auth\":\"x\"}}}".into(),
    ));
    assert!(asked.token_regions().is_empty());
}
