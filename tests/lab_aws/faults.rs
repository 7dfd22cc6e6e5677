//! Faults of calls: throttles, lost calls and answers, late effects.

use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use super::Lab;
use super::arn;
use super::timed;
use super::with;
use crate::lab::aws::CLUSTER;
use crate::lab::aws::Fault;
use crate::lab::aws::Meanwhile;

#[test]
fn calls_meet_with_errors_as_often_as_told() {
    let lab = Lab::bare();
    let account = &lab.account;
    let request = lab.request();
    account.fault(&Fault::throttle("RunTask").times(2).skip(1));
    let first = lab.run_task(&request);
    for _ in 0..2 {
        let refusal = lab.refused("RunTask", &request);
        assert_eq!(refusal["__type"], "ThrottlingException");
        assert_eq!(refusal["message"], "Rate exceeded");
    }
    let second = lab.run_task(&request);

    account.fault(&Fault::capacity());
    assert_eq!(
        lab.refused("RunTask", &request)["__type"],
        "ClientException"
    );
    account.fault(&Fault::failure("RESOURCE:ENI"));
    let answer = lab.ecs("RunTask", &request);
    assert_eq!(answer["tasks"], json!([]));
    assert_eq!(answer["failures"][0]["reason"], "RESOURCE:ENI");
    account.fault(&Fault::denied("RunTask"));
    let refusal = lab.refused("RunTask", &request);
    assert_eq!(refusal["__type"], "AccessDeniedException");
    account.fault(&Fault::error("*", 500, "ServerException", "try again"));
    let refusal = lab.refused("RunTask", &request);
    assert_eq!(refusal["__type"], "ServerException");

    // By a parameter, for ever, until told otherwise.
    let marked = with(&request, "startedBy", json!("marked"));
    account.fault(
        &Fault::throttle("RunTask")
            .forever()
            .matching("startedBy", "mark"),
    );
    for _ in 0..3 {
        lab.refused("RunTask", &marked);
    }
    let third = lab.run_task(&request);
    account.no_faults();
    let fourth = lab.run_task(&marked);

    let calls = account.calls("*");
    let runs: Vec<_> = calls.iter().filter(|call| call.service == "ecs").collect();
    assert_eq!(runs.len(), 13, "{runs:#?}");
    assert!(runs.iter().all(|call| call.action == "RunTask"));
    assert_eq!(runs.iter().filter(|call| call.executed).count(), 4);
    let throttled = &runs[1];
    assert_eq!(throttled.fault.as_deref(), Some("throttle"));
    assert_eq!(throttled.status, Some(400));
    assert_eq!(throttled.code.as_deref(), Some("ThrottlingException"));
    assert_eq!(throttled.message.as_deref(), Some("Rate exceeded"));
    assert_eq!(throttled.parameters, request);
    assert_eq!(throttled.caller, account.user());
    assert!(runs.windows(2).all(|pair| pair[0].time <= pair[1].time));
    let answered = runs[0].answer.as_ref().unwrap();
    assert_eq!(arn(&answered["tasks"][0]), first);
    for task in [first, second, third, fourth] {
        lab.stop(&task, "");
    }
}

#[test]
fn other_services_are_throttled_in_their_own_way() {
    let lab = Lab::bare();
    lab.account
        .fault(&Fault::throttle("DescribeNetworkInterfaces"));
    let form = "Action=DescribeNetworkInterfaces&Version=2016-11-15";
    let answer = lab.account.query("ec2", None, form).unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("<Code>RequestLimitExceeded</Code>"));
    let answer = lab.account.query("ec2", None, form).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    lab.account.fault(&Fault::throttle("AssumeRole"));
    let form = "Action=AssumeRole&Version=2011-06-15&RoleArn=x&RoleSessionName=lab";
    let answer = lab.account.query("sts", None, form).unwrap();
    assert!(
        answer.text().contains("<Code>Throttling</Code>"),
        "{}",
        answer.text()
    );
}

#[test]
fn calls_and_answers_are_lost() {
    let lab = Lab::bare();
    let account = &lab.account;
    let request = with(&lab.request(), "clientToken", json!("token"));
    account.fault(&Fault::lost_call("RunTask"));
    account.fault(&Fault::lost_answer("RunTask"));
    account.call("ecs", "RunTask", &request).unwrap_err();
    assert!(account.tasks().is_empty());
    account.call("ecs", "RunTask", &request).unwrap_err();
    assert_eq!(account.tasks().len(), 1);
    let task = lab.run_task(&request);
    assert_eq!(account.tasks().len(), 1);
    assert_eq!(account.tasks()[0].arn, task);
    assert_eq!(account.tasks()[0].token.as_deref(), Some("token"));
    let executed: Vec<_> = account
        .calls("RunTask")
        .iter()
        .map(|call| call.executed)
        .collect();
    assert_eq!(executed, [false, true, true]);
    lab.stop(&task, "");
}

#[test]
fn an_effect_comes_after_its_caller_died() {
    let lab = Lab::bare();
    let account = &lab.account;
    let late = Duration::from_secs(3);
    let request = with(&lab.request(), "clientToken", json!("one"));
    account.fault(&Fault::delayed("RunTask", late, Meanwhile::Cut));
    let began = Instant::now();
    account.call("ecs", "RunTask", &request).unwrap_err();
    assert!(account.tasks().is_empty());
    account.wait("the effect", |state| !state.tasks.is_empty());
    assert!(began.elapsed() >= late);
    // The same call again finds it.
    let task = lab.run_task(&request);
    assert_eq!(account.tasks().len(), 1);
    lab.stop(&task, "");

    // A repeated call can overtake the first: that one finds the task then.
    let request = with(&request, "clientToken", json!("two"));
    account.fault(&Fault::delayed("RunTask", late, Meanwhile::Waits));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| timed(|| lab.run_task(&request)));
        account.wait_calls("RunTask", 3);
        let second = lab.run_task(&request);
        let (took, first) = first.join().unwrap();
        assert!(took >= late);
        assert_eq!(first, second);
        lab.stop(&second, "");
    });
    assert_eq!(account.tasks().len(), 2);

    account.fault(&Fault::slow("ListTasks", late));
    let (took, _) = timed(|| lab.list(&json!({ "cluster": CLUSTER })));
    assert!(took >= late);
    assert!(account.alive().len() <= 2);
}
