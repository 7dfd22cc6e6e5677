//! Life cycle, tokens, lists, and what AWS checks of a request.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use super::Lab;
use super::arn;
use super::detail;
use super::with;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::Fate;

#[test]
fn a_task_lives_by_time_and_not_by_being_looked_at() {
    const NEVER: f64 = 86_400.0;
    let lab = Lab::bare();
    lab.account.timings(&[("provisioning", NEVER)]);
    let first = lab.ecs("RunTask", &lab.request())["tasks"][0].clone();
    assert_eq!(first["lastStatus"], "PROVISIONING");
    assert_eq!(first["desiredStatus"], "RUNNING");
    assert_eq!(first["launchType"], "FARGATE");
    assert_eq!(detail(&first, "privateIPv4Address"), None);
    for _ in 0..10 {
        assert_eq!(lab.describe(&arn(&first))["lastStatus"], "PROVISIONING");
    }
    lab.stop(&arn(&first), "");

    lab.account
        .timings(&[("provisioning", 0.4), ("pending", NEVER)]);
    let began = Instant::now();
    let task = lab.run_task(&lab.request());
    let pending = lab.wait_status(&task, "PENDING");
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(pending["attachments"][0]["status"], "ATTACHED");
    let address = detail(&pending, "privateIPv4Address").unwrap();
    let subnet = detail(&pending, "subnetId").unwrap();
    assert!(lab.account.subnets().contains(&subnet));
    assert!(address.starts_with("127."), "{address}");
    assert!(detail(&pending, "networkInterfaceId").is_some());
    assert_eq!(lab.account.state().interfaces, 1);
    assert!(pending["startedAt"].is_null());
    lab.stop(&task, "");
    lab.wait_status(&task, "STOPPED");
    assert_eq!(lab.account.state().interfaces, 0);

    lab.account
        .timings(&[("provisioning", 0.4), ("pending", 0.4)]);
    let began = Instant::now();
    let task = lab.run_task(&lab.request());
    let running = lab.wait_status(&task, "RUNNING");
    assert!(began.elapsed() >= Duration::from_millis(800));
    let time = |value: &Value, name: &str| value[name].as_f64().unwrap();
    assert!(time(&running, "createdAt") < time(&running, "pullStartedAt"));
    assert!(time(&running, "pullStartedAt") < time(&running, "pullStoppedAt"));
    assert!(time(&running, "pullStoppedAt") < time(&running, "startedAt"));
    assert_eq!(running["connectivity"], "CONNECTED");
    assert_eq!(running["platformVersion"], "1.4.0");
    assert_eq!(running["group"], "family:job");
    let container = &running["containers"][0];
    assert_eq!(container["name"], CONTAINER);
    assert_eq!(container["lastStatus"], "RUNNING");
    let interface = &container["networkInterfaces"][0];
    let address = detail(&running, "privateIPv4Address").unwrap();
    assert_eq!(interface["privateIpv4Address"], json!(address));
    let definition = running["taskDefinitionArn"].as_str().unwrap();
    assert!(definition.ends_with(":task-definition/job:1"));

    lab.stop(&task, "enough");
    let stopped = lab.wait_status(&task, "STOPPED");
    assert_eq!(stopped["stopCode"], "UserInitiated");
    assert_eq!(stopped["stoppedReason"], "enough");
    assert_eq!(stopped["containers"][0]["exitCode"], 0);
    assert!(time(&stopped, "stoppingAt") <= time(&stopped, "executionStoppedAt"));
    assert!(time(&stopped, "executionStoppedAt") < time(&stopped, "stoppedAt"));
    assert_eq!(lab.account.state().interfaces, 0);
    // A second StopTask changes nothing.
    lab.stop(&task, "again");
    assert_eq!(lab.describe(&task)["stoppedReason"], "enough");
}

