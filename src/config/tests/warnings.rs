//! How warnings about a file's content read.

use super::*;

#[test]
fn unknown_keys_warn_with_path_line_and_suggestion() {
    for (text, want) in [
        (
            "[ssh]\nprot = 1",
            "f.toml:2: unknown key ssh.prot is ignored; did you mean port?",
        ),
        (
            "[Fargate]\nClutser = \"a\"",
            "f.toml:2: unknown key Fargate.Clutser is ignored; did you mean Cluster?",
        ),
        (
            "[fargate]\ntask_defintion = \"a\"",
            "f.toml:2: unknown key fargate.task_defintion is ignored; did you mean task_definition?",
        ),
        (
            "[Fargate]\nSecurityGroups = \"a\"",
            "f.toml:2: unknown key Fargate.SecurityGroups is ignored; did you mean security_groups?",
        ),
        (
            "[ssh]\nconnecttimeout = \"1m\"",
            "f.toml:2: unknown key ssh.connecttimeout is ignored; did you mean connect_timeout?",
        ),
        (
            "[ssh]\ncapacity = [\"ec2\"]",
            "f.toml:2: unknown key ssh.capacity is ignored; it belongs at the top of the file, above the first [table]",
        ),
        (
            "port = 1",
            "f.toml:1: unknown key port is ignored; did you mean port under [ssh]?",
        ),
        (
            "Username = \"a\"",
            "f.toml:1: unknown key Username is ignored; did you mean Username under [SSH]?",
        ),
        (
            "[sssh]\nport = 1",
            "f.toml:1: unknown key sssh is ignored; did you mean ssh?",
        ),
        ("\"a b\" = 1", "f.toml:1: unknown key \"a b\" is ignored"),
        (
            "\"a\\nb\" = 1",
            "f.toml:1: unknown key \"a\\nb\" is ignored",
        ),
        (
            "[Fargate]\nProfile = \"ops\"",
            "f.toml:2: unknown key Fargate.Profile is ignored",
        ),
        (
            "TimeLimit = 3",
            "f.toml:1: unknown key TimeLimit is ignored",
        ),
    ] {
        let warnings = parsed(text).warnings;
        assert_eq!(warnings.first().map(String::as_str), Some(want), "{text}");
    }
    let two = parsed("zzzz = 1\n[ssh]\nxxxx = 1\n[limits]\n").warnings;
    assert_eq!(two.len(), 2);
    assert!(two[0].contains("zzzz") && two[1].contains("ssh.xxxx"));
}

#[test]
fn a_profile_that_no_job_gets_as_far_as_is_odd() {
    let profile =
        |name: &str, fits: &str| format!("[[profile]]\nname = \"{name}\"\nmatch = {fits}\n");
    let warnings = |first: &str, second: &str| {
        let file = profile("a", first) + &profile("b", second);
        parsed(&file).warnings
    };
    let odd = warnings("{ job_name = \"*\" }", "{ protected = true }");
    let want = "f.toml:5: no job gets as far as the profile \"b\": the profile \"a\" above it fits whatever it fits";
    assert_eq!(odd, [want]);
    // Not every server says which project it is.
    for (above, below) in [
        ("{ protected = true }", "{ project = \"**\" }"),
        ("{ project = \"**\" }", "{ protected = true }"),
    ] {
        assert_eq!(warnings(above, below), Vec::<String>::new());
    }
}
