//! To which address of a task the driver connects.

use super::on_init;
use super::with_fargate;
use crate::fargate_drop_in::assert_example_names_all;
use crate::fargate_drop_in::policy;
use crate::lab::aws::Account;

#[test]
fn the_address_is_asked_for_and_dialled_as_configured() {
    for (lines, assigned, dials_public) in [
        ("", "DISABLED", false),
        ("enable_public_ip = true", "ENABLED", true),
        (
            "enable_public_ip = true\nuse_public_ip = false",
            "ENABLED",
            false,
        ),
        (
            "enable_public_ip = true\nuse_public_ip = true",
            "ENABLED",
            true,
        ),
        ("use_public_ip = true", "DISABLED", false),
    ] {
        let runner = on_init().build();
        let account = runner.account();
        account.policy(&policy(account, "bastion.json"));
        with_fargate(&runner, lines);
        let prepared = runner.prepare().assert_success();
        let task = account.alive().pop().unwrap();
        let address = match dials_public {
            true => task.public_address.unwrap(),
            false => task.address.unwrap(),
        };
        let address = format!("SSH on {address}:{}", runner.server().port());
        assert!(
            prepared.contains(&address),
            "{lines}: no {address} in {prepared}"
        );
        let call = account.calls("RunTask").pop().unwrap().parameters;
        let network = &call["networkConfiguration"]["awsvpcConfiguration"];
        assert_eq!(network["assignPublicIp"], assigned, "{lines}");
        assert_eq!(
            account.calls("DescribeNetworkInterfaces").is_empty(),
            !dials_public,
            "{lines}"
        );
        runner.run("build_script", "echo on").assert_stdout("on\n");
        runner.cleanup().assert_success();
        assert_example_names_all(account);
    }
}

#[test]
fn a_task_with_an_ipv6_address_alone_is_dialled() {
    let runner = on_init().build();
    runner.account().addresses("ipv6");
    let prepared = runner.prepare().assert_success();
    let address = format!("SSH on [::1]:{}", runner.server().port());
    assert!(prepared.contains(&address), "{prepared}");
    runner
        .run("build_script", "echo six")
        .assert_stdout("six\n");
}

/// Makes another security group.
pub(super) fn security_group(account: &Account, name: &str) -> String {
    let ask = |form: &str| {
        let form = format!("{form}&Version=2016-11-15");
        let answer = account.query("ec2", None, &form).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    };
    let inner = |xml: &str, tag: &str| {
        let after = xml.split_once(&format!("<{tag}>")).unwrap().1;
        after.split_once('<').unwrap().0.to_owned()
    };
    let subnet = &account.subnets()[0];
    let network = inner(
        &ask(&format!("Action=DescribeSubnets&SubnetId.1={subnet}")),
        "vpcId",
    );
    let form = format!(
        "Action=CreateSecurityGroup&GroupName={name}&GroupDescription={name}&VpcId={network}"
    );
    inner(&ask(&form), "groupId")
}