#[test]
fn all_containers_tags_and_overrides_are_told() {
    let lab = Lab::bare();
    let account = &lab.account;
    let definition = account.register(&json!({
        "family": "two",
        "taskRoleArn": format!("arn:aws:iam::{}:role/job", account.id()),
        "tags": [{ "key": "team", "value": "infra" }],
        "containerDefinitions": [
            { "name": "side", "image": "lab", "essential": false },
            { "name": CONTAINER, "image": "lab", "essential": true, "stopTimeout": 1 },
        ],
    }));
    let request = with(&lab.request(), "taskDefinition", json!(definition));
    let request = with(&request, "tags", json!([{ "key": "a", "value": "b" }]));
    let request = with(&request, "propagateTags", json!("TASK_DEFINITION"));
    let request = with(&request, "startedBy", json!("lab/1"));
    let request = with(&request, "enableExecuteCommand", json!(true));
    let request = with(&request, "platformVersion", json!("1.3.0"));
    let task = lab.run_task(&request);
    let running = lab.wait_status(&task, "RUNNING");
    let names: Vec<_> = running["containers"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(
        running["tags"],
        json!([{ "key": "a", "value": "b" }, { "key": "team", "value": "infra" }])
    );
    assert_eq!(running["startedBy"], "lab/1");
    assert_eq!(running["enableExecuteCommand"], true);
    assert_eq!(running["platformVersion"], "1.3.0");
    assert_eq!(
        running["overrides"]["containerOverrides"],
        request["overrides"]["containerOverrides"]
    );
    let parameters = json!({ "cluster": CLUSTER, "tasks": [task] });
    let without = lab.ecs("DescribeTasks", &parameters);
    assert_eq!(without["tasks"][0]["tags"], json!([]));
    // The lab itself knows it all.
    let known = &lab.account.tasks()[0];
    assert_eq!(known.family, "two");
    assert_eq!(known.started_by.as_deref(), Some("lab/1"));
    assert_eq!(known.tags["team"], "infra");
    assert_eq!(known.caller, lab.account.user());
    assert!(known.subnet.is_some() && known.token.is_none());
    lab.stop(&task, "");
}

#[test]
fn a_token_gives_the_first_result_again() {
    let lab = Lab::bare();
    let request = with(&lab.request(), "clientToken", json!("t".repeat(64)));
    let first = lab.ecs("RunTask", &request);
    let again = lab.ecs("RunTask", &request);
    assert_eq!(first, again);
    let task = arn(&first["tasks"][0]);
    let other = with(&request, "startedBy", json!("someone-else"));
    let conflict = lab.refused("RunTask", &other);
    assert_eq!(conflict["__type"], "ConflictException");
    assert_eq!(conflict["resourceIds"], json!([task]));
    lab.stop(&task, "");
    lab.wait_status(&task, "STOPPED");
    assert_eq!(lab.ecs("RunTask", &request), first);
    assert_eq!(lab.account.tasks().len(), 1);
    assert_eq!(lab.account.calls("RunTask").len(), 4);

    // It is the cluster's own, and an error does not use it up.
    lab.account.cluster("other", &["FARGATE"], &["FARGATE"]);
    let elsewhere = with(&request, "cluster", json!("other"));
    let elsewhere = with(&elsewhere, "launchType", Value::Null);
    let unknown = with(&elsewhere, "taskDefinition", json!("nothing"));
    lab.refused("RunTask", &unknown);
    let second = lab.ecs("RunTask", &elsewhere);
    assert_ne!(arn(&second["tasks"][0]), task);
    assert_eq!(second["tasks"][0]["capacityProviderName"], "FARGATE");
    let second = arn(&second["tasks"][0]);
    lab.ecs("StopTask", &json!({ "cluster": "other", "task": second }));
}

#[test]
fn capacity_providers_are_the_clusters_own() {
    let lab = Lab::bare();
    let account = &lab.account;
    let bare = with(&lab.request(), "launchType", Value::Null);
    let on = |name: &str| {
        let strategy = json!([{ "capacityProvider": name, "weight": 1 }]);
        with(&bare, "capacityProviderStrategy", strategy)
    };
    let refusal = lab.refused("RunTask", &bare);
    assert_eq!(refusal["__type"], "InvalidParameterException");
    let none = "No Container Instances were found in your cluster.";
    assert_eq!(refusal["message"], none);
    let refusal = lab.refused("RunTask", &on("nobody"));
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains("'nobody' was not found"), "{message}");
    account.provider("managed");
    let refusal = lab.refused("RunTask", &on("managed"));
    let message = refusal["message"].as_str().unwrap();
    assert!(
        message.contains("not associated with the cluster"),
        "{message}"
    );

    account.register(&json!({
        "family": "any",
        "requiresCompatibilities": ["FARGATE", "MANAGED_INSTANCES"],
        "containerDefinitions": [{ "name": CONTAINER, "image": "lab", "memory": 64 }],
    }));
    account.cluster(CLUSTER, &["FARGATE_SPOT", "managed"], &["FARGATE_SPOT"]);
    let managed = with(&on("managed"), "taskDefinition", json!("any"));
    for (name, value) in [
        ("platformVersion", json!("1.4.0")),
        (
            "networkConfiguration/awsvpcConfiguration/assignPublicIp",
            json!("ENABLED"),
        ),
    ] {
        lab.refused("RunTask", &with(&managed, name, value));
    }
    let managed = lab.ecs("RunTask", &managed);
    let managed = &managed["tasks"][0];
    assert_eq!(managed["capacityProviderName"], "managed");
    assert!(managed["platformVersion"].is_null());
    let spot = lab.ecs("RunTask", &bare)["tasks"][0].clone();
    assert_eq!(spot["capacityProviderName"], "FARGATE_SPOT");
    assert_eq!(spot["launchType"], "FARGATE");
    let provider = account.tasks()[1].provider.clone();
    assert_eq!(provider.as_deref(), Some("FARGATE_SPOT"));
    lab.refused(
        "RunTask",
        &with(&on("FARGATE_SPOT"), "launchType", json!("FARGATE")),
    );
    for task in [managed, &spot] {
        lab.stop(&arn(task), "");
    }
}

