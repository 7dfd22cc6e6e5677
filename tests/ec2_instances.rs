//! What a job on EC2 asks for and what it costs in calls: instances of both markets, the driver's own templates, root
//! volumes, subnets, addresses; what is told when there is no room; and what `reap` finds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::fargate_drop_in::policy;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::aws::ec2::InstanceFate;
use crate::lab::aws::ec2::Shortage;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::stage::Output;
use crate::lab::traces::long;

fn on_ec2() -> RunnerBuilder {
    Runner::builder().on_ec2()
}

/// Returns what was called, in order.
fn calls(account: &Account) -> Vec<String> {
    let all = account.calls("*").into_iter();
    all.map(|call| call.action).collect()
}

fn count(account: &Account, action: &str) -> usize {
    account.calls(action).len()
}

/// Prepares a job and ends it.
fn brought_up(runner: &Runner) -> Output {
    let prepared = runner.prepare().assert_success();
    runner.cleanup().assert_success();
    assert_eq!(runner.account().ec2_left(None), [""; 0]);
    prepared
}

#[test]
fn a_job_runs_on_a_spot_instance_of_its_own_and_the_next_one_makes_few_calls() {
    let account = Arc::new(Account::new());
    account.policy(&policy(&account, "bastion-ec2.json"));
    let runner = Runner::builder().on_ec2_of(&account).build();
    let prepared = runner.prepare().assert_success();
    assert!(
        prepared.contains("Asking for an instance on ec2-spot..."),
        "{prepared}"
    );
    assert!(!prepared.contains("WARNING"), "{prepared}");
    let [instance] = &account.instances_alive()[..] else {
        panic!("{:#?}", account.instances());
    };
    let told = format!("Instance {} (", instance.id);
    assert!(prepared.contains(&told), "{prepared}");
    for tags in [&instance.tags, &instance.volume_tags] {
        assert_eq!(tags["gitlab-aws-driver:job"], runner.job().to_string());
        assert!(tags.contains_key("gitlab-aws-driver:launch"), "{tags:?}");
    }
    for tags in [&instance.interface_tags, &instance.spot_request_tags] {
        assert_eq!(tags["gitlab-aws-driver:fleet"], "gitlab-aws-driver");
    }
    runner
        .run("build_script", "echo out; echo err >&2; exit 3")
        .assert_code(1);
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    runner.cleanup().assert_success();
    assert_eq!(account.ec2_left(None), [""; 0]);

    // The template is there, and the subnets are known to its bastion.
    let before = calls(&account).len();
    runner.next_attempt();
    brought_up(&runner);
    let later = calls(&account).split_off(before);
    assert_eq!(
        later.iter().filter(|a| *a == "CreateFleet").count(),
        1,
        "{later:?}"
    );
    assert!(
        !later
            .iter()
            .any(|a| a == "CreateLaunchTemplate" || a == "DescribeSubnets"),
        "{later:?}"
    );
    // Where other tests run beside this one all takes longer, and each further poll is a call.
    let limit = if long() { 8 } else { 12 };
    assert!(later.len() <= limit, "{later:?}");
    assert_eq!(account.state().templates.len(), 1);
}

#[test]
fn on_demand_is_no_spot_and_has_a_template_without_its_tags() {
    let runner = on_ec2().capacity(&["ec2"]).build();
    let prepared = brought_up(&runner);
    assert!(prepared.contains("on demand)"), "{prepared}");
    let state = runner.account().state();
    assert!(state.spot_requests.is_empty(), "{state:#?}");
    let text = state.templates[0].data.to_string();
    assert!(!text.contains("spot-instances-request"), "{text}");
}

#[test]
fn no_room_on_spot_is_told_by_type_and_zone_and_on_demand_takes_the_job() {
    let runner = on_ec2().capacity(&["ec2-spot", "ec2"]).build();
    runner
        .account()
        .shortage(&Shortage::capacity().on_market("spot"));
    let prepared = brought_up(&runner);
    let told = prepared.stderr_text();
    let line = told.lines().find(|l| l.contains("No room on ec2-spot"));
    let line = line.unwrap_or_else(|| panic!("{prepared}"));
    assert!(line.contains("InsufficientInstanceCapacity ("), "{line}");
    assert!(line.ends_with("Trying ec2..."), "{line}");
    // Once, however many pools said it.
    assert_eq!(
        line.matches("InsufficientInstanceCapacity").count(),
        1,
        "{line}"
    );
    assert_eq!(runner.account().instances().len(), 1);
}

