//! Images of ECR that the driver's role opens, so that the instance needs no role and no program for it.

use serde_json::Value;
use serde_json::json;

use super::instances::on_instance;
use crate::lab::aws::Fault;
use crate::lab::engine::Engine;
use crate::lab::engine::Registry;
use crate::lab::runner::RunnerBuilder;
use crate::lab::tree::Tree;

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// The token as docker has it, and its password.
const SECRETS: [&str; 2] = ["QVdTOnNlY3JldA==", "secret"];

fn with_image(engine: &Engine) -> RunnerBuilder {
    on_instance(engine)
        .ec2_line("ecr_login = \"driver\"")
        .ec2_line(&format!("container_image = \"{ECR}/group/app:1\""))
}

#[test]
fn the_drivers_role_opens_ecr_for_an_instance_without_one() {
    let engine = Engine::new();
    let registry = Registry::start(&engine);
    engine.image("lab/app:1", &Tree::small());
    registry.take(&engine, "lab/app:1", "group/app:1");
    engine.redirect(ECR, registry.address());
    let runner = with_image(&engine).build();
    runner.config().assert_success();
    let prepared = runner.prepare().assert_success();
    let pulling = format!("Pulling image {ECR}/group/app:1 by the driver's role...");
    assert!(prepared.contains(&pulling), "{prepared}");
    runner
        .run("build_script", "[ ! -e /usr ] && echo inside")
        .assert_success()
        .assert_stdout("inside\n");
    for secret in SECRETS {
        assert!(!prepared.contains(secret), "{prepared}");
        assert!(!engine.calls().contains(secret), "{}", engine.calls());
    }
    let asked = runner.account().calls("GetAuthorizationToken");
    assert_eq!(asked.len(), 1, "{asked:?}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_driver_that_may_not_ask_for_a_token_says_what_to_allow() {
    let engine = Engine::new();
    let runner = with_image(&engine).build();
    let account = runner.account();
    account.fault(&Fault::denied("GetAuthorizationToken"));
    runner.config().assert_success();
    let refused = runner.prepare().assert_code(2);
    for words in [
        "ECR in eu-west-1 gives no token to pull by: AccessDeniedException",
        "ecr:GetAuthorizationToken (config-examples/iam/bastion-ecr.json)",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    assert_eq!(engine.calls().matches("pull").count(), 0);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn credentials_of_the_job_come_before_the_drivers_role() {
    let engine = Engine::new();
    let registry = Registry::start(&engine);
    engine.image("lab/app:1", &Tree::small());
    registry.take(&engine, "lab/app:1", "group/app:1");
    engine.redirect(ECR, registry.address());
    let credentials: Value = json!([{
        "type": "registry", "url": ECR, "username": "lab", "password": "secret",
    }]);
    let runner = with_image(&engine)
        .payload_field("credentials", credentials)
        .build();
    runner.config().assert_success();
    let prepared = runner.prepare().assert_success();
    assert!(
        prepared.contains("with the job's credentials"),
        "{prepared}"
    );
    assert!(runner.account().calls("GetAuthorizationToken").is_empty());
    runner.cleanup().assert_success();
}