#[test]
fn what_aws_refuses_is_refused() {
    let lab = Lab::bare();
    let request = lab.request();
    let network = "networkConfiguration/awsvpcConfiguration";
    let tags = |pairs: Vec<(String, String)>| {
        let tags = pairs.into_iter();
        tags.map(|(key, value)| json!({ "key": key, "value": value }))
            .collect::<Value>()
    };
    let tag = |key: &str, value: &str| tags(vec![(key.to_owned(), value.to_owned())]);
    let many = |count: usize| {
        let pairs = (0..count).map(|number| (format!("k{number}"), String::new()));
        tags(pairs.collect())
    };
    let environment = |length: usize| {
        let variable = json!({ "name": "X", "value": "x".repeat(length) });
        json!([{ "name": CONTAINER, "environment": [variable] }])
    };
    let wrong = [
        ("tags", tag("a", "test: [linux, 3.12]")),
        ("tags", tag("a", "tick ✓")),
        ("tags", tag("aws:a", "b")),
        ("tags", tag("", "b")),
        ("tags", tag(&"k".repeat(129), "b")),
        ("tags", tag("k", &"v".repeat(257))),
        ("tags", many(51)),
        ("tags", json!([{ "key": "a" }, { "key": "a" }])),
        ("startedBy", json!("s".repeat(37))),
        ("startedBy", json!("with space")),
        ("clientToken", json!("t".repeat(65))),
        ("clientToken", json!("ü")),
        ("overrides/containerOverrides", environment(8_192)),
        (
            "overrides/containerOverrides",
            json!([{ "name": "nobody" }]),
        ),
        ("platformVersion", json!("9.9.9")),
        ("enableExecuteCommand", json!(true)),
        ("propagateTags", json!("EVERYTHING")),
        ("count", json!(11)),
        ("cluster", json!("nobody")),
        ("taskDefinition", json!("nobody")),
        ("taskDefinition", json!("job:2")),
        ("networkConfiguration", Value::Null),
        (&format!("{network}/subnets"), json!([])),
        (&format!("{network}/subnets"), json!(["subnet-0"])),
        (&format!("{network}/subnets"), json!(vec!["subnet-0"; 17])),
        (&format!("{network}/securityGroups"), json!(["sg-0"])),
        (&format!("{network}/securityGroups"), json!(vec!["sg-0"; 6])),
    ];
    for (path, value) in wrong {
        let refusal = lab.refused("RunTask", &with(&request, path, value.clone()));
        assert!(refusal["__type"].is_string(), "{path} {value}: {refusal}");
    }
    assert!(lab.account.tasks().is_empty());
    let fifty = with(&request, "tags", many(50));
    let fifty = with(&fifty, "startedBy", json!("s".repeat(36)));
    let task = lab.run_task(&fifty);
    let all = with(&request, "tags", tag("Größe _.:/=+-@", "äöü 12 _.:/=+-@"));
    let other = lab.run_task(&with(
        &all,
        "overrides/containerOverrides",
        environment(8_000),
    ));

    // The other calls.
    let call = |task: &str| json!({ "cluster": CLUSTER, "task": task });
    let unknown = call(&"0".repeat(32));
    let refusal = lab.refused("StopTask", &unknown);
    assert_eq!(refusal["message"], "The referenced task was not found.");
    lab.refused("StopTask", &call("short"));
    lab.refused("StopTask", &with(&call(&task), "cluster", json!("nobody")));
    lab.refused(
        "StopTask",
        &with(&call(&task), "reason", json!("r".repeat(1_025))),
    );
    let both = json!({ "cluster": CLUSTER, "tasks": [task, "0".repeat(32)] });
    let described = lab.ecs("DescribeTasks", &both);
    assert_eq!(described["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(described["failures"][0]["reason"], "MISSING");
    lab.refused(
        "DescribeTasks",
        &json!({ "cluster": CLUSTER, "tasks": vec![&task; 101] }),
    );
    let both = json!({ "cluster": CLUSTER, "startedBy": "x", "family": "job" });
    lab.refused("ListTasks", &both);
    for task in [task, other] {
        lab.stop(&task, "");
    }
}

#[test]
fn lists_have_pages_and_lag() {
    let lab = Lab::bare();
    let request = with(&lab.request(), "startedBy", json!("lab"));
    let mut tasks: Vec<_> = (0..3).map(|_| lab.run_task(&request)).collect();
    let all = json!({ "cluster": CLUSTER, "startedBy": "lab" });
    assert_eq!(lab.list(&all), tasks);
    let page = lab.ecs("ListTasks", &with(&all, "maxResults", json!(2)));
    assert_eq!(page["taskArns"], json!(tasks[..2]));
    let rest = with(&all, "nextToken", page["nextToken"].clone());
    assert_eq!(lab.list(&rest), tasks[2..]);
    let other = json!({ "cluster": CLUSTER, "startedBy": "nobody" });
    assert!(lab.list(&other).is_empty());

    lab.stop(&tasks[0], "");
    lab.wait_status(&tasks[0], "STOPPED");
    assert_eq!(lab.list(&all), tasks[1..]);
    let stopped = json!({ "cluster": CLUSTER, "desiredStatus": "STOPPED" });
    assert_eq!(lab.list(&stopped), tasks[..1]);

    let lag = Duration::from_secs(5);
    lab.account.lag(lag, lag);
    let began = Instant::now();
    let late = lab.run_task(&request);
    let look = json!({ "cluster": CLUSTER, "tasks": [late] });
    assert_eq!(
        lab.ecs("DescribeTasks", &look)["failures"][0]["reason"],
        "MISSING"
    );
    assert_eq!(lab.list(&all).len(), 2);
    crate::lab::traces::until("the list knows", lag * 20, || lab.list(&all).len() == 3);
    assert!(began.elapsed() >= lag);
    assert_eq!(lab.ecs("DescribeTasks", &look)["failures"], json!([]));
    tasks.push(late);
    for task in &tasks[1..] {
        lab.stop(task, "");
    }
}

#[test]
fn stop_task_lags_where_a_test_says_so() {
    let lab = Lab::bare();
    let lag = Duration::from_secs(5);
    lab.account.stop_lag(lag);
    let began = Instant::now();
    let task = lab.run_task(&lab.request());
    let stop = json!({ "cluster": CLUSTER, "task": task });
    let refusal = lab.refused("StopTask", &stop);
    assert_eq!(refusal["message"], "The referenced task was not found.");
    let status = || {
        let answer = lab.account.call("ecs", "StopTask", &stop);
        answer.unwrap().status
    };
    crate::lab::traces::until("the lag's end", lag * 20, || status() == 200);
    assert!(began.elapsed() >= lag);
    lab.wait_status(&task, "STOPPED");
}

#[test]
fn tasks_meet_with_their_fates() {
    let lab = Lab::bare();
    let account = &lab.account;
    let reason =
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): not found";
    account.fate(&Fate::failed_to_start(reason));
    account.fate(&Fate::stuck("PROVISIONING").times(1));
    account.fate(&Fate::ordinary());
    account.fate(&Fate::exits_at_once(3));
    account.fate(&Fate::out_of_memory(Duration::ZERO));
    let next = || lab.run_task(&lab.request());

    let failed = lab.wait_status(&next(), "STOPPED");
    assert_eq!(failed["stopCode"], "TaskFailedToStart");
    assert_eq!(failed["stoppedReason"], reason);
    assert_eq!(failed["containers"][0]["reason"], reason);
    assert!(failed["containers"][0]["exitCode"].is_null());
    assert!(failed["startedAt"].is_null());

    let stuck = next();
    let ordinary = next();
    lab.wait_status(&ordinary, "RUNNING");
    assert_eq!(lab.describe(&stuck)["lastStatus"], "PROVISIONING");
    lab.stop(&stuck, "no room");
    let stopped = lab.wait_status(&stuck, "STOPPED");
    assert_eq!(stopped["stoppedReason"], "no room");

    let exited = lab.wait_status(&next(), "STOPPED");
    assert_eq!(exited["stopCode"], "EssentialContainerExited");
    assert_eq!(
        exited["stoppedReason"],
        "Essential container in task exited"
    );
    assert_eq!(exited["containers"][0]["exitCode"], 3);

    let killed = lab.wait_status(&next(), "STOPPED");
    assert_eq!(killed["containers"][0]["exitCode"], 137);
    let reason = killed["containers"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("OutOfMemoryError"), "{reason}");

    account.meet(&ordinary, &Fate::spot_interruption(Duration::ZERO));
    let taken = lab.wait_status(&ordinary, "STOPPED");
    assert_eq!(taken["stopCode"], "SpotInterruption");

    // By provider, for all.
    account.fate(
        &Fate::stopped("RUNNING", "ServiceSchedulerInitiated", "x")
            .forever()
            .on_provider("FARGATE_SPOT"),
    );
    let strategy = json!([{ "capacityProvider": "FARGATE_SPOT" }]);
    let spot = with(&lab.request(), "launchType", Value::Null);
    let spot = with(&spot, "capacityProviderStrategy", strategy);
    for _ in 0..2 {
        let gone = lab.wait_status(&lab.run_task(&spot), "STOPPED");
        assert_eq!(gone["stopCode"], "ServiceSchedulerInitiated");
    }
    account.no_fates();
    let well = lab.run_task(&spot);
    lab.wait_status(&well, "RUNNING");
    let by = Fate::stopped_by_someone(Duration::from_millis(50), "by hand");
    account.meet(&well, &by);
    let stopped = lab.wait_status(&well, "STOPPED");
    assert_eq!(stopped["stoppedReason"], "by hand");
    let known = account.tasks().pop().unwrap();
    assert_eq!(known.stop_code.as_deref(), Some("UserInitiated"));
    assert_eq!(known.reason.as_deref(), Some("by hand"));
    assert_eq!(account.state().calls, account.calls("*").len());
}