#[test]
fn the_root_volume_is_the_images_own_and_looked_up_once() {
    let account = Arc::new(Account::new());
    let image = account.add_image(&json!({ "RootDeviceName": "/dev/sda1" }));
    account.parameter("/ci/image", &image);
    account.policy(&policy(&account, "bastion-ec2.json"));
    let runner = Runner::builder()
        .on_ec2_of(&account)
        .ec2_line("image_id = \"/ci/image\"")
        .ec2_line("volume_size = \"50GiB\"")
        .build();
    runner.prepare().assert_success();
    let state = account.state();
    assert_eq!(state.volumes.len(), 1, "{state:#?}");
    let sized: Vec<&Value> = state
        .templates
        .iter()
        .filter_map(|t| t.data["BlockDeviceMappings"].as_array()?.first())
        .collect();
    let [mapping] = &sized[..] else {
        panic!("{:#?}", state.templates);
    };
    assert_eq!(mapping["DeviceName"], "/dev/sda1");
    assert_eq!(mapping["Ebs"]["VolumeSize"], 50);
    assert_eq!(mapping["Ebs"]["VolumeType"], "gp3");
    assert_eq!(mapping["Ebs"]["DeleteOnTermination"], true);
    runner.cleanup().assert_success();
    runner.next_attempt();
    brought_up(&runner);
    assert_eq!(count(&account, "DescribeImages"), 1);
    assert_eq!(count(&account, "DescribeLaunchTemplateVersions"), 1);
}

#[test]
fn of_subnets_in_one_zone_the_one_with_the_most_free_addresses_is_named() {
    let account = Arc::new(Account::new());
    let (first, second) = (account.subnet_in("c"), account.subnet_in("c"));
    account.free_addresses(&first, 3);
    account.free_addresses(&second, 200);
    let subnets = format!("subnets = [{first:?}, {second:?}]");
    let runner = Runner::builder()
        .on_ec2_of(&account)
        .ec2_line(&subnets)
        .build();
    brought_up(&runner);
    let asked = account
        .calls("CreateFleet")
        .pop()
        .unwrap()
        .parameters
        .to_string();
    assert!(
        asked.contains(&second) && !asked.contains(&first),
        "{asked}"
    );

    // Without the permission to look, one of a zone cannot be told from the other, and AWS says what is wrong.
    let blind = Runner::builder()
        .on_ec2_of(&account)
        .ec2_line(&subnets)
        .build();
    account.fault(&Fault::denied("DescribeSubnets").forever());
    let refused = blind.prepare().assert_code(2);
    assert!(
        refused.contains("InvalidFleetConfig") && refused.contains("ec2:DescribeSubnets"),
        "{refused}"
    );
    blind.cleanup().assert_success();
    account.no_faults();

    // None has any address left: nothing is asked for.
    for subnet in [&first, &second] {
        account.free_addresses(subnet, 0);
    }
    let fleets = count(&account, "CreateFleet");
    let full = Runner::builder()
        .on_ec2_of(&account)
        .ec2_line(&subnets)
        .config_line("capacity_wait = \"1s\"")
        .build();
    let refused = full.prepare().assert_code(2);
    assert!(refused.contains("no free address in"), "{refused}");
    assert_eq!(count(&account, "CreateFleet"), fleets);
    full.cleanup().assert_success();
}

#[test]
fn another_host_key_than_the_one_sent_is_refused_and_nothing_stays() {
    let runner = on_ec2().build();
    runner
        .account()
        .instance_fate(&InstanceFate::other_host_key());
    let refused = runner.prepare().assert_code(2);
    assert!(refused.contains("it shows the host key"), "{refused}");
    runner.cleanup().assert_success();
    assert_eq!(runner.account().ec2_left(None), [""; 0]);
}

