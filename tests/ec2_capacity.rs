//! Pools and rungs without room on EC2: what a job makes of each of AWS's words for it.

use serde_json::Value;

use crate::fargate_capacity::assert_failure;
use crate::fargate_capacity::assert_once;
use crate::fargate_capacity::lines;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::aws::InstanceFate;
use crate::lab::aws::Shortage;
use crate::lab::aws::ec2::TYPES;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::traces::long;

/// Codes of a fleet's errors that mean no room here.
const NO_ROOM: [&str; 13] = [
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "UnfulfillableCapacity",
    "SpotMaxPriceTooLow",
    "Unsupported",
    "VcpuLimitExceeded",
    "InsufficientFreeAddressesInSubnet",
    "InstanceLimitExceeded",
    "InsufficientHostCapacity",
    "InsufficientCapacityOnHost",
    "InsufficientAddressCapacity",
    "MaxIOPSLimitExceeded",
    "VolumeLimitExceeded",
];

fn spot_first() -> RunnerBuilder {
    Runner::builder().on_ec2().capacity(&["ec2-spot", "ec2"])
}

/// Returns what each CreateFleet asked for: `spot` or `on-demand`.
fn asked(account: &Account) -> Vec<String> {
    let calls = account.calls("CreateFleet").into_iter();
    // A call that came before the template was there is sent again.
    let calls = calls.filter(|call| {
        let code = call.code.as_deref().unwrap_or_default();
        !code.contains("LaunchTemplate")
    });
    let market = |parameters: &Value| {
        let market = &parameters["TargetCapacitySpecification"]["DefaultTargetCapacityType"];
        market.as_str().unwrap().to_owned()
    };
    calls.map(|call| market(&call.parameters)).collect()
}

