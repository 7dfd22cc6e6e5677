use proptest::prelude::*;

use crate::machine::environment::*;

fn read(environ: &[u8]) -> ContainerEnvironment {
    ContainerEnvironment::read(environ, "sh").unwrap()
}

fn names(environment: &ContainerEnvironment) -> Vec<String> {
    let names = environment.variables.iter().map(|v| &v.name);
    names.map(|n| String::from_utf8_lossy(n).into()).collect()
}

#[test]
fn what_belongs_to_a_login_is_left_out() {
    let mut environ = Vec::new();
    for name in NEVER {
        environ.extend(format!("{name}=x\0").bytes());
    }
    environ.extend(b"SSH_PUBLIC_KEY=ssh-ed25519 AAAA\0SSH_AUTH_SOCK=/x\0SSHX=1\0HOMES=2\0home=3\0=4\0nothing\0A==\0");
    assert_eq!(names(&read(&environ)), ["SSHX", "HOMES", "home", "A"]);
}

#[test]
fn names_that_are_no_identifiers_pass() {
    let environ = b"npm.config=1\0BASH_FUNC_x%%=() {\n :\n}\09=2\0\xff=3\0";
    assert_eq!(
        names(&read(environ)),
        ["npm.config", "BASH_FUNC_x%%", "9", "\u{fffd}"]
    );
}

#[test]
fn the_last_of_two_counts() {
    let environment = read(b"A=1\0B=2\0A=3\0");
    assert_eq!(
        environment.prelude(),
        b"export A='3'\nexport B='2'\n",
        "{environment:?}"
    );
}

#[test]
fn a_title_over_the_environment_is_recognised() {
    let wiped = [0; 700];
    let long_title = [&b"stener] 0 of 10-100 startups"[..], &[0; 500]].concat();
    let with_options = [&b"o Port=22 [listener] 0 of 10-100 startups"[..], &[0; 9]].concat();
    let seen = [&b"tups"[..], &[0; 90], b"s\0"].concat();
    for overwritten in [
        &wiped[..],
        &long_title,
        &with_options,
        &seen,
        b"\0",
        b"startups\0",
    ] {
        assert_eq!(
            ContainerEnvironment::read(overwritten, "sshd"),
            Err(Missing::Overwritten("sshd".into())),
            "{overwritten:?}"
        );
    }
    assert_eq!(ContainerEnvironment::read(b"", "sh"), Err(Missing::Empty));
    // Short ones, and one whose last variable was cut off.
    for kept in [&b"A=b\0"[..], b"A=b", b"A=b\0C=", b"A=b\0\0C=d\0"] {
        assert!(!read(kept).is_empty(), "{kept:?}");
    }
    // Nothing but a login's: that is no environment, but nobody has taken it away.
    assert!(read(b"HOME=/\0").prelude().is_empty());
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let mut environ = b"A=1\0".to_vec();
    environ.extend([b"B=", &vec![b'x'; LIMIT][..]].concat());
    environ.extend(b"\0C=2\0");
    let environment = read(&environ);
    assert_eq!(names(&environment), ["A"]);
    assert!(environment.warning().unwrap().contains("1024 KiB"));
    let exact = [b"A=", &vec![b'x'; LIMIT - 3][..], b"\0"].concat();
    assert_eq!(read(&exact).warning(), None);
    assert_eq!(names(&read(&exact)), ["A"]);
}

#[test]
fn the_record_holds_text_as_text() {
    let environment = read(b"A=\xe2\x9c\x93\nb\0B=\xff\0hex:C=1\0");
    let json = serde_json::to_value(&environment).unwrap();
    let expected = serde_json::json!(["A=\u{2713}\nb", "hex:423dff", "hex:6865783a433d31"]);
    assert_eq!(json["variables"], expected);
    let again: ContainerEnvironment = serde_json::from_value(json).unwrap();
    assert_eq!(again, environment);
    for damaged in ["A", "=b", "", "A=\0", "hex:4", "hex:zz", "hex:41"] {
        let json = serde_json::json!({ "variables": [damaged] });
        let read: Result<ContainerEnvironment, _> = serde_json::from_value(json);
        assert!(read.is_err(), "{damaged:?}");
    }
}

#[test]
fn no_value_is_shown_by_accident() {
    let environment = read(b"TOKEN=secret\0");
    assert!(!format!("{environment:?}").contains("secret"));
}

#[test]
fn each_reason_names_its_remedy() {
    let reasons = [
        (Missing::Unreadable { root: false }, "root"),
        (Missing::Unreadable { root: true }, "initProcessEnabled"),
        (Missing::Overwritten("sshd".into()), "`sshd`"),
        (Missing::Overwritten("sshd".into()), "tini"),
        (Missing::Empty, "tini"),
        (Missing::Foreign, "pidMode"),
    ];
    for (missing, remedy) in reasons {
        let line = missing.warning();
        assert!(line.contains(remedy) && !line.contains('\n'), "{line}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_and_survive_the_record(environ: Vec<u8>) {
        if let Ok(environment) = ContainerEnvironment::read(&environ, "x") {
            let json = serde_json::to_string(&environment).unwrap();
            let again: ContainerEnvironment = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(again.prelude(), environment.prelude());
            prop_assert_eq!(again, environment);
        }
    }

    #[test]
    fn every_wanted_variable_is_found_again(
        values in proptest::collection::btree_map("[A-Z][A-Z0-9.%]{3,9}x", "\\PC{0,20}", 1..20),
    ) {
        let mut environ = Vec::new();
        for (name, value) in &values {
            environ.extend(format!("{name}={value}\0").bytes());
        }
        let wanted = values.keys().filter(|n| !n.starts_with("SSH_")).count();
        prop_assert_eq!(read(&environ).len(), wanted);
    }
}