#[test]
fn a_job_whose_spot_instance_is_taken_back_is_told_so() {
    let runner = on_ec2().build();
    runner.start();
    let account = runner.account();
    let script = runner.spawn_run("build_script", "echo going; sleep 600");
    script.wait_output(b"going\n", PATIENCE);
    let instance = account.instances_alive().pop().unwrap();
    let fate = InstanceFate::spot_interruption(Duration::ZERO, Duration::ZERO);
    account.instance_meets(&instance.id, &fate);
    let ended = script.wait(PATIENCE).assert_code(2);
    assert!(ended.contains("Spot capacity was taken back"), "{ended}");
    assert!(ended.contains("runner_system_failure"), "{ended}");
    runner.cleanup().assert_success();
    assert_eq!(account.ec2_left(None), [""; 0]);
}

#[test]
fn a_lost_answer_brings_no_second_instance() {
    let runner = on_ec2().build();
    let account = runner.account();
    // One that runs already is what the same token gives.
    account.fault(&Fault::lost_answer("CreateFleet"));
    brought_up(&runner);
    assert_eq!(account.instances().len(), 1);
}

#[test]
fn an_administrators_template_is_used_as_it_is() {
    let account = Arc::new(Account::new());
    let mut form = format!(
        "LaunchTemplateName=ci-job&LaunchTemplateData.ImageId={}&LaunchTemplateData.InstanceType=c7i.large",
        account.image()
    );
    form += "&LaunchTemplateData.InstanceInitiatedShutdownBehavior=terminate";
    let made = account.ec2("CreateLaunchTemplate", &form);
    assert_eq!(made.status, 200, "{made:?}");
    let runner = |name: &str| {
        let line = format!("launch_template = {name:?}");
        let runner = Runner::builder()
            .on_ec2_of(&account)
            .ec2_line(&line)
            .build();
        let text = runner.default_config();
        let kept = text.lines().filter(|l| !l.starts_with("security_groups"));
        runner.write_config(&kept.collect::<Vec<_>>().join("\n"));
        runner
    };
    brought_up(&runner("ci-job:1"));
    assert_eq!(account.state().templates.len(), 1);
    let missing = runner("other");
    let refused = missing.prepare().assert_code(2);
    assert!(
        refused.contains("`launch_template` under [ec2]"),
        "{refused}"
    );
    missing.cleanup().assert_success();
    assert_eq!(account.state().templates.len(), 1);
}

#[test]
fn reap_ends_what_no_live_job_owns_and_leaves_what_one_does() {
    let account = Arc::new(Account::new());
    account.policy(&policy(&account, "bastion-ec2.json"));
    let live = Runner::builder().on_ec2_of(&account).build();
    live.start();
    let looked = live.command(&["reap"]).assert_success();
    assert!(looked.contains("nothing is left over"), "{looked}");
    assert_eq!(account.instances_alive().len(), 1);

    // Its job's directory is gone: this bastion started it, and nobody owns it.
    std::fs::remove_dir_all(live.state_directory().join("jobs")).unwrap();
    account.leave_behind("volume");
    account.leave_behind("spot-request");
    let looked = live.command(&["reap", "--dry-run"]).assert_success();
    assert!(looked.contains("would end i-"), "{looked}");
    assert_eq!(account.instances_alive().len(), 1);
    let reaped = live.command(&["reap"]).assert_success();
    assert!(
        reaped.contains("no live job of this bastion owns it"),
        "{reaped}"
    );
    account.wait("no instance", |state| {
        state.instances.iter().all(|i| !i.is_alive())
    });
    // What it left behind can be seen only now.
    let reaped = live.command(&["reap"]).assert_success();
    assert!(reaped.contains("the volume vol-"), "{reaped}");
    assert_eq!(account.ec2_left(None), [""; 0]);
    live.forgive_leftovers();
}