/// Checks that a job whose Spot rung is full runs on demand, within one `prepare`, and is told once why.
#[track_caller]
fn hands_over(runner: &Runner, cause: &str) {
    let account = runner.account();
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let told = assert_once(&output, "No room on ");
    assert!(told.starts_with("No room on ec2-spot: "), "{told}");
    assert!(told.contains(cause), "{cause}: {told}");
    assert!(told.ends_with(". Trying ec2..."), "{told}");
    assert_eq!(asked(account), ["spot", "on-demand"]);
    // The other one may still be shutting down.
    let state = account.wait("one instance to be left", |state| {
        let instances = state.instances.iter();
        instances.filter(|one| one.is_alive()).count() == 1
    });
    let mut instances = state.instances.iter();
    assert!(!instances.find(|one| one.is_alive()).unwrap().spot);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn every_word_for_no_room_is_the_next_rungs_turn() {
    let count = if long() { NO_ROOM.len() } else { 4 };
    let first = std::process::id() as usize;
    for number in 0..count {
        let code = NO_ROOM[(first + number) % NO_ROOM.len()];
        let runner = spot_first().build();
        let shortage = Shortage::new(code, &format!("Words of {code}."));
        runner.account().shortage(&shortage.on_market("spot"));
        hands_over(&runner, code);
        assert_eq!(runner.account().instances().len(), 1, "{code}");
    }
}

#[test]
fn no_room_said_as_an_error_of_the_call_is_the_next_rungs_turn() {
    let codes = [
        ("InsufficientInstanceCapacity", 500),
        ("VcpuLimitExceeded", 400),
    ];
    for (code, status) in codes {
        let runner = spot_first().build();
        // The first call is the one that finds out that the template is missing.
        runner
            .account()
            .fault(&Fault::error("CreateFleet", status, code, "Words.").skip(1));
        hands_over(&runner, code);
    }
}

#[test]
fn all_types_and_zones_are_named_once_with_their_code() {
    let runner = spot_first().build();
    let account = runner.account();
    account.shortage(&Shortage::capacity().on_market("spot").of_type(TYPES[0]));
    account.shortage(&Shortage::new("UnfulfillableCapacity", "None.").on_market("spot"));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let told = assert_once(&output, "No room on ");
    assert_eq!(
        told,
        format!(
            "No room on ec2-spot: InsufficientInstanceCapacity ({} in eu-west-1a, eu-west-1b); UnfulfillableCapacity ({} in \
             eu-west-1a, eu-west-1b). Trying ec2...",
            TYPES[0], TYPES[1]
        )
    );
}

#[test]
fn another_type_or_zone_is_taken_before_another_rung() {
    for (shortages, kind, zone) in [
        (vec![Shortage::capacity().of_type(TYPES[0])], TYPES[1], None),
        (
            vec![Shortage::capacity().in_zone("eu-west-1a")],
            TYPES[0],
            Some("eu-west-1b"),
        ),
        (
            vec![
                Shortage::capacity().in_zone("eu-west-1b"),
                Shortage::new("Unsupported", "Not in this zone.").of_type(TYPES[0]),
            ],
            TYPES[1],
            Some("eu-west-1a"),
        ),
    ] {
        let runner = spot_first().build();
        let account = runner.account();
        for shortage in &shortages {
            account.shortage(shortage);
        }
        runner.config().assert_success();
        let output = runner.prepare().assert_success();
        assert!(!output.contains("No room"), "{output}");
        let instance = account.instances_alive().remove(0);
        assert!(instance.spot);
        assert_eq!(instance.kind, kind);
        assert!(
            zone.is_none_or(|zone| instance.zone == zone),
            "{instance:?}"
        );
        // One answer told of both: the pools that had none, and the instance.
        let answer = account.calls("CreateFleet").pop().unwrap().answer.unwrap();
        assert!(!answer["Errors"].as_array().unwrap().is_empty(), "{answer}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn room_that_is_lost_on_the_way_up_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    let fate = InstanceFate::fails(
        "Server.InsufficientInstanceCapacity",
        "Insufficient capacity to launch the instance",
    );
    runner.account().instance_fate(&fate);
    hands_over(&runner, "Server.InsufficientInstanceCapacity");
    assert_eq!(runner.account().instances().len(), 2);
}

#[test]
fn an_instance_that_spot_takes_before_the_first_login_is_the_next_rungs_turn() {
    let runner = spot_first().build();
    let soon = std::time::Duration::ZERO;
    let fate = InstanceFate::spot_interruption(soon, soon);
    runner.account().instance_fate(&fate);
    hands_over(&runner, "Server.SpotInstanceTermination");
}

#[test]
fn an_instance_that_stays_pending_is_ended_and_the_next_rung_tried() {
    let runner = spot_first().config_line("rung_wait = \"6s\"").build();
    let account = runner.account();
    account.timings(&[("launching", 0.0)]);
    account.instance_fate(&InstanceFate::never_comes_up());
    hands_over(
        &runner,
        "the instance still waited to be started (pending) after 6s",
    );
    let instances = account.instances();
    assert_eq!(instances.len(), 2);
    // It went before the next was asked for.
    let calls = account.calls("*");
    let calls: Vec<_> = calls.iter().map(|call| call.action.as_str()).collect();
    let ended = calls.iter().position(|one| *one == "TerminateInstances");
    let asked = calls.iter().rposition(|one| *one == "CreateFleet");
    assert!(ended < asked, "{calls:?}");
}

#[test]
fn an_instance_that_stays_pending_on_the_only_rung_fails_the_job_after_its_wait() {
    let runner = Runner::builder()
        .on_ec2()
        .config_line("rung_wait = \"1s\"\ncapacity_wait = \"1s\"")
        .build();
    let account = runner.account();
    account.instance_fate(&InstanceFate::never_comes_up());
    runner.config().assert_success();
    let output = assert_failure(
        runner.prepare(),
        "on any rung within 1s: ec2-spot: the instance still waited to be started (pending) after 1s",
        "capacity_wait",
    );
    assert!(output.duration.as_secs() < 20, "{output}");
    assert_eq!(account.instances().len(), 1);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_fleet_that_names_neither_an_instance_nor_an_error_is_ended_and_the_next_rung_tried() {
    let runner = spot_first().build();
    let account = runner.account();
    // The first call is the one that finds out that the template is missing.
    account.fault(&Fault::neither("CreateFleet").skip(1));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let told = assert_once(&output, "No room on ");
    assert!(
        told.contains("neither an instance nor an error was named")
            && told.ends_with(". Trying ec2..."),
        "{told}"
    );
    // It had started one all the same.
    let state = account.wait("one instance to be left", |state| {
        let instances = state.instances.iter();
        instances.filter(|one| one.is_alive()).count() == 1
    });
    assert_eq!(state.instances.len(), 2);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn subnets_without_addresses_are_not_asked_for_or_are_the_next_rungs_turn() {
    let runner = spot_first().build();
    let account = runner.account();
    let subnets = account.subnets().to_vec();
    account.free_addresses(&subnets[0], 0);
    runner.config().assert_success();
    runner.prepare().assert_success();
    assert_eq!(account.instances_alive()[0].subnet, subnets[1]);
    runner.cleanup().assert_success();
    let fleet = account.calls("CreateFleet").pop().unwrap().parameters;
    assert!(!fleet.to_string().contains(&subnets[0]), "{fleet}");

    let runner = spot_first().config_line("capacity_wait = \"1s\"").build();
    let account = runner.account();
    for subnet in account.subnets() {
        account.free_addresses(subnet, 0);
    }
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains("no free address in"), "{output}");
    assert!(account.calls("CreateFleet").is_empty());
    runner.cleanup().assert_success();
}

#[test]
fn two_subnets_of_one_zone_are_not_named_together() {
    let account = std::sync::Arc::new(Account::new());
    let other = account.subnet_in("a");
    let all: Vec<String> = [account.subnets(), &[other]].concat();
    account.free_addresses(&all[0], 3);
    let runner = Runner::builder()
        .on_ec2_of(&account)
        .ec2_line(&format!("subnets = {all:?}"))
        .build();
    runner.start();
    let fleet = account.calls("CreateFleet").pop().unwrap().parameters;
    let text = fleet.to_string();
    assert!(text.contains(&all[1]) && text.contains(&all[2]), "{text}");
    assert!(!text.contains(&all[0]), "{text}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn where_all_rungs_stay_empty_the_job_fails_after_its_wait_with_all_reasons() {
    let runner = Runner::builder()
        .on_ec2()
        .capacity(&["fargate-spot", "ec2-spot", "ec2"])
        .config_line("capacity_wait = \"5s\"")
        .build();
    let account = runner.account();
    account.fault(&Fault::capacity().forever());
    account.shortage(&Shortage::capacity().on_market("spot"));
    account.shortage(&Shortage::new(
        "VcpuLimitExceeded",
        "You have reached your limit.",
    ));
    runner.config().assert_success();
    let output = runner.prepare();
    assert!(output.duration.as_secs() >= 4, "{output}");
    assert_once(&output, "No room on any rung; trying again in ");
    let output = assert_failure(
        output,
        "on any rung within 5s: fargate-spot: ",
        "capacity_wait",
    );
    let all = lines(&output).join("\n");
    let last = all.rfind("ERROR: ").unwrap();
    for cause in [
        "Capacity is unavailable",
        "ec2-spot: ",
        "InsufficientInstanceCapacity",
        "; ec2: ",
        "VcpuLimitExceeded",
    ] {
        assert!(all[last..].contains(cause), "{cause}: {all}");
    }
    assert!(account.instances().is_empty() && account.tasks().is_empty());
    runner.cleanup().assert_success();
}

#[test]
fn a_ladder_across_services_ends_on_the_rung_that_has_room() {
    let runner = Runner::builder()
        .on_ec2()
        .capacity(&["fargate-spot", "fargate", "ec2-spot", "ec2"])
        .build();
    let account = runner.account();
    account.fault(&Fault::capacity().times(2));
    account.shortage(&Shortage::capacity().on_market("spot"));
    runner.config().assert_success();
    let output = runner.prepare().assert_success();
    let told = lines(&output);
    let handed: Vec<_> = told
        .iter()
        .filter(|line| line.starts_with("No room on "))
        .map(|line| {
            let (_, rest) = line.split_once("No room on ").unwrap();
            let from = rest.split_once(':').unwrap().0;
            (from, line.rsplit_once("Trying ").unwrap().1)
        })
        .collect();
    assert_eq!(
        handed,
        [
            ("fargate-spot", "fargate..."),
            ("fargate", "ec2-spot..."),
            ("ec2-spot", "ec2...")
        ]
    );
    assert!(account.tasks().is_empty());
    assert!(!account.instances_alive()[0].spot);
    runner
        .run("build_script", "echo on\n")
        .assert_stdout("on\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn what_is_wrong_for_good_fails_at_once_and_names_it() {
    for (line, cause) in [
        (
            "image_id = \"ami-00000000000000000\"",
            "InvalidAMIID.NotFound",
        ),
        ("instance_types = [\"m7g.large\"]", "architecture"),
        ("key_name = \"nobody\"", "InvalidKeyPair.NotFound"),
        (
            "instance_profile = \"nobody\"",
            "Invalid IAM Instance Profile",
        ),
    ] {
        let runner = Runner::builder().on_ec2().ec2_line(line).build();
        runner.config().assert_success();
        let output = runner.prepare().assert_code(2);
        assert!(output.contains(cause), "{cause}: {output}");
        assert!(output.duration.as_secs() < 20, "{output}");
        assert!(runner.account().instances().is_empty());
        runner.cleanup().assert_success();
    }
}
