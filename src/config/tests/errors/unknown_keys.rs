//! How errors about keys that nobody knows read, and about profiles and limits, in which nothing is ignored.

use super::assert_told;

#[test]
fn what_would_open_something_if_it_were_ignored_is_an_error() {
    for (text, message, remedy) in [
        // What would open something if it were ignored.
        (
            "[[profile]]\nname = \"a\"\nmatch = { projekt = \"g\", protected = true }",
            "f.toml:3:11: profile[0].match.projekt: there is no such key; did you mean project?",
            "more jobs than meant",
        ),
        (
            "[[profile]]\nname = \"a\"\n[profile.match]\nprotected = true\nsomething_else = 1",
            "f.toml:5:1: profile[0].match.something_else: there is no such key",
            "more jobs than meant",
        ),
        (
            "[Fargate]\nCluster = \"ci\"\n[limit]\nroles = [\"arn:aws:iam::*:role/ci-*\"]",
            "f.toml:3:2: limit: there is no such key; did you mean limits?",
            "what it was to forbid",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\n[profile.limts]\nmax_cpu = \"4\"",
            "f.toml:4:10: profile[0].limts: there is no such key; did you mean limits?",
            "what it was to forbid",
        ),
        // What is there, but under a name that nobody knows.
        (
            "capacity = [\"ec2-spot\"]\n[ec2]\nimage_id = \"ami-0123456789abcdef0\"\ninstance_type = [\"c7i.large\"]\nsubnets = [\"subnet-1\"]",
            "f.toml:4:1: ec2.instance_type: there is no such key; did you mean instance_types?",
            "f.toml:1:12: capacity: the rung \"ec2-spot\" needs [ec2] instance_types, which is not there",
        ),
        (
            "capacity = [\"ec2\"]\n[ec3]\nimage_id = \"ami-0123456789abcdef0\"",
            "f.toml:2:2: ec3: there is no such key; did you mean ec2?",
            "needs [ec2] image_id",
        ),
        (
            "capacity = [\"fargate\"]\ntask_definition = \"ci-job\"\n[fargate]\nsubnets = [\"subnet-1\"]",
            "f.toml:2:1: task_definition: there is no such key; did you mean task_definition under [fargate]?",
            "needs [fargate] task_definition",
        ),
        (
            "capacity = [\"fargate\"]\n[fargate]\ntask_definition = \"a\"\nsubnets = [\"subnet-b\"]\n[[profile]]\nname = \"a\"\nmatch.protected = true\ncapacity = [\"ec2\"]\n[profile.ec2]\nimage-ids = \"ami-0123456789abcdef0\"",
            "f.toml:10:1: profile[0].ec2.image-ids: there is no such key; did you mean image_id?",
            "the profile's jobs might get more",
        ),
        (
            "rung_wait = \"5m\"\n[ec2]\nprivileged = true\ncontaner = true",
            "f.toml:4:1: ec2.contaner: there is no such key; did you mean container?",
            "container = true is not there",
        ),
        (
            "[[profile]]\nnmae = \"a\"",
            "f.toml:2:1: profile[0].nmae: there is no such key; did you mean name?",
            "the profile's jobs might get more",
        ),
        // In a profile nothing is ignored.
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\ncapcity = 1",
            "f.toml:4:1: profile[0].capcity: there is no such key; did you mean capacity?",
            "correct the name, or take it out",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\nssh.prot = 1",
            "f.toml:4:5: profile[0].ssh.prot: there is no such key; did you mean port?",
            "correct the name",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\nproject = \"a\"",
            "f.toml:4:1: profile[0].project: there is no such key; did you mean project under [profile.match]?",
            "correct the name",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = { protected = true, rung_wait = \"5m\" }",
            "f.toml:3:29: profile[0].match.rung_wait: there is no such key; it belongs right below [[profile]]",
            "more jobs than meant",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\nfargate = { max_cpu = \"1\" }",
            "f.toml:4:13: profile[0].fargate.max_cpu: there is no such key; did you mean max_cpu under [profile.limits]?",
            "correct the name",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\n[profile.fargate.limits]",
            "f.toml:4:18: profile[0].fargate.limits: there is no such key; did you mean [profile.limits]?",
            "what it was to forbid",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch.protected = true\n[[profile.limits]]\nroles = []",
            "f.toml:4:1: profile[0].limits: expected a table, found an array",
            "Write [limits] on a line",
        ),
        // Patterns that fit no job: such a profile would apply to none.
        (
            "[[profile]]\nname = \"a\"\nmatch = { project = \" g/**\" }",
            "f.toml:3:21: profile[0].match.project: \" g/**\" fits nothing: there are blanks around it",
            "project = \"group/**\"",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = { project = \"https://gitlab.example.com/g/*\" }",
            "f.toml:3:21: profile[0].match.project: \"https://gitlab.example.com/g/*\" fits no project",
            "project = \"group/**\"",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = { ref = \"refs/heads/main\" }",
            "f.toml:3:17: profile[0].match.ref: \"refs/heads/main\" fits no branch or tag: GitLab names it \"main\"",
            "ref = \"release/*\"",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = { image = \"docker:* \" }",
            "f.toml:3:19: profile[0].match.image: \"docker:* \" fits nothing",
            "image = ",
        ),
        // What looks like a profile or a limit.
        (
            "[profiles.limits]\ntask_definitions = []",
            "f.toml:1:2: profiles: there is no such key; did you mean profile?",
            "each profile begins with [[profile]]",
        ),
        (
            "[[job_profile]]\nname = \"a\"",
            "f.toml:1:3: job_profile: there is no such key; did you mean profile?",
            "[[profile]]",
        ),
        (
            "[aws]\nregion = 1\n[aws.job-limit]\nroles = []",
            "f.toml:1:2: aws: there is no such key; did you mean limits?",
            "what it was to forbid",
        ),
        (
            "[fargte]\nlimits = { roles = [] }",
            "f.toml:1:2: fargte: there is no such key; did you mean fargate?",
            "what it was to forbid",
        ),
        (
            "[fargate.Limits]\nroles = []",
            "f.toml:1:10: fargate.Limits: there is no such key; did you mean [limits]?",
            "what it was to forbid",
        ),
        (
            "[[runners]]\nname = \"a\"\n[ssh]\nport = 0",
            "f.toml:1:3: runners: this is GitLab Runner's own configuration",
            "each of the four *_args",
        ),
        // Profiles.
        (
            "[[profile]]\ncapacity = [\"ec2\"]",
            "f.toml:2:1: profile[0]: the profile has no name",
            "name = \"docker\"",
        ),
        (
            "[[profile]]\nname = \"a\"",
            "f.toml:2:1: profile[0]: the profile \"a\" has no match",
            "match = {",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = {}",
            "f.toml:2:1: profile[0]: the profile \"a\" has no match",
            "match = {",
        ),
        (
            "[[profile]]",
            "f.toml:1:1: profile[0]: the profile has no name",
            "name =",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = { project = \"g/*\" }\n[[profile]]\nname = \"a\"",
            "f.toml:5:8: profile[1].name: the profile of line 2 is called \"a\" too",
            "name of its own",
        ),
        (
            "[[profile]]\nname = \"a\"\nmatch = { protected = 1 }",
            "f.toml:3:23: profile[0].match.protected: invalid type: integer `1`, expected true or false",
            "For example, under [profile.match]: protected = true",
        ),
        (
            "[[profile]]\nname = \"a\"\nssh.port = 70000",
            "f.toml:3:12: profile[0].ssh.port: 70000 is no TCP port",
            "under [profile.ssh]: port = 22",
        ),
        (
            "[[profile]]\nLogLevel = \"info\"",
            "f.toml:2:1: profile[0].LogLevel: no profile can set this",
            "Put LogLevel above the first [[profile]].",
        ),
        (
            "[[profile]]\n[profile.state]\ndirectory = \"/a\"",
            "f.toml:2:10: profile[0].state: no profile can set this",
            "Put [state] above",
        ),
    ] {
        assert_told(text, message, remedy);
    }
}
