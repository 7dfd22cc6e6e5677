//! The values one by one.

use super::*;

#[test]
fn durations_need_a_unit_and_an_end() {
    for (text, want) in [
        ("90s", Ok(Duration::from_secs(90))),
        ("1h 30m", Ok(Duration::from_secs(5400))),
        ("500ms", Ok(Duration::from_millis(500))),
        ("90", Err("is no duration")),
        ("0s", Err("no time at all")),
        ("31days", Err("longer than 30 days")),
        ("soon", Err("such as \"90s\"")),
        ("", Err("is no duration")),
        ("99999999999999999999y", Err("is no duration")),
    ] {
        check(text, parse_wait(text), want);
    }
}

#[test]
fn rungs_are_named_exactly() {
    for (text, want) in [
        ("fargate-spot", Ok(Rung::FargateSpot)),
        ("ec2", Ok(Rung::Ec2)),
        ("local", Ok(Rung::Local)),
        ("ecs:my-asg_1", Ok(Rung::Ecs("my-asg_1".to_owned()))),
        ("ecs:", Err("names no capacity provider")),
        ("ecs:a b", Err("names no capacity provider")),
        ("ecs:FARGATE_SPOT", Err("the rung \"fargate-spot\"")),
        ("fargate_spot", Err("did you mean \"fargate-spot\"?")),
        ("Fargate", Err("did you mean \"fargate\"?")),
        ("kubernetes", Err("there are fargate-spot, fargate,")),
        ("", Err("is no rung")),
    ] {
        check(text, parse_rung(text), want);
    }
}

#[test]
fn words_are_checked() {
    check("info", parse_log_level("INFO"), Ok(LogLevel::Info));
    check("panic", parse_log_level("panic"), Ok(LogLevel::Error));
    let wrong = parse_log_level("inof");
    check("inof", wrong, Err("did you mean \"info\"?"));
    let wrong = parse_log_format("xml");
    check("xml", wrong, Err("there are text, text-simple, json"));
    check("a b", parse_username("a b"), Err("white space"));
    check("", parse_text(" "), Err("the text is empty"));
    check("nul", parse_text("a\0"), Err("control character"));
    check("rel", parse_absolute("builds"), Err("must begin with /"));
    check("a/b", parse_profile_name("a/b"), Err("is no name"));
}

fn check<T: PartialEq + fmt::Debug>(text: &str, got: Result<T, String>, want: Result<T, &str>) {
    match (got, want) {
        (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
        (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
        (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
    }
}
