//! How the explanation reads.

use std::path::Path;

use super::*;
use crate::config;

fn loaded(text: &str) -> Loaded {
    config::parse(text, Path::new("f.toml")).expect("right")
}

#[test]
fn a_spot_file_is_explained() {
    let profile = "[[profile]]\nname = \"deploy\"\nmatch = { job_name = \"deploy-*\", protected = true }\n\
                       capacity = [\"fargate\"]\nfargate.task_definition = \"ci-deploy\"\n";
    let example = include_str!("../../../../config-examples/fargate-spot.toml");
    let text = as_text(&loaded(&format!("{example}\n{profile}")));
    let want = "\
f.toml: a file of this driver

Where jobs run
  1. fargate-spot    a task on Fargate Spot
  2. fargate         a task on Fargate, on demand
  waiting            up to 5m for one of these, 10m in all

Fargate and ECS
  region             eu-west-1
  cluster            ci
  task definition    ci-job
  subnets            subnet-0a1b2c3d, subnet-4e5f6a7b
  security groups    sg-0a1b2c3d
  address            private

How a machine is logged in to
  as                 root on port 22
  first login        within 3m of the machine's start
  lost connection    tried again for 10m while the script runs on

What a job may choose
  task definitions   ci-*
  roles              none
  images             none
  cpu                up to 4 vCPU
  memory             up to 16GiB
  disk               as it is
  architectures      none
  machine images     none
  instance types     none
  capacity           none

Profiles, the first that fits a job
  deploy             for job deploy-*, protected ref: changes capacity, fargate

How machines are told from others
  fleet              gitlab-aws-driver

On this host
  state              /var/lib/gitlab-aws-driver
  diagnostics        level warn, format text, to standard error
  builds             /builds
  cache              /cache
";
    assert_eq!(text, want);
}

#[test]
fn a_go_driver_file_is_explained() {
    let text = as_text(&loaded(include_str!(
        "../../../../config-examples/go-driver.toml"
    )));
    for want in [
        "a file of GitLab's Go Fargate driver",
        "default capacity provider strategy decides",
        "public for outbound traffic; the private one is dialled",
        "any task definition, any role",
        "as config.toml says",
        "/opt/gitlab-runner/metadata",
        "level info, format text, to /var/log/gitlab-runner/fargate.log",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
}

#[test]
fn what_machines_carry_is_explained() {
    let text = as_text(&loaded(
        "[tags]\nteam = \"a b\"\n[fargate]\ncontainer = \"job\"\nrole_arn = \"arn:aws:iam::111122223333:role/x\"\npropagate_tags = true",
    ));
    for want in [
        "  tag                team = a b\n",
        "  container          job\n",
        "  role               arn:aws:iam::111122223333:role/x\n",
        "  task's tags        those of its task definition too\n",
        "  region             as AWS's own settings on this host say\n",
        "  security groups    the VPC's default one\n",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
}

#[test]
fn local_is_there_and_lacks_nothing() {
    let loaded = loaded(include_str!("../../../../config-examples/local.toml"));
    let text = as_text(&loaded);
    assert!(text.contains("1. local           this host, as the Runner's own user"));
    assert!(!text.contains("not in this version"), "{text}");
    assert_eq!(missing(&loaded.settings), Vec::<String>::new());
}
