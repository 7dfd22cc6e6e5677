//! That all that is wrong with a file is told, in its order, and nothing that only follows from something else.

use super::*;

#[test]
fn all_errors_are_told_in_the_order_of_the_file_and_none_that_follows_from_another() {
    let profile = "[[profile]]\nname = \"a\"\nmatch.protected = true\n";
    for (text, wanted) in [
        // What is refused is there, and lacks to nobody.
        (
            "capacity = [\"fargate\", \"ec2\"]\n[fargate]\ntask_definition = 1\nsubnets = 2\n[ec2]\nimage_id = \"x\"\n",
            &[
                "1:12: capacity: the rung \"ec2\" needs [ec2] instance_types",
                "1:12: capacity: the rung \"ec2\" needs [ec2] subnets",
                "3:19: fargate.task_definition",
                "4:11: fargate.subnets",
                "6:12: ec2.image_id",
            ][..],
        ),
        (
            "capacity = [\"ec2\"]\nec2 = 7",
            &["2:7: ec2: expected a table"],
        ),
        (
            "[ec2]\nprivileged = true\ncontainer = \"yes\"",
            &["3:13: ec2.container: invalid type"],
        ),
        // Many of one kind, and in one table.
        (
            "[ssh]\nport = 0\nusername = \"\"\nconnect_timeout = 5\n[tags]\n\"aws:a\" = \"x\"\nb = 1",
            &[
                "2:8: ssh.port",
                "3:12: ssh.username",
                "4:19: ssh.connect_timeout",
                "6:1: tags.\"aws:a\"",
                "7:5: tags.b",
            ],
        ),
        // A duplicate key hides no other error.
        (
            "[ssh]\nport = 1\nport = 2\nport = 3\n[state]\ndirectory = \"a\"\n[SSH]\nPort = 4",
            &[
                "3:1: port: the same is set in line 2",
                "4:1: port: the same is set in line",
                "6:13: state.directory",
                "7:2: SSH: the same is set in line 1 as ssh",
            ],
        ),
        // What breaks TOML does.
        (
            "[ssh]\nport = 1\nport = 0\n[state\ndirectory = \"a\"",
            &["3:1: port: the same is set in line 2", "4:7: not TOML"],
        ),
        // What several profiles share is told once.
        (
            "capacity = [\"fargate\"]\n[fargate]\nsubnets = [\"subnet-a\"]\n[[profile]]\nname = \"a\"\nmatch.protected = true\n[[profile]]\nname = \"b\"\nmatch.protected = false\nssh.port = 0",
            &[
                "1:12: capacity: the rung \"fargate\" needs [fargate] task_definition",
                "10:12: profile[1].ssh.port",
            ],
        ),
        (
            &format!("{profile}{profile}{profile}foo = 1\n"),
            &[
                "5:8: profile[1].name: the profile of line 2 is called \"a\" too",
                "8:8: profile[2].name: the profile of line 2",
                "10:1: profile[2].foo: there is no such key",
            ],
        ),
        (
            "profile = [1, { name = \"\" }, { match = {} }]",
            &[
                "1:12: profile: expected a list of tables, found an integer",
                "1:17: profile[1]: the profile has no match",
                "1:24: profile[1].name: the text is empty",
                "1:32: profile[2]: the profile has no name",
                "1:32: profile[2]: the profile has no match",
            ],
        ),
    ] {
        let got = told(text);
        assert_eq!(got.len(), wanted.len(), "{text}\n{got:#?}");
        for ((got, _), wanted) in got.iter().zip(wanted) {
            let wanted = format!("f.toml:{wanted}");
            assert!(
                got.starts_with(&wanted),
                "{text}\n got {got}\nwant {wanted}"
            );
        }
        let (_, remedy) = failed(text);
        let more = match got.len() {
            1 => "",
            2 => "One more error is told by `gitlab-aws-driver check`.",
            n => &format!(
                "{} more errors are told by `gitlab-aws-driver check`.",
                n - 1
            ),
        };
        assert!(remedy.contains(more), "{text}\n{remedy}");
    }
}

/// A file of nothing but errors is checked quickly, and not all of them are reported.
#[test]
fn very_many_errors_are_told_up_to_a_bound() {
    let twice = "a = 1\n".repeat(20_000);
    let wrong = "[[profile]]\nssh.port = 0\n".repeat(1_000);
    for text in [twice, wrong] {
        let got = told(&text).len();
        assert!((10..3_000).contains(&got), "{got}");
    }
}
