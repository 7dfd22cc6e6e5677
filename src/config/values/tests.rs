//! The values one by one.

use proptest::prelude::*;

use super::aws::*;
use super::*;

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
    check(
        "ci-bastion_1",
        parse_manager("ci-bastion_1"),
        Ok("ci-bastion_1".to_owned()),
    );
    for text in ["a b", "a/b", "ä", &"x".repeat(33)] {
        check(text, parse_manager(text), Err("is no name for a manager"));
    }
}

#[test]
fn names_that_aws_gives_are_told_from_what_never_could_be_one() {
    type Parse = fn(&str) -> Result<String, String>;
    let all: [(Parse, &[&str], &[&str]); 8] = [
        (
            parse_machine_image,
            &[
                "ami-0123456789abcdef0",
                "ami-1",
                "/aws/service/debian/release/12/latest/amd64",
                "/ci",
            ],
            &[
                "ami-",
                "ami-!",
                "debian",
                "/",
                "/ci/",
                "resolve:ssm:/ci",
                "ssm:/ci",
                "/a b",
                "AMI-1",
            ],
        ),
        (
            parse_instance_type,
            &[
                "c7i.large",
                "u-6tb1.56xlarge",
                "mac2-m2.metal",
                "c7gn.metal-48xl",
                "t3.micro",
            ],
            &[
                "large",
                "c7i",
                "c7i.",
                ".large",
                "C7I.large",
                "c7i.large.x",
                "c7*.large",
                "c7i large",
            ],
        ),
        (
            parse_subnet,
            &["subnet-0a1b2c3d", "subnet-1"],
            &[
                "subnet-",
                "sg-1",
                "subnet",
                "subnet-1,subnet-2",
                "subnet- 1",
            ],
        ),
        (
            parse_security_group,
            &["sg-0a1b2c3d"],
            &["default", "sg-", "subnet-1"],
        ),
        (
            parse_launch_template,
            &[
                "lt-0123456789abcdef0",
                "lt-1:3",
                "ci-job",
                "ci/job(1):$Latest",
                "ci-job:$Default",
            ],
            &[
                "ab",
                "ci job",
                "ci-job:",
                "ci-job:latest",
                "ci-job:-1",
                "ci-job:1:2",
            ],
        ),
        (
            parse_instance_profile,
            &[
                "ci-job",
                "a+=,.@_-",
                "arn:aws:iam::111122223333:instance-profile/ci",
            ],
            &["ci job", "arn:aws:iam::111122223333:role/ci", "a/b"],
        ),
        (
            parse_volume_type,
            &["gp3", "gp2", "standard"],
            &["io1", "io2", "st1", "sc1", "ssd", "GP3", ""],
        ),
        (
            parse_price,
            &["0.05", "1", "12.5", "0.000001"],
            &[
                "0", "0.0", "-1", ".5", "1.", "1e3", "$1", "0,05", "free", "",
            ],
        ),
    ];
    for (parse, right, wrong) in all {
        for text in right {
            assert_eq!(parse(text).as_deref(), Ok(*text));
        }
        for text in wrong {
            assert!(parse(text).is_err(), "{text}");
        }
    }
    check("10TiB", parse_volume_size("64TiB"), Ok(64 << 40));
    check(
        "0.5",
        parse_volume_size("1.5GiB"),
        Err("no whole number of GiB"),
    );
    check("65", parse_volume_size("65TiB"), Err("more than the 64TiB"));
    check(
        "io2",
        parse_volume_type("io2"),
        Err("launch template of your own"),
    );
    check(
        "arm",
        parse_architecture("arm46"),
        Err("did you mean \"arm64\"?"),
    );
    check("image", parse_container_image("-v/:/x"), Err("is no image"));
}

proptest! {
    /// A value that is taken can be put into a request, and into a command line, as it is.
    #[test]
    fn whatever_is_taken_holds_nothing_odd(text in "\\PC{0,24}|(ami-|subnet-|sg-|/)?[a-z0-9./:-]{0,12}") {
        for parse in [
            parse_machine_image, parse_instance_type, parse_subnet, parse_security_group,
            parse_container_image, parse_price, parse_volume_type,
        ] {
            if let Ok(taken) = parse(&text) {
                prop_assert_eq!(&taken, &text);
                prop_assert!(!taken.is_empty() && !taken.starts_with('-'));
                prop_assert!(!taken.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\'' || c == '"'));
            }
        }
        drop((parse_launch_template(&text), parse_rung(&text), parse_architecture(&text), parse_volume_size(&text), parse_instance_profile(&text)));
    }
}

fn check<T: PartialEq + fmt::Debug>(text: &str, got: Result<T, String>, want: Result<T, &str>) {
    match (got, want) {
        (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
        (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
        (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
    }
}