#[test]
fn the_address_that_the_file_says_is_given_and_dialled() {
    for (lines, given, dialled) in [
        (&["public_ip = true"][..], "ipv4", "public"),
        (
            &["public_ip = true", "use_public_ip = false"],
            "ipv4",
            "private",
        ),
        (&["use_ipv6 = true"], "dual", "IPv6"),
        (&["public_ip = true", "use_ipv6 = true"], "dual", "IPv6"),
    ] {
        let builder = lines.iter().fold(on_ec2(), |job, line| job.ec2_line(line));
        let runner = builder.build();
        let account = runner.account();
        account.addresses(given);
        runner.config().assert_success();
        let prepared = runner.prepare().assert_success();
        let instance = account.instances_alive().remove(0);
        let address = match dialled {
            "public" => instance.public_address.clone().unwrap(),
            "IPv6" => format!("[{}]", instance.ipv6.clone().unwrap()),
            _ => instance.address.clone(),
        };
        assert_ne!(address == instance.address, dialled != "private");
        let told = format!("SSH on {address}:{}...", runner.server().port());
        assert!(prepared.contains(&told), "{lines:?}: no {told}: {prepared}");
        // Over the same address it is reached again.
        runner
            .run("build_script", "echo \"${SSH_CONNECTION-}\"")
            .assert_success();
        let asked = &account.state().templates[0].data["NetworkInterfaces"][0];
        let public = asked["AssociatePublicIpAddress"].as_bool();
        assert_eq!(public, Some(lines[0].starts_with("public_ip")), "{asked}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn an_instance_without_the_address_that_is_dialled_is_told_and_ended() {
    if !long() {
        return eprintln!("left out: GAD_LONG=1 runs it");
    }
    let runner = on_ec2().ec2_line("use_ipv6 = true").build();
    runner.config().assert_success();
    let refused = runner.prepare().assert_code(2);
    assert!(
        refused.contains("runs but has no IPv6 address") && refused.contains("use_ipv6 = false"),
        "{refused}"
    );
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_try_runs_on_a_spot_instance_as_a_job_does() {
    // It only lends its configuration and its machine.
    let account = Arc::new(Account::new());
    account.policy(&policy(&account, "bastion-ec2.json"));
    let runner = Runner::builder().on_ec2_of(&account).build();
    account.machine_of_instances(None, runner.server());
    for (script, code) in [("echo hello from an instance", 0), ("exit 42", 42)] {
        let output = runner.try_here(script).assert_code(code);
        assert!(
            output.contains("hello from an instance") || code != 0,
            "{output}"
        );
        assert_eq!(account.ec2_left(None), [""; 0], "{output}");
        let instance = account.instances().pop().unwrap();
        assert!(instance.spot, "{instance:?}");
        assert_eq!(
            instance.reason.as_deref(),
            Some("Client.UserInitiatedShutdown")
        );
    }
    assert_eq!(account.instances().len(), 2);
}

#[test]
fn a_template_that_nobody_needed_for_a_month_is_swept_and_made_again() {
    const MONTH: u64 = 31 * 24 * 3600;
    let account = Arc::new(Account::new());
    account.policy(&policy(&account, "bastion-ec2.json"));
    let runner = Runner::builder().on_ec2_of(&account).build();
    brought_up(&runner);
    let name = account.state().templates[0].name.clone();
    let reap = || runner.command(&["reap"]).assert_success();
    // Young; then old, and needed lately.
    assert!(!reap().contains("launch template"));
    account.age(MONTH);
    assert!(!reap().contains("launch template"));
    assert_eq!(account.state().templates.len(), 1);

    let old = std::time::SystemTime::now() - Duration::from_secs(MONTH);
    for file in std::fs::read_dir(runner.state_directory().join("known")).unwrap() {
        let file = std::fs::File::options()
            .append(true)
            .open(file.unwrap().path());
        file.unwrap().set_modified(old).unwrap();
    }
    let looked = runner.command(&["reap", "--dry-run"]).assert_success();
    assert!(looked.contains(&name), "{looked}");
    assert_eq!(account.state().templates.len(), 1);
    let reaped = reap();
    assert!(
        reaped.contains(&format!("the launch template {name}"))
            && reaped.contains("no job has needed it for 30 days"),
        "{reaped}"
    );
    assert!(account.state().templates.is_empty());

    runner.next_attempt();
    brought_up(&runner);
    assert_eq!(account.state().templates[0].name, name);
}
